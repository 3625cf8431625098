"""The hooks of a handler, done faster: what `adopt` puts in the place of the stdlib's.

A worker, in the thread of the handler. Each does what the stdlib's function of
that name does, as far as a handler can tell; where the object is not one of the
engine's (a socket that was replaced, a method put into the instance), it calls
the stdlib's.
"""

import io
import sys
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Final

from prefork.http import exchange
from prefork.http.body import ENDLESS, CutShortError
from prefork.http.client import ClientSocket
from prefork.http.kept import await_head, settle
from prefork.http.lazy import CONNECTION, connection_of, message_of
from prefork.http.response import HEAD, LENGTH, NONE
from prefork.http.wire import Head, Parser, WireError, WireLimits

if TYPE_CHECKING:
    from prefork.http.connection import Connection

_Stdlib: Final = BaseHTTPRequestHandler


@dataclass(frozen=True, slots=True)
class Asks:
    """What a class wants to be asked about, because it overrides the hook."""

    parse_request: bool
    handle_expect_100: bool
    logs: bool


# For handlers that read by themselves: http.client's sizes.
_STRICT_LIMITS: Final = WireLimits(line_bytes=65536, field_bytes=65536, head_bytes=1 << 18)
_STRICT: Final = Parser(_STRICT_LIMITS)
#: What http.server passes to log_error().
_OF_ANSWERS: Final = frozenset({"code %d, message %s", "Request timed out: %r"})
_NOTHING: Final = {"command": "", "path": "", "request_version": "", "close_connection": True}


# -- socketserver's hooks ------------------------------------------------------


def setup(self: Any) -> None:
    """Connect the handler with its client."""
    request = self.request
    connection = request.connection if type(request) is ClientSocket else None
    if connection is None or connection.handler is not None:
        _Stdlib.setup(self)
        return
    members = self.__dict__
    members["connection"] = request
    members[CONNECTION] = connection
    connection.handler = self
    if self.timeout is not None:
        request.settimeout(self.timeout)
        connection.timeout_s = self.timeout
    if self.wbufsize == 0:
        members["wfile"] = connection.response
    else:
        size = self.wbufsize if self.wbufsize > 0 else io.DEFAULT_BUFFER_SIZE
        members["wfile"] = io.BufferedWriter(connection.response, size)


def finish(self: Any) -> None:
    """Clean up; while the client stays there is nothing to clean."""
    connection = connection_of(self)
    if connection is not None and not connection.kept and not connection.over:
        connection.parked = True
        return
    if connection is None or "rfile" in self.__dict__:
        _Stdlib.finish(self)
        return
    wfile = self.wfile
    if not wfile.closed:
        try:
            wfile.flush()
        except OSError:
            connection.over = True  # the client has gone; as the stdlib does
    wfile.close()


def handle(self: Any) -> None:
    """Handle one request, and be called again for the next; or all, if the engine cannot."""
    members = self.__dict__
    connection = members.get(CONNECTION)
    if (
        connection is not None
        and connection.fresh
        and not connection.kept
        and "handle_one_request" not in members
    ):
        _answer(self, connection)
        if connection.requests == 1 and not connection.over and connection.engine.is_awaited():
            connection.keep()
            try:
                settle(connection)
            except (OSError, WireError):
                connection.over = self.close_connection = True
        elif not connection.abandoned:
            return
    else:
        self.close_connection = True
        self.handle_one_request()
        if connection is not None and not connection.kept and not connection.abandoned:
            return
    while not self.close_connection:
        self.handle_one_request()


# -- one request ---------------------------------------------------------------


def handle_one_request(self: Any) -> None:
    """Dispatch one request to its method."""
    connection = connection_of(self)
    if connection is None or connection.abandoned:
        _Stdlib.handle_one_request(self)
        return
    if connection.rfile is not None and self.__dict__.get("rfile") is connection.rfile:
        exchange.reclaim(connection)
        del self.__dict__["rfile"]
    try:
        came = connection.fresh or await_head(connection)
    except TimeoutError as error:
        _time_out(self, connection, error)
        return
    if came:
        _answer(self, connection)
    else:
        self.close_connection = connection.over = True


