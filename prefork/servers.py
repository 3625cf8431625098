"""The server classes of the command line: which one fits a handler and an endpoint.

The master builds them, the workers run them. Streams have a thread per client
in each worker, as `python -m http.server` has: a browser's spare connection or
a silent telnet must not occupy a whole worker.
"""

import contextlib
import http.server
import os
import socket
import socketserver
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from prefork import log
from prefork.mixin import PreforkMixIn
from prefork.sockets import Endpoint, clear_stale
from prefork.target import Kind

#: gunicorn's and httpd's neighbourhood; the stdlib's 5 loses SYNs under any burst.
REQUEST_QUEUE_SIZE: Final = 2048


class _Served(PreforkMixIn):
    """The mix-in with what a service wants to read in its log."""

    serves_again = False

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 # socketserver's
        """Log a handler's exception; a client that went away is none of its faults."""
        who = client_address[0] if isinstance(client_address, tuple) else client_address
        if isinstance(sys.exception(), ConnectionError | TimeoutError):
            log.debug("client.gone", client=who)
        else:
            log.exception("handler.failed", client=who)


class _DualStack(socketserver.TCPServer):
    """An IPv6 socket that takes IPv4 clients too, or leaves them to another, as it is told."""

    v6only: bool | None = None

    def server_bind(self) -> None:
        if self.v6only is not None:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, self.v6only)
        super().server_bind()


class _StreamServer(_DualStack, _Served, socketserver.ThreadingMixIn, socketserver.TCPServer):
    """TCP, a thread per client."""

    allow_reuse_address = True
    daemon_threads = True  # a worker waits for its clients, not for threads


class _DatagramServer(_DualStack, _Served, socketserver.UDPServer):
    """UDP, one datagram at a time: they are short, and replies leave at once."""


class _UnixFile(socketserver.TCPServer):
    """A socket file that is there while the server is, for its owner and group."""

    _inode: tuple[int, int] | None = None

    def server_bind(self) -> None:
        path = str(self.server_address)
        named = not path.startswith("\0")
        if named:
            clear_stale(path, self.socket.type)
        before = os.umask(0o117)  # 0660: between waitress's 0600 and everybody
        try:
            super().server_bind()
        finally:
            os.umask(before)
        if named:
            entry = Path(path).lstat()
            self._inode = entry.st_dev, entry.st_ino

    def server_close(self) -> None:
        super().server_close()
        if self._inode is None:
            return
        path = Path(str(self.server_address))
        with contextlib.suppress(OSError):  # gone already: that is what is wanted
            entry = path.lstat()
            if (entry.st_dev, entry.st_ino) == self._inode:
                path.unlink()


class _UnixStreamServer(
    _UnixFile, _Served, socketserver.ThreadingMixIn, socketserver.UnixStreamServer
):
    """Unix stream sockets, a thread per client."""

    daemon_threads = True


class _UnixDatagramServer(_UnixFile, _Served, socketserver.UnixDatagramServer):
    """Unix datagram sockets, one datagram at a time."""


class _NamedHTTPServer(http.server.HTTPServer):
    """HTTPServer without its look-up of a name in the DNS, which may block for seconds."""

    allow_reuse_port = False  # 3.14 switches it on, and a port in use would go unnoticed

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = socket.gethostname(), 0
        if self.address_family != socket.AF_UNIX:
            host, port = self.server_address[:2]
            self.server_name = self.server_name if host in ("0.0.0.0", "::") else str(host)
            self.server_port = int(port)


class _HTTPServer(_StreamServer, _NamedHTTPServer):
    """HTTP over TCP."""

    def server_bind(self) -> None:
        # Accepted sockets inherit it. http.server writes head and body apart, and with Nagle's
        # algorithm the body on a kept connection waits 40 ms for the client's delayed ACK.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        super().server_bind()


class _UnixHTTPServer(_UnixStreamServer, _NamedHTTPServer):
    """HTTP over a Unix socket."""

    def get_request(self) -> tuple[Any, Any]:
        # A Unix client's address is '', and BaseHTTPRequestHandler.address_string() wants a tuple.
        request, _ = super().get_request()
        return request, ("unix", 0)


_FITS: Final[Mapping[tuple[Kind, bool], type[Any]]] = {
    (Kind.HTTP, False): _HTTPServer,
    (Kind.HTTP, True): _UnixHTTPServer,
    (Kind.STREAM, False): _StreamServer,
    (Kind.STREAM, True): _UnixStreamServer,
    (Kind.DATAGRAM, False): _DatagramServer,
    (Kind.DATAGRAM, True): _UnixDatagramServer,
}


def open_server(
    kind: Kind, endpoint: Endpoint, handler: Any, workers: int | str, request_queue_size: int
) -> PreforkMixIn:
    """Bind and activate the server that fits.

    Raises: OSError as bind() does, StartError for a Unix socket in use.
    """
    base = _FITS[kind, endpoint.family == socket.AF_UNIX]
    variables = {
        "address_family": endpoint.family,
        "request_queue_size": request_queue_size,
        "v6only": endpoint.v6only,
        "workers": workers,
    }
    server_class = type(base.__name__.lstrip("_"), (base,), variables)
    server: PreforkMixIn = server_class(endpoint.address, handler)
    return server
