"""Who a process is, and what it may do: users, groups, capabilities, limits, chroot.

Master and worker, before they serve. It never decides who drops to whom, and
never gains a right: each step is one way, and looked at afterwards.

What the caller must know of the kernel's side effects:

- A change of user or group clears the process's PR_SET_PDEATHSIG (prctl(2)):
  ask for it again afterwards, and look at the parent again then.
- It also makes the process undumpable: no core file, no ptrace by its own new
  user, and /proc/PID/{fd,smaps_rollup,environ} of it are root's alone
  (/proc/PID/{stat,statm,status} are not). That is wanted, for the memory of one
  that was root may hold root's secrets. execve() of a program undoes it.
- The order is: limits, chroot, drop, no new privileges. Only root may raise hard
  limits and change the root directory.
"""

import ctypes
import difflib
import grp
import os
import pwd
import resource
import signal
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from prefork.errors import StartError

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PR_SET_NO_NEW_PRIVS: Final = 38
_CAPABILITY_VERSION_3: Final = 0x20080522  # linux/capability.h
_LIBC: Final = ctypes.CDLL(None, use_errno=True)

_LIMITS: Final = {
    name.removeprefix("RLIMIT_").lower(): getattr(resource, name)
    for name in dir(resource)
    if name.startswith("RLIMIT_")
}


@dataclass(frozen=True, slots=True)
class Identity:
    """A user and its groups, in numbers. user: the name, or the number where it has none.

    groups: the supplementary ones, sorted, gid among them. home: its directory.
    """

    user: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    def environment(self) -> dict[str, str]:
        """Return what login(1) and systemd tell a user's programs about it."""
        return {"HOME": self.home, "USER": self.user, "LOGNAME": self.user}


def resolve(user: str | None, group: str | None = None) -> Identity | None:
    """Return whom user and group, names or numbers, mean; None if both are None.

    Without user: this process's. Without group: the one the user logs in with.
    Supplementary groups are those of initgroups(3).
    Raises: StartError naming what this system does not have.
    """
    if user is None and group is None:
        return None
    account = _account(str(os.geteuid()) if user is None else user)
    if group is None and account.pw_gid < 0:
        raise StartError(f"user {user} has no account on this system: name a group, too")
    gid = account.pw_gid if group is None else find_group(group)
    groups = {gid} if account.pw_gid < 0 else set(os.getgrouplist(account.pw_name, gid))
    return Identity(
        account.pw_name, account.pw_uid, gid, tuple(sorted(groups)), account.pw_dir or "/"
    )


def find_user(user: str) -> int:
    """Return the number of a user, given by name or number.

    Raises: StartError if no user has the name.
    """
    return _account(user).pw_uid


def find_group(group: str) -> int:
    """Return the number of a group, given by name or number.

    Raises: StartError if no group has the name.
    """
    with suppress(KeyError):
        return grp.getgrnam(group).gr_gid
    if _is_number(group):
        return int(group)
    raise _unknown("group", group, (entry.gr_name for entry in grp.getgrall()))


def name_of(uid: int) -> str:
    """Return a user's name, the number as text if it has no account."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def drop(identity: Identity) -> None:
    """Become identity for good: real, effective and saved ids, groups, capabilities.

    One that is identity already gives up its capabilities only. The user root
    keeps them.
    Raises: StartError if this process may not, or if anything of what it was
    is left: it must not serve, then.
    """
    uid, gid = identity.uid, identity.gid
    if not _is(identity):
        try:
            os.setgroups(identity.groups)  # while root, which setresuid() ends
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        except OSError as error:
            # Who is the user already, but for groups given since the login, has no rights to lose.
            if os.geteuid() == 0 or not _has_ids(identity):
                raise _refused(identity, error) from None
        else:
            if not _is(identity):
                raise StartError(f"cannot become user {identity.user}: the system did it in part")
    if uid == 0:
        return
    _drop_capabilities()
    with suppress(PermissionError):
        os.setresuid(0, 0, 0)
        raise StartError(f"cannot become user {identity.user}: it could become root again")


@contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Have the rights of another user on files, for the time of the context.

    For root only, and while the process has no other threads: the rights are
    the whole process's.
    """
    groups, egid, euid = os.getgroups(), os.getegid(), os.geteuid()
    os.setgroups([gid])
    try:
        os.setegid(gid)
        os.seteuid(uid)
        yield
    finally:
        os.seteuid(euid)  # first: the others need root
        os.setegid(egid)
        os.setgroups(groups)