def _answer(self: Any, connection: "Connection") -> None:
    exchange.begin(connection)
    try:
        head = connection.head
        if head is None:
            _refuse(self, connection)
        else:
            members = self.__dict__
            if "headers" in members:
                del members["headers"]
            members.update(head.attributes)
            if self.protocol_version < "HTTP/1.1":
                members["close_connection"] = True
            self._prefork_dispatch(connection, head)
    except TimeoutError as error:
        _time_out(self, connection, error)
    except WireError as error:  # in a chunked body
        connection.over = True
        connection.error = error
        if _has_said_nothing(self, connection):
            self.send_error(error.status, error.reason or None)
        else:
            connection.failing = True  # the client must see that the answer is cut
    except Exception:
        _fail(self, connection)
        raise
    except BaseException:
        connection.failing = connection.over = True
        raise
    finally:
        response = connection.response
        # What most answers leave: nothing to do.
        if (
            response.left
            or response.mode != LENGTH
            or response.close_after
            or connection.body is not None
            or connection.failing
            or connection.is_special
            or self.close_connection
        ):
            _complete(self, connection)


def dispatch(self: Any, connection: "Connection", head: Head) -> None:
    """Call the method of a request: `do_SPAM()`."""
    members = self.__dict__
    name = head.method_name
    if connection.engine.forwarders is not None:
        self.client_address = exchange.origin(connection)
    asks = self._prefork_asks
    if asks.parse_request:
        exchange.replay(connection)
        if not self.parse_request():
            return
        name = f"do_{self.command}"
    elif head.expects_continue and (asks.handle_expect_100 or "handle_expect_100" in members):
        connection.invited = True
        if not self.handle_expect_100():
            return
    method = getattr(self, name, None)
    if method is None:
        _refuse_method(self)
    else:
        method()
    wfile = self.wfile
    if wfile is not connection.response:
        wfile.flush()


def _refuse_method(self: Any) -> None:
    """Say that there is no such method: 405 where the handler says what it allows, else 501."""
    allowed = getattr(self, "allowed_methods", None)
    if not allowed:
        self.send_error(HTTPStatus.NOT_IMPLEMENTED, f"Unsupported method ({self.command!r})")
        return
    self.log_error("code %d, message %s", 405, "Method Not Allowed")
    self.send_response(HTTPStatus.METHOD_NOT_ALLOWED)
    self.send_header("Allow", ", ".join(allowed))  # RFC 9110 §15.5.6
    self.send_header("Connection", "close")
    self.send_header("Content-Length", "0")
    self.end_headers()


def _refuse(self: Any, connection: "Connection") -> None:
    """Answer what was no request."""
    error = connection.error
    line = error.request_line if isinstance(error, WireError) else b""
    self.__dict__.update(
        raw_requestline=line,
        requestline=line.decode("latin-1"),
        request_version="",
        command="",
        path="",
        close_connection=True,
    )
    connection.over = True
    if isinstance(error, WireError):
        self.send_error(error.status, error.reason or None)
    elif error is not None:
        raise error


def _time_out(self: Any, connection: "Connection", error: TimeoutError) -> None:
    """Do as the stdlib: log, and close."""
    connection.failing = connection.over = True
    self.log_error("Request timed out: %r", error)
    self.close_connection = True
    reading = connection.body is not None and connection.body.left not in (0, ENDLESS)
    if self.timeout is None and _has_said_nothing(self, connection):
        connection.failing = False
        status = HTTPStatus.REQUEST_TIMEOUT if reading else HTTPStatus.INTERNAL_SERVER_ERROR
        self.send_error(status)  # without a timeout and a body to read it was not the client


