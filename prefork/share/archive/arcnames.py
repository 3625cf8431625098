"""Names that every program can unpack: text, without what means more than a name.

Any process. Pure. It knows single names, not paths; it never shortens one.

Bytes that are no UTF-8, controls and backslashes (which Windows takes for slashes)
become %XX, as in a URL; so does the colon of what looks like a drive (APPNOTE 4.4.17.1).
All else stays as it is: what one file system forbids, its programs replace by themselves.
"""

import re
from collections.abc import Collection
from typing import Final

_UNFIT: Final = re.compile("[\0-\x1f\x7f-\x9f\\\\/\ud800-\udfff]|(?<=^[A-Za-z]):")
_find_unfit = _UNFIT.search


def is_fit(name: str) -> bool:
    """Tell whether a name may stand in an archive as it is."""
    return _find_unfit(name) is None


def arc_name(name: str) -> str:
    """Return a name that may stand in an archive.

    name: as `os.fsdecode()` gives it.
    """
    return _UNFIT.sub(_escaped, name)


def unique(name: str, taken: Collection[str]) -> str:
    """Return the name, with "~2", "~3" and so on before its extension if others have it."""
    if name not in taken:
        return name
    stem, dot, extension = name.rpartition(".")
    if not stem:
        stem, dot, extension = name, "", ""
    count = 2
    while (other := f"{stem}~{count}{dot}{extension}") in taken:
        count += 1
    return other


def top_name(name: str) -> str:
    """Return the name of the folder that all entries stand below: never "", "." or ".."."""
    name = arc_name(name)
    return "files" if name.strip(". ") == "" else name


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"%{code - 0xDC00 if code >= 0xD800 else code:02X}"
