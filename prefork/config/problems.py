"""What a person got wrong in a config, said so that it can be mended: all of it at once.

Any process before serving. It words and collects; what is wrong is decided by
who reads.
"""

import difflib
import json
from collections.abc import Iterable, Sequence
from typing import Final

from prefork.errors import PreforkError

_SHOWN: Final = 60  # characters of a value in a message: enough to recognise it
_LIKE: Final = 0.7  # difflib's 0.6 takes "uid" for "path"


class ConfigError(PreforkError):
    """Everything that is wrong with a config, one line each.

    problems: the lines, as `FILE: KEY: what was found, what was expected`.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class WrongValueError(ValueError):
    """A value that a setting cannot have.

    reason: what is wrong with it in particular. hint: what was probably meant,
    as it would be written.
    """

    def __init__(self, reason: str = "", hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


def did_you_mean(hint: str | None) -> str:
    """Return the end of a message."""
    return "" if hint is None else f"; did you mean {hint}?"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of the names that was probably meant, if any."""
    by_plain = {plain(other): other for other in names}
    found = difflib.get_close_matches(plain(name), by_plain, 1, _LIKE)
    return by_plain[found[0]] if found else None


def plain(name: str) -> str:
    """Return a name without what people vary: case, dashes."""
    return name.lower().replace("-", "_").strip()


def shown(value: object) -> str:
    """Return a value for a message: as it would be written, cut where it is long."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = quoted(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def quoted(text: str) -> str:
    """Return text as a basic string of TOML, which JSON's is but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
