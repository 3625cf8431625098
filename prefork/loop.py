"""One epoll, and who is called when a descriptor is ready.

A worker, or the process of a server that serves alone. It knows nothing of
what happens on the descriptors, and never closes one.
"""

import os
import select
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

Callback = Callable[[int], None]  #: gets epoll's mask

# EXCLUSIVE: a client wakes one idle worker, not all of them.
_LISTEN: Final = select.EPOLLIN | select.EPOLLEXCLUSIVE

#: Events of one turn; what else is ready waits for the next, so that time is looked at in between.
_EVENTS: Final = 128


class Loop:
    """Runs in one thread; others may `watch` and `change`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._call: dict[int, Callback] = {}
        self._took: set[int] = set()
        self._soon: deque[Callable[[], None]] = deque()
        disown = weakref.WeakMethod(self._disown)
        os.register_at_fork(after_in_child=lambda: call_if_alive(disown))

    def watch(self, fd: int, mask: int, callback: Callback) -> None:
        """Call back whenever mask holds for a descriptor (once, with EPOLLONESHOT)."""
        self._call[fd] = callback
        self._epoll.register(fd, mask)

    def change(self, fd: int, mask: int) -> None:
        """Wait for something else on a descriptor, or again after EPOLLONESHOT."""
        self._epoll.modify(fd, mask)

    def forget(self, fd: int) -> None:
        """Watch a descriptor no more; one that was closed does not matter.

        The kernel must be told even right before a close(): where a handler has forked, the child
        holds the file open, and its events would go on, and spin this process.
        """
        self._call.pop(fd, None)
        with suppress(OSError, ValueError):  # closed: the kernel has forgotten it
            self._epoll.unregister(fd)

    def listen(self, fd: int, callback: Callback) -> None:
        """Call back when a listening socket, which other processes watch too, has a client."""

        def take(mask: int) -> None:
            self._took.add(fd)
            callback(mask)

        self._call[fd] = take
        self._epoll.register(fd, _LISTEN)

    def soon(self, callback: Callable[[], None]) -> None:
        """Call back in the next turn, which does not wait; only for the loop's own thread."""
        self._soon.append(callback)

    def turn(self, limit_s: float) -> None:
        """Wait, at most limit_s (seconds), and call whom it concerns."""
        poll = self._epoll.poll
        if self._soon:
            ready = poll(0, _EVENTS)
            for _ in range(len(self._soon)):
                self._soon.popleft()()
        elif self._took:
            ready = poll(0, _EVENTS)
            if not ready:
                self._requeue()
                ready = poll(limit_s, _EVENTS)
        else:
            ready = poll(limit_s, _EVENTS)
        call = self._call
        for fd, mask in ready:
            callback = call.get(fd)
            if callback is not None:  # None: forgotten by one that was called before
                callback(mask)

    def _requeue(self) -> None:
        """Before a wait, go to the end of the lines where this worker was served.

        The kernel wakes exclusive waiters in the order of their registration;
        the first would take every client that comes while it idles.
        """
        while self._took:
            fd = self._took.pop()
            if fd in self._call:
                with suppress(OSError):  # a handler closed the server
                    self._epoll.unregister(fd)
                    self._epoll.register(fd, _LISTEN)

    def close(self) -> None:
        """Leave all lines."""
        self._call.clear()
        self._epoll.close()

    def _disown(self) -> None:
        """Have an epoll of our own, in a child that a handler has forked.

        The parent's is shared: to forget a descriptor here would forget it there.
        """
        self._call.clear()
        self._took.clear()
        self._soon.clear()
        if not self._epoll.closed:
            self._epoll.close()
            self._epoll = select.epoll()


def call_if_alive(method: "weakref.WeakMethod[Callable[[], None]]") -> None:
    """Call a method, unless its object has gone."""
    bound = method()
    if bound is not None:
        bound()
