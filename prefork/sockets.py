"""Addresses from the command line, and a listening socket that workers share.

The master, before and after serving. Nothing here accepts or reads.
"""

import ctypes
import errno
import os
import select
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from prefork import log
from prefork.errors import StartError, UsageError

UNIX_PREFIX: Final = "unix:"

_SOMAXCONN: Final = Path("/proc/sys/net/core/somaxconn")

_SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h; the socket module does not name them
_SO_DETACH_FILTER: Final = 27

# IP_MINTTL and IPV6_MINHOPCOUNT as (level, option), linux/in.h and linux/in6.h.
_LEAST_TTL: Final = [(socket.IPPROTO_IP, 21), (socket.IPPROTO_IPV6, 73)]
# More than the 64 or 128 that packets start with, and a number that is ours alone.
_TOO_MUCH: Final = 250

# Classic BPF, as (code, jump if true, jump if false, k), linux/filter.h. The
# data starts at the TCP header, whose byte 13 holds the flags (RFC 9293 §3.1).
_DROP_EVERYTHING: Final = [(0x06, 0, 0, 0)]
_DROP_SYN: Final = [
    (0x30, 0, 0, 13),  # load byte 13
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # yes: drop
    (0x06, 0, 0, 0xFFFFFFFF),  # no: pass
]

_RECEIVE_WAIT: Final = struct.pack("ll", 0, 1000)  # 1 ms, one or a few timer ticks
_SEND_WAIT: Final = struct.pack("ll", 0, 100_000)  # 0.1 s: who reads at all has made room by then


