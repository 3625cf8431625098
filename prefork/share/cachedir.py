"""Where a share may keep what it has worked out, such as checksums: the cache directory.

A worker, once, as the user that it has become. What is kept there can be lost
at any time. It never makes more than one folder below one that is there.
"""

import os
import stat
from pathlib import Path
from typing import Final

from prefork import log

_NAME: Final = "prefork"


def cache_directory(said: str) -> str | None:
    """Return a folder that can be written to, made if need be with mode 0700; None: there is none.

    said: by the option; "": systemd's CacheDirectory= ($CACHE_DIRECTORY), else
    $XDG_CACHE_HOME/prefork, else ~/.cache/prefork (XDG Base Directory 0.8).
    One that was said, and cannot be had, is logged, and not replaced by another.
    """
    path = Path(said) if said else _usual()
    if path is None or (reason := _use(path)) is None:
        return None if path is None else str(path)
    tell = log.warning if said else log.debug
    tell("share.no_cache", path=path, reason=reason)
    return None


def _usual() -> Path | None:
    # Of several, systemd separates them by colons (systemd.exec(5)).
    if given := os.environ.get("CACHE_DIRECTORY", "").partition(":")[0]:
        return Path(given)
    # XDG: "relative paths ... must be ignored".
    if (home := Path(os.environ.get("XDG_CACHE_HOME", ""))).is_absolute():
        return home / _NAME
    try:
        return Path.home() / ".cache" / _NAME
    except RuntimeError:  # a user without an entry in the passwd file
        return None


def _use(path: Path) -> str | None:
    """Make the folder, and for ~/.cache/prefork also ~/.cache; return what is in the way."""
    try:
        if path.name == _NAME and path.parent.name == ".cache":
            path.parent.mkdir(0o700, exist_ok=True)
        path.mkdir(0o700, exist_ok=True)
    except OSError as error:  # no place, no right, a file in the way: memory must do
        return error.strerror or str(error)
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        return "it cannot be written to"
    if path.stat().st_mode & stat.S_IWOTH:  # a stranger's file could be read as our own
        return "everybody can write to it"
    return None
