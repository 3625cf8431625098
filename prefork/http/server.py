"""`HTTPServer` and `ThreadingHTTPServer`: the stdlib's, on the engine.

Any process: alone by `serve_forever()` or `handle_request()`, as in the stdlib,
or in each worker behind PreforkMixIn. Where a subclass changes how clients are
accepted (`get_request`, TLS around `socket`, ForkingMixIn), it gets the stdlib's
own way of serving, and loses nothing but speed.
"""

import contextlib
import http.server
import os
import select
import socket
import socketserver
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from prefork import log
from prefork.desk import Desk
from prefork.http.adopt import defines
from prefork.http.body import CutShortError
from prefork.http.client import ClientSocket
from prefork.http.engine import Engine
from prefork.http.limits import Limits
from prefork.http.pool import Pool
from prefork.loop import Loop

if TYPE_CHECKING:
    from prefork.http.connection import Connection

_Process = Callable[[Any, Any], None]

_Threading: Final = socketserver.ThreadingMixIn
_MANY: Final = 512  # threads of a process; each takes 8 MB of address space, and little more

_WAKING: Final = threading.Lock()

#: How long a client of a handler that reads by itself may be silent when all is to end.
_IDLE_S: Final = 0.1

#: How soon another request of the same client belongs to the same `handle_request()`.
_NEXT_S: Final = 0.1


