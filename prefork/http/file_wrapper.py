"""`wsgi.file_wrapper`: a file that the kernel may send (PEP 3333).

A worker. Where it cannot, the wrapper is iterated, as wsgiref's.
"""

import io
import os
import stat
import tempfile
import wsgiref.util
from typing import Any, Final

_PLAIN: Final = (io.BufferedReader, io.BufferedRandom)


#: Frameworks suggest 4096 or 8192: many sends for a file that is there.
_PIECE_BYTES: Final = 1 << 16


class FileWrapper(wsgiref.util.FileWrapper):
    """Pieces of a file-like object, of blksize bytes; or the whole by sendfile(2).

    filelike: has `read(size)`, and perhaps `close()`. Pieces of a plain file
    may be larger. Werkzeug's answers to a Range look for `seek()`; without it they
    read all that is before.
    """

    def __init__(self, filelike: Any, blksize: int = _PIECE_BYTES) -> None:
        if type(filelike) in _PLAIN:
            blksize = max(blksize, _PIECE_BYTES)
        super().__init__(filelike, blksize)

    def seekable(self) -> bool:
        """Tell whether the file has positions."""
        seekable = getattr(self.filelike, "seekable", None)
        return seekable is not None and bool(seekable())

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a position of the file; return it.

        Raises: what the file's own `seek()` raises.
        """
        return int(self.filelike.seek(offset, whence))

    def tell(self) -> int:
        """Return the position in the file."""
        return int(self.filelike.tell())


def piece_of(wrapper: FileWrapper) -> tuple[int, int, int] | None:
    """Return descriptor, offset and number of bytes left of a plain file; None: it is none.

    Only of Python's own file objects: others have a `fileno()`, too, but mean
    something else by their bytes, as GzipFile does.
    """
    file: Any = wrapper.filelike
    # No other class that has a `file`: its `read()` may mean something else, too.
    file = file.file if type(file) is tempfile._TemporaryFileWrapper else file
    raw = file.raw if type(file) in _PLAIN else file
    if type(raw) is not io.FileIO or not raw.readable():
        return None
    try:
        found = os.fstat(raw.fileno())
        offset: int = file.tell()
    except (OSError, ValueError):  # closed, or nothing to seek in
        return None
    if not stat.S_ISREG(found.st_mode) or not found.st_size:
        return None  # those of /proc are empty until they are read
    return raw.fileno(), offset, max(0, found.st_size - offset)
