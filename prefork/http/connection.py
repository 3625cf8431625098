"""One client of the engine, from accept to close.

A worker. At any time one thread owns it: the loop while it waits for the
client, the thread of the handler while that runs; it changes hands through the
loop's epoll or the pool's queue. What it does next is one of the states below.
It never calls a handler: the engine does.
"""

import contextlib
import os
import select
import socket
import time
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from prefork.http.body import ENDLESS, Body
from prefork.http.client import ClientSocket
from prefork.http.response import HEAD, Response
from prefork.http.wire import Head, WireError

if TYPE_CHECKING:
    from prefork.desk import Desk
    from prefork.http.access import AccessLog
    from prefork.http.engine import Engine

# What it waits for. Plain numbers: they are looked at for each event.
READING: Final = 0  #: a head
PREFETCHING: Final = 1  #: a small body, before its handler is called
RUNNING: Final = 2  #: its handler, which owns it
SENDING: Final = 3  #: the client, to take the rest of an answer
DISCARDING: Final = 4  #: the rest of a body that nobody has read
LINGERING: Final = 5  #: the client, to close after the last answer
WAITING: Final = 6  #: a first byte, which stays in the socket for a handler that reads itself
CLOSED: Final = 7

_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
_DONTWAIT: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_MORE: Final = _DONTWAIT | socket.MSG_MORE
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

#: Of one recv. Heads are small; a body is read by its handler.
_RECEIVE_BYTES: Final = 1 << 16
#: Of one sendfile, so that one fast client cannot keep the loop (nginx: 2 MB).
_SENDFILE_BYTES: Final = 1 << 21
#: Requests that one client may have answered before others get a turn.
_TURN: Final = 16

_recv = socket.socket.recv
_recv_into = socket.socket.recv_into
_send = socket.socket.send
_fileno = socket.socket.fileno


class FilePart:
    """A piece of a file on its way to a client; it owns the descriptor."""

    __slots__ = ("count", "fd", "offset")

    def __init__(self, fd: int, offset: int, count: int) -> None:
        self.fd = fd
        self.offset = offset
        self.count = count

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)


