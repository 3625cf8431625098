"""`[master]`: the keys of the whole service, with type, range, unit and meaning.

Any process. Declarations only.
"""

import resource
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

from prefork.config.kinds import MOST, Amount, FileMode, FilePath, Name, Seconds, about

#: The limits of a process that this system has, as `master.rlimits` names them.
RLIMITS: Final = tuple(
    sorted(n.removeprefix("RLIMIT_").lower() for n in dir(resource) if n.startswith("RLIMIT_"))
)


class LogConfig(Struct, frozen=True, kw_only=True):
    """`[master.log]`."""

    target: Annotated[
        FilePath,
        about(
            '"stderr", "journald", "syslog", or the path of a file',
            also=["errorlog", "file"],
            words=["stderr", "journald", "syslog"],
        ),
    ] = "stderr"
    format: Annotated[Literal["text", "json"], about("of each line")] = "text"
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        about("the least that is logged", also=["loglevel", "log_level"]),
    ] = "info"
    mode: Annotated[FileMode, about("permissions of the file")] = 0o640
    repeat_window: Annotated[
        Seconds, about("within which an event is logged repeat_burst times, then only counted")
    ] = 10.0
    repeat_burst: Annotated[
        int, Meta(ge=1, le=MOST), about("how often an event is logged in each repeat_window")
    ] = 10


class MasterConfig(Struct, frozen=True, kw_only=True):
    """`[master]`."""

    user: Annotated[
        Name | None, about("name or number to run as", unset="who starts it", also=["uid"])
    ] = None
    group: Annotated[
        Name | None, about("name or number of the group", unset="the user's", also=["gid"])
    ] = None
    umask: Annotated[FileMode | None, about("permissions new files lack", unset="inherited")] = None
    working_directory: Annotated[
        FilePath | None, about("where it runs", unset="where it is started", also=["chdir", "cwd"])
    ] = None
    pidfile: Annotated[
        FilePath | None, about("file with its process number", unset="none", also=["pid"])
    ] = None
    daemonize: Annotated[
        bool, about("detach from the terminal, once ready", also=["daemon", "background"])
    ] = False
    control: Annotated[
        FilePath | None,
        about(
            'path of the control socket, or "off"',
            unset="/run/prefork/CONFIG/control.sock, or the next best place",
            also=["control_socket", "socket"],
            words=["off"],
        ),
    ] = None
    control_mode: Annotated[FileMode, about("permissions of the control socket")] = 0o600
    control_group: Annotated[
        Name | None, about("group of the control socket", unset="the master's")
    ] = None
    graceful_timeout: Annotated[
        Seconds, about("how long a graceful end may take", also=["stop_timeout", "grace"])
    ] = 30.0
    rlimits: Annotated[
        dict[str, Amount | Literal["unlimited"]],
        about("limits of each process, as in getrlimit(2); nofile: at most what is allowed"),
    ] = field(default_factory=lambda: {"nofile": 65536})
    no_new_privs: Annotated[
        bool, about("no program that is started may gain privileges", also=["no_new_privileges"])
    ] = True
    log: Annotated[LogConfig, about("where the log goes")] = LogConfig()
