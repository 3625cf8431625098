"""The jail: what of a folder may be opened, by the names of a request.

A worker, in any thread; a fork may inherit it. It opens regular files and
folders below the root, to be read, and looks at nothing before it is known to
be inside. It never writes, and never opens a FIFO, a device or a socket: what is
there is told by a handle (O_PATH), and the handle is opened, not the name again.

Whether something is hidden is decided by the names that are asked for: a link
without a dot to something that has one is its owner's will.
"""

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, NamedTuple

from prefork.http.outbox import Descriptor
from prefork.share.names import candidates
from prefork.share.ways import HANDLE, Kernel, Way

#: How long the root is taken for the folder of its name, in seconds.
VALID_S: Final = 1.0

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: A FIFO in a file's place must not be waited for, a terminal not become ours.
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_HANDLES: Final = "/proc/self/fd"

#: What a name has that leads nowhere. EINVAL, EILSEQ: the file system knows no such names. ESTALE:
#: of a network's, it is gone.
_MISSING: Final = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.EXDEV,
        errno.ENAMETOOLONG,
        errno.EINVAL,
        errno.EILSEQ,
        errno.ESTALE,
    }
)


#: What passes: too many open files, no memory, somebody's lease on a file.
_SHORT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})


class MissingError(OSError):
    """Nothing that may be shown: absent, hidden, outside, special, or no name at all."""


class ForbiddenError(OSError):
    """It is there, and this process may not read it."""


class FailedError(OSError):
    """The system can not open it, or not now: what is wrong is neither the name nor the client."""


def is_passing(error: OSError) -> bool:
    """Tell whether the system is short of something."""
    return error.errno in _SHORT


def _missing(code: int) -> MissingError:
    return MissingError(code, os.strerror(code))


