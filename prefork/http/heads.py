"""The head of an answer, built faster: hooks that `adopt` puts in the place of the stdlib's.

A worker, in the thread of the handler. `_headers_buffer` stays what it is in
the stdlib: a list, the status line first, one item of bytes for each header.
Lines that recur are built once.
"""

import re
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

from prefork.http.response import Response

_Stdlib: Final = BaseHTTPRequestHandler
_LINE_ENDERS: Final = re.compile(r"[\r\n\0]")  # RFC 9110 §5.5
_ENTRIES: Final = 1024  # of each cache: 100 KiB


class _Cache:
    """Lines of heads that recur, built once; of this second, where they tell the time."""

    def __init__(self) -> None:
        self.headers: dict[tuple[str, str], tuple[bytes, str]] = {}
        self._statuses: dict[Any, tuple[bytes, bytes]] = {}
        self._second = 0
        self._date = b""

    def date(self) -> bytes:
        """Return the Date line of now (RFC 9110 §6.6.1)."""
        second = int(time.time())
        if second != self._second:
            self._date = b"Date: %b\r\n" % formatdate(second, usegmt=True).encode()
            self._second = second
        return self._date

    def header(self, keyword: Any, value: Any) -> tuple[bytes, str]:
        """Return a header's line, and its name if that name means something here.

        Raises: ValueError for CR, LF or NUL; UnicodeEncodeError.
        """
        plain = type(value) is str and type(keyword) is str  # 1 and True are one key
        if plain:
            found = self.headers.get((keyword, value))
            if found is not None:
                return found
        text = f"{keyword}: {value}"
        if _LINE_ENDERS.search(text):
            raise ValueError(f"CR, LF or NUL in the header {keyword!r}: {value!r}")
        name = keyword.lower()
        found = (
            f"{text}\r\n".encode("latin-1"),
            name if name in ("connection", "server", "date") else "",
        )
        if plain and len(text) < 256:
            if len(self.headers) >= _ENTRIES:
                self.headers.clear()
            self.headers[keyword, value] = found
        return found

    def status(self, handler: Any, code: Any, message: str | None) -> tuple[bytes, bytes]:
        """Return the status line, and the Server line.

        Raises: as `header()`.
        """
        key = (code, message, handler.protocol_version, handler.server_version, handler.sys_version)
        found = self._statuses.get(key)
        if found is not None:
            return found
        if message is None:
            message = handler.responses[code][0] if code in handler.responses else ""
        if _LINE_ENDERS.search(message):
            raise ValueError(f"CR, LF or NUL in the message of status {code:d}: {message!r}")
        line = f"{handler.protocol_version} {code:d} {message}\r\n".encode("latin-1")
        # White space at its end is none of it (RFC 9110 §5.5): `sys_version` may be empty.
        found = line, self.header("Server", handler.version_string().rstrip())[0]
        if len(self._statuses) >= _ENTRIES:
            self._statuses.clear()
        self._statuses[key] = found
        return found


_CACHE: Final = _Cache()
date_line: Final = _CACHE.date
status_lines: Final = _CACHE.status
header_line: Final = _CACHE.header


def send_response(self: Any, code: Any, message: str | None = None) -> None:
    """Put the status line, Server and Date into the buffer, and log the request."""
    members = self.__dict__
    if (
        "send_header" in members
        or "send_response_only" in members
        or "version_string" in members
        or "date_time_string" in members
        or "responses" in members
    ):
        _Stdlib.send_response(self, code, message)
        return
    self.log_request(code)
    status, server = _CACHE.status(self, code, message)
    lines = (status, server, _CACHE.date())
    buffer = members.get("_headers_buffer")
    if buffer is None:
        members["_headers_buffer"] = list(lines)
    else:
        buffer.extend(lines)


def send_header(self: Any, keyword: str, value: Any) -> None:
    """Put a header into the buffer.

    Raises: ValueError if it has a CR, LF or NUL in it.
    """
    try:
        line, name = _CACHE.headers[keyword, value]
    except (KeyError, TypeError):  # new, or not to be hashed
        line, name = _CACHE.header(keyword, value)
    try:
        buffer = self._headers_buffer
    except AttributeError:
        buffer = self._headers_buffer = []
    if name:
        if name != "connection":
            start = f"{name}:".encode()
            buffer[:] = [one for one in buffer if not one.lower().startswith(start)]
        elif value.lower() == "close":
            self.close_connection = True
        elif value.lower() == "keep-alive":
            self.close_connection = False
    buffer.append(line)


def end_headers(self: Any) -> None:
    """End the head, and send it."""
    members = self.__dict__
    if "flush_headers" in members:
        _Stdlib.end_headers(self)
        return
    buffer = self._headers_buffer
    buffer.append(b"\r\n")
    wfile, members["_headers_buffer"] = self.wfile, []
    if type(wfile) is Response:
        wfile.write_lines(buffer)
    else:
        wfile.write(b"".join(buffer))
