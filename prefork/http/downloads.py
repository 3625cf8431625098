"""Files sent faster: hooks of SimpleHTTPRequestHandler that `adopt` puts in its place.

A worker, in the thread of the handler. A file that was asked for lately leaves
by its open descriptor; a large one by sendfile(2), in the loop, so that a slow
client holds no thread. Whatever is no plain file, or asked for under
conditions, goes the class's own way.
"""

import io
import os
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from prefork.http.filecache import SMALL_BYTES, File, SpecialFileError
from prefork.http.heads import date_line, status_lines
from prefork.http.lazy import CONNECTION
from prefork.http.outbox import Descriptor
from prefork.http.response import LENGTH

if TYPE_CHECKING:
    from prefork.http.connection import Connection

#: What these hooks do on the way, or read; a handler that has its own in the instance gets them
#: called.
INLINED: Final = (
    "send_head",
    "translate_path",
    "guess_type",
    "copyfile",
    "list_directory",
    "send_response",
    "send_response_only",
    "send_header",
    "end_headers",
    "flush_headers",
    "version_string",
    "date_time_string",
    "responses",
)
_INLINED: Final = frozenset(
    {
        *INLINED,
        "extensions_map",
        "index_pages",
        "protocol_version",
        "server_version",
        "sys_version",
    }
)
_OK: Final = HTTPStatus.OK

_Method = Callable[[Any], None]


def getting(plain: _Method) -> _Method:
    """Return do_GET; plain: the class's own."""

    def send(self: Any, connection: Any, file: File) -> None:
        size = file.size
        if size > SMALL_BYTES:
            if _has_changed(file, connection):
                plain(self)
                return
            self.log_request(_OK)
            outbox = connection.outbox
            outbox.send_more(connection.response.head_of(_head(self, file), size))
            outbox.send_file(file, 0, size)
        else:
            body = os.pread(file.fd, size + 1, 0)
            if len(body) != size:  # it has changed this very second
                connection.engine.files.clear()
                plain(self)
                return
            self.log_request(_OK)
            connection.outbox.send(connection.response.head_of(_head(self, file), size) + body)

    return _answering(plain, send)


def heading(plain: _Method) -> _Method:
    """Return do_HEAD; plain: the class's own."""

    def send(self: Any, connection: Any, file: File) -> None:
        if _has_changed(file, connection):
            plain(self)
        else:
            self.log_request(_OK)
            connection.outbox.send(connection.response.head_of(_head(self, file), 0))

    return _answering(plain, send)


def _answering(plain: _Method, send: Callable[[Any, Any, File], None]) -> _Method:
    """Return what sends a file that is known or can be found, else goes the class's own way."""

    def do(self: Any) -> None:
        connection = self.__dict__.get(CONNECTION)
        try:
            file = _find(self, connection)
        except SpecialFileError:
            self.send_error(HTTPStatus.NOT_FOUND, "File not found")
            return
        if file is None:
            plain(self)
        else:
            send(self, connection, file)

    return do


def copying(plain: Callable[[Any, Any, Any], None]) -> Callable[[Any, Any, Any], None]:
    """Return copyfile(); plain: the class's own."""

    def copyfile(self: Any, source: Any, outputfile: Any) -> None:
        connection = self.__dict__.get(CONNECTION)
        known = (
            connection is not None
            and outputfile is connection.response
            and connection.response.mode == LENGTH
        )
        if known and type(source) is io.BytesIO:
            _send_page(connection, source)
            return
        whole = known and type(source) is io.BufferedReader and type(source.raw) is io.FileIO
        if not whole:
            plain(self, source, outputfile)
            return
        response = connection.response
        count, response.left = response.left, 0
        response.sent += count
        if count:
            descriptor = Descriptor(os.dup(source.fileno()))  # the caller closes its own
            connection.outbox.send_file(descriptor, source.tell(), count)

    return copyfile


def _send_page(connection: Any, source: io.BytesIO) -> None:
    """Send the listing of a folder; nobody waits while a slow client takes it, if there is room."""
    response, engine = connection.response, connection.engine
    data = source.read(response.left)
    response.left -= len(data)
    response.sent += len(data)
    if len(data) > engine.limits.buffer_bytes and engine.has_memory():
        connection.outbox.send_whole(data)
    else:
        connection.outbox.send(data)


def _find(self: Any, connection: "Connection | None") -> File | None:
    members = self.__dict__
    if connection is None or connection.abandoned or not _INLINED.isdisjoint(members):
        return None
    if members.get("_headers_buffer"):
        return None  # something of a head is there already
    head = connection.head
    if head is None or head.is_conditional or members["wfile"] is not connection.response:
        return None
    files, now_s = connection.engine.files, time.monotonic()
    key = type(self), self.directory, self.path.partition("?")[0]
    file = files.get(key, now_s)
    if file is not None:
        return file
    path = self.translate_path(self.path)
    if path.endswith("/"):
        path = next(filter(os.path.isfile, (path + name for name in _index_pages(self))), "")
    if not path or not os.path.isabs(path):  # noqa: PTH117 # Path costs more; relative: to which cwd?
        return None

    def describe(file: File, modified_s: float) -> bytes:
        lines = [
            f"Content-type: {self.guess_type(path)}",
            f"Content-Length: {file.size}",
            f"Last-Modified: {self.date_time_string(modified_s)}",
        ]
        return "".join(f"{line}\r\n" for line in lines).encode("latin-1")

    return files.open(key, path, now_s, describe)


def _has_changed(file: File, connection: Any) -> bool:
    """Tell whether the length in the head is not the file's any more; then nothing is believed."""
    if os.fstat(file.fd).st_size == file.size:
        return False
    connection.engine.files.clear()
    return True


def _index_pages(self: Any) -> tuple[str, ...]:
    return tuple(getattr(self, "index_pages", ("index.html", "index.htm")))


def _head(self: Any, file: File) -> bytes:
    """Return the head's lines, without the empty one at its end."""
    second = int(time.time())
    extra = getattr(self, "extra_response_headers", None)
    if file.second == second and not extra:
        return file.head
    status, server = status_lines(self, _OK, None)
    lines = status + server + date_line() + file.lines
    if extra:
        return lines + _lines_of(extra, lines)
    # The second last: another thread may be about to read both.
    file.head, file.second = lines, second
    return lines


def _lines_of(extra: Any, lines: bytes) -> bytes:
    sent = {line.partition(b":")[0].lower() for line in lines.split(b"\r\n")}
    pairs = [(str(name).encode("latin-1"), str(value).encode("latin-1")) for name, value in extra]
    return b"".join(b"%b: %b\r\n" % pair for pair in pairs if pair[0].lower() not in sent)
