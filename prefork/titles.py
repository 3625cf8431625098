"""Process titles, of any bytes: setproctitle takes and gives UTF-8 only.

Master and worker.
"""

from pathlib import Path

import setproctitle


def get_title() -> str:
    """Return this process's title, bytes that are no UTF-8 as escapes."""
    try:
        return setproctitle.getproctitle()
    except UnicodeDecodeError:
        raw = Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
        return raw.decode("utf-8", "backslashreplace")


def set_title(title: str) -> None:
    """Set this process's title; names from the file system may hold surrogates."""
    raw = title.encode("utf-8", "surrogateescape")
    setproctitle.setproctitle(raw.decode("utf-8", "backslashreplace"))
