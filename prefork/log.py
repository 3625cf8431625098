"""Log lines of the form `event key=value`, through the stdlib's `logging`.

Every process. The library face never configures logging: a program that does
not either sees warnings and errors on stderr, as `logging` has it. The
command line calls `configure()`, the daemon `prefork.logs.configure()`.

Each record has the attributes `event`, its name, and `fields`, its values as
they were given, for handlers that write them in a form of their own.
"""

import logging
import re
from collections.abc import Mapping
from typing import Final

LOGGER: Final = logging.getLogger("prefork")
TEXT_FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"
TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%S%z"

_PLAIN: Final = re.compile(r"[^\s\"=\\\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
# Surrogates: bytes of a name that are no text (PEP 383). The separators end lines, too.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def event(level: int, name: str, **fields: object) -> None:
    """Log `name key=value ...`; level is one of `logging`'s.

    name: dotted, noun first (`worker.died`). Values that are not one plain
    word are quoted, control characters escaped: one event is always one line.
    """
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, "%s", line_of(name, fields), extra={"event": name, "fields": fields})


def debug(name: str, **fields: object) -> None:
    """Log what only a person who looks for a fault wants to see."""
    event(logging.DEBUG, name, **fields)


def info(name: str, **fields: object) -> None:
    """Log a milestone of normal life."""
    event(logging.INFO, name, **fields)


def warning(name: str, **fields: object) -> None:
    """Log a fault that was mended without help."""
    event(logging.WARNING, name, **fields)


def error(name: str, **fields: object) -> None:
    """Log a fault that someone should look at."""
    event(logging.ERROR, name, **fields)


def exception(name: str, **fields: object) -> None:
    """Log the exception being handled, the traceback in lines of its own."""
    extra = {"event": name, "fields": fields}
    LOGGER.exception("%s", line_of(name, fields), extra=extra)  # noqa: LOG004 # the caller is in one


def configure(level: int) -> None:
    """Send prefork's events of this level and above to stderr, with time and level."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(TEXT_FORMAT, TIME_FORMAT))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(level)
    LOGGER.propagate = False


def line_of(name: str, fields: Mapping[str, object]) -> str:
    """Return an event as one line of text."""
    return " ".join([name, *(f"{key}={_quote(str(value))}" for key, value in fields.items())])


def _quote(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{printable(text)}"'


def printable(text: str) -> str:
    """Return text as one line that cannot steer a terminal: the rest as escapes."""
    return _CONTROL.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
