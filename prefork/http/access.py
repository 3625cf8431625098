"""The access log: one line for each request, written in batches.

A worker: its loop, and handlers on its threads. Several workers may write to
one file or pipe. It never raises for what a client sent or a disk did, never
opens or closes a descriptor, and never writes a control character of a client's.
"""

import errno
import functools
import json
import os
import re
import select
import stat
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any, Final, NamedTuple

from prefork import log
from prefork.http.short import short_formatter

FORMATS: Final = ("off", "common", "combined", "json", "short")

_BATCH_BYTES: Final = 32 * 1024  # then add() flushes itself
_WRITE_BYTES: Final = 64 * 1024  # one write, unless one line is longer
_WAITING_BYTES: Final = 1024 * 1024  # what a slow reader may leave in memory
_LAST_WAIT_S: Final = 1.0  # what close() grants a slow reader
_SECONDS_CACHED: Final = 64  # requests are logged at their end, by when they began

# All but printable ASCII without quote and backslash.
_UNSAFE: Final = re.compile(r"[^ !#-\[\]-~]")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_NUMBER: Final = re.compile(r"[0-9]{1,18}")


class Entry(NamedTuple):
    """One request; a tuple, for a frozen dataclass takes several times as long to make.

    host: the client's address. user: "" if nobody. status: "-" if none was
    sent. size: bytes of the body that were sent, "-" if unknown. time_s: when
    the request came, seconds of `time.time()`. took_s: until its end. method,
    target, version: the parts of request_line, "" where that is malformed.
    """

    host: str
    user: str
    request_line: str
    status: int | str
    size: int | str
    time_s: float
    took_s: float
    referer: str
    user_agent: str
    method: str
    target: str
    version: str


def open_log(kind: str | None, fd: int) -> "AccessLog | None":
    """Return the log of a server with this setting, if it keeps one itself."""
    if kind in (None, "off"):
        return None
    try:
        return AccessLog(fd, kind)
    except OSError:
        return None  # a program without a stderr has nowhere to be told so


