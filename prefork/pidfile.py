"""A file with the master's number, which says whether the master is alive.

The master, and nobody it forks: the lock on the file is the truth, its text is
for other programs. The lock outlives execve() and ends with the process,
however that comes.

Rejected: a look at whether the number is some process's. After a crash and a
reboot it is a stranger's.
"""

import errno
import fcntl
import os
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from prefork.errors import StartError
from prefork.loop import call_if_alive

_MODE: Final = 0o644  # anybody may know it
_TRIES: Final = 100  # each lost means that another master has come or gone meanwhile


class Pidfile:
    """This process's, held until remove() or its end; forked children do not hold it.

    fd: the open file, closed on exec unless made inheritable (for `adopt`).
    """

    def __init__(self, path: str | os.PathLike[str], fd: int) -> None:
        self.path = Path(path).absolute()
        self.fd = fd
        # A flock belongs to the open file: a worker that outlives a killed master would hold it.
        leave = weakref.WeakMethod(self._leave)
        os.register_at_fork(after_in_child=lambda: call_if_alive(leave))

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Self:
        """Write this process's number to path; a file nobody holds is replaced.

        Nobody ever reads half of it: it gets its name when it is whole.
        Raises: StartError if a running process holds it (with its number), or
        if it cannot be written.
        """
        path = Path(path).absolute()
        ours = path.with_name(f".{path.name}.{os.getpid()}")
        fd = -1
        try:
            ours.unlink(missing_ok=True)  # one of a master that was killed right here
            fd = os.open(ours, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
            os.fchmod(fd, _MODE)  # whatever the umask is
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(fd, b"%d\n" % os.getpid())
            _put(ours, path)
        except BaseException as error:
            ours.unlink(missing_ok=True)
            if fd >= 0:
                os.close(fd)
            if isinstance(error, OSError):
                raise StartError(f"cannot write {path}: {error.strerror}") from None
            raise
        return cls(path, fd)

    @classmethod
    def adopt(cls, path: str | os.PathLike[str], fd: int) -> Self:
        """Go on holding the file that this process held before it executed this program.

        Raises: StartError if fd is not open.
        """
        try:
            os.set_inheritable(fd, False)
        except OSError as error:
            raise StartError(f"cannot hold {os.fspath(path)}: {error.strerror}") from None
        return cls(path, fd)

    def remove(self) -> None:
        """Remove the file, unless another's has come in its place, and let go of it.

        One that dropped its privileges may not: it leaves an empty one.
        """
        if self.fd < 0:
            return
        with suppress(OSError):
            # First, and whoever has the name now: ours must not name a process that has ended.
            os.ftruncate(self.fd, 0)
        if _is_same(self.path, self.fd):
            with suppress(OSError):  # not ours to remove any more
                self.path.unlink()
        self._leave()

    def _leave(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _put(ours: Path, path: Path) -> None:
    """Give our file the name; raises StartError if a running process holds that."""
    for _ in range(_TRIES):
        try:
            path.hardlink_to(ours)
        except FileExistsError:
            if _replace(ours, path):
                return
        else:
            ours.unlink()
            return
    raise OSError(errno.EBUSY, "it changes all the time")


def _replace(ours: Path, path: Path) -> bool:
    """Put our file in a stale one's place; False if that was gone or replaced meanwhile."""
    try:
        old = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Two masters may find the same stale file: who locks it replaces it.
        fcntl.flock(old, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_same(path, old):
            return False
        ours.replace(path)
    except BlockingIOError:
        if not _is_same(path, old):
            return False
        pid = os.pread(old, 32, 0).strip().decode("ascii", "replace") or "unknown"
        raise StartError(
            f"{path}: {_name_of(pid)} is running with that pidfile, PID {pid}; stop it first"
        ) from None
    finally:
        os.close(old)
    return True


def _is_same(path: Path, fd: int) -> bool:
    """Tell whether path still names the open file."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(fd))
    except OSError:
        return False


def _name_of(pid: str) -> str:
    try:
        return Path("/proc", pid, "comm").read_text(errors="backslashreplace").strip()
    except OSError:
        return "a process"
