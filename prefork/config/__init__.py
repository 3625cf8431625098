"""TOML files become frozen objects, or an error that says everything that is wrong with them.

Any process; it starts nothing. `master` and `server` have every key with its type, range, unit
and meaning; `loader` reads by them, `show` prints by them.
"""

from prefork.config.addresses import Address, Place, parse_address
from prefork.config.loader import load
from prefork.config.master import LogConfig, MasterConfig
from prefork.config.problems import ConfigError
from prefork.config.schema import Config
from prefork.config.server import LimitsConfig, ListenerConfig, Scale, ServerConfig

__all__ = [
    "Address",
    "Config",
    "ConfigError",
    "LimitsConfig",
    "ListenerConfig",
    "LogConfig",
    "MasterConfig",
    "Place",
    "Scale",
    "ServerConfig",
    "load",
    "parse_address",
]
