"""Where control sockets are: the default places, and how one is opened there.

The master before serving, and commands that look for it. Nothing here accepts,
connects for longer than a look, or reads.
"""

import grp
import os
import socket
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from prefork.errors import StartError
from prefork.sockets import clear_stale

#: The socket's name in its folder; the folder's is that of the config file, without suffix.
NAME: Final = "control.sock"

_SYSTEM: Final = Path("/run/prefork")
_BACKLOG: Final = 128  # twice as many as are served at a time
_PATH_BYTES: Final = 107  # sun_path of unix(7), less its final NUL


def default_control_path(
    config_path: str | Path, uid: int, environ: Mapping[str, str] = os.environ
) -> list[Path]:
    """Return where the control socket of a config may be, the best place first."""
    return [root / Path(config_path).stem / NAME for root in _roots(uid, environ)]


def usable_control_path(paths: Sequence[Path], uid: int) -> Path:
    """Return the first path whose folder exists or can be made, and may be written to.

    Raises: StartError when there is none.
    """
    for path in paths:
        folder, root = path.parent, path.parent.parent
        private = root != _SYSTEM
        with suppress(OSError):  # not this one, then
            if not root.parent.is_dir():
                continue
            _make_folders(folder, 0o700 if private else 0o755)
            if private and not _belongs_to(root, uid):
                continue
            if os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
                return path
    tried = ", ".join(map(str, paths))
    raise StartError(f"no place for the control socket (tried {tried}): name one in [master]")


def found_control_paths(uid: int, environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Return every control socket in the default places, of masters that run or have run."""
    return [
        path
        for root in _roots(uid, environ)
        if is_trusted(root / "any" / NAME, uid)
        for path in sorted(root.glob(f"*/{NAME}"))
    ]


def is_trusted(path: Path, uid: int) -> bool:
    """Tell whether nobody else can have put a socket at this default place."""
    root = path.parent.parent
    return root == _SYSTEM or _belongs_to(root, uid)


def open_control(path: Path, mode: int = 0o600, group: str | int | None = None) -> socket.socket:
    """Listen at a path: a missing folder is made (0755), what a dead master has left is removed.

    mode: of the file, 0o600 lets in its owner (and root) alone. At no moment
    can anybody connect whom the mode keeps out. group: its name or number.
    Raises: StartError; a running master at this path is one reason.
    """
    if len(os.fsencode(path)) > _PATH_BYTES:
        raise StartError(f"cannot open the control socket {path}: over {_PATH_BYTES} bytes long")
    gid = -1 if group is None else _gid(group)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound = False
    try:
        _make_folders(path.parent, 0o755)
        clear_stale(str(path), socket.SOCK_STREAM)
        # What the file's mode will be, less the umask; and nobody can connect before listen().
        os.fchmod(sock.fileno(), mode & stat.S_IRWXU)
        sock.bind(os.fspath(path))
        bound = True
        if gid >= 0:
            os.chown(path, -1, gid)
        path.chmod(mode)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        if bound:
            path.unlink(missing_ok=True)
        raise StartError(f"cannot open the control socket {path}: {error.strerror}") from None
    except StartError:
        sock.close()
        raise
    return sock


def _roots(uid: int, environ: Mapping[str, str]) -> list[Path]:
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    own = [Path(runtime) / "prefork"] if runtime.startswith("/") else []
    return [_SYSTEM, *own, Path(f"/tmp/prefork-{uid}")]  # noqa: S108 # its owner is looked at


def _make_folders(folder: Path, mode: int) -> None:
    """Make a folder and those above it; what is there stays as it is."""
    if folder.is_dir():
        return
    _make_folders(folder.parent, mode)
    with suppress(FileExistsError):
        folder.mkdir(mode & stat.S_IRWXU)
        folder.chmod(mode)  # whatever the umask


def _belongs_to(folder: Path, uid: int) -> bool:
    """Tell whether a folder, no link to one, is a user's, and no other may write to it."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not shared


def _gid(group: str | int) -> int:
    text = str(group)
    if text.isascii() and text.isdecimal():
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise StartError(f"no group is named {text!r} (control_group)") from None
