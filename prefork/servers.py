"""Server classes: which one fits a handler, and how it gets a socket that listens already.

The master makes servers, the workers run them; in a pool without `preload` the
workers do both. HTTP runs on the engine, whose ever the server class is; what
else serves several clients at a time has a mix-in over it (`concurrency`).
"""

import errno
import functools
import http.server
import socket
import socketserver
import ssl
import sys
from collections.abc import Mapping
from typing import Any, Final

from prefork import log
from prefork.errors import StartError, UsageError
from prefork.foreign import Maker
from prefork.http import server as http_server
from prefork.http.door import room_for
from prefork.mixin import PreforkMixIn
from prefork.shortage import is_shortage
from prefork.target import Kind, Target
from prefork.wsgi import WSGIServer

#: gunicorn's and httpd's neighbourhood; the stdlib's 5 loses SYNs under any burst.
REQUEST_QUEUE_SIZE: Final = 2048

#: How many clients may have a thread in each worker; the stack takes 8 MB of address space.
THREADS: Final = 512
#: How often a thread or process that the system does not give is asked for, 0.1 s apart.
_TRIES: Final = 20


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
    """Stands in front of any server class, whose own hooks are all called."""

    serves_again = False
    _prefork_listener: socket.socket  #: what the class's own new socket is replaced by
    _prefork_is_bound = False

    def server_bind(self) -> None:
        """Have the class bind a socket that is bound."""
        self._prefork_is_bound = True
        self.socket.close()
        self.socket = _Bound(fileno=self._prefork_listener.dup().detach())
        super().server_bind()

    def server_activate(self) -> None:
        """Have the class listen, which sets the length of the queue; then it is a plain socket."""
        super().server_activate()
        if type(self.socket) is _Bound:
            plain = socket.socket(fileno=self.socket.detach())
            self.socket = plain


class _Handing(_Adopting):
    """Stands in front of a class that gives each request a thread or a process of its own."""

    _prefork_threads: int = THREADS
    _prefork_most: int | None = None

    def has_room(self) -> bool:
        """Tell whether there may be another thread, or another process."""
        if self._prefork_worker is None:
            return True
        if self._prefork_most is None:  # not before: `setup_worker()` may have changed the limits
            self._prefork_most = room_for(self._prefork_threads)
        in_hand = self._prefork_worker.hands.in_threads()
        return in_hand < self._prefork_most and super().has_room()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Have the request processed, as soon as the system has a thread or a process for it."""
        hands = None if self._prefork_worker is None else self._prefork_worker.hands
        for left in reversed(range(_TRIES)):
            if hands is not None and isinstance(self, socketserver.ThreadingMixIn):
                hands.begin(request)
            try:
                super().process_request(request, client_address)
            except Exception as error:  # of the system; a handler's stays where that runs
                if hands is None:
                    raise
                hands.done(request)
                if not left or not is_shortage(error):
                    raise
                hands.fall_short(error)
            else:
                return

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Process the request in its thread."""
        try:
            super().process_request_thread(request, client_address)  # type: ignore[misc] # mix-in's
        finally:
            if self._prefork_worker is not None:
                self._prefork_worker.hands.done(request)


class _StreamServer(_Served, socketserver.TCPServer):
    """TCP and Unix streams. timeout: how long a client may let a handler wait, None: for ever."""

    daemon_threads = True  # a worker waits for its clients, not for threads
    timeout: float | None = None  # not ForkingMixIn's five minutes

    def get_request(self) -> tuple[Any, Any]:
        """Accept a client; StreamRequestHandler's own `timeout` takes the place of the pool's."""
        request, client_address = super().get_request()
        if self.timeout is not None:
            request.settimeout(self.timeout)
        return request, client_address


