"""openat2(2), which Python lacks: opening with a rule for the way there.

A worker, in any thread. It has no rule of its own, and asks no second time in
another way.
"""

import ctypes
import errno
import functools
import os
from typing import Final

# include/uapi/linux/openat2.h
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08

_SYS_OPENAT2: Final = 437  # of every architecture but Alpha
#: EAGAIN: something was renamed meanwhile, and ".." could have been anywhere.
_TRIES: Final = 4


class OpenHow(ctypes.Structure):
    """struct open_how."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


_HOW_BYTES: Final = ctypes.sizeof(OpenHow)
_syscall: Final = ctypes.CDLL(None, use_errno=True)["syscall"]
_syscall.restype = ctypes.c_long
_syscall.argtypes = (
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(OpenHow),
    ctypes.c_size_t,
)


@functools.cache
def how(flags: int, resolve: int) -> OpenHow:
    """Return what to ask for; nobody changes it. flags: of open(2), resolve: RESOLVE_*."""
    return OpenHow(flags, 0, resolve)


def openat2(folder_fd: int, path: bytes, asked: OpenHow) -> int:
    """Return a new descriptor for path, looked up from a folder.

    path: without NUL.
    Raises: OSError; EXDEV: the way leads out, ELOOP: through a link that is not wanted, EAGAIN:
    names were moved at each try, ENOSYS or EPERM: the kernel or a filter knows no openat2.
    """
    tries = _TRIES
    while tries:
        fd = int(_syscall(_SYS_OPENAT2, folder_fd, path, asked, _HOW_BYTES))
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        if code == errno.EAGAIN:
            tries -= 1
        elif code != errno.EINTR:  # file systems in user space; once more, as os.open() (PEP 475)
            break
    raise OSError(code, os.strerror(code))


def is_available() -> bool:
    """Ask the kernel; filters of system calls answer what they like."""
    try:
        fd = openat2(-100, b"/", how(os.O_PATH | os.O_CLOEXEC, RESOLVE_NO_MAGICLINKS))  # AT_FDCWD
    except OSError:
        return False
    os.close(fd)
    return True
