"""Reads the head of an HTTP/1.x request: bytes in, a `Head` or a `WireError` out.

A worker, for each request of each client. It never touches a socket or a
clock, and keeps nothing of a client between two calls. Bodies are cut by
`Head.length` or by `prefork.http.chunked`.

Text is converted, stripped or folded in case only after an expression of
`prefork.http.grammar` has matched it. Where RFC 9112 leaves a server the
choice, this one refuses, because what two parsers read differently is how
requests are smuggled: lines end in CRLF only (§2.2), no obs-fold (§5.2),
Content-Length once even if repeated with the same value (§6.3),
Transfer-Encoding is the one word chunked (§6.1).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from prefork.http.grammar import (
    CODINGS,
    CONDITION,
    CONTROL,
    CONTROL_OR_TAB,
    DIGITS,
    FIELD_SO_FAR,
    HOST,
    LATER_VERSION,
    ORIGIN_HEAD,
    TELLING,
    VERSION,
    other_head,
    request_line,
)

CACHED_BYTES: Final = 4096  # longest head that is remembered; a browser's is 500 to 2000
_CACHED_HEADS: Final = 512  # 2 KiB each with its attributes: 1 MiB a worker
_CACHED_BLOCKS: Final = 128  # 4 KiB each; one for each browser and kind of resource
_CACHE_BYTES: Final = 1 << 18  # of keys, in each of both
# An unfinished head up to here is checked whole at each call. Past it only its size and its last
# line's are, or a client that sends single bytes would make us read 64 KiB 65536 times.
_DETAIL_BYTES: Final = 8192


@dataclass(frozen=True, slots=True)
class WireLimits:
    """What a client may send at most; bytes of a line are without its end.

    head_bytes: of all lines with their ends. body_bytes: None for no limit.
    """

    line_bytes: int = 8190
    field_bytes: int = 8190
    fields: int = 100
    head_bytes: int = 65536
    body_bytes: int | None = 1 << 30


class WireError(Exception):
    """The client is at fault: answer with `status` and close, nothing after it can be trusted.

    status: 400, 413, 414, 431, 501 or 505. reason: for people, http.server's
    own words where it has some; empty means the status' own phrase.
    request_line: without line end; empty unless complete, printable and within
    its limit.
    """

    def __init__(self, status: int, reason: str, request_line: bytes = b"") -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.request_line = request_line


@dataclass(slots=True, eq=False)
class Block:
    """What a head's fields say, whatever the request line is; shared as heads are.

    length: as in `Head`. options: the words of Connection, in lower case.
    has_upgrade: there is an Upgrade field. fields, values: made at first use.
    environ: what WSGI makes of them, once it has.
    """

    content: bytes
    has_host: bool
    length: int | None
    options: list[bytes]
    expects_continue: bool
    has_upgrade: bool
    is_conditional: bool
    fields: tuple[tuple[str, str], ...] | None = None
    values: dict[str, str] | None = None
    environ: dict[str, object] | None = None


@dataclass(slots=True, eq=False)
class Head:
    """A request's head. Shared by all requests that sent the same bytes: never change it.

    method, target: as sent. version: HTTP/1.0, or HTTP/1.1 for any later 1.x.
    request_line: as sent, with its CRLF. size: bytes of the head with the empty
    lines around it. length: of the body in bytes, None for chunked. keep_alive:
    what the client wants (RFC 9112 §9.3). is_common: HTTP/1.1, and neither HEAD
    nor CONNECT, so that the answer's head alone says how it ends.
    is_conditional: with preconditions (RFC 9110 §13.1). attributes:
    what `parse_request()` of http.server sets, but `headers`. shared: with all
    heads that have the same fields. environ: what WSGI makes of it, once it has
    come twice.
    """

    method: str
    target: str
    version: str
    request_line: bytes
    size: int
    length: int | None
    keep_alive: bool
    expects_continue: bool
    upgrade: bool
    attributes: dict[str, object]
    method_name: str
    is_common: bool
    is_conditional: bool
    shared: Block
    environ: dict[str, object] | None = None

    @property
    def block(self) -> bytes:
        """All after the request line, the final empty line included."""
        return self.shared.content

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """Names as sent, values without the white space around them; made at first use."""
        shared = self.shared
        if shared.fields is None:
            parts = [line.partition(":") for line in str(shared.content, "latin-1").split("\r\n")]
            shared.fields = tuple([(name, value.strip(" \t")) for name, _, value in parts[:-2]])
        return shared.fields

    @property
    def values(self) -> dict[str, str]:
        """What each field says, by its name in lower case (RFC 9110 §5.3); made at first use."""
        shared = self.shared
        if shared.values is None:
            shared.values = joined(self.fields)
        return shared.values


def joined(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the values by name, in lower case; repeated ones joined by ", "."""
    values: dict[str, str] = {}
    for name, value in fields:
        key = name.lower()
        values[key] = f"{values[key]}, {value}" if key in values else value
    return values


