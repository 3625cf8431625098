"""Names of files in URLs, in headers and in order: from bytes to bytes, all of them.

A worker, in any thread. It knows nothing of what exists; it opens nothing. Names
are text as `os.fsdecode()` gives it, so that any bytes are one.

What a URL may not say: a backslash as it is, which browsers take for a slash, a
slash that is hidden (`%2F`), NUL, and "..": browsers and curl have resolved it
before they ask. `%5C` is a byte of a name like any other, as on every POSIX file
system, and so are bytes that are no UTF-8, overlong forms and full-width dots: a
URL is decoded once, and the jail proves that nothing escapes. Empty parts and
"." are left out, as nginx does (merge_slashes); who redirects must do it by a
relative URL, for `//host/` is one that leads away.
"""

import os
import re
import unicodedata
import urllib.parse
from typing import Final

_SEGMENT_SAFE: Final = "!$()*+,=:@"  # of pchar (RFC 3986 §3.3), without what HTML must escape
#: What becomes of each byte there: a name by this takes a third of the time that urllib needs.
_IN_SEGMENT: Final = {
    byte: urllib.parse.quote_from_bytes(bytes([byte]), safe=_SEGMENT_SAFE) for byte in range(256)
}
_ATTR_CHARS: Final = "!#$&+^`|"  # of attr-char (RFC 8187 §3.2.1), beside what is never quoted

#: Not for the name of a download: controls, slash, and what turns the direction of writing, so that
#: "exe.txt" is read where "txt.exe" is meant.
_UNFIT: Final = re.compile("[\0-\x1f\x7f-\x9f/\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]")
#: Not in the plain `filename=`: what is no ASCII, what programs unescape (RFC 6266 appendix D).
_UNFIT_PLAIN: Final = re.compile(r'[^ -~]|["\\%]')

_NUMBER: Final = re.compile("0*([0-9]+)")
_MARKS: Final = re.compile("[\u0300-\u036f]+")


def path_of(target: str) -> str:
    """Return the path of a request's target, as it came: without query, scheme and host.

    "" if it has none: `*`, or a host and a port (RFC 9112 §3.2); or if a backslash is in it.
    """
    path = target.partition("?")[0].partition("#")[0]
    if "\\" in path:
        return ""
    if path.startswith("/"):
        return path
    scheme, colon, rest = path.partition("://")
    if colon and scheme.lower() in ("http", "https"):
        return "/" + rest.partition("/")[2]
    return ""


def parts_of(target: str) -> tuple[str, ...] | None:
    """Return the names from the root down to what a request's target means; () is the root.

    target: as in the request line, a character for each byte. None: no file can be meant.
    """
    path = path_of(target)
    if not path:
        return None
    if "%" in path or not path.isascii():
        if "%2f" in path.lower():
            return None
        path = os.fsdecode(_unquote(path))
    if "\0" in path:
        return None
    parts = tuple([part for part in path.split("/") if part and part != "."])
    return None if ".." in parts else parts


def asks_folder(target: str) -> bool:
    """Tell whether a target's path ends in "/", or in what is left out after one."""
    last = path_of(target).rpartition("/")[2]
    return last.lower() in ("", ".", "%2e")


def candidates(name: str) -> tuple[str, ...]:
    """Return how a name may be written on disk: as it is, composed, decomposed.

    macOS and its programs write NFD where all others write NFC; people see the same.
    """
    if name.isascii():
        return (name,)
    forms = (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))
    return tuple(dict.fromkeys(forms))


def disposition(name: str, kind: str = "attachment") -> str:
    """Return a Content-Disposition for a file's name (RFC 6266, RFC 8187).

    What no header or no name of a download may hold is replaced: bytes that are no
    UTF-8 by U+FFFD, controls and marks of direction by "_".
    """
    text = os.fsencode(name).decode("utf-8", "replace")
    text = _UNFIT.sub("_", text)
    plain = _UNFIT_PLAIN.sub("_", text)
    value = f'{kind}; filename="{plain}"'
    if plain == text:
        return value
    return f"{value}; filename*=UTF-8''{urllib.parse.quote(text, safe=_ATTR_CHARS)}"


def natural_key(name: str) -> str:
    """Return text that sorts as people count: "file2" before "file10", whatever the case.

    Accents and leading zeros make no difference: names with the same key are to be
    sorted by themselves.
    """
    key = name.casefold()
    if not key.isascii():
        key = _MARKS.sub("", unicodedata.normalize("NFKD", key))
    return _NUMBER.sub(_counted, key)


def href(name: str, *, is_folder: bool) -> str:
    """Return the relative URL of a file, or of a folder, beside the page that links to it."""
    octets = name if name.isascii() else os.fsencode(name).decode("latin-1")
    url = octets.translate(_IN_SEGMENT)
    if ":" in url:
        url = f"./{url}"  # else what stands before it is a scheme (RFC 3986 §4.2)
    return f"{url}/" if is_folder else url


def _unquote(path: str) -> bytes:
    try:
        data = path.encode("latin-1")  # as it came
    except UnicodeEncodeError:
        data = path.encode("utf-8", "surrogatepass")  # a program's own
    return urllib.parse.unquote_to_bytes(data)


def _counted(number: re.Match[str]) -> str:
    # The zero: among other characters, all numbers stand where digits do.
    digits = number[1]
    return f"0{chr(len(digits))}{digits}"
