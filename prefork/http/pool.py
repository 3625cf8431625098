"""The threads of a worker that run handlers, and the desks at which they sit.

A worker. The loop hands over connections whose request is complete. Threads
are started when they are needed: as long as handlers return quickly, a few
serve everybody; when all of them block, there will be more, up to the limit.
It never looks into a connection.
"""

import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from prefork import log
from prefork.desk import Desk

#: More than so many only take the interpreter's lock from each other, unless their handlers block.
_EAGER: Final = 4

#: How long nobody may be served, while somebody waits, before there are more threads.
_STUCK_S: Final = 0.02
_STALE_S: Final = 5 * _STUCK_S
#: Of that time, how much of a processor this process may have used if its handlers are to count as
#: blocked although some return: those that sleep for 15 ms would else be served four at a time.
_BLOCKING: Final = 0.6
#: And how long they must take: a processor that others use, too, looks the same.
_LONG_S: Final = 0.002

Serve = Callable[[Any], None]


class Pool:
    """At most `size` threads. serve: called with a connection, in one of them."""

    def __init__(self, size: int, serve: Serve, *, daemon: bool) -> None:
        self._size = size
        self._serve = serve
        self._daemon = daemon
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._kept: set[threading.Thread] = set()
        self._desks: list[Desk] = []
        self._done = self._done_before = 0
        self._looked_s = self._computed_s = 0.0
        self._idle = 0
        self.is_orphan = False  #: this is a process that a handler has forked

    def submit(self, connection: Any) -> None:
        """Have a connection served by the next thread that is free."""
        self._queue.put(connection)
        if self._idle < self._queue.qsize() and len(self._threads) < min(self._size, _EAGER):
            self._start()

    def has_waiting(self) -> bool:
        """Tell whether somebody waits for a thread."""
        return self._queue.qsize() > self._idle

    def is_busy(self) -> bool:
        """Tell whether one of the threads is serving."""
        return self._idle < len(self._threads) or bool(self._kept)

    def grow_if_stuck(self, now_s: float) -> None:
        """Start threads for those that wait, if handlers block: called while somebody waits."""
        if now_s - self._looked_s > _STALE_S:  # nobody had to wait lately: what was does not count
            self._look(now_s)
            return
        took_s = now_s - self._looked_s
        if took_s < _STUCK_S:
            return
        computed_s = time.process_time() - self._computed_s
        done = self._done - self._done_before
        more = 0
        if not done:
            more = self._queue.qsize()
        elif len(self._threads) * took_s > done * _LONG_S and computed_s < _BLOCKING * took_s:
            more = len(self._threads)
        self._look(now_s)
        for _ in range(min(more, self._queue.qsize(), self._size - len(self._threads))):
            self._start()

    def _look(self, now_s: float) -> None:
        self._looked_s, self._computed_s = now_s, time.process_time()
        self._done_before = self._done

    def spawn(self, connection: Any) -> None:
        """Serve a connection by a thread of its own, which ends with it."""

        def main() -> None:
            desk = connection.desk = Desk()
            self._desks.append(desk)
            try:
                self._run(connection)
            finally:
                self._desks.remove(desk)
                self._kept.discard(threading.current_thread())

        thread = threading.Thread(target=main, name="prefork-kept", daemon=self._daemon)
        self._kept.add(thread)
        try:
            thread.start()
        except BaseException:
            self._kept.discard(thread)
            raise

    def oldest_sign_of_life_ns(self, now_ns: int) -> int:
        """Return when the busy thread that has been silent longest showed life; now if none."""
        return min((s for desk in list(self._desks) if (s := desk.since_ns)), default=now_ns)

    def close(self) -> None:
        """Let the threads end when they have served what they have."""
        for _ in self._threads:
            self._queue.put(None)

    def join(self) -> None:
        """Wait for them."""
        for thread in [*self._threads, *self._kept]:
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
            connection = None  # or an idle thread would keep it

    def _run(self, connection: Any) -> None:
        try:
            self._serve(connection)
        except SystemExit:
            pass  # as in any thread: it ends the request, not the process
        except BaseException:
            log.exception("handler.failed")
        if self.is_orphan:
            os._exit(0)  # it has returned into a server that is not its own
