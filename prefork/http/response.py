"""One client's answers: the `wfile` of its handlers, which keeps the framing right.

A worker. It reads the head that a handler writes, by whatever means, and sees
to it that the client finds the end of the answer: by Content-Length, by chunks
that it makes itself, or by the end of the connection. It never waits for more
than the room for what is written, and never touches the socket but by its
connection.
"""

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from prefork.http.chunks import in_chunks
from prefork.http.outbox import Piece, size_of

if TYPE_CHECKING:
    from prefork.http.visit import Visit

# How the body is framed. Plain numbers: they are looked at in each write.
HEAD: Final = 0  #: no final head has been written yet
LENGTH: Final = 1  #: Content-Length
CHUNKED: Final = 2  #: chunks, made here
NONE: Final = 3  #: no body may follow: HEAD, 204, 304 (RFC 9112 §6.3)
CLOSE: Final = 4  #: until the end of the connection
OWN: Final = 5  #: the handler has said Transfer-Encoding, and makes the chunks itself
RAW: Final = 6  #: no HTTP/1.x, or a tunnel: bytes as they come, until the end
GONE: Final = 7  #: nothing may follow: the connection is closed

_CLOSE: Final = b"close"
_HEAD_END: Final = b"\r\n\r\n"
#: What a handler may write before the end of its head is seen.
_HEAD_MOST: Final = 1 << 16


# A head is held until its body comes, if that is announced and short: one send instead of two.
# What is not announced may be long in coming, and its head goes at once.
_SHORT_BYTES: Final = 1 << 16

#: What precedes the date; what follows it, None if the handler has said close; what follows it in
#: the last answer of a connection; status; length.
_Plan = tuple[bytes, bytes | None, bytes, int, int]
_PLANS: Final[dict[tuple[bytes, ...], _Plan]] = {}
_LEAST_LINES: Final = 4  # status, Server, Date, the empty one
_PLANS_MOST: Final = 1024  # of some 300 bytes


