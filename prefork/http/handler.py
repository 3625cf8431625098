"""BaseHTTPRequestHandler: the stdlib's, as its newest version has it, on every Python.

A worker. It is the stdlib's class with a few hooks in their places, so that it
does its work on the stdlib's servers too, and on objects that were never set
up. It never waits for anything but `rfile` and `wfile`.

Where the stdlib's versions differ, it follows the newest that breaks no test of
the older:

- `server_version` is 3.15's "BaseHTTP"; "BaseHTTP/0.6" before. No test asks.
- The error page is 3.14's, which follows the reader's dark mode.
- A malformed request line is answered with a status line and a head (3.15), not
  with a bare page, and a version that is too new likewise.
- `GET /path` without a version has no head to wait for, and `headers` is `{}`
  (3.14).
- A request may have 100 fields (3.15); 99 before.
- `responses` are those of the running Python: 3.13 renamed some, and the tests of
  each version ask for its own. So is the log, which 3.15 colours on a terminal.

And on purpose otherwise than the stdlib in all its versions:

- `protocol_version` is "HTTP/1.1". Where an answer on a connection that would
  persist says no length, and no engine is there to make chunks, it gets
  `Connection: close`: its client would wait for ever.
- CR, LF and NUL in a header or a status message raise ValueError: what follows
  them would be another header or another answer. `send_error()` puts a space in
  the place of those in its message, which may be an exception's text.
- `Server` and `Date` go out once: what a handler sends takes the place of what
  `send_response()` has put there.
- `address_string()` works for Unix clients, whose address is no pair.
"""

import email.parser
import http.client
import http.server
import io
import os
import re
import socketserver
import sys
from collections.abc import Sequence
from email.message import Message
from http import HTTPStatus
from typing import Any, Final

_DARK_MODE: Final = """\
        <style type="text/css">
            :root {
                color-scheme: light dark;
            }
        </style>
"""
_TITLE: Final = "        <title>"

_PAGE: Final = http.server.BaseHTTPRequestHandler.error_message_format
#: 3.14's, made of what the running Python has.
DEFAULT_ERROR_MESSAGE: Final = (
    _PAGE if _DARK_MODE in _PAGE else _PAGE.replace(_TITLE, _DARK_MODE + _TITLE, 1)
)
DEFAULT_ERROR_CONTENT_TYPE: Final = http.server.BaseHTTPRequestHandler.error_content_type

_LINE_BYTES: Final = 65536  # http.client's
_FIELDS: Final = 100  # http.client's
_VERSION: Final = re.compile(r"HTTP/([0-9]{1,10})\.([0-9]{1,10})")  # RFC 9112 §2.3, and gh-99220
_LINE_ENDERS: Final = re.compile(r"[\r\n\0]")  # RFC 9110 §5.5
_ONCE: Final = frozenset({"server", "date"})
#: What the stdlib's setup() makes; it knows nothing of a body's end.
_PLAIN_WRITERS: Final = (socketserver._SocketWriter, io.BufferedWriter)  # type: ignore[attr-defined] # not in typeshed


class BaseHTTPRequestHandler(http.server.BaseHTTPRequestHandler):
    """Dispatches each request to `do_SPAM()`; see `http.server.BaseHTTPRequestHandler`."""

    protocol_version = "HTTP/1.1"
    server_version = "BaseHTTP"
    error_message_format = DEFAULT_ERROR_MESSAGE

    #: What is answered by 405 and `Allow` in place of 501, for other methods; empty: nothing is.
    allowed_methods: Sequence[str] = ()

    raw_requestline: bytes
    _headers_buffer: list[bytes]

    if sys.version_info < (3, 15):

        def parse_request(self) -> bool:
            """Parse `raw_requestline`, and the head from `rfile`, as 3.15 does.

            Return whether there is a request to handle; if not, the client has
            had its error, or has sent nothing but a blank line.
            """
            self.command = None  # type: ignore[assignment] # the stdlib's, until it is known
            self.request_version = self.default_request_version
            self.close_connection = True
            self.requestline = str(self.raw_requestline, "iso-8859-1").rstrip("\r\n")
            words = self.requestline.split()
            if not words or (len(words) >= 3 and not _take_version(self, words[-1])):
                return False
            fault = _fault(self.requestline, words)
            if fault is not None:
                self.request_version = ""  # or the answer would be one of HTTP/0.9, a bare page
                self.send_error(HTTPStatus.BAD_REQUEST, fault)
                return False
            self.command, self.path = words[:2]
            if self.path.startswith("//"):  # gh-87389: a redirect to //host leads elsewhere
                self.path = "/" + self.path.lstrip("/")
            if len(words) == 2:
                self.close_connection = True
                self.headers = {}  # type: ignore[assignment] # 3.14's: HTTP/0.9 has none
                return True
            return _take_head(self)

    def send_response_only(self, code: int, message: str | None = None) -> None:
        """Put the status line into the buffer.

        Raises: ValueError if the message has a CR, LF or NUL in it.
        """
        if message is not None and _LINE_ENDERS.search(message):
            raise ValueError(f"CR, LF or NUL in the message of status {code:d}: {message!r}")
        super().send_response_only(code, message)

    def send_header(self, keyword: str, value: str) -> None:
        """Put a header into the buffer; a second Server or Date replaces the first.

        Raises: ValueError if its name or value has a CR, LF or NUL in it.
        """
        if _LINE_ENDERS.search(f"{keyword}{value}"):
            raise ValueError(f"CR, LF or NUL in the header {keyword!r}: {value!r}")
        if keyword.lower() in _ONCE:
            _drop(getattr(self, "_headers_buffer", []), keyword)
        super().send_header(keyword, value)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send and log an error; its message becomes one line."""
        if message is not None:
            message = _LINE_ENDERS.sub(" ", message)
        super().send_error(code, message, explain)

    def end_headers(self) -> None:
        """End the head, and send what is in the buffer."""
        if _is_endless(self):
            # Not by send_header(): a handler that overrides it has not asked for this.
            self._headers_buffer.append(b"Connection: close\r\n")
            self.close_connection = True
        super().end_headers()

    def address_string(self) -> str:
        """Return the client's host; its path for a Unix client, "unix" if it has none."""
        address: Any = self.client_address
        if not address:
            return "unix"
        return os.fsdecode(address) if isinstance(address, str | bytes) else str(address[0])


