"""Request lines that `http.server` takes and RFC 9112 does not: for servers that serve alone.

The process of a library server. Nobody stands before or behind such a server
who could read the line otherwise, so it keeps the stdlib's word; a worker
refuses these lines. It never relaxes what says where a request ends.
"""

import re
from dataclasses import replace
from typing import Final

from prefork.http.wire import Head, Parser, WireError

_LINE: Final = re.compile(rb"[^\r\n]*")
_VERSION: Final = re.compile(rb"HTTP/1\.[0-9]")


def parse_anyway(parser: Parser, data: bytes, default_version: str) -> Head | None:
    """Return the head that the stdlib would see; None: it would not either.

    A target without a slash; a line with white space after it; no version,
    where the handler class has another default than HTTP/0.9.
    """
    found = _LINE.match(data)
    end = data.find(b"\r\n")
    if found is None or end < 0:
        return None
    words = found[0].split()
    if len(words) == 2 and words[0] == b"GET" and default_version != "HTTP/0.9":
        words.append(default_version.encode("latin-1"))
    if len(words) != 3 or not _VERSION.fullmatch(words[2]) or data[found.end() : end].strip():
        return None
    method, target, version = words
    slash = b"" if target.startswith((b"/", b"*")) else b"/"
    line = b"%b %b%b %b" % (method, slash, target, version)
    try:
        head = parser.parse(line + data[end:])
    except WireError:
        return None
    if head is None:
        return None
    path = target.decode("latin-1") if slash else head.attributes["path"]
    requestline = found[0].decode("latin-1")
    raw = data[: end + 2]
    return replace(
        head,
        size=head.size - len(line) + end,
        attributes=head.attributes
        | {"path": path, "requestline": requestline, "raw_requestline": raw},
    )
