"""What a worker's plain servers have handed to threads and to processes.

A worker. It knows how much that is, wakes the loop when some of it is done, and
makes room where clients that say nothing keep others out. What engines serve is
not its affair. It never accepts, never ends a process and never waits for one.
"""

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from prefork import log
from prefork.children import reap
from prefork.clients import Clients
from prefork.loop import Loop
from prefork.shortage import SHORTAGE_S

#: How often that is worth a line in the log.
_COMPLAINT_S: Final = 60.0


class Hands:
    """Requests in threads are known to it by `begin` and `done`, processes by `active_children`.

    line: the worker's, for the log. crowded_s: how long a client must have been silent before it
    has to go because others want its place.
    """

    def __init__(self, loop: Loop, clients: Clients, line: int, crowded_s: float) -> None:
        self._loop = loop
        self._clients = clients
        self._line = line
        self._crowded_s = crowded_s
        self._in_threads: dict[int, int] = {}
        self._pidfds: dict[int, int] = {}
        self._waker = -1
        self._on_room: Callable[[], None] | None = None
        self._crowd = 1
        self._complained_s: float | None = None

    # -- requests in threads -------------------------------------------------------

    def begin(self, request: object) -> None:
        """Take note of a request that a thread is about to get."""
        # A client shows life by what its socket moves, which `clients` sees; a datagram cannot.
        self._in_threads[id(request)] = time.monotonic_ns() if isinstance(request, tuple) else 0

    def done(self, request: object) -> None:
        """Take note that its thread has done with it. Called by that thread, which has it yet."""
        self._in_threads.pop(id(request), None)
        if self._on_room is not None:
            os.eventfd_write(self._waker, 1)

    def in_threads(self) -> int:
        """Return how many requests threads have."""
        return len(self._in_threads)

    def oldest_sign_of_life_ns(self, now_ns: int) -> int:
        """Return since when the thread that has been at a datagram longest is; now if none is."""
        return min(filter(None, list(self._in_threads.values())), default=now_ns)

    # -- what there is ---------------------------------------------------------------

    def count(self, servers: Sequence[Any]) -> int:
        """Return how many requests these servers have in hand."""
        return max(self._clients.count(), self.in_threads()) + sum(
            len(_children(server)) for server in servers
        )

    def any_left(self, servers: Sequence[Any]) -> bool:
        """Tell whether a request is left that an end has to wait for.

        `block_on_close = False` says that threads and processes need not be waited for.
        """
        waits = [server for server in servers if getattr(server, "block_on_close", True)]
        for server in servers:
            reap(_children(server))
        left = self._clients.any_left() or self._in_threads
        return (bool(left) and bool(waits)) or any(map(_children, waits))

    def tell(self, servers: Sequence[Any]) -> None:
        """Have ForkingMixIn's processes hang up on idle clients, too."""
        for server in servers:
            for pid in list(_children(server)):
                with suppress(ProcessLookupError):  # the program has waited for it itself
                    os.kill(pid, signal.SIGTERM)

    # -- room --------------------------------------------------------------------------

    def await_room(self, server: Any, on_room: Callable[[], None]) -> None:
        """Call back, in the loop, when a thread or a process of a full server has ended."""
        reap(_children(server))
        for pid in _children(server) - self._pidfds.keys():
            with suppress(OSError):  # it has ended, or no descriptor is left: the next tick looks
                pidfd = self._pidfds[pid] = os.pidfd_open(pid)
                self._loop.watch(pidfd, select.EPOLLIN, partial(self._bury, server, pid))
        if self._waker < 0:
            self._waker = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._loop.watch(self._waker, select.EPOLLIN, self._on_woken)
        self._on_room = on_room

    def make_room(self, *, is_wanted: bool) -> None:
        """Hang up on clients that have been silent for longest; twice as many in each call.

        is_wanted: others wait for their places. Called in each tick while a server is full.
        """
        if is_wanted and self._clients.hang_up_silent(int(self._crowded_s * 1e9), self._crowd):
            self._crowd *= 2
        else:
            self._crowd = 1

    def fall_short(self, error: BaseException) -> None:
        """Pause because the system is short of something, and log it now and then."""
        now_s = time.monotonic()
        if self._complained_s is None or now_s - self._complained_s > _COMPLAINT_S:
            self._complained_s = now_s
            reason = error.strerror if isinstance(error, OSError) else error
            log.warning("worker.short", slot=self._line, reason=reason)
        time.sleep(SHORTAGE_S)

    def disown(self) -> None:
        """In a child that a handler has forked: nothing of all this is its own."""
        for fd in (*self._pidfds.values(), *([self._waker] * (self._waker >= 0))):
            os.close(fd)
        self._pidfds.clear()
        self._in_threads.clear()
        self._waker, self._on_room = -1, None

    def _bury(self, server: Any, pid: int, _mask: int) -> None:
        pidfd = self._pidfds.pop(pid)
        self._loop.forget(pidfd)
        os.close(pidfd)
        reap(_children(server))
        self._tell_room()

    def _on_woken(self, _mask: int) -> None:
        os.eventfd_read(self._waker)
        self._tell_room()

    def _tell_room(self) -> None:
        on_room, self._on_room = self._on_room, None
        if on_room is not None:
            on_room()


def close_queues(servers: Sequence[Any]) -> None:
    """Close the listening sockets in a process that may outlive all who accept there.

    Else the port stays in use, and who connects waits for nobody. Datagrams are answered by the
    very socket that they came from: it stays.
    """
    for server in servers:
        if server.socket.type == socket.SOCK_STREAM:
            server.socket.close()


def _children(server: Any) -> set[int]:
    """Return the processes of ForkingMixIn; its own set, if there is one."""
    found: set[int] | None = getattr(server, "active_children", None)
    return set() if found is None else found