def _take_version(handler: BaseHTTPRequestHandler, version: str) -> bool:
    """Note the request's version and whether its connection persists; False: it has its error."""
    numbers = _VERSION.fullmatch(version)
    if numbers is None:
        handler.request_version = ""
        handler.send_error(HTTPStatus.BAD_REQUEST, f"Bad request version ({version!r})")
        return False
    handler.request_version = version
    major, minor = int(numbers[1]), int(numbers[2])
    if (major, minor) >= (1, 1) and handler.protocol_version >= "HTTP/1.1":
        handler.close_connection = False
    if major >= 2:
        text = f"Invalid HTTP version ({version.removeprefix('HTTP/')})"
        handler.send_error(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, text)
        return False
    return True


def _fault(requestline: str, words: list[str]) -> str | None:
    if not 2 <= len(words) <= 3:
        return f"Bad request syntax ({requestline!r})"
    if len(words) == 2 and words[0] != "GET":
        return f"Bad HTTP/0.9 request type ({words[0]!r})"
    return None


def _take_head(handler: BaseHTTPRequestHandler) -> bool:
    """Read the fields, and do what Connection and Expect ask; False: it has its error."""
    too_large = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    try:
        handler.headers = _read_fields(handler)
    except http.client.LineTooLong as error:
        handler.send_error(too_large, "Line too long", str(error))
        return False
    except http.client.HTTPException as error:
        handler.send_error(too_large, "Too many headers", str(error))
        return False
    wish = handler.headers.get("Connection", "").lower()
    if wish == "close":
        handler.close_connection = True
    elif wish == "keep-alive" and handler.protocol_version >= "HTTP/1.1":
        handler.close_connection = False
    expects = handler.headers.get("Expect", "").lower() == "100-continue"
    if expects and min(handler.protocol_version, handler.request_version) >= "HTTP/1.1":
        return handler.handle_expect_100()
    return True


def _read_fields(handler: BaseHTTPRequestHandler) -> Message:
    """Return what http.client.parse_headers() of 3.15 does; it counts the blank line before."""
    lines: list[bytes] = []
    while (line := handler.rfile.readline(_LINE_BYTES + 1)) not in (b"\r\n", b"\n", b""):
        if len(line) > _LINE_BYTES:
            raise http.client.LineTooLong("header line")
        lines.append(line)
        if len(lines) > _FIELDS:
            raise http.client.HTTPException(f"got more than {_FIELDS} headers")
    text = b"".join(lines).decode("iso-8859-1")
    fields: Message = email.parser.Parser(_class=handler.MessageClass).parsestr(text)
    return fields


def _drop(buffer: list[bytes], keyword: str) -> None:
    name = keyword.lower().encode("latin-1", "replace") + b":"
    # In place: a handler may hold the list.
    buffer[:] = [line for line in buffer if not line.lower().startswith(name)]


def _is_endless(handler: BaseHTTPRequestHandler) -> bool:
    """Tell whether a client would wait in vain for the end of the answer (RFC 9112 §6.3)."""
    if getattr(handler, "close_connection", True) or not isinstance(handler.wfile, _PLAIN_WRITERS):
        return False
    buffer: list[bytes] = getattr(handler, "_headers_buffer", [])
    if not buffer or not buffer[0].startswith(b"HTTP/"):
        return False
    status = buffer[0].split(None, 2)[1]
    if status.startswith(b"1") or status in (b"204", b"304") or handler.command == "HEAD":
        return False
    if handler.command == "CONNECT" and status.startswith(b"2"):
        return False
    names = {line.partition(b":")[0].lower() for line in buffer[1:]}
    return names.isdisjoint({b"content-length", b"transfer-encoding"})
