"""The threads of a worker that run handlers, and the desks at which they sit.

A worker. The loop hands over connections whose request is complete. Threads
are started when they are needed: as long as handlers return quickly, a few
serve everybody; when all of them block, there will be more, up to the limit.
It never looks into a connection.
"""

import queue
import threading
from collections.abc import Callable
from typing import Any, Final

from prefork import log
from prefork.desk import Desk

#: More than so many only take the interpreter's lock from each other, unless their handlers block.
_EAGER: Final = 4

#: How long nobody may be served, while somebody waits, before there are more threads.
_STUCK_S: Final = 0.02

Serve = Callable[[Any], None]


class Pool:
    """At most `size` threads. serve: called with a connection, in one of them."""

    def __init__(self, size: int, serve: Serve, *, daemon: bool) -> None:
        self._size = size
        self._serve = serve
        self._daemon = daemon
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._desks: list[Desk] = []
        self._done = self._done_before = 0
        self._moved_s = 0.0
        self._idle = 0

    def submit(self, connection: Any) -> None:
        """Have a connection served by the next thread that is free."""
        self._queue.put(connection)
        if self._idle < self._queue.qsize() and len(self._threads) < min(self._size, _EAGER):
            self._start()

    def has_waiting(self) -> bool:
        """Tell whether somebody waits for a thread."""
        return self._queue.qsize() > self._idle

    def grow_if_stuck(self, now_s: float) -> None:
        """Start threads for those that wait, if nobody has been served for a while."""
        if self._done != self._done_before:
            self._done_before, self._moved_s = self._done, now_s
        if now_s - self._moved_s < _STUCK_S:
            return
        for _ in range(min(self._queue.qsize(), self._size - len(self._threads))):
            self._start()

    def spawn(self, connection: Any) -> None:
        """Serve a connection by a thread of its own, which ends with it."""

        def main() -> None:
            desk = connection.desk = Desk()
            self._desks.append(desk)
            try:
                self._run(connection)
            finally:
                self._desks.remove(desk)

        thread = threading.Thread(target=main, name="prefork-kept", daemon=self._daemon)
        thread.start()

    def oldest_sign_of_life_ns(self, now_ns: int) -> int:
        """Return when the busy thread that has been silent longest showed life; now if none."""
        return min((s for desk in list(self._desks) if (s := desk.since_ns)), default=now_ns)

    def close(self) -> None:
        """Let the threads end when they have served what they have."""
        for _ in self._threads:
            self._queue.put(None)

    def join(self) -> None:
        """Wait for them."""
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        thread = threading.Thread(
            target=self._work, name=f"prefork-{len(self._threads)}", daemon=self._daemon
        )
        self._threads.append(thread)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no more
            self._threads.remove(thread)
            if not self._threads:
                raise
            log.warning("worker.short", reason=str(error))

    def _work(self) -> None:
        desk = Desk()
        self._desks.append(desk)
        while True:
            self._idle += 1
            connection = self._queue.get()
            self._idle -= 1
            if connection is None:
                return
            connection.desk = desk
            self._run(connection)
            self._done += 1

    def _run(self, connection: Any) -> None:
        try:
            self._serve(connection)
        except SystemExit:
            pass  # as in any thread: it ends the request, not the process
        except BaseException:
            log.exception("handler.failed")
