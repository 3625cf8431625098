"""Entity tags of files, from what the system tells of them.

A worker, any thread. It opens nothing: whoever has a status, of an opened
descriptor or of a folder's entry, gets the same tag for the same file.
"""

import os
from hashlib import blake2b
from typing import Final

_BITS: Final = 0xFFFF_FFFF_FFFF_FFFF
#: As an array of 64 bits holds them: file systems know times after 2262.
_LATEST_NS: Final = (1 << 63) - 1


def clamped_ns(time_ns: int) -> int:
    """Return a time as 64 bits can hold it."""
    if -_LATEST_NS <= time_ns <= _LATEST_NS:
        return time_ns
    return _LATEST_NS if time_ns > 0 else -_LATEST_NS


def etag(modified_ns: int, size_bytes: int, inode: int) -> str:
    """Return a strong tag (RFC 9110 §8.8.3), quotes included; modified_ns: clamped."""
    return f'"{modified_ns & _BITS:x}-{size_bytes:x}-{inode:x}"'


def etag_of(status: os.stat_result) -> str:
    """Return a file's tag. With its inode, for a file may be replaced by one as old and long."""
    return etag(clamped_ns(status.st_mtime_ns), status.st_size, status.st_ino)


def derived(tag: str, *said: object) -> str:
    """Return a strong tag for what is made from something that has one, and nothing but `said`."""
    return f'"{blake2b(repr((tag, said)).encode(), digest_size=12).hexdigest()}"'