def set_no_new_privs() -> None:
    """Let no program that this process executes gain a right, by set-user-ID or capabilities.

    Children inherit it, and it lasts through execve() (PR_SET_NO_NEW_PRIVS of
    prctl(2)). The process's own setuid(), chroot() and the like are not concerned.
    Raises: StartError when the kernel refuses.
    """
    if _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise StartError(f"cannot set no_new_privs: {os.strerror(ctypes.get_errno())}")


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends (PR_SET_PDEATHSIG of prctl(2)).

    The caller looks afterwards whether the parent is still the one it was.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def apply_rlimits(limits: Mapping[str, int | str], *, for_good: bool = True) -> None:
    """Set this process's limits (setrlimit(2)), in the kernel's units.

    limits: by the resource's name (`nofile`, `core`), a number or "unlimited".
    for_good: the hard limit, too, so that it cannot be raised again; else that
    stays unless it must rise, for a process that may later want more.
    Raises: StartError for a name the system does not have, or a limit that only
    root may set.
    """
    for name, limit in limits.items():
        if name not in _LIMITS:
            raise _unknown("resource limit", name, _LIMITS)
        if isinstance(limit, str) and limit != "unlimited":
            raise StartError(f"rlimits: {name} must be a number or 'unlimited', not {limit!r}")
        soft = resource.RLIM_INFINITY if isinstance(limit, str) else limit
        before = resource.getrlimit(_LIMITS[name])[1]
        hard = soft if for_good or _is_above(soft, before) else before
        try:
            resource.setrlimit(_LIMITS[name], (soft, hard))
        except (ValueError, OSError) as error:  # ValueError: a hard limit raised, or no such number
            raise StartError(
                f"rlimits: cannot set {name} to {limit}: {error}; the hard limit is"
                f" {'unlimited' if before == resource.RLIM_INFINITY else before}"
            ) from None


def raise_descriptors(wanted: int) -> None:
    """Let this process have as many descriptors open as wanted, or as are allowed; never fewer.

    Beyond the usual 1024, a limit made for select(2); the hard limit stays.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


def enter_chroot(path: str | os.PathLike[str]) -> None:
    """Make a directory the root of all paths, and the working directory.

    What is open stays open; a directory among that is a way out. Modules not
    yet imported and files not yet read are those of the new root afterwards.
    Raises: StartError if this process may not, or there is no such directory.
    """
    time.localtime()  # glibc reads the time zone's file once, and at first use
    try:
        os.chroot(path)
        os.chdir("/")
    except PermissionError:
        raise StartError(f"cannot chroot to {os.fspath(path)}: only root may") from None
    except OSError as error:
        raise StartError(f"cannot chroot to {os.fspath(path)}: {error.strerror}") from None


def _account(user: str) -> pwd.struct_passwd:
    """Return a user's entry; of a number without one, with -1 for the group."""
    with suppress(KeyError):
        return pwd.getpwnam(user)
    if not _is_number(user):
        raise _unknown("user", user, (entry.pw_name for entry in pwd.getpwall()))
    try:
        return pwd.getpwuid(int(user))
    except KeyError:
        return pwd.struct_passwd((user, "x", int(user), -1, "", "/", ""))


def _is_number(text: str) -> bool:
    # (uid_t)-1 is no user: to setresuid() it means "as before".
    return text.isascii() and text.isdecimal() and int(text) < 2**32 - 1


def _unknown(kind: str, name: str, known: Iterable[str]) -> StartError:
    close = difflib.get_close_matches(name, list(known), 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return StartError(f"this system has no {kind} {name!r}{hint}")


def _has_ids(identity: Identity) -> bool:
    uid, gid = identity.uid, identity.gid
    return os.getresuid() == (uid, uid, uid) and os.getresgid() == (gid, gid, gid)


def _is(identity: Identity) -> bool:
    return _has_ids(identity) and {*os.getgroups(), identity.gid} == {*identity.groups}


def _refused(identity: Identity, error: OSError) -> StartError:
    me = name_of(os.geteuid())
    why = error.strerror if me == "root" else f"started as {me}, and only root may"
    return StartError(
        f"cannot become user {identity.user} (group {identity.gid}, all groups"
        f" {' '.join(map(str, identity.groups))}): {why}; set no user and group to stay {me}"
    )


def _drop_capabilities() -> None:
    """Give up all: the kernel does when root becomes another user, unless it was told not to.

    systemd may also have given some to a user (AmbientCapabilities=).
    Raises: StartError when some are left.
    """
    header = ctypes.create_string_buffer(struct.pack("Ii", _CAPABILITY_VERSION_3, 0))
    # Twice (lower and upper 32) effective, permitted, inheritable; ambient ones follow (capset(2)).
    sets = ctypes.create_string_buffer(24)
    _LIBC.capset(header, sets)  # a filter of system calls may refuse it; what counts is the result
    if _LIBC.capget(header, sets) or any(sets.raw[:24]):
        raise StartError("cannot give up root's capabilities")


def _is_above(limit: int, other: int) -> bool:
    if resource.RLIM_INFINITY in (limit, other):
        return limit == resource.RLIM_INFINITY != other
    return limit > other
