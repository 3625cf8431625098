"""Plain values back in the form that people write: 30.0 becomes "30s", None "off".

Any process. Pure; the inverse of `values`.
"""

from typing import Any

from msgspec import Struct

from prefork.config.kind import Kind, settings_of
from prefork.config.toml import written
from prefork.config.units import OFF, written_duration, written_size


def text_of(kind: Kind, value: Any) -> str:
    """Return a value as TOML.

    value: one that this kind has; None only where that is "off".
    """
    if kind.may_be_off and value == kind.extra.get("off"):
        return written(OFF)
    if isinstance(value, list):
        inner = kind.items(list)
        return f"[{', '.join(text_of(inner, v) if inner else written(v) for v in value)}]"
    if isinstance(value, Struct):
        return _inline(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number(kind, value)
    return written(value)


def _number(kind: Kind, value: float) -> str:
    if "duration" in kind.forms:
        return written(written_duration(value))
    if "size" in kind.forms:
        size = written_size(int(value))
        return size if size.isdecimal() else written(size)
    return f"0o{value:03o}" if "mode" in kind.forms else written(value)


def _inline(struct: Struct) -> str:
    """Return a table on one line, without what is default."""
    pairs = [
        f"{name} = {text_of(setting.kind, getattr(struct, name))}"
        for name, setting in settings_of(type(struct)).items()
        if setting.is_required or getattr(struct, name) != setting.default
    ]
    return f"{{ {', '.join(pairs)} }}"