class Parser:
    """Reads heads within limits, and remembers those that clients repeat."""

    def __init__(self, limits: WireLimits) -> None:
        self._limits = limits
        self._least_bytes = min(limits.line_bytes, limits.field_bytes, limits.head_bytes)
        self._heads: dict[bytes, Head] = {}
        #: What `parse()` returns for bytes that are exactly a head it remembers; None for others.
        self.known = self._heads.get
        self._heads_bytes = 0
        self._blocks: dict[bytes, Block] = {}
        self._blocks_bytes = 0

    def parse(self, data: bytes) -> Head | None:
        """Return the head that data begins with, or None while it is incomplete.

        data: from a request's first byte on; may go on after the head.
        Raises: WireError, for the first fault in order of bytes, then for what
        the fields say together. Before the head is complete only for what is
        cheap to see (`_DETAIL_BYTES`).
        """
        size = len(data)
        if size <= CACHED_BYTES and (head := self.known(data)) is not None:
            return head
        start = 0
        if data[:1] == b"\r":  # RFC 9112 §2.2: empty lines before the request line
            start = 4 if data[:4] == b"\r\n\r\n" else 2 if data[:2] == b"\r\n" else 0
        if size > _DETAIL_BYTES and data.find(b"\r\n\r\n", start) < 0:
            self._refuse_early(data, start)
            return None
        match = ORIGIN_HEAD.match(data, start) or other_head().match(data, start)
        if match is None or not self._is_within(match):
            self._refuse(data, start)
            return None
        end = match.end()
        if end == size:
            return self._compose(match, data)
        return self._heads.get(whole := data[:end]) or self._compose(match, whole)

    def forget(self) -> None:
        """Remember no head, and so nothing that others have made of them."""
        self._heads.clear()
        self._blocks.clear()
        self._heads_bytes = self._blocks_bytes = 0

    def _is_within(self, match: re.Match[bytes]) -> bool:
        limits = self._limits
        if match.end() > self._least_bytes and (
            len(match[1]) > limits.line_bytes
            or match.end() > limits.head_bytes
            or max(map(len, match[2].split(b"\r\n"))) > limits.field_bytes
        ):
            return False
        return match[2].count(b"\n") - 1 <= limits.fields

    def _compose(self, match: re.Match[bytes], whole: bytes) -> Head:
        line, content = match.groups()
        block = self._blocks.get(content) or self._understand(match, content)
        text = str(line, "latin-1")
        method, target, version = text.split(" ")
        options = block.options
        is_later = version != "HTTP/1.0"
        if not is_later:
            if block.length is None:
                raise WireError(400, "Transfer-Encoding in HTTP/1.0", line)
            keep_alive = b"keep-alive" in options and b"close" not in options
        else:
            version = "HTTP/1.1"
            if not block.has_host:
                raise WireError(400, "Missing Host", line)
            keep_alive = b"close" not in options
        attributes: dict[str, object] = {
            "command": method,
            # As parse_request() does, against //host/path read as a URL (CVE-2021-28861).
            "path": "/" + target.lstrip("/") if target[:2] == "//" else target,
            "request_version": version,
            "requestline": text,
            "raw_requestline": (request_line := line + b"\r\n"),
            "close_connection": not keep_alive,
        }
        head = Head(
            method,
            target,
            version,
            request_line,
            len(whole),
            block.length,
            keep_alive,
            is_later and block.expects_continue,
            is_later and block.has_upgrade and b"upgrade" in options,
            attributes,
            "do_" + method,
            is_later and method not in ("HEAD", "CONNECT"),
            block.is_conditional,
            block,
        )
        self._remember(whole, head)
        return head

    def _remember(self, whole: bytes, head: Head) -> None:
        if len(whole) <= CACHED_BYTES:
            if len(self._heads) >= _CACHED_HEADS or self._heads_bytes > _CACHE_BYTES:
                self._heads.clear()
                self._heads_bytes = 0
            self._heads[whole] = head
            self._heads_bytes += len(whole)

    def _understand(self, match: re.Match[bytes], content: bytes) -> Block:
        """Read what the fields say together. Raises: WireError."""
        # Repeated fields are one list (RFC 9110 §5.3), which those that may come once are not.
        seen: dict[bytes, bytes] = {}
        for name, padded in TELLING.findall(match.string, match.end(1), match.end()):
            key, value = name.lower(), padded.rstrip(b" \t")
            seen[key] = seen[key] + b", " + value if key in seen else value
        host = seen.get(b"host")
        if host is not None and HOST.fullmatch(host) is None:
            raise WireError(400, "Invalid Host", match[1])
        options = seen.get(b"connection", b"").lower()
        framed = b"content-length" in seen or b"transfer-encoding" in seen
        block = Block(
            content,
            host is not None,
            self._body_length(seen, match[1]) if framed else 0,
            _words(options) if b"," in options else [options],
            seen.get(b"expect", b"").lower() == b"100-continue",
            b"upgrade" in seen,
            CONDITION.search(match.string, match.end(1), match.end()) is not None,
        )
        if len(content) <= CACHED_BYTES:
            if len(self._blocks) >= _CACHED_BLOCKS or self._blocks_bytes > _CACHE_BYTES:
                self._blocks.clear()
                self._blocks_bytes = 0
            self._blocks[content] = block
            self._blocks_bytes += len(content)
        return block

    def _body_length(self, seen: dict[bytes, bytes], line: bytes) -> int | None:
        """Decide where the body ends (RFC 9112 §6.3), None for chunked. Raises: WireError."""
        coding, digits = seen.get(b"transfer-encoding"), seen.get(b"content-length", b"")
        if coding is not None:
            if b"content-length" in seen:
                raise WireError(400, "Content-Length with Transfer-Encoding", line)
            if coding.lower() == b"chunked":
                return None
            if CODINGS.fullmatch(coding) is None:
                raise WireError(400, "Invalid Transfer-Encoding", line)
            if b"chunked" in _words(coding.lower())[:-1]:
                raise WireError(400, "Conflicting Transfer-Encoding", line)
            raise WireError(501, "Unsupported Transfer-Encoding", line)
        if DIGITS.fullmatch(digits) is None:
            fault = "Conflicting" if b"," in digits else "Invalid"
            raise WireError(400, f"{fault} Content-Length", line)
        length = int(digits)
        limit = self._limits.body_bytes
        if limit is not None and length > limit:
            raise WireError(413, "", line)
        return length

    def _refuse_early(self, data: bytes, start: int) -> None:
        """Raise for a long unfinished head if its size or its last line is beyond the limits."""
        limits = self._limits
        last = data.rfind(b"\n", start) + 1
        limit = limits.field_bytes if last else limits.line_bytes
        if len(data) > limits.head_bytes or len(data) - (last or start) > limit:
            self._refuse(data, start)

    def _refuse(self, data: bytes, start: int) -> None:
        """Raise for the first fault in a head, or in what there is of it; return if none."""
        limits = self._limits
        end = data.find(b"\r\n\r\n", start)
        shown = data[start : min(end + 2 if end >= 0 else len(data), limits.head_bytes)]
        line, ended, block = shown.partition(b"\r\n")
        self._refuse_line(line if ended else line.removesuffix(b"\r"), bool(ended))
        # The split is bounded, so that 16000 fields cost no more than the first 101.
        *texts, last = block.split(b"\r\n", limits.fields)
        for text in texts:
            self._refuse_field(text, line, is_complete=True)
        last = last.removesuffix(b"\r")
        if len(texts) >= limits.fields and last:
            raise WireError(431, "Too many headers", line)
        self._refuse_field(last, line, is_complete=False)
        if max(end + 4, len(data) if end < 0 else 0) > limits.head_bytes:
            raise WireError(431, "Header block too long", line if ended else b"")
        if end >= 0:  # must the two descriptions of a head ever differ, then refuse
            raise WireError(400, "Bad request", line)

    def _refuse_line(self, line: bytes, is_complete: bool) -> None:
        limit = self._limits.line_bytes
        if CONTROL_OR_TAB.search(line, 0, limit):
            raise WireError(400, "Control character in the request line")
        if len(line) > limit:
            raise WireError(414, "")
        if not is_complete or request_line().fullmatch(line):
            return
        words = [word for word in line.split(b" ") if word]
        if len(words) > 2:
            version = str(words[-1], "latin-1")
            if later := LATER_VERSION.fullmatch(words[-1]):
                raise WireError(505, f"Invalid HTTP version ({str(later[1], 'latin-1')})", line)
            if VERSION.fullmatch(words[-1]) is None:
                raise WireError(400, f"Bad request version ({version!r})", line)
        raise WireError(400, f"Bad request syntax ({str(line, 'latin-1')!r})", line)

    def _refuse_field(self, text: bytes, line: bytes, *, is_complete: bool) -> None:
        limit = self._limits.field_bytes
        if FIELD_SO_FAR.fullmatch(text, 0, limit) is None:
            if text[:1] in (b" ", b"\t"):
                raise WireError(400, "Folded header line", line)
            if CONTROL.search(text, 0, limit):
                raise WireError(400, "Control character in a header", line)
            raise WireError(400, "Invalid header name", line)
        if len(text) > limit:
            raise WireError(431, "Line too long", line)
        if is_complete and b":" not in text:
            raise WireError(400, "Header without a colon", line)


def _words(value: bytes) -> list[bytes]:
    """Return the members of a list (RFC 9110 §5.6.1)."""
    return [word.strip(b" \t") for word in value.split(b",")]
