"""What is on its way to one client: bytes and pieces of files, in their order.

A worker, in the thread that owns the connection. It sends what the kernel takes
and keeps the rest, for the loop to send later; only of much does it wait. What
is made while it is sent, it takes from its source piece by piece, as the client
has room. It knows nothing of HTTP.
"""

import contextlib
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

_DONTWAIT: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_MORE: Final = _DONTWAIT | socket.MSG_MORE

#: Of one turn, so that one fast client cannot keep the loop (nginx: 2 MB).
_TURN_BYTES: Final = 1 << 21
#: Likewise, of what is made: pieces, and seconds after which no other is begun.
_TURN_PIECES: Final = 8
_TURN_S: Final = 0.001

_send = socket.socket.send
_fileno = socket.socket.fileno


def _nobody(_mask: int) -> None:
    raise BrokenPipeError("the connection is closed")


class Descriptor:
    """A descriptor that is closed when nobody has this object any more, in whichever thread."""

    __slots__ = ("fd",)

    _close = staticmethod(os.close)  # at the interpreter's end the module may have gone

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        self._close(self.fd)


class Meter:
    """sent_bytes: what all who have it have given to the kernel."""

    __slots__ = ("sent_bytes",)

    def __init__(self) -> None:
        self.sent_bytes = 0


class FilePiece:
    """`count` bytes of a file from `offset` on; it keeps it open."""

    __slots__ = ("count", "file", "offset")

    def __init__(self, file: Descriptor, offset: int, count: int) -> None:
        self.file = file
        self.offset = offset
        self.count = count


Piece = bytes | FilePiece


def size_of(piece: Piece) -> int:
    """Return how many bytes it is."""
    return piece.count if isinstance(piece, FilePiece) else len(piece)


class _Source:
    """What makes pieces. left: bytes that are still expected of it; None: as many as come."""

    __slots__ = ("left", "pieces")

    def __init__(self, pieces: Iterator[Piece], left: int | None) -> None:
        self.pieces = pieces
        self.left = left


