"""The text of systemd units: a hardened service, a socket.

The calling process. Pure: what they say is decided in `units`. `systemd/` holds
the same, with the defaults.
"""

import re
from dataclasses import dataclass
from typing import Final

#: The user of services whose config names none.
USER: Final = "prefork"

#: For systemd-sysusers(8).
SYSUSERS: Final = f"""\
# The user that prefork's services run as.
u {USER} - "prefork"
"""

#: For systemd-tmpfiles(8).
TMPFILES: Final = f"""\
# Where Unix sockets may be, beside the folder that each service has below.
d /run/prefork 0755 {USER} {USER} -
"""

_SERVICE: Final = """\
# {origin}
# Settings of your own: systemctl edit {name}

[Unit]
Description=prefork, serving {config}
{unit}StartLimitIntervalSec=60

[Service]
Type=notify
ExecStart={command} {config}
# Returns when the new generation serves; fails, with the reason, if the old one had to stay.
ExecReload={command} reload {config}
Restart=on-failure
RestartSec=1
# The master tells its workers to stop; only what is left after that is killed.
KillMode=mixed
# More than [master] graceful_timeout.
TimeoutStopSec={stop_s}
{start}# How long the master's loop may stand still.
WatchdogSec=30
# One worker killed for its memory is no reason to stop the others; the master replaces it.
OOMPolicy=continue
# Listening sockets survive the master here.
FileDescriptorStoreMax=1024

{user}RuntimeDirectory={runtime}
RuntimeDirectoryPreserve=restart
{folders}UMask=0027

# A handler that writes files needs ReadWritePaths=, one that compiles code at run time
# MemoryDenyWriteExecute=no, one that looks at other users' files by name PrivateUsers=no.
{rights}NoNewPrivileges=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
{calls}SystemCallErrorNumber=EPERM
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
KeyringMode=private
DevicePolicy=closed
PrivateDevices=yes
PrivateIPC=yes
PrivateMounts=yes
{private_users}{private_tmp}ProtectSystem=strict
{protect_home}ProtectProc=invisible
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
{paths}
[Install]
WantedBy=multi-user.target
{also}"""

_SOCKET: Final = """\
# {origin}
# Another address: systemctl edit {name}, with an empty {listen}= first

[Unit]
Description=prefork, socket "{fd_name}" of {service}

[Socket]
{addresses}FileDescriptorName={fd_name}
Service={service}
Backlog={backlog}
{access}
[Install]
WantedBy=sockets.target
"""

# Of the default user, whoever else shares it.
_FOLDERS: Final = """\
LogsDirectory=prefork
CacheDirectory=prefork
CacheDirectoryMode=0700
"""

# By ProtectHome=tmpfs alone, /root is closed to others as ever (257), or open to writers (252).
_EMPTY_HOMES: Final = """\
ProtectHome=tmpfs
TemporaryFileSystem=/home:ro /root:ro /run/user:ro
"""


@dataclass(frozen=True, kw_only=True)
class Service:
    """What is special in a service; the defaults are those of the unit that is shipped.

    name: of the unit, with suffix. config, command: as words of ExecStart=.
    runtime: its folder below /run. capabilities: what it may do beyond a plain
    user. calls: system calls it needs for that. readable: folders that would be
    hidden. writable: folders that would be read-only; bound: those that would be
    hidden, too. settings: lines of [Service], such as limits.
    """

    name: str
    origin: str
    config: str
    runtime: str
    command: str = "prefork"
    user: str | None = USER
    group: str | None = None
    needs_network: bool = False
    sockets: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    bound: tuple[str, ...] = ()
    shares_tmp: bool = False
    start_s: int | None = None
    stop_s: int = 45
    settings: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the unit."""
        # Capabilities in a user namespace count for nothing outside.
        is_plain = not self.capabilities
        hides_homes = not (self.readable or self.bound)
        return _SERVICE.format(
            name=self.name,
            origin=self.origin,
            config=self.config,
            command=self.command,
            runtime=self.runtime,
            stop_s=self.stop_s,
            unit=self._unit(),
            start=_line("TimeoutStartSec", self.start_s),
            user=_line("User", self.user) + _line("Group", self.group or self.user),
            folders=(_FOLDERS if self.user == USER else "")
            + "".join(f"{line}\n" for line in self.settings),
            rights=self._rights(),
            calls=_line("SystemCallFilter", " ".join(self.calls)),
            private_users=f"PrivateUsers={'yes' if is_plain else 'no'}\n",
            private_tmp=f"PrivateTmp={'no' if self.shares_tmp else 'yes'}\n",
            protect_home="ProtectHome=yes\n" if hides_homes else _EMPTY_HOMES,
            paths=_line("BindReadOnlyPaths", " ".join(self.readable))
            + _line("BindPaths", " ".join(self.bound))
            + _line("ReadWritePaths", " ".join(self.writable)),
            also=_line("Also", " ".join(self.sockets)),
        )

    def _unit(self) -> str:
        network = "network-online.target" if self.needs_network else "network.target"
        return (
            _line("Wants", network if self.needs_network else None)
            + _line("Requires", " ".join(self.sockets))
            + _line("After", " ".join([network, *self.sockets]))
        )

    def _rights(self) -> str:
        words = " ".join(self.capabilities)
        # Root has them; another user must be given them before execve(2).
        ambient = words if self.user is not None else ""
        return f"CapabilityBoundingSet={words}\nAmbientCapabilities={ambient}\n"


@dataclass(frozen=True, kw_only=True)
class Socket:
    """A socket that systemd listens at for a service, which knows it by `fd_name`.

    addresses: as systemd.socket(5) has them.
    """

    name: str
    origin: str
    service: str
    fd_name: str
    addresses: tuple[str, ...]
    backlog: int = 2048
    is_datagram: bool = False
    user: str | None = USER

    def text(self) -> str:
        """Return the unit."""
        listen = "ListenDatagram" if self.is_datagram else "ListenStream"
        access = ""
        if any(address.startswith("/") for address in self.addresses):
            access += "SocketMode=0660\n" + _line("SocketUser", self.user)
        if any(address.startswith("[") for address in self.addresses):
            # On one socket for both, handlers would see IPv4 clients as ::ffff:192.0.2.1.
            access += "BindIPv6Only=ipv6-only\n"
        return _SOCKET.format(
            name=self.name,
            origin=self.origin,
            service=self.service,
            fd_name=escaped(self.fd_name),
            listen=listen,
            addresses="".join(_line(listen, address) for address in self.addresses),
            backlog=self.backlog,
            access=access,
        )


def word(text: str) -> str:
    """Return text as one word of a list that systemd splits at blanks."""
    if re.fullmatch(r"[\w./:@%+=,-]+", text, re.ASCII):
        return escaped(text)
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return escaped(f'"{quoted}"')


def command_word(text: str) -> str:
    """Return text as one word of a command, in which $ would begin a variable."""
    return word(text).replace("$", "$$")


def escaped(text: str) -> str:
    """Return text in which nothing is a specifier (systemd.unit(5))."""
    return text.replace("%", "%%")


def unit_name(text: str) -> str:
    """Return text as part of a unit's name, which does not make it a template's instance."""
    return re.sub(
        r"[^A-Za-z0-9_:.-]", lambda f: "".join(f"\\x{b:02x}" for b in f[0].encode()), text
    )


def _line(key: str, value: object) -> str:
    return f"{key}={value}\n" if value else ""
