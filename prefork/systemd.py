"""The two ways to talk with systemd: what it is told (sd_notify(3)), what it hands over at start.

The master of the daemon. A library never speaks here: the program that embeds
it may be a service of its own. Nothing here waits for an answer, and nothing
fails because nobody listens.
"""

import os
import re
import socket
import stat
import time
from collections.abc import MutableMapping, Sequence
from typing import Final

from prefork.errors import StartError
from prefork.log import printable

_FIRST_FD: Final = 3  # SD_LISTEN_FDS_START
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f-\U0010ffff:]{1,255}")  # sd_listen_fds_with_names(3)
# systemd drops a datagram above 4096 bytes; no other line of ours is longer than a few words.
_STATUS_BYTES: Final = 2048
_PATIENCE_S: Final = 0.5


def notify(state: str, fds: Sequence[int] = ()) -> bool:
    """Send one datagram of `NAME=value` lines; False when no service manager listens.

    fds: file descriptors to go along.
    Raises: nothing. A notification that cannot be delivered changes nothing
    that this process could do better; systemd's own timeout speaks then.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            # A manager that hangs must not hang the master.
            channel.settimeout(_PATIENCE_S)
            channel.connect(address)  # send_fds() ignores the address it is given
            socket.send_fds(channel, [state.encode()], fds)
        except OSError:
            return False
    return True


def ready(text: str) -> bool:
    """Tell that the service is up, or that a reload has ended, well or not; text: its status."""
    return notify(f"READY=1\nSTATUS={_one_line(text)}")


def reloading() -> bool:
    """Tell that a reload has begun; `ready()` ends it.

    The time must be in the same datagram: with Type=notify-reload, systemd takes
    a RELOADING=1 without it for an old one and waits for ever.
    """
    return notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping(text: str) -> bool:
    """Tell that the service ends; text: its status."""
    return notify(f"STOPPING=1\nSTATUS={_one_line(text)}")


def status(text: str) -> bool:
    """Tell what the service is doing: the line `Status:` of `systemctl status`."""
    return notify(f"STATUS={_one_line(text)}")


def alive() -> bool:
    """Tell the watchdog that the service's loop has come round."""
    return notify("WATCHDOG=1")


def main_pid(pid: int) -> bool:
    """Tell which process is the service's main one from now on."""
    return notify(f"MAINPID={pid}")


def extend_timeout(extension_s: float) -> bool:
    """Ask for that much time from now on to start, to reload or to stop, if less is left.

    Whoever asks must ask again before it is over, else systemd takes the
    service for hung.
    """
    return notify(f"EXTEND_TIMEOUT_USEC={int(extension_s * 1e6)}")


def store(fd: int, name: str) -> bool:
    """Let systemd keep a descriptor, handed over by `inherited()` at the next start.

    name: several descriptors may have the same one. The unit must allow it by
    FileDescriptorStoreMax=. What systemd already holds is not kept twice.
    Raises: ValueError if systemd would not take the name.
    """
    # Without FDPOLL=0, systemd lets go of what poll(2) reports as failed: a UDP socket with
    # one unreachable client would be gone.
    return notify(f"FDSTORE=1\nFDNAME={_checked_name(name)}\nFDPOLL=0", [fd])


def remove_from_store(name: str) -> bool:
    """Let systemd close every descriptor of this name that it keeps.

    Raises: ValueError if systemd would not take the name.
    """
    return notify(f"FDSTOREREMOVE=1\nFDNAME={_checked_name(name)}")


def watchdog_interval_s(environ: MutableMapping[str, str]) -> float | None:
    """Return how often `alive()` is due, in seconds; None: there is no watchdog.

    Half of the time after which systemd kills, as sd_watchdog_enabled(3)
    recommends. The variables are left in place: they hold after execve(2), too.
    """
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # it was meant for a parent of ours
    timeout_us = environ.get("WATCHDOG_USEC", "")
    if not timeout_us.isdecimal() or int(timeout_us) == 0:
        return None
    return int(timeout_us) / 2e6


def inherited(environ: MutableMapping[str, str]) -> list[tuple[str, socket.socket]]:
    """Take over the sockets that systemd opened or kept for this service: (name, socket).

    In systemd's order: those of socket units first, then those of `store()`. A
    name may come several times, for one socket unit may have several addresses.
    The variables are removed, for the sockets belong to this process alone; no
    program it starts inherits them.
    Raises: StartError if one is no socket. Source: sd_listen_fds_with_names(3).
    """
    for_pid = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "")
    if for_pid != str(os.getpid()) or not count.isdecimal():
        return []
    fds = range(_FIRST_FD, _FIRST_FD + int(count))
    named = names.split(":") if names else []
    if len(named) != len(fds):
        named = ["unknown"] * len(fds)  # what systemd calls a descriptor without a name
    for fd, name in zip(fds, named, strict=True):
        if not _is_socket(fd):
            raise StartError(
                f"systemd handed over {name!r} as file descriptor {fd}, which is no socket:"
                " look at Sockets= and the socket units of this service"
            )
    return [(name, _adopt(fd)) for fd, name in zip(fds, named, strict=True)]


def _adopt(fd: int) -> socket.socket:
    os.set_inheritable(fd, False)
    return socket.socket(fileno=fd)


def _is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False  # not even open


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r}: 1 to 255 printable ASCII characters without a colon")
    return name


def _one_line(text: str) -> str:
    return printable(text).encode()[:_STATUS_BYTES].decode(errors="ignore")
