"""Log files by number: opened once, inherited by workers, opened anew after a rotation.

The master opens; a worker takes what the master sends it (`relay`). A file's
descriptor keeps its number for life: logging handlers, access logs and
standard streams that write to the number notice nothing. It never writes.
"""

import errno
import os
import pwd
import socket
import stat
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prefork import log
from prefork.errors import StartError
from prefork.privileges import Identity, acting_as, name_of

#: What the master calls descriptors 0 to 2 when it sends others for them.
STANDARD: Final = {"0": 0, "1": 1, "2": 2}
ROUND_ENDS: Final = b"."  #: begins the message that ends a round, with the round's number
_NAME_BYTES: Final = 4096  # PATH_MAX

# O_NONBLOCK: a FIFO without a reader is an error, not a wait. O_NOCTTY: no terminal becomes ours.
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_RACES: Final = 10


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file by path and number. mode, owner: what it gets when it is made."""

    path: str
    fd: int
    mode: int
    owner: Identity | None


class LogFiles:
    """All log files of the daemon.

    inherited: path to number, of those that were open before this process
    executed this program: `handover()` of then. A master that has dropped its
    privileges could not open them again.
    """

    def __init__(self, inherited: Mapping[str, int] | None = None) -> None:
        self._files: dict[str, LogFile] = {}
        self._inherited = dict(inherited or {})
        for fd in self._inherited.values():
            os.set_inheritable(fd, False)

    def open(self, path: str | Path, mode: int = 0o640, owner: Identity | None = None) -> LogFile:
        """Return the file of a path, which is opened (or made) if it was not yet.

        owner: whose a new file is, if this is root: the user that it will
        serve as, so that it can open the file again then.
        Raises: StartError when it cannot be opened.
        """
        path = str(Path(path).absolute())
        known = self._files.get(path)
        if known is not None:
            return known
        fd = self._inherited.pop(path, None)
        if fd is None:
            try:
                fd = _open(path, mode, owner)
            except OSError as error:
                raise StartError(f"cannot open the log {path}: {_why(path, error)}") from None
        file = self._files[path] = LogFile(path, fd, mode, owner)
        return file

    def close_unused(self) -> None:
        """Close what was inherited and has not been opened: the configuration has changed."""
        for fd in self._inherited.values():
            os.close(fd)
        self._inherited.clear()

    def handover(self) -> dict[str, int]:
        """Return path to number of what is open; the caller makes it inheritable."""
        return {file.path: file.fd for file in self._files.values()}

    def reopen(self) -> list[str]:
        """Open all anew, each under its number; return, and log, what could not be opened.

        Such a one stays as it was: its lines go on to the file that was
        renamed, and none is lost.
        """
        problems = []
        for file in self._files.values():
            try:
                new = _open(file.path, file.mode, file.owner)
            except OSError as error:
                why = _why(file.path, error)
                log.error("log.not_reopened", path=file.path, reason=why)
                problems.append(f"cannot reopen {file.path}: {why}")
            else:
                _replace(file.fd, new)
        return problems

    def take(self, line: socket.socket) -> bool:
        """In a worker: put what the master has sent in the place of what it replaces.

        line: this worker's end of `Relay.open()`, non-blocking. Each round is
        answered when it is complete. A file that this worker does not know, of
        a later configuration, is closed.
        Returns: False when the master has gone: look at line no more.
        """
        numbers = STANDARD | self.handover()
        while True:
            try:
                # Two: more than one would be an error of ours, and must not be lost in the kernel.
                data, fds, *_ = socket.recv_fds(line, _NAME_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return True
            except ConnectionResetError:
                return False
            if not data:
                return False
            for fd in fds:
                number = numbers.get(os.fsdecode(data))
                if number is None:
                    os.close(fd)
                else:
                    _replace(number, fd)
            if data.startswith(ROUND_ENDS):
                with suppress(OSError):  # the master has gone
                    line.send(data)


def _replace(number: int, fd: int) -> None:
    """Make fd's file the one of number, at once for all threads. Standard streams survive exec."""
    os.dup2(fd, number, inheritable=number <= 2)
    os.close(fd)


def _open(path: str, mode: int, owner: Identity | None) -> int:
    """Open a file to append to, make it if there is none.

    Root has the rights of the user in whose directory it is: that user may
    put links to other files there, and what clients send would be appended to
    those (CVE-2016-1247, of nginx's logs).
    """
    stranger = _stranger_above(path) if os.geteuid() == 0 else None
    with nullcontext() if stranger is None else acting_as(*stranger):
        fd, made = _open_or_make(path, mode)
    try:
        if made:
            os.fchmod(fd, mode)  # whatever the umask is
            if owner is not None and stranger is None and os.geteuid() == 0:
                os.fchown(fd, owner.uid, owner.gid)
        os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_or_make(path: str, mode: int) -> tuple[int, bool]:
    """Return a descriptor, and whether the file is new."""
    for _ in range(_RACES):
        with suppress(FileNotFoundError):  # or not there yet
            return os.open(path, _FLAGS | _no_link(path)), False
        with suppress(FileExistsError):  # made meanwhile
            return os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, mode), True
    raise OSError(errno.ENOENT, "a link to a file that is not there")


def _no_link(path: str) -> int:
    """Return O_NOFOLLOW where anybody may put a link."""
    writable = stat.S_IWGRP | stat.S_IWOTH
    return os.O_NOFOLLOW if Path(path).parent.stat().st_mode & writable else 0


def _stranger_above(path: str) -> tuple[int, int] | None:
    """Return uid and gid of the first user other than root to whom a directory above belongs."""
    named = Path(path).parent
    really = named.resolve()
    for folder in (*reversed(named.parents), named, *reversed(really.parents), really):
        found = folder.stat()
        if found.st_uid != 0:
            try:
                return found.st_uid, pwd.getpwuid(found.st_uid).pw_gid
            except KeyError:
                return found.st_uid, found.st_gid
    return None


def _why(path: str, error: OSError) -> str:
    """Say what is wrong, and as whom it was tried, if that may be the reason."""
    why = error.strerror or str(error)
    if not isinstance(error, PermissionError):
        return why
    uid = os.geteuid()
    with suppress(OSError):
        if uid == 0 and (stranger := _stranger_above(path)) is not None:
            uid = stranger[0]
    return f"{why} (as user {name_of(uid)})"