class Response(io.BufferedIOBase):
    """Lives as long as its connection; `begin()` makes it ready for the next request.

    mode: of the body. status: of the final head, 0 before it. sent: bytes of body.
    left: what is missing of a Content-Length; below 0, what was too much.
    close: whether the connection must end with this answer.
    """

    # Beside them there is the `__dict__` of io's classes, in which nothing needs to be looked for.
    __slots__ = (
        "_connection",
        "_head",
        "_outbox",
        "_partial",
        "close_after",
        "left",
        "mode",
        "sent",
        "status",
    )

    def __init__(self, connection: "Visit") -> None:
        self._connection: Any = connection
        self._partial = b""
        self._head = b""
        self._outbox = connection.outbox
        self.begin()

    def begin(self) -> None:
        """Start an answer."""
        self.mode = HEAD
        self.status = self.sent = self.left = 0
        self.close_after = False

    # -- what handlers call -------------------------------------------------

    def writable(self) -> bool:
        """Tell that it is."""
        return True

    def fileno(self) -> int:
        """Return the socket's descriptor, for a child perhaps that writes to it."""
        self.flush_all()
        self._outbox.flush()
        return int(self._connection.sock.fileno())

    def flush_all(self) -> None:
        """Send what is there of a head, too: somebody else goes on with it."""
        if self._partial:
            part, self._partial = self._partial, b""
            self._go_raw(part)
        self._outbox.release()

    def flush(self) -> None:
        """Send a head that waits for its body."""
        self._outbox.release()
        if self.mode == LENGTH and self.left and not self.sent:
            self._outbox.push()

    def write(self, data: Any, /) -> int:
        """Send data, or keep what the client has no room for; return the number of bytes.

        Raises: OSError when the client has gone, TimeoutError when it stalls.
        """
        if type(data) is not bytes:
            data = memoryview(data).cast("B")
        size = len(data)
        mode = self.mode
        if mode == LENGTH:
            left = self.left - size
            if left < 0:
                self._cut(data)
                return size
            self.left = left
            self._outbox.send(data)
        elif mode == HEAD:
            self._write_head(bytes(data))
            return size
        elif mode == CHUNKED:
            if size:
                self._outbox.send(b"%x\r\n%b\r\n" % (size, data))
        elif mode == NONE:
            self._connection.show_life()
            return size
        elif mode == GONE:
            raise ValueError("I/O operation on closed file")
        else:
            self._outbox.send(data)
        if self.sent:  # not for the first: it costs as much as a clock
            self._connection.show_life()
        self.sent += size
        return size

    def _cut(self, data: Any) -> None:
        """Send what was promised of data: more would be taken for the next answer."""
        left = max(0, self.left)
        self.left -= len(data)
        self.close_after = True
        self._outbox.send(data[:left])
        self.sent += left

    # -- the head -----------------------------------------------------------

    def write_lines(self, lines: list[bytes]) -> None:
        """Write a head as it stands in `_headers_buffer`, its empty line included."""
        connection = self._connection
        request = connection.head
        if (
            self.mode == HEAD
            and request is not None
            and request.is_common
            and not self._partial
            and len(lines) > _LEAST_LINES
            and lines[2][:6] == b"Date: "
        ):
            # Most heads differ from an earlier one by the date alone.
            key = (lines[0], lines[1], *lines[3:])
            plan = _PLANS.get(key) or _plan(key)
            if plan is not None:
                before, after, last, self.status, self.left = plan
                self.mode = LENGTH
                if after is None or connection.must_close():
                    self.close_after = True
                    after = last
                self._outbox.hold(before + lines[2] + after)
                return
        self.write(b"".join(lines))

    def _write_head(self, data: bytes) -> None:
        if self._partial:
            data = self._partial + data
            self._partial = b""
        if data[:7] != b"HTTP/1." and not b"HTTP/1.".startswith(data):
            self._go_raw(data)
            return
        end = data.find(_HEAD_END) + 4
        if end == 3:
            if len(data) > _HEAD_MOST:
                self._go_raw(data)
            else:
                self._partial = data
            return
        head = data if end == len(data) else data[:end]
        if data[9:10] == b"1":  # an interim answer (RFC 9110 §15.2)
            self._outbox.send(head)
            if data[9:12] == b"101":
                self.status = 101
                self._open_tunnel()
        else:
            more = self._frame(head)
            if self.mode == LENGTH and 0 < self.left <= _SHORT_BYTES:
                self._outbox.hold(self._head)
            elif end == len(data) and more and self.mode == LENGTH:
                self._outbox.send_more(self._head)
            else:
                self._outbox.send(self._head)
        if end < len(data):
            self.write(data[end:])

    def _frame(self, head: bytes) -> bool:
        """Decide how the body's end is told, and say so in the head; tell whether one follows."""
        connection = self._connection
        status = head[9:12]
        self.status = int(status) if status.isdigit() else 0
        request = connection.head
        keep = not connection.must_close()
        head, said = _connection_said(head, keep=keep)
        keep = keep and said != _CLOSE
        fields = head.lower()
        extra = b""
        if request is not None and request.method == "CONNECT" and status[:1] == b"2":
            self._open_tunnel()
            self._head = head
            return False
        if status in (b"204", b"304") or (request is not None and request.method == "HEAD"):
            self.mode = NONE
        elif b"\r\ntransfer-encoding:" in fields:
            self.mode = OWN
            start = fields.find(b"\r\ncontent-length:")
            if start >= 0:  # RFC 9112 §6.2: never both
                head = head[:start] + head[fields.index(b"\r\n", start + 2) :]
        elif (length := _content_length(fields)) is not None:
            self.mode = LENGTH
            self.left = length
        elif keep and request is not None and request.version == "HTTP/1.1" and head[7:8] == b"1":
            self.mode = CHUNKED
            extra = b"Transfer-Encoding: chunked\r\n"
        else:
            self.mode = CLOSE
            keep = False
        if not said and request is not None:
            if not keep and head[7:8] == b"1":
                extra += b"Connection: close\r\n"
            elif keep and request.version == "HTTP/1.0":
                extra += b"Connection: keep-alive\r\n"  # 1.0 clients want to be told
        self.close_after = not keep
        self._head = head[:-2] + extra + b"\r\n" if extra else head
        return self.mode != NONE and not (self.mode == LENGTH and self.left == 0)

    def head_of(self, lines: bytes, size: int, status: int = 200) -> bytes:
        """Return the head of a whole answer of a known length, which the caller sends with it.

        lines: with Content-Length, without the empty line. size: of the body
        that follows.
        """
        connection = self._connection
        self.mode, self.left, self.sent = LENGTH, 0, size
        self.status = status
        keep = not connection.must_close()
        self.close_after = not keep
        if not keep:
            if lines[7:8] == b"1":
                return lines + b"Connection: close\r\n\r\n"
        elif connection.head.version == "HTTP/1.0":
            return lines + b"Connection: keep-alive\r\n\r\n"
        return lines + b"\r\n"

    def send_source(self, pieces: Iterator[Piece]) -> None:
        """Send the body of an answer whose head has been written; the loop takes it piece by piece.

        Raises: OSError.
        """
        if self.mode == LENGTH:
            count, self.left = self.left, 0
            self.sent += count
            self._outbox.send_source(pieces, count)
        elif self.mode != NONE:
            counted = self._counted(pieces)
            # Decided now: when the first piece is taken, `end()` may have been here.
            framed = in_chunks(counted) if self.mode == CHUNKED else counted
            self._outbox.send_source(framed, None)

    def _counted(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        for piece in pieces:
            self.sent += size_of(piece)
            yield piece

    def note_whole(self, status: int, size: int) -> None:
        """Note that the caller sends a whole answer, after which the connection persists."""
        self.mode, self.left, self.sent, self.status = LENGTH, 0, size, status

    def hold_head(self, head: bytes) -> None:
        """Frame a whole head, and keep it for the first bytes of its body."""
        self._frame(head)
        self._outbox.hold(self._head)

    def _open_tunnel(self) -> None:
        self.mode = RAW
        self.close_after = True
        self._connection.open_tunnel()

    def _go_raw(self, data: bytes) -> None:
        self.mode = RAW
        self.close_after = True
        self.sent += len(data)
        self._outbox.send(data)

    def give_way(self) -> None:
        """Let the handler answer through the socket itself: nothing here knows what it says."""
        self.flush_all()
        if self.mode == HEAD:
            self._open_tunnel()

    # -- the end ------------------------------------------------------------

    def part(self) -> None:
        """Forget the connection, which is closed; else both would stay until the next gc."""
        self.mode = GONE
        self._connection = None

    def end_body(self) -> None:
        """Tell the client that this is all, where the handler goes on after it."""
        if self.mode == CHUNKED:
            self._outbox.send(b"0\r\n\r\n")
            self.mode, self.left = LENGTH, 0

    def end(self) -> None:
        """Finish the answer after the handler has returned.

        One that lacks something it has promised ends the connection, so that
        the client sees that it is incomplete.
        """
        self._outbox.release()
        self.end_body()
        if self.mode == LENGTH:
            if self.left:
                self.close_after = True
        elif self.mode == HEAD:
            if self._partial:
                self._go_raw(self._partial)
            self.close_after = True
        elif self.mode in (CLOSE, RAW):
            self.close_after = True


def _connection_said(head: bytes, *, keep: bool) -> tuple[bytes, bytes]:
    """Return the head, and what its Connection field says, in lower case; b"": there is none.

    A keep-alive is cut out where the connection ends: the handler cannot know
    that this is the last answer, and the client must.
    """
    fields = head.lower()
    start = fields.find(b"\r\nconnection:")
    if start < 0:
        return head, b""
    end = fields.index(b"\r\n", start + 2)
    said = fields[start:end]
    if _CLOSE in said:
        return head, _CLOSE
    if not keep and b"keep-alive" in said:
        return head[:start] + head[end:], b""
    return head, said


def _plan(key: tuple[bytes, ...]) -> _Plan | None:
    """Plan a head without its date.

    None: the end of such an answer is told in another way than by its length,
    or it is long, or says that the connection persists.
    """
    before, after = b"".join(key[:2]), b"".join(key[2:])
    head, said = _connection_said(before + after, keep=True)
    fields = head.lower()
    length = _content_length(fields)
    status = before[9:12]
    if (
        length is None
        or not 0 < length <= _SHORT_BYTES
        or before[:9] != b"HTTP/1.1 "
        or status[:1] not in (b"2", b"4", b"5")
        or status == b"204"
        or said not in (b"", _CLOSE)
        or b"\r\ntransfer-encoding:" in fields
    ):
        return None
    if said:
        plan: _Plan = before, None, after, int(status), length
    else:
        last = after[:-2] + b"Connection: close\r\n\r\n"
        plan = before, after, last, int(status), length
    if len(_PLANS) >= _PLANS_MOST:
        _PLANS.clear()
    _PLANS[key] = plan
    return plan


def _content_length(fields: bytes) -> int | None:
    """Return the Content-Length of a head in lower case; None: there is none that is one."""
    start = fields.find(b"\r\ncontent-length:")
    if start < 0:
        return None
    text = fields[start + 17 : fields.index(b"\r\n", start + 17)].strip(b" \t")
    return int(text) if text.isdigit() and len(text) <= 18 else None
