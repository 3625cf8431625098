"""The bytes of an open file, for an answer that says beforehand how many there are.

A worker. A file that becomes shorter, or is rewritten where it stands, while it is
sent breaks the connection: nothing stands in the place of what is missing, and states
are not mixed, but for what the kernel has and the client has not, at most a socket's
buffer. One that only grows is sent as long as it was.
"""

import os
from collections.abc import Iterator
from typing import Final

from prefork.http.filecache import SMALL_BYTES, Identity, identity_of
from prefork.http.outbox import Descriptor, FilePiece, Piece

#: Sent last, after a look at the file: whoever has this has had all the rest of the same state.
_LAST_BYTES: Final = 1 << 14


class ChangedError(OSError):
    """The file is another than at the beginning."""


def pieces_of(file: Descriptor, identity: Identity, start: int, stop: int) -> Iterator[Piece]:
    """Yield bytes start to stop of a file.

    Raises: ChangedError.
    """
    size = stop - start
    if size <= SMALL_BYTES:
        data = os.pread(file.fd, size, start)
        if len(data) != size:
            raise ChangedError("the file became shorter")
        require_same(file, identity)
        yield data
        return
    require_same(file, identity)
    yield FilePiece(file, start, size - _LAST_BYTES)
    require_same(file, identity)
    yield FilePiece(file, stop - _LAST_BYTES, _LAST_BYTES)


def require_same(file: Descriptor, identity: Identity) -> None:
    """Raise ChangedError unless an open file is as it was, or longer.

    What was asked for of a log that grows is there, and its last line but one is not worth less
    for the last. One that was written anew, and is longer now, cannot be told from it.
    """
    status = os.fstat(file.fd)
    now = identity_of(status)
    if now != identity and not (now[:2] == identity[:2] and now[2] > identity[2]):
        raise ChangedError("the file was changed while it was sent")
