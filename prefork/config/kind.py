"""The type of a setting, taken apart: its alternatives, its range in words, what may be "off".

Any process. Pure: annotations in, text out.
"""

import math
import types
import typing
from functools import cached_property
from typing import Annotated, Any, Final

import msgspec
from msgspec import NODEFAULT, Meta, Struct
from msgspec.structs import FieldInfo

from prefork.config.problems import quoted
from prefork.config.units import OFF, written_duration, written_size

_UNIONS: Final = (typing.Union, types.UnionType)
_BOUNDLESS: Final = 2**31 - 1  # from here on, a bound is the machine's and not worth a word

#: What people may write, by the form that `kinds` gives a type.
_FORMS: Final = types.MappingProxyType(
    {
        "path": "a path",
        "mode": "permissions such as 0o660",
        "object": '"module:NAME"',
        "token": 'a word such as "GET" or "Cache-Control"',
        "field value": "one line of printable characters",
        "media type": 'a type such as "text/plain"',
        "file name": "the name of a file",
        "URL path": 'a path such as "/cgi-bin"',
        "variable": 'the name of a variable such as "LANG"',
        "suffix": 'a suffix such as ".md"',
        "inner path": 'the path of a file below the folder, such as "404.html"',
        "host name": 'a name such as "files.example.org" or ".example.org", or "*"',
        "origin": 'an origin such as "https://app.example.org", or "*"',
        "network": 'an address or network such as "192.0.2.0/24", or "unix"',
        "address": 'an address such as "*:8000", "[::1]:8000", "unix:/PATH", "systemd:NAME"',
    }
)


