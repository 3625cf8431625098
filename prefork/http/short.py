"""Access lines for people: one short line for each request, in columns, as wide as the terminal.

A worker, in whichever thread logs a request. Text in, text out, but for a look
at the terminal once a second. It never returns a character that could steer it.
"""

import functools
import locale
import os
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from prefork.amounts import size_text
from prefork.columns import cut

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefork.http.access import Entry

_LONG_S: Final = 1.0  # from here on, the time that a request took is worth a word
_LEAST: Final = 12  # columns for the path, on however narrow a terminal
_CLIENT: Final = 15  # an IPv4 address
_WIDE: Final = 100  # columns, from which on clients have ten more: IPv6
_BESIDE: Final = 8 + 2 + 2 + 3 + 2 + 6 + 2  # columns of all but client and path
_PLAIN: Final = "\x1b[0m"
_COLOURS: Final = {"2": "\x1b[32m", "3": "\x1b[36m", "4": "\x1b[33m", "5": "\x1b[31m"}


def short_formatter(fd: int) -> "Callable[[Entry], str]":
    """Return what makes an entry a line, its end included.

    fd: where lines go. On a terminal they are cut to its width, and coloured
    unless NO_COLOR is set (https://no-color.org).
    """
    is_terminal = os.isatty(fd)
    has_colour = is_terminal and not os.environ.get("NO_COLOR")
    # In another encoding, bytes of UTF-8 are controls (0x9b begins a sequence, ECMA-48).
    is_ascii = is_terminal and locale.getencoding().lower() not in ("utf-8", "utf8")
    width_at = functools.lru_cache(1)(lambda _second: _width(fd) if is_terminal else 0)
    clock_at = functools.lru_cache(64)(
        lambda second: time.strftime("%H:%M:%S", time.localtime(second))
    )

    @functools.lru_cache(256)  # pairs; the same clients and statuses come again and again
    def middle(host: str, status: int | str, room: int) -> str:
        client = _fitted(_visible(host, is_ascii=is_ascii) or "-", room)
        text = f"{_visible(str(status), is_ascii=True):>3}"
        if has_colour:
            text = f"{_COLOURS.get(text[:1], '')}{text}{_PLAIN}"
        return f"{client:<{room or _CLIENT}}  {text}"

    def line(entry: "Entry") -> str:
        second = int(entry.time_s + entry.took_s)  # when it was over: so lines are in order
        width = width_at(second)
        room = 0 if not width else _CLIENT if width < _WIDE else _CLIENT + 10
        status, size = entry.status, entry.size
        said = middle(entry.host, int(status) if isinstance(status, int) else status, room)
        sent = size_text(size) if isinstance(size, int) else _visible(size, is_ascii=True)
        took = "" if entry.took_s < _LONG_S else f"  {_brief(entry.took_s)}"
        left = max(_LEAST, width - _BESIDE - room - len(took)) if width else 0
        what = _fitted(_visible(_what(entry), is_ascii=is_ascii), left)
        return f"{clock_at(second)}  {said}  {sent:>6}  {what}{took}\n"

    return line


def _what(entry: "Entry") -> str:
    """Return method and path, decoded; for what was no request, all that came."""
    if not entry.method:
        return entry.request_line or "-"
    target = entry.target
    if "%" in target or not target.isascii():
        # Handlers may hand on any text; what came from a client has characters for bytes.
        raw = target.encode("latin-1", "replace")
        target = unquote_to_bytes(raw).decode("utf-8", "backslashreplace")
    return f"{entry.method} {target}"


def _visible(text: str, *, is_ascii: bool) -> str:
    """Return text without characters that a terminal obeys, or that nobody sees."""
    if text.isprintable() and (text.isascii() or not is_ascii):
        return text
    return "".join(
        char if char.isprintable() and (char.isascii() or not is_ascii) else _escape(char)
        for char in text
    )


def _escape(char: str) -> str:
    if char.isascii():
        return f"\\x{ord(char):02x}"
    return char.encode("ascii", "backslashreplace").decode("ascii")


def _fitted(text: str, room: int) -> str:
    if not room or (len(text) <= room and text.isascii()):
        return text
    return cut(text, room)


def _brief(took_s: float) -> str:
    """Return a time in four or five characters."""
    if took_s < 9.95:
        return f"{took_s:.1f}s"
    whole = round(took_s)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def _width(fd: int) -> int:
    """Return the terminal's columns; 80 where it does not know them."""
    try:
        return os.get_terminal_size(fd).columns or 80
    except OSError:  # it has gone
        return 80
