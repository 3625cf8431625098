"""One file of a folder as a page: an image, a film or a sound, and which come before and after.

A worker; all of it in a thread. It never opens the file: the page has its URL, and
the browser asks for what it needs, by ranges.
"""

from collections.abc import Iterable
from typing import NamedTuple

from prefork.amounts import count_text, size_text
from prefork.http.representation import Representation
from prefork.share.etags import derived
from prefork.share.listing import Listing
from prefork.share.looks import (
    kind_of,
    time_machine,
    time_text,
    viewed_as,
    visible,
)
from prefork.share.names import href
from prefork.share.query import Query
from prefork.share.render import HTML, LOOKS, new_nonce, policy, rendered
from prefork.share.trail import Look, crumbs_of


class _Neighbour(NamedTuple):
    name: str
    href: str


def view_link(url: str, asked: Query) -> str:
    """Return the link to a file's page; from there one goes on in the order that is asked for."""
    return url + view_query(asked)


def view_query(asked: Query) -> str:
    """Return what stands after each file's URL in such a link."""
    order = asked.link(page=1)[1:]
    return f"?view&{order}" if order else "?view"


def view_page(listing: Listing, name: str, asked: Query, look: Look) -> Representation:
    """Return the page of a file of a folder. Where the folder does not list it, it stands alone.

    Raises: KeyError if the listing has no such file.
    """
    at = _position(listing, name)
    before, after, where = _around(listing, at, asked)
    nonce = new_nonce()
    tag = derived(listing.etag, LOOKS, listing.parts, name, asked.told, look)
    url = href(name, is_folder=False)
    body = b"".join(
        rendered(
            "view.html",
            nonce,
            crumbs=crumbs_of(listing.parts, look, name),
            name=visible(name),
            href=url,
            back="./" + asked.link(page=1).removesuffix("?"),
            kind=kind_of(name),
            shown_as=viewed_as(name),
            size=listing.sizes[at],
            exact=count_text(listing.sizes[at], "byte"),
            size_text=size_text(listing.sizes[at]),
            machine=time_machine(listing.times_ns[at]),
            time_text=time_text(listing.times_ns[at]),
            where=where,
            previous=_neighbour(listing, before, asked),
            next=_neighbour(listing, after, asked),
        )
    )
    return Representation(
        headers=(("Content-Type", HTML), policy(nonce)),
        size=len(body),
        etag=f"W/{tag}",
        modified_s=None,
        pieces=lambda start, stop: iter((body[start:stop],)),
        has_ranges=False,
    )


def _position(listing: Listing, name: str) -> int:
    try:
        return listing.names.index(name, listing.folders)
    except ValueError:
        raise KeyError(name) from None


def _around(listing: Listing, at: int, asked: Query) -> tuple[int | None, int | None, str]:
    """Return the files before and after one that can be shown, too; and "3 of 20"."""
    names = listing.names
    shown = [other for other in _files(listing, asked) if other == at or viewed_as(names[other])]
    if at not in shown:  # the filter leaves it out
        return None, None, ""
    place = shown.index(at)
    before = shown[place - 1] if place else None
    after = shown[place + 1] if place + 1 < len(shown) else None
    return before, after, f"{place + 1:,} of {len(shown):,}" if len(shown) > 1 else ""


def _files(listing: Listing, asked: Query) -> Iterable[int]:
    return (at for at in listing.chosen(asked) if not listing.is_folder(at))


def _neighbour(listing: Listing, at: int | None, asked: Query) -> _Neighbour | None:
    if at is None:
        return None
    name = listing.names[at]
    return _Neighbour(visible(name), view_link(href(name, is_folder=False), asked))