class _DatagramServer(_Served, socketserver.UDPServer):
    """UDP and Unix datagrams."""

    requests_at_once = 32  # 3 of 12 us each are the loop's
    daemon_threads = True
    timeout: float | None = None

    def get_request(self) -> tuple[Any, Any]:
        """Receive a datagram; where another worker was faster, know it at once."""
        data, client_address = self.socket.recvfrom(self.max_packet_size, socket.MSG_DONTWAIT)
        return (data, self.socket), client_address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a handler's exception; who does not read his answers is none of its faults."""
        deaf = self.socket.family == socket.AF_UNIX and isinstance(sys.exception(), BlockingIOError)
        if deaf:
            log.debug("client.gone", client=client_address)
        else:
            super().handle_error(request, client_address)


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


_MIXINS: Final = (
    socketserver.ThreadingMixIn.process_request,
    socketserver.ForkingMixIn.process_request,
)
_FITS: Final[Mapping[Kind, type[PreforkMixIn]]] = {
    Kind.HTTP: _HTTPServer,
    Kind.STREAM: _StreamServer,
    Kind.DATAGRAM: _DatagramServer,
}


#: What only the engine heeds.
ENGINE: Final = frozenset(
    {"threads", "limits", "access_log", "access_log_fd", "proxies", "forwarders"}
)
#: What the engine's server class has and the stdlib's has not. In a class that has one of these
#: itself it means something else.
_OURS: Final = frozenset(
    name
    for name in vars(http_server.HTTPServer)
    if not hasattr(http.server.HTTPServer, name) and not name.startswith("__")
)


def maker_for(target: Target) -> Maker:
    """Return what makes the servers that fit, where no server class is named."""
    cls: type[Any] = _FITS[target.kind] if target.application is None else _WSGIServer
    return Maker(cls.__name__, cls, cls)


def hands_over(server_class: type[Any]) -> bool:
    """Tell whether requests get a thread or a process each, in the stdlib's own way."""
    return (
        not issubclass(server_class, http_server.HTTPServer)  # the engine has its own threads
        and server_class.process_request in _MIXINS
    )


def make_server(
    maker: Maker, variables: Mapping[str, Any], listener: socket.socket, target: Target
) -> PreforkMixIn:
    """Return a server for a socket that listens.

    variables: of the class, set in a class derived from it; the one that was
    named is never changed. handler: None if the class brings its own.
    Raises: PreforkError, or what the class's own `__init__` raises.
    """
    names = {
        "address_family": listener.family,
        "socket_type": listener.type,
        **variables,
        "_prefork_listener": listener,
    }
    for_engine = {name: names.pop(name) for name in ENGINE & names.keys()}
    if for_engine.get("threads"):
        names["_prefork_threads"] = for_engine["threads"]
    try:
        if maker.cls is None:
            server = _taken_over(maker, names, listener, target.handler)
        else:
            ours = issubclass(maker.cls, http_server.HTTPServer)
            cls = _derived(maker.cls, names | for_engine if ours else names)
            server = maker.call(cls, listener.getsockname(), target.handler)
            _settle(server)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise StartError(
            f"{maker.name} binds a socket of its own, and the address is in use: by this pool;"
            " let it leave that to server_bind(), or bind port 0"
        ) from error
    _require_listener(maker, server, listener)
    _heed(server, names)
    _put_on_engine(maker, server, names, for_engine)
    if target.application is not None:
        maker.require_applications(target, server)
        server.set_app(target.application)
    made: PreforkMixIn = server
    return made


def _derived(cls: type[Any], names: Mapping[str, Any], *below: type[Any]) -> type[Any]:
    about = {"__module__": cls.__module__, "__doc__": cls.__doc__}
    # On the engine ThreadingMixIn only says that there are threads.
    by_itself = not below or issubclass(cls, socketserver.ForkingMixIn)
    front = _Handing if by_itself and hands_over(cls) else _Adopting
    return type(cls.__name__.lstrip("_"), (front, cls, *below), about | dict(names))


