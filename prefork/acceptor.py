"""Waits for the listening sockets that all workers of a fleet share.

A worker. It tells which server has a request, so that no worker blocks in
accept() and all take turns. It never accepts: that is the server's
`get_request()`.
"""

import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

#: How long, on a stop, handshakes under way may take to complete: a round trip, or a lost ACK.
HANDSHAKE_S: Final = 1.0

# EXCLUSIVE: a client wakes one idle worker, not all of them.
_LISTEN: Final = select.EPOLLIN | select.EPOLLEXCLUSIVE


class Listening(Protocol):
    """A server, as far as its queue is concerned."""

    socket: socket.socket

    def fileno(self) -> int:
        """Return the listening socket's descriptor."""

    def handle_request(self) -> None:
        """Take one request if there is one; never block for it."""


class Acceptor:
    """One epoll over the servers' sockets, and over descriptors that interrupt the wait."""

    def __init__(self, servers: Sequence[Listening], interrupts: Sequence[int]) -> None:
        self._epoll = select.epoll()
        self._servers = servers
        self._by_fd: dict[int, int] = {}
        self._took: set[int] = set()
        for fd in interrupts:
            self._epoll.register(fd, select.EPOLLIN)
        self.follow()

    def follow(self) -> None:
        """Watch each server's socket, also one that a program has put in the place of another."""
        for index, server in enumerate(self._servers):
            fd = server.fileno()
            if fd >= 0 and self._by_fd.get(fd) != index:
                self._by_fd[fd] = index
                self._epoll.register(fd, _LISTEN)

    def wait(self, limit_s: float) -> tuple[int | None, int | None]:
        """Return the index of a server with a request, or an interrupting descriptor.

        The other of the two is None; both are when limit_s (seconds) have passed.
        """
        ready = self._epoll.poll(0, 1)
        if not ready:
            self._requeue()
            ready = self._epoll.poll(limit_s, 1)
            if not ready:
                return None, None
        fd = ready[0][0]
        index = self._by_fd.get(fd)
        if index is None:
            return None, fd
        self._took.add(fd)
        return index, None

    def _requeue(self) -> None:
        """Before a wait, go to the end of the lines where this worker was served.

        The kernel wakes exclusive waiters in the order of their registration;
        the first would take every client that comes while it idles.
        """
        while self._took:
            fd = self._took.pop()
            with suppress(OSError):  # a handler closed the server: follow() finds the next
                self._epoll.unregister(fd)
                self._epoll.register(fd, _LISTEN)

    def close(self) -> None:
        """Leave the line."""
        self._epoll.close()


def drain(server: Listening) -> None:
    """Take what waits in a server's queue, and then no more.

    The master has shut the door behind it where the kernel can. Where not, as
    many clients are taken as the queue can have held: first in, first out, so
    whoever came before the stop is among them.
    """
    fd = server.fileno()
    if fd < 0:
        return  # a handler closed it
    endless = server.socket.family == socket.AF_UNIX and server.socket.type == socket.SOCK_STREAM
    left = getattr(server, "request_queue_size", 0) + 1
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    limit_s = time.monotonic() + HANDSHAKE_S
    while not (endless and left == 0):
        if poll.poll(0):
            server.handle_request()
            left -= 1
        elif time.monotonic() >= limit_s or not _handshakes(server.socket):
            break
        else:
            poll.poll(20)


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