class Endpoint(NamedTuple):
    """Where to listen. v6only: leave IPv4 to another socket; None: not IPv6."""

    family: socket.AddressFamily
    address: Any  # what bind() takes: (host, port), (host, port, flow, scope) or a path
    v6only: bool | None = None

    def __str__(self) -> str:
        if self.family == socket.AF_UNIX:
            return UNIX_PREFIX + os.fsdecode(self.address).replace("\0", "@", 1)
        host, port = self.zoned_host, self.address[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def zoned_host(self) -> str:
        """The host, and the interface it belongs to where that is part of the address."""
        host = str(self.address[0])
        if self.family != socket.AF_INET6 or not self.address[3] or "%" in host:
            return host
        try:
            return f"{host}%{socket.if_indextoname(self.address[3])}"
        except OSError:  # the interface has gone
            return f"{host}%{self.address[3]}"


def endpoint_of(sock: socket.socket) -> Endpoint:
    """Return where a socket listens."""
    v6only = None
    if sock.family == socket.AF_INET6:
        v6only = bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
    return Endpoint(socket.AddressFamily(sock.family), sock.getsockname(), v6only)


def resolve(bind: str, port: int, kind: socket.SocketKind) -> list[Endpoint]:
    """Return every endpoint that one -b ADDRESS means.

    bind: IPv4, IPv6 (with or without brackets), a host name (each of its
    addresses), `unix:/path`, or `unix:@name` in the abstract namespace.
    Raises: UsageError, StartError when a host has no address.
    """
    if bind.startswith(UNIX_PREFIX):
        return [Endpoint(socket.AF_UNIX, _unix_path(bind.removeprefix(UNIX_PREFIX)))]
    if not bind:
        raise UsageError("-b '': give an address, a host name or unix:/path; none for all")
    host = bind[1:-1] if bind.startswith("[") and bind.endswith("]") else bind
    try:
        found = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        head, colon, tail = host.rpartition(":")
        if colon and tail.isdecimal():
            raise UsageError(
                f"cannot bind to {bind!r}: give the address alone, and the port as PORT"
                f" (prefork ... {tail} -b {head})"
            ) from None
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise StartError(
            f"cannot bind to {bind!r}: {reason}; give an address or a host name of this machine"
        ) from None
    # V6ONLY off is what `python -m http.server -b ::` does, too.
    return [
        Endpoint(family, address, False if family == socket.AF_INET6 else None)
        for family, address in dict.fromkeys((info[0], info[4]) for info in found)
    ]


def everywhere(port: int) -> list[Endpoint]:
    """Return the endpoints of all interfaces.

    IPv4 and IPv6 have a socket each: on one dual-stack socket, handlers would
    see IPv4 clients as ::ffff:192.0.2.1 in a tuple of four.
    """
    found = [Endpoint(socket.AF_INET, ("0.0.0.0", port))]
    if _has_ipv6():
        found.append(Endpoint(socket.AF_INET6, ("::", port, 0, 0), v6only=True))
    return found


def keep_apart(endpoints: list[Endpoint]) -> list[Endpoint]:
    """Return the endpoints without repetition, IPv6 ones restricted where IPv4 has the port too."""
    v4_ports = {e.address[1] for e in endpoints if e.family == socket.AF_INET}
    return list(
        dict.fromkeys(
            e._replace(v6only=True)
            if e.family == socket.AF_INET6 and e.address[1] in v4_ports
            else e
            for e in endpoints
        )
    )


def clear_stale(path: str, kind: socket.SocketKind) -> None:
    """Remove a socket file that nobody listens on any more.

    Raises: StartError when somebody does, or when the file is no socket.
    """
    try:
        is_socket = stat.S_ISSOCK(Path(path).lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise StartError(f"cannot bind to unix:{path}: a file of that name is there, and no socket")
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)
        refused = probe.connect_ex(path) == errno.ECONNREFUSED
    if not refused:
        raise StartError(f"cannot bind to unix:{path}: it is in use by a running server")
    Path(path).unlink(missing_ok=True)


def warn_of_limit(request_queue_size: int) -> None:
    """Log when the kernel keeps fewer connections waiting than are asked for."""
    try:
        limit = int(_SOMAXCONN.read_text())
    except (OSError, ValueError):
        return  # no /proc here: nothing to compare with
    if request_queue_size > limit:
        log.warning(
            "socket.queue_limited",
            request_queue_size=request_queue_size,
            limit=limit,
            remedy="sysctl net.core.somaxconn",
        )


class SharedSocket:
    """A server's socket while several workers wait on it.

    A worker that wakes to find that another was faster must not block in
    accept() or recvfrom(): streams are non-blocking for that (at the
    descriptor, so that gettimeout() and accepted sockets stay as they were),
    and datagram sockets, whose handlers also *send* through them and expect to
    block, only receive with a time limit of one timer tick. Those of Unix send with
    one, too: unlike UDP's they wait for room at the receiver, and who does not
    read his answers would hold a worker for ever.

    for_good: the socket is closed afterwards, never served again.
    """

    def __init__(self, sock: socket.socket, *, for_good: bool = False) -> None:
        self.socket = sock
        self._for_good = for_good
        self._stream = sock.type == socket.SOCK_STREAM
        self._shut = False
        self._ttl: list[tuple[int, int, int]] = []
        self._clear()
        if self._stream:
            self._was_blocking = os.get_blocking(sock.fileno())
            os.set_blocking(sock.fileno(), False)
        waits = {} if self._stream else {socket.SO_RCVTIMEO: _RECEIVE_WAIT}
        if waits and sock.family == socket.AF_UNIX:
            waits[socket.SO_SNDTIMEO] = _SEND_WAIT
        self._waited = {o: sock.getsockopt(socket.SOL_SOCKET, o, 16) for o in waits}
        for option, wait in waits.items():
            sock.setsockopt(socket.SOL_SOCKET, option, wait)

    def _clear(self) -> None:
        """Remove what a master has left that was killed in the middle of a stop.

        The socket was inherited, then, and outlives it.
        """
        with suppress(OSError):  # ENOENT: there is no filter
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        for level, option in _LEAST_TTL:
            with suppress(OSError):  # the other family's
                if self.socket.getsockopt(level, option) == _TOO_MUCH:
                    self.socket.setsockopt(level, option, 0)

    def refuse_new(self) -> bool:
        """Let no new client in, and keep those that wait in the queue.

        TCP: new SYNs are dropped, so that a client tries again a second later
        and meets the next server on the port, or a refusal; handshakes under
        way complete (not so where the kernel keeps filters from us, and all
        packets of the usual TTLs are dropped instead). Datagrams: new ones are
        dropped. Unix streams: clients are refused, but only for good: the
        kernel knows no way back. Where that is not wanted False is returned
        and nothing changes.
        """
        if self._stream and self.socket.family == socket.AF_UNIX:
            if self._for_good:
                self.socket.shutdown(socket.SHUT_RD)
            return self._for_good
        code = _DROP_SYN if self._stream else _DROP_EVERYTHING
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
        try:
            self.socket.setsockopt(
                socket.SOL_SOCKET,
                _SO_ATTACH_FILTER,
                struct.pack("HP", len(code), ctypes.addressof(program)),
            )
        except OSError as error:
            # Newer kernels let only CAP_NET_ADMIN filter TCP.
            return error.errno == errno.EPERM and self._require_ttl()
        self._shut = True
        return True

    def _require_ttl(self) -> bool:
        """Drop what comes with a TTL below one that no packet starts with."""
        for level, option in _LEAST_TTL:
            with suppress(OSError):  # the other family's
                before = self.socket.getsockopt(level, option)
                self.socket.setsockopt(level, option, _TOO_MUCH)
                self._ttl.append((level, option, before))
        return bool(self._ttl)

    def has_clients(self) -> bool:
        """Tell whether somebody waits to be accepted, or a datagram to be read."""
        if self.socket.fileno() < 0 or (self._for_good and self.socket.family == socket.AF_UNIX):
            return False  # one that is shut for good looks ready, clients or not
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(0))

    def restore(self) -> None:
        """Leave the socket as it was found; one that is closed, or will be, is left alone."""
        if self._for_good or self.socket.fileno() < 0:
            return
        if self._shut:
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        for level, option, least in self._ttl:
            self.socket.setsockopt(level, option, least)
        for option, wait in self._waited.items():
            self.socket.setsockopt(socket.SOL_SOCKET, option, wait)
        if self._stream:
            os.set_blocking(self.socket.fileno(), self._was_blocking)


def _unix_path(text: str) -> str:
    path = "\0" + text[1:] if text.startswith("@") else text
    if not text or text == "@" or "\0" in text:
        raise UsageError(f"cannot bind to 'unix:{text}': give a path, as in unix:/run/share.sock")
    if len(os.fsencode(path)) > 107:  # sun_path of unix(7), less its final NUL
        raise UsageError(f"cannot bind to 'unix:{text}': the path is longer than 107 bytes")
    return path


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True
