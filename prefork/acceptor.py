"""Waits for the listening sockets that all workers of a fleet share.

A worker. It tells which server has a request, so that no worker blocks in
accept() and all take turns. It never accepts: that is the server's
`get_request()`.
"""

import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from prefork.loop import Loop

#: How long, on a stop, handshakes under way may take to complete: a round trip, or a lost ACK.
HANDSHAKE_S: Final = 1.0


class Listening(Protocol):
    """A server, as far as its queue is concerned."""

    socket: socket.socket
    requests_at_once: int  #: how many requests to take at a time, where so many wait

    def fileno(self) -> int:
        """Return the listening socket's descriptor."""

    def handle_request(self) -> None:
        """Take one request if there is one; never block for it."""

    def has_room(self) -> bool:
        """Tell whether it may take another request before one of those in hand is over."""


class Acceptor:
    """Calls `handle_request()` of each server whose socket is ready, and which has room.

    after: called with the server's index when it has returned, tells whether
    there was a request. full: called
    with a server that has no room left, and with what to call when it may have;
    who waits stays in the queue until then, and other workers may take him.
    """

    def __init__(
        self,
        loop: Loop,
        servers: Sequence[Listening],
        after: Callable[[int], bool],
        full: Callable[[Listening, Callable[[], None]], None],
    ) -> None:
        self._loop = loop
        self._servers = servers
        self._after = after
        self._full = full
        self._by_fd: dict[int, int] = {}
        self._resting: set[int] = set()
        self.follow()

    def follow(self) -> None:
        """Watch each server's socket, also one that a program has put in the place of another."""
        for index, server in enumerate(self._servers):
            fd = server.fileno()
            if fd < 0:
                self._resting.discard(index)
            elif index in self._resting and not server.has_room():
                self._full(server, self.follow)
            elif self._by_fd.get(fd) != index:
                self._resting.discard(index)
                self._by_fd[fd] = index
                self._loop.listen(fd, partial(self._take, index))

    def is_resting(self) -> bool:
        """Tell whether a server takes nothing because it is full."""
        return bool(self._resting)

    def is_awaited(self) -> bool:
        """Tell whether somebody waits for a server that is full."""
        poll = select.poll()
        for index in self._resting:
            if self._servers[index].fileno() >= 0:
                poll.register(self._servers[index].fileno(), select.POLLIN)
        return bool(self._resting and poll.poll(0))

    def close(self) -> None:
        """Leave the lines."""
        for fd in self._by_fd:
            self._loop.forget(fd)

    def _take(self, index: int, _mask: int) -> None:
        server = self._servers[index]
        for _ in range(server.requests_at_once):
            server.handle_request()
            took = self._after(index)
            if not server.has_room():
                self._rest(index)
                return
            if not took:
                return

    def _rest(self, index: int) -> None:
        for fd in [fd for fd, number in self._by_fd.items() if number == index]:
            del self._by_fd[fd]
            self._loop.forget(fd)
        self._resting.add(index)
        self._full(self._servers[index], self.follow)
        if self._servers[index].has_room():  # a thread has ended since
            self.follow()


def take_one(server: Listening) -> bool:
    """Take one request if there is one; False: there is no room for it."""
    has_room = server.has_room()
    if has_room:
        server.handle_request()
    return has_room


def drain(server: Listening, take: Callable[[], bool | None]) -> bool:
    """Take what waits in a server's queue, and then no more; False: try again, some is left.

    take: takes one client, without waiting for it; False: it cannot before
    another has gone.

    The master has shut the door behind it where the kernel can. Where not, as
    many clients are taken as the queue can have held: first in, first out, so
    whoever came before the stop is among them.
    """
    fd = server.fileno()
    if fd < 0:
        return True  # a handler closed it
    endless = server.socket.family == socket.AF_UNIX and server.socket.type == socket.SOCK_STREAM
    left = getattr(server, "request_queue_size", 0) + 1
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    limit_s = time.monotonic() + HANDSHAKE_S
    while not (endless and left == 0):
        if poll.poll(0):
            if take() is False:
                return False
            left -= 1
        elif time.monotonic() >= limit_s or not _handshakes(server.socket):
            break
        else:
            poll.poll(20)
    return True


def _handshakes(sock: socket.socket) -> bool:
    """Tell whether a client has our SYN-ACK, but its ACK is still under way (SYN_RECV)."""
    if sock.family == socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        return False
    state = f":{sock.getsockname()[1]:04X}"
    for name in ("tcp", "tcp6"):
        with suppress(OSError), Path("/proc/net", name).open() as table:
            for line in table:
                words = line.split()
                if words[3] == "03" and words[1].endswith(state):
                    return True
    return False
