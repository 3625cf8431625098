"""Any part of an archive, piece by piece.

A worker, in its loop: each step reads and sums at most 128 KiB. A file is opened when
its turn comes. It is the plan's own file, unchanged after each piece was read and before
that goes, or the source raises: the connection breaks, and never the archive. Nothing is left
to sendfile(2): what it has taken is still the file's own memory until the client has it, and
changes with the file. It never waits for a client, and writes nothing.

A checksum that is not known is made while the bytes are sent; where a client asks
for a part that needs one and lacks the bytes, they are read for that alone. What has
been summed up of a large file is remembered also when the client goes in the middle.
"""

import os
import time
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

from prefork.http.outbox import Descriptor, Piece
from prefork.share.archive.crcs import Crcs
from prefork.share.archive.identity import identity_of
from prefork.share.archive.plan import Plan
from prefork.share.content import ChangedError
from prefork.share.jail import ForbiddenError, Jail, MissingError

#: Read whole, and summed up once more though that is known: it takes less than a second send.
_SMALL_BYTES: Final = 1 << 16
#: Read at once, and what a slow client has in memory; twice as much is no faster.
_STEP_BYTES: Final = 1 << 17
_JOINED_BYTES: Final = 1 << 17
#: Of work, then it is others' turn.
_STEP_S: Final = 0.002

#: While a sum is made and nothing is sent, after so long so much goes: clients and proxies take a
#: silence of a minute (aria2, nginx), some of 30 s, for the end.
_SILENT_S: Final = 5.0
_SIGN_BYTES: Final = 1 << 10

Work = Generator[Piece, None, int]


class Layout(Protocol):
    """How an archive's bytes stand: of each entry a head, its bytes and a foot; then records.

    starts: where entries begin; the last is where the records do. records: where they begin;
    the last is where the end does.
    """

    starts: "array[int]"
    records: "array[int]"
    size: int
    has_crcs: bool

    def head(self, number: int) -> bytes:
        """Return what stands before an entry's bytes."""
        ...

    def foot(self, number: int, crc: int) -> bytes:
        """Return what follows them."""
        ...

    def record(self, number: int, crc: int) -> bytes:
        """Return an entry's record."""
        ...

    def end(self) -> bytes:
        """Return what follows the records."""
        ...


@dataclass(frozen=True, slots=True)
class Stream:
    """An archive that can be sent. top: the folder's names from the root.

    on_change: called when the plan turns out to be out of date.
    """

    jail: Jail
    top: tuple[str, ...]
    plan: Plan
    layout: Layout
    crcs: Crcs
    on_change: Callable[[], None]

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Yield the bytes from start up to stop.

        Raises: OSError, ChangedError among them.
        """
        return _in_steps(_Part(self, start, stop).pieces())


class _Part:
    """One part of an archive, on its way."""

    def __init__(self, stream: Stream, start: int, stop: int) -> None:
        self._stream = stream
        self._plan = stream.plan
        self._layout = stream.layout
        self._crcs = stream.crcs
        self._start = start
        self._stop = stop
        # CRC + 1 of each entry that has gone, 0 of others: not all are remembered by `crcs`.
        self._seen: array[int] | None = None

    def pieces(self) -> Iterator[Piece]:
        starts, records = self._layout.starts, self._layout.records
        try:
            for number in range(bisect_right(starts, self._start) - 1, len(starts) - 1):
                if starts[number] >= self._stop:
                    return
                yield from self._entry(number)
            for number in range(max(0, bisect_right(records, self._start) - 1), len(records) - 1):
                if records[number] >= self._stop:
                    return
                crc = yield from self._crc(number)
                yield self._cut(records[number], self._layout.record(number, crc))
            yield self._cut(records[-1], self._layout.end())
        finally:
            self._crcs.flush()

    def _cut(self, at: int, data: bytes) -> bytes:
        """Return what is asked for of data that stands at an offset."""
        if at >= self._start and at + len(data) <= self._stop:
            return data
        return data[max(0, self._start - at) : max(0, self._stop - at)]

    def _entry(self, number: int) -> Iterator[Piece]:
        layout = self._layout
        at = layout.starts[number]
        head = layout.head(number)
        yield self._cut(at, head)
        at += len(head)
        size = self._plan.sizes[number]
        if not size:
            return
        first = min(max(self._start - at, 0), size)
        last = min(max(self._stop - at, 0), size)
        needs_crc = layout.has_crcs and self._stop > at + size
        crc = 0
        if first < last or needs_crc:
            crc = yield from self._content(number, first, last, needs_crc=needs_crc)
        yield self._cut(at + size, layout.foot(number, crc))

    def _crc(self, number: int) -> Work:
        """Return an entry's CRC; yield b"" while it is made."""
        size = self._plan.sizes[number]
        if not size:
            return 0
        if self._seen is not None and (seen := self._seen[number]):
            return seen - 1
        if not self._plan.is_note(number):
            done, crc = self._crcs.begun(self._plan.identity(number))
            if done == size:
                return crc
        return (yield from self._content(number, size, size, needs_crc=True))

    def _content(self, number: int, first: int, last: int, *, needs_crc: bool) -> Work:
        """Yield an entry's bytes from first to last, its end if needs_crc; return its CRC."""
        if self._plan.is_note(number):
            yield self._plan.note[first:last]
            return zlib.crc32(self._plan.note)
        file = _PlannedFile(self._stream, number)
        if file.identity.size <= _SMALL_BYTES:
            data = file.read(0, file.identity.size)
            crc = zlib.crc32(data)
            if needs_crc:
                self._crcs.note(file.identity, len(data), crc, file.began_ns)
            yield data[first:last]
        elif needs_crc:
            crc = yield from self._summed(file, first)
        else:
            yield from file.pieces(first, last)
            return 0
        if needs_crc:
            if self._seen is None:
                self._seen = array("Q", bytes(8 * len(self._plan)))
            self._seen[number] = crc + 1
        return crc

    def _summed(self, file: "_PlannedFile", first: int) -> Work:
        """Yield a file's bytes from first to its end; return the CRC of all."""
        size = file.identity.size
        done, crc = self._crcs.begun(file.identity)
        known = done
        if first < done:
            yield from file.pieces(first, done)
        try:
            sent_s = time.monotonic()
            while done < size:
                if done < first < size and time.monotonic() - sent_s > _SILENT_S:
                    last = min(first + _SIGN_BYTES, size)
                    yield file.read(first, last)
                    first, sent_s = last, time.monotonic()
                is_sent = done >= first
                data = file.read(done, min(done + _STEP_BYTES, size if is_sent else first))
                crc = zlib.crc32(data, crc)
                done += len(data)
                yield data if is_sent else b""
        finally:  # also when the client goes: it may come back for the rest
            if done > known:
                self._crcs.note(file.identity, done, crc, file.began_ns)
        return crc


