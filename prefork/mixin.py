"""`PreforkMixIn`: `serve_forever()` of any socketserver, served by a fleet.

The master calls `serve_forever()` and `shutdown()`; the workers call the rest.
All other hooks (`get_request`, `verify_request`, `process_request`,
`finish_request`, `handle_error`, `shutdown_request` ...) are the stdlib's own,
or the program's; this class stands in front of them and overrides none.
"""

import signal
import socket
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from prefork.cpus import available_cpus
from prefork.life import Life
from prefork.master import Master, Owner
from prefork.policy import Policy
from prefork.pool import Pool, Settings
from prefork.queues import Queue, Queues
from prefork.reports import Report
from prefork.scoreboard import CAPACITY
from prefork.sockets import endpoint_of
from prefork.system import require_platform
from prefork.worker import Worker

if TYPE_CHECKING:
    from socketserver import TCPServer as _Base

    from prefork.desk import Desk
    from prefork.loop import Loop
    from prefork.roles import Engine
else:
    _Base = object


class PreforkMixIn(_Base):
    """The third mix-in, beside ForkingMixIn and ThreadingMixIn; name it first.

        class Server(PreforkMixIn, socketserver.TCPServer):
            workers = 4

    `serve_forever()` makes the calling process the master. It forks the
    workers, each of which runs the `handle_request` loop on the socket that
    all have inherited, and replaces those that die. It returns after
    `shutdown()` (from another thread of the master, or from a handler in a
    worker) or SIGTERM, when every request in hand and in the accept queue is
    answered; after SIGQUIT at once; after SIGINT at once, by KeyboardInterrupt
    as ever. SIGTTIN and SIGTTOU change the number of workers by one. A signal
    whose handler the program has set itself is left to the program.

    A handler's changes to `self.server` stay in its worker. With ThreadingMixIn
    or ForkingMixIn as a second mix-in, each worker serves several clients at a
    time. `service_actions()` is called by the workers, in each turn of their loop.

    Of the stdlib's class variables, `timeout` keeps its meaning: after so many
    seconds without a request a worker calls `handle_timeout()`.
    """

    #: Number of workers; "auto": as many as this process may use processors.
    workers: ClassVar[int | str] = "auto"
    #: A worker whose handler has neither ended nor moved a byte for so many seconds, and
    #: does not wait for its client, is reported with its stacks and killed; None: never.
    heartbeat_timeout: ClassVar[float | None] = 30.0
    #: How long a worker may take from its fork to the end of `setup_worker()`, in seconds.
    boot_timeout: ClassVar[float] = 60.0
    #: How long a graceful end may take, in seconds; who has not finished then is killed.
    graceful_timeout: ClassVar[float] = 30.0

    #: Whether the socket may be served, or used, after `serve_forever()` has ended. If not, Unix
    #: streams refuse new clients from the beginning of a stop (others do in any case).
    serves_again: bool = True

    #: How many requests a worker takes before it looks around again. More than one only where
    #: `get_request()` raises at once when there is none.
    requests_at_once: int = 1

    _prefork_worker: Worker | None = None
    _prefork_master: Master | None = None

    def setup_worker(self) -> None:
        """Prepare this worker; called once in each, before it serves. Default: nothing.

        The place for what processes must not share: connections to databases,
        random generators, threads. An exception ends the worker, and another
        is tried after a pause.
        """

    def finish_worker(self) -> None:
        """Clean up in this worker, after its last request. Default: nothing.

        The place to flush and close files and pools: the process ends without
        the interpreter's own clean-up (`atexit`), which is the master's.
        """

    def serve_forever(self, poll_interval: float | None = 0.5) -> None:
        """Serve by a fleet of workers until `shutdown()` or a signal.

        poll_interval: seconds, as in socketserver, between two calls of
        `service_actions()` of an idle worker.
        Raises: KeyboardInterrupt after SIGINT; PlatformError off Linux >= 5.4.
        """
        serve_together([self], 0.5 if poll_interval is None else poll_interval)

    def shutdown(self) -> None:
        """End `serve_forever()` gracefully.

        In the master it returns when that has ended (unless called by the
        thread that runs it, where it returns at once: a signal handler may call
        it). In a worker it asks the master and returns at once.
        """
        if self._prefork_worker is not None:
            self._prefork_worker.report(Report.SHUTDOWN)
            return
        _flags(self)._BaseServer__shutdown_request = True
        master = self._prefork_master
        if master is not None:
            master.wake()
            if master.thread == threading.get_ident():
                return
        _flags(self)._BaseServer__is_shut_down.wait()

    def handle_request(self) -> None:
        """Handle one request, as in socketserver; in a worker without waiting for it."""
        if self._prefork_worker is None:
            super().handle_request()
        else:
            self._handle_request_noblock()

    def _handle_request_noblock(self) -> None:
        # BaseServer's own, word for word; but the request is known to the worker while it lasts,
        # whichever hooks the program overrides.
        worker = self._prefork_worker
        if worker is None:
            super()._handle_request_noblock()  # type: ignore[misc] # typeshed leaves it out
            return
        worker.await_client()  # TLS of the program's own may shake hands in get_request()
        try:
            request, client_address = self.get_request()
        except OSError as error:
            worker.accept_failed(error)
            return
        worker.take(request)
        try:
            if self.verify_request(request, client_address):
                try:
                    self.process_request(request, client_address)
                except Exception:
                    self.handle_error(request, client_address)
                    self.shutdown_request(request)
                except:
                    self.shutdown_request(request)
                    raise
            else:
                self.shutdown_request(request)
        finally:
            worker.let_go(request)
        self.heed_shutdown()

    def heed_shutdown(self) -> None:
        """Tell the master, in a worker, if a handler has set the stdlib's private flag."""
        worker = self._prefork_worker
        if worker is not None and _flags(self)._BaseServer__shutdown_request:
            _flags(self)._BaseServer__shutdown_request = False
            worker.report(Report.SHUTDOWN)

    def has_room(self) -> bool:
        """Tell whether this worker may take another request before one in hand is over.

        With ForkingMixIn it may not when `max_children` processes are at work. Who waits is left
        in the queue, to other workers; the mix-in itself would wait for a process, any process.
        """
        children: set[int] | None = getattr(self, "active_children", None)
        return not children or len(children) < int(getattr(self, "max_children", 0))

    def enter_worker(self, worker: Worker) -> None:
        """Get ready to serve in a worker; override `setup_worker` instead."""
        self._prefork_worker, self._prefork_master = worker, None
        if self.socket.gettimeout():
            # The descriptor is shared and non-blocking; a socket with a timeout would wait in
            # accept() although another worker was faster. The time is kept as `timeout`.
            self.timeout = min(filter(None, (self.socket.gettimeout(), self.timeout)))
            self.socket.settimeout(0.0 if self.socket.type == socket.SOCK_STREAM else None)
        self.setup_worker()
        open_engine: Callable[[Loop, Desk], Engine | None] = getattr(
            self, "open_engine", lambda _loop, _desk: None
        )
        engine = open_engine(worker.loop, worker.desk)
        if engine is not None:
            worker.add_engine(self, engine)

    def leave_worker(self) -> None:
        """Finish, in a worker, after its last request; override `finish_worker` instead."""
        self.finish_worker()