def _settle(server: Any) -> None:
    """Do what `__init__()` has left to the program."""
    if not server._prefork_is_bound:
        server.server_bind()
    if type(server.socket) is _Bound:
        server.server_activate()


def _taken_over(
    maker: Maker, names: Mapping[str, Any], listener: socket.socket, handler: Any
) -> Any:
    """Return a server that a function has made, bound or not, on our listener."""
    server: Any = maker.made()
    before = server.socket
    try:
        _require_replaceable(maker, server, listener)
    except UsageError:
        before.close()
        raise
    server.__class__ = _derived(type(server), names)
    if handler is not None:
        server.RequestHandlerClass = handler
    _settle(server)
    before.close()
    if isinstance(before, ssl.SSLSocket) and not isinstance(server.socket, ssl.SSLSocket):
        options: Any = before  # as the ssl module has them; typeshed leaves them out
        server.socket = before.context.wrap_socket(
            server.socket,
            server_side=True,
            do_handshake_on_connect=options.do_handshake_on_connect,
            suppress_ragged_eofs=options.suppress_ragged_eofs,
        )
    return server


def _require_replaceable(maker: Maker, server: Any, listener: socket.socket) -> None:
    if server.socket_type != listener.type:
        raise UsageError(
            f"{maker.name} makes a server of {_sort(server.socket_type)}, and the pool is one"
            f' of {_sort(listener.type)}; say socket_type = "{server.socket_type.name}"'
        )
    if not isinstance(server.socket, ssl.SSLSocket) and type(server.socket) is not socket.socket:
        raise UsageError(
            f"{maker.name} makes a server with a {type(server.socket).__name__} for a socket,"
            " which cannot be replaced; name the server's class"
        )


def _sort(socket_type: int) -> str:
    return "datagrams" if socket_type == socket.SOCK_DGRAM else "streams"


def _require_listener(maker: Maker, server: PreforkMixIn, listener: socket.socket) -> None:
    """Raise StartError for a class that has bound another socket than it was given."""
    here, wanted = server.socket.getsockname(), listener.getsockname()
    if here != wanted:
        server.socket.close()
        raise StartError(f"{maker.name} binds a socket of its own, at {here}, and not at {wanted}")


def _heed(server: PreforkMixIn, names: Mapping[str, Any]) -> None:
    """Make what the config says count where an `__init__()` has said otherwise."""
    for name in names.keys() & vars(server).keys():
        setattr(server, name, names[name])
    # Nobody serves it yet. Some call shutdown() in server_close(), and would wait for ever.
    flags: Any = server
    flags._BaseServer__is_shut_down.set()


def _put_on_engine(
    maker: Maker, server: PreforkMixIn, names: Mapping[str, Any], for_engine: Mapping[str, Any]
) -> None:
    """Have HTTP served by the engine: beneath the server's own class, all of whose hooks count.

    In a class of the stdlib's one silent client would occupy a worker. The class
    is changed when all is made, so that what `__init__()` finds is the stdlib's.
    """
    wanted = server.RequestHandlerClass
    handler = wanted.func if isinstance(wanted, functools.partial) else wanted
    is_http = isinstance(server, http.server.HTTPServer) or (
        isinstance(handler, type) and issubclass(handler, http.server.BaseHTTPRequestHandler)
    )
    if isinstance(server, http_server.HTTPServer) or not is_http:
        return
    clash = sorted(name for name in _OURS if hasattr(server, name))
    if clash:
        log.warning("server.plain", what=maker.name, reason=f"it has a {clash[0]!r} of its own")
        return
    named = type(server).__bases__[1]
    ours = http_server.HTTPServer
    below = () if issubclass(ours, named) else (ours,)  # beneath itself it cannot be
    try:
        server.__class__ = _derived(named if below else ours, {**names, **for_engine}, *below)
    except TypeError as error:  # bases in another order, or a layout of its own
        log.warning("server.plain", what=maker.name, reason=error)
        return
    if server.socket.family != socket.AF_UNIX:
        server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
