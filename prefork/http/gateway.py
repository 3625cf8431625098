"""One request answered by a WSGI application (PEP 3333), in place of `do_SPAM()`.

A worker, in the thread of the handler. An answer whose length is known leaves
in one piece; others are framed by `Response`, chunk by chunk, none of which
waits for the next. It never changes what the application gives, and never
leaves an iterable unclosed.
"""

import os
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from prefork import log
from prefork.http.environ import Environs
from prefork.http.file_wrapper import FileWrapper, piece_of
from prefork.http.outbox import Descriptor
from prefork.http.plans import Plan, Plans
from prefork.http.wire import Head

if TYPE_CHECKING:
    from prefork.http.connection import Connection
    from prefork.http.engine import Engine

#: A longer body is not joined with its head: the copy would cost more than a second send.
_JOINED_BYTES: Final = 1 << 16
_OPENERS: Final = (list, tuple)


class Gateway:
    """What the WSGI requests of one engine share.

    base: the server's `base_environ`, as its environs have it.
    """

    def __init__(self, engine: "Engine") -> None:
        self.base: dict[str, Any] = dict(engine.server.base_environ)
        self.environs = Environs(engine)
        self.plans = Plans()
        self.get_app = engine.server.get_app


class Call:
    """One call of the application: its `start_response()`, and the `write()` that this returns."""

    __slots__ = ("_connection", "_gateway", "_handler", "_plan", "_sent", "over", "whole")

    def __init__(self, gateway: Gateway, handler: Any, connection: "Connection") -> None:
        self._gateway = gateway
        self._handler = handler
        self._connection = connection
        self._plan: Plan | None = None
        self._sent = False  # the head; from then on it cannot be changed
        self.whole = False  #: what was promised has been sent, and no more
        self.over = False  #: the request; its connection has another in hand

    # -- what applications call ------------------------------------------------

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Any:
        """Say the head, which is sent with the first bytes of the body; return `write()`.

        Raises: exc_info's exception when the head has been sent; TypeError,
        ValueError for what cannot be one; AssertionError when called again
        without exc_info.
        """
        if exc_info:
            try:
                if self._sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # a frame that knows its own traceback
        elif self._plan is not None:
            raise AssertionError("start_response() was called again, without exc_info")
        self._plan = self._gateway.plans.find(self._handler, status, headers)
        return self.write

    def write(self, data: bytes, /) -> None:
        """Send a piece of the body at once, with the head before it if it is the first.

        Raises: OSError, TimeoutError, TypeError; ValueError after the request, for
        the connection has another in hand.
        """
        if self.over:
            raise ValueError("the request has been answered")
        if not isinstance(data, bytes):
            raise TypeError(f"an application's body is of bytes, not {type(data).__name__}")
        if not self._sent:
            if not data:
                return
            plan = self._expect_plan()
            if plan.length == len(data) and self._may_have_body(plan):
                self._send_whole(plan, data)
                return
            self._begin(plan)
        elif data:
            self.whole = False  # there is more than was promised
        self._connection.response.write(data)

    def early_hints(self, headers: list[tuple[str, str]], /) -> None:
        """Send 103 with these headers, such as Link (RFC 8297); nothing to clients of HTTP/1.0.

        Raises: OSError, TypeError, ValueError.
        """
        lines = b"".join(self._gateway.plans.line(header)[0] for header in headers)
        head = self._connection.head
        if not (self._sent or self.over) and head is not None and head.version != "HTTP/1.0":
            self._connection.outbox.send(b"HTTP/1.1 103 Early Hints\r\n%b\r\n" % lines)

    # -- what it returns -------------------------------------------------------

    def answer(self, result: Any) -> None:
        """Send what the application has returned.

        Raises: what iterating it raises; OSError, TimeoutError, TypeError.
        """
        if type(result) in _OPENERS and not self._sent:
            body = result[0] if len(result) == 1 else _joined(result)
            if type(body) is bytes:
                plan, head = self._plan, self._connection.head
                if (
                    plan is not None
                    and plan.length == len(body)
                    and not plan.bodiless
                    and head is not None
                    and head.is_common
                ):
                    self._send_common(plan, body)  # most do
                else:
                    self._answer_whole(self._expect_plan(), body)
                return
        if type(result) is FileWrapper and not self._sent and self._answer_file(result):
            return
        for data in result:
            self.write(data)
            if self._sent and not self._may_have_body(self._expect_plan()):
                return  # nobody wants to see the rest
        if not self._sent:
            self._answer_whole(self._expect_plan(), b"")

    def log(self) -> None:
        """Have the handler log the request, as wsgiref does at the end of the answer."""
        if self._plan is not None:
            self._handler.log_request(str(self._plan.code), self._connection.response.sent)

    def complain(self) -> None:
        """Log an answer that is not as long as the application has said."""
        plan, response = self._plan, self._connection.response
        if plan is not None and plan.length is not None and self._may_have_body(plan):
            gave = plan.length - response.left
            if gave != plan.length and not self._connection.outbox.broken:
                log.warning("wsgi.length", said=plan.length, gave=gave, path=self._handler.path)

    # -- how -------------------------------------------------------------------

    def _expect_plan(self) -> Plan:
        if self._plan is None:
            raise AssertionError("the application has not called start_response()")
        return self._plan

    def _may_have_body(self, plan: Plan) -> bool:
        head = self._connection.head
        return not plan.bodiless and head is not None and head.method != "HEAD"

    def _answer_whole(self, plan: Plan, body: bytes) -> None:
        if not self._may_have_body(plan):
            self._begin(plan, len(body) if body and not plan.bodiless else None)
        elif plan.length is None or plan.length == len(body):
            self._send_whole(plan, body)
        else:
            self._begin(plan)
            self._connection.response.write(body)

    def _send_common(self, plan: Plan, body: bytes) -> None:
        """Do as `_send_whole()` where HTTP/1.1 needs no word about the connection, if it stays."""
        connection = self._connection
        size = len(body)
        if size > _JOINED_BYTES or connection.must_close():
            self._send_whole(plan, body)
            return
        self._sent = self.whole = True
        connection.response.note_whole(plan.code, size)
        connection.outbox.send(plan.head() + body)

    def _send_whole(self, plan: Plan, body: bytes) -> None:
        """Send an answer whose length is known: head and body together."""
        self._sent = self.whole = True
        connection = self._connection
        size = len(body)
        lines = plan.lines() if plan.length is not None else _lines(plan, size)
        head = connection.response.head_of(lines, size, plan.code)
        if size <= _JOINED_BYTES:
            connection.outbox.send(head + body)
        else:
            outbox, engine = connection.outbox, connection.engine
            outbox.send_more(head)
            # It is in memory anyway: nobody waits while a slow client takes it, if there is room.
            whole = size > engine.limits.buffer_bytes and engine.has_memory()
            (outbox.send_whole if whole else outbox.send)(body)

    def _answer_file(self, wrapper: FileWrapper) -> bool:
        """Have the kernel send a plain file; tell whether it is one."""
        plan = self._expect_plan()
        found = piece_of(wrapper)
        if found is None or not self._may_have_body(plan):
            return False
        fd, offset, count = found
        if plan.length is not None:
            count = min(count, plan.length)
            if count < plan.length:
                return False  # the file is too short: the client shall see that it is cut
        self._sent = self.whole = True
        connection = self._connection
        head = connection.response.head_of(_lines(plan, count), count, plan.code)
        connection.outbox.send_more(head)
        if count:
            connection.outbox.send_file(Descriptor(os.dup(fd)), offset, count)
        return True

    def _begin(self, plan: Plan, size: int | None = None) -> None:
        """Hold the head until the first bytes of a body whose end the framing will tell."""
        self._sent = True
        self._connection.response.hold_head(_lines(plan, size) + b"\r\n")