class AccessLog:
    """Lines on their way to a descriptor, which stays its owner's.

    fd: a file opened with O_APPEND, so that the lines of several processes
    stay whole, a pipe, or a socket. format: one of FORMATS.
    Whoever has it calls flush() once per turn or second, and close() at the
    worker's end. Any thread may call any method.
    Raises: ValueError for an unknown format, OSError if fd is not open.
    """

    def __init__(self, fd: int, format: str) -> None:  # noqa: A002 # the log module's name for it
        if format not in FORMATS:
            raise ValueError(f"access log format {format!r}: write one of {', '.join(FORMATS)}")
        self._format = short_formatter(fd) if format == "short" else _formatter(format)
        self._adding = threading.Lock()  # guards these two
        self._lines: list[str] = []
        self._lines_bytes = 0
        self._writing = threading.Lock()  # guards the rest; taken before _adding, never after it
        self._waiting = bytearray()
        self._torn = False  # the last byte written was no line end
        self._lost_lines = 0
        self._lost_why = ""
        self._attach(fd)

    def add(self, entry: Entry) -> None:
        """Take note of a request; 32 KiB of lines are flushed at once."""
        if self._format is None:
            return
        line = self._format(entry)
        with self._adding:
            self._lines.append(line)
            self._lines_bytes += len(line)
            full = self._lines_bytes >= _BATCH_BYTES
        if full:
            self.flush()

    def flush(self) -> None:
        """Write what there is: one write, or one for each 64 KiB, 4 KiB where fd is a pipe.

        A pipe or socket that is full is not waited for: its lines stay here,
        up to 1 MiB, until the next time. What a full disk or a dead reader
        refuses is dropped, and the number of lines logged when writing works again.
        """
        if self._lines or self._waiting:
            self._flush(0.0)

    def is_in_use(self) -> bool:
        """Tell whether a thread is adding or writing: a signal handler would wait for ever."""
        return self._adding.locked() or self._writing.locked()

    def close(self) -> None:
        """Flush, waiting up to a second for a slow reader, and log what is lost.

        The descriptor stays open.
        """
        self._flush(_LAST_WAIT_S)
        with self._writing:
            if self._waiting:
                self._drop("EAGAIN")
            lost = self._take_lost()
        _tell(lost)

    def reopen(self, fd: int) -> None:
        """Write what there is to the old descriptor, and everything later to fd.

        Nothing is closed. What the old one does not take now goes to the new one.
        Raises: OSError if fd is not open; the old one stays in use.
        """
        self.flush()
        with self._writing:
            self._attach(fd)
            if self._torn:  # the beginning of this line is in the old one
                rest, _, self._waiting = self._waiting.partition(b"\n")
                if rest:
                    self._lost_lines += 1
                    self._lost_why = "reopened"
                self._torn = False

    def _attach(self, fd: int) -> None:
        if self._format is None:
            return
        mode = os.fstat(fd).st_mode
        self._fd = fd
        self._poll = None if stat.S_ISREG(mode) else select.poll()
        if self._poll is not None:
            self._poll.register(fd, select.POLLOUT)
        # More than PIPE_BUF mixes with the lines of other processes once the pipe is full, and
        # may block although there was room for some (pipe(7)).
        self._write_bytes = select.PIPE_BUF if stat.S_ISFIFO(mode) else _WRITE_BYTES

    def _flush(self, wait_s: float) -> None:
        lost = None
        with self._writing:
            if self._torn and not self._waiting:  # the rest of that line was dropped
                self._waiting += b"\n"
            with self._adding:
                # Never in a local alone: a signal handler may raise, and the lines be lost.
                self._waiting += "".join(self._lines).encode()
                self._lines.clear()
                self._lines_bytes = 0
            if self._write_waiting(time.monotonic() + wait_s):
                lost = self._take_lost()
            self._keep_oldest()
        _tell(lost)

    def _write_waiting(self, deadline_s: float) -> bool:
        """Write until nothing waits or no more is taken; tell whether writing works."""
        works = False
        while self._waiting:
            if self._poll is not None:
                left_s = max(0.0, deadline_s - time.monotonic())
                if not self._poll.poll(left_s * 1000):
                    break
            try:
                self._write_piece()
            except BlockingIOError:
                if time.monotonic() >= deadline_s:
                    break
            except OSError as error:  # full disk, dead reader: requests matter more than lines
                self._drop(errno.errorcode.get(error.errno or 0, str(error)))
                return False
            else:
                works = True
        return works

    def _write_piece(self) -> None:
        end = len(self._waiting)
        if end > self._write_bytes:
            end = self._waiting.rfind(b"\n", 0, self._write_bytes) + 1
            end = end or self._waiting.find(b"\n") + 1
        written = os.write(self._fd, self._waiting[:end])
        if written:
            self._torn = self._waiting[written - 1] != 0x0A
            del self._waiting[:written]

    def _keep_oldest(self) -> None:
        if len(self._waiting) > _WAITING_BYTES:
            end = self._waiting.rfind(b"\n", 0, _WAITING_BYTES) + 1
            self._lost_lines += self._waiting.count(b"\n", end)
            self._lost_why = "EAGAIN"
            del self._waiting[end:]

    def _drop(self, why: str) -> None:
        # A line end that stands first ends a line whose text is written, or counted before.
        self._lost_lines += self._waiting.count(b"\n", 1)
        self._lost_why = why
        self._waiting.clear()

    def _take_lost(self) -> tuple[int, str]:
        lost, self._lost_lines = self._lost_lines, 0
        return lost, self._lost_why


def _tell(lost: tuple[int, str] | None) -> None:
    """Log lost lines; no lock is held, for a logging handler may take its time."""
    if lost and lost[0]:
        log.warning("access_log.lines_lost", lines=lost[0], reason=lost[1])