class _Named:
    """A context in which an error becomes what it is for who asks: missing, forbidden, failed."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _type: object, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if isinstance(error, UnicodeError):
            raise _missing(errno.EILSEQ) from error
        if not isinstance(error, OSError) or isinstance(
            error, MissingError | ForbiddenError | FailedError
        ):
            return
        code = error.errno or 0
        if code in _MISSING:
            raise _missing(code) from error
        if code in (errno.EACCES, errno.EPERM):
            raise ForbiddenError(code, os.strerror(code)) from error
        raise FailedError(code, os.strerror(code)) from error


_NAMED: Final = _Named()


class Opened(NamedTuple):
    """A regular file or a folder, open. parts: its names as found on disk."""

    file: Descriptor
    status: os.stat_result
    parts: tuple[str, ...]


class Jail:
    """root: a folder's path; it need not be there yet, and may be a link.

    symlinks: "inside", what they lead to must be below the root (absolute ones too); "follow",
    anywhere; "never", they are not there. hidden: whether names that begin with "." are.
    way: of the root and the policy; `Walk` where openat2(2) is not wanted.
    Raises: ValueError.
    """

    def __init__(
        self,
        root: str,
        *,
        symlinks: str = "inside",
        hidden: bool = False,
        way: Callable[[str, str], Way] = Kernel,
    ) -> None:
        self._root = os.path.abspath(root)  # noqa: PTH100 # Path.resolve() would follow links
        self._hidden = hidden
        self._way = way(self._root, symlinks)
        self._looked_up: tuple[Descriptor, float] | None = None  # one store: threads see a pair

    def open(self, parts: Sequence[str]) -> Opened:
        """Open what the names lead to from the root, which is ().

        A name that is not there is looked for in its other Unicode forms, each by itself.
        Raises: MissingError, ForbiddenError, FailedError.
        """
        parts = tuple(parts)
        if not self._is_sound(parts):
            raise _missing(errno.ENOENT)
        with _NAMED:
            root = self._open_root()
            try:
                return self._open(root, parts)
            except FileNotFoundError:
                found = self._find(root, parts)
                if found is None:
                    raise
            return self._open(root, found)

    def open_child(self, folder: Opened, name: str) -> Opened:
        """Open what a folder has under a name, which is taken as it is.

        Raises: as open().
        """
        parts = (*folder.parts, name)

        def again(flags: int) -> int:
            return os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder.file.fd)

        with _NAMED:
            handle = self._handle_child(folder, name)
            if handle is None:
                return self._open(self._open_root(), parts)
            return self._finish(handle, parts, again)

    def stat_child(self, folder: Opened, name: str) -> os.stat_result | None:
        """Return the status of what a folder has under a name, links followed.

        None: nothing that may be shown. It may still not be readable.
        Raises: FailedError.
        """
        with contextlib.suppress(MissingError, ForbiddenError), _NAMED:
            handle = self._handle_child(folder, name)
            if handle is None:
                parts = (*folder.parts, name)
                handle = Descriptor(self._way.open(self._open_root(), parts, HANDLE))
            status = os.fstat(handle.fd)
            if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
                return status
        return None

    def is_shown(self, name: str) -> bool:
        """Tell whether a name is not hidden."""
        return self._hidden or not name.startswith(".")

    def _is_sound(self, parts: tuple[str, ...]) -> bool:
        """Tell whether each part is one name, and shown."""
        if not parts:
            return True
        path = f"/{'/'.join(parts)}/"
        if "\0" in path or "//" in path or path.count("/") != len(parts) + 1:
            return False
        if not self._hidden:
            return "/." not in path
        return "/./" not in path and "/../" not in path

    def _open_root(self) -> Descriptor:
        now_s = time.monotonic()
        known = self._looked_up
        if known is not None and now_s - known[1] < VALID_S:
            return known[0]
        self._looked_up = None
        # O_DIRECTORY also has an automount mounted. O_PATH: who may pass need not list.
        root = Descriptor(os.open(self._root, HANDLE | os.O_DIRECTORY))
        self._looked_up = (root, now_s)
        return root

    def _open(self, root: Descriptor, parts: tuple[str, ...]) -> Opened:
        handle = Descriptor(self._way.open(root, parts, HANDLE))
        return self._finish(handle, parts, lambda flags: self._way.open(root, parts, flags))

    def _handle_child(self, folder: Opened, name: str) -> Descriptor | None:
        """Return a handle of what a folder itself has; None: a link."""
        if not self._is_sound((name,)):
            raise _missing(errno.ENOENT)
        handle = Descriptor(os.open(name, HANDLE | os.O_NOFOLLOW, dir_fd=folder.file.fd))
        return None if stat.S_ISLNK(os.fstat(handle.fd).st_mode) else handle

    def _finish(
        self, handle: Descriptor, parts: tuple[str, ...], again: Callable[[int], int]
    ) -> Opened:
        """Open what there is a handle of, if it is fit for that; again: opens its name."""
        status = os.fstat(handle.fd)
        if stat.S_ISDIR(status.st_mode):
            # By its name: a handle is that of an automount's empty folder.
            file = Descriptor(again(_FOLDER))
            return Opened(file, os.fstat(file.fd), parts)
        if not stat.S_ISREG(status.st_mode):
            raise _missing(errno.ENXIO)
        try:
            file = Descriptor(os.open(f"{_HANDLES}/{handle.fd}", _FILE))
        except FileNotFoundError:  # no /proc
            file = Descriptor(again(_FILE))
        opened = os.fstat(file.fd)
        if (opened.st_dev, opened.st_ino) != (status.st_dev, status.st_ino):
            raise _missing(errno.ESTALE)  # replaced between the two; what is there now is not known
        return Opened(file, opened, parts)

    def _find(self, root: Descriptor, parts: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return the names that are there, each in some Unicode form; None: there are none."""
        if all(map(str.isascii, parts)):
            return None
        ends = [iter(candidates(parts[0]))]
        found: list[str] = []
        while ends:
            name = next(ends[-1], None)
            if name is None:
                ends.pop()
                if found:
                    found.pop()
                continue
            try:
                Descriptor(self._way.open(root, (*found, name), HANDLE))
            except OSError as error:
                if error.errno not in _MISSING:
                    raise
                continue
            found.append(name)
            if len(found) == len(parts):
                return tuple(found)
            ends.append(iter(candidates(parts[len(found)])))
        return None
