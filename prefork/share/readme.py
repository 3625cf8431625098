"""The text that a folder says about itself.

A worker, any of its threads. It reads at most 64 KiB, and never interprets them.
"""

import codecs
import os
from collections.abc import Sequence
from typing import Final, NamedTuple

from prefork.share.jail import Jail, Opened

_NAMES: Final = ("readme.md", "readme.txt", "readme", "readme.rst", "readme.adoc", "readme.org")
_MOST_BYTES: Final = 1 << 16


class Readme(NamedTuple):
    """is_whole: False where the file is longer than the text."""

    name: str
    text: str
    is_whole: bool


def best_of(names: Sequence[str]) -> str | None:
    """Return that of a folder's files which tells about it."""
    found = {name.lower(): name for name in names if name[:6].lower() == "readme"}
    return next((found[name] for name in _NAMES if name in found), None)


def read_readme(jail: Jail, folder: Opened, name: str | None) -> Readme | None:
    """Return the beginning of a file as text; None where there is none to be had."""
    if name is None:
        return None
    try:
        opened = jail.open_child(folder, name)
        data = os.pread(opened.file.fd, _MOST_BYTES, 0)
    except OSError:  # its permissions, or gone: the folder is shown without
        return None
    is_whole = opened.status.st_size <= len(data)
    is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as Windows writes it
    decoder = codecs.getincrementaldecoder("utf-16" if is_wide else "utf-8-sig")("replace")
    text = decoder.decode(data, final=is_whole)  # else without half a character at its end
    if not text.strip() or "\0" in text:  # binary
        return None
    return Readme(name, text, is_whole)
