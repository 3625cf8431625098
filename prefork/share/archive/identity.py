"""Which content a file has, without reading it.

Any process. It never opens anything.
"""

import os
from typing import NamedTuple

from prefork.share.etags import clamped_ns


class Identity(NamedTuple):
    """What changes when a file is replaced, written to, or touched in any way.

    size in bytes; times in nanoseconds since the epoch. The time of change is part of
    it: any program may put the time of modification back, none that one.
    """

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int


def identity_of(status: os.stat_result) -> Identity:
    """Return the identity of a file that has been opened or looked at."""
    return Identity(
        status.st_dev,
        status.st_ino,
        status.st_size,
        clamped_ns(status.st_mtime_ns),
        clamped_ns(status.st_ctime_ns),
    )
