"""The PROXY protocol, versions 1 and 2: the client that a proxy speaks for.

A worker. Bytes go in, addresses come out. It never reads a socket, and never
decides who may speak the protocol: that is the listener's setting, and
believing a header from anybody is believing any address.

Source: https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt
"""

import re
import socket
import struct
from dataclasses import dataclass
from typing import Any, Final

_V1_MAX: Final = 107  # bytes, CRLF included; section 2.1
_V1_STARTS: Final = (b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN")
# Each part may be cut short, for the rest may still be on its way.
_V1_KNOWN: Final = re.compile(
    rb"PROXY TCP[46] [0-9A-Fa-f.:]{0,45}"
    rb"(?: [0-9A-Fa-f.:]{0,45}(?: [0-9]{0,5}(?: [0-9]{0,5}(?:\r\n?)?)?)?)?"
)
_V1_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*+)?(?:\r\n?)?")
_PORT: Final = re.compile(rb"0|[1-9][0-9]{0,4}")

_V2_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEAD: Final = struct.Struct("!12sBBH")
_V2_LOCAL: Final = 0x20
_V2_PROXY: Final = 0x21
_V2_MAX: Final = 2048  # bytes after the head; addresses take 216 at most, a client's TLS name 255
_V2_UNIX_BYTES: Final = 216
_V2_ADDRESSES: Final = {
    1: (socket.AF_INET, struct.Struct("!4s4sHH")),
    2: (socket.AF_INET6, struct.Struct("!16s16sHH")),
}


class ProxyError(ValueError):
    """The peer sent no valid header: its fault, and the connection is closed."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a header says.

    client, server: addresses as sockets have them, (host, port) for IPv4 and
    (host, port, 0, 0) for IPv6; None: keep the socket's own (health checks of
    the proxy, Unix sockets, kinds it does not know). size: bytes to drop.
    """

    client: tuple[Any, ...] | None
    server: tuple[Any, ...] | None
    size: int


def parse_proxy(data: bytes) -> ProxyHeader | None:
    """Return the header that data begins with, or None while it is incomplete.

    data: all that has arrived so far, other bytes may follow the header.
    Raises: ProxyError at the first word or number that cannot be right.
    """
    start = data[: len(_V2_SIGNATURE)]
    if _V2_SIGNATURE.startswith(start):
        return _parse_v2(data)
    return _parse_v1(data[:_V1_MAX])


def _parse_v1(data: bytes) -> ProxyHeader | None:
    """Return the header of version 1; data: its first 107 bytes at most."""
    end = data.find(b"\r\n") + 2
    line = data[:end] if end > 1 else data
    if _V1_UNKNOWN.fullmatch(line):  # "must ignore anything presented before the CRLF"
        words: list[bytes] = []
    elif _V1_KNOWN.fullmatch(line):
        words = line.split(b" ")
    elif any(literal.startswith(line) for literal in _V1_STARTS):
        return None
    else:
        raise ProxyError(f"no PROXY header: {line!r}")
    found = _read_v1(words) if words else []
    if end > 1:
        client, server = (found[0::2], found[1::2]) if found else (None, None)
        return ProxyHeader(_address(client), _address(server), end)
    if len(line) == _V1_MAX:
        raise ProxyError(f"PROXY header without end: {line!r}")
    return None


def _read_v1(words: list[bytes]) -> list[str | int]:
    """Return the addresses and ports that are complete, in the order of the line."""
    # The last word may still grow, unless CR has ended it.
    done = [*words[2:-1], *([words[-1].rstrip(b"\r\n")] if b"\r" in words[-1] else [])]
    family = socket.AF_INET if words[1] == b"TCP4" else socket.AF_INET6
    found: list[str | int] = []
    for word in done:
        text = word.decode("ascii")
        if len(found) < 2:
            try:
                # ntop of pton, not ipaddress: the very text that getpeername() would give.
                found.append(socket.inet_ntop(family, socket.inet_pton(family, text)))
            except OSError:
                raise ProxyError(f"PROXY header: {text!r} is no address of its family") from None
        elif not _PORT.fullmatch(word) or int(word) > 0xFFFF:
            raise ProxyError(f"PROXY header: {text!r} is no port")
        else:
            found.append(int(word))
    return found


def _parse_v2(data: bytes) -> ProxyHeader | None:
    """Return the header of version 2; data begins with the signature or is the beginning of it."""
    command = data[12] if len(data) > 12 else _V2_PROXY
    if command not in (_V2_LOCAL, _V2_PROXY):
        raise ProxyError(f"PROXY header: version and command {command:#04x} are unknown")
    family, transport = divmod(data[13], 16) if len(data) > 13 else (0, 0)
    if command == _V2_PROXY and (family > 3 or transport > 2):
        raise ProxyError(f"PROXY header: family {family} and transport {transport} are unknown")
    if len(data) < _V2_HEAD.size:
        return None
    length = _V2_HEAD.unpack_from(data)[3]
    if length > _V2_MAX:
        raise ProxyError(f"PROXY header of {length} bytes, more than {_V2_MAX}")
    size = _V2_HEAD.size + length
    # LOCAL: "discard the protocol block including the family". No family or no transport: the
    # receiver may use the real endpoints. A datagram's client (HTTP/3 at the proxy) is a client.
    if command == _V2_LOCAL or not family or not transport:
        return ProxyHeader(None, None, size) if len(data) >= size else None
    needed = _V2_ADDRESSES[family][1].size if family in _V2_ADDRESSES else _V2_UNIX_BYTES
    if length < needed:
        raise ProxyError(f"PROXY header: {length} bytes are too few for family {family}")
    if len(data) < size:
        return None
    if family not in _V2_ADDRESSES:
        return ProxyHeader(None, None, size)
    kind, layout = _V2_ADDRESSES[family]
    source, destination, *ports = layout.unpack_from(data, _V2_HEAD.size)
    client = [socket.inet_ntop(kind, source), ports[0]]
    server = [socket.inet_ntop(kind, destination), ports[1]]
    return ProxyHeader(_address(client), _address(server), size)


def _address(host_port: list[Any] | None) -> tuple[Any, ...] | None:
    """Return the address as a socket of its family has it."""
    if host_port is None:
        return None
    host, port = host_port
    return (host, port, 0, 0) if ":" in host else (host, port)
