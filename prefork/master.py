"""The master: performs what `fleet` decides, on the processes that `children` holds.

It runs in the thread that calls `run()`, one loop for everything: signals,
reports of workers, deaths (a pidfd each), time. It owns the listening sockets
for as long as it lives and never accepts from them. It starts no threads and
never raises because of what a worker does.
"""

import gc
import os
import selectors
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from prefork import fleet, log
from prefork.children import Child, Children
from prefork.fleet import Action, Event, Happening, Policy, State, Wish
from prefork.roles import Server
from prefork.scoreboard import CAPACITY, CLIENT, Order, Scoreboard
from prefork.signals import SignalPipe
from prefork.sockets import SharedSocket, endpoint_of
from prefork.titles import get_title, set_title
from prefork.worker import Place, Report, Worker

_RECORD: Final = 8  # bytes of a worker's report: what, slot (2), pid (5)

_WISHES: Final = {
    signal.SIGTERM: Wish.STOP,
    signal.SIGINT: Wish.QUIT,
    signal.SIGQUIT: Wish.QUIT,
    signal.SIGTTIN: Wish.GROW,
    signal.SIGTTOU: Wish.SHRINK,
}

_UNTOUCHED: Final = (signal.SIG_DFL, signal.default_int_handler)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the fleet's owner decides.

    workers: 1 to CAPACITY. heartbeat_timeout_s: None lets a silent worker be.
    poll_s: the longest wait between two heartbeats, and two looks at them.
    what: for process titles.
    Raises: ValueError.
    """

    workers: int
    policy: Policy
    heartbeat_timeout_s: float | None
    poll_s: float
    what: str

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= CAPACITY:
            raise ValueError(f"workers must be 1 to {CAPACITY}, not {self.workers}")


class Master:
    """Supervises workers for some servers, all of which each worker serves.

    on_ready: called once, when all first workers are READY. on_stopping: called
    once, when the end begins. should_stop: asked in each turn of the loop.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        settings: Settings,
        on_ready: Callable[[], None],
        on_stopping: Callable[[], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self.thread = threading.get_ident()  #: of the caller of run()
        self.ended_by: int | None = None  #: the signal that ended run(), if one did
        self._servers = servers
        self._settings = settings
        limit_s = settings.heartbeat_timeout_s
        self._poll_s = settings.poll_s if limit_s is None else min(settings.poll_s, limit_s / 3)
        self._on_ready: Callable[[], None] | None = on_ready
        self._on_stopping = on_stopping
        self._drain_until_s = 0.0
        self._drainer_ready = True  # nothing is known against the first
        self._should_stop = should_stop
        self._short = False
        self._pid = os.getpid()
        self._looked_s = 0.0
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._open = True
        self._lock = threading.RLock()  # a signal handler may call wake() while close holds it

    def wake(self) -> None:
        """Make `run()` look at once whether it should stop; any thread may call this."""
        with self._lock:
            if self._open:
                with suppress(BlockingIOError):  # full: it will wake
                    os.write(self._wake_w, b"w")

    def run(self) -> None:
        """Start the fleet and return when it is over."""
        title = get_title()
        with ExitStack() as stack:
            stack.callback(self._close_pipe)
            self._board = Scoreboard()
            self._selector = stack.enter_context(selectors.DefaultSelector())
            self._signals = self._open_signals(stack)
            self._report_r, self._report_w = _pipe(stack)
            self._lifeline_r, self._lifeline_w = _pipe(stack)
            self._sockets = [stack.enter_context(_shared(server)) for server in self._servers]
            self._selector.register(self._wake_r, selectors.EVENT_READ)
            self._selector.register(self._report_r, selectors.EVENT_READ)
            stack.callback(set_title, title)
            set_title(f"prefork: master [{self._settings.what}]")
            stack.enter_context(_frozen_heap())
            self._children = Children(self._selector)
            stack.callback(self._children.end_by_force)
            self._fleet = fleet.new_fleet(
                self._settings.workers, self._settings.policy, time.monotonic()
            )
            self._supervise()

    # -- the loop ----------------------------------------------------------

    def _supervise(self) -> None:
        self._happen(Wish.TICK)
        while not fleet.is_over(self._fleet) or self._is_unserved():
            ready = {key.fd for key, _ in self._selector.select(self._patience_s())}
            # Signals first: one that was sent to the whole process group must not
            # make the workers' questions look like requests for replacements.
            self._obey_signals()
            if self._wake_r in ready:
                os.read(self._wake_r, 4096)
            if self._should_stop() and not self._fleet.stopping:
                self._happen(Wish.STOP)
            if self._report_r in ready:
                self._hear_reports()
            for child in self._children:
                if child.pidfd in ready:
                    self._bury(child)
            if self._pid == 1:
                self._children.reap_strangers()
            self._check_heartbeats()
            self._happen(Wish.TICK)
            self._tell_ready()

    def _is_unserved(self) -> bool:
        """Start a worker for clients that the last one, by dying, has left in the queue.

        Not again after one that died before it was READY: it has answered
        nobody, and the next would not either.
        """
        if not self._drainer_ready or time.monotonic() >= self._drain_until_s:
            return False
        if not any(shared.has_clients() for shared in self._sockets):
            return False
        log.warning("master.unserved", reason="clients wait, and their worker has died")
        self._happen(Happening(Event.UNSERVED, 0))
        return True

    def _patience_s(self) -> float:
        due_s = fleet.next_due_s(self._fleet)
        return (
            self._poll_s if due_s is None else max(0.0, min(self._poll_s, due_s - time.monotonic()))
        )

    def _obey_signals(self) -> None:
        for signum in self._signals.read() if self._signals else ():
            if signum in _WISHES:
                wish = _WISHES[signal.Signals(signum)]
                if wish in (Wish.STOP, Wish.QUIT) and self.ended_by != signal.SIGINT:
                    self.ended_by = signum
                log.info("master.signal", signal=signal.Signals(signum).name)
                self._happen(wish)

    def _hear_reports(self) -> None:
        records = os.read(self._report_r, 512 * _RECORD)
        for at in range(0, len(records), _RECORD):
            what = Report(records[at])
            index = int.from_bytes(records[at + 1 : at + 3], "little")
            pid = int.from_bytes(records[at + 3 : at + 8], "little")
            child = self._children.get(index)
            if what is Report.SHUTDOWN:
                log.info("worker.shutdown", slot=index, pid=pid)
                self._happen(Wish.STOP)
            elif child is None or child.pid != pid:
                continue  # the last words of a worker that has been replaced
            elif what is Report.READY:
                log.debug("worker.ready", slot=index, pid=pid)
                self._drainer_ready = True
                self._happen(Happening(Event.READY, index))
            else:
                tell = log.debug if self._fleet.stopping else log.info
                tell("worker.asked_to_leave", slot=index, pid=pid)
                self._happen(Happening(Event.ASKED, index))

    def _check_heartbeats(self) -> None:
        now_s = time.monotonic()
        late_s = now_s - self._looked_s
        self._looked_s = now_s
        limit_s = self._settings.heartbeat_timeout_s
        # After this process itself was stopped (SIGSTOP, a paused machine),
        # every heartbeat looks old: give the workers one turn to beat again.
        if limit_s is None or late_s > self._poll_s + limit_s / 2:
            return
        for index, slot in enumerate(self._fleet.slots):
            line = self._board[index]
            silent_s = now_s - line.beat_ns / 1e9
            if slot.state is State.SERVING and line.activity != CLIENT and silent_s > limit_s:
                self._doom(index, f"stuck for {silent_s:.1f} s")
                self._happen(Happening(Event.STUCK, index))

    def _tell_ready(self) -> None:
        if self._on_ready is not None and fleet.is_serving(self._fleet):
            on_ready, self._on_ready = self._on_ready, None
            if not self._fleet.stopping:
                on_ready()

    # -- actions -----------------------------------------------------------

    def _happen(self, what: Happening | Wish) -> None:
        """Step the fleet and perform what follows, until nothing more does."""
        if what is Wish.STOP:
            if self._fleet.stopping:
                return
            for server, shared in zip(self._servers, self._sockets, strict=True):
                if not shared.refuse_new():
                    log.debug("master.door_open", at=endpoint_of(server.socket))
            self._drain_until_s = time.monotonic() + self._settings.policy.graceful_s
        if what is Wish.QUIT:
            self._drain_until_s = 0.0
        if what is Wish.GROW and self._is_full():
            log.warning("master.full", workers=CAPACITY)
            return
        if what in (Wish.STOP, Wish.QUIT) and not self._fleet.stopping:
            self._on_stopping()
        self._fleet, actions = fleet.step(self._fleet, what, time.monotonic())
        for action, index in actions:
            self._perform(action, index)

    def _is_full(self) -> bool:
        states = [slot.state for slot in self._fleet.slots]
        return len(states) == CAPACITY and State.GONE not in states

    def _perform(self, action: Action, index: int) -> None:
        if action is Action.START:
            self._start(index)
        elif action is Action.START_DRAINING:
            self._drainer_ready = False
            self._start(index)
            self._order(index, Order.DRAIN)
        elif action is Action.RETIRE:
            self._order(index, Order.RETIRE)
        elif action is Action.DRAIN:
            self._order(index, Order.DRAIN)
        elif action is Action.QUIT:
            self._children.send(index, signal.SIGQUIT)
        elif action is Action.ABORT:
            # faulthandler writes every thread's stack from C, even when the
            # interpreter hangs, and the default action ends the process.
            self._doom(index, "not finished in time")
            self._children.send(index, signal.SIGABRT)
        else:
            self._doom(index, "not finished in time")
            self._children.send(index, signal.SIGKILL)

    def _start(self, index: int) -> None:
        line = self._board[index]
        line.clear(time.monotonic_ns())
        try:
            child = self._children.start(index, partial(self._be_worker, index))
        except OSError as error:
            # Of many slots that all fail, each again and again, one says why.
            tell = log.debug if self._short else log.error
            tell("worker.not_started", slot=index, reason=error.strerror)
            self._short = True
            self._happen(Happening(Event.DIED, index))
            return
        self._short = False
        log.debug("worker.started", slot=index, pid=child.pid)

    def _be_worker(self, index: int, let_through: Callable[[], None]) -> None:
        """Close, in the child, what is the master's alone, and serve."""
        if self._signals is not None:
            self._signals.close()
        for fd in (self._wake_r, self._wake_w, self._report_r, self._lifeline_w):
            os.close(fd)
        place = Place(self._pid, index, self._board[index], self._report_w, self._lifeline_r)
        Worker(place, self._servers, self._poll_s, self._settings.what).run(let_through)

    def _order(self, index: int, order: Order) -> None:
        log.debug("worker.ordered", slot=index, order=order.name)
        self._board[index].order = order
        self._children.send(index, signal.SIGTERM)

    def _doom(self, index: int, why: str) -> None:
        child = self._children.get(index)
        if child is not None and not child.doom:
            child.doom = why
            log.error("worker.killed", slot=index, pid=child.pid, reason=why)

    def _bury(self, child: Child) -> None:
        """Take leave of a worker that has ended."""
        cause = self._children.bury(child)
        state = self._fleet.slots[child.index].state
        expected = cause == "exit 0" and state not in (State.STARTING, State.SERVING)
        tell = log.debug if expected or child.doom else log.warning
        early = {"ready": "no"} if state is State.STARTING else {}
        tell("worker.died", slot=child.index, pid=child.pid, cause=cause, **early)
        self._happen(Happening(Event.DIED, child.index))

    # -- set-up ------------------------------------------------------------

    def _open_signals(self, stack: ExitStack) -> SignalPipe | None:
        """Take over the signals that the program has left alone; outside the main thread none."""
        if threading.current_thread() is not threading.main_thread():
            return None
        wanted = [s for s in _WISHES if signal.getsignal(s) in _UNTOUCHED]
        pipe = SignalPipe(dict.fromkeys([*wanted, signal.SIGCHLD] if self._pid == 1 else wanted))
        stack.callback(pipe.close)
        self._selector.register(pipe.fileno(), selectors.EVENT_READ)
        return pipe

    def _close_pipe(self) -> None:
        with self._lock:
            self._open = False
            os.close(self._wake_r)
            os.close(self._wake_w)


@contextmanager
def _frozen_heap() -> Iterator[None]:
    """Keep the collector off what exists now, so that workers go on sharing its pages."""
    mine = gc.get_freeze_count() == 0
    gc.freeze()
    try:
        yield
    finally:
        if mine:
            gc.unfreeze()


@contextmanager
def _shared(server: Server) -> Iterator[SharedSocket]:
    shared = SharedSocket(server.socket, for_good=not server.serves_again)
    try:
        yield shared
    finally:
        shared.restore()


def _pipe(stack: ExitStack) -> tuple[int, int]:
    ends = os.pipe2(os.O_CLOEXEC)
    for fd in ends:
        stack.callback(os.close, fd)
    return ends
