"""What was probably meant by a value that a setting cannot have.

Any process. Pure.
"""

import re
from typing import Any, Final

import msgspec

from prefork.config.kind import Kind
from prefork.config.problems import WrongValueError, nearest, quoted, shown
from prefork.config.units import OFF, OFF_MEANT

#: What serves a folder: people name that where a handler is asked for.
_SHARE: Final = "prefork.share:ShareRequestHandler"
_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})
_DECIMAL_AND_OCTAL: Final = 7  # the last number that is the same in both


def hint_of(kind: Kind, value: Any) -> str | None:
    """Return what was probably meant, as it would be written; None: no idea."""
    word = str(value).lower() if isinstance(value, (str, int, float)) else ""
    words = [w for choice in kind.alternatives for w in choice.words]
    bases = [choice.base for choice in kind.alternatives]
    if word in OFF_MEANT or word == OFF:
        off = next((w for w in (OFF, "unlimited") if w in words), OFF if kind.may_be_off else None)
        if off is not None:
            return quoted(off)
    if bool in bases and word in _TRUE | _FALSE:
        return "true" if word in _TRUE else "false"
    if isinstance(value, str):
        return _hint_of_text(kind, value, words)
    if kind.takes_text and isinstance(value, (int, float)) and not isinstance(value, bool):
        return quoted(f"*:{value}" if "address" in kind.forms else str(value))
    return None


def _hint_of_text(kind: Kind, value: str, words: list[str]) -> str | None:
    if "path_key" in kind.extra and "/" in value:
        return repr(kind.extra["path_key"])
    if "mode" in kind.forms and re.fullmatch("(0o)?[0-7]{1,6}", value):
        return f"0o{int(value, 8):o}"
    near = nearest(value, words)
    if near is not None:
        return quoted(near)
    for choice in kind.alternatives:
        if choice.base in (int, float):
            try:
                number = msgspec.convert(value.strip(), choice.base, strict=False)
            except (msgspec.ValidationError, UnicodeError):  # the latter for PEP 383
                continue
            if choice.accepts(number):
                return shown(number)
    return None


def refuse_decimal_mode(kind: Kind, value: Any, key: str, text: str) -> None:
    """Raise WrongValueError where permissions are written without 0o.

    `umask = 22` is a number of TOML, but 0o26; what was written, only the text
    of the file tells.
    """
    decimal = "mode" in kind.forms and isinstance(value, int) and value > _DECIMAL_AND_OCTAL
    name = re.escape(key.rpartition(".")[2])
    if decimal and re.search(rf"\b{name}\s*=\s*{value}\b", text):
        octal = str(value) if set(str(value)) <= set("01234567") else f"{value:o}"
        raise WrongValueError("it is a decimal number", f"0o{octal}")


def refuse_other_names(value: str) -> None:
    """Raise WrongValueError, with what was meant, for what people write for module:NAME."""
    if ".py:" in value:
        raise WrongValueError("it names a file", quoted(value.replace(".py:", ":")))
    if "/" in value:
        raise WrongValueError("it is a path", quoted(_SHARE))
    head, _, tail = value.rpartition("." if ":" not in value else ":")
    meant = f"{head}:{tail}"
    if head and tail and meant != value:
        raise WrongValueError(hint=quoted(meant))