def serve_together(
    servers: Sequence[PreforkMixIn],
    poll_interval: float = 0.5,
    *,
    what: str | None = None,
    on_ready: Callable[[], None] = lambda: None,
    on_stopping: Callable[[], None] = lambda: None,
) -> None:
    """Serve several servers by the same fleet: each worker waits for all of them.

    The first one's class variables hold for the fleet. what: for the process
    titles. on_ready: called in the master when all workers first are READY.
    on_stopping: called in the master when the end begins.
    Raises: as `PreforkMixIn.serve_forever`.
    """
    require_platform()
    first = servers[0]
    workers = available_cpus() if first.workers == "auto" else int(first.workers)
    if not 1 <= workers <= CAPACITY:
        raise ValueError(f"workers must be 1 to {CAPACITY}, not {workers}")
    what = what or f"{type(first).__name__} {endpoint_of(first.socket)}"
    settings = Settings(
        workers=workers,
        policy=Policy(boot_s=first.boot_timeout, graceful_s=first.graceful_timeout),
        heartbeat_timeout_s=first.heartbeat_timeout,
        life=Life(what=what, poll_s=poll_interval),
    )
    sockets = [server.socket for server in servers]
    pool = Pool(
        settings,
        Queues([Queue(sockets, served_again=sockets if first.serves_again else ())]),
        lambda _queue, _worker: servers,
    )

    def should_stop() -> bool:
        return any(_flags(server)._BaseServer__shutdown_request for server in servers)

    owner = Owner(ready=on_ready, stopping=on_stopping, should_stop=should_stop)
    master = Master([pool], owner, f"prefork: master [{what}]")
    for server in servers:
        _flags(server)._BaseServer__is_shut_down.clear()
        server._prefork_master = master
    try:
        master.run()
    finally:
        for server in servers:
            server._prefork_master = None
            _flags(server)._BaseServer__shutdown_request = False
            _flags(server)._BaseServer__is_shut_down.set()
    if master.ended_by == signal.SIGINT:
        raise KeyboardInterrupt


def _flags(server: PreforkMixIn) -> Any:
    """Return the server as the holder of BaseServer's private flags.

    Programs set `_BaseServer__shutdown_request` and wait on
    `_BaseServer__is_shut_down`, so these stay the ones that count.
    """
    return server
