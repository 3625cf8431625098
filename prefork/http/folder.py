"""SimpleHTTPRequestHandler: the stdlib's, as its newest version has it, on every Python.

A worker. It serves the files of one folder by nothing but the stdlib's hooks,
in the stdlib's order, and needs no engine. It never reads a file itself:
`copyfile()` or the engine does.

Where the stdlib's versions differ, it follows the newest that breaks no test of
the older:

- `server_version` is 3.15's "SimpleHTTP"; "SimpleHTTP/0.6" before.
- `extra_response_headers` and `default_content_type` are 3.15's. Its private
  argument of `send_header()` is not: handlers override that with two.
- A folder is found with `%2f` at its end too, and a file with it is not: the
  slash is looked for in the unquoted path (3.14).
- The listing is 3.14's page. Its title has no query from Python 3.14 on; the
  tests of 3.11 to 3.13 ask for it, those of 3.14 for its absence.
- `index_pages` is 3.12's; a file's type is guessed by 3.13's `guess_file_type()`
  where there is one.

And otherwise than the stdlib in all its versions: a file is not found either if no
file can have its name, for NUL or half a surrogate pair in it; the stdlib drops the
connection. A listing's title survives the same in a query. FIFOs and devices are no
files: the one would be waited for, the other may have no end.
"""

import datetime as dt
import email.utils
import html
import http.server
import io
import mimetypes
import os
import posixpath
import stat
import sys
import urllib.parse
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, BinaryIO, Final

from prefork.http.handler import BaseHTTPRequestHandler

_guess_file_type: Final = getattr(mimetypes, "guess_file_type", mimetypes.guess_type)
_TITLE_HAS_QUERY: Final = sys.version_info < (3, 14)


class SimpleHTTPRequestHandler(BaseHTTPRequestHandler, http.server.SimpleHTTPRequestHandler):
    """Serves GET and HEAD from `directory`, by default the current one.

    extra_response_headers: pairs of name and value, for the answers with a file
    or a listing, unless such a header is there already.
    """

    server_version = "SimpleHTTP"
    index_pages: Sequence[str] = ("index.html", "index.htm")
    #: For names that say nothing about the type of their content.
    default_content_type = "application/octet-stream"
    extra_response_headers: Iterable[tuple[str, str]] | None = None

    if sys.version_info < (3, 15):

        def __init__(
            self,
            *args: Any,
            directory: str | os.PathLike[str] | None = None,
            extra_response_headers: Iterable[tuple[str, str]] | None = None,
            **kwargs: Any,
        ) -> None:
            self.extra_response_headers = extra_response_headers
            super().__init__(*args, directory=directory, **kwargs)

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        """Send the head for GET and HEAD; return the file to send, which the caller closes."""
        path = self.translate_path(self.path)
        if os.path.isdir(path):  # noqa: PTH112 # os.path, where CPython's tests put another
            parts = urllib.parse.urlsplit(self.path)
            if not parts.path.endswith(("/", "%2f", "%2F")):
                _redirect(self, urllib.parse.urlunsplit(parts._replace(path=parts.path + "/")))
                return None
            for name in self.index_pages:
                page = os.path.join(path, name)  # noqa: PTH118 # as above
                if os.path.isfile(page):  # noqa: PTH113 # as above
                    path = page
                    break
            else:
                return self.list_directory(path)
        content_type = self.guess_type(path)
        try:
            # A file is not found in a folder's place (bpo-17324).
            file = None if path.endswith("/") else _open(path)
        except (OSError, ValueError):  # ValueError: NUL, or what the file system cannot encode
            file = None
        if file is None:
            self.send_error(HTTPStatus.NOT_FOUND, "File not found")
            return None
        try:
            return _send_file_head(self, file, content_type)
        except BaseException:
            file.close()
            raise

    def list_directory(self, path: str | os.PathLike[str]) -> io.BytesIO | None:
        """Send the head of a listing, and return its page; None if there is none to be had."""
        try:
            names = os.listdir(path)  # noqa: PTH208 # translate_path() gives a str
        except OSError:
            self.send_error(HTTPStatus.NOT_FOUND, "No permission to list directory")
            return None
        names.sort(key=lambda name: name.lower())
        charset = sys.getfilesystemencoding()
        page = _listing(path, names, _title(self.path, charset), charset)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-type", f"text/html; charset={charset}")
        self.send_header("Content-Length", str(len(page)))
        self._send_extra_response_headers()
        self.end_headers()
        return io.BytesIO(page)

    def _send_extra_response_headers(self) -> None:
        """Send those that are not there yet (3.15's, by its name)."""
        if self.extra_response_headers is None:
            return
        buffer: list[bytes] = getattr(self, "_headers_buffer", [])  # HTTP/0.9 has no head
        sent = {line.partition(b":")[0].lower() for line in buffer[1:]}
        for name, value in self.extra_response_headers:
            if name.lower().encode("latin-1") not in sent:
                self.send_header(name, value)

    if sys.version_info < (3, 14):

        def translate_path(self, path: str) -> str:
            """Return the file's path for a request's; components that climb are left out."""
            path = _unquote(path.split("#", 1)[0].split("?", 1)[0])
            found = self.directory
            for word in filter(None, posixpath.normpath(path).split("/")):
                # Drives and folders of other systems, and what normpath() could not resolve.
                if os.path.dirname(word) or word in (os.curdir, os.pardir):  # noqa: PTH120 # os.path, where CPython's tests put another
                    continue
                found = os.path.join(found, word)  # noqa: PTH118 # as above
            return found + "/" if path.endswith("/") else found

    if sys.version_info < (3, 15):

        def guess_type(self, path: str | os.PathLike[str]) -> str:
            """Return the content type by the file's suffix, or `default_content_type`."""
            suffix = posixpath.splitext(path)[1]
            for known in (suffix, suffix.lower()):
                if known in self.extensions_map:
                    return self.extensions_map[known]
            return _guess_file_type(path)[0] or self.default_content_type


