"""Reads the head of what a script answers (RFC 3875 §6): bytes in, an `Answer` or an error out.

A worker, for each request to a script. It never touches a pipe or a client.
"""

import re
from http import HTTPStatus
from typing import Final, NamedTuple

# Compiled, by `re`'s cache, when there is a script: most servers have none.
_END: Final = rb"\r?\n\r?\n"
# §6.3: no white space before the colon, no continuation lines. Lines may end in LF, §6.2.
_FIELD: Final = rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[ \t]*+([\t\x20-\x7e\x80-\xff]*+)"
_STATUS: Final = r"([2-5][0-9]{2})(?: ++(.*))?"  # §6.3.3
_STATUS_LINE: Final = rb"HTTP/1\.[0-9] ([1-5][0-9]{2})[ \r\n]"

#: The server's own affair (§6.3.4).
_DROPPED: Final = frozenset({"connection", "keep-alive", "proxy-connection", "te", "upgrade"})
_ONCE: Final = frozenset({"status", "location", "content-type", "content-length"})
_LENGTH_DIGITS: Final = 18  # below 2**63
_QUOTED: Final = 80  # bytes of a wrong line, for the log


class OutputError(Exception):
    """The script is at fault: it says what is no answer."""


class Answer(NamedTuple):
    """What a script wants to be sent. reason: "" means the status' own phrase.

    redirect: the path and query that the server shall answer instead (§6.2.2),
    or "". fields: name and value, in their order, without Status.
    """

    status: int
    reason: str
    fields: tuple[tuple[str, str], ...]
    redirect: str = ""

    def with_length(self, size: int) -> "Answer":
        """Return it with a Content-Length, if it lacks one and may have it (RFC 9110 §8.6)."""
        said = any(name.lower() == "content-length" for name, _ in self.fields)
        if said or self.redirect or self.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            return self
        return self._replace(fields=(*self.fields, ("Content-Length", str(size))))


class HeadReader:
    """most_bytes: of a head, its empty line included.

    follows: a program wants `200 Script output follows`, whatever the script
    says; Status and Location are fields as any other then.
    """

    def __init__(self, most_bytes: int, *, follows: bool = False) -> None:
        self._most_bytes = most_bytes
        self._follows = follows
        self._data = b""

    def feed(self, data: bytes) -> tuple[Answer, bytes] | None:
        """Return the answer and the beginning of its body, when the head is complete.

        Raises: OutputError.
        """
        seen = max(0, len(self._data) - 3)  # the end may have come in two pieces
        self._data += data
        found = re.compile(_END).search(self._data, seen)
        if self._data[:1] == b"\n" or self._data[:2] == b"\r\n":
            raise OutputError("it begins with an empty line, without a header before")
        if (len(self._data) if found is None else found.end()) > self._most_bytes:
            raise OutputError(f"its headers are longer than {self._most_bytes} bytes")
        if found is None:
            return None
        fields = [_read_field(line) for line in self._data[: found.start()].split(b"\n")]
        return self._answer(fields), self._data[found.end() :]

    def close(self) -> None:
        """Take note that the output is at its end.

        Raises: OutputError, for the head is not complete.
        """
        if self._data:
            raise OutputError(f"it ended within its headers: {_shown(self._data)}")
        raise OutputError("it has said nothing")

    def _answer(self, fields: list[tuple[str, str]]) -> Answer:
        known: dict[str, str] = {}
        for name, value in fields:
            key = name.lower()
            if key in known and key in _ONCE:
                raise OutputError(f"it says {name} twice")
            known[key] = value
        if "transfer-encoding" in known:
            raise OutputError("it says Transfer-Encoding, which is the server's affair")
        length = known.get("content-length", "0")
        if not (length.isascii() and length.isdecimal() and len(length) <= _LENGTH_DIGITS):
            raise OutputError(f"its Content-Length is {known['content-length']!r}")
        kept = tuple((n, v) for n, v in fields if n.lower() not in _DROPPED)
        if self._follows:
            return Answer(HTTPStatus.OK, "Script output follows", kept)
        return _with_status(known, tuple(pair for pair in kept if pair[0].lower() != "status"))


def status_of(data: bytes) -> int:
    """Return the status of an answer that a script gives by itself; 0 if it has none."""
    found = re.match(_STATUS_LINE, data)
    return int(found[1]) if found else 0


def _with_status(known: dict[str, str], fields: tuple[tuple[str, str], ...]) -> Answer:
    location = known.get("location", "")
    said = known.get("status")
    if said is None:
        # Whoever adds a cookie wants the client to have it: a redirect for the client.
        if len(fields) == 1 and location[:1] == "/" and location[:2] != "//":
            return Answer(HTTPStatus.OK, "", (), location)
        return Answer(HTTPStatus.FOUND if location else HTTPStatus.OK, "", fields)
    found = re.fullmatch(_STATUS, said)
    if found is None:
        raise OutputError(f"its Status is {said[:_QUOTED]!r}")
    return Answer(int(found[1]), found[2] or "", fields)


def _read_field(line: bytes) -> tuple[str, str]:
    found = re.fullmatch(_FIELD, line.removesuffix(b"\r"))
    if found is None:
        raise OutputError(f"a line of its headers is none: {_shown(line)}")
    return found[1].decode("latin-1"), found[2].rstrip(b" \t").decode("latin-1")


def _shown(data: bytes) -> str:
    return repr(data[:_QUOTED].decode("latin-1"))
