"""All HTTP clients of one process: accepted, read, timed, handed to handlers, let go.

A worker, or the process of a server that serves alone. Clients that only wait
cost an entry here and in the loop's epoll, neither a thread nor a process. It
calls the hooks of socketserver in their order; it never parses and never
writes: `wire`, `connection` and `response` do.
"""

import os
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prefork import log
from prefork.desk import Desk
from prefork.http.access import open_log
from prefork.http.census import Census
from prefork.http.connection import Connection
from prefork.http.door import Door, room_for
from prefork.http.filecache import FileCache
from prefork.http.forwarded import Networks
from prefork.http.lenient import parse_anyway
from prefork.http.lobby import Lobby
from prefork.http.patience import STUCK_S, Patience
from prefork.http.pool import Pool
from prefork.http.scope import is_awaited
from prefork.http.visit import PREFETCHING, RUNNING
from prefork.http.wire import Head, Parser
from prefork.loop import Loop, call_if_alive
from prefork.programs import Programs

if TYPE_CHECKING:
    from prefork.http.gateway import Gateway
    from prefork.http.limits import Limits


class Engine(Census):
    """server: whose hooks are called. loop, desk: of the thread that runs it.

    wait_s: how long the loop may wait before the next `tick()`, in seconds.
    alone: in a process that serves alone, not in a worker.
    """

    def __init__(self, server: Any, loop: Loop, desk: Desk, *, alone: bool = False) -> None:
        super().__init__()
        self.server = server
        self.loop = loop
        self.limits: Limits = server.limits
        self.parser = Parser(self.limits.wire)
        self.parse = self.parser.parse
        self.known = self.parser.known
        self.keep_alive_s = self.limits.keep_alive_s
        self.keep_alive_requests = self.limits.keep_alive_requests
        # Programs that serve themselves may change a file, and want to see that at once.
        self.files = FileCache(0.0) if alone else FileCache()
        self.logs_by_handler = server.access_log is None
        self.logs_fields = server.access_log in ("combined", "json")
        self.access = open_log(server.access_log, server.access_log_fd)
        self.now_s = time.monotonic()
        self.retiring = self.closed = False
        self.taken = self._taken_before = self._hang_up_ns = 0
        self._last: Connection | None = None
        self.alone = alone
        self.gateway: Gateway | None = None  # WSGI's, once there was a request
        self.programs = Programs()
        self._patience = Patience(self)
        self._taken_s = self.now_s
        self._room = room_for(self.limits.connections)
        self.is_quick: Callable[[Head], bool] | None = None
        self._desk, self._loop_thread = desk, threading.get_ident()
        self.lobby = Lobby(self, desk)
        self._door = Door(server.socket, loop, self.lobby.welcome)
        self.forwarders = Networks(server.forwarders) if server.forwarders else None
        threads = server.thread_count()
        daemon = getattr(server, "daemon_threads", True)
        self.pool = Pool(threads, self.serve, daemon=daemon) if threads else None
        self._custom, self._process = server.process_hook()
        self.lobby.adopt()
        # Where the loop answers most, only what a thread gets is armed anew.
        self.oneshot = int(select.EPOLLONESHOT) if self.pool and not self.is_quick else 0
        self._door.open(self.now_s)
        disown = weakref.WeakMethod(self._disown)
        os.register_at_fork(after_in_child=lambda: call_if_alive(disown))

    # -- clients come ---------------------------------------------------------

    def accept(self) -> bool:
        """Take one client from the queue, if one is there; False: not before another has gone."""
        return self._door.accept()

    def enter(self, connection: Connection) -> None:
        """Take note of a new client."""
        self.connections.add(connection)
        if len(self.connections) >= self._room:
            self._door.fill()
            self.wait_s = STUCK_S

    def hand_over(self, connection: Connection) -> None:
        """Have a handler that reads by itself serve a client until its end."""
        connection.keep()
        connection.state = RUNNING
        self.taken += 1
        self._last = connection
        if self.pool is None:
            self.serve(connection)
        else:
            try:
                self.pool.spawn(connection)
            except RuntimeError as error:  # the system has no more threads
                log.warning("worker.short", reason=str(error))
                connection.dispose()

    def have_patience(self, timeout_s: float | None) -> None:
        """Look at the clock often enough for handlers with this timeout."""
        self._patience.learn(timeout_s)
        self.wait_s = self._patience.wait_s

    # -- requests -------------------------------------------------------------

    def dispatch(self, connection: Connection) -> None:
        """Have a request answered, when as much of its body is there as should be."""
        head = connection.head
        if head is not None and head.length and self._lacks_body(connection, head.length):
            return
        connection.state = RUNNING
        self.taken += 1
        self._last = connection
        if self._custom and connection.handler is None:
            self._lend(connection)
        elif self.pool is None or self._is_quick(connection):
            if self._run(connection):
                connection.advance()
        else:
            self._submit(self.pool, connection)

    def _is_quick(self, connection: Connection) -> bool:
        """Tell whether this request is answered by the loop, though there are threads."""
        head = connection.head
        if self.is_quick is None or head is None or not self.is_quick(head):
            return False
        connection.desk = self._desk
        return True

    def _submit(self, pool: Pool, connection: Connection) -> None:
        if not self.oneshot:
            connection.disarm()
        pool.submit(connection)
        if pool.has_waiting():
            self.wait_s = STUCK_S

    def _lend(self, connection: Connection) -> None:
        """Leave a client to the server's own `process_request()`, until the connection ends."""
        connection.keep()
        connection.desk = Desk()
        self._run(connection)

    def serve(self, connection: Connection) -> None:
        """Run the handler of a connection, and what follows, in the thread that owns it."""
        try:
            goes_on = connection.handler is not None and not connection.fresh  # from later()
            if goes_on or self._run(connection):
                connection.advance()
        except Exception:
            self.fail(connection)

    def safely(self, step: Callable[[Connection], None], connection: Connection) -> None:
        """Do a step; what fails for one client does not end the loop of all."""
        try:
            step(connection)
        except Exception:
            self.fail(connection)

    def fail(self, connection: Connection) -> None:
        """Drop a connection after a hook has raised that no handler of errors stands around."""
        log.exception("server.failed", client=connection.address)
        connection.dispose()

    def run_next(self, connection: Connection) -> bool:
        """Answer a pipelined request; False: the connection has gone elsewhere."""
        head = connection.head
        if head is not None and head.length and self._lacks_body(connection, head.length):
            return False
        connection.state = RUNNING
        in_loop = threading.get_ident() == self._loop_thread
        if self.pool is None or not in_loop or self._is_quick(connection):
            return self._run(connection)
        self._submit(self.pool, connection)
        return False

    def parse_anyway(self, data: bytes) -> Head | None:
        """Return the head that the stdlib would see where RFC 9112 sees none, if it is to count."""
        if not self.alone:
            return None
        return parse_anyway(self.parser, data, self.lobby.default_request_version)

    def later(self, connection: Connection) -> None:
        """Go on with a client after others have had their turn."""
        if self.pool is None:
            self.loop.soon(lambda: self.safely(Connection.advance, connection))
        else:
            connection.state = RUNNING
            self._submit(self.pool, connection)

    def _lacks_body(self, connection: Connection, length: int) -> bool:
        """Tell whether the rest of a small body is waited for, by the loop."""
        head = connection.head
        asks = head is not None and head.expects_continue
        if length <= len(connection.buffer) or length > self.limits.prefetch_bytes or asks:
            return False
        connection.deadline_s = self.now_s + connection.stall_s(self.limits.body_stall_s)
        connection.wait_for(PREFETCHING, select.EPOLLIN)
        return True

    def _run(self, connection: Connection) -> bool:
        """Call the handler; tell whether the engine goes on with the connection."""
        desk = connection.desk
        desk.begin()
        try:
            handler = connection.handler
            if handler is None:
                return self._begin(connection)
            connection.parked = False
            try:
                handler.handle()
            except Exception:
                connection.over = connection.parked = True
                self.server.handle_error(connection.sock, connection.address)
            except BaseException:
                connection.over = connection.parked = True
                self.end(connection)
                raise
            else:
                connection.parked = True
                if connection.abandoned:
                    self.end(connection)  # nobody else would call finish() and shutdown_request()
            return not connection.abandoned
        finally:
            desk.end()
            # It may have taken its time, and others' patience is counted from now_s.
            self.now_s = time.monotonic()

    def is_awaited(self) -> bool:
        """Tell whether the program does something when this thread's handler has returned."""
        return is_awaited(Engine._begin.__code__)

    def _begin(self, connection: Connection) -> bool:
        """Call the hooks of socketserver for a client's first request."""
        server, sock, address = self.server, connection.sock, connection.address
        try:
            if server.verify_request(sock, address):
                self._process(sock, address)
                if not connection.parked and not self._custom:
                    server.shutdown_request(sock)
            else:
                server.shutdown_request(sock)
        except Exception:
            server.handle_error(sock, address)
            server.shutdown_request(sock)
        except BaseException:
            server.shutdown_request(sock)
            raise
        return connection.parked

    # -- clients go -----------------------------------------------------------

    def end(self, connection: Connection) -> None:
        """End a connection: the handler's `finish()`, then the server's hooks."""
        if not connection.parked:
            connection.close_soon()
            return
        connection.parked = False
        sock, address = connection.sock, connection.address
        try:
            connection.handler.finish()
        except Exception:
            self.server.handle_error(sock, address)
        finally:
            self.server.shutdown_request(sock)

    def let_go(self, connection: Connection) -> None:
        """Take note that a handler has closed or taken its client's socket.

        A stop waits for it, but one lent to `process_request()` may never be heard of again.
        """
        if self._custom:
            self.forget(connection)

    def forget(self, connection: Connection) -> None:
        """Take note that a connection is closed, or not the engine's any more."""
        self.connections.discard(connection)

    def retire(self) -> None:
        """Take no more clients; every answer is its connection's last."""
        self._door.shut()
        self.retiring = True
        self.keep_alive_requests = 0

    def any_left(self) -> bool:
        """Tell whether a client is still in hand, or a program that goes on without one."""
        return bool(self.connections) or self.programs.any_left()

    def last_is_open(self) -> bool:
        """Tell whether the client of the request taken last may send another."""
        last = self._last
        return last is not None and last in self.connections and not last.over

    def is_busy(self) -> bool:
        """Tell whether a handler runs in a thread; the loop's own has returned whenever it asks."""
        return self.pool is not None and self.pool.is_busy()

    def hang_up_idle(self, idle_ns: int) -> None:
        """Let go, in the next tick, of clients that have been idle for so long.

        A signal handler calls it: handlers that wait in this very thread are told at once.
        """
        self._hang_up_ns = idle_ns
        for connection in list(self.connections):
            if connection.kept and connection.idle:
                try:
                    socket.socket.shutdown(connection.sock, socket.SHUT_RD)
                except OSError:
                    continue  # the client was faster; the handler will see

    def close(self) -> None:
        """Finish: nobody is left who may be waited for, but handlers that still run."""
        self._door.shut()
        self.closed = True
        for connection in list(self.connections):
            if connection.state != RUNNING:
                self.safely(Connection.abort, connection)
                self.safely(Connection.close, connection)
        if self.pool is not None:
            self.pool.close()
        self.files.clear()
        if self.access is not None:
            self.access.close()

    def _disown(self) -> None:
        """In a child that a handler has forked: no loop comes back to any client."""
        self.closed = True
        if self.pool is not None:
            self.pool.is_orphan = not self.alone
        for connection in list(self.connections):
            connection.outbox.clear()  # the parent sends it

    # -- time -----------------------------------------------------------------

    def oldest_sign_of_life_ns(self, now_ns: int) -> int:
        """Return when the thread that has been silent longest showed life; now if none."""
        return now_ns if self.pool is None else self.pool.oldest_sign_of_life_ns(now_ns)

    def tick(self, now_s: float) -> None:
        """Do what is due; called at least every `wait_s` seconds."""
        self.now_s = now_s
        if self.access is not None:
            self.access.flush()
        self.wait_s = self._patience.wait_s
        if self.pool is not None and self.pool.has_waiting():
            self.wait_s = STUCK_S
            self.pool.grow_if_stuck(now_s)
        if not self.retiring:
            if len(self.connections) < self._room:
                self._door.open(now_s)
            if not self._door.is_open():
                self.wait_s = STUCK_S
        self._patience.tick(now_s)
        self.files.expire(now_s)
        if self._hang_up_ns:
            self._patience.hang_up(self._hang_up_ns / 1e9)
        if not self.alone:
            self._time_out(now_s)

    def write_log(self) -> None:
        """Write the access log, unless the thread that a signal interrupted is at it."""
        if self.access is not None and not self.access.is_in_use():
            self.access.flush()

    def follow_log(self) -> None:
        """Look anew at the descriptor of the access log: it leads to another file now."""
        if self.access is not None:
            self.access.reopen(self.server.access_log_fd)

    def _time_out(self, now_s: float) -> None:
        """Call `handle_timeout()` as `handle_request()` does, after a time without a request."""
        if self.taken != self._taken_before:
            self._taken_before = self.taken
            self._taken_s = now_s
        timeout_s = self.server.timeout
        if timeout_s is not None and now_s - self._taken_s >= timeout_s:
            self._taken_s = now_s
            self.server.handle_timeout()
