"""The short way of a file that was asked for lately: its open descriptor, and its head ready-made.

A worker, in the loop. It answers GET and HEAD of a whole file, and 304; whatever
else is asked of the file takes its representation from here. What it keeps is
taken at its word for a second, and its content never: each answer looks whether
the file is still as its head says.
"""

import os
import time
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from prefork.http.adopt import is_untouched
from prefork.http.downloads import INLINED
from prefork.http.filecache import SMALL_BYTES, File, identity_of
from prefork.http.heads import date_line, status_lines
from prefork.http.lazy import CONNECTION
from prefork.http.representation import answer
from prefork.share.content import pieces_of

if TYPE_CHECKING:
    from prefork.http.connection import Connection
    from prefork.http.representation import Representation
    from prefork.share.files import Served
    from prefork.share.share import Share

#: What a handler may have in its instance that the short way would pass by.
_HOOKS: Final = frozenset({*INLINED, "protocol_version", "server_version", "sys_version"})
#: Headers of every head.
_OF_ALL: Final = frozenset({"server", "date"})
_ASKS_MORE: Final = frozenset({"if-match", "if-unmodified-since"})
_OK: Final = HTTPStatus.OK
_NOT_MODIFIED: Final = HTTPStatus.NOT_MODIFIED


class Kept(File):
    """A file that was served. lines: of the head of 200; of_304: of that.

    coding: in which the share's compressor has it; None: it goes as it stands.
    extra: headers that are sent unless the head has them.
    """

    __slots__ = ("coding", "content", "etag", "of_304", "representation", "share")

    def __init__(self, share: "Share", served: "Served", extra: Iterable[tuple[str, str]]) -> None:
        assert served.file is not None  # noqa: S101 # the caller's promise
        # A descriptor of its own would be a second one; this object keeps the file's.
        super().__init__("", -1, os.fstat(served.file.fd), time.monotonic())
        self.content = served.file
        self.identity = served.identity
        self.coding = served.coding
        self.share = share
        self.representation: Representation = served.representation
        self.etag = served.representation.etag
        known = {"if-none-match": self.etag or "*"}
        for_200, for_304 = (
            answer(self.representation, "GET", fields, time.time()).headers
            for fields in ({}, known)
        )
        self.lines = _lines(for_200, extra)
        self.of_304 = _lines(for_304, extra)

    def __del__(self) -> None:
        """Close nothing: the descriptor is `content`'s."""


def may_keep(handler: Any) -> bool:
    """Tell whether a handler's class builds its heads by the hooks that are passed by here."""
    cls = type(handler)
    return is_untouched(cls.__dict__.get("_prefork_plain", cls), *INLINED[5:-1])


def key_of(handler: Any, fields: Mapping[str, str]) -> object:
    """Return by what a file is found again."""
    return type(handler), handler.directory, handler.path, fields.get("accept-encoding")


def answer_kept(self: Any, *, body: bool) -> Any:
    """Answer from what is kept; else tell False, or return a `Kept` whose representation will do.

    body: GET, not HEAD.
    """
    members = self.__dict__
    connection: Connection | None = members.get(CONNECTION)
    if (
        connection is None
        or connection.abandoned
        or members.get("_headers_buffer")
        or members["wfile"] is not connection.response
        or not _HOOKS.isdisjoint(members)
        or (head := connection.head) is None
    ):
        return False
    fields = head.shared.values or head.values
    kept = _find(self, connection, fields)
    if kept is None:
        return False
    if head.is_conditional or "range" in fields:
        if fields.get("if-none-match") != kept.etag or not _ASKS_MORE.isdisjoint(fields):
            return kept
        self.log_request(_NOT_MODIFIED)
        lines = _head(self, _NOT_MODIFIED, kept.of_304)
        connection.outbox.send(connection.response.head_of(lines, 0, 304))
        return True
    return _send_whole(self, connection, kept, body=body)


def _find(self: Any, connection: "Connection", fields: Mapping[str, str]) -> Kept | None:
    files = connection.engine.files
    key = key_of(self, fields)
    kept: Any = files.get(key, time.monotonic())
    if kept is None or not kept.share.hosts.allows(fields.get("host")):
        return None
    if identity_of(os.fstat(kept.content.fd)) != kept.identity:
        files.forget(key)
        return None
    found: Kept = kept
    return found


def _send_whole(self: Any, connection: "Connection", kept: Kept, *, body: bool) -> bool:
    if kept.coding is not None:
        return _send_coded(self, connection, kept, body=body)
    size = kept.size
    outbox, response = connection.outbox, connection.response
    if not body:
        self.log_request(_OK)
        outbox.send(response.head_of(_head_of(self, kept), 0))
    elif size > SMALL_BYTES:
        self.log_request(_OK)
        outbox.send_more(response.head_of(_head_of(self, kept), size))
        # It has been looked at this moment. What the client takes later is looked at again.
        sent = outbox.send_file_now(kept.content, 0, size)
        if sent < size:
            outbox.send_source(pieces_of(kept.content, kept.identity, sent, size), size - sent)
    else:
        data = os.pread(kept.content.fd, size + 1, 0)
        if len(data) != size:
            return False  # it has changed this very moment
        self.log_request(_OK)
        outbox.send(response.head_of(_head_of(self, kept), size) + data)
    return True


def _send_coded(self: Any, connection: "Connection", kept: Kept, *, body: bool) -> bool:
    """Send a file as it was compressed before; False: not yet, or others have taken its place."""
    assert kept.coding is not None  # noqa: S101 # the caller's promise
    data = kept.share.compressor.kept(kept.identity, kept.coding)
    if data is None or kept.representation.size != len(data):
        return False
    outbox, response = connection.outbox, connection.response
    self.log_request(_OK)
    if not body:
        outbox.send(response.head_of(_head_of(self, kept), 0))
    elif len(data) <= SMALL_BYTES:
        outbox.send(response.head_of(_head_of(self, kept), len(data)) + data)
    else:
        outbox.send_more(response.head_of(_head_of(self, kept), len(data)))
        outbox.send_whole(data)
    return True


def _head_of(self: Any, kept: Kept) -> bytes:
    """Return the head of 200, without the empty line at its end; made once a second."""
    second = int(time.time())
    if kept.second != second:
        kept.head = _head(self, _OK, kept.lines)
        kept.second = second
    return kept.head


def _head(self: Any, status: HTTPStatus, lines: bytes) -> bytes:
    line, server = status_lines(self, status, None)
    return line + server + date_line() + lines


def _lines(pairs: tuple[tuple[str, str], ...], extra: Iterable[tuple[str, str]]) -> bytes:
    said = {name.lower() for name, _ in pairs} | _OF_ALL
    more = [(str(name), str(value)) for name, value in extra if name.lower() not in said]
    return b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in [*pairs, *more])
