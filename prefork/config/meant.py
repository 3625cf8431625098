"""What was probably meant by a key that does not exist.

Any process. Pure.
"""

from typing import Final

from msgspec import Struct

from prefork.config.kind import settings_of
from prefork.config.known import HandlerOptions
from prefork.config.master import LogConfig, MasterConfig
from prefork.config.problems import nearest, plain
from prefork.config.server import LimitsConfig, ServerConfig
from prefork.config.toml import key_of

#: The tables there are, and those of a pool under its name.
_MASTER: Final[tuple[tuple[tuple[str, ...], type[Struct]], ...]] = (
    (("master",), MasterConfig),
    (("master", "log"), LogConfig),
)
_POOL: Final[tuple[tuple[tuple[str, ...], type[Struct]], ...]] = (
    ((), ServerConfig),
    (("limits",), LimitsConfig),
    (("handler_options",), HandlerOptions),
)


def meant_by(prefix: str, name: str, table: type[Struct] | None) -> str | None:
    """Return the key that was meant, as a name of this table or as a dotted key; None: no idea.

    prefix: where it stands. table: the schema's there; None: the top of the file.
    """
    if table is None:
        here = nearest(name, ("include", "master", "server"))
    else:
        here = _called(name, table) or nearest(name, settings_of(table))
    if here is not None:
        return here
    words = prefix.split(".")
    pool = words[1] if words[0] == "server" else "NAME"
    places = [(("server", pool, *inner), other) for inner, other in _POOL]
    for place, other in (*places, *_MASTER) if words[0] == "server" else (*_MASTER, *places):
        there = _called(name, other)
        if there is not None:
            return key_of(*place, there)
    return None


def _called(name: str, table: type[Struct]) -> str | None:
    """Return the setting that has this name here or in another program."""
    word = plain(name)
    settings = settings_of(table)
    if word in settings:
        return word
    return next((s.name for s in settings.values() if word in s.also), None)
