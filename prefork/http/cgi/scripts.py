"""Which file a URL means: the folder of scripts, the script, and what follows it.

A worker, in the thread of the handler. It looks at the file system by the
handler's own `translate_path()`, and opens nothing.
"""

import functools
import os
import posixpath
import urllib.parse
from collections.abc import Callable, Sequence
from typing import NamedTuple

from prefork.http.folder import collapse_path


class Script(NamedTuple):
    """One that a request names. name: its URL's path, unquoted. file: absolute.

    path_info: what follows the name in the URL, unquoted; "" if nothing does.
    query: as in the URL. Text of bytes that are no UTF-8 has surrogates (PEP 383).
    """

    name: str
    file: str
    path_info: str
    query: str

    @property
    def is_nph(self) -> bool:
        """Tell whether it speaks HTTP itself ("non-parsed headers", RFC 3875 §5)."""
        return self.name.rpartition("/")[2].startswith("nph-")


def split_url(url: str) -> tuple[str, str]:
    """Return a URL's path, unquoted and collapsed as by `_url_collapse_path()`, and its query.

    A fragment is left out, as `translate_path()` does: what the two take for
    different files could be read where it was to be run.
    Raises: IndexError if ".." climbs out of the root.
    """
    path, _, query = url.partition("#")[0].partition("?")
    return collapse_path(unquote(path)), query


def unquote(text: str) -> str:
    """Return what percent signs stand for, whatever bytes they are."""
    try:
        data = text.encode("latin-1")  # as it came
    except UnicodeEncodeError:
        data = text.encode("utf-8", "surrogateescape")  # a program's own
    return urllib.parse.unquote_to_bytes(data).decode("utf-8", "surrogateescape")


def quote(text: str) -> str:
    """Return text as a URL's path: `translate_path()` unquotes what is unquoted already."""
    return urllib.parse.quote(text, errors="surrogateescape")


def split_folder(path: str, folders: Sequence[str]) -> tuple[str, str] | None:
    """Return the part of a collapsed path that is one of the folders, and the rest, or None.

    folders: however they are written; scripts must not be shown for a slash too many.
    """
    known = _collapsed(tuple(folders))
    if "/" in known:
        return "", path.lstrip("/")
    end = path.find("/", 1)
    while end > 0:
        if path[:end] in known:
            return path[:end], path[end + 1 :]
        end = path.find("/", end + 1)
    return None


@functools.lru_cache(maxsize=64)
def _collapsed(folders: tuple[str, ...]) -> frozenset[str]:
    return frozenset(posixpath.normpath(f"/{folder.lstrip('/')}") for folder in folders)


def find_script(folder: str, rest: str, query: str, translate: Callable[[str], str]) -> Script:
    """Return the script below a folder: the first part of rest that is no folder itself.

    translate: from the path of a URL to that of a file.
    """
    while "/" in rest:
        part, _, after = rest.partition("/")
        if not os.path.isdir(translate(quote(f"{folder}/{part}"))):  # noqa: PTH112 # translate_path() gives a str
            break
        folder, rest = f"{folder}/{part}", after
    script, slash, info = rest.partition("/")
    name = f"{folder}/{script}"
    file = os.path.abspath(translate(quote(name)))  # noqa: PTH100 # Path would resolve ".."
    return Script(name, file, slash + info, query)


def arguments_of(query: str) -> list[str]:
    """Return the words of an indexed query (RFC 3875 §4.4), or none.

    None either where a word looks like an option: php-cgi has obeyed `?-s`
    (CVE-2012-1823), and nobody searches for that.
    """
    if not query or "=" in query:
        return []
    words = [unquote(word) for word in query.split("+")]
    if any(word.startswith("-") or "\0" in word for word in words):
        return []
    return words
