"""The client behind trusted proxies, from X-Forwarded-* or Forwarded (RFC 7239).

A worker, for each request where proxies are trusted. Whoever connects is
believed only if its address is trusted, and so is each address it names, from
the right: what a stranger wrote stands to the left of what a proxy added, and
is never reached. It never reads X-Real-IP, Client-IP or names spelt with
underscores, and never resolves a name.

What a trusted proxy must do: set or extend one of X-Forwarded-For and
Forwarded, and set or remove X-Forwarded-Proto, -Host and -Port. A field that it
lets through is the client's word, and nobody here can tell.

Where both X-Forwarded-For and Forwarded have arrived, one of them may be such a
field, and nobody can tell which. They must name the same client, or the
request is refused: to believe either would be a guess, and to ignore both would
let any client pass for the proxy itself. Scheme and authority count where both
agree. Beside Forwarded alone, the other X-Forwarded-* do not count.
"""

import functools
import ipaddress
import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_UNIX: Final = "unix"
_CACHED: Final = 1024  # addresses; each is looked up again for every request of its client
_MAX_HOPS: Final = 64  # proxies in a row; whoever stands before that many is not looked for
_MAPPED: Final = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96, RFC 4291 §2.5.5.2

_NAMES: Final = frozenset(
    {
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
    }
)
# An address, with or without brackets and zone, and its port where it cannot be part of the
# address. An obfuscated port (RFC 7239 §6.3) is no port, its address counts.
_V6: Final = r"[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{1,44}"
_NODE: Final = re.compile(
    rf"(?:([0-9.]{{7,15}})|\[({_V6})(?:%[0-9A-Za-z._~-]+)?\])"
    r"(?::(?:([0-9]{1,5})|_[0-9A-Za-z._-]+))?"
    rf"|({_V6})(?:%[0-9A-Za-z._~-]+)?"
)
_AUTHORITY: Final = re.compile(rf"([0-9A-Za-z._-]{{1,255}}|\[{_V6}\])(:[0-9]{{1,5}})?")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

# RFC 7239 §4, and blanks around the semicolons, which many proxies write. Possessive: one try.
_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"  # RFC 9110 §5.6.2
_QUOTED: Final = r'"(?:[^"\\]|\\.)*+"'
_PAIR: Final = rf"(?:{_NAME}=(?:{_NAME}|{_QUOTED}))?+"
_ELEMENT: Final = re.compile(rf"[ \t]*+{_PAIR}[ \t]*+(?:;[ \t]*+{_PAIR}[ \t]*+)*+", re.DOTALL)
_PAIRS: Final = re.compile(rf"({_NAME})=(?:({_NAME})|({_QUOTED}))", re.DOTALL)
_QUOTED_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)


class ForwardedError(ValueError):
    """X-Forwarded-For and Forwarded name different clients: answer 400.

    At fault is a client that sent one of them, or a proxy that lets one through.
    """


class Networks:
    """The addresses that are trusted, fixed once made.

    cidrs: addresses and networks (192.0.2.1, 10.0.0.0/8, 2001:db8::/32), and
    `unix` for whoever connects to a Unix socket.
    Raises: ValueError with the wrong one and what to write instead.
    """

    __slots__ = ("_trusts",)

    def __init__(self, cidrs: Iterable[str]) -> None:
        texts = list(cidrs)
        ranges: dict[tuple[int, int], set[int]] = {}
        for text in texts:
            if text != _UNIX:
                size, shift, number = _read_network(text)
                ranges.setdefault((size, shift), set()).add(number >> shift)
        self._trusts = functools.lru_cache(_CACHED)(
            functools.partial(_is_within, ranges, _UNIX in texts)
        )

    def __contains__(self, host: str) -> bool:
        """Tell whether the address is trusted.

        host: as sockets give it, a zone id and the ::ffff: of IPv4 do not
        matter; "" or "unix" for a Unix peer. What is no address is not trusted.
        """
        return self._trusts(host)


@dataclass(frozen=True, slots=True)
class Origin:
    """What trusted proxies say of the client.

    host: its address, IPv4 never as ::ffff:192.0.2.1; "" where they do not
    tell: keep the socket's own. port: the client's, 0 where they do not tell.
    scheme: `http` or `https`; None: keep the socket's own. authority: the host
    that was asked for, with its port if that is not the scheme's; None: keep
    that of the request.
    """

    host: str
    port: int
    scheme: str | None
    authority: str | None


def origin_of(
    fields: Sequence[tuple[str, str]], peer_host: str, trusted: Networks
) -> Origin | None:
    """Return who sent the request, or None if the peer is not trusted or says nothing.

    fields: name and value of each, in their order. peer_host: "" for a Unix peer.
    The client is the first address from the right that is not trusted, else
    the leftmost; what is no address (`unknown`, `_name`, garbage) ends the
    search with the address to its right. Of a repeated X-Forwarded-Proto, -Host
    or -Port the last value counts, for only the peer can have written it.
    Raises: ForwardedError.
    """
    if peer_host not in trusted:
        return None
    said: dict[str, str] = {}
    for name, value in fields:
        if len(name) > 8 and (key := name.lower()) in _NAMES and value.strip(" \t"):
            said[key] = f"{said[key]},{value}" if key in said else value
    if not said:
        return None
    if "forwarded" not in said:
        origin = _read_x(said, trusted)
    else:
        origin = _read_forwarded(said["forwarded"], trusted)
        if "x-forwarded-for" in said:
            origin = _agreed(origin, _read_x(said, trusted))
    return origin if origin != Origin("", 0, None, None) else None


