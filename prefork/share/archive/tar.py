"""A tar: where each byte stands, from names, sizes and times alone.

A worker, in any thread. Pure. It never compresses, so that lengths are known before
a file is read.

The headers are `tarfile`'s, in the format of POSIX.1-2001 (pax): ustar's own where that
can say it, a pax header before it for other names and for sizes above 8 GiB. Names are the
bytes that they are on disk. Owners are left out: who unpacks is the owner.
"""

import os
import sys
import tarfile
from array import array
from itertools import accumulate
from typing import Final

from prefork.share.archive.plan import Plan

_BLOCK: Final = tarfile.BLOCKSIZE
_NAME_BYTES: Final = tarfile.LENGTH_NAME
_MOST_OCTAL: Final = 8**11  # of a ustar field, sizes and times alike
_S_PER_NS: Final = 1_000_000_000


class Tar:
    """A plan's layout as a tar; see `Zip`. It has no central directory, so no records."""

    content_type = "application/x-tar"
    suffix = ".tar"
    has_crcs = False

    __slots__ = ("_plan", "records", "size", "starts")

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.starts = array("Q", accumulate(map(self._length, range(len(plan))), initial=0))
        self.records = array("Q", self.starts[-1:])
        self.size = self.starts[-1] + len(self.end())

    def digest(self) -> bytes:
        """Return what changes the bytes and is not in the plan: the headers' maker."""
        return bytes(sys.version_info[:2])

    def head(self, number: int) -> bytes:
        """Return all that stands before an entry's bytes."""
        plan = self._plan
        info = tarfile.TarInfo(os.fsdecode(plan.exact_name(number)))
        info.size = plan.sizes[number]
        info.mtime = plan.mtimes_ns[number] // _S_PER_NS
        info.mode = plan.modes[number] & 0o777
        info.type = tarfile.DIRTYPE if plan.is_folder(number) else tarfile.REGTYPE
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")

    def foot(self, number: int, crc: int) -> bytes:  # noqa: ARG002 # a tar has no checksums of content
        """Return what fills an entry's last block."""
        return bytes(-self._plan.sizes[number] % _BLOCK)

    def record(self, number: int, crc: int) -> bytes:
        """Return nothing: there is no directory."""
        raise NotImplementedError(f"{number} {crc}")

    def end(self) -> bytes:
        """Return two empty blocks, and as many as fill a record of tape."""
        least = 2 * _BLOCK
        return bytes(least + -(self.starts[-1] + least) % tarfile.RECORDSIZE)

    def _length(self, number: int) -> int:
        size = self._plan.sizes[number]
        if (
            size < _MOST_OCTAL
            and 0 <= self._plan.mtimes_ns[number] < _MOST_OCTAL * _S_PER_NS
            and len(name := self._plan.exact_name(number)) <= _NAME_BYTES
            and name.isascii()
        ):
            head = _BLOCK
        else:
            head = len(self.head(number))  # which headers it takes, only their maker knows
        return head + size + -size % _BLOCK
