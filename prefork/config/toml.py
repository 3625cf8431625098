"""Values as TOML writes them. The stdlib reads TOML and does not write it.

Any process. Pure.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from prefork.config.problems import quoted

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def key_of(*names: str) -> str:
    """Return a dotted key; names that are no bare words are quoted."""
    return ".".join(n if _BARE.fullmatch(n) else quoted(n) for n in names)


def written(value: Any, *, raw: bool = False) -> str:
    """Return a value on one line.

    raw: text has its variables as ${NAME} in it; if not, a "${" in it stands for itself.
    """
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return quoted(value if raw else value.replace("${", "$${"))
        case Mapping():
            inner = ", ".join(f"{key_of(k)} = {written(v, raw=raw)}" for k, v in value.items())
            return f"{{ {inner} }}" if inner else "{}"
        case list() | tuple():
            return f"[{', '.join(written(item, raw=raw) for item in value)}]"
        case int() | float():
            return repr(value)
    return str(value.isoformat())  # a date or time, the last of TOML's types