def _agreed(one: Origin, other: Origin) -> Origin:
    """Return what both say."""
    if one.host != other.host:
        raise ForwardedError(
            f"Forwarded names {one.host or 'nobody'}, X-Forwarded-For {other.host or 'nobody'}"
            " as the client; let the proxy remove the one that it does not write"
        )
    return Origin(
        one.host,
        one.port if one.port == other.port else 0,
        one.scheme if one.scheme == other.scheme else None,
        one.authority if one.authority == other.authority else None,
    )


def _read_x(said: Mapping[str, str], trusted: Networks) -> Origin:
    host, port = "", 0
    # What is more than the hops stays in one piece, which is no address.
    for word in reversed(said.get("x-forwarded-for", "").rsplit(",", _MAX_HOPS)):
        node = _read_node(word.strip(" \t"))
        if node is None:
            break
        host, port = node
        if host not in trusted:
            break
    scheme = _read_scheme(_last(said.get("x-forwarded-proto", "")))
    authority = _read_authority(_last(said.get("x-forwarded-host", "")))
    # The port that the client connected to at the proxy, not the client's own.
    port_text = _last(said.get("x-forwarded-port", ""))
    if authority and ":" not in authority.rpartition("]")[2] and _PORT.fullmatch(port_text):
        asked_port = int(port_text)
        if asked_port <= 0xFFFF and asked_port != _DEFAULT_PORTS[scheme or "http"]:
            authority = f"{authority}:{asked_port}"
    return Origin(host, port, scheme, authority)


def _read_forwarded(text: str, trusted: Networks) -> Origin:
    origin = Origin("", 0, None, None)
    for element in _elements(text):
        pairs: dict[str, str] = {}
        for found in _PAIRS.finditer(element):
            name = found[1].lower()
            if name in pairs:  # "each parameter MUST NOT occur more than once", RFC 7239 §4
                return origin
            pairs[name] = found[2] or _QUOTED_PAIR.sub(r"\1", found[3][1:-1])
        node = _read_node(pairs.get("for", ""))
        if node is None and origin.host:
            return origin
        host, port = node or ("", 0)
        scheme, authority = pairs.get("proto", ""), pairs.get("host", "")
        origin = Origin(host, port, _read_scheme(scheme), _read_authority(authority))
        if node is None or host not in trusted:
            break
    return origin


def _elements(text: str) -> Iterator[str]:
    """Yield the elements of a Forwarded list from the right, until one is malformed.

    A quote that a client opened must not swallow what a proxy added behind it,
    so each element is the shortest end of the text that is one. That is the
    true one: an end that starts inside a quoted string has an odd number of
    quotes. For the same reason a try reaches over two commas at most.
    """
    end = len(text)
    for _ in range(_MAX_HOPS):
        comma = text.rfind(",", 0, end)
        while not _ELEMENT.fullmatch(text, comma + 1, end):
            if comma < 0:
                return
            comma = text.rfind(",", 0, comma)
        yield text[comma + 1 : end]
        if comma < 0:
            return
        end = comma


def _read_node(text: str) -> tuple[str, int] | None:
    """Return host and port (0 if none) of an address as proxies write it."""
    found = _NODE.fullmatch(text)
    packed = _pack(found[1] or found[2] or found[4]) if found else None
    if packed is None or found is None:
        return None
    port = int(found[3] or 0)
    if port > 0xFFFF:
        return None
    return socket.inet_ntop(socket.AF_INET6 if len(packed) == 16 else socket.AF_INET, packed), port


def _last(text: str) -> str:
    return text.rpartition(",")[2].strip(" \t")


def _read_scheme(text: str) -> str | None:
    scheme = text.lower()
    return scheme if scheme in _DEFAULT_PORTS else None


def _read_authority(text: str) -> str | None:
    found = _AUTHORITY.fullmatch(text)
    if not found or int((found[2] or ":0")[1:]) > 0xFFFF:
        return None
    return text if text[0] != "[" or _pack(found[1][1:-1]) else None


def _pack(text: str) -> bytes | None:
    """Return an address as its 4 or 16 bytes, None if it is none; no zone id."""
    try:
        if ":" not in text:
            return socket.inet_pton(socket.AF_INET, text)
        packed = socket.inet_pton(socket.AF_INET6, text)
    except (OSError, ValueError):  # ValueError: it has a NUL or a surrogate
        return None
    return packed[12:] if packed.startswith(_MAPPED) else packed


def _read_network(text: str) -> tuple[int, int, int]:
    """Return the bytes of its addresses, the bits that may differ, and its number."""
    try:
        # No zone: it would be ignored, and more be trusted than was written.
        loose = ipaddress.ip_network("" if "%" in text else text, strict=False)
    except ValueError:
        raise ValueError(
            f"trusted proxy {text!r}: write an address (192.0.2.1), a network (10.0.0.0/8,"
            f" 2001:db8::/32), or {_UNIX} for Unix sockets"
        ) from None
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(
            f"trusted proxy {text!r}: write {loose} for the network, or"
            f" {text.partition('/')[0]} for the one address"
        ) from None
    packed, shift = loose.network_address.packed, loose.max_prefixlen - loose.prefixlen
    if shift <= 32 and packed.startswith(_MAPPED):
        packed = packed[12:]
    return len(packed), shift, int.from_bytes(packed, "big")


def _is_within(ranges: Mapping[tuple[int, int], set[int]], unix: bool, host: str) -> bool:
    if host in ("", _UNIX):
        return unix
    packed = _pack(host.partition("%")[0])
    if packed is None:
        return False
    number = int.from_bytes(packed, "big")
    return any(
        size == len(packed) and number >> shift in numbers
        for (size, shift), numbers in ranges.items()
    )
