"""What holds for the whole daemon, however it was started. Values only.

The master.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prefork.logs.events import Wanted
from prefork.privileges import Identity


@dataclass(frozen=True)
class Charter:
    """config_path: None where the command line says it all: then there is nothing to reload.

    identity: whom the master becomes when all is open. control: None for the
    default place, "off" for none. rlimits: as `privileges.apply_rlimits` takes
    them; without nofile there, descriptors is tried for. stop_s: how long a graceful end may take.
    """

    config_path: Path | None = None
    identity: Identity | None = None
    umask: int | None = None
    working_directory: str | None = None
    pidfile: str | None = None
    daemonize: bool = False
    control: str | None = "off"
    control_mode: int = 0o600
    control_group: int | None = None
    rlimits: Mapping[str, int | str] = field(default_factory=dict)
    descriptors: int = 65536
    no_new_privs: bool = False
    stop_s: float = 30.0
    logging: Wanted | None = None
