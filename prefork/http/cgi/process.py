"""A script's process: started, seen to end, ended.

A worker, in the thread of the handler. `subprocess` starts it, by vfork(2)
unless the user changes, with default signals and no descriptor but three. It
never reads or writes what goes through them.
"""

import contextlib
import errno
import os
import pwd
import resource
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

_NONE: Final = 2**32 - 1
#: After SIGTERM, before SIGKILL (httpd: 3).
_TERM_S: Final = 2.0
#: What every login has: a worker's many descriptors upset programs that use select(2).
_DESCRIPTORS: Final = 1024


class User(NamedTuple):
    """Whom a script runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def user_of(uid: int) -> User:
    """Return the user of this number, with its groups.

    Raises: PermissionError if it has rights of root, or is none: (uid_t)-1
    means "as before" to setreuid(2).
    """
    user = _account_of(uid)
    if any(not 0 < number < _NONE for number in (user.uid, user.gid, *user.groups)):
        raise PermissionError(errno.EPERM, f"user {uid} is no one to run scripts as")
    return user


def _account_of(uid: int) -> User:
    try:
        account = pwd.getpwuid(uid)
    except (KeyError, OverflowError):
        return User(uid, uid, ())  # nobody's group either
    return User(uid, account.pw_gid, tuple(os.getgrouplist(account.pw_name, account.pw_gid)))


class Process:
    """One that runs. stdout, stderr: where to read what it says, without waiting.

    pidfd: readable when it has ended. folder: where it runs. stdin: a
    descriptor, which stays open here. user: None: this process's.
    Raises: OSError if it cannot be started, which is not always the script's fault.
    """

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[bytes, bytes],
        folder: str,
        stdin: int,
        user: User | None,
    ) -> None:
        self.stdout, told = _pipe()
        try:
            self.stderr, cried = _pipe()
        except OSError:
            os.close(self.stdout)
            os.close(told)
            raise
        try:
            self._popen = subprocess.Popen(  # noqa: S603 # scripts are what it is for
                command,
                env=environ,
                cwd=folder,
                stdin=stdin,
                stdout=told,
                stderr=cried,
                start_new_session=True,  # a group to signal, and no terminal
                user=None if user is None else user.uid,
                group=None if user is None else user.gid,
                extra_groups=None if user is None else user.groups,
            )
        except BaseException:
            self._hang_up()
            raise
        finally:
            os.close(told)
            os.close(cried)
        self.pid = self._popen.pid
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except BaseException:  # no descriptor is left: nobody would see it end
            self._signal(signal.SIGKILL)
            self._popen.wait()
            self._hang_up()
            raise
        with contextlib.suppress(OSError):  # it is another user's: then root's limits are no matter
            _lower_descriptors(self.pid)

    def wait(self, limit_s: float) -> bool:
        """Tell whether it ends within so many seconds."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(max(0.0, limit_s) * 1000))

    def end(self) -> None:
        """End it and what it has started; it is still to be reaped."""
        self._signal(signal.SIGTERM)
        self.wait(_TERM_S)
        # Not reaped yet, so that the group's number is nobody else's.
        self._signal(signal.SIGKILL)

    def reap(self) -> str:
        """Wait until it has ended; close all. Return why it ended, "" if all was well."""
        code = self._popen.wait()
        os.close(self.pidfd)
        self._hang_up()
        if code >= 0:
            return f"exit {code}" if code else ""
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
        return f"signal {-code}"

    def _signal(self, signum: int) -> None:
        with contextlib.suppress(
            ProcessLookupError, PermissionError
        ):  # gone; a set-user-ID program
            os.killpg(self.pid, signum)

    def _hang_up(self) -> None:
        os.close(self.stdout)
        os.close(self.stderr)


def _pipe() -> tuple[int, int]:
    read, write = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read, False)
    return read, write


def _lower_descriptors(pid: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft > _DESCRIPTORS:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (_DESCRIPTORS, hard))