def collapse_url_path(path: str) -> str:
    """Return the path of a URL unquoted, without "//", "." and ".."; a query stays as it is.

    http.server has it as `_url_collapse_path()`, up to 3.14.
    Raises: IndexError if ".." climbs out of the root.
    """
    path, _, query = path.partition("?")
    path = collapse_path(urllib.parse.unquote(path))
    return f"{path}?{query}" if query else path


def collapse_path(path: str) -> str:
    """Return an unquoted path without "//", "." and "..".

    Raises: IndexError if ".." climbs out of the root.
    """
    *folders, last = path.split("/")
    found: list[str] = []
    for part in folders:
        if part == "..":
            found.pop()
        elif part not in ("", "."):
            found.append(part)
    if last == "..":
        found.pop()
    tail = "" if last in (".", "..") else last
    return f"/{'/'.join(found)}/{tail}"


def _open(path: str) -> BinaryIO | None:
    """Return the open file; None for what is none: a FIFO would be waited for, a device be endless.

    Raises: OSError, ValueError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return os.fdopen(fd, "rb")
    os.close(fd)
    return None


def _redirect(handler: SimpleHTTPRequestHandler, location: str) -> None:
    handler.send_response(HTTPStatus.MOVED_PERMANENTLY)
    handler.send_header("Location", location)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def _send_file_head(
    handler: SimpleHTTPRequestHandler, file: BinaryIO, content_type: str
) -> BinaryIO | None:
    status = os.fstat(file.fileno())
    if _is_unmodified(handler.headers, status.st_mtime):
        handler.send_response(HTTPStatus.NOT_MODIFIED)
        handler.end_headers()
        file.close()
        return None
    handler.send_response(HTTPStatus.OK)
    handler.send_header("Content-type", content_type)
    handler.send_header("Content-Length", str(status.st_size))
    handler.send_header("Last-Modified", handler.date_time_string(status.st_mtime))
    handler._send_extra_response_headers()
    handler.end_headers()
    return file


def _is_unmodified(headers: Any, modified_s: float) -> bool:
    """Tell whether If-Modified-Since says that the client has this file (RFC 9110 §13.1.3)."""
    if "If-Modified-Since" not in headers or "If-None-Match" in headers:
        return False
    try:
        since = email.utils.parsedate_to_datetime(headers["If-Modified-Since"])
    except (TypeError, IndexError, OverflowError, ValueError):
        return False  # no date: as if it were not there
    if since.tzinfo is None:  # "-0000", or the form without a zone
        since = since.replace(tzinfo=dt.UTC)
    if since.tzinfo is not dt.UTC:
        return False
    modified = dt.datetime.fromtimestamp(modified_s, dt.UTC)
    return modified.replace(microsecond=0) <= since


def _unquote(path: str) -> str:
    try:
        return urllib.parse.unquote(path, errors="surrogatepass")
    except UnicodeDecodeError:
        return urllib.parse.unquote(path)


def _title(path: str, charset: str) -> str:
    """Return the heading of a listing, as HTML."""
    if not _TITLE_HAS_QUERY:
        path = path.split("#", 1)[0].split("?", 1)[0]
    title = f"Directory listing for {html.escape(_unquote(path), quote=False)}"
    try:
        title.encode(charset, "surrogateescape")
    except UnicodeEncodeError:  # anything may stand in a query
        return title.encode(charset, "replace").decode(charset)
    return title


def _listing(path: str | os.PathLike[str], names: Iterable[str], title: str, charset: str) -> bytes:
    """Return 3.14's page; folders end with "/", symbolic links are shown with "@"."""
    lines = [
        '<!DOCTYPE HTML>\n<html lang="en">\n<head>',
        f'<meta charset="{charset}">',
        '<style type="text/css">\n:root {\ncolor-scheme: light dark;\n}\n</style>',
        f"<title>{title}</title>\n</head>",
        f"<body>\n<h1>{title}</h1>\n<hr>\n<ul>",
    ]
    for name in names:
        full = os.path.join(path, name)  # noqa: PTH118 # as fast as a large folder needs it
        link = shown = name
        if os.path.isdir(full):  # noqa: PTH112 # as above
            link = shown = name + "/"
        if os.path.islink(full):  # noqa: PTH114 # as above
            shown = name + "@"
        href = urllib.parse.quote(link, errors="surrogatepass")
        lines.append(f'<li><a href="{href}">{html.escape(shown, quote=False)}</a></li>')
    lines.append("</ul>\n<hr>\n</body>\n</html>\n")
    return "\n".join(lines).encode(charset, "surrogateescape")
