"""An answer on its way: its head by the handler's own hooks, its body as the client takes it.

A worker, in the thread of the handler. It decides nothing about what is answered.
"""

import os
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from prefork.http.lazy import CONNECTION
from prefork.http.outbox import Piece

if TYPE_CHECKING:
    from prefork.http.representation import Answer
    from prefork.share.share import Share

#: Up to here a body leaves with its head, in one send.
_JOINED_BYTES: Final = 1 << 15
_STEP_BYTES: Final = 1 << 18

#: What a script of another origin may read of an answer, beside what everybody may (fetch §4.10).
_EXPOSED: Final = "Accept-Ranges, Content-Disposition, Content-Encoding, Content-Range, ETag"


def send(handler: Any, share: "Share", answer: "Answer", origin: str | None) -> None:
    """Send an answer. origin: the field Origin, for which CORS may have a word.

    Raises: OSError.
    """
    handler.send_response(answer.status)
    for name, value in [*answer.headers, *cors_of(share, origin)]:
        handler.send_header(name, value)
    handler._send_extra_response_headers()
    handler.end_headers()
    if answer.pieces is not None and handler.command != "HEAD":
        _send_body(handler, answer.pieces, answer.size)


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


def _send_body(handler: Any, pieces: Iterator[Piece], size: int | None) -> None:
    connection = handler.__dict__.get(CONNECTION)
    on_engine = connection is not None and handler.wfile is connection.response
    if size is not None and size <= _JOINED_BYTES:
        made: list[bytes] = []
        for data in _bytes_of(pieces):
            if not data and on_engine:  # it may take long, as an archive's checksums: by the loop
                pieces = chain(made, pieces)
                break
            made.append(data)
        else:
            handler.wfile.write(b"".join(made))
            return
    if on_engine:
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
