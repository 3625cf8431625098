"""One thread's place of work, as far as the heartbeat is concerned.

A worker. A handler that computes for too long is stuck; one that waits for its
client is not. Nothing here decides: the times are read by the worker's tick
and by the master.
"""

import time

from prefork.scoreboard import ACTIVITY_WORD, BEAT_WORD, BUSY, CLIENT, IDLE

_now_ns = time.monotonic_ns


class Desk:
    """since_ns: when the handler at it last showed life; 0: nobody is, or its client is awaited."""

    __slots__ = ("since_ns",)

    def __init__(self) -> None:
        self.since_ns = 0

    def begin(self) -> None:
        """Note that a handler starts."""
        self.since_ns = _now_ns()

    def away(self) -> None:
        """Note that it waits for its client."""
        self.since_ns = 0

    def back(self) -> None:
        """Note that it has got what it waited for."""
        self.since_ns = _now_ns()

    def end(self) -> None:
        """Note that it has returned."""
        self.since_ns = 0


class LoopDesk(Desk):
    """The desk of the worker's own loop; only the master can tell that it is stuck.

    words: those of the worker's line of the scoreboard.
    """

    __slots__ = ("_words",)

    def __init__(self, words: memoryview) -> None:
        super().__init__()
        self._words = words

    def begin(self) -> None:
        """Note that a handler starts."""
        words = self._words
        words[BEAT_WORD] = _now_ns()
        words[ACTIVITY_WORD] = BUSY

    def away(self) -> None:
        """Note that it waits for its client."""
        self._words[ACTIVITY_WORD] = CLIENT

    def back(self) -> None:
        """Note that it has got what it waited for."""
        self.begin()

    def end(self) -> None:
        """Note that it has returned."""
        self._words[ACTIVITY_WORD] = IDLE
