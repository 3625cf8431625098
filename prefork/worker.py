"""One worker: the `handle_request` loop over the servers it inherited.

The child only. It waits on all listening sockets in one epoll, calls the
server whose socket is ready, and beats. It leaves when the scoreboard says so
(SIGTERM makes it look), when SIGQUIT comes, or when the master has died.

It never forks, never closes a server for good (a `server_close()` override may
remove a socket file that the other workers still serve), and knows a server
only by the methods of `roles.Server`.
"""

import ctypes
import faulthandler
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from prefork import reports
from prefork.acceptor import Acceptor, Listening, drain, take_one
from prefork.clients import Clients
from prefork.desk import LoopDesk
from prefork.figures import Figures
from prefork.hands import Hands, close_queues
from prefork.life import Life, Place
from prefork.loop import Loop
from prefork.reports import Report
from prefork.roles import Engine, Server
from prefork.scoreboard import CLIENT, IDLE, Order, bits_of
from prefork.shortage import is_shortage
from prefork.signals import SignalPipe, react
from prefork.titles import set_title

#: How often, after that, those idle for this long are hung up on.
LINGER_AGAIN_S: Final = 0.5
#: How long an orphan may take to finish what is in hand.
ORPHAN_S: Final = 1.0
#: How long, after SIGQUIT, handlers may take to end, so that the access log has their requests.
QUIT_S: Final = 0.1
#: How often, at most, the worker looks after other things than requests.
TICK_S: Final = 0.1
#: A `timeout` of 0 must not make an idle worker spin.
SHORTEST_WAIT_S: Final = 0.001

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Worker:
    """The state of this process.

    open_servers: called once, when signals are let through and the death of the
    master is watched for; what it does before it returns (privileges, imports)
    is all that happens before the servers' own `setup_worker()`.
    """

    def __init__(
        self, place: Place, life: Life, open_servers: Callable[["Worker"], Sequence[Server]]
    ) -> None:
        self.clients = Clients(place.slot)
        self.loop = Loop()
        self.hands = Hands(self.loop, self.clients, place.line, life.linger_s)
        self.desk = LoopDesk(place.slot.words)
        self.place = place
        self._life = life
        self._slot = place.slot
        self._open_servers = open_servers
        self._servers: Sequence[Server] = ()
        self._engines: dict[int, Engine] = {}
        name = f"prefork: worker {place.line} [{life.what}]"
        self._titles = f"{name} idle", f"{name} busy"
        self._title: str | None = None
        self._pid = os.getpid()
        self._master: int | None = place.master
        self._signals: SignalPipe | None = None
        self._held = threading.local()
        self._leaving = self._quitting = False
        self._wait_s = life.poll_s
        self._tick_due_s = self._ticked_s = 0.0
        self._figures = Figures(self._slot, self._count, self.clients, self._engines)
        # Not by `random`: all workers have inherited the same state of it.
        share = 1 + life.jitter * (2 * int.from_bytes(os.urandom(2)) / 0xFFFF - 1)
        self.chores: list[Callable[[], None]] = []  #: what else to do in each tick
        self._taken = 0
        self._quota = max(1, round(life.max_requests * share)) if life.max_requests else 0
        self._last_request_s: list[float] = []

    def run(self, let_signals_through: Callable[[], None]) -> None:
        """Serve until told to leave; the caller ends the process.

        let_signals_through: signals are blocked until it is called.
        """
        signals = SignalPipe(
            {
                signal.SIGTERM: self._on_term,
                signal.SIGINT: None,  # from the terminal; the master decides what it means
                signal.SIGQUIT: self._on_quit,
                signal.SIGURG: self._figures.show_request,  # ignored by default: never too early
            }
        )
        self._signals = signals
        let_signals_through()
        self._watch_master()
        os.register_at_fork(
            before=self._hold_signals,
            after_in_parent=self._let_signals_through,
            after_in_child=self._disown,
        )
        if not faulthandler.is_enabled():
            # Without a stderr that has a descriptor there are no stacks.
            with suppress(AttributeError, RuntimeError, OSError, ValueError):
                faulthandler.enable(all_threads=True)
        self._show_busy(busy=False)
        self._servers = self._open_servers(self)
        self._last_request_s = [time.monotonic()] * len(self._servers)
        for server in self._servers:
            server.enter_worker(self)
        self._watch_master()  # the kernel forgets the wish when privileges are dropped
        self.report(Report.READY)
        if self._life.rehearsal:
            select.select([signals.fileno(), self.place.lifeline_fd], [], [])  # until told to go
        else:
            self._serve(signals)
        self._finish(signals)

    def report(self, what: Report, text: str = "") -> None:
        """Tell the master."""
        reports.send(self.place.report_fd, what, self.place.line, text)

    def add_engine(self, server: Server, engine: Engine) -> None:
        """Let a server's engine run in this worker's loop, instead of `handle_request()`."""
        self._engines[id(server)] = engine

    def move_logs(self, move: Callable[[], None]) -> None:
        """Call move, which replaces the files that access logs write to."""
        for engine in self._engines.values():
            engine.write_log()
        move()
        for engine in self._engines.values():
            engine.follow_log()

    def await_client(self) -> None:
        """Note that the server waits for a client, and is not stuck."""
        self._slot.activity = CLIENT

    def take(self, request: object) -> None:
        """Show and time a request while the server's hooks run; `let_go` it afterwards."""
        self._figures.taken += 1
        self.clients.adopt(request)
        self._show_busy(busy=True)

    def let_go(self, request: object) -> None:
        """Take note that the hooks have returned. The title says so in the next tick."""
        self.clients.release(request)

    def accept_failed(self, error: OSError) -> None:
        """Pause when the system is short of something; else the client was gone."""
        self._slot.activity = IDLE
        if is_shortage(error) and not isinstance(error, BlockingIOError):
            self.hands.fall_short(error)
            self.hands.make_room(is_wanted=True)

    def _serve(self, signals: SignalPipe) -> None:
        self.loop.watch(signals.fileno(), select.EPOLLIN, signals.quieten)
        self.loop.watch(self.place.lifeline_fd, select.EPOLLIN, lambda _: self._on_orphaned())
        plain = [server for server in self._servers if id(server) not in self._engines]
        acceptor = Acceptor(self.loop, plain, self._on_served, self._on_full)
        self._tick(acceptor)
        while not self._leaving:
            self.loop.turn(self._patience_s())
            if self._master is None:
                os._exit(0)  # a process that a handler has forked, and that has returned from it
            if self._quitting:
                self._quit()
            if time.monotonic() >= min(self._tick_due_s, self._ticked_s + self._patience_s()):
                self._tick(acceptor)
            for server in self._servers:
                # With max_children at work ForkingMixIn's own would wait for one of them, or for
                # whatever else this process has started.
                if server.has_room() or not hasattr(server, "active_children"):
                    server.service_actions()
            if self._quota and self._figures.requests() >= self._quota:
                self._quota = 0
                self.report(Report.EXPIRED)
        acceptor.close()
        for engine in self._engines.values():
            engine.retire()
        self._slot.retired = 1
        self.report(Report.YIELDED)

    def _patience_s(self) -> float:
        wait_s = self._wait_s
        for engine in self._engines.values():
            wait_s = min(wait_s, engine.wait_s)
        return wait_s

    def _on_served(self, index: int) -> bool:
        self._last_request_s[index] = time.monotonic()
        before, self._taken = self._taken, self._figures.taken
        return self._taken != before

    def _on_full(self, server: Listening, on_room: Callable[[], None]) -> None:
        self._wait_s = TICK_S
        self.hands.await_room(server, on_room)

    def _tick(self, acceptor: Acceptor) -> None:
        """Do what is due now and then, however busy the worker is."""
        now_s = time.monotonic()
        self._beat()
        for chore in self.chores:
            chore()
        for engine in self._engines.values():
            engine.tick(now_s)
        acceptor.follow()
        self.hands.make_room(is_wanted=acceptor.is_awaited())
        if any(server.fileno() < 0 for server in self._servers):
            self.report(Report.ASKED)  # a handler closed it; who comes in our place has it open
        wait_s = TICK_S if acceptor.is_resting() else self._life.poll_s
        for index, server in enumerate(self._servers):
            server.heed_shutdown()
            if server.timeout is None or id(server) in self._engines or not server.has_room():
                continue
            due_s = self._last_request_s[index] + server.timeout
            if due_s <= now_s:
                self._last_request_s[index] = now_s
                server.handle_timeout()
                due_s = now_s + server.timeout
            wait_s = min(wait_s, max(SHORTEST_WAIT_S, due_s - now_s))
        self._wait_s = wait_s
        self._ticked_s = now_s
        self._tick_due_s = now_s + min(self._patience_s(), TICK_S)

    def _beat(self) -> None:
        now_ns = time.monotonic_ns()
        oldest_ns = min(each.oldest_sign_of_life_ns(now_ns) for each in (self.clients, self.hands))
        for engine in self._engines.values():
            oldest_ns = min(oldest_ns, engine.oldest_sign_of_life_ns(now_ns))
        self._slot.beat_ns = oldest_ns
        engines = self._engines.values()
        busy = self.clients.any_left() or self._count() or any(e.is_busy() for e in engines)
        self._show_busy(busy=bool(busy))
        self._figures.write()

    def _count(self) -> int:
        return self.hands.count(self._servers)

    def _any_left(self) -> bool:
        engines = self._engines.values()
        return self.hands.any_left(self._servers) or any(e.any_left() for e in engines)

    def _finish(self, signals: SignalPipe) -> None:
        """Answer what must be answered before this process may end."""
        self.hands.tell(self._servers)  # again: one may have been forked when the order came
        drained: set[int] = set()
        while True:
            left = [n for n in self._queues_to_drain() if n not in drained]
            done = {n for n in left if self._drain(self._servers[n])}
            if done:
                drained |= done
                self._slot.drained = bits_of(drained)
                self.report(Report.YIELDED)
            if not self._any_left() and drained.issuperset(self._queues_to_drain()):
                break
            # Threads close their sockets without telling this one; look again soon.
            self.loop.turn(0.02)
            signals.read()
            if self._quitting:
                self._quit()
            self._beat()
            now_s = time.monotonic()
            for engine in self._engines.values():
                engine.tick(now_s)
        for engine in self._engines.values():
            engine.close()
        self._figures.write()
        self._slot.activity = CLIENT  # from here on it may wait for processes and threads
        for server in self._servers:
            server.leave_worker()
        self._life.on_stop()
        # As the interpreter does at its end: it tells the idle threads of concurrent.futures to go,
        # and joins those that are no daemons.
        threading._shutdown()  # type: ignore[attr-defined] # it has no public name

    def _queues_to_drain(self) -> list[int]:
        """Return which servers' queues nobody else will serve; orders may change at any time."""
        everything = range(len(self._servers))
        order, doomed = self._slot.order, self._slot.doomed
        if order == Order.DRAIN:
            return list(everything)
        return [n for n in everything if order == Order.DRAIN_SOME and doomed >> n & 1]

    def _drain(self, server: Server) -> bool:
        engine = self._engines.get(id(server))
        if engine is not None:
            return drain(server, engine.accept)
        return drain(server, partial(take_one, server))

    def _hold_signals(self) -> None:
        """Before a handler forks: its child's signals wait until it is known whose they are."""
        self._held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def _let_signals_through(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._held.mask)

    def _disown(self) -> None:
        """Be no worker any more: this is a process that a request has forked."""
        self._slot.detach()
        self.hands.disown()
        parent, self._pid = self._pid, os.getpid()
        ours, self._master = self._master is not None, None
        # The requests that ForkingMixIn runs in processes of their own end with the worker, which
        # waits for them while it can. What else a handler forks is its own affair.
        forking = [server for server in self._servers if hasattr(server, "active_children")]
        if ours and forking:
            if all(getattr(server, "block_on_close", True) for server in forking):
                _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                if os.getppid() != parent:
                    os._exit(1)
            else:
                close_queues(forking)
            if self._leaving:
                self._linger()
        elif self._signals is not None:
            self._signals.close()  # SIGTERM ends it again: multiprocessing counts on that
            self._signals = None
        self._let_signals_through()

    def _on_term(self) -> None:
        if self._master is None:
            self._linger()  # the worker waits for its children, and its end is theirs
        elif os.getppid() != self._master:
            self._on_orphaned()
        elif self._slot.order == Order.SERVE:
            self.report(Report.ASKED)  # its order follows
        elif not self._leaving:
            self._leaving = True
            self._linger()
            self.hands.tell(self._servers)

    def _on_quit(self) -> None:
        """Go now, or when this turn is over, so that all that is answered is logged."""
        if not self._engines or self._master is None or self._quitting:
            self._figures.write()
            os._exit(0)
        self._quitting = True
        react(signal.SIGALRM, self._quit_now)  # no handler is waited for longer
        signal.setitimer(signal.ITIMER_REAL, QUIT_S)

    def _quit(self) -> None:
        while any(engine.is_busy() for engine in self._engines.values()):
            time.sleep(0.001)  # a thread has yet to log what it has answered
        self._quit_now()

    def _quit_now(self) -> None:
        for engine in self._engines.values():
            engine.programs.end()
            engine.write_log()
        self._figures.write()
        os._exit(0)

    def _linger(self) -> None:
        """Give idle clients some time, then hang up on them.

        A handler may wait for one in this very thread, where only a signal
        reaches it.
        """
        react(signal.SIGALRM, self._on_alarm)
        signal.setitimer(signal.ITIMER_REAL, max(self._life.linger_s, 0.001), LINGER_AGAIN_S)

    def _watch_master(self) -> None:
        """Have the kernel tell when the master dies."""
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != self._master:
            self._on_orphaned()  # it died before it could be watched

    def _on_orphaned(self) -> None:
        """Leave soon. A handler that takes too long is ended by SIGALRM's default action."""
        self._leaving = True
        self.loop.forget(self.place.lifeline_fd)  # it stays readable
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, ORPHAN_S)

    def _on_alarm(self) -> None:
        self.clients.hang_up_idle(int(LINGER_AGAIN_S * 1e9))
        for engine in self._engines.values():
            engine.hang_up_idle(int(LINGER_AGAIN_S * 1e9))

    def _show_busy(self, *, busy: bool) -> None:
        title = self._titles[busy]
        if title is not self._title:
            self._title = title
            set_title(title)
