"""Clients that have come, until it is known who reads what they send: the engine or a handler.

A worker. A proxy may first have to say who the client is. A client of a handler
that reads by itself waits here, its bytes unread in the socket, until there is
something to read. It never answers anybody.
"""

import re
import select
import socket
from typing import TYPE_CHECKING, Any, Final

from prefork import log
from prefork.desk import Desk
from prefork.http.adopt import Adopted, Style, adopt
from prefork.http.client import ClientSocket
from prefork.http.connection import Connection
from prefork.http.forwarded import Networks
from prefork.http.proxy import ProxyError, parse_proxy
from prefork.http.visit import WAITING

if TYPE_CHECKING:
    from prefork.http.engine import Engine

#: Where a handler class says which requests the loop may answer, though there are threads: called
#: with the head.
QUICK: Final = "_prefork_is_quick"

_NEWS: Final = select.EPOLLIN | select.EPOLLET
# What a request may begin with: a token (RFC 9110 §5.6.2), or an empty line.
_HTTP_START: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z\r\n]")


class Lobby:
    """desk: of the loop's thread."""

    _adopted: Adopted

    def __init__(self, engine: "Engine", desk: Desk) -> None:
        self._engine = engine
        self._server = engine.server
        self._desk = desk
        self._proxies = Networks(self._server.proxies) if self._server.proxies else None

    @property
    def default_request_version(self) -> str:
        """What the handler class takes a request without a version for."""
        return str(getattr(self._class(), "default_request_version", "HTTP/0.9"))

    def adopt(self) -> None:
        """Put the class that is derived from the server's handler class in its place."""
        self._adopted = adopt(self._server.RequestHandlerClass)
        self._server.RequestHandlerClass = self._adopted.handler
        self._engine.have_patience(self._adopted.timeout_s)
        self._engine.is_quick = getattr(self._class(), QUICK, None)

    def _class(self) -> Any:
        handler = self._adopted.handler
        return getattr(handler, "func", handler)  # of a functools.partial

    def welcome(self, sock: ClientSocket, address: Any) -> None:
        """Take a client in, as `Door` has accepted it."""
        engine = self._engine
        connection = Connection(engine, sock, address, self._desk)
        sock.connection = connection
        engine.enter(connection)
        if self._server.RequestHandlerClass is not self._adopted.handler:
            self.adopt()
        connection.timeout_s = self._adopted.timeout_s
        if connection.timeout_s is not None:
            connection.deadline_s = engine.now_s + connection.timeout_s
        connection.announced = self._proxies is not None and address[0] in self._proxies
        engine.safely(self._place, connection)

    def _place(self, connection: Connection) -> None:
        engine = self._engine
        if self._adopted.style is Style.FAST:
            connection.read_head()
        elif self._adopted.style is Style.AT_ONCE and not connection.announced:
            engine.hand_over(connection)
        else:
            connection.wait_for(WAITING, _NEWS)

    def announce(self, connection: Connection, data: bytes) -> bytes | None:
        """Learn from a trusted proxy who the client is; return the bytes after that, or None."""
        try:
            header = parse_proxy(data)
        except ProxyError as error:
            log.warning("proxy.refused", peer=connection.address[0], reason=str(error))
            connection.abort()
            return None
        if header is None:
            return None
        connection.announced = False
        if header.client is not None:
            connection.address = header.client
        return data[header.size :]

    def look(self, connection: Connection) -> None:
        """Hand a client over that has sent what its handler waits for; leave it in the socket."""
        engine = self._engine
        peek = socket.MSG_PEEK | socket.MSG_DONTWAIT
        try:
            data = socket.socket.recv(connection.sock, engine.limits.head_bytes, peek)
        except BlockingIOError:
            connection.wait_for(WAITING, _NEWS)
            return
        except OSError:
            data = b""  # it has gone
        if not data:
            connection.finish()
        elif connection.announced:
            self._hear_announcement(connection, data)
        elif self._is_enough(data):
            engine.hand_over(connection)
        else:
            if not connection.started_s:
                connection.started_s = engine.now_s
                connection.deadline_s = connection.head_deadline_s()
            connection.wait_for(WAITING, _NEWS)

    def _hear_announcement(self, connection: Connection, data: bytes) -> None:
        rest = self.announce(connection, data)
        if rest is not None:
            socket.socket.recv(connection.sock, len(data) - len(rest))
            if self._adopted.style is Style.AT_ONCE:
                self._engine.hand_over(connection)
            else:
                self.look(connection)  # what is there already makes no event
        elif connection.state == WAITING:
            connection.wait_for(WAITING, _NEWS)

    def _is_enough(self, data: bytes) -> bool:
        """Tell whether a handler that reads by itself will not have to wait for the head."""
        return (
            self._adopted.style is Style.FIRST_BYTE
            or b"\n\r\n" in data
            or b"\n\n" in data
            or not _HTTP_START.match(data)
            or len(data) >= self._engine.limits.head_bytes
        )
