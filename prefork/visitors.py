"""How many addresses requests have come from, for all workers together: memory that they share.

Workers write, the master reads when they have ended. Each line of the scoreboard
has a part of its own with one process at a time that writes there, so there is
no lock between processes; who takes the line of a worker that has died goes on
where that left off. It keeps no address, only a number that stands for it.
"""

import mmap
import threading
from typing import Any, Final

from prefork.scoreboard import CAPACITY

#: Addresses of each worker that are told apart; beyond them there are "more than".
MOST: Final = 4096
_WORDS: Final = 1 + MOST  # how many there are, then they themselves


class Visitors:
    """Made by the master before it forks. Pages that nobody has written to cost no memory."""

    def __init__(self) -> None:
        self._words = memoryview(mmap.mmap(-1, CAPACITY * _WORDS * 8)).cast("q")
        self._seen: set[int] | None = None  # this worker's
        self._adding = threading.Lock()

    def note(self, line: int, host: str) -> None:
        """Count an address, once; line: the worker's, on the scoreboard."""
        number = hash(host)  # the same in all workers, for they are forks; nobody else can guess it
        if self._seen is not None and number in self._seen:
            return
        with self._adding:
            at = line * _WORDS
            count = self._words[at]
            if self._seen is None:
                self._seen = set(self._words[at + 1 : at + 1 + min(count, MOST)])
            if number in self._seen or count > MOST:
                return
            if count < MOST:
                self._words[at + 1 + count] = number
                self._seen.add(number)
            self._words[at] = count + 1  # last: whoever reads it finds the number

    def count(self) -> tuple[int, bool]:
        """Return how many there were, and whether these are all."""
        numbers: set[int] = set()
        is_all = True
        for at in range(0, CAPACITY * _WORDS, _WORDS):
            count = self._words[at]
            numbers.update(self._words[at + 1 : at + 1 + min(count, MOST)])
            is_all = is_all and count <= MOST
        return len(numbers), is_all


def host_of(address: Any) -> str:
    """Return what stands for a client: its address without its port."""
    return str(address[0]) if isinstance(address, tuple) and address else "unix"
