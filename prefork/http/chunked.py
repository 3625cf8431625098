"""Decodes one chunked body (RFC 9112 §7.1): pieces as received in, payload out.

A worker, for a request whose `Head.length` is None. It never buffers: bytes
that cannot be used yet stay with the caller. Extensions and trailers are
checked and dropped: nothing in a trailer may count as a header (RFC 9110 §6.5.1).
"""

from enum import Enum
from typing import Final

from prefork.http.grammar import TEXT, TOKEN, compiled
from prefork.http.wire import WireError, WireLimits

_EXTENSION_BYTES: Final = 256  # of one chunk; real ones are a signature of 80 to 100
_EXTENSIONS_BYTES: Final = 16384  # of a body, or each 1-byte chunk brings 256 (CVE-2024-22019)
_SIZE_DIGITS: Final = 16  # 64 bits

# BWS may stand around ; and = but not after the size alone: nobody needs it, smugglers do.
_QUOTED: Final = r'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
_SIZE_LINE: Final = compiled(
    rf"([0-9A-Fa-f]{{1,{_SIZE_DIGITS}}}+)"
    rf"((?:[ \t]*+;[ \t]*+{TOKEN}(?:[ \t]*+=[ \t]*+(?:{TOKEN}|{_QUOTED}))?+)*+)\r\n"
)
_SIZE_SO_FAR: Final = compiled(rf"(?:[0-9A-Fa-f]{{1,{_SIZE_DIGITS}}}+(?:(?=[ \t;]){TEXT})?+\r?)?+")
_TRAILER: Final = compiled(rf"{TOKEN}:{TEXT}")
_TRAILER_SO_FAR: Final = compiled(rf"(?:{TOKEN}(?::{TEXT})?+)?+\r?")


class _Awaits(Enum):
    SIZE = "the line with a chunk's size"
    DATA = "the rest of a chunk and its line end"
    TRAILER = "a trailer field or the empty line"
    NOTHING = "the body is complete"


class Chunked:
    """The decoder of one body. done: the last chunk and the trailers have been consumed."""

    def __init__(self, limits: WireLimits) -> None:
        self.done = False
        self._limits = limits
        self._awaits = _Awaits.SIZE
        self._left = 0  # bytes of the current chunk that are still to come
        self._total = 0
        self._extensions_bytes = 0
        self._trailers = 0
        self._trailers_bytes = 0

    def decode(self, data: bytes | bytearray) -> tuple[bytes, int]:
        """Return the payload in data, and how many bytes of data were used.

        The rest is to be passed again with what follows it: less than 300
        bytes, or an unfinished trailer. Raises: WireError with 400, 413 or 431;
        what data held before the fault is lost with the request.
        """
        payload: list[bytes | bytearray] = []
        used = 0
        if self._awaits is _Awaits.DATA:
            used = self._take(data, 0, payload)
        if self._awaits is _Awaits.SIZE:
            used = self._chunks(data, used, payload)
        if self._awaits is _Awaits.TRAILER:
            used = self._drop_trailers(data, used)
        return b"".join(payload), used

    def _chunks(self, data: bytes | bytearray, pos: int, payload: list[bytes | bytearray]) -> int:
        # One flat loop: a body of single bytes is a million turns (CVE-2025-69229).
        match_size, append = _SIZE_LINE.match, payload.append
        total = self._total
        limit = self._limits.body_bytes
        if limit is None:
            limit = 1 << 65
        while match := match_size(data, pos):
            digits, extension = match.groups()
            begin = match.end()
            if extension:
                self._count_extension(len(extension))
            size = int(digits, 16)
            if size == 0:
                self._awaits = _Awaits.TRAILER
                self._total = total
                return begin
            total += size
            if total > limit:
                raise WireError(413, "")
            end = begin + size
            if data[end : end + 2] != b"\r\n":
                self._total = total
                self._left = size
                self._awaits = _Awaits.DATA
                return self._take(data, begin, payload)
            append(data[begin:end])
            pos = end + 2
        self._total = total
        self._refuse_size(data, pos)
        return pos

    def _take(self, data: bytes | bytearray, pos: int, payload: list[bytes | bytearray]) -> int:
        """Take what there is of the current chunk and, after all of it, its line end."""
        part = data[pos : pos + self._left]
        if part:
            payload.append(part)
            self._left -= len(part)
            pos += len(part)
        if self._left == 0:
            line_end = data[pos : pos + 2]
            if line_end == b"\r\n":
                self._awaits = _Awaits.SIZE
                return pos + 2
            if line_end not in (b"", b"\r"):  # CVE-2025-43859
                raise WireError(400, "Chunk longer than its size")
        return pos

    def _count_extension(self, size: int) -> None:
        self._extensions_bytes += size
        if size > _EXTENSION_BYTES or self._extensions_bytes > _EXTENSIONS_BYTES:
            raise WireError(400, "Chunk extensions too long")

    def _refuse_size(self, data: bytes | bytearray, pos: int) -> None:
        """Raise unless data from pos on can become the line with a size."""
        longest = _SIZE_DIGITS + _EXTENSION_BYTES + 2
        if len(data) - pos > longest and b"\r\n" not in data[pos : pos + longest]:
            raise WireError(400, "Chunk extensions too long")
        if _SIZE_SO_FAR.fullmatch(data, pos) is None:
            raise WireError(400, "Invalid chunk size")

    def _drop_trailers(self, data: bytes | bytearray, pos: int) -> int:
        limits = self._limits
        while (end := data.find(b"\r\n", pos)) >= 0:
            line = bytes(data[pos:end])
            pos = end + 2
            if not line:
                self._awaits = _Awaits.NOTHING
                self.done = True
                return pos
            self._refuse_trailer(line)
            self._trailers += 1
            self._trailers_bytes += len(line) + 2
            if self._trailers > limits.fields or self._trailers_bytes > limits.head_bytes:
                raise WireError(431, "Too many headers")
        # A few bytes more than the limit suffice to refuse.
        unfinished = bytes(data[pos : pos + limits.field_bytes + 2])
        if _TRAILER_SO_FAR.fullmatch(unfinished) is None:
            raise WireError(400, "Invalid trailer")
        if len(unfinished.removesuffix(b"\r")) > limits.field_bytes:
            raise WireError(431, "Line too long")
        return pos

    def _refuse_trailer(self, line: bytes) -> None:
        limit = self._limits.field_bytes
        if _TRAILER_SO_FAR.fullmatch(line[:limit]) is None or b"\r" in line[:limit]:
            raise WireError(400, "Invalid trailer")
        if len(line) > limit:
            raise WireError(431, "Line too long")
        if _TRAILER.fullmatch(line) is None:
            raise WireError(400, "Invalid trailer")
