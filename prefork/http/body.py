"""One request's body: the raw stream under the `rfile` of a handler.

A worker, in the thread of the handler. It ends where the body ends, whether by
Content-Length or by chunks, and asks for the body (100 Continue) when it is
first read. A body that the client cuts short is an error, never a short
success. It never reads what belongs to the next request.
"""

import contextlib
import io
import select
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from prefork.http.chunked import Chunked
from prefork.http.response import HEAD
from prefork.http.wire import WireError

if TYPE_CHECKING:
    from prefork.http.visit import Visit

#: left, for a stream without an end of its own: a tunnel.
ENDLESS: Final = -1

_READ_BYTES: Final = 1 << 16
_DONTWAIT: Final = socket.MSG_DONTWAIT
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_recv = socket.socket.recv
_recv_into = socket.socket.recv_into


class CutShortError(ConnectionResetError):
    """The client has gone before the end of its body, which is no fault of the handler's."""

    def __init__(self) -> None:
        super().__init__("the client closed the connection within the body of its request")


class Body(io.RawIOBase):
    """left: bytes that have not been read; ENDLESS; with a decoder, 1 until it is done.

    prefix: what is read first.
    """

    def __init__(self, connection: "Visit", length: int | None) -> None:
        super().__init__()
        self._connection: Any = connection
        self.left = 1 if length is None else length
        self._decoder = Chunked(connection.engine.limits.wire) if length is None else None
        self._decoded = memoryview(b"")
        self._rest = b""
        self._dropped = 0
        self.prefix = b""

    def is_plain(self) -> bool:
        """Tell whether it is bytes of a known number, none of which has been read."""
        return self._decoder is None and not self.prefix

    @property
    def _sock(self) -> socket.socket:
        """The socket, where `socket.SocketIO` has it."""
        sock: socket.socket = self._connection.sock
        return sock

    def readable(self) -> bool:
        """Tell that it is."""
        return True

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return int(self._connection.sock.fileno())

    def readinto(self, buffer: Any, /) -> int:
        """Read some bytes; 0 at the end of the body.

        Raises: ConnectionResetError when the client has gone before its end,
        TimeoutError when it stalls, WireError for what is no chunk.
        """
        view = memoryview(buffer).cast("B")
        if self.prefix:
            return self._read_prefix(view)
        if self._decoder is not None:
            return self._read_decoded(view, self._decoder)
        if self.left == 0:
            return 0
        if 0 < self.left < len(view):
            view = view[: self.left]
        size: int = self._receive_into(view)
        if self.left != ENDLESS:
            if size == 0:
                raise CutShortError
            self.left -= size
        self._connection.show_life()
        return size

    def _read_prefix(self, view: memoryview) -> int:
        part, self.prefix = self.prefix[: len(view)], self.prefix[len(view) :]
        view[: len(part)] = part
        return len(part)

    def _read_decoded(self, view: memoryview, decoder: Chunked) -> int:
        while not self._decoded and not decoder.done:
            data = self.receive(_READ_BYTES)
            if not data:
                raise CutShortError
            self._connection.show_life()
            self._decoded = memoryview(self._decode(data, decoder))
        part = self._decoded[: len(view)]
        view[: len(part)] = part
        self._decoded = self._decoded[len(part) :]
        return len(part)

    def _decode(self, data: bytes, decoder: Chunked) -> bytes:
        payload, used = decoder.decode(self._rest + data if self._rest else data)
        rest = (self._rest + data)[used:]
        self._rest = b""
        if decoder.done:
            self.left = 0
            self._connection.unreceive(rest)
        else:
            self._rest = rest  # the beginning of a line of the chunked coding
        return payload

    def read_now(self, most: int) -> bytes | None:
        """Return what has come of a body of known length, None if nothing has; b"" at its end.

        Raises: OSError when the client has gone before its end.
        """
        connection = self._connection
        most = min(most, self.left)
        if not most:
            return b""
        data: bytes = connection.buffer[:most]
        if data:
            connection.buffer = connection.buffer[most:]
        else:
            self._invite()
            try:
                data = _recv(connection.sock, most, _DONTWAIT)
            except BlockingIOError:
                return None
            if not data:
                raise CutShortError
            connection.show_life()
        self.left -= len(data)
        return data

    def receive(self, most: int) -> bytes:
        """Return bytes as they come, b"" at the end of the connection; wait for them.

        Raises: OSError, TimeoutError.
        """
        connection = self._connection
        if connection.buffer:
            data: bytes = connection.buffer
            connection.buffer = b""
            return data
        self._invite()
        while True:
            with contextlib.suppress(BlockingIOError):
                return _recv(connection.sock, most, _DONTWAIT)
            self._wait()

    def _receive_into(self, view: memoryview) -> int:
        connection = self._connection
        if connection.buffer:
            size = min(len(view), len(connection.buffer))
            view[:size] = connection.buffer[:size]
            connection.buffer = connection.buffer[size:]
            return size
        self._invite()
        while True:
            with contextlib.suppress(BlockingIOError):
                return _recv_into(connection.sock, view, 0, _DONTWAIT)
            self._wait()

    def _wait(self) -> None:
        connection = self._connection
        limit_s = connection.engine.limits.body_stall_s
        # A tunnel may be silent for as long as its handler likes.
        limit_s = connection.timeout_s if self.left == ENDLESS else connection.stall_s(limit_s)
        connection.wait(select.POLLIN, limit_s)

    def _invite(self) -> None:
        """Ask for the body, if the client waits for that (RFC 9110 §10.1.1)."""
        connection = self._connection
        head = connection.head
        if head is None or not head.expects_continue or connection.invited:
            return
        connection.invited = True
        if connection.response.mode == HEAD:
            connection.outbox.send(_CONTINUE)

    def discard(self, data: bytes) -> None:
        """Drop what data holds of the body; give back what follows it.

        Raises: WireError, also when a chunked body is too long to be dropped.
        """
        if self._decoder is not None:
            self._dropped += len(data)
            self._decode(data, self._decoder)
            if self.left and self._dropped > self._connection.engine.limits.drain_bytes:
                raise WireError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "")
            return
        size = min(self.left, len(data))
        self.left -= size
        self._connection.unreceive(data[size:])
