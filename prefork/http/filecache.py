"""Files that were asked for lately, open: so that asking again costs no look-up.

A worker, one for each engine; any thread. An entry is looked at again after a
second: one that was replaced, removed or changed is opened anew, so nothing
older is ever served. The content is never kept: it is read for each answer, and
with it whether its length is still the one in the head.
"""

import os
import resource
import stat
import threading
from collections.abc import Callable
from typing import Final

from prefork.http.outbox import Descriptor

#: How long an entry is taken at its word, in seconds (nginx's open_file_cache_valid: 60).
VALID_S: Final = 1.0
#: How long one that nobody asks for stays open: it may keep a disk busy, or a deleted file there.
IDLE_S: Final = 20.0
#: Files up to this size leave with their head, in one send; of larger ones sendfile(2) saves more
#: than it costs.
SMALL_BYTES: Final = 1 << 15

_MOST: Final = 1024
_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not be waited for

Identity = tuple[int, int, int, int]


class SpecialFileError(Exception):
    """A FIFO, which would be waited for, or a device, which may have no end."""


class File(Descriptor):
    """An open file. path: it was found there. lines: of the head, that tell about it.

    head: the whole head, as of a second of the clock.
    """

    __slots__ = (
        "checked_s",
        "head",
        "identity",
        "lines",
        "path",
        "second",
        "size",
        "used_s",
    )

    def __init__(self, path: str, fd: int, status: os.stat_result, now_s: float) -> None:
        super().__init__(fd)
        self.path = path
        self.identity = identity_of(status)
        self.size = status.st_size
        self.lines = self.head = b""
        self.second = 0
        self.checked_s = self.used_s = now_s


class FileCache:
    """Keys are the caller's. valid_s: how long an entry is taken at its word, in seconds."""

    def __init__(self, valid_s: float = VALID_S) -> None:
        self._valid_s = valid_s
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = _MOST if soft == resource.RLIM_INFINITY else min(_MOST, soft // 16)
        self._files: dict[object, File] = {}
        self._lock = threading.Lock()

    def get(self, key: object, now_s: float) -> File | None:
        """Return the file that was found for a key, if that is sure; now_s: of this turn."""
        file = self._files.get(key)
        if file is None or now_s - file.checked_s >= self._valid_s:
            return None
        file.used_s = now_s
        return file

    def open(
        self, key: object, path: str, now_s: float, describe: Callable[[File, float], bytes]
    ) -> File | None:
        """Return the regular file at path, from now on for this key; None: there is none.

        describe: called with a file and its time of modification, returns its lines.
        Raises: SpecialFileError.
        """
        before = self._files.get(key)
        try:
            if before is not None and before.path == path:
                status = os.stat(path)  # noqa: PTH116 # Path costs twice as much
                if identity_of(status) == before.identity:
                    before.checked_s = before.used_s = now_s
                    return before
            fd = os.open(path, _FLAGS)
        except (OSError, ValueError):
            self.forget(key)
            return None
        status = os.fstat(fd)
        file = File(path, fd, status, now_s)
        if not stat.S_ISREG(status.st_mode):
            self.forget(key)
            if stat.S_ISDIR(status.st_mode):
                return None
            raise SpecialFileError(path)
        file.lines = describe(file, status.st_mtime)
        self.put(key, file)
        return file

    def put(self, key: object, file: File) -> None:
        """Keep a file that the caller has opened, for this key."""
        with self._lock:
            self._files.pop(key, None)
            while len(self._files) >= self._most:
                del self._files[next(iter(self._files))]
            self._files[key] = file

    def forget(self, key: object) -> None:
        """Do not believe any more what was found for a key."""
        with self._lock:
            self._files.pop(key, None)

    def expire(self, now_s: float) -> None:
        """Close what nobody has asked for lately."""
        with self._lock:
            for key, file in list(self._files.items()):
                if now_s - file.used_s >= IDLE_S:
                    del self._files[key]

    def clear(self) -> None:
        """Close everything."""
        with self._lock:
            self._files.clear()


def identity_of(status: os.stat_result) -> Identity:
    """Return what changes when a file is replaced or written to."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
