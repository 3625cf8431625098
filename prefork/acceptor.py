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

    def fileno(self) -> int:
        """Return the listening socket's descriptor."""

    def handle_request(self) -> None:
        """Take one request if there is one; never block for it."""


class Acceptor:
    """Calls `handle_request()` of each server whose socket is ready.

    after: called with the server's index when it has returned.
    """

    def __init__(
        self, loop: Loop, servers: Sequence[Listening], after: Callable[[int], None]
    ) -> None:
        self._loop = loop
        self._servers = servers
        self._after = after
        self._by_fd: dict[int, int] = {}
        self.follow()

    def follow(self) -> None:
        """Watch each server's socket, also one that a program has put in the place of another."""
        for index, server in enumerate(self._servers):
            fd = server.fileno()
            if fd >= 0 and self._by_fd.get(fd) != index:
                self._by_fd[fd] = index
                self._loop.listen(fd, partial(self._take, index))

    def close(self) -> None:
        """Leave the lines."""
        for fd in self._by_fd:
            self._loop.forget(fd)

    def _take(self, index: int, _mask: int) -> None:
        self._servers[index].handle_request()
        self._after(index)


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
