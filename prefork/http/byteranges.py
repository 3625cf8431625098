"""The body of an answer with several ranges: multipart/byteranges (RFC 9110 §14.6).

A worker, in the thread that sends. Its length is known before its first byte; each
part is taken when it is due, so that however long they are, none is in memory. It
never decides what may be asked for.
"""

import secrets
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prefork.http.heads import header_line
from prefork.http.outbox import Piece
from prefork.http.ranges import Span

if TYPE_CHECKING:
    from prefork.http.representation import Pieces


class ByteRanges:
    """spans: of a representation of `size` bytes. kind: its Content-Type, None without one.

    content_type: of the whole. length: of the body in bytes.
    Raises: ValueError for a kind that has line ends.
    """

    __slots__ = ("_end", "_heads", "_spans", "content_type", "length")

    def __init__(self, spans: Sequence[Span], size: int, kind: str | None) -> None:
        # Nobody can guess it, so nobody can have put it into a file (RFC 2046 §5.1.1).
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/byteranges; boundary={boundary}"
        self._spans = spans
        limit = f"\r\n--{boundary}".encode()
        kind_line = b"" if kind is None else header_line("Content-Type", kind)[0]
        self._heads = [
            b"%b\r\n%bContent-Range: %b\r\n\r\n"
            % (limit, kind_line, content_range(span, size).encode())
            for span in spans
        ]
        self._heads[0] = self._heads[0].removeprefix(b"\r\n")
        self._end = limit + b"--\r\n"
        parts = sum(span.stop - span.start for span in spans)
        self.length = sum(map(len, self._heads)) + parts + len(self._end)

    def pieces(self, source: "Pieces") -> Iterator[Piece]:
        """Yield the body, its parts taken from source."""
        for head, span in zip(self._heads, self._spans, strict=True):
            yield head
            yield from source(span.start, span.stop)
        yield self._end


def content_range(span: Span, size: int) -> str:
    """Return the value of Content-Range (RFC 9110 §14.4)."""
    return f"bytes {span.start}-{span.stop - 1}/{size}"
