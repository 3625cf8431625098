"""A whole config: one frozen object. Its tables are in `master`, `server` and `known`.

Any process. The reader, `prefork show` and the reference all follow the
annotations there; there is no second list of keys. Values are plain: seconds,
bytes, absolute paths. None means "off" (never, no limit), except where `unset`
says what it means to leave the key out.
"""

from pathlib import Path

from msgspec import Struct

from prefork.config.master import MasterConfig
from prefork.config.server import ServerConfig


class Config(Struct, frozen=True, kw_only=True):
    """A whole config.

    path: absolute. servers: in the order of the file. origins: dotted key to
    who says it: a file, "FILE with ${NAME}", "FILE from KEY_FILE", or "default".
    as_written: dotted key to its line, where its value may be a secret.
    """

    path: Path
    master: MasterConfig
    servers: dict[str, ServerConfig]
    origins: dict[str, str]
    as_written: dict[str, str]
