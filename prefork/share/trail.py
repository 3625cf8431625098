"""Where a page is: the folders above it, as links.

A worker, any thread. Pure. All links are relative, so that a share may stand below
any path of a proxy.
"""

from dataclasses import dataclass
from typing import NamedTuple

from prefork.share.looks import visible


@dataclass(frozen=True, slots=True)
class Look:
    """name: what the shared folder is called. archives: whether folders may be taken as one."""

    name: str
    archives: bool = True


class Crumb(NamedTuple):
    """href: "" for where one is."""

    name: str
    href: str


def crumbs_of(parts: tuple[str, ...], look: Look, file: str | None = None) -> list[Crumb]:
    """Return the way from the root to a folder, or to a file in it, for a page that is there."""
    names = [look.name or "/", *parts]
    depth = len(parts)
    found = [Crumb(visible(name), "../" * (depth - at) or "./") for at, name in enumerate(names)]
    if file is None:
        return [*found[:-1], found[-1]._replace(href="")]
    return [*found, Crumb(visible(file), "")]
