"""What an image of the master leaves to the next one of the same process.

The master before its execve and after it; a rehearsal, which reads it too, and
gives nothing back but new listeners. A sheet of JSON in a memfd, and the
descriptors that it names, all inherited. The next image may be of a later
version of prefork: fields are only ever added, with defaults.
"""

import os
import socket
from collections.abc import MutableMapping
from typing import Final

import msgspec

from prefork.errors import StartError
from prefork.listeners import Listener
from prefork.scoreboard import LAYOUT

#: Names the memfd, and in a rehearsal the socket for the answer.
HANDOVER: Final = "PREFORK_HANDOVER"
REHEARSAL: Final = "PREFORK_REHEARSAL"


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that lives on. state: of `fleet.State`. keys: of its listeners, in its order."""

    pool: str
    line: int
    pid: int
    pidfd: int
    state: str
    due_s: float | None
    generation: int
    started_s: float
    keys: list[str]


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """One `listeners.Listener`."""

    key: str
    fd: int
    inode: tuple[int, int] | None = None
    is_lent: bool = False

    def open(self) -> Listener:
        """Return it as this image has it."""
        sock = socket.socket(fileno=self.fd)
        return Listener(self.key, sock, self.inode, is_new=False, is_lent=self.is_lent)


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """The sheet.

    pid: the master's. estate: the descriptors of `master.Estate`. shut: listeners
    that can let nobody in any more, and are there for who is in their queue.
    targets: how many workers each pool wants. waiting: clients of the control
    socket, with what they asked. log_fds: by path. relay_fds: by worker's line.
    """

    pid: int
    layout: int = LAYOUT
    generation: int
    born_s: float
    estate: dict[str, int]
    workers: list[Worker]
    listeners: list[Left]
    shut: list[Left] = msgspec.field(default_factory=list)
    targets: dict[str, int] = msgspec.field(default_factory=dict)
    control_fd: int | None = None
    control_path: str | None = None
    waiting: list[tuple[int, str]] = msgspec.field(default_factory=list)
    pidfile_fd: int | None = None
    pidfile_path: str | None = None
    log_fds: dict[str, int] = msgspec.field(default_factory=dict)
    relay_fds: dict[int, int] = msgspec.field(default_factory=dict)

    def write(self) -> int:
        """Return a memfd that holds it, which programs inherit."""
        fd = os.memfd_create("prefork-handover")
        os.write(fd, msgspec.json.encode(self))
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def descriptors(self) -> list[int]:
        """Return every descriptor that the next image must inherit."""
        fds = [
            *self.estate.values(),
            *(worker.pidfd for worker in self.workers),
            *(listener.fd for listener in [*self.listeners, *self.shut]),
            *(fd for fd, _ in self.waiting),
            *self.log_fds.values(),
            *self.relay_fds.values(),
            self.control_fd,
            self.pidfile_fd,
        ]
        return [fd for fd in fds if fd is not None]

    def keep_to_ourselves(self) -> None:
        """Have no program that is started from here on inherit any of them."""
        for fd in self.descriptors():
            os.set_inheritable(fd, False)


class Stage(msgspec.Struct, frozen=True):
    """As what this process was started. answer_fd: of a rehearsal, where its outcome goes."""

    handover: Handover | None = None
    answer_fd: int | None = None


def stage(environ: MutableMapping[str, str]) -> Stage:
    """Return as what this process was started, and clear the variables that tell it.

    Raises: StartError when the image before is one that this one does not understand.
    """
    sheet = environ.pop(HANDOVER, "")
    answer = environ.pop(REHEARSAL, "")
    if not sheet.isdecimal():
        return Stage()
    fd = int(sheet)
    with open(fd, "rb") as file:  # a descriptor, not a path
        file.seek(0)
        content = file.read()
    try:
        handover = msgspec.json.decode(content, type=Handover)
    except msgspec.ValidationError as error:
        raise StartError(f"cannot take over from the running version: {error}") from None
    answer_fd = int(answer) if answer.isdecimal() else None
    if handover.pid != (os.getpid() if answer_fd is None else os.getppid()):
        return Stage()  # a program that inherited the variables, and neither of us
    if handover.layout != LAYOUT:
        raise StartError("the running version is too different from this one; restart it")
    handover.keep_to_ourselves()
    return Stage(handover, answer_fd)
