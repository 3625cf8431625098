"""One client of the engine, from accept to close.

A worker. At any time one thread owns it: the loop while it waits for the
client, the thread of the handler while that runs; it changes hands through the
loop's epoll or the pool's queue. What it does next is one of the states below.
It never calls a handler: the engine does.
"""

import contextlib
import select
import socket
from typing import Final

from prefork.http.exchange import log_late
from prefork.http.visit import (
    CLOSED,
    DISCARDING,
    LINGERING,
    PREFETCHING,
    READING,
    SENDING,
    WAITING,
    Visit,
)
from prefork.http.wire import CACHED_BYTES, WireError

_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
_ONESHOT: Final = select.EPOLLONESHOT
_DONTWAIT: Final = socket.MSG_DONTWAIT

#: Of one recv. Heads are small; a body is read by its handler.
_RECEIVE_BYTES: Final = 1 << 16
#: Requests that one client may have answered before others get a turn.
_TURN: Final = 16

_recv = socket.socket.recv
_fileno = socket.socket.fileno
_shutdown = socket.socket.shutdown


class Connection(Visit):
    """A client in the loop: what is awaited of it, and what becomes of it."""

    __slots__ = ()

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
            known = engine.known
            if small and (head := known(data)) is not None:
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
        # Who waits for a first byte is the loop's until it is handed over; to arm it anew would
        # report the same bytes again, and spin.
        oneshot = 0 if state == WAITING else self.engine.oneshot
        mask |= oneshot
        if self._mask == 0:
            self._mask = mask
            self.engine.loop.watch(_fileno(self.sock), mask, self.on_ready)
        elif mask != self._mask or oneshot:
            self._mask = mask
            self.engine.loop.change(_fileno(self.sock), mask)

    def disarm(self) -> None:
        """Have the loop report nothing, for a thread's sake, until the next `wait_for()`."""
        if self._mask not in (0, _ONESHOT):
            self._mask = _ONESHOT
            # An error is reported all the same, but once, and in this state passed over.
            self.engine.loop.change(_fileno(self.sock), _ONESHOT)

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
        self.handler = self.body = self.rfile = self.error = None  # its traceback knows us
        if self._mask:
            self.engine.loop.forget(_fileno(self.sock))
            self._mask = 0
        self.engine.forget(self)
        self.sock.connection = None
        try:
            socket.socket.close(self.sock)
        except OSError:
            return  # a reset that nobody has read yet

    def keep(self) -> None:
        """Stay with the handler until the end, instead of going back to the loop."""
        self.unwatch()
        self.kept = self.is_special = True

    def abandon(self) -> None:
        """Let go of a socket that its handler has closed or taken."""
        if not self.abandoned and self.state != CLOSED:
            self.send_rest()
            self.abandoned = self.over = self.is_special = True
            self.outbox.clear()
            self.unwatch()
            self.engine.let_go(self)
