"""The server classes of the command line: which one fits a handler and an endpoint.

The master builds them, the workers run them. HTTP runs on the engine. Other
streams have a thread per client in each worker: a silent telnet must not occupy
a whole one.
"""

import contextlib
import os
import socket
import socketserver
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from prefork import log
from prefork.http import server as http_server
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


class _HTTPServer(_DualStack, _Served, http_server.ThreadingHTTPServer):
    """HTTP over TCP, on the engine."""

    allow_reuse_address = True

    def name_of(self, host: str) -> str:
        """Return server_name without a look-up in the DNS, which may block for seconds."""
        return socket.gethostname() if host in ("", "0.0.0.0", "::") else host

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a handler's exception with its request."""
        if http_server.is_gone(request):
            log.debug("client.gone", client=client_address[0])
        else:
            line = http_server.request_line_of(request)
            log.exception("handler.failed", client=client_address[0], request=line)


class _UnixHTTPServer(_UnixFile, _HTTPServer):
    """HTTP over a Unix socket."""


_FITS: Final[Mapping[tuple[Kind, bool], type[Any]]] = {
    (Kind.HTTP, False): _HTTPServer,
    (Kind.HTTP, True): _UnixHTTPServer,
    (Kind.STREAM, False): _StreamServer,
    (Kind.STREAM, True): _UnixStreamServer,
    (Kind.DATAGRAM, False): _DatagramServer,
    (Kind.DATAGRAM, True): _UnixDatagramServer,
}


@dataclass(frozen=True)
class Serving:
    """How to serve, whatever is served and wherever.

    threads, access_log: of HTTP, as `prefork.http.HTTPServer` has them.
    """

    workers: int
    request_queue_size: int
    threads: int | None
    access_log: str


def open_server(kind: Kind, endpoint: Endpoint, handler: Any, serving: Serving) -> PreforkMixIn:
    """Bind and activate the server that fits.

    Raises: OSError as bind() does, StartError for a Unix socket in use.
    """
    base = _FITS[kind, endpoint.family == socket.AF_UNIX]
    variables: dict[str, Any] = {
        "address_family": endpoint.family,
        "request_queue_size": serving.request_queue_size,
        "v6only": endpoint.v6only,
        "workers": serving.workers,
    }
    if kind is Kind.HTTP:
        variables |= {"threads": serving.threads, "access_log": serving.access_log}
    server_class = type(base.__name__.lstrip("_"), (base,), variables)
    server: PreforkMixIn = server_class(endpoint.address, handler)
    return server