class Connection:
    """address: as accept() gave it. handler: its one instance, when there is one.

    head: of the request in hand. fresh: no handler has taken it up. error: why
    there is none, for the handler to say. invited: the client was asked for the
    body. buffer: what has been received and not been used. deadline_s: when the
    loop loses patience. kept: the handler stays in `handle()` until the end.
    parked: the handler has returned, and is wanted again. over: no request is
    expected any more. failing: the handler has raised. exposed: the handler has
    asked for the descriptor. abandoned: it has closed or taken the socket.
    """

    __slots__ = (
        "_idle",
        "_mask",
        "_nonblocking",
        "_out",
        "_queued",
        "abandoned",
        "address",
        "body",
        "buffer",
        "deadline_s",
        "desk",
        "engine",
        "error",
        "exposed",
        "failing",
        "fresh",
        "handler",
        "head",
        "invited",
        "kept",
        "over",
        "parked",
        "requests",
        "response",
        "rfile",
        "sock",
        "started_s",
        "state",
        "timeout_s",
    )

    def __init__(self, engine: "Engine", sock: ClientSocket, address: Any, desk: "Desk") -> None:
        self.engine = engine
        self.sock = sock
        self.address = address
        self.desk = desk
        self.state = READING
        self.buffer = b""
        self.handler: Any = None
        self.head: Head | None = None
        self.error: Exception | None = None
        self.body: Body | None = None
        self.response = Response(self)
        self.rfile: Any = None
        self.requests = 0
        self.timeout_s: float | None = None
        self.deadline_s = engine.now_s + engine.limits.keep_alive_s
        self.started_s = 0.0
        self.kept = self.parked = self.over = self.failing = False
        self.exposed = self.abandoned = self.fresh = self.invited = False
        self._idle = False
        self._mask = 0
        self._out: deque[Any] | None = None
        self._queued = 0
        self._nonblocking = False

    # -- in the loop ---------------------------------------------------------

    def on_ready(self, mask: int) -> None:
        """Go on: the loop has seen what this waits for."""
        state = self.state
        if state == READING:
            self.read_head()
        elif state == SENDING:
            self._send_on(mask)
        elif state == WAITING:
            self.engine.look(self)
        elif state in (PREFETCHING, DISCARDING, LINGERING):
            self._read_on(state)

    def read_head(self) -> None:
        """Receive what is there; when the head is complete, have it answered."""
        try:
            data = _recv(self.sock, _RECEIVE_BYTES, _DONTWAIT)
        except BlockingIOError:
            self.wait_for(READING, _IN)
            return
        except OSError:
            data = b""  # it has gone; there is nobody to tell
        if not data:
            self.finish()
            return
        if self.buffer:
            data = self.buffer + data
        else:
            self.started_s = self.engine.now_s
        if self.parse(data):
            self.engine.dispatch(self)
        else:
            self.deadline_s = self.started_s + self.engine.limits.head_s
            self.wait_for(READING, _IN)

    def parse(self, data: bytes) -> bool:
        """Look for a head in data; tell whether there is one, or an error to answer."""
        try:
            head = self.engine.parser.parse(data)
        except WireError as error:
            head = self.engine.parse_anyway(data)
            if head is None:
                self.refuse(error)
                return True
        if head is None:
            self.buffer = data
            return False
        self.head = head
        self.fresh = True
        self.buffer = data[head.size :] if len(data) > head.size else b""
        return True

    def wait_for(self, state: int, mask: int) -> None:
        """Give the connection to the loop until the client does something."""
        if self.engine.closed:
            self._end_alone(state)
            return
        self.state = state
        mask |= self.engine.oneshot
        if self._mask == 0:
            self._mask = mask
            self.engine.loop.watch(_fileno(self.sock), mask, self.on_ready)
        elif mask != self._mask or self.engine.oneshot:
            self._mask = mask
            self.engine.loop.change(_fileno(self.sock), mask)

    def _end_alone(self, state: int) -> None:
        """Finish without the loop, which has ended while the handler ran."""
        if state == SENDING:
            with contextlib.suppress(OSError):  # gone, or too slow: the end is the same
                self.flush()
        self._drop_out()
        if self.parked:
            self.finish()
        else:
            self.close()

    def unwatch(self) -> None:
        """Take the connection from the loop for good."""
        if self._mask:
            self._mask = 0
            self.engine.loop.forget(_fileno(self.sock))

    def _read_on(self, state: int) -> None:
        try:
            data = _recv(self.sock, _RECEIVE_BYTES, _DONTWAIT)
        except BlockingIOError:
            self.wait_for(state, _IN)
            return
        except OSError:
            data = b""
        if not data:
            self.abort()
        elif state == PREFETCHING:
            self.buffer += data
            self.engine.dispatch(self)
        elif state == DISCARDING:
            self.buffer = data
            self.advance()
        else:
            self.wait_for(LINGERING, _IN)  # whatever it was, nobody will read it

    def _send_on(self, mask: int) -> None:
        try:
            if mask & select.EPOLLERR or not self.flush_some():
                self.abort()
                return
        except OSError:
            self.abort()
            return
        if self._out:
            self.deadline_s = self.engine.now_s + self.stall_s(self.engine.limits.write_stall_s)
            self.wait_for(SENDING, _OUT)
        else:
            self.advance()

    # -- after the handler ---------------------------------------------------

    def advance(self) -> None:
        """Go on after an answer, until the client or a handler must be waited for."""
        for _ in range(_TURN):
            if self._out:
                self.deadline_s = self.engine.now_s + self.stall_s(self.engine.limits.write_stall_s)
                self.wait_for(SENDING, _OUT)
                return
            if self.over:
                self.engine.end(self)
                return
            if not self._discard():
                return
            if not self.buffer:
                self._park()
                return
            self.started_s = self.engine.now_s
            if not self.parse(self.buffer):
                self.deadline_s = self.started_s + self.engine.limits.head_s
                self.wait_for(READING, _IN)
                return
            if not self.engine.run_next(self):
                return
        self.engine.later(self)

    def _park(self) -> None:
        self.deadline_s = self.engine.now_s + self.stall_s(self.engine.limits.keep_alive_s)
        self.wait_for(READING, _IN)

    def _discard(self) -> bool:
        """Drop what is left of a body; False: the loop does it, or the connection is over."""
        body = self.body
        if body is None:
            return True
        if body.left and self.buffer:
            data, self.buffer = self.buffer, b""
            try:
                body.discard(data)
            except WireError:
                self.finish()
                return False
        if body.left:
            self.deadline_s = self.engine.now_s + self.stall_s(self.engine.limits.body_stall_s)
            self.wait_for(DISCARDING, _IN)
            return False
        self.body = None
        return True

    def finish(self) -> None:
        """End the connection, the handler's `finish()` first."""
        self.over = True
        self.engine.end(self)

    def abort(self) -> None:
        """End the connection at once: the client has gone, or is out of time."""
        self._drop_out()
        self.finish()

    def close_soon(self) -> None:
        """Close when all has been sent; what `shutdown_request()` is for the engine's clients."""
        if self.state == CLOSED:
            return
        if self._out:
            self.over = True
            self.deadline_s = self.engine.now_s + self.engine.limits.write_stall_s
            self.wait_for(SENDING, _OUT)
            return
        with contextlib.suppress(OSError):  # it has gone
            socket.socket.shutdown(self.sock, socket.SHUT_WR)
            if self.buffer or self.error or (self.body is not None and self.body.left):
                # With unread data close() would reset the connection, and the
                # client might never read the answer (RFC 9112 §9.6).
                self.deadline_s = self.engine.now_s + self.engine.limits.lingering_s
                self.wait_for(LINGERING, _IN)
                return
        self.close()

    def close(self) -> None:
        """Close the socket."""
        if self.state == CLOSED:
            return
        self.state = CLOSED
        self._drop_out()
        if self._mask:
            self.engine.loop.drop(_fileno(self.sock))
            self._mask = 0
        self.engine.forget(self)
        self.sock.connection = None
        with contextlib.suppress(OSError):
            socket.socket.close(self.sock)

    # -- for the request in hand ---------------------------------------------

    def begin_request(self) -> None:
        """Make ready for a request's handler."""
        self.requests += 1
        self.exposed = self.invited = self.fresh = False
        self.response.begin()
        self.body = None
        head = self.head
        if head is not None and head.length != 0:
            self.body = Body(self, head.length)

    def complete(self) -> None:
        """Finish a request whose handler has returned; `over` tells whether it was the last.

        Raises: OSError.
        """
        response = self.response
        if not self.failing:
            response.end()
        if response.close_after or self.failing or self.handler.close_connection:
            self.over = True
        body = self.body
        if body is not None and body.left and not self.over:
            head = self.head
            waits = head is not None and head.expects_continue and not self.invited
            if waits or body.left == ENDLESS or body.left > self.engine.limits.drain_bytes:
                self.over = True

    def replay(self) -> None:
        """Let the handler read the fields of the head again, by itself, before the body."""
        if self.body is None:
            self.body = Body(self, 0)
        if self.head is not None:
            self.body.prefix = self.head.block
            self.invited = True  # the handler sees to it

    def log(self, access: "AccessLog") -> None:
        """Add the request in hand, which is answered, to the access log."""

    def must_close(self) -> bool:
        """Tell whether this request's answer is the connection's last."""
        return (
            self.engine.retiring
            or self.requests >= self.engine.limits.keep_alive_requests
            or self.over
            or self.handler is None
            or bool(self.handler.close_connection)
        )

    def open_tunnel(self) -> None:
        """Let the handler read whatever comes, without an end."""
        self.body = Body(self, ENDLESS)
        if self.handler is not None:
            self.handler.__dict__.pop("rfile", None)

    def expose(self) -> None:
        """Note that the handler has the descriptor, and cannot be seen waiting any more."""
        if self.state == RUNNING:
            self.exposed = True
            self.desk.away()

    def abandon(self) -> None:
        """Let go of a socket that its handler has closed or taken."""
        if not self.abandoned and self.state != CLOSED:
            self.abandoned = self.over = True
            self._drop_out()
            self.unwatch()
            self.engine.forget(self)

    def await_head(self) -> bool:
        """Wait for the next request of a kept handler; False: the client has gone.

        Raises: TimeoutError where the handler has a timeout of its own.
        """
        limits = self.engine.limits
        limit_s = self.stall_s(limits.keep_alive_s)
        self.started_s = time.monotonic()
        while not (self.buffer and self.parse(self.buffer)):
            self._idle = not self.buffer
            try:
                self.wait(_IN, limit_s)
                data = _recv(self.sock, _RECEIVE_BYTES, _DONTWAIT)
            except BlockingIOError:
                continue
            except OSError as error:
                if isinstance(error, TimeoutError) and self.timeout_s is not None:
                    raise
                if not isinstance(error, TimeoutError) or not self.buffer:
                    return False
                self.refuse(WireError(HTTPStatus.REQUEST_TIMEOUT, "", b""))
                break
            if not data:
                return False
            if not self.buffer:
                self.started_s = time.monotonic()
            self.buffer += data
            limit_s = max(0.0, self.started_s + limits.head_s - time.monotonic())
        self._idle = False
        return True

    def refuse(self, error: Exception) -> None:
        """Let the handler tell the client what is wrong, or the log."""
        self.head, self.fresh, self.error = None, True, error
        self.buffer = b""

    @property
    def idle(self) -> bool:
        """Tell whether a kept handler waits for its client's next request."""
        return self._idle

    def settle(self) -> None:
        """Finish sending and reading for a kept handler; `over` tells whether it was the last.

        Raises: OSError, TimeoutError.
        """
        self.flush()
        while not self.over and self.body is not None and self.body.left:
            data = self.receive(_RECEIVE_BYTES)
            if not data:
                self.over = True
                break
            self.body.discard(data)

    # -- receive -------------------------------------------------------------

    def stall_s(self, limit_s: float) -> float:
        """Return the handler's own timeout, or else limit_s."""
        return limit_s if self.timeout_s is None else self.timeout_s

    def read_ahead(self, most: int, *, peek: bool) -> bytes:
        """Return what is in the buffer, for a handler that reads the socket itself."""
        data = self.buffer[:most]
        if not peek:
            self.buffer = self.buffer[most:]
            if not self.kept:
                self.response.close_after = True  # nobody knows where the next request begins
        return data

    def receive(self, most: int) -> bytes:
        """Return bytes of the body, b"" at the end; wait for them."""
        if self.buffer:
            data, self.buffer = self.buffer, b""
            return data
        self._invite()
        while True:
            with contextlib.suppress(BlockingIOError):
                return _recv(self.sock, most, _DONTWAIT)
            self.wait(select.POLLIN, self.stall_s(self.engine.limits.body_stall_s))

    def receive_into(self, view: memoryview) -> int:
        """Receive into view, and wait for it; return how many bytes."""
        if self.buffer:
            size = min(len(view), len(self.buffer))
            view[:size] = self.buffer[:size]
            self.buffer = self.buffer[size:]
            return size
        self._invite()
        endless = self.body is not None and self.body.left == ENDLESS
        limit_s = self.timeout_s if endless else self.stall_s(self.engine.limits.body_stall_s)
        while True:
            with contextlib.suppress(BlockingIOError):
                return _recv_into(self.sock, view, 0, _DONTWAIT)
            self.wait(select.POLLIN, limit_s)

    def unreceive(self, data: bytes) -> None:
        """Put back what belongs to the next request."""
        self.buffer = data + self.buffer

    def _invite(self) -> None:
        """Ask for the body, if the client waits for that (RFC 9110 §10.1.1)."""
        head = self.head
        if head is None or not head.expects_continue or self.invited:
            return
        self.invited = True
        if self.response.mode == HEAD:
            self.send(_CONTINUE)

    def wait(self, mask: int, limit_s: float | None) -> None:
        """Wait for the client.

        Raises: TimeoutError after limit_s seconds; None: never.
        """
        poll = select.poll()
        poll.register(_fileno(self.sock), mask)
        self.desk.away()
        try:
            if not poll.poll(None if limit_s is None else limit_s * 1000):
                raise TimeoutError("timed out")
        finally:
            if not self.exposed:
                self.desk.back()

    # -- send ----------------------------------------------------------------

    def send(self, data: bytes, flags: int = _DONTWAIT) -> None:
        """Send data, or keep what the client has no room for; wait if that is much.

        Raises: OSError when the client has gone, TimeoutError when it stalls.
        """
        if not self._out:
            try:
                sent = _send(self.sock, data, flags)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return
            self._keep(memoryview(data)[sent:])
        else:
            self._keep(data)
        if self._queued > self.engine.limits.buffer_bytes:
            self.flush(self.engine.limits.buffer_bytes >> 1)

    def send_more(self, data: bytes) -> None:
        """Send data to which more will be joined, at the latest in 200 ms (MSG_MORE, tcp(7))."""
        self.send(data, _MORE)

    def send_file(self, fd: int, offset: int, count: int) -> None:
        """Send a piece of a file after the rest; the descriptor is closed when it is done."""
        if self._out is None:
            self._out = deque()
        self._out.append(FilePart(fd, offset, count))
        try:
            gone = not self.flush_some()
        except OSError:
            gone = True
        if gone:
            raise BrokenPipeError("the file became shorter, or the client has gone")

    def flush(self, leave: int = 0) -> None:
        """Wait until at most `leave` bytes are kept.

        Raises: OSError, TimeoutError.
        """
        while self._out and self._queued >= leave:
            if not self.flush_some():
                raise BrokenPipeError("the file that is sent became shorter")
            if self._out and self._queued >= leave:
                self.wait(select.POLLOUT, self.stall_s(self.engine.limits.write_stall_s))

    def make_way(self) -> None:
        """Make ready for a handler that sends through the socket itself."""
        self.flush()
        if not self.kept:
            self.response.close_after = True  # nobody knows where its answer ends

    def flush_some(self) -> bool:
        """Send what the client has room for; False: a file has not what was promised.

        Raises: OSError.
        """
        out = self._out
        moved = 0
        with contextlib.suppress(BlockingIOError):
            while out and moved < _SENDFILE_BYTES:
                part = out[0]
                if type(part) is FilePart:
                    if not self._nonblocking:  # sendfile(2) knows no MSG_DONTWAIT
                        self._nonblocking = True
                        os.set_blocking(_fileno(self.sock), False)
                    sent = os.sendfile(
                        _fileno(self.sock),
                        part.fd,
                        part.offset,
                        min(part.count, _SENDFILE_BYTES),
                    )
                    if sent == 0 and part.count:
                        return False
                    part.offset += sent
                    part.count -= sent
                    if part.count == 0:
                        out.popleft().close()
                else:
                    sent = _send(self.sock, part, _DONTWAIT)
                    self._queued -= sent
                    if sent == len(part):
                        out.popleft()
                    else:
                        out[0] = memoryview(part)[sent:]
                moved += sent
        if not out and self._nonblocking:
            self._nonblocking = False
            os.set_blocking(_fileno(self.sock), True)
        return True

    def _keep(self, data: bytes | memoryview) -> None:
        if self._out is None:
            self._out = deque()
        self._out.append(data)
        self._queued += len(data)

    def _drop_out(self) -> None:
        while self._out:
            part = self._out.popleft()
            if type(part) is FilePart:
                part.close()
        self._queued = 0
