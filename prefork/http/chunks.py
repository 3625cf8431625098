"""Pieces of a body, each as a chunk (RFC 9112 §7.1); the last chunk is the caller's.

A worker, in its loop. `chunked` reads what clients send; this is what they get.
"""

from collections.abc import Iterator

from prefork.http.outbox import Piece, size_of


def in_chunks(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Yield the pieces framed; empty ones as they are, for they would end the body."""
    for piece in pieces:
        size = size_of(piece)
        if not size:
            yield piece
        elif isinstance(piece, bytes):
            yield b"%x\r\n%b\r\n" % (size, piece)
        else:
            yield b"%x\r\n" % size
            yield piece
            yield b"\r\n"
