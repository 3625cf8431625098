"""The clients a worker has in hand: who is served, who is waited for, who is idle.

A worker. Handlers of the stdlib know one thing only, a socket, so the socket
is what tells: its class is replaced by one derived from it that notes when a
call waits for the client and when bytes have moved. From these notes follow

- the heartbeat: a handler that waits for its client is alive for as long as
  its own `timeout` allows (a download to a slow phone, a quiet telnet); one
  that computes, or waits for something else, is stuck after a while;
- the graceful end: a client that has sent nothing since our last answer is
  idle and may be hung up on, all others are waited for.

It never closes a socket and never reads one. A socket whose class cannot be
replaced is waited for at the end, and exempt from the heartbeat.
"""

import contextlib
import functools
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

from prefork.scoreboard import Activity, Slot

_RECEIVES: Final = ("recv", "recv_into", "recvfrom", "recvfrom_into", "recvmsg", "recvmsg_into")
_SENDS: Final = ("send", "sendall", "sendmsg", "sendto", "sendfile")


class _Client:
    """One accepted socket, until it is closed.

    silent_since_ns: when bytes last moved or, 0, exempt: it waits for its client.
    moved_ns: when bytes last moved. quiet: nothing received since our last
    answer. thread: the ident of the thread that last used the socket. inode: of
    a socket that lives on in another object, which TLS in a handler leads to.
    """

    __slots__ = ("inode", "moved_ns", "quiet", "silent_since_ns", "sock", "thread")

    def __init__(self, sock: socket.socket, now_ns: int, thread: int) -> None:
        self.sock = weakref.ref(sock)
        self.silent_since_ns = self.moved_ns = now_ns
        self.quiet = True
        self.thread = thread
        self.inode: int | None = None

    def is_open(self, fd: int) -> bool:
        """Tell whether the descriptor that was accepted is still this socket."""
        if self.inode is not None:
            try:
                return os.fstat(fd).st_ino == self.inode
            except OSError:
                return False
        sock = self.sock()
        return sock is not None and sock.fileno() == fd


class Clients:
    """All clients of one worker; slot is where the worker's heartbeat goes."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._main = threading.get_ident()
        self._by_fd: dict[int, _Client] = {}
        self._metered: dict[type[socket.socket], type[socket.socket]] = {}

    def adopt(self, request: object) -> None:
        """Take note of a request as `get_request()` gave it."""
        now_ns = time.monotonic_ns()
        self._slot.beat_ns = now_ns
        self._slot.activity = Activity.BUSY
        self._slot.requests += 1
        if not isinstance(request, socket.socket):
            return  # a datagram: over when the handler returns
        client = _Client(request, now_ns, self._main)
        try:
            request.__class__ = self._metered_class(type(request))
        except TypeError:
            # Its class has a layout of its own. Exempt it, or a long download would look stuck.
            client.silent_since_ns = 0
            self._slot.activity = Activity.CLIENT
        self._by_fd[request.fileno()] = client

    def release(self, request: object) -> None:
        """Take note that `process_request()` has returned, the request done or handed on."""
        self._slot.activity = Activity.IDLE
        if isinstance(request, socket.socket):
            client = self._by_fd.get(request.fileno())
            if client is not None and client.thread == self._main:
                client.silent_since_ns = 0  # whoever has it now has not used it yet

    @property
    def in_hand(self) -> int:
        """How many clients there are, give or take those that went without a word."""
        return len(self._by_fd)

    def any_left(self) -> bool:
        """Tell whether a client is still in hand, after a look at each."""
        for fd, client in list(self._by_fd.items()):
            if not client.is_open(fd):
                self._by_fd.pop(fd, None)
        return bool(self._by_fd)

    def oldest_sign_of_life_ns(self, now_ns: int) -> int:
        """Return when the handler that has been silent longest last moved a byte; now if none."""
        oldest_ns = now_ns
        alive: set[int | None] = set()
        for client in list(self._by_fd.values()):
            since_ns = client.silent_since_ns
            if since_ns == 0 or since_ns >= oldest_ns or client.sock() is None:
                continue
            alive = alive or {thread.ident for thread in threading.enumerate()}
            if client.thread in alive:
                oldest_ns = since_ns
        return oldest_ns

    def hang_up_idle(self, idle_ns: int) -> None:
        """Let every handler that waits for an idle client's next request read end of file.

        Bytes that arrived before are still read (Linux keeps them readable
        after SHUT_RD). idle_ns: how long nothing must have moved.
        """
        latest_ns = time.monotonic_ns() - idle_ns
        for client in list(self._by_fd.values()):
            sock = client.sock()
            if sock is not None and client.quiet and client.moved_ns <= latest_ns:
                with contextlib.suppress(OSError):  # the client was faster; the handler will see
                    socket.socket.shutdown(sock, socket.SHUT_RD)

    def _wait(self, sock: socket.socket) -> _Client | None:
        client = self._by_fd.get(sock.fileno())
        if client is not None:
            client.silent_since_ns = 0
            client.thread = threading.get_ident()
            if client.thread == self._main:
                self._slot.activity = Activity.CLIENT
        return client

    def _moved(self, client: _Client, *, received: bool) -> None:
        now_ns = time.monotonic_ns()
        client.silent_since_ns = client.moved_ns = now_ns
        client.quiet = not received
        if client.thread == self._main:
            self._slot.beat_ns = now_ns
            self._slot.activity = Activity.BUSY

    def _metered_class(self, plain: type[socket.socket]) -> type[socket.socket]:
        known = self._metered.get(plain)
        if known is None:
            members: dict[str, Any] = {"__slots__": (), "__module__": plain.__module__}
            members |= {n: self._noting(getattr(plain, n), received=True) for n in _RECEIVES}
            members |= {n: self._noting(getattr(plain, n), received=False) for n in _SENDS}
            members["close"] = self._forgetting(plain.close)
            members["detach"] = self._parting(plain.detach)
            known = self._metered[plain] = type(plain.__name__, (plain,), members)
        return known

    def _noting(self, plain: Callable[..., Any], *, received: bool) -> Callable[..., Any]:
        @functools.wraps(plain)
        def noting(sock: socket.socket, *args: Any, **kwargs: Any) -> Any:
            client = self._wait(sock)
            try:
                return plain(sock, *args, **kwargs)
            finally:
                if client is not None:
                    self._moved(client, received=received)

        return noting

    def _forgetting(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(plain)
        def forgetting(sock: socket.socket) -> Any:
            self._by_fd.pop(sock.fileno(), None)
            return plain(sock)

        return forgetting

    def _parting(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(plain)
        def parting(sock: socket.socket) -> Any:
            client = self._wait(sock)  # and is exempt from here on: nobody tells what moves
            if client is not None:
                client.inode = os.fstat(sock.fileno()).st_ino
            return plain(sock)

        return parting
