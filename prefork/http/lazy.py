"""Attributes of a handler that are made when they are first wanted: `rfile` and `headers`.

A worker, in the thread of the handler. They behave as plain attributes do: what
they make, or what a program assigns, stands in the instance's `__dict__`; what it
deletes is gone until the next request.
"""

import http.client
import io
import re
from typing import TYPE_CHECKING, Any, Final

from prefork.http.body import ENDLESS, Body
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


class _Lazy:
    """An attribute that stands in the instance from its first use, or assignment, on."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, handler: Any, owner: type | None = None) -> Any:
        if handler is None:
            return self
        members = handler.__dict__
        try:
            return members[self._name]
        except KeyError:
            pass
        connection = connection_of(handler)
        if connection is None or connection.abandoned or self._name in connection.deleted:
            raise AttributeError(
                f"{type(handler).__name__!r} object has no attribute {self._name!r}"
            )
        members[self._name] = value = self._make(handler, connection)
        return value

    def __set__(self, handler: Any, value: Any) -> None:
        handler.__dict__[self._name] = value

    def __delete__(self, handler: Any) -> None:
        self.__get__(handler)  # or there is nothing to delete
        del handler.__dict__[self._name]
        connection = connection_of(handler)
        if connection is not None:
            connection.deleted = (*connection.deleted, self._name)

    def _make(self, handler: Any, connection: "Connection") -> Any:
        raise NotImplementedError


class LazyRfile(_Lazy):
    """`rfile`: a BufferedReader over the body of the request in hand."""

    def _make(self, handler: Any, connection: "Connection") -> Any:  # noqa: ARG002 # its siblings need it
        body = connection.body
        if body is None:
            # Before any request, it is a handle() of the program's own that reads the connection.
            body = Body(connection, ENDLESS if connection.is_unread() else 0)
        connection.is_special = True
        connection.rfile = io.BufferedReader(body)
        return connection.rfile


class LazyHeaders(_Lazy):
    """`headers`: an HTTPMessage of the request in hand."""

    def _make(self, handler: Any, connection: "Connection") -> Any:
        head = connection.head
        return handler.MessageClass() if head is None else message_of(handler, head)


def message_of(handler: Any, head: Head) -> Any:
    """Return the fields of a head as `parse_headers()` of http.client would."""
    if handler.MessageClass is not http.client.HTTPMessage or _IRREGULAR.search(head.block):
        return http.client.parse_headers(io.BytesIO(head.block), handler.MessageClass)
    message: Any = http.client.HTTPMessage()
    message._headers = list(head.fields)
    message._payload = ""  # as the parser leaves it
    return message
