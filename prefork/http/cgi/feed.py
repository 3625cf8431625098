"""The body of a request, on its way to a script's stdin.

A worker, in the thread of the handler. One whose length is known goes through a
pipe as it comes; another, or one that the engine does not hold, is kept in a
file first, for the script is told the length before all else (RFC 3875 §4.1.2).
It never waits for the script.
"""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from prefork.http.body import Body
from prefork.http.lazy import connection_of
from prefork.http.wire import WireError

_PIECE_BYTES: Final = 1 << 16
#: On a server without an engine, whose own limit would hold; the engine's default.
_MOST_BYTES: Final = 1 << 30


class Feed:
    """stdin: for the child. length: of the body, None if there is none.

    read: returns more of the body, None if nothing has come, b"" at its end;
    without it, nothing is left to do.
    """

    def __init__(self, length: int | None, stdin: int = subprocess.DEVNULL) -> None:
        self.length = length
        self.stdin = stdin
        self.fd = -1
        self._read: Callable[[], bytes | None] | None = None
        self._pending = memoryview(b"")

    def stream(self, read: Callable[[], bytes | None]) -> None:
        """Make a pipe, and put into it what is there already."""
        self.stdin, self.fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.fd, False)
        self._read = read
        self.push()

    def is_open(self) -> bool:
        """Tell whether there may be more to push."""
        return self.fd >= 0

    def is_hungry(self) -> bool:
        """Tell whether the client is waited for, not the script."""
        return self.is_open() and not self._pending

    def push(self) -> int:
        """Give the script what it takes now; return how many bytes.

        Raises: ConnectionError when the client has gone before the end of the body.
        """
        pushed = 0
        while self.fd >= 0:
            if not self._pending and not self._fill():
                break
            try:
                size = os.write(self.fd, self._pending)
            except BlockingIOError:
                break
            except BrokenPipeError:  # the script does not want it
                self.close_pipe()
                break
            pushed += size
            self._pending = self._pending[size:]
        return pushed

    def _fill(self) -> bool:
        data = self._read() if self._read is not None else b""
        if data is None:
            return False
        if not data:
            self.close_pipe()
            return False
        self._pending = memoryview(data)
        return True

    def close_pipe(self) -> None:
        """End the script's input."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self._pending = memoryview(b"")

    def close_stdin(self) -> None:
        """Let go of the child's end, which the child has."""
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1


def feed_of(handler: Any) -> Feed:
    """Return what a handler's request has for a script, after waiting for it if that must be.

    Raises: OSError, of the file; ConnectionError and TimeoutError, of the
    client; WireError, for a body that is too long, or chunked where nobody can
    read that.
    """
    connection = connection_of(handler)
    if connection is None or connection.rfile is not None:
        return _stored(handler)
    body, head = connection.body, connection.head
    length = None if head is None else head.length
    if length is None or body is None:
        return _stored(handler) if body is not None else _empty(handler)
    feed = Feed(length)
    try:
        feed.stream(_reader(body))
    except BaseException:  # the client has gone already
        feed.close_stdin()
        feed.close_pipe()
        raise
    return feed


def _reader(body: Body) -> Callable[[], bytes | None]:
    return lambda: body.read_now(_PIECE_BYTES)


def _empty(handler: Any) -> Feed:
    """Return nothing; a length of 0, where the client has said so."""
    return Feed(0 if handler.headers.get("Content-Length") is not None else None)


def _stored(handler: Any) -> Feed:
    """Return the whole body, in a file."""
    left = _length_left(handler)
    if left == 0:
        return _empty(handler)
    size = 0
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(tempfile.TemporaryFile(buffering=0))
        while left is None or left:
            data = handler.rfile.read(_PIECE_BYTES if left is None else min(left, _PIECE_BYTES))
            if not data:
                break
            size += len(data)
            if left is not None:
                left -= len(data)
            _write_all(file.fileno(), data)
        if left:
            raise ConnectionResetError("the client closed the connection within the body")
        file.seek(0)
        return Feed(size, os.dup(file.fileno()))


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _length_left(handler: Any) -> int | None:
    """Return the length of the body; None: until rfile ends, which then is where the body does."""
    connection = connection_of(handler)
    if connection is not None:
        head = connection.head
        return 0 if head is None else head.length
    if handler.headers.get("Transfer-Encoding") is not None:
        raise WireError(HTTPStatus.LENGTH_REQUIRED, "")
    text = handler.headers.get("Content-Length", "0").strip()
    if not (text.isascii() and text.isdecimal()):
        raise WireError(HTTPStatus.BAD_REQUEST, "Bad Content-Length")
    if int(text) > _MOST_BYTES:
        raise WireError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "")
    return int(text)
