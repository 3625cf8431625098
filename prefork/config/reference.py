"""The reference: every key there is, with its type, unit, default and meaning.

Any process. Pure; it is made of the schema, so that it cannot say anything else.
"""

import typing
from collections.abc import Iterator
from typing import Final, NamedTuple

from msgspec import Struct

from prefork.config.forms import text_of
from prefork.config.kind import Kind, Setting, settings_of
from prefork.config.known import HandlerOptions
from prefork.config.master import LogConfig, MasterConfig
from prefork.config.server import LimitsConfig, ListenerConfig, Scale, ServerConfig
from prefork.config.toml import written

_INTRODUCTION: Final = """\
A config is a file of TOML. A key that does not exist, a value of another type or
out of range is an error; `prefork check CONFIG` tells all of them.

seconds    a number, or "250ms", "30s", "5m", "1h", "7d"
bytes      a number, or "512K", "512M", "1G", "2T" (1K = 1024)
mode       permissions, in octal: 0o660
path       relative to the folder of the file it stands in
module:NAME  an importable module, and what is meant in it
address    "HOST:PORT", "[IPV6]:PORT", "*:PORT" (all interfaces, IPv4 and IPv6), "unix:PATH",
           "unix:@ABSTRACT", "systemd:NAME" (FileDescriptorName=), "fd:N"; port 0: any free one
network    "192.0.2.1", "10.0.0.0/8", "2001:db8::/32", or "unix"
"off"      never, no limit, none: wherever that is possible

${NAME} and ${NAME:-DEFAULT}, in any text, stand for a variable of the environment; $${ for ${
itself. KEY_file = "path", for any KEY that takes text, also in environment and handler_options,
stands for what is in that file, without one line end at its end.

include = ["conf.d/*.toml"], at the top of a file, adds other files, sorted by name; no key may be
given twice.
"""

_TABLES: Final[tuple[tuple[str, type[Struct]], ...]] = (
    ("[master]", MasterConfig),
    ("[master.log]", LogConfig),
    ("[server.NAME]", ServerConfig),
    ("bind = [{ ... }], in [server.NAME]", ListenerConfig),
    ("workers = { ... }, in [server.NAME]", Scale),
    ("[server.NAME.limits]", LimitsConfig),
    ("[server.NAME.handler_options]", HandlerOptions),
)
_UNITS: Final = {
    "duration": "seconds",
    "size": "bytes",
    "mode": "mode",
    "path": "path",
    "object": "module:NAME",
    "address": "address",
    "network": "network",
}


class Row(NamedTuple):
    """One key, in words."""

    key: str
    type: str
    default: str
    meaning: str


def reference() -> str:
    """Return the reference as text for a terminal."""
    parts = [_INTRODUCTION]
    for title, table in _TABLES:
        rows = list(_rows(table))
        widths = [max(len(row[i]) for row in rows) for i in range(2)]
        parts.append(f"{title}")
        for row in rows:
            parts.append(f"  {row.key:<{widths[0]}}  {row.type:<{widths[1]}}  {row.default}")
            parts.append(f"  {'':<{widths[0]}}  {row.meaning}")
        parts.append("")
    return "\n".join(parts)


def reference_markdown() -> str:
    """Return the reference's tables as Markdown."""
    parts = []
    for title, table in _TABLES:
        parts.append(f"`{title}`\n\n| key | type | default | |\n|---|---|---|---|")
        for row in _rows(table):
            cells = (f"`{row.key}`", row.type, row.default, row.meaning)
            parts.append(f"| {' | '.join(cells)} |")
        parts.append("")
    return "\n".join(parts)


def _rows(table: type[Struct]) -> Iterator[Row]:
    for name, setting in settings_of(table).items():
        if setting.kind.struct is not None and setting.kind.is_table:
            continue  # a table of its own
        yield Row(name, brief(setting.kind), _default(setting, table), setting.kind.meaning)


def _default(setting: Setting, table: type[Struct]) -> str:
    if setting.is_required:
        return "required"
    if table is HandlerOptions:
        return "what the class says"
    if setting.default is None and not setting.kind.may_be_off:
        return str(setting.unset)
    return text_of(setting.kind, setting.default)


def brief(kind: Kind) -> str:
    """Return what a key takes, as short as can be."""
    words = [word for choice in kind.alternatives for word in _brief(choice)]
    return " or ".join([*words, '"off"'] if kind.may_be_off else words)


def _brief(kind: Kind) -> Iterator[str]:
    origin, arguments = typing.get_origin(kind.base), typing.get_args(kind.base)
    if origin is typing.Literal:
        *words, last = map(written, arguments)
        yield f"{', '.join(words)} or {last}" if words else last
    elif origin is list:
        yield f"array of {brief(Kind(arguments[0]))}"
    elif origin is dict or kind.struct is not None:
        yield "table"
    elif kind.form in _UNITS:
        yield _UNITS[kind.form]
    elif kind.base is bool:
        yield "true or false"
    elif kind.base is str:
        yield kind.form or "text"
    else:
        yield f"number{kind.range()}"
