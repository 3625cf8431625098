"""`${NAME}` in the strings of a config.

Any process. Pure: the environment is passed in.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from prefork.config.problems import WrongValueError, nearest
from prefork.config.toml import key_of

_MARK: Final = re.compile(
    r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^}]*)?\})?"
)
_EXPECTED: Final = "expected ${NAME}, ${NAME:-DEFAULT}, or $${ for the characters themselves"


class Expanded(str):
    """Text that had variables in it; it may stand for a number. names: of the variables."""

    __slots__ = ("names",)
    names: tuple[str, ...]


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Return text with the values of its variables; an Expanded where there are any.

    An empty variable counts as unset where there is a default, as in a shell.
    Raises: WrongValueError for an unset variable or a malformed one.
    """
    names: list[str] = []

    def value(found: re.Match[str]) -> str:
        name, default = found["name"], found["default"]
        if found[0] == "$${":
            return "${"
        if name is None or "${" in (default or ""):
            raise WrongValueError(f"a ${{ that names no variable, {_EXPECTED}")
        names.append(name)
        there = environ.get(name)
        if default is not None:
            return there or default[2:]
        if there is None:
            near = nearest(name, environ)
            raise WrongValueError(
                f"${{{name}}} is not set, expected a variable of the environment",
                None if near is None else f"${{{near}}}",
            )
        return there

    changed = _MARK.sub(value, text)
    if "\0" in changed:
        raise WrongValueError("a NUL character in it, expected text")
    if not names:
        return changed
    expanded = Expanded(changed)
    expanded.names = tuple(names)
    return expanded


def expand_all(
    value: Any, environ: Mapping[str, str]
) -> tuple[Any, list[tuple[str, WrongValueError]]]:
    """Return value with each string in it expanded, however deep, and what is wrong.

    The latter as (place below the value, error); such a string stays as it is.
    """
    wrong: list[tuple[str, WrongValueError]] = []

    def walk(inner: Any, place: str) -> Any:
        if isinstance(inner, list):
            return [walk(item, f"{place}[{index}]") for index, item in enumerate(inner)]
        if isinstance(inner, dict):
            return {key: walk(item, f"{place}.{key_of(key)}") for key, item in inner.items()}
        if isinstance(inner, str):
            try:
                return expand(inner, environ)
            except WrongValueError as error:
                wrong.append((place, error))
        return inner

    return walk(value, ""), wrong


def variables_of(value: Any) -> tuple[str, ...]:
    """Return the names of all variables that have been replaced in it."""
    if isinstance(value, list):
        return tuple(name for item in value for name in variables_of(item))
    if isinstance(value, dict):
        return tuple(name for item in value.values() for name in variables_of(item))
    return value.names if isinstance(value, Expanded) else ()
