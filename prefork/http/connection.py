"""One client of the engine, from accept to close.

A worker. At any time one thread owns it: the loop while it waits for the
client, the thread of the handler while that runs; it changes hands through the
loop's epoll or the pool's queue. What it does next is one of the states below.
It never calls a handler: the engine does.
"""

import contextlib
import select
import socket
from typing import TYPE_CHECKING, Any, Final

from prefork.http.body import ENDLESS, Body
from prefork.http.client import ClientSocket
from prefork.http.exchange import log_late
from prefork.http.outbox import Outbox
from prefork.http.response import Response
from prefork.http.wire import CACHED_BYTES, Head, WireError

if TYPE_CHECKING:
    from prefork.desk import Desk
    from prefork.http.access import Entry
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
_DONTWAIT: Final = socket.MSG_DONTWAIT

#: Of one recv. Heads are small; a body is read by its handler.
_RECEIVE_BYTES: Final = 1 << 16
#: Requests that one client may have answered before others get a turn.
_TURN: Final = 16

_recv = socket.socket.recv
_fileno = socket.socket.fileno
_shutdown = socket.socket.shutdown


class Connection:
    """address: as accept() gave it. handler: its one instance, when there is one.

    head: of the request in hand. fresh: no handler has taken it up. error: why
    there is none, for the handler to say. invited: the client was asked for the
    body. buffer: what has been received and not been used. deadline_s: when the
    loop loses patience. kept: the handler stays in `handle()` until the end;
    idle: and waits for its client's next request. parked: the handler has
    returned, and is wanted again. over: no request is expected any more.
    announced: a proxy has yet to say who the client is. failing: the handler has
    raised. exposed: it has asked for the descriptor. abandoned: it has closed
    or taken the socket. deleted: names of attributes that the handler has
    deleted in this request. unlogged: the line of the access log for an answer that
    is still sent. is_special: more than usual is to be done after an answer.
    """

    __slots__ = (
        "_finished",
        "_mask",
        "abandoned",
        "address",
        "announced",
        "begun_s",
        "body",
        "buffer",
        "deadline_s",
        "deleted",
        "desk",
        "engine",
        "error",
        "exposed",
        "failing",
        "fresh",
        "handler",
        "head",
        "idle",
        "invited",
        "is_special",
        "kept",
        "outbox",
        "over",
        "parked",
        "requests",
        "response",
        "rfile",
        "sock",
        "started_s",
        "state",
        "timeout_s",
        "unlogged",
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
        self.outbox = Outbox(sock, engine.limits.buffer_bytes, self._wait_to_send)
        self.response = Response(self)
        self.rfile: Any = None
        self.deleted: tuple[str, ...] = ()
        self.is_special = engine.access is not None
        self.requests = 0
        self.timeout_s: float | None = None
        self.deadline_s = engine.now_s + engine.limits.keep_alive_s
        self.started_s = self.begun_s = 0.0
        self.idle = self.kept = self.parked = self.over = self.failing = False
        self.announced = self.exposed = self.abandoned = self.fresh = self.invited = False
        self._finished = False
        self.unlogged: Entry | None = None
        self._mask = 0

    # -- in the loop ---------------------------------------------------------

    def on_ready(self, mask: int) -> None:
        """Go on: the loop has seen what this waits for."""
        state = self.state
        try:
            if state == READING:
                self.read_head()
            elif state == SENDING:
                self._send_on(mask)
            elif state == WAITING:
                self.engine.lobby.look(self)
            elif state in (PREFETCHING, DISCARDING, LINGERING):
                self._read_on(state)
        except Exception:
            self.engine.fail(self)

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
        engine = self.engine
        if self.buffer:
            data = self.buffer + data
        else:
            # Most are what the client has sent before.
            small = len(data) <= CACHED_BYTES and not self.announced
            if small and (head := engine.known(data)) is not None:
                self.head, self.fresh = head, True
                engine.dispatch(self)
                return
            self.started_s = engine.now_s
        if self.announced:
            rest = engine.lobby.announce(self, data)
            if not rest:
                if self.state != CLOSED:
                    self.buffer = data if rest is None else b""
                    self.deadline_s = self.head_deadline_s()
                    self.wait_for(READING, _IN)
                return
            data = rest
        if self.parse(data):
            engine.dispatch(self)
        else:
            self.deadline_s = self.head_deadline_s()
            self.wait_for(READING, _IN)

    def parse(self, data: bytes) -> bool:
        """Look for a head in data; tell whether there is one, or an error to answer."""
        try:
            head = self.engine.parse(data)
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
                self.outbox.flush()
        if self.unlogged is not None:
            log_late(self)
        self.outbox.clear()
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
        if not data and state == LINGERING:
            self.close()  # to linger again would spin while our last answer is not acknowledged
        elif not data:
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
            if mask & select.EPOLLERR:
                raise ConnectionResetError
            self.outbox.send_some()
        except OSError:
            self.abort()
            return
        if not self.outbox.is_empty():
            self.deadline_s = self.engine.now_s + self.stall_s(self.engine.limits.write_stall_s)
            self.wait_for(SENDING, _OUT)
        else:
            if self.unlogged is not None:
                log_late(self)
            self.advance()

    # -- after the handler ---------------------------------------------------

    def advance(self) -> None:
        """Go on after an answer, until the client or a handler must be waited for."""
        if not (self.over or self.buffer or self.body) and self.outbox.is_empty():
            self._park()
            return
        for _ in range(_TURN):
            if not self._is_settled():
                return
            if not self.buffer:
                self._park()
                return
            self.started_s = self.engine.now_s
            if not self.parse(self.buffer):
                self.deadline_s = self.head_deadline_s()
                self.wait_for(READING, _IN)
                return
            if not self.engine.run_next(self):
                return
        self.engine.later(self)

    def _is_settled(self) -> bool:
        """Tell whether the last answer and its request are done with; else see to it."""
        if self.outbox.broken:
            self.abort()
        elif not self.outbox.is_empty():
            self.deadline_s = self.engine.now_s + self.stall_s(self.engine.limits.write_stall_s)
            self.wait_for(SENDING, _OUT)
        elif self.over:
            self.engine.end(self)
        else:
            return self._discard()
        return False

    def _park(self) -> None:
        engine = self.engine
        timeout_s = self.timeout_s
        self.deadline_s = engine.now_s + (engine.keep_alive_s if timeout_s is None else timeout_s)
        if self._mask == _IN and not engine.closed:
            self.state = READING
        else:
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
        """End the connection, which is idle or has failed; the handler's `finish()` first."""
        self.over = self._finished = True
        self.engine.end(self)

    def abort(self) -> None:
        """End the connection at once: the client has gone, or is out of time."""
        if self.unlogged is not None:
            log_late(self)
        self.outbox.clear()
        self.finish()

    def close_soon(self) -> None:
        """Close when all has been sent; what `shutdown_request()` is for the engine's clients."""
        if self.state == CLOSED:
            return
        if not self.outbox.is_empty():
            self.over = True
            self.deadline_s = self.engine.now_s + self.engine.limits.write_stall_s
            self.wait_for(SENDING, _OUT)
            return
        try:
            _shutdown(self.sock, socket.SHUT_WR)
        except OSError:  # it has gone
            self.close()
            return
        head = self.head
        # It has not heard yet that this was the last answer.
        pipelines = head is not None and head.keep_alive and not self._finished
        if pipelines or self.buffer or self.error or (self.body and self.body.left):
            # With unread data close() would reset the connection, and the
            # client might never read the answer (RFC 9112 §9.6).
            self.deadline_s = self.engine.now_s + self.engine.limits.lingering_s
            self.wait_for(LINGERING, _IN)
        else:
            self.close()

    def close(self) -> None:
        """Close the socket, by the server's hook."""
        if self.state != CLOSED:
            self.engine.server.close_request(self.sock)

    def dispose(self) -> None:
        """Close the socket."""
        if self.state == CLOSED:
            return
        self.state = CLOSED
        if self.unlogged is not None:
            log_late(self)
        self.outbox.part()
        self.response.part()
        self.handler = self.body = self.rfile = None
        if self._mask:
            self.engine.loop.forget(_fileno(self.sock))
            self._mask = 0
        self.engine.forget(self)
        self.sock.connection = None
        try:
            socket.socket.close(self.sock)
        except OSError:
            return  # a reset that nobody has read yet

    # -- for the request in hand ---------------------------------------------

    def must_close(self) -> bool:
        """Tell whether this request's answer is the connection's last."""
        return (
            self.requests >= self.engine.keep_alive_requests
            or self.over
            or self.handler is None
            or getattr(self.handler, "close_connection", True)
        )

    def is_unread(self) -> bool:
        """Tell whether a kept handler has been given no request yet."""
        return self.kept and self.requests == 0

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

    def show_life(self) -> None:
        """Note that bytes move: a handler that has to do with its client is not stuck."""
        if not self.exposed:
            self.desk.back()

    def abandon(self) -> None:
        """Let go of a socket that its handler has closed or taken."""
        if not self.abandoned and self.state != CLOSED:
            self.abandoned = self.over = self.is_special = True
            self.outbox.clear()
            self.unwatch()
            self.engine.forget(self)

    def refuse(self, error: Exception) -> None:
        """Let the handler tell the client what is wrong, or the log."""
        self.head, self.fresh, self.error = None, True, error
        self.buffer = b""

    # -- receive -------------------------------------------------------------

    def head_deadline_s(self) -> float:
        """Return until when the head that has begun must be complete."""
        limit_s = self.engine.limits.head_s
        timeout_s = self.timeout_s
        return self.started_s + (limit_s if timeout_s is None else min(limit_s, timeout_s))

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

    def make_way(self) -> None:
        """Make ready for a handler that sends through the socket itself."""
        self.outbox.flush()
        if not self.kept:
            self.response.close_after = True  # nobody knows where its answer ends

    def unreceive(self, data: bytes) -> None:
        """Put back what belongs to the next request."""
        self.buffer = data + self.buffer

    def _wait_to_send(self, mask: int) -> None:
        self.wait(mask, self.stall_s(self.engine.limits.write_stall_s))

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
