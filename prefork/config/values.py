"""One value of a config against the type of its setting: what it means, or what is wrong.

Any process. Pure. msgspec checks types and ranges; this brings the forms that
people write ("512M", "off").
"""

import math
import re
from pathlib import Path
from typing import Any, Final

import msgspec

from prefork.config.addresses import parse_address
from prefork.config.expand import Expanded
from prefork.config.hints import hint_of, refuse_other_names
from prefork.config.kind import Kind
from prefork.config.problems import WrongValueError, nearest, quoted
from prefork.config.units import OFF, parse_duration, parse_size
from prefork.http.forwarded import Networks

_OCTAL: Final = re.compile("(0o)?[0-7]{1,6}")


def read(kind: Kind, value: Any, folder: Path) -> Any:
    """Return the plain value: a number, a bool, text, or None.

    value: neither an array nor a table. folder: where relative paths begin.
    Raises: WrongValueError.
    """
    if isinstance(value, Expanded) and not kind.takes_text:
        value = _from_text(kind, value)
    if isinstance(value, str) and value == OFF and kind.may_be_off:
        return kind.extra.get("off")
    wrong: WrongValueError | None = None
    for choice in kind.alternatives:
        try:
            formed = _formed(choice, value, folder)
        except WrongValueError as error:
            wrong = wrong or error
            continue
        if _is_finite(formed) and choice.accepts(formed):
            return str(formed) if isinstance(formed, str) else formed
    hint = hint_of(kind, value)
    if wrong is None or (wrong.hint is None and not wrong.reason):
        raise WrongValueError(hint=hint)
    raise WrongValueError(wrong.reason, hint if hint == quoted(OFF) else wrong.hint or hint)


def _formed(kind: Kind, value: Any, folder: Path) -> Any:
    """Return the value without the form people write it in."""
    if not isinstance(value, str):
        return float(value) if kind.base is float and _is_number(value) else value
    match kind.form:
        case "duration":
            return parse_duration(value)
        case "size" | "amount":
            return parse_size(value)
        case "path":
            return _path(kind, value, folder)
        case "address":
            return _address(value, folder)
        case "network":
            try:
                Networks([value])
            except ValueError as error:
                raise WrongValueError(str(error)) from None
        case "object":
            refuse_other_names(value)
    return value


def _path(kind: Kind, value: str, folder: Path) -> str:
    if value in kind.words:
        return value
    if value == "~" or value.startswith("~/"):
        raise WrongValueError("~ is not expanded", quoted("${HOME}" + value[1:]))
    if kind.words and "/" not in value:  # "stdout" is no file
        near = nearest(value, kind.words)
        meant = near or (f"./{value}" if "." in value else None)
        raise WrongValueError("a path has a / in it here", meant and quoted(meant))
    return str(folder / value) if value else value


def _address(value: str, folder: Path) -> str:
    address = parse_address(value)
    if address.is_path:
        return str(parse_address(f"unix:{folder / address.name}"))
    return str(address)


def _from_text(kind: Kind, value: Expanded) -> Any:
    """Return a variable's text as the number or bool that the setting is."""
    if "mode" in kind.forms and _OCTAL.fullmatch(value):
        return int(value, 8)
    for choice in kind.alternatives:
        if choice.base in (int, float, bool):
            try:
                return msgspec.convert(str(value), choice.base, strict=False)
            except (msgspec.ValidationError, UnicodeError):  # the latter for PEP 383
                continue
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
