"""A zip of stored entries: where each byte stands, from names, sizes and times alone.

A worker, in any thread. Pure but for the zone in which times are local. It never
compresses, so that lengths are known before a file is read.

Sources: PKWARE's APPNOTE.TXT 6.3.10; extrafld.txt of Info-ZIP (0x5455).

The checksum of a file always follows its bytes (4.3.9, flag bit 3), also where it is
known already: the archive is the same whoever asks, and how often. Against the letter
of 4.4.4 the local header has the sizes nevertheless: who reads a pipe needs them to find
the end of an entry (libarchive loses entries without), and all others ignore them. Zip64 fields are
there only where a number needs one. Times are of the server's zone, as zip has it, and
of UTC in the extra field, which all but Windows read.
"""

import struct
import time
from array import array
from itertools import accumulate
from typing import Final

from prefork.share.archive.plan import Plan

_LOCAL: Final = struct.Struct("<4sHHHIIIIHH")
_RECORD: Final = struct.Struct("<4sHHHHIIIIHHHHHII")
_DESCRIPTOR: Final = struct.Struct("<4sIII")
_DESCRIPTOR_64: Final = struct.Struct("<4sIQQ")
_END: Final = struct.Struct("<4sHHHHIIH")
_END_64: Final = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR_64: Final = struct.Struct("<4sIQI")
_UNIX_TIME: Final = struct.Struct("<HHBi")

_FULL_16: Final = 0xFFFF  # this and more stands in a zip64 field (4.4.1.4)
_FULL_32: Final = 0xFFFFFFFF
_UTF_8: Final = 0x0800
_FOLLOWS: Final = 0x0008
_UNIX: Final = 3 << 8
_VERSION: Final = 20  # folders
_VERSION_64: Final = 45
_DOS_FOLDER: Final = 0x10
_DOS_FIRST: Final = 0x00210000  # 1980-01-01
_DOS_LAST: Final = 0xFF9FBF7D  # 2107-12-31 23:59:58
_S_PER_NS: Final = 1_000_000_000


class Zip:
    """A plan's layout as a zip.

    starts: where each entry's header stands, and at last where the central directory
    does. records: where the directory's record of each entry stands, and its end.
    """

    content_type = "application/zip"
    suffix = ".zip"
    has_crcs = True

    __slots__ = ("_dos", "_plan", "records", "size", "starts")

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._dos = array("I", map(dos_time, plan.mtimes_ns))
        self.starts = array("Q", accumulate(map(self._length, range(len(plan))), initial=0))
        lengths = map(self._record_length, range(len(plan)))
        self.records = array("Q", accumulate(lengths, initial=self.starts[-1]))
        self.size = self.records[-1] + len(self.end())

    def digest(self) -> bytes:
        """Return what changes the bytes and is not in the plan: the zone's rules."""
        return self._dos.tobytes()

    def head(self, number: int) -> bytes:
        """Return an entry's local header (4.3.7)."""
        plan = self._plan
        size = plan.sizes[number]
        name = plan.fit_name(number)
        extra = self._unix_time(number)
        is_big = size >= _FULL_32
        if is_big:
            extra += struct.pack("<HHQQ", 1, 16, size, size)
        return (
            _LOCAL.pack(
                b"PK\3\4",
                _VERSION_64 if is_big else _VERSION,
                _UTF_8 | _FOLLOWS if size else _UTF_8,
                0,
                self._dos[number],
                0,
                min(size, _FULL_32),
                min(size, _FULL_32),
                len(name),
                len(extra),
            )
            + name
            + extra
        )

    def foot(self, number: int, crc: int) -> bytes:
        """Return what follows an entry's bytes (4.3.9), b"" if it has none."""
        size = self._plan.sizes[number]
        if not size:
            return b""
        form = _DESCRIPTOR_64 if size >= _FULL_32 else _DESCRIPTOR
        return form.pack(b"PK\7\x08", crc, size, size)

    def record(self, number: int, crc: int) -> bytes:
        """Return an entry's record in the central directory (4.3.12)."""
        plan = self._plan
        size = plan.sizes[number]
        start = self.starts[number]
        name = plan.fit_name(number)
        big = ([size, size] if size >= _FULL_32 else []) + ([start] if start >= _FULL_32 else [])
        extra = self._unix_time(number)
        if big:
            extra += struct.pack(f"<HH{len(big)}Q", 1, 8 * len(big), *big)
        mode = plan.modes[number]
        version = _VERSION_64 if big else _VERSION
        return (
            _RECORD.pack(
                b"PK\1\2",
                _UNIX | version,
                version,
                _UTF_8 | _FOLLOWS if size else _UTF_8,
                0,
                self._dos[number],
                crc,
                min(size, _FULL_32),
                min(size, _FULL_32),
                len(name),
                len(extra),
                0,  # comment
                0,  # disk
                0,  # internal attributes
                mode << 16 | (_DOS_FOLDER if plan.is_folder(number) else 0),
                min(start, _FULL_32),
            )
            + name
            + extra
        )

    def end(self) -> bytes:
        """Return what follows the central directory (4.3.14 to 4.3.16)."""
        count = len(self._plan)
        start = self.starts[-1]
        length = self.records[-1] - start
        last = _END.pack(
            b"PK\5\6",
            0,
            0,
            min(count, _FULL_16),
            min(count, _FULL_16),
            min(length, _FULL_32),
            min(start, _FULL_32),
            0,
        )
        if count < _FULL_16 and max(length, start) < _FULL_32:
            return last
        rest = _END_64.size - 12  # without the signature and this number itself
        version = _UNIX | _VERSION_64
        end_64 = _END_64.pack(
            b"PK\6\6", rest, version, _VERSION_64, 0, 0, count, count, length, start
        )
        return end_64 + _LOCATOR_64.pack(b"PK\6\7", 0, self.records[-1], 1) + last

    def _length(self, number: int) -> int:
        size = self._plan.sizes[number]
        length = _LOCAL.size + self._plan.fit_length(number) + self._time_length(number)
        if not size:
            return length
        if size >= _FULL_32:
            return length + 20 + size + _DESCRIPTOR_64.size
        return length + size + _DESCRIPTOR.size

    def _record_length(self, number: int) -> int:
        length = _RECORD.size + self._plan.fit_length(number) + self._time_length(number)
        big = 16 * (self._plan.sizes[number] >= _FULL_32) + 8 * (self.starts[number] >= _FULL_32)
        return length + 4 + big if big else length

    def _time_length(self, number: int) -> int:
        return 9 if 0 <= self._plan.mtimes_ns[number] < _S_PER_NS << 31 else 0

    def _unix_time(self, number: int) -> bytes:
        if not self._time_length(number):
            return b""  # the field has 31 bits that all read alike
        return _UNIX_TIME.pack(0x5455, 5, 1, self._plan.mtimes_ns[number] // _S_PER_NS)


def dos_time(time_ns: int) -> int:
    """Return a time as local date and time of MS-DOS (4.4.6), the nearest that it has."""
    try:
        year, month, day, hour, minute, second, *_ = time.localtime(time_ns // _S_PER_NS)
    except (OverflowError, OSError):  # of a year that is no int of C
        return _DOS_LAST if time_ns > 0 else _DOS_FIRST
    if year < 1980:
        return _DOS_FIRST
    if year > 2107:
        return _DOS_LAST
    date = (year - 1980) << 9 | month << 5 | day
    return date << 16 | hour << 11 | minute << 5 | min(second, 59) >> 1
