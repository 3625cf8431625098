"""Log records as text, and as JSON.

Every process that logs. Nothing here writes.
"""

import json
import logging
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from prefork import log

_OURS: Final = frozenset({"time", "level", "event", "logger", "process", "message", "exception"})
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")


class Text(logging.Formatter):
    """One line for each record, tracebacks below: what `prefork.log` says, with time and level.

    stamped: with time and level; False where somebody else keeps these.
    """

    def __init__(self, *, stamped: bool = True) -> None:
        super().__init__(log.TEXT_FORMAT if stamped else "%(message)s", log.TIME_FORMAT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 # logging's name
        """Return the line; another program's message becomes one, with its logger's name."""
        if event_of(record)[0] is None:
            record.message = f"{record.name}: {log.printable(record.message)}"
        return super().formatMessage(record)


class Json(logging.Formatter):
    """One JSON object in ASCII for each record, with its fields as members.

    `time` (RFC 3339), `level`, `event` (`logger` and `message`, if it is not
    prefork's), `process`, and `exception` with its traceback are always these;
    a field of such a name gets a `_` behind it.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the object."""
        moment = datetime.fromtimestamp(record.created, UTC).astimezone()
        members: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": record.process,
        }
        name, fields = event_of(record)
        if name is None:
            members |= {"logger": record.name, "message": _sound(record.getMessage())}
        else:
            members["event"] = name
            for key, value in fields.items():
                members[f"{key}_" if key in _OURS else key] = _json_value(value)
        if record.exc_info:
            members["exception"] = _sound(self.formatException(record.exc_info))
        return json.dumps(members, separators=(",", ":"))


def new_record(level: int, name: str, fields: Mapping[str, object]) -> logging.LogRecord:
    """Return a record of our own, which has not come through a logger."""
    line = log.line_of(name, fields)
    record = logging.LogRecord(log.LOGGER.name, level, __file__, 0, line, None, None)
    record.__dict__.update(event=name, fields=fields)
    return record


def event_of(record: logging.LogRecord) -> tuple[str | None, Mapping[str, object]]:
    """Return a record's event, None if it is not one of `prefork.log`'s, and its fields."""
    if record.name != log.LOGGER.name:
        return None, {}  # whatever its attributes mean
    return getattr(record, "event", None), getattr(record, "fields", {})


def severity_of(level: int) -> int:
    """Return syslog's number for a level (RFC 5424 §6.2.1)."""
    for least, severity in ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4)):
        if level >= least:
            return severity
    return 6 if level >= logging.INFO else 7


def _json_value(value: object) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):  # others are no JSON
        return value
    return _sound(str(value))


def _sound(text: str) -> str:
    """Return text without lone surrogates, which many readers of JSON refuse."""
    return _SURROGATE.sub(lambda found: log.printable(found[0]), text)
