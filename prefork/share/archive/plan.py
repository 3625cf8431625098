"""What will be in an archive: one entry for each file and folder, in their order.

A worker, in any thread. Columns instead of objects: an entry costs some 50 bytes and
its path. It reads no file; once made it never changes.
"""

import hashlib
import os
import stat
from array import array
from typing import Final

from prefork.share.archive.identity import Identity
from prefork.share.etags import clamped_ns

_SHOWN_MODE: Final = 0o777  # of unpacked files none shall be setuid


class Plan:
    """name: of the folder in which all stands; fit for an archive. The first entry is it.

    sizes: bytes of each entry; mtimes_ns: times of modification; modes: type and
    permissions. note: what could not be read, as the text of the last entry; b"": all could.
    """

    __slots__ = (
        "_ctimes_ns",
        "_devs",
        "_ends",
        "_inos",
        "_paths",
        "_renamed",
        "modes",
        "mtimes_ns",
        "name",
        "note",
        "sizes",
    )

    def __init__(self, name: str) -> None:
        self.name = os.fsencode(name)
        self.note = b""
        self.sizes = array("Q")
        self.mtimes_ns = array("q")
        self.modes = array("H")
        self._ctimes_ns = array("q")
        self._devs = array("Q")
        self._inos = array("Q")
        self._paths = bytearray()  # all of them, one after the other
        self._ends = array("Q", [0])
        self._renamed: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self.sizes)

    def add(self, path: bytes, fit_path: bytes | None, status: os.stat_result) -> None:
        """Add a file or folder.

        path: below the folder. fit_path: what it is to be called where path is not fit
        for all archives.
        """
        if fit_path is not None:
            self._renamed[len(self.sizes)] = fit_path
        self._paths += path
        self._ends.append(len(self._paths))
        mode = status.st_mode
        self.modes.append(stat.S_IFMT(mode) | mode & _SHOWN_MODE)
        self.sizes.append(0 if stat.S_ISDIR(mode) else status.st_size)
        self.mtimes_ns.append(clamped_ns(status.st_mtime_ns))
        self._ctimes_ns.append(clamped_ns(status.st_ctime_ns))
        self._devs.append(status.st_dev)
        self._inos.append(status.st_ino)

    def add_note(self, path: bytes, text: bytes) -> None:
        """Add a last entry that is no file."""
        self._paths += path
        self._ends.append(len(self._paths))
        self.note = text
        self.modes.append(stat.S_IFREG | 0o644)
        self.sizes.append(len(text))
        self.mtimes_ns.append(self.mtimes_ns[0])  # its folder's: the same for the same plan
        for column in (self._ctimes_ns, self._devs, self._inos):
            column.append(0)

    def is_folder(self, number: int) -> bool:
        """Tell whether an entry is a folder."""
        return stat.S_ISDIR(self.modes[number])

    def is_note(self, number: int) -> bool:
        """Tell whether an entry's content is `note`."""
        return bool(self.note) and number == len(self.sizes) - 1

    def path(self, number: int) -> bytes:
        """Return an entry's path below the folder, as it is on disk; b"" is the folder."""
        return bytes(self._paths[self._ends[number] : self._ends[number + 1]])

    def exact_name(self, number: int) -> bytes:
        """Return what an entry is called in an archive that takes any bytes."""
        return self._named(number, self.path(number))

    def fit_name(self, number: int) -> bytes:
        """Return what an entry is called in an archive that is for every system."""
        renamed = self._renamed.get(number)
        return self._named(number, self.path(number) if renamed is None else renamed)

    def fit_length(self, number: int) -> int:
        """Return the length of `fit_name()` in bytes."""
        if number in self._renamed:
            return len(self.fit_name(number))
        path = self._ends[number + 1] - self._ends[number]
        return len(self.name) + (path > 0) + path + (self.modes[number] >> 12 == 4)

    def parts(self, number: int) -> tuple[str, ...]:
        """Return the names from the folder down to an entry."""
        return tuple(os.fsdecode(self.path(number)).split("/"))

    def identity(self, number: int) -> Identity:
        """Return which content an entry had when the plan was made."""
        return Identity(
            self._devs[number],
            self._inos[number],
            self.sizes[number],
            self.mtimes_ns[number],
            self._ctimes_ns[number],
        )

    def digest(self, more: bytes) -> bytes:
        """Return 16 bytes that differ for other content, names, times, modes and `more`."""
        summary = hashlib.blake2b(more, digest_size=16)
        for column in (
            self._ends,
            self.modes,
            self.sizes,
            self.mtimes_ns,
            self._ctimes_ns,
            self._devs,
            self._inos,
            self._paths,
            self.name,
            b"\0",
            self.note,
        ):
            summary.update(column)
        return summary.digest()

    def _named(self, number: int, path: bytes) -> bytes:
        name = self.name + b"/" + path if path else self.name
        return name + b"/" if self.is_folder(number) else name