def _formatter(format: str) -> Callable[[Entry], str] | None:  # noqa: A002 # as above
    """Return what makes an entry a line of ASCII, its end included; None for `off`."""
    if format == "json":
        return _json_formatter()
    if format == "off":
        return None
    clf_time = functools.lru_cache(_SECONDS_CACHED)(_clf_time)

    def common(entry: Entry) -> str:
        host, user, request_line, status, size, time_s, *_ = entry
        return (
            f"{_word(host)} - {_word(user)} {clf_time(int(time_s))}"
            f' "{_quotable(request_line)}" {_figure(status)} {_figure(size or "-")}'
        )

    if format == "common":
        return lambda entry: common(entry) + "\n"
    return lambda entry: (
        f'{common(entry)} "{_quotable(entry.referer)}" "{_quotable(entry.user_agent)}"\n'
    )


def _json_formatter() -> Callable[[Entry], str]:
    rfc3339_time = functools.lru_cache(_SECONDS_CACHED)(_rfc3339_time)
    encode = json.JSONEncoder(separators=(",", ":")).encode

    def line(entry: Entry) -> str:
        second = int(entry.time_s)
        date, offset = rfc3339_time(second)
        members: dict[str, Any] = {
            "time": f"{date}.{int((entry.time_s - second) * 1000):03}{offset}",
            "host": _text(entry.host),
            "user": _text(entry.user),
            "method": _text(entry.method),
            "target": _text(entry.target),
            "version": _text(entry.version),
            "status": _number(entry.status),
            "size": _number(entry.size),
            "took_s": round(entry.took_s, 6),
            "referer": _text(entry.referer),
            "user_agent": _text(entry.user_agent),
        }
        if not entry.method:
            members["request_line"] = _text(entry.request_line)
        return encode(members) + "\n"

    return line


def _clf_time(second: int) -> str:
    """Return local time in Apache's form, in English in any locale."""
    _, day, month, year, clock, offset = formatdate(second, localtime=True).split()
    return f"[{day}/{month}/{year}:{clock} {offset}]"


def _rfc3339_time(second: int) -> tuple[str, str]:
    """Return local date and time, and the offset that follows the fraction (RFC 3339 §5.6)."""
    text = datetime.fromtimestamp(second, UTC).astimezone().isoformat()
    return text[:19], text[19:]


def _quotable(text: str) -> str:
    """Return text as it can stand between quotes, "-" if empty."""
    # Printable ASCII is what may stay, and these four are faster than one expression.
    if text.isprintable() and text.isascii() and '"' not in text and "\\" not in text:
        return text or "-"
    return _UNSAFE.sub(_escape, text)


def _word(text: str) -> str:
    """Return text as one word, "-" if empty."""
    return _quotable(text).replace(" ", "\\x20")


def _figure(value: int | str) -> str:
    """Return what handlers pass as status or size."""
    return f"{value:d}" if isinstance(value, int) else _word(value)


def _escape(found: re.Match[str]) -> str:
    char = found[0]
    if char in '"\\':
        return f"\\{char}"
    # Characters are bytes of the request; what is more comes from a handler, as UTF-8. Bytes of
    # names that are no text (PEP 383) are themselves, other surrogates a question mark.
    encoding = "latin-1" if char <= "\xff" else "utf-8"
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return "".join(f"\\x{byte:02x}" for byte in char.encode(encoding, "replace"))


def _text(text: str) -> str | None:
    """Return text as JSON has it, None if empty; a lone surrogate is refused by many readers."""
    if not text.isascii():
        text = _SURROGATE.sub(_unsurrogate, text)
    return text or None


def _unsurrogate(found: re.Match[str]) -> str:
    """Return a byte that was no text (PEP 383) as the others stand here, the rest as U+FFFD."""
    code = ord(found[0]) - 0xDC00
    return chr(code) if 0x80 <= code <= 0xFF else "\ufffd"


def _number(value: int | str) -> int | None:
    """Return what handlers pass as status or size as a number, None if it is none."""
    if isinstance(value, int):
        return int(value)  # HTTPStatus is one, too
    return int(value) if _NUMBER.fullmatch(value) else None
