"""`load()`: a file becomes a Config, or a list of everything that is wrong with it.

The master, before it serves, and whoever checks a config. It reads the files of
the config and those that `KEY_file` names; it imports no handler, opens no
socket, and asks nobody whether users or folders exist.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from prefork.config.checks import check_server, check_shared
from prefork.config.kind import settings_of
from prefork.config.master import MasterConfig
from prefork.config.problems import ConfigError, WrongValueError
from prefork.config.reader import Reader, Unread
from prefork.config.schema import Config
from prefork.config.server import POOL_NAME, ServerConfig
from prefork.config.sources import Leaf, Table, Tree
from prefork.config.toml import key_of

_TOP: Final = ("include", "master", "server")
_POOLS: Final = "a table [server.NAME] for each pool"
#: One of these says what a pool serves.
_SERVING: Final = frozenset(
    f"{name}{ending}" for name in ("handler", "server_class") for ending in ("", "_file")
)


def load(path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ) -> Config:
    """Return what a config says.

    Raises: ConfigError with everything that is wrong, in all of its files.
    """
    tree = Tree(path, environ)
    reader = Reader(tree, environ)
    try:
        config = _read(Path(path).absolute(), tree.root, reader)
    except RecursionError:  # a few hundred arrays in each other, where tomllib has just managed
        reader.problems.append(f"{tree.root.source.name}: nested too deeply, expected a config")
        config = None
    if config is None or reader.problems:
        raise ConfigError(reader.problems)
    return config


def _read(path: Path, root: Table, reader: Reader) -> Config | None:
    strangers = [name for name in root.entries if name not in _TOP]
    for name in strangers:
        reader.unknown(root.entries[name], "", name, None)
    empty = Table(root.source)
    master = reader.table(MasterConfig, root.entries.get("master", empty), "master")
    pools = root.entries.get("server", None if strangers else empty)
    servers = {} if pools is None else _read_servers(reader, pools)
    if isinstance(master, Unread):
        return None
    return Config(
        path=path,
        master=master,
        servers=servers,
        origins=reader.origins,
        as_written=reader.as_written,
    )


def _read_servers(reader: Reader, node: Table | Leaf) -> dict[str, ServerConfig]:
    servers: dict[str, ServerConfig] = {}
    if isinstance(node, Leaf):
        reader.wrong(node, "server", node.value, _POOLS)
        return servers
    if not node.entries:
        reader.missing(node, "server", f"nothing to serve, expected {_POOLS}")
    for name, pool in node.entries.items():
        key = f"server.{key_of(name)}"
        if isinstance(pool, Leaf) and name in settings_of(ServerConfig):
            error = WrongValueError("it stands in no pool", f"'server.main.{name}'")
            reader.wrong(pool, key, pool.value, _POOLS, error)
        elif not POOL_NAME.fullmatch(name):
            reader.say(pool, key, "no name of a pool, expected letters, digits, - and _")
        else:
            server = reader.table(ServerConfig, pool, key)
            if isinstance(pool, Table) and not _SERVING & pool.entries.keys():
                reader.missing(pool, f"{key}.handler", 'missing, expected "module:NAME"')
            if not isinstance(server, Unread):
                servers[name] = server
                for at, text in check_server(server):
                    reader.say(pool, f"{key}.{at}", text)
    for name, at, text in check_shared(servers):
        reader.say(node.entries[name], f"server.{name}.{at}", text)
    return servers
