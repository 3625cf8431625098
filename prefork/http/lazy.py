"""Attributes of a handler that are made when they are first wanted: `rfile` and `headers`.

A worker, in the thread of the handler. They are no data descriptors: what they
make, or what a program assigns, stands in the instance and hides them.
"""

import http.client
import io
import re
from typing import TYPE_CHECKING, Any, Final

from prefork.http.body import Body
from prefork.http.wire import Head

if TYPE_CHECKING:
    from prefork.http.connection import Connection

#: Where a handler of the engine's has its connection.
CONNECTION: Final = "_prefork_connection"

# The email parser makes parts of such a body, and of nothing else what is not in the fields.
_IRREGULAR: Final = re.compile(rb"\ncontent-type:[ \t]*(?:multipart|message)/", re.IGNORECASE)


def connection_of(handler: Any) -> "Connection | None":
    """Return the connection that a handler serves; None: the engine knows nothing of it."""
    connection: Connection | None = handler.__dict__.get(CONNECTION)
    return connection


class LazyRfile:
    """`rfile`: a BufferedReader over the body of the request in hand."""

    def __get__(self, handler: Any, owner: type | None = None) -> Any:
        if handler is None:
            return self
        connection = connection_of(handler)
        if connection is None or connection.abandoned:
            raise AttributeError(f"{type(handler).__name__!r} object has no attribute 'rfile'")
        body = connection.body
        if body is None:
            body = Body(connection, 0)
        connection.is_special = True
        rfile = handler.__dict__["rfile"] = connection.rfile = io.BufferedReader(body)
        return rfile


class LazyHeaders:
    """`headers`: an HTTPMessage of the request in hand."""

    def __get__(self, handler: Any, owner: type | None = None) -> Any:
        if handler is None:
            return self
        connection = connection_of(handler)
        if connection is None:
            raise AttributeError(f"{type(handler).__name__!r} object has no attribute 'headers'")
        head = connection.head
        message = handler.MessageClass() if head is None else message_of(handler, head)
        handler.__dict__["headers"] = message
        return message


def message_of(handler: Any, head: Head) -> Any:
    """Return the fields of a head as `parse_headers()` of http.client would."""
    if handler.MessageClass is not http.client.HTTPMessage or _IRREGULAR.search(head.block):
        return http.client.parse_headers(io.BytesIO(head.block), handler.MessageClass)
    message: Any = http.client.HTTPMessage()
    message._headers = list(head.fields)
    message._payload = ""  # as the parser leaves it
    return message
