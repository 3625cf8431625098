"""The heads of WSGI's answers: what an application says, checked and put into bytes once.

A worker, in the thread of the handler. It never sends anything.
"""

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from wsgiref.util import is_hop_by_hop

from prefork.http.grammar import TOKEN
from prefork.http.heads import date_line, header_line, status_lines

_PLANS_MOST: Final = 1024  # of some 500 bytes
_LINES_MOST: Final = 1024  # of some 300 bytes
_STATUS: Final = re.compile(r"([2-9][0-9]{2})(?: ([^\0-\x08\x0a-\x1f\x7f]*))?")  # RFC 9112 §4
_NAME: Final = re.compile(TOKEN)
_CONTROL: Final = re.compile(r"[\0-\x08\x0a-\x1f\x7f]")  # RFC 9110 §5.5; a tab may be
_BODILESS: Final = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
#: Headers that mean something here; what a line is read for.
_TELLING: Final = frozenset({"content-length", "date", "server"})

_Headers = list[tuple[str, str]]


@dataclass(slots=True)
class Plan:
    """A head without its date.

    before, after: what stands around it. length: Content-Length, None if the
    application has not said. dated: the application has said the date.
    bodiless: no body may follow. recent: the date it was sent with last, and all.
    """

    code: int
    before: bytes
    after: bytes
    length: int | None
    dated: bool
    bodiless: bool
    recent: tuple[bytes, bytes] = (b"", b"")

    def head(self) -> bytes:
        """Return the head."""
        date = date_line()
        then, head = self.recent
        if then is not date:
            head = b"%b%b%b\r\n" % (self.before, b"" if self.dated else date, self.after)
            self.recent = date, head
        return head

    def lines(self) -> bytes:
        """Return the head without its empty line."""
        return self.head()[:-2]


class Plans:
    """Those of one engine: the same head comes again and again, and the same header in others."""

    def __init__(self) -> None:
        #: The one asked for last. One attribute: threads may ask at once.
        self._last: tuple[str, _Headers, Plan] | None = None
        self._plans: dict[tuple[str, tuple[tuple[str, str], ...]], Plan] = {}
        self._lines: dict[tuple[str, str], tuple[bytes, str]] = {}

    def find(self, handler: Any, status: str, headers: _Headers) -> Plan:
        """Return the plan of a head.

        Raises: TypeError, ValueError, UnicodeEncodeError for what is none.
        """
        last = self._last
        # To compare costs a tenth of what it costs to hash.
        if last is not None and headers == last[1] and status == last[0]:
            return last[2]
        if type(headers) is not list:
            raise TypeError(f"headers must be a list, not {type(headers).__name__}")
        key = status, tuple(headers)
        try:
            found = self._plans.get(key)
        except TypeError:
            found = None  # not to be hashed: `_read()` says what it should be
        if found is None:
            found = self._read(handler, status, headers)
            if len(self._plans) >= _PLANS_MOST:
                self._plans.clear()
            if len(found.after) < 1 << 10:
                self._plans[key] = found
        self._last = status, headers.copy(), found
        return found

    def _read(self, handler: Any, status: str, headers: _Headers) -> Plan:
        found = _STATUS.fullmatch(status) if isinstance(status, str) else None
        if found is None:
            raise ValueError(f"{status!r} is no status: expected three digits and a reason")
        code = int(found[1])
        status_line, server_line = status_lines(handler, code, found[2] or "")
        lines: list[bytes] = []
        length, dated = None, False
        for header in headers:
            line, key = self.line(header)
            if key == "content-length":
                if code == HTTPStatus.NO_CONTENT:
                    continue  # RFC 9110 §8.6
                length = _length(header[1], length)
            elif key == "date":
                dated = True
            elif key == "server":
                server_line = b""
            lines.append(line)
        before, after = status_line + server_line, b"".join(lines)
        return Plan(code, before, after, length, dated, code in _BODILESS)

    def line(self, header: tuple[str, str]) -> tuple[bytes, str]:
        """Return a header's line, and its name if that is one of _TELLING.

        Raises: as `find()`.
        """
        try:
            known = self._lines.get(header)
        except TypeError:
            known = None  # not to be hashed: `_make_line()` says what it should be
        return known or self._make_line(header)

    def _make_line(self, header: tuple[str, str]) -> tuple[bytes, str]:
        if not isinstance(header, tuple) or len(header) != 2:
            raise TypeError(f"{header!r} is no header: expected a tuple of name and value")
        name, value = header
        if not (isinstance(name, str) and isinstance(value, str)):
            raise TypeError(f"{header!r} is no header: name and value must be of type str")
        if is_hop_by_hop(name):
            raise ValueError(f"the header {name} is the server's affair (PEP 3333), not {value!r}")
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} cannot be the name of a header (RFC 9110 §5.1)")
        if _CONTROL.search(value):
            raise ValueError(f"a control character in the header {name!r}: {value!r}")
        # An enumeration's members are equal to their values, but are formatted in another way.
        name, value = str.__str__(name), str.__str__(value)
        key = name.lower()
        found = header_line(name, value)[0], key if key in _TELLING else ""
        if len(self._lines) >= _LINES_MOST:
            self._lines.clear()
        if len(found[0]) < 1 << 8:
            self._lines[header] = found
        return found


def _length(value: str, before: int | None) -> int:
    if not (value.isascii() and value.isdecimal() and len(value) <= 18):
        raise ValueError(f"Content-Length must be a number, not {value!r}")
    if before not in (None, int(value)):
        raise ValueError(f"two Content-Lengths: {before} and {value}")
    return int(value)