def dispatch(self: Any, connection: "Connection", head: Head) -> None:
    """Answer a request by the server's application."""
    if head.method == "CONNECT":  # there is no path that it could ask for
        self.send_error(HTTPStatus.NOT_IMPLEMENTED, "Unsupported method ('CONNECT')")
        return
    engine = connection.engine
    gateway = engine.gateway
    # In a worker nobody has the server who could change it once requests come.
    if gateway is None or (engine.alone and gateway.base != engine.server.base_environ):
        gateway = engine.gateway = Gateway(engine)
        engine.parser.forget()  # heads have environs with the old base
        head.environ = head.shared.environ = None
    environs = gateway.environs
    if self._prefork_makes_environ:
        environ = environs.made_by_handler(self, connection, head)
    else:
        environ = environs.make(self, connection, head)
    spooled = environ["wsgi.input"] if head.length is None else None
    call = Call(gateway, self, connection)
    environ["wsgi.early_hints"] = call.early_hints
    try:
        get_app = gateway.get_app
        result = get_app()(environ, call.start_response)
        try:
            call.answer(result)
        finally:
            if type(result) is not list and (close := getattr(result, "close", None)) is not None:
                close()
    finally:
        call.over = True
        if spooled is not None:
            spooled.close()
    if not call.whole:
        call.complain()
    if engine.logs_by_handler or self._prefork_asks.logs:
        call.log()


def _lines(plan: Plan, size: int | None) -> bytes:
    """Return a head without its empty line. size: of the body, None if unknown."""
    if plan.length is not None or size is None:
        return plan.lines()
    return b"%bContent-Length: %d\r\n" % (plan.lines(), size)


def _joined(result: Any) -> Any:
    """Return several pieces as one, if all are bytes and they are not too long for that."""
    if all(type(data) is bytes for data in result) and sum(map(len, result)) <= _JOINED_BYTES:
        return b"".join(result)
    return None
