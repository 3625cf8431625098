"""`prefork show`: the settings in force as TOML, each with who says so; and the reference.

Any process. Pure: objects in, text out. It prints no secret: what came from a
`KEY_file`, or by `${NAME}` into `environment` or `handler_options`, is shown as
it is written in the config.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from prefork.config.forms import text_of
from prefork.config.kind import Setting, settings_of
from prefork.config.reference import reference, reference_markdown
from prefork.config.schema import Config
from prefork.config.toml import key_of

__all__ = ["reference", "reference_markdown", "show"]

_WIDEST: Final = 48  # where comments begin at most; a line that is longer has its own after it


def show(config: Config) -> str:
    """Return TOML that says every setting with its value and `# ORIGIN`.

    It can be read again: keys that are not set, and so have no value, are comments.
    """
    sections = [f"# {config.path}\n"]
    printer = _Printer(config)
    sections += printer.table("master", config.master)
    for name, server in config.servers.items():
        sections += printer.table(f"server.{key_of(name)}", server)
    # A name of a file or an environment may be no text (PEP 383).
    return os.fsencode("\n".join(sections)).decode("utf-8", "replace")


class _Printer:
    def __init__(self, config: Config) -> None:
        self._origins = config.origins
        self._as_written = config.as_written

    def table(self, key: str, struct: Struct) -> Iterator[str]:
        """Yield a table, and then those in it."""
        lines: list[tuple[str, str]] = []
        inner: list[str] = []
        for name, setting in settings_of(type(struct)).items():
            value = getattr(struct, name)
            at = f"{key}.{name}"
            if not setting.kind.is_table:
                lines.append(self._line(at, name, setting, value))
            elif isinstance(value, Struct):
                inner += self.table(at, value)
            elif value:
                inner.append(_section(at, self._entries(at, setting, value)))
        yield _section(key, lines)
        yield from inner

    def _line(self, at: str, name: str, setting: Setting, value: Any) -> tuple[str, str]:
        origin = self._origins.get(at) or self._origins.get(f"{at}.min", "default")
        if at in self._as_written:
            return self._as_written[at], origin
        if value is None and not setting.kind.may_be_off:
            return f"# {name}", f"{origin}: {setting.unset}"
        return f"{name} = {text_of(setting.kind, value)}", origin

    def _entries(
        self, at: str, setting: Setting, table: Mapping[str, Any]
    ) -> Iterator[tuple[str, str]]:
        kind = setting.kind.items(dict) or setting.kind
        for name, value in table.items():
            key = f"{at}.{key_of(name)}"
            line = self._as_written.get(key, f"{key_of(name)} = {text_of(kind, value)}")
            yield line, self._origins.get(key, "default")


def _section(key: str, lines: Any) -> str:
    pairs = list(lines)
    fitting = [len(line) for line, _ in pairs if len(line) <= _WIDEST]
    width = max(fitting, default=0)
    body = "".join(f"{line:<{width}}  # {' '.join(o.split())}\n" for line, o in pairs)
    return f"[{key}]\n{body}"