class HTTPServer(http.server.HTTPServer):
    """Handlers run one at a time, in the thread that serves; clients that only wait cost nothing.

    It takes the stdlib's arguments and calls its hooks: `verify_request`,
    `process_request`, `finish_request`, `handle_error`, `shutdown_request`,
    `service_actions`, `handle_timeout`. `verify_request` and those after it are
    called when the head of a client's first request is complete. A handler
    that overrides `handle`, `handle_one_request`, `setup` or `finish` keeps the
    thread until its client has gone, as in the stdlib.
    """

    request_queue_size = 2048  # the stdlib's 5 loses clients for a second in any burst
    allow_reuse_port = False  # 3.14 switches it on, and a port in use would go unnoticed

    #: How many threads may run handlers; 0: the loop's own, one request at a time. None: 0, or
    #: with ThreadingMixIn 512.
    threads: ClassVar[int | None] = None
    #: How long and how large anything of a client may be.
    limits: ClassVar[Limits] = Limits()
    #: Who writes the access log: None, each handler's own `log_message()`, as in the stdlib; or
    #: the server, to stderr: "off", "common", "combined", "json", or for people "short". A handler
    #: class that overrides `log_request()` or `log_message()` goes on doing so.
    access_log: ClassVar[str | None] = None
    #: The descriptor that this log goes to, opened to append: stderr, if nothing else is said.
    access_log_fd: ClassVar[int] = 2
    #: Addresses and networks of proxies that begin each connection with a PROXY header, v1 or v2.
    proxies: ClassVar[Sequence[str]] = ()
    #: Those whose Forwarded and X-Forwarded-* fields are believed; "unix": whoever comes by a
    #: Unix socket.
    forwarders: ClassVar[Sequence[str]] = ()

    _engine: Engine | None = None
    _loop: Loop | None = None
    _waker: tuple[int, int] | None = None
    _pool: Pool | None = None  # the last engine's: `server_close()` comes when that has gone

    def server_bind(self) -> None:
        """Bind; what is accepted will have TCP_NODELAY."""
        if self.address_family != socket.AF_UNIX:
            # Accepted sockets inherit it. Head and body are often written apart, and with Nagle's
            # algorithm the body on a kept connection waits 40 ms for the client's delayed ACK.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        socketserver.TCPServer.server_bind(self)
        if self.address_family == socket.AF_UNIX:
            self.server_name, self.server_port = self.name_of(""), 0
        else:
            self.server_name = self.name_of(str(self.server_address[0]))
            self.server_port = int(self.server_address[1])

    def name_of(self, host: str) -> str:
        """Return what `server_name` shall be: the stdlib looks it up in the DNS."""
        return socket.getfqdn(host)

    # -- in a worker ----------------------------------------------------------

    def open_engine(self, loop: Loop, desk: Desk) -> Engine | None:
        """Return what serves this server's clients in a worker's loop; None: `handle_request()`."""
        if not self._has_plain_hooks():
            return None
        self._engine = Engine(self, loop, desk)
        return self._engine

    def thread_count(self) -> int:
        """Return how many threads may run handlers."""
        if self.threads is not None:
            return self.threads
        return _MANY if defines(self, "process_request") is _Threading.process_request else 0

    def process_hook(self) -> tuple[bool, _Process]:
        """Return what a first request is given to, and whether it is the program's own."""
        process = defines(self, "process_request")
        if process is _Threading.process_request:
            thread = defines(self, "process_request_thread")
            if thread is not _Threading.process_request_thread:
                return True, self.process_request_thread  # type: ignore[attr-defined] # the mix-in's
        elif process is not socketserver.BaseServer.process_request:
            return True, self.process_request
        return False, self.finish_request

    def _has_plain_hooks(self) -> bool:
        return (
            type(self.socket) is socket.socket
            and defines(self, "get_request") is socketserver.TCPServer.get_request
            and not hasattr(self, "active_children")  # ForkingMixIn's
        )

    # -- alone ----------------------------------------------------------------

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Serve until `shutdown()`; call `service_actions()` every poll_interval seconds."""
        if not self._has_plain_hooks():
            super().serve_forever(poll_interval)
            return
        flags: Any = self
        flags._BaseServer__is_shut_down.clear()
        try:
            engine, loop = self._open()
            while not flags._BaseServer__shutdown_request:
                loop.turn(min(poll_interval, engine.wait_s))
                if flags._BaseServer__shutdown_request:
                    break
                engine.tick(time.monotonic())
                self.service_actions()
            engine.retire()  # or there would always be another answer under way
            self._settle()
        finally:
            flags._BaseServer__shutdown_request = False
            self._close_engine()
            flags._BaseServer__is_shut_down.set()

    def shutdown(self) -> None:
        """End `serve_forever()`, which runs in another thread, and wait for it."""
        flags: Any = self
        flags._BaseServer__shutdown_request = True
        with _WAKING:
            if self._waker is not None:
                os.eventfd_write(self._waker[0], 1)
        # Not by super(), which would set the flag once more, for the next serve_forever().
        while not flags._BaseServer__is_shut_down.wait(_IDLE_S):
            # A handler that reads by itself may wait in the serving thread for its client's next
            # request, for as long as that likes to stay connected.
            engine = self._engine
            if engine is not None:
                engine.hang_up_idle(0)

    def handle_request(self) -> None:
        """Answer one request, or call `handle_timeout()` after `timeout` seconds without any.

        A client that stays connected but falls silent is heard again in the next call.
        """
        if not self._has_plain_hooks():
            super().handle_request()
            return
        engine, loop = self._open()
        times = [t for t in (self.socket.gettimeout(), self.timeout) if t is not None]
        limit_s = time.monotonic() + min(times) if times else None
        before = engine.taken
        left_s = engine.wait_s
        while True:
            if limit_s is not None:
                left_s = limit_s - time.monotonic()
            # Whoever is there already is served, whatever the time; with a timeout of 0, too.
            loop.turn(max(0.0, min(engine.wait_s, left_s)))
            engine.tick(time.monotonic())
            if engine.taken != before:
                break
            if left_s <= 0:
                self.handle_timeout()
                return
        # As in the stdlib, where this serves a connection to its end, the client's next request is
        # this call's affair if it follows at once.
        idle_s = time.monotonic()
        while engine.last_is_open() and time.monotonic() - idle_s < _NEXT_S:
            before = engine.taken
            loop.turn(_NEXT_S)
            engine.tick(time.monotonic())
            if engine.taken != before:
                idle_s = time.monotonic()
        self._settle()

    def server_close(self) -> None:
        """Close the listening socket and every client's; wait for threads that are no daemons."""
        self._close_engine()
        super().server_close()
        pool, self._pool = self._pool, None
        waits = getattr(self, "block_on_close", True) and not getattr(self, "daemon_threads", True)
        if pool is not None and waits:
            pool.join()

    def _open(self) -> tuple[Engine, Loop]:
        if self._engine is not None and self._loop is not None:
            return self._engine, self._loop
        loop = Loop()
        # The thread that serves must not wait in accept() for a client that has gone again.
        os.set_blocking(self.socket.fileno(), False)
        self._waker = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC), self.socket.fileno()
        loop.watch(self._waker[0], select.EPOLLIN, self._on_woken)
        self._loop, self._engine = loop, Engine(self, loop, Desk(), alone=True)
        return self._engine, loop

    def _on_woken(self, _mask: int) -> None:
        if self._waker is not None:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._waker[0])

    def _settle(self) -> None:
        """Go on until every answer has been sent: nobody else would."""
        engine, loop = self._open()
        while engine.sending():
            loop.turn(engine.wait_s)
            engine.tick(time.monotonic())

    def _close_engine(self) -> None:
        engine, loop, waker = self._engine, self._loop, self._waker
        if engine is None or loop is None or waker is None:
            return
        with _WAKING:  # the number may be another file's afterwards
            self._waker = None
            os.close(waker[0])
        self._engine = self._loop = None
        self._pool = engine.pool
        engine.close()
        loop.close()
        if self.socket.fileno() == waker[1]:  # else it is closed already
            os.set_blocking(waker[1], self.socket.gettimeout() is None)

    # -- clients --------------------------------------------------------------

    def shutdown_request(self, request: Any) -> None:
        """End a client's connection, when all has been sent that its handler has written."""
        connection = _connection_of(request)
        if connection is None:
            super().shutdown_request(request)
        elif not connection.parked:  # else its handler is wanted again
            connection.close_soon()

    def close_request(self, request: Any) -> None:
        """Close a client's connection."""
        connection = _connection_of(request)
        if connection is None:
            super().close_request(request)
        elif not connection.parked:
            connection.dispose()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the client, its request, and the traceback to stderr, and go on.

        That a client has gone is nobody's error.
        """
        if is_gone(request):
            log.debug("client.gone", client=client_address)
            return
        line = request_line_of(request)
        lines = ["-" * 40, f"Exception occurred during processing of request from {client_address}"]
        if line:
            lines.append(f"Request: {log.printable(line)}")
        lines += [traceback.format_exc().rstrip("\n"), "-" * 40]
        sys.stderr.write("\n".join([*lines, ""]))


class ThreadingHTTPServer(socketserver.ThreadingMixIn, HTTPServer):
    """Handlers run in threads: a few, and more while they block.

    As in the stdlib a handler that waits holds up nobody; but clients that are
    silent, slow with their request, or slow to take a file have no thread.
    """

    daemon_threads = True


def is_gone(request: Any) -> bool:
    """Tell whether the exception being handled only says that the client has gone."""
    connection = _connection_of(request)
    error = sys.exception()
    broken = connection is None or connection.outbox.broken
    return isinstance(error, CutShortError) or (
        broken and isinstance(error, ConnectionError | TimeoutError)
    )


def request_line_of(request: Any) -> str:
    """Return the request line that a client sent last, or "" if none is known."""
    connection = _connection_of(request)
    return str(getattr(connection and connection.handler, "requestline", ""))


def _connection_of(request: Any) -> "Connection | None":
    return request.connection if isinstance(request, ClientSocket) else None
