"""What a file's content is called: its media type, its charset, and what a browser may do with it.

A worker. It reads the beginning and the end of a file whose type says text, and
nothing else.
"""

import codecs
import os
from typing import Final

_LOOK_BYTES: Final = 1 << 16
#: Types of text that a program reads; what stands before their names decides in all others.
_TEXTS: Final = frozenset(
    {
        "application/javascript",
        "application/json",
        "application/ld+json",
        "application/manifest+json",
        "application/toml",
        "application/wasm",
        "application/x-javascript",
        "application/x-sh",
        "application/x-yaml",
        "application/xml",
        "application/yaml",
        "image/bmp",
        "image/svg+xml",
    }
)
#: These say by themselves, or by their standard, what charset they are in.
_SELF_TOLD: Final = ("+xml", "/xml", "json", "/wasm", "/bmp", "/toml", "/pdf")
#: What a browser would run the scripts of.
_ACTIVE: Final = ("text/html", "text/xml", "application/xml", "application/xhtml+xml")

UNKNOWN: Final = "application/octet-stream"


def describe(content_type: str, fd: int, size: int) -> str:
    """Return the Content-Type of a file: with its charset, if that is UTF-8 and the type is text's.

    A name that says nothing stands for text/plain if the content is such text: a
    person wants to read it. content_type: what the name says.
    """
    essence = essence_of(content_type)
    if "charset" in content_type.lower() or not (
        content_type == UNKNOWN or _wants_charset(essence)
    ):
        return content_type
    if not _is_utf8(fd, size, strict=content_type == UNKNOWN):
        return content_type
    return f"{'text/plain' if content_type == UNKNOWN else content_type}; charset=utf-8"


def is_text(content_type: str) -> bool:
    """Tell whether compression pays: text and what is like it."""
    essence = essence_of(content_type)
    return essence.startswith("text/") or essence in _TEXTS or essence.endswith(("+xml", "+json"))


def is_active(content_type: str) -> bool:
    """Tell whether a browser would run scripts of such a file, as this site's own."""
    essence = essence_of(content_type)
    return essence in _ACTIVE or essence.endswith("+xml")


def essence_of(content_type: str) -> str:
    """Return a media type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def _wants_charset(essence: str) -> bool:
    text = essence.startswith("text/") or essence in _TEXTS
    return text and not essence.endswith(_SELF_TOLD)


def _is_utf8(fd: int, size: int, *, strict: bool) -> bool:
    """Tell whether the beginning and the end of a file are UTF-8, without control characters.

    strict: nothing but its content says that it is text, and an empty file says nothing.
    """
    start = os.pread(fd, _LOOK_BYTES, 0)
    if not start:
        return not strict
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start, len(start) == size)
        if size > _LOOK_BYTES:
            end = os.pread(fd, _LOOK_BYTES, max(_LOOK_BYTES, size - _LOOK_BYTES))
            # It may begin within a character, of which three bytes at most are missing.
            cut = next((at for at, byte in enumerate(end[:4]) if byte & 0xC0 != 0x80), 3)
            end[cut:].decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in start and not (strict and _CONTROLS.intersection(start))


#: What text has not: C0 but for white space, escape sequences and form feeds.
_CONTROLS: Final = frozenset(range(32)) - frozenset(b"\t\n\r\f\b\x1b")
