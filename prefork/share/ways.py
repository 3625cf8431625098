"""The two ways down from the root: one call of openat2(2), or a walk by descriptors.

A worker, in any thread. Both open for a policy about links, and never follow a
magic link, which leads elsewhere than its text: /proc/self/root is the whole
system. The policies: "inside", links that leave the root lead nowhere;
"follow", they may leave; "never", no link is followed at all.

The walk opens each part beside the last without following it, and reads links
itself. For ".." of a link it begins again at the root with what is left: a
descriptor's own ".." would be outside, if somebody has moved the folder there.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Sequence
from typing import Final, Protocol

from prefork.http.outbox import Descriptor
from prefork.share.openat2 import (
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    how,
    is_available,
    openat2,
)

#: Opens nothing, says what is there: devices and FIFOs do not notice.
HANDLE: Final = os.O_PATH | os.O_CLOEXEC

_POLICIES: Final = {
    "inside": RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    "follow": RESOLVE_NO_MAGICLINKS,
    "never": RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS,
}
_FOLDER: Final = HANDLE | os.O_DIRECTORY | os.O_NOFOLLOW  # O_DIRECTORY: automounts are mounted
_PATH_MAX: Final = 4096  # bytes, with NUL (linux/limits.h)
_MOST_LINKS: Final = 40  # as the kernel's (path_resolution(7))
_PROC_SUPER_MAGIC: Final = 0x9FA0  # linux/magic.h
_STATFS_BYTES: Final = 256  # more than any architecture's
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Way(Protocol):
    """How what is below a root is opened."""

    def open(self, root: Descriptor, parts: Sequence[str], flags: int) -> int:
        """Return a new descriptor; () is the root. parts: no "", "." and "..", no "/" and NUL.

        Raises: OSError.
        """
        ...


class Kernel:
    """By openat2(2); by the walk what that cannot do: absolute links, and very long paths.

    root: where absolute links may lead. symlinks: the policy.
    Raises: ValueError.
    """

    def __init__(self, root: str, symlinks: str) -> None:
        self._walk = Walk(root, symlinks)
        self._resolve = _POLICIES[symlinks]
        self._is_available: bool | None = None  # asked where it is used: filters come with services

    def open(self, root: Descriptor, parts: Sequence[str], flags: int) -> int:
        """See Way."""
        if self._is_available is None:
            self._is_available = is_available()
        path = os.fsencode("/".join(parts)) or b"."
        if self._is_available and len(path) < _PATH_MAX:
            try:
                return openat2(root.fd, path, how(flags, self._resolve))
            except OSError as error:
                # EXDEV: for openat2 an absolute link leads out, wherever it ends. EAGAIN: somebody
                # renames without a pause, which the walk does not mind.
                if error.errno not in (errno.EXDEV, errno.EAGAIN):
                    raise
        return self._walk.open(root, parts, flags)


class Walk:
    """By an openat(2) for each part. Arguments as for Kernel."""

    def __init__(self, root: str, symlinks: str) -> None:
        if symlinks not in _POLICIES:
            raise ValueError(f'symlinks is "inside", "follow" or "never", not {symlinks!r}')
        self._root = root
        self._symlinks = symlinks

    def open(self, root: Descriptor, parts: Sequence[str], flags: int) -> int:
        """See Way."""
        folder, done = root, list[str]()  # done: the folder as seen from the root, without links
        left = list(reversed(parts))
        links = 0
        while left:
            name = left.pop()
            if name == ".":
                continue
            if name == "..":
                folder = self._climb(root, folder, done, left)
                continue
            below = _open_folder(folder, name) if left else None
            if below is None:
                below = Descriptor(os.open(name, HANDLE | os.O_NOFOLLOW, dir_fd=folder.fd))
                mode = os.fstat(below.fd).st_mode
                if stat.S_ISLNK(mode):
                    links += 1
                    folder = self._follow(root, folder, done, left, self._read(below, links))
                    continue
                if not left:
                    # Once more, by its name: a handle itself cannot be read from.
                    return os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder.fd)
                if not stat.S_ISDIR(mode):
                    raise _error(errno.ENOTDIR)
            done.append(name)
            folder = below
        return os.open(".", flags, dir_fd=folder.fd)

    def _read(self, link: Descriptor, links: int) -> str:
        if self._symlinks == "never" or links > _MOST_LINKS or _is_in_proc(link):
            raise _error(errno.ELOOP)
        return os.readlink("", dir_fd=link.fd)  # Path knows no dir_fd

    def _follow(
        self, root: Descriptor, folder: Descriptor, done: list[str], left: list[str], text: str
    ) -> Descriptor:
        """Return where a link in a folder begins, with its parts upon what is left."""
        parts = _parts(text)
        if text.startswith("/"):
            done.clear()
            if self._symlinks == "follow":
                folder = Descriptor(os.open("/", _FOLDER))
            else:
                parts = self._below_root(parts)
                folder = root
        if text.endswith(("/", "/.")):
            left.append(".")  # it must be a folder
        left += reversed(parts)
        return folder

    def _below_root(self, parts: list[str]) -> list[str]:
        """Return what of an absolute path is below the root, by its name as given or resolved."""
        for path in (os.path.abspath, os.path.realpath):
            root = _parts(path(self._root))
            if parts[: len(root)] == root:
                return parts[len(root) :]
        raise _error(errno.EXDEV)

    def _climb(
        self, root: Descriptor, folder: Descriptor, done: list[str], left: list[str]
    ) -> Descriptor:
        """Return where to go on after ".." in a folder."""
        if self._symlinks == "follow":
            return Descriptor(os.open("..", _FOLDER, dir_fd=folder.fd))
        if not done:
            raise _error(errno.EXDEV)
        done.pop()
        while left and left[-1] == ".." and done:
            left.pop()
            done.pop()
        left += reversed(done)
        done.clear()
        return root


def _open_folder(folder: Descriptor, name: str) -> Descriptor | None:
    """Return a folder in another; None: it is a link, or no folder."""
    try:
        return Descriptor(os.open(name, _FOLDER, dir_fd=folder.fd))
    except NotADirectoryError:
        return None


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _is_in_proc(link: Descriptor) -> bool:
    """Tell whether a link is one of procfs, whose magic ones look like all others."""
    status = (ctypes.c_long * (_STATFS_BYTES // ctypes.sizeof(ctypes.c_long)))()
    if _LIBC.fstatfs(link.fd, status) != 0:
        raise _error(ctypes.get_errno())
    kind = status[0]  # f_type; on s390x it is half of the word
    return _PROC_SUPER_MAGIC in (kind, kind >> 32)


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