class Outbox:
    """room: bytes that may be kept. wait: waits for the client, called with an event of poll.

    meter: counts what is sent.
    broken: the client has gone, or a file has not what was promised.
    """

    __slots__ = (
        "_held",
        "_kept",
        "_kept_bytes",
        "_meter",
        "_nonblocking",
        "_room",
        "_sock",
        "_wait",
        "broken",
    )

    def __init__(
        self, sock: socket.socket, room: int, wait: Callable[[int], None], meter: Meter
    ) -> None:
        self._sock = sock
        self._meter = meter
        self._room = room
        self._wait = wait
        self._kept: deque[Any] | None = None
        self._kept_bytes = 0
        self._held = b""
        self._nonblocking = False
        self.broken = False

    def is_empty(self) -> bool:
        """Tell whether everything has been given to the kernel."""
        return not self._kept and not self._held

    def unsent_bytes(self) -> int:
        """Return how much has not been given to the kernel."""
        parts = self._kept or ()
        files = sum(part.count for part in parts if type(part) is FilePiece)
        sources = sum(part.left or 0 for part in parts if type(part) is _Source)
        return len(self._held) + self._kept_bytes + files + sources

    def hold(self, data: bytes) -> None:
        """Keep data until there is more to send with it, or `release()`."""
        self._held += data

    def release(self) -> None:
        """Send what is held."""
        if self._held:
            self.send(b"")

    def withdraw(self) -> bool:
        """Drop what is held, as if it had never been written; tell whether there was anything."""
        held, self._held = self._held, b""
        return bool(held)

    def send(self, data: Any, flags: int = _DONTWAIT) -> None:
        """Send data, or keep what the client has no room for; wait if that is much.

        data: bytes, or a memoryview of bytes that may change afterwards.
        Raises: OSError when the client has gone, TimeoutError when it stalls.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        if not self._kept:
            try:
                sent = _send(self._sock, data, flags)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.broken = True
                raise
            self._meter.sent_bytes += sent
            if sent == len(data):
                return
            data = memoryview(data)[sent:] if type(data) is bytes else bytes(data[sent:])
        self._keep(data if type(data) is not memoryview or type(data.obj) is bytes else bytes(data))
        if self._kept_bytes > self._room:
            self.flush(self._room >> 1)

    def send_whole(self, data: bytes) -> None:
        """Send data that is in memory anyway; never wait for the client.

        Raises: OSError when the client has gone.
        """
        room, self._room = self._room, len(data) + len(self._held) + self._kept_bytes
        try:
            self.send(data)
        finally:
            self._room = room

    def kept_bytes(self) -> int:
        """Return how much is kept in memory."""
        return self._kept_bytes

    def send_more(self, data: bytes) -> None:
        """Send data to which more will be joined, at the latest in 200 ms (MSG_MORE, tcp(7))."""
        self.send(data, _MORE)

    def push(self) -> None:
        """Have the kernel send at once what `send_more()` has given it."""
        with contextlib.suppress(OSError):  # gone, or no TCP, which does not wait
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send_file(self, file: Descriptor, offset: int, count: int) -> None:
        """Send a piece of a file after the rest.

        Raises: OSError.
        """
        self._append(FilePiece(file, offset, count))

    def send_file_now(self, file: Descriptor, offset: int, count: int) -> int:
        """Send a piece of a file as far as the client has room for it now; return how much.

        Raises: OSError.
        """
        part = FilePiece(file, offset, count)
        self._append(part)
        if part.count and self._kept:
            self._kept.pop()
        return count - part.count

    def send_source(self, pieces: Iterator[Piece], count: int | None) -> None:
        """Send what pieces yields after the rest, taking one when the client has room for it.

        The loop takes them: a step must be short. One that has worked and has
        nothing yet yields b"", and others have their turn. count: bytes of all
        together, None if nobody knows.
        Raises: OSError.
        """
        self._append(_Source(pieces, count))

    def _append(self, part: "FilePiece | _Source") -> None:
        held, self._held = self._held, b""
        if held:
            self.send_more(held)
        if self._kept is None:
            self._kept = deque()
        self._kept.append(part)
        if len(self._kept) == 1:
            self.send_some()

    def flush(self, leave: int = 0) -> None:
        """Wait until at most `leave` bytes are kept, and no file.

        Raises: OSError, TimeoutError.
        """
        self.release()
        self.send_some()
        while self._kept and self._kept_bytes >= leave:
            try:
                self._wait(select.POLLOUT)
            except TimeoutError:
                self.broken = True
                raise
            self.send_some()

    def send_some(self) -> None:
        """Send what the client has room for now.

        Raises: OSError; also when a file has become shorter than was promised, and
        what a source raises.
        """
        kept = self._kept
        moved = taken = 0
        until_s = 0.0
        try:
            while kept and moved < _TURN_BYTES:
                part = kept[0]
                if type(part) is _Source:
                    taken += 1
                    now_s = time.monotonic()
                    if taken == 1:
                        until_s = now_s + _TURN_S
                    elif taken > _TURN_PIECES or now_s >= until_s:
                        break
                    if not self._take(part):
                        break
                    continue
                sent = self._send_file(part) if type(part) is FilePiece else self._send(part)
                self._meter.sent_bytes += sent
                moved += sent
        except BlockingIOError:
            return
        except BaseException:
            self.broken = True
            raise
        if not kept and self._nonblocking:
            self._nonblocking = False
            os.set_blocking(_fileno(self._sock), True)

    def part(self) -> None:
        """Forget the connection, which is closed."""
        self.clear()
        self._wait = _nobody

    def clear(self) -> None:
        """Drop what has not been sent."""
        self._held = b""
        self._kept = None
        self._kept_bytes = 0

    def _send(self, part: bytes | memoryview) -> int:
        sent = _send(self._sock, part, _DONTWAIT)
        self._kept_bytes -= sent
        assert self._kept is not None  # noqa: S101 # the part is its first
        if sent == len(part):
            self._kept.popleft()
        else:
            self._kept[0] = memoryview(part)[sent:]
        return sent

    def _send_file(self, part: FilePiece) -> int:
        if not self._nonblocking:  # sendfile(2) knows no MSG_DONTWAIT
            self._nonblocking = True
            os.set_blocking(_fileno(self._sock), False)
        count = min(part.count, _TURN_BYTES)
        sent = os.sendfile(_fileno(self._sock), part.file.fd, part.offset, count)
        if sent == 0 and count:
            raise BrokenPipeError("the file became shorter while it was sent")
        part.offset += sent
        part.count -= sent
        if part.count == 0:
            assert self._kept is not None  # noqa: S101 # the part is its first
            self._kept.popleft()
        return sent

    def _take(self, source: _Source) -> bool:
        """Put the next piece before its source; False: the source has done enough for this turn."""
        kept = self._kept
        assert kept is not None  # noqa: S101 # the source is its first
        piece = next(source.pieces, None)
        if piece is None:
            if source.left:
                raise BrokenPipeError("less came than was promised")
            kept.popleft()
            return True
        is_file = type(piece) is FilePiece
        size = size_of(piece)
        if source.left is not None:
            source.left -= size
            if source.left < 0:
                raise BrokenPipeError("more came than was promised")
        if not size:
            return is_file
        kept.appendleft(piece)
        if not is_file:
            self._kept_bytes += size
        return True

    def _keep(self, data: bytes | memoryview) -> None:
        if self._kept is None:
            self._kept = deque()
        self._kept.append(data)
        self._kept_bytes += len(data)
