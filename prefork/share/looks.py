"""How names and times look to people; and of which kind a file is, by its name.

A worker, any thread. Pure. Nothing here is escaped: templates and encoders do that.
"""

import functools
import os
import re
import time
from typing import Final

KINDS: Final = {
    "image": "jpg jpeg jpe jfif png apng gif webp avif svg bmp ico heic heif tif tiff jxl psd xcf "
    "raw cr2 nef arw dng",
    "video": "mp4 m4v webm ogv mov mkv avi wmv mpg mpeg 3gp flv",
    "audio": "mp3 m4a m4b aac ogg oga opus flac wav weba aif aiff mid midi wma",
    "archive": "zip tar gz tgz bz2 tbz xz txz zst 7z rar br lz lzma cab deb rpm apk iso img dmg "
    "jar whl",
    "document": "pdf doc docx odt ods odp xls xlsx ppt pptx epub mobi rtf djvu ps key pages "
    "numbers",
    "code": "py pyi js mjs ts tsx jsx c h cc cpp hpp rs go java kt rb php pl lua sh bash zsh fish "
    "bat ps1 swift cs scala sql r jl hs ml ex erl clj el vim css scss less html htm xhtml xml json "
    "yaml yml toml ini cfg conf ipynb diff patch wasm",
    "text": "txt md markdown rst adoc org tex log csv tsv srt vtt nfo asc bib",
}
_KIND_OF: Final = {suffix: kind for kind, words in KINDS.items() for suffix in words.split()}

#: What browsers can show in a page.
_SHOWN: Final = {
    "image": "jpg jpeg jpe jfif png apng gif webp avif svg bmp ico",
    "video": "mp4 m4v webm ogv mov mkv",
    "audio": "mp3 m4a m4b aac ogg oga opus flac wav weba",
}
VIEWED: Final = {suffix: kind for kind, words in _SHOWN.items() for suffix in words.split()}

#: Control characters, those without width, and those that turn the direction of what follows
#: (UAX #9): a name must not be able to look like another.
_UNSEEN: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)


def suffix_of(name: str) -> str:
    """Return what follows the last dot, in lower case; "" for a name that only begins with one."""
    stem, _, suffix = name.rpartition(".")
    return suffix.lower() if stem else ""


def kind_of(name: str) -> str:
    """Return image, video, audio, archive, document, code, text or other."""
    return _KIND_OF.get(suffix_of(name), "other")


def viewed_as(name: str) -> str:
    """Return how browsers show a file in a page: image, video, audio; "" if not at all."""
    return VIEWED.get(suffix_of(name), "")


def type_text(name: str) -> str:
    """Return a file's type as its name says it: "JPG"; "" where that says nothing."""
    suffix = suffix_of(name)
    return suffix.upper() if suffix.isascii() and suffix.isalnum() and len(suffix) <= 8 else ""


def text_of(name: str) -> str:
    """Return a name as text: bytes that are no UTF-8 as U+FFFD."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode("utf-8", "replace")
    return name


def visible(name: str) -> str:
    """Return a name as a person may see all of it: line ends and the like as symbols."""
    if name.isascii() and name.isprintable():
        return name
    return _UNSEEN.sub(_symbol, text_of(name))


def _symbol(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # Control Pictures
    return "\u2421" if code == 0x7F else "\ufffd"


@functools.lru_cache(maxsize=4096)
def _minute_text(minute: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(minute * 60))


@functools.lru_cache(maxsize=4096)
def _utc_minute(minute: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M", time.gmtime(minute * 60))


def time_text(modified_ns: int) -> str:
    """Return a time as the server's clock on the wall has it."""
    try:
        return _minute_text(modified_ns // 60_000_000_000)
    except (OverflowError, ValueError, OSError):  # no year of a calendar
        return "unknown"


def time_machine(modified_ns: int) -> str:
    """Return a time for `<time datetime>`, which has milliseconds at most (HTML §2.3.5.7): UTC."""
    minute, rest_ns = divmod(modified_ns, 60_000_000_000)
    try:
        whole = _utc_minute(minute)
    except (OverflowError, ValueError, OSError):
        return ""
    seconds, rest_ns = divmod(rest_ns, 1_000_000_000)
    return f"{whole}:{seconds:02}.{rest_ns // 1_000_000:03}Z"
