"""The names that a share may be called by: whom a Host field is believed (DNS rebinding).

A worker, for each request. A web page of a stranger can point a name of its own
at an address of the local network, and its scripts then read what they find
there as if it were their own site: only the Host field betrays them. Therefore
a name counts if it is configured, or if no stranger can have it. It never
resolves a name: the answer would be the stranger's.
"""

import functools
import ipaddress
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

#: Names that nobody can register, so that no page of the public web has one for its origin:
#: localhost (RFC 6761 §6.3), local (RFC 6762: mDNS), home.arpa (RFC 8375), internal (ICANN 2024:
#: never delegated), home and corp (ICANN 2018: not delegated), lan and localdomain (no top-level
#: domains; what routers and installers call a local network).
#: Not fritz.box, for box is sold, and in 2024 a stranger had that name: where a router gives it
#: to this machine, it is among the machine's own.
_PRIVATE: Final = (
    "localhost",
    "local",
    "home.arpa",
    "internal",
    "home",
    "corp",
    "lan",
    "localdomain",
)
_CACHED: Final = 256  # values; browsers send the same few
_MAX_CHARS: Final = 270  # of a name (RFC 1035 §2.3.4: 253), its port and its last dot


class Hosts:
    """The names that count, fixed once made; `allows()` may be called by any thread.

    allowed: names beside those that always count; ".example.org" is example.org
    and all below it, "*" any name at all. Always: addresses, names without a
    dot, this machine's own, and private ones.
    """

    __slots__ = ("_knows",)

    def __init__(self, allowed: Sequence[str]) -> None:
        names = {_ascii(text) for text in allowed} | set(_own_names())
        below = tuple(name for name in names if name.startswith("."))
        if "*" in names:
            self._knows = functools.lru_cache(1)(_any)
            return
        names |= {name[1:] for name in below}
        below += tuple(f".{name}" for name in _PRIVATE)
        self._knows = functools.lru_cache(_CACHED)(
            functools.partial(_is_known, frozenset(names - {""}), below)
        )

    def allows(self, host: str | None) -> bool:
        """Tell whether a request for this host is answered.

        host: value of the Host field, with a port perhaps; None or "": there
        was none, as in HTTP/1.0, which no browser speaks.
        """
        return not host or (len(host) <= _MAX_CHARS and self._knows(host))


def _any(_host: str) -> bool:
    return True


def _is_known(names: frozenset[str], below: tuple[str, ...], host: str) -> bool:
    name = _name_of(host)
    return (
        # No dot: no name of the public DNS, or a number that is an address.
        (name.isascii() and "." not in name and name.replace("-", "").replace("_", "").isalnum())
        or name in names
        or name.endswith(below)
        or _is_address(name)
    )


def _name_of(host: str) -> str:
    """Return the host without port and last dot, in lower case."""
    name, _, port = host.rpartition(":")
    if not name or host.endswith("]") or not (port == "" or port.isdecimal()):
        name = host
    return name.lower().removesuffix(".")


def _is_address(name: str) -> bool:
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    try:
        # Brackets are for IPv6, and only for it (RFC 3986 §3.2.2).
        return (ipaddress.ip_address(bare).version == 6) is (bare != name)
    except ValueError:
        return False


def _ascii(text: str) -> str:
    """Return a configured name as it stands in a Host field: xn-- for other alphabets."""
    name = _name_of(text.strip())
    dot = "." if name.startswith((".", "*.")) else ""
    bare = name.removeprefix("*").removeprefix(".") if dot else name
    try:
        return dot + bare.encode("idna").decode("ascii")
    except UnicodeError:
        return dot + bare


def _own_names() -> Iterator[str]:
    """Yield this machine's names, from its files.

    Not socket.getfqdn(), which asks the DNS, and waits for seconds where there is none.
    """
    name = socket.gethostname().lower()
    yield name
    short = name.partition(".")[0]
    for line in _lines("/etc/hosts"):
        words = line.split()[1:]
        if name in words or short in words:
            yield from words
    for line in _lines("/etc/resolv.conf"):
        key, *domains = line.split() or [""]
        if key in ("search", "domain"):
            yield from (f"{short}.{domain.strip('.')}" for domain in domains)


def _lines(path: str) -> list[str]:
    try:
        text = Path(path).read_text("utf-8", "replace")
    except OSError:  # then the machine has no such names
        return []
    return [line.partition("#")[0].lower() for line in text.splitlines()]
