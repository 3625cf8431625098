"""An answer on its way: its head by the handler's own hooks, its body as the client takes it.

A worker, in the thread of the handler. It decides nothing about what is answered.
"""

import contextlib
import os
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from prefork.http.lazy import CONNECTION
from prefork.http.outbox import Piece
from prefork.share.content import ChangedError

if TYPE_CHECKING:
    from prefork.http.representation import Answer
    from prefork.share.share import Share

#: Up to here a body leaves with its head, in one send.
_JOINED_BYTES: Final = 1 << 15
_STEP_BYTES: Final = 1 << 18

#: What a script of another origin may read of an answer, beside what everybody may (fetch §4.10).
_EXPOSED: Final = "Accept-Ranges, Content-Disposition, Content-Encoding, Content-Range, ETag"


class ChangedSoonError(ChangedError):
    """What was found has changed before any of it was sent: it may be looked for again."""


def send(handler: Any, share: "Share", answer: "Answer", origin: str | None) -> None:
    """Send an answer. origin: the field Origin, for which CORS may have a word.

    Raises: OSError; ChangedSoonError before anything was sent.
    """
    body, rest = b"", None
    if answer.pieces is not None and handler.command != "HEAD":
        try:
            body, rest = _begun(answer.pieces, answer.size)
        except ChangedError as error:
            raise ChangedSoonError(*error.args) from error
    handler.send_response(answer.status)
    for name, value in [*answer.headers, *cors_of(share, origin)]:
        handler.send_header(name, value)
    handler._send_extra_response_headers()
    handler.end_headers()
    try:
        if rest is not None:
            _send_rest(handler, rest)
        elif body:
            handler.wfile.write(body)
    except (ConnectionError, TimeoutError):
        raise
    except OSError as error:
        # Of a file; it may well be missing now. But this answer has begun, and is not to be
        # taken for a request that can have another: that would stand in the middle of it.
        raise ConnectionAbortedError(error.errno, str(error)) from error


def cors_of(share: "Share", origin: str | None) -> list[tuple[str, str]]:
    """Return the headers by which a page of another origin may read the answer, if it may."""
    allowed = share.cors_origins
    if not allowed:
        return []
    if "*" in allowed:
        return [("Access-Control-Allow-Origin", "*"), ("Access-Control-Expose-Headers", _EXPOSED)]
    vary = [("Vary", "Origin")]
    if origin is None or origin not in allowed:
        return vary
    names = ("Access-Control-Allow-Origin", origin), ("Access-Control-Expose-Headers", _EXPOSED)
    return [*names, *vary]


def _begun(pieces: Iterator[Piece], size: int | None) -> tuple[bytes, Iterator[Piece] | None]:
    """Return the whole of a short body, and None; or b"", and all pieces, with the first made.

    Raises: OSError.
    """
    if size == 0:
        return b"", None
    if size is None or size > _JOINED_BYTES:
        first = next(pieces, None)
        return b"", pieces if first is None else chain((first,), pieces)
    made: list[bytes] = []
    for data in _bytes_of(pieces):
        if not data:  # it may take long, as an archive's checksums: by the loop
            return b"", chain(made, pieces)
        made.append(data)
    return b"".join(made), None


def _send_rest(handler: Any, pieces: Iterator[Piece]) -> None:
    connection = handler.__dict__.get(CONNECTION)
    if connection is not None and handler.wfile is connection.response:
        # It has broken the connection, as it does in the loop: no error of the handler's.
        with contextlib.suppress(ChangedError):
            connection.response.send_source(pieces)
    else:
        for data in _bytes_of(pieces):
            handler.wfile.write(data)


def _bytes_of(pieces: Iterator[Piece]) -> Iterator[bytes]:
    """Yield what the pieces are, those of files read.

    Raises: OSError; also when a file has become shorter than was promised.
    """
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
            continue
        offset, stop = piece.offset, piece.offset + piece.count
        while offset < stop:
            data = os.pread(piece.file.fd, min(_STEP_BYTES, stop - offset), offset)
            if not data:
                raise BrokenPipeError("the file became shorter while it was sent")
            offset += len(data)
            yield data
