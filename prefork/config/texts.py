"""Values that come from elsewhere: `${NAME}` from the environment, `KEY_file` from a file.

The master, before it serves, and whoever checks a config. It reads the files
that `KEY_file` names, and no other.
"""

from pathlib import Path
from typing import Any, Final

from prefork.config.expand import Expanded, variables_of
from prefork.config.problems import WrongValueError, quoted, shown
from prefork.config.sources import Leaf, Table, read_text

_SECRET_BYTES: Final = 1 << 20
_SUFFIX: Final = "_file"


class FromFile(str):
    """Text that a KEY_file has brought. path: of that file, absolute."""

    __slots__ = ("path",)
    path: str


def stem_of(name: str) -> str | None:
    """Return KEY of a KEY_file; None if it is none."""
    stem = name.removesuffix(_SUFFIX)
    return stem if stem and stem != name else None


def read_value(path: Path) -> FromFile:
    """Return a file's text without one line end at its end.

    Raises: WrongValueError.
    """
    text = read_text(path, _SECRET_BYTES)
    if "\0" in text:
        raise WrongValueError("there is a NUL character in that file, expected text")
    value = FromFile(text.removesuffix("\n").removesuffix("\r"))
    value.path = str(path)
    return value


def plain_of(node: Table | Leaf) -> Any:
    """Return a node as tomllib gave it."""
    if isinstance(node, Leaf):
        return node.value
    return {key: plain_of(inner) for key, inner in node.entries.items()}


def found(value: Any, *, is_secret: bool = False) -> str:
    """Return a value for a message, with who brought it; never what is in a secret file.

    is_secret: variables may hold secrets, too.
    """
    if isinstance(value, FromFile):
        return f"what is in {quoted(value.path)}"
    if is_secret and isinstance(value, Expanded):
        return f"what is in {origin(value)}"
    if isinstance(value, Expanded):
        return f"{shown(str(value))} by {origin(value)}"
    return shown(value)


def origin(value: Any) -> str:
    """Return who brought a value, besides the file of the config; "" for nobody."""
    if isinstance(value, FromFile):
        return value.path
    return ", ".join(f"${{{name}}}" for name in dict.fromkeys(variables_of(value)))
