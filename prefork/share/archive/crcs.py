"""The checksums of files' contents, for as long as the files are what they were.

A worker: asked by its loop, which never waits for a disk here; a thread writes to the
file that all workers share, while there is something to write. It never reads the
files that it is about.
"""

import threading
import time
from typing import Final

from prefork.share.archive.crcfile import CrcFile, Known
from prefork.share.archive.identity import Identity

#: So many are written at once, or what there is after so long.
_BATCH: Final = 512
_BATCH_S: Final = 1.0
#: After what could not be written, until the next try.
_RETRY_S: Final = 30.0
#: What this process has written, by a number each of 60 bytes: small files are summed up each time.
_MOST_WRITTEN: Final = 1 << 16
#: Of an entry in memory, measured.
_ENTRY_BYTES: Final = 450
#: A file may be written to once more within the tick of its file system's clock, and look the same:
#: ext4's 4 ms, FAT's 2 s.
_SETTLED_S: Final = 2.5


class Crcs:
    """directory: where to keep them, ours alone; None: in memory only.

    limit_bytes: of the file, or of the memory; the oldest are dropped. settled_s: for
    how long a file must not have changed before what is read of it is remembered.
    To be made at any time, and used first in the worker.
    """

    def __init__(
        self, directory: str | None, limit_bytes: int, *, settled_s: float = _SETTLED_S
    ) -> None:
        self._file = None if directory is None else CrcFile(directory, limit_bytes)
        self._settled_ns = int(settled_s * 1e9)
        self._most = max(1, limit_bytes // _ENTRY_BYTES)
        self._lock = threading.Lock()
        self._fresh: dict[tuple[int, int], Known] = {}  # not written yet, or all there is
        self._written: set[int] = set()
        self._is_writing = False
        self._written_s = 0.0
        self._retry_s = 0.0

    def open(self) -> None:
        """Be ready. It may take some milliseconds, so it is not for the loop."""
        if self._file is not None:
            self._file.open()

    def begun(self, identity: Identity) -> tuple[int, int]:
        """Return how many bytes of a file's begin have been read, and the CRC of those."""
        known = self._fresh.get(identity[:2])
        if known is None and self._file is not None:
            known = self._file.read(identity.dev, identity.ino)
        if known is None or known.identity != identity:
            return 0, 0
        return known.done, known.crc

    def note(self, identity: Identity, done: int, crc: int, began_ns: int) -> None:
        """Remember the CRC of a file's first bytes.

        began_ns: when the first of them was read that had not been remembered, in
        nanoseconds since the epoch.
        """
        if began_ns - max(identity.mtime_ns, identity.ctime_ns) < self._settled_ns:
            return
        if hash((identity, done)) in self._written:
            return
        key = identity[:2]
        with self._lock:
            known = self._fresh.get(key)
            if known is not None and known.identity == identity and known.done >= done:
                return
            if len(self._fresh) >= self._most:
                del self._fresh[next(iter(self._fresh))]
            self._fresh[key] = Known(identity, done, crc)
            is_due = len(self._fresh) >= _BATCH or time.monotonic() > self._written_s + _BATCH_S
        if is_due:
            self.flush()

    def flush(self) -> threading.Thread | None:
        """Have a thread write what has not been written; return it, None if there is none."""
        with self._lock:
            if self._file is None or self._is_writing or not self._fresh:
                return None
            if time.monotonic() < self._retry_s:
                return None
            self._is_writing = True
            thread = threading.Thread(target=self._write, name="crcs", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads, or the interpreter ends: later, or never
                self._is_writing = False
                return None
        return thread

    def _write(self) -> None:
        file = self._file
        assert file is not None  # noqa: S101 # flush() has looked
        with self._lock:
            rows = list(self._fresh.values())
        is_written = file.write(rows)
        with self._lock:
            if is_written:
                if len(self._written) > _MOST_WRITTEN:
                    self._written.clear()
                for row in rows:
                    self._written.add(hash((row.identity, row.done)))
                    if self._fresh.get(row.identity[:2]) is row:
                        del self._fresh[row.identity[:2]]
            self._written_s = time.monotonic()
            self._retry_s = 0.0 if is_written else self._written_s + _RETRY_S
            self._is_writing = False
