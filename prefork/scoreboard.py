"""One line per worker in memory that master and workers share.

Both processes. A memfd: it has no name in any file system, is inherited by fork,
survives the master's execve, and vanishes with the last process. Each field is
one aligned 64-bit word with one writer at a time, so no lock is needed: a reader
sees the old value or the new one.

It never decides anything: `fleet` does.
"""

import mmap
import os
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

#: Lines of one board, of which only the pages that are used cost memory.
CAPACITY: Final = 1024

#: Grows when the meaning of a word changes: the next image of a master must understand what the
#: workers of the one before write.
LAYOUT: Final = 1

_WORDS: Final = 16  # per line: two cache lines, so workers do not share any
_TEXT_BYTES: Final = 256  # per line, behind all words


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
    RETIRE = 1  #: finish what is in hand, leave the queues to the other workers
    DRAIN = 2  #: answer what waits in the accept queues as well: nobody comes after you
    DRAIN_SOME = 3  #: as RETIRE, but nobody else serves the queues that `doomed` names


#: A word has a sign.
BITS: Final = 63


def bits_of(numbers: Iterable[int]) -> int:
    """Return the word that has these bits; those that no word has are left out."""
    return sum(1 << n for n in set(numbers) if n < BITS)


class _Word:
    """One field of a line."""

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
    doomed = _Word(3)  #: for DRAIN_SOME: bit n stands for the worker's nth listener
    requests = _Word(4)  #: how many it has taken
    sent_bytes = _Word(5)  #: how much it has sent
    since_ns = _Word(6)  #: since when the request in `text` is handled; 0: none is
    seen_ns = _Word(7)  #: when it last wrote `text` and the figures, which SIGURG makes it do
    retired = _Word(9)  #: 1 when it takes no more clients
    busy = _Word(8)  #: how many requests it has in hand, answers under way among them
    handled = _Word(11)  #: how many of them a handler has
    drained = _Word(10)  #: bit n: it has answered the queue of its nth listener, as it was told

    def __init__(self, words: memoryview, text: memoryview) -> None:
        self.words = words
        self._text = text

    @property
    def text(self) -> str:
        """The request in hand, for people: its first line, perhaps cut off."""
        return bytes(self._text).partition(b"\0")[0].decode("utf-8", "replace")

    @text.setter
    def text(self, line: str) -> None:
        raw = line.encode("utf-8", "replace")[:_TEXT_BYTES]
        self._text[:] = raw.ljust(_TEXT_BYTES, b"\0")

    def clear(self, now_ns: int) -> None:
        """Make the line ready for a new worker."""
        for index in range(_WORDS):
            self.words[index] = 0
        self.text = ""
        self.beat_ns = now_ns

    def release(self) -> None:
        """Let go of the memory, which could not be given back otherwise."""
        self.words.release()
        self._text.release()

    def detach(self) -> None:
        """Go on in private memory: what a process writes that is no worker reaches nobody."""
        self.words = memoryview(bytearray(_WORDS * 8)).cast("q")
        self._text = memoryview(bytearray(_TEXT_BYTES))


class Scoreboard:
    """The mapping; `board[n]` is line n, 0 <= n < CAPACITY.

    fd: of the board of this process's image before, which is this one's then.
    """

    def __init__(self, fd: int | None = None) -> None:
        size = CAPACITY * (_WORDS * 8 + _TEXT_BYTES)
        self.fd = os.memfd_create("prefork-scoreboard") if fd is None else fd
        if fd is None:
            os.truncate(self.fd, size)
        self._map = mmap.mmap(self.fd, size)
        self._slots: dict[int, Slot] = {}
        self._taken: set[int] = set()

    def take(self, index: int | None = None) -> int | None:
        """Return a line that nobody has, and keep it; None: there is none left.

        index: the very line, of a worker that was there before.
        """
        if index is None:
            index = next((n for n in range(CAPACITY) if n not in self._taken), None)
        if index is not None:
            self._taken.add(index)
        return index

    def give_back(self, index: int) -> None:
        """Let another worker have a line."""
        self._taken.discard(index)

    def __getitem__(self, index: int) -> Slot:
        slot = self._slots.get(index)
        if slot is None:
            view = memoryview(self._map)
            words = view[index * _WORDS * 8 : (index + 1) * _WORDS * 8].cast("q")
            at = CAPACITY * _WORDS * 8 + index * _TEXT_BYTES
            slot = self._slots[index] = Slot(words, view[at : at + _TEXT_BYTES])
        return slot

    def close(self) -> None:
        """Give the memory back; nobody may use a line after that."""
        for slot in self._slots.values():
            slot.release()
        self._map.close()
        os.close(self.fd)
