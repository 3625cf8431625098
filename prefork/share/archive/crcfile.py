"""Checksums of files in a file of SQLite's, which all workers share.

A worker: its loop reads, a thread of its own writes. What is in it can be lost at
any time, so nothing here raises: what cannot be read is not known, what cannot be
written is forgotten, and a damaged file is made anew. It never reads the files that
it is about.
"""

import contextlib
import fcntl
import os
import sqlite3
import struct
import threading
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from prefork import log
from prefork.share.archive.identity import Identity

#: The number is that of the table's form.
_NAME: Final = "crc32-1.sqlite"
_READ_WAIT_S: Final = 0.005  # the loop's; a reader waits for nobody in WAL, but for who recovers it
_WRITE_WAIT_S: Final = 5.0
_PAGE_BYTES: Final = 4096  # SQLite's own default
_STATE: Final = struct.Struct("<QqqQI")
_SEAL: Final = struct.Struct("<I")
_KEY: Final = struct.Struct("<QQ")

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS crcs (
    age INTEGER PRIMARY KEY, dev INTEGER, ino INTEGER, state BLOB, UNIQUE (dev, ino)
)"""
_FIND: Final = "SELECT state FROM crcs WHERE dev = ? AND ino = ?"
_STORE: Final = "INSERT OR REPLACE INTO crcs (dev, ino, state) VALUES (?, ?, ?)"
#: The oldest quarter, by when they were written.
_DROP: Final = """
DELETE FROM crcs WHERE age <= (SELECT min(age) + (max(age) - min(age)) / 4 FROM crcs)"""


class Known(NamedTuple):
    """crc: of the first `done` bytes of a file; of all of it if that is its size."""

    identity: Identity
    done: int
    crc: int


class CrcFile:
    """directory: there, and ours alone. limit_bytes: that the file may have, about."""

    def __init__(self, directory: str, limit_bytes: int) -> None:
        self._directory = directory
        self._path = Path(directory) / _NAME
        self._limit_bytes = limit_bytes
        self._reading = threading.Lock()
        self._reader: sqlite3.Connection | None = None
        self._read_of = (0, 0)
        self._opened = (0, 0)

    def __del__(self) -> None:
        self._close_reader()

    def open(self) -> None:
        """Make the file if need be, and be ready to read. It may take some milliseconds.

        A file that somebody has removed or made anew meanwhile is not the one to read any more.
        """
        with contextlib.suppress(sqlite3.Error, OSError), self._reading:
            there = self._there()
            if self._reader is not None and there != self._read_of:
                self._close_reader()
            if self._reader is None:
                self._reader = self._connect_reader()
                self._read_of = there  # from before: if it was replaced since, it is another

    def read(self, dev: int, ino: int) -> Known | None:
        """Return what is known of a file; None: nothing, or it cannot be read now."""
        with self._reading:
            if self._reader is None:
                return None
            try:
                row = self._reader.execute(_FIND, (_signed(dev), _signed(ino))).fetchone()
            except sqlite3.Error as error:
                if _is_damage(error):
                    self._close_reader()  # the writer, which finds the same, makes it anew
                return None
        return None if row is None else _parse_state(dev, ino, row[0])

    def write(self, rows: Iterable[Known]) -> bool:
        """Write what has become known. It may wait. False: it cannot be written."""
        try:
            self._write(rows)
        except (sqlite3.Error, OSError) as error:
            if not _is_damage(error):
                log.debug("share.crcs_unwritten", path=self._path, error=error)
                return False
            log.warning("share.crcs_damaged", path=self._path, error=error)
            with contextlib.suppress(sqlite3.Error, OSError):
                self._remake()
                self._write(rows)
                return True
            return False
        return True

    def close(self) -> None:
        """Close it; nothing is read any more."""
        with self._reading:
            self._close_reader()

    def _write(self, rows: Iterable[Known]) -> None:
        with contextlib.closing(self._connect(_WRITE_WAIT_S)) as writer:
            self._opened = self._there()
            # NORMAL: after a crash of the system the last may be lost, never the rest torn.
            mode = writer.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            writer.execute("PRAGMA synchronous = NORMAL")
            log_bytes = self._limit_bytes // 8
            writer.execute(f"PRAGMA journal_size_limit = {log_bytes}")
            writer.execute(f"PRAGMA wal_autocheckpoint = {max(1, log_bytes // _PAGE_BYTES)}")
            writer.execute(_TABLE)
            if mode != "wal":
                log.debug("share.crcs_without_wal", path=self._path, mode=mode)
            writer.execute("BEGIN IMMEDIATE")
            for row in rows:
                self._store(writer, row)
            writer.execute("COMMIT")
            while self._used_bytes(writer) > self._limit_bytes * 3 // 4:  # the rest is for the log
                if not writer.execute(_DROP).rowcount:
                    break
        self.open()

    def _store(self, writer: sqlite3.Connection, row: Known) -> None:
        key = _signed(row.identity.dev), _signed(row.identity.ino)
        if row.done < row.identity.size:  # another worker may have got further
            there = writer.execute(_FIND, key).fetchone()
            known = there and _parse_state(row.identity.dev, row.identity.ino, there[0])
            if known and known.identity == row.identity and known.done >= row.done:
                return
        writer.execute(_STORE, (*key, _state_of(row)))

    def _used_bytes(self, writer: sqlite3.Connection) -> int:
        count, unused, size = (
            writer.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((count - unused) * size)

    def _connect(self, wait_s: float) -> sqlite3.Connection:
        return sqlite3.connect(
            self._path, timeout=wait_s, isolation_level=None, check_same_thread=False
        )

    def _connect_reader(self) -> sqlite3.Connection:
        """Return a connection that has read: its log is open, whatever becomes of the names."""
        reader = self._connect(_READ_WAIT_S)
        try:
            reader.execute(_FIND, (0, 0)).fetchone()
        except sqlite3.Error:
            reader.close()
            raise
        return reader

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _there(self) -> tuple[int, int]:
        """Return which file the path leads to; (0, 0): none."""
        try:
            status = self._path.stat()
        except OSError:
            return 0, 0
        return status.st_dev, status.st_ino

    def _remake(self) -> None:
        """Remove the file, unless another worker has done that already."""
        self.close()
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if self._there() == self._opened:
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        finally:
            os.close(folder)


def _is_damage(error: Exception) -> bool:
    """Tell whether the file is no database, or a broken one: SQLITE_CORRUPT, SQLITE_NOTADB.

    Other errors (locked, full, no permission) are OperationalErrors and may pass; so is
    that of a table which is not what it should be.
    """
    return type(error) is sqlite3.DatabaseError


def _signed(number: int) -> int:
    """Return an unsigned number of 64 bits as SQLite can hold it."""
    return number - (1 << 64) if number >> 63 else number


def _state_of(row: Known) -> bytes:
    _, _, size, mtime_ns, ctime_ns = row.identity
    state = _STATE.pack(size, mtime_ns, ctime_ns, row.done, row.crc)
    return state + _seal(row.identity.dev, row.identity.ino, state)


def _parse_state(dev: int, ino: int, state: object) -> Known | None:
    """Return what a row says, None if it is not as it was written.

    SQLite has no checksums of its own, and a wrong CRC would spoil archives for good.
    """
    if type(state) is not bytes or len(state) != _STATE.size + _SEAL.size:
        return None
    said, seal = state[: _STATE.size], state[_STATE.size :]
    if _seal(dev, ino, said) != seal:
        return None
    size, mtime_ns, ctime_ns, done, crc = _STATE.unpack(said)
    return Known(Identity(dev, ino, size, mtime_ns, ctime_ns), done, crc)


def _seal(dev: int, ino: int, state: bytes) -> bytes:
    return _SEAL.pack(zlib.crc32(state, zlib.crc32(_KEY.pack(dev, ino))))