def _fail(self: Any, connection: "Connection") -> None:
    """After an exception: 500 if nothing has been said yet, else drop the connection."""
    connection.over = True
    self.close_connection = True
    if connection.abandoned:
        return
    if not _has_said_nothing(self, connection):
        connection.failing = True
        return
    self.__dict__.pop("_headers_buffer", None)
    cut = isinstance(sys.exception(), CutShortError)
    try:
        self.send_error(HTTPStatus.BAD_REQUEST if cut else HTTPStatus.INTERNAL_SERVER_ERROR)
    except Exception:
        connection.failing = True  # its own send_error() fails, too, or the client has gone


def _has_said_nothing(self: Any, connection: "Connection") -> bool:
    """Tell whether an error may still be the answer; the head of another is withdrawn."""
    response = connection.response
    if response.mode == HEAD or connection.outbox.withdraw():
        wfile = self.wfile
        if isinstance(wfile, io.BufferedWriter) and wfile.raw is response:
            response.mode = NONE  # what a `wbufsize` has kept is not for the client any more
            wfile.flush()
        response.begin()
        return True
    return False


def _complete(self: Any, connection: "Connection") -> None:
    members = self.__dict__
    if connection.rfile is not None:
        if members.get("rfile") is connection.rfile:
            del members["rfile"]
        connection.rfile = None
    if connection.abandoned:
        return
    try:
        exchange.complete(connection)
        if connection.kept:
            settle(connection)
    except (OSError, WireError):
        connection.over = True  # the client has gone, does not read, or sends what is no chunk
    if connection.over:
        self.close_connection = True
    access = connection.engine.access
    if access is not None and not self._prefork_asks.logs:
        exchange.log(connection, access)


# -- the log ---------------------------------------------------------------------


def log_request(self: Any, code: Any = "-", size: Any = "-") -> None:
    """Log a request; where the server keeps an access log, that has it at the answer's end."""
    connection = connection_of(self)
    if connection is None or connection.engine.logs_by_handler:
        _Stdlib.log_request(self, code, size)
    elif connection.requests == 0 and connection.engine.access is not None:
        # Its handle() is its own, as in wsgiref, and nobody else sees where an answer ends.
        exchange.log_alone(self, connection.engine.access, code, size)


def log_error(self: Any, format: str, *args: Any) -> None:  # noqa: A002 # the stdlib's name
    """Log an error; what the stdlib says of an answer is in the server's access log, if it has one.

    A second line, of another format, would be unbuffered, and wait for a slow reader.
    """
    connection = connection_of(self)
    if connection is None or connection.engine.logs_by_handler or format not in _OF_ANSWERS:
        _Stdlib.log_error(self, format, *args)


# -- for handlers that read by themselves ------------------------------------------


def parse_request(self: Any) -> bool:
    """Parse a request from `raw_requestline` and `rfile`, as strictly as the engine does."""
    members = self.__dict__
    members.update(_NOTHING)
    members["requestline"] = self.raw_requestline.decode("latin-1").rstrip("\r\n")
    try:
        head = _read_head(self)
    except WireError as error:
        self.send_error(error.status, error.reason or None)
        return False
    if head is None:
        return False
    members.update(head.attributes)
    modern = self.protocol_version >= "HTTP/1.1"
    if not modern:
        members["close_connection"] = True
    self.headers = message_of(self, head)
    return not (head.expects_continue and modern) or bool(self.handle_expect_100())


def _read_head(self: Any) -> Head | None:
    """Read on after the request line; None: the client has gone before the end."""
    lines = [self.raw_requestline]
    size = len(lines[0])
    _STRICT.parse(lines[0])  # refuse at once what will never be a head
    while size <= _STRICT_LIMITS.head_bytes:
        line = self.rfile.readline(_STRICT_LIMITS.head_bytes + 1)
        lines.append(line)
        size += len(line)
        if line in (b"\r\n", b"\n", b""):
            break
    return _STRICT.parse(b"".join(lines))
