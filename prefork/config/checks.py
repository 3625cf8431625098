"""What the keys of a config must be to each other.

Any process. Pure: it looks at values that are right each by itself.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from prefork.config.addresses import Address, Place, parse_address
from prefork.config.master import RLIMITS
from prefork.config.problems import WrongValueError, nearest, plain
from prefork.config.server import ListenerConfig, Scale, ServerConfig

_VARIABLE: Final = re.compile(r"[^=\0]+")
_UNIX_ONLY: Final = ("mode", "owner", "group")


def check_name(table: str, name: str) -> WrongValueError | None:
    """Return what is wrong with a key of a table whose keys are free."""
    if table == "rlimits" and name not in RLIMITS:
        near = nearest(plain(name).removeprefix("rlimit_"), RLIMITS)
        return WrongValueError("unknown limit", None if near is None else repr(near))
    if table == "environment" and not _VARIABLE.fullmatch(name):
        return WrongValueError("no name of a variable, expected one without =")
    return None


def check_listener(listener: ListenerConfig) -> list[tuple[str, str]]:
    """Return (key, problem) of what its address cannot have."""
    address = parse_address(listener.address)
    default = ListenerConfig(address=listener.address)
    wrong = [
        (name, f"{listener.address} has no such thing, expected only with unix:PATH")
        for name in _UNIX_ONLY
        if not address.is_path and getattr(listener, name) != getattr(default, name)
    ]
    wrong += [
        (name, f"{listener.address} has no such thing, expected only with HOST:PORT")
        for name in ("interface", "freebind", "v6only")
        if address.place is not Place.HOST and getattr(listener, name) != getattr(default, name)
    ]
    return wrong


def check_server(server: ServerConfig) -> Iterator[tuple[str, str]]:
    """Yield (key, problem)."""
    scale, limits = server.workers, server.limits
    if isinstance(scale, Scale) and scale.min > scale.max:
        yield "workers.min", f"found {scale.min}, expected at most max, {scale.max}"
    if server.backoff > server.backoff_max:
        yield (
            "backoff",
            f"found {server.backoff:g}, expected at most backoff_max, {server.backoff_max:g}",
        )
    for name in ("line_bytes", "field_bytes"):
        if getattr(limits, name) > limits.head_bytes:
            yield (
                f"limits.{name}",
                f"found {getattr(limits, name)}, expected at most head_bytes, {limits.head_bytes}",
            )


def check_shared(servers: Mapping[str, ServerConfig]) -> Iterator[tuple[str, str, str]]:
    """Yield (pool, key, problem) for each address that is taken already.

    Two pools may have the same host and port, one of them for datagrams; only
    who imports the handlers can tell.
    """
    taken: dict[tuple[str, Address], str] = {}
    for pool, server in servers.items():
        for index, listener in enumerate(server.bind):
            text = listener if isinstance(listener, str) else listener.address
            address = parse_address(text)
            if address.place is Place.HOST and address.number == 0:
                continue
            key = f"bind[{index}]"
            at = pool if address.place is Place.HOST else ""
            first = taken.setdefault((at, address), f"server.{pool}.{key}")
            if first != f"server.{pool}.{key}":
                yield pool, key, f"{text} is taken by {first}, expected an address of its own"
