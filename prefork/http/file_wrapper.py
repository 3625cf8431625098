"""`wsgi.file_wrapper`: a file that the kernel may send (PEP 3333).

A worker. Where it cannot, the wrapper is iterated, as wsgiref's.
"""

import io
import os
import stat
import wsgiref.util
from typing import Any, Final

_PLAIN: Final = (io.BufferedReader, io.BufferedRandom)


class FileWrapper(wsgiref.util.FileWrapper):
    """Pieces of a file-like object, of blksize bytes; or the whole by sendfile(2).

    filelike: has `read(size)`, and perhaps `close()`.
    """

    def __init__(self, filelike: Any, blksize: int = 1 << 16) -> None:
        super().__init__(filelike, blksize)


def piece_of(wrapper: FileWrapper) -> tuple[int, int, int] | None:
    """Return descriptor, offset and number of bytes left of a plain file; None: it is none.

    Only of Python's own file objects: others have a `fileno()`, too, but mean
    something else by their bytes, as GzipFile does.
    """
    file: Any = wrapper.filelike
    file = getattr(file, "file", file)  # tempfile's
    raw = file.raw if type(file) in _PLAIN else file
    if type(raw) is not io.FileIO or not raw.readable():
        return None
    try:
        found = os.fstat(raw.fileno())
        offset: int = file.tell()
    except (OSError, ValueError):  # closed, or nothing to seek in
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return raw.fileno(), offset, max(0, found.st_size - offset)