class _PlannedFile:
    """A file of a plan, open.

    identity: the plan's. began_ns: when it was opened, in nanoseconds since the epoch.
    Raises: OSError.
    """

    def __init__(self, stream: Stream, number: int) -> None:
        self._stream = stream
        self.identity = stream.plan.identity(number)
        self.began_ns = time.time_ns()
        try:
            opened = stream.jail.open(stream.top + stream.plan.parts(number))
        except (MissingError, ForbiddenError):  # it is the file that is missing, not the archive
            self._refuse()
        self._file: Descriptor = opened.file
        if identity_of(opened.status) != self.identity:
            self._refuse()

    def read(self, start: int, stop: int) -> bytes:
        """Return its bytes, known to be those that were planned.

        Raises: OSError.
        """
        data = os.pread(self._file.fd, stop - start, start)
        while len(data) < stop - start:
            more = os.pread(self._file.fd, stop - start - len(data), start + len(data))
            if not more:
                self._refuse()
            data += more
        self._check()
        return data

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Yield a part of it.

        Raises: OSError.
        """
        while start < stop:
            count = min(_STEP_BYTES, stop - start)
            yield self.read(start, start + count)
            start += count

    def _check(self) -> None:
        if identity_of(os.fstat(self._file.fd)) != self.identity:
            self._refuse()

    def _refuse(self) -> NoReturn:
        self._stream.on_change()
        raise ChangedError("a file has changed since its archive was planned")


def _in_steps(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Yield the pieces, small ones joined, and b"" where others should have their turn."""
    held: list[bytes] = []
    held_bytes = 0
    spent_s = 0.0
    while True:
        began_s = time.perf_counter()
        piece = next(pieces, None)
        spent_s += time.perf_counter() - began_s
        if isinstance(piece, bytes):
            if held_bytes + len(piece) > _STEP_BYTES:
                yield b"".join(held)
                held.clear()
                held_bytes = 0
            held.append(piece)
            held_bytes += len(piece)
            if held_bytes < _JOINED_BYTES and spent_s < _STEP_S:
                continue
        if held_bytes:
            yield b"".join(held)
        held.clear()
        held_bytes = 0
        if piece is None:
            return
        if not isinstance(piece, bytes):
            yield piece
        if spent_s >= _STEP_S:
            spent_s = 0.0
            yield b""
