"""When the system has no more of something, and how long to wait for it.

A worker, wherever it takes clients or starts something. A leaf: it waits for
nothing itself.
"""

import errno
from typing import Final

#: Errors of a system that has no descriptor, memory, process or thread left.
SHORTAGE: Final = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
#: How long nothing is taken then, in seconds. Without the pause a ready listener would spin the
#: process until something else gives back what is missing.
SHORTAGE_S: Final = 0.1


def is_shortage(error: BaseException) -> bool:
    """Tell whether the system had none of these left."""
    if isinstance(error, OSError):
        return error.errno in SHORTAGE
    return isinstance(error, RuntimeError)  # Thread.start() has no other way to say it
