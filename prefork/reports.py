"""What workers tell the master: records on a pipe that all of them share.

Both processes. Each record is one write of less than PIPE_BUF bytes, so no two
mix (pipe(7)). Nothing here decides what follows from it.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from enum import IntEnum
from typing import Final, NamedTuple

_HEAD: Final = struct.Struct("<BHIH")  # what, line of the scoreboard, PID, bytes of text
_TEXT_BYTES: Final = 1000
_READ_BYTES: Final = 65536


class Report(IntEnum):
    """What a worker has to say."""

    READY = 1
    ASKED = 2  #: SIGTERM came, but the scoreboard has no order: somebody else sent it
    SHUTDOWN = 3  #: `shutdown()` was called by a handler
    EXPIRED = 4  #: it has served as many requests as it should
    FAILED = 5  #: it ends because of what the text says
    YIELDED = 6  #: it takes no more clients, or none from a queue: the scoreboard has it


_KNOWN: Final = frozenset(Report)


class Record(NamedTuple):
    """One report. line: the worker's, in the scoreboard."""

    what: Report
    line: int
    pid: int
    text: str


def send(fd: int, what: Report, line: int, text: str = "") -> None:
    """Tell the master; a dead one does not matter any more."""
    raw = text.encode("utf-8", "replace")[:_TEXT_BYTES]
    with suppress(OSError):
        os.write(fd, _HEAD.pack(what, line, os.getpid(), len(raw)) + raw)


class Reader:
    """The master's end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = b""

    def read(self) -> Iterator[Record]:
        """Yield what has come; call it when the pipe is readable."""
        data = self._rest + os.read(self._fd, _READ_BYTES)
        at = 0
        while len(data) - at >= _HEAD.size:
            what, line, pid, length = _HEAD.unpack_from(data, at)
            end = at + _HEAD.size + length
            if end > len(data):
                break
            text = data[at + _HEAD.size : end].decode("utf-8", "replace")
            at = end
            if what in _KNOWN:  # workers of a later version, before a downgrade, may say more
                yield Record(Report(what), line, pid, text)
        self._rest = data[at:]
