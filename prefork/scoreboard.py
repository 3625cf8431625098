"""One line per worker in memory that master and workers share.

Both processes. An anonymous mapping: it is inherited by fork, has no name in
any file system, and vanishes with the last process. Each field is one aligned
64-bit word with one writer at a time, so no lock is needed: a reader sees the
old value or the new one.

It never decides anything: `fleet` does.
"""

import mmap
from enum import IntEnum
from typing import Final

#: Slots of one fleet. 64 KiB of address space; pages are touched only when used.
CAPACITY: Final = 1024

_WORDS: Final = 8  # per slot: one cache line, so workers do not share lines


# What a worker is doing, as far as its heartbeat is concerned. Plain numbers: they are written
# several times in each request.
IDLE: Final = 0  #: waits for a request
BUSY: Final = 1  #: runs a handler's code
CLIENT: Final = 2  #: a handler waits for its client: no bound but the handler's own timeout

# Where these two words are, for who writes them that often.
BEAT_WORD: Final = 0
ACTIVITY_WORD: Final = 1


class Order(IntEnum):
    """What the master wants a worker to do; SIGTERM makes it look."""

    SERVE = 0
    RETIRE = 1  #: finish what is in hand, leave the queue to the other workers
    DRAIN = 2  #: answer what waits in the accept queue as well: nobody comes after you


class _Word:
    """One field of a slot."""

    def __init__(self, index: int) -> None:
        self._index = index

    def __get__(self, slot: "Slot", owner: type["Slot"]) -> int:
        return slot.words[self._index]

    def __set__(self, slot: "Slot", value: int) -> None:
        slot.words[self._index] = value


class Slot:
    """One worker's line. All times are CLOCK_MONOTONIC, in nanoseconds."""

    beat_ns = _Word(BEAT_WORD)  #: when the worker last showed life
    activity = _Word(ACTIVITY_WORD)  #: IDLE, BUSY or CLIENT
    order = _Word(2)  #: an `Order`

    def __init__(self, words: memoryview) -> None:
        self.words = words

    def clear(self, now_ns: int) -> None:
        """Make the line ready for a new worker."""
        for index in range(_WORDS):
            self.words[index] = 0
        self.beat_ns = now_ns

    def detach(self) -> None:
        """Go on in private memory: what a process writes that is no worker reaches nobody."""
        self.words = memoryview(bytearray(_WORDS * 8)).cast("q")


class Scoreboard:
    """The mapping; `board[n]` is slot n, 0 <= n < CAPACITY."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, CAPACITY * _WORDS * 8)
        self._slots: dict[int, Slot] = {}

    def __getitem__(self, index: int) -> Slot:
        slot = self._slots.get(index)
        if slot is None:
            words = memoryview(self._map).cast("q")
            slot = self._slots[index] = Slot(words[index * _WORDS : (index + 1) * _WORDS])
        return slot