class Kind:
    """One type. annotation: as in the schema. form: how people write it, see `kinds`."""

    def __init__(self, annotation: Any, inherited: dict[str, Any] | None = None) -> None:
        self.annotation = annotation
        self.extra: dict[str, Any] = dict(inherited or {})
        self.meaning = ""
        self.limits: dict[str, float] = {}
        base = annotation
        if typing.get_origin(base) is Annotated:
            base, *metas = typing.get_args(base)
            for meta in metas:
                self._take(meta)
        self.base = base

    def _take(self, meta: Meta) -> None:
        self.extra |= {k: v for k, v in (meta.extra or {}).items() if v not in (None, ())}
        self.meaning = meta.description or self.meaning
        for name in ("ge", "gt", "le", "min_length", "max_length"):
            if getattr(meta, name) is not None:
                self.limits[name] = getattr(meta, name)

    @property
    def form(self) -> str:
        """Return how people write it; "" as in TOML."""
        return str(self.extra.get("form", ""))

    @cached_property
    def alternatives(self) -> "list[Kind]":
        """Return what it may be besides None."""
        if typing.get_origin(self.base) not in _UNIONS:
            return [self]
        words = {k: v for k, v in self.extra.items() if k == "words"}
        inner = [a for a in typing.get_args(self.base) if a is not type(None)]
        return [Kind(annotation, words) for annotation in inner]

    @property
    def forms(self) -> set[str]:
        """Return how people write its alternatives."""
        return {kind.form for kind in self.alternatives}

    @property
    def may_be_none(self) -> bool:
        """Tell whether None is one of its values."""
        return type(None) in typing.get_args(self.base)

    @property
    def may_be_off(self) -> bool:
        """Tell whether it takes "off"."""
        return "off" in self.extra or (self.may_be_none and "unset" not in self.extra)

    @property
    def takes_text(self) -> bool:
        """Tell whether any text can be its value, not just certain words."""
        return any(kind.base in (str, Any) for kind in self.alternatives)

    @property
    def words(self) -> tuple[str, ...]:
        """Return the words that it takes as they are."""
        if typing.get_origin(self.base) is typing.Literal:
            return typing.get_args(self.base)
        return tuple(self.extra.get("words", ()))

    @property
    def struct(self) -> type[Struct] | None:
        """Return the class of its table form, if it has one."""
        for kind in self.alternatives:
            if isinstance(kind.base, type) and issubclass(kind.base, Struct):
                return kind.base
        return None

    @property
    def is_table(self) -> bool:
        """Tell whether it is a table and nothing else."""
        only_struct = self.struct is not None and len(self.alternatives) == 1
        return only_struct or self.items(dict) is not None

    def items(self, of: type, argument: int = -1) -> "Kind | None":
        """Return the type of what it holds, where it is a list or dict, as asked; else None.

        argument: 0 for the keys of a dict.
        """
        for kind in self.alternatives:
            if typing.get_origin(kind.base) is of:
                return Kind(typing.get_args(kind.base)[argument])
        return None

    def accepts(self, value: Any) -> bool:
        """Tell whether a plain value has this type and lies in its range."""
        if len(self.alternatives) > 1 or self.may_be_none:
            return any(kind.accepts(value) for kind in self.alternatives)
        # Part by part: given a pattern beside an array or table in a union, msgspec 0.19 to 0.22
        # takes another object for the pattern, and crashes.
        if typing.get_origin(self.base) in (list, dict):
            return self._accepts_all(value)
        try:
            msgspec.convert(value, self.annotation)
        except (msgspec.ValidationError, UnicodeError):  # the latter for PEP 383
            return False
        return True

    def _accepts_all(self, value: Any) -> bool:
        kinds = [Kind(argument) for argument in typing.get_args(self.base)]
        if not isinstance(value, typing.get_origin(self.base)):
            return False
        if isinstance(value, dict):
            keys, items = kinds
            return all(keys.accepts(k) and items.accepts(v) for k, v in value.items())
        least, most = self.limits.get("min_length", 0), self.limits.get("max_length", math.inf)
        return least <= len(value) <= most and all(kinds[0].accepts(item) for item in value)

    def expected(self) -> str:
        """Return what it takes, for people."""
        words = [word for kind in self.alternatives for word in kind._expected()]
        if self.may_be_off:
            words.append(quoted(OFF))
        return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"

    def _expected(self) -> list[str]:
        own = [quoted(word) for word in self.words]
        if typing.get_origin(self.base) is typing.Literal:
            return own
        return [*own, self._noun() + self.range()]

    def _noun(self) -> str:
        if self.form in _FORMS:
            return _FORMS[self.form]
        if self.struct is not None:
            fields = msgspec.structs.fields(self.struct)
            keys = [f"{info.name} = ..." for info in fields if info.required]
            return f"{{ {', '.join(keys)} }}" if len(fields) <= 3 else "a table"
        if typing.get_origin(self.base) is list:
            return f"an array, each item {Kind(typing.get_args(self.base)[0]).expected()}"
        if typing.get_origin(self.base) is dict:
            return "a table"
        nouns = {"duration": "a time", "size": "a size", "amount": "a number"}
        by_type = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
        return nouns.get(self.form) or by_type[self.base]

    def range(self) -> str:
        """Return the range in words, with an example of its form; "" for any."""
        write: Any = {"duration": written_duration, "size": written_size}.get(self.form, str)
        least, most = self.limits.get("ge"), self.limits.get("le")
        if self.form in _FORMS:
            return ""
        text = ""
        if "gt" in self.limits:
            text = f" above {self.limits['gt']:g}"
            text += f", up to {write(most)}" if most is not None else ""
        elif least is not None:
            bounded = most is not None and (most < _BOUNDLESS or self.form == "duration")
            text = f" from {least:g} to {write(most)}" if bounded else f", {least:g} or more"
        if self.form == "duration":
            return f'{text} (30, "30s", "5m", "1h")'
        sizes = self.form in ("size", "amount")
        return f'{text} (512, "512K", "512M", "1G")' if sizes else text


class Setting:
    """One key of a table."""

    def __init__(self, info: FieldInfo) -> None:
        self.name = info.name
        self.kind = Kind(info.type)
        self.default: Any = info.default
        if info.default_factory is not NODEFAULT:
            self.default = info.default_factory()

    @property
    def is_required(self) -> bool:
        """Tell whether it has no default."""
        return self.default is NODEFAULT

    @property
    def also(self) -> tuple[str, ...]:
        """Return what other programs call it."""
        return tuple(self.kind.extra.get("also", ()))

    @property
    def unset(self) -> str | None:
        """Return what it means to leave the key out, where that is None."""
        return self.kind.extra.get("unset")


def settings_of(table: type[Struct]) -> dict[str, Setting]:
    """Return the keys of a table, in the order of the schema."""
    return {info.name: Setting(info) for info in msgspec.structs.fields(table)}
