"""A chunked body, taken in whole before its application is called.

A worker, in the thread of the handler. Whoever decodes chunks says the length
that they had (RFC 9112 §7.1.3), and only the end tells it: PEP 3333 knows no
body without CONTENT_LENGTH, and Django, Bottle and Falcon see none without it.
It never keeps more than a little of a body in memory, and never looks at it.
"""

import io
import shutil
import tempfile
from http import HTTPStatus
from typing import BinaryIO

from prefork.http.wire import WireError


def take_in(body: BinaryIO, memory_bytes: int) -> tuple[BinaryIO, int]:
    """Return the body as a file, at its beginning, and its length in bytes.

    memory_bytes: what is longer goes to a file without a name, in $TMPDIR.
    Raises: WireError for what is no chunk, and when the client leaves before the
    end; TimeoutError when it stalls; OSError when there is no room.
    """
    try:
        first = body.read(memory_bytes + 1)
        if len(first) <= memory_bytes:
            return io.BytesIO(first), len(first)
        return _to_disk(first, body)
    except ConnectionResetError as error:
        # No fault of the application, which has not been asked: no traceback.
        raise WireError(HTTPStatus.BAD_REQUEST, "Body cut short", b"") from error


def _to_disk(first: bytes, body: BinaryIO) -> tuple[BinaryIO, int]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 # it is returned
    try:
        file.write(first)
        shutil.copyfileobj(body, file)
        size = file.tell()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file, size
