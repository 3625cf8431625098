"""Server classes: which one fits a handler, and how it gets a socket that listens already.

The master makes servers, the workers run them; in a pool without `preload` the
workers do both. HTTP runs on the engine. Other streams have a thread per client
in each worker: a silent telnet must not occupy a whole one.
"""

import errno
import socket
import socketserver
import sys
from collections.abc import Mapping
from typing import Any, Final

from prefork import log
from prefork.errors import UsageError
from prefork.http import server as http_server
from prefork.mixin import PreforkMixIn
from prefork.target import Kind, Target
from prefork.wsgi import WSGIServer

#: gunicorn's and httpd's neighbourhood; the stdlib's 5 loses SYNs under any burst.
REQUEST_QUEUE_SIZE: Final = 2048


class _Bound(socket.socket):
    """A listening socket, while a server class does what it does to a new one."""

    __slots__ = ()

    def bind(self, _address: Any, /) -> None:
        """Do nothing: it is bound."""

    def setsockopt(self, *args: Any) -> None:
        """Set an option, unless it is one that only a new socket can have."""
        try:
            super().setsockopt(*args)
        except OSError as error:
            if error.errno != errno.EINVAL or args[:1] != (socket.IPPROTO_IPV6,):
                raise


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


class _Adopting(PreforkMixIn):
    """Stands in front of any server class, whose own hooks are all called.

    listener: what the class's own new socket is replaced by.
    """

    listener: socket.socket
    serves_again = False

    def server_bind(self) -> None:
        """Have the class bind a socket that is bound."""
        self.socket.close()
        self.socket = _Bound(fileno=self.listener.dup().detach())
        super().server_bind()

    def server_activate(self) -> None:
        """Have the class listen, which sets the length of the queue; then it is a plain socket."""
        super().server_activate()
        if type(self.socket) is _Bound:
            plain = socket.socket(fileno=self.socket.detach())
            self.socket = plain


class _StreamServer(_Served, socketserver.ThreadingMixIn, socketserver.TCPServer):
    """TCP and Unix streams, a thread per client."""

    daemon_threads = True  # a worker waits for its clients, not for threads


class _DatagramServer(_Served, socketserver.UDPServer):
    """UDP and Unix datagrams, one at a time: they are short, and replies leave at once."""


class _HTTPServer(_Served, http_server.ThreadingHTTPServer):
    """HTTP on the engine."""

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


class _WSGIServer(_HTTPServer, WSGIServer):
    """A WSGI application on the engine."""

    #: Applications do not hold threads while their clients are silent or slow, as handlers may.
    threads = 16


_FITS: Final[Mapping[Kind, type[PreforkMixIn]]] = {
    Kind.HTTP: _HTTPServer,
    Kind.STREAM: _StreamServer,
    Kind.DATAGRAM: _DatagramServer,
}


def class_for(target: Target, named: type[socketserver.BaseServer] | None) -> type[Any]:
    """Return the class to serve by: the one that was named, or what fits.

    Raises: UsageError for one that knows nothing of applications, if one is to be served.
    """
    if target.application is None:
        return _FITS[target.kind] if named is None else named
    if named is not None and not hasattr(named, "set_app"):
        raise UsageError(
            f"{target.name} is a WSGI application, and {named.__module__}.{named.__qualname__}"
            " is not derived from wsgiref's WSGIServer, which serves those"
        )
    return named or _WSGIServer


def make_server(
    server_class: type[Any], variables: Mapping[str, Any], listener: socket.socket, target: Target
) -> PreforkMixIn:
    """Return a server of this class for a socket that listens.

    variables: of the class, set in a class derived from it; the one that was
    named is never changed.
    Raises: what the class's own `__init__` raises.
    """
    names = {
        "address_family": listener.family,
        "socket_type": listener.type,
        "__module__": server_class.__module__,
        "__doc__": server_class.__doc__,
        **variables,
        "listener": listener,
    }
    derived = type(server_class.__name__.lstrip("_"), (_Adopting, server_class), names)
    address = listener.getsockname()
    server: Any = derived(address, target.handler)
    if type(server.socket) is _Bound:
        server.server_activate()  # its __init__ leaves that to the program
    if target.application is not None:
        server.set_app(target.application)
    made: PreforkMixIn = server
    return made
