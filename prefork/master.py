"""The master: one loop for everything that supervises the workers of its pools.

It runs in the thread that calls `run()`: signals, reports of workers, deaths (a
pidfd each), time, and what its owner watches beside. It starts no threads and
never raises because of what a worker does.
"""

import gc
import os
import selectors
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from prefork import fleet, log
from prefork.children import Child, Children
from prefork.fleet import Wish
from prefork.pool import Pool, Premises
from prefork.reports import Reader, Record, Report
from prefork.scoreboard import CAPACITY, Scoreboard
from prefork.signals import SignalPipe
from prefork.titles import get_title, set_title

_UNTOUCHED: Final = (signal.SIG_DFL, signal.default_int_handler)


def _nothing() -> None:
    """Stand in for what an owner does not want to know."""


def _ignore(line: int) -> None:
    """Stand in for what an owner does not want to know of a worker."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who has the master run, as far as the master is concerned.

    begun: called once, before the first worker is started; from then on the
    master's methods may be called. ready: called once, when all first workers
    are READY. stopping: called once, when the end begins. should_stop: asked in
    each turn of the loop. turn: called at the end of each. disown: called in each
    child, to close what is the master's alone. hiring, hired, buried: as
    `pool.Premises` has them. signals: what else to do for which signal.
    """

    begun: Callable[[], None] = _nothing
    ready: Callable[[], None] = _nothing
    stopping: Callable[[], None] = _nothing
    should_stop: Callable[[], bool] = bool
    turn: Callable[[], None] = _nothing
    disown: Callable[[], None] = _nothing
    hiring: Callable[[int], None] = _ignore
    hired: Callable[[int], None] = _ignore
    buried: Callable[[int], None] = _ignore
    signals: Mapping[int, Callable[[], None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Estate:
    """What a master leaves to the next image of its process. Descriptors, and the board's."""

    board_fd: int
    report_r: int
    report_w: int
    lifeline_r: int
    lifeline_w: int


class Master:
    """Supervises the workers of some pools.

    title: of the process. estate: what the image before has left.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        owner: Owner,
        title: str,
        estate: Estate | None = None,
    ) -> None:
        self.thread = threading.get_ident()  #: of the caller of run()
        self.ended_by: int | None = None  #: the signal that ended run(), if one did
        self.pools = list(pools)
        self._owner = owner
        self._title = title
        self._estate = estate
        self._ready_due = True
        self._stopping = False
        self._pid = os.getpid()
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
        """Start the pools and return when they are over."""
        title = get_title()
        with ExitStack() as stack:
            stack.callback(self._close_pipe)
            self._selector = stack.enter_context(selectors.DefaultSelector())
            self._signals = self._open_signals(stack)
            self.estate = self._take_estate(stack)
            self._reader = Reader(self.estate.report_r)
            self._selector.register(self._wake_r, selectors.EVENT_READ)
            self._selector.register(self.estate.report_r, selectors.EVENT_READ)
            stack.callback(set_title, title)
            set_title(self._title)
            stack.enter_context(_frozen_heap())
            self.children = Children(self._selector, self._disown)
            stack.callback(self.children.end_by_force)
            premises = Premises(
                self._pid,
                self.board,
                self.children,
                self.estate.report_w,
                self.estate.lifeline_r,
                self._owner.hiring,
                self._owner.hired,
                self._owner.buried,
            )
            for pool in self.pools:
                pool.open(premises)
                stack.callback(pool.close)
            self._owner.begun()
            if self._estate is not None:
                # The image before has blocked them: now there is somebody to take them.
                signal.pthread_sigmask(signal.SIG_SETMASK, ())
            self._supervise()

    # -- for the owner -------------------------------------------------------

    @property
    def is_stopping(self) -> bool:
        """Tell whether the end has begun."""
        return self._stopping

    def watch(self, fd: int, callback: Callable[[], None], events: int = 1) -> None:
        """Call back in each turn in which a descriptor is ready (selectors.EVENT_READ is 1)."""
        if fd in self._selector.get_map():
            self._selector.modify(fd, events, callback)
        else:
            self._selector.register(fd, events, callback)

    def forget(self, fd: int) -> None:
        """Watch a descriptor no more; before it is closed."""
        with suppress(KeyError):
            self._selector.unregister(fd)

    def unheard_signals(self) -> list[int]:
        """Return the signals that have come and that no turn has obeyed yet; none will now."""
        return [] if self._signals is None else self._signals.read()

    def stop(self) -> None:
        """End gracefully: answer what is in hand and in the queues."""
        self._wish(Wish.STOP)

    def quit(self) -> None:
        """End now."""
        self._wish(Wish.QUIT)

    def grow(self, by: int) -> None:
        """Have so many workers more in each pool, or fewer, but one at least."""
        for pool in self.pools:
            if pool.has_ended:
                continue
            workers = max(1, pool.fleet.target + by)
            if sum(p.fleet.target for p in self.pools) + by > CAPACITY:
                log.warning("master.full", workers=CAPACITY)
            elif not self._stopping:
                pool.resize(workers)

    # -- the loop ------------------------------------------------------------

    def _supervise(self) -> None:
        self._tick()
        while not self._is_over():
            keys = [key for key, _ in self._selector.select(self._patience_s())]
            ready = {key.fd for key in keys}
            # Signals first: one that was sent to the whole process group must not
            # make the workers' questions look like requests for replacements.
            self._obey_signals()
            if self._wake_r in ready:
                os.read(self._wake_r, 4096)
            if self._owner.should_stop():
                self.stop()
            if self.estate.report_r in ready:
                self._hear_reports()
            for child in self.children:
                if child.pidfd in ready:
                    self._bury(child)
            for key in keys:
                if key.data is not None and self._is_watched(key):
                    key.data()
            if self._pid == 1:
                self.children.reap_strangers()
            self._tick()
            self._tell_ready()
            self._owner.turn()

    def _is_watched(self, key: selectors.SelectorKey) -> bool:
        """Tell whether no callback of this turn has let go of it."""
        return self._selector.get_map().get(key.fd) == key

    def _is_over(self) -> bool:
        return self._stopping and all([p.is_over() for p in self.pools])  # noqa: C419 # each may have to start a worker

    def _tick(self) -> None:
        for pool in self.pools:
            pool.tick()

    def _patience_s(self) -> float:
        return min(pool.patience_s() for pool in self.pools)

    def _obey_signals(self) -> None:
        for signum in self._signals.read() if self._signals else ():
            act = self._acts.get(signum)
            if act is not None:
                if signum in _ENDS and self.ended_by != signal.SIGINT:
                    self.ended_by = signum
                log.info("master.signal", signal=signal.Signals(signum).name)
                act()

    def _hear_reports(self) -> None:
        for record in self._reader.read():
            for pool in self.pools:
                if record.line not in pool.members:
                    continue
                if record.what is Report.SHUTDOWN:
                    self._end_pool(pool, record)
                else:
                    pool.hear(record)

    def _end_pool(self, pool: Pool, record: Record) -> None:
        """End a pool, one of whose handlers has called `shutdown()`; with the last one, all."""
        if pool.has_ended:
            return
        name = pool.name or None
        log.info("worker.shutdown", pool=name, slot=record.line, pid=record.pid)
        if all(other.has_ended for other in self.pools if other is not pool):
            self.stop()
        else:
            pool.end()

    def _bury(self, child: Child) -> None:
        for pool in self.pools:
            if child.line in pool.members:
                pool.bury(child)
                return

    def _tell_ready(self) -> None:
        if self._ready_due and all(fleet.is_serving(pool.fleet) for pool in self.pools):
            self._ready_due = False
            if not self._stopping:
                self._owner.ready()

    def _wish(self, wish: Wish) -> None:
        if not self._stopping:
            self._stopping = True
            self._owner.stopping()
        for pool in self.pools:
            pool.happen(wish)

    # -- set-up ----------------------------------------------------------------

    def _take_estate(self, stack: ExitStack) -> Estate:
        """Return the board and the pipes, inherited or new."""
        left = self._estate
        self.board = Scoreboard(None if left is None else left.board_fd)
        stack.callback(self.board.close)
        if left is None:
            left = Estate(self.board.fd, *_pipe(), *_pipe())
        for fd in (left.report_r, left.report_w, left.lifeline_r, left.lifeline_w):
            stack.callback(os.close, fd)
        for pool in self.pools:
            for line in pool.members:
                self.board.take(line)
        return left

    def _open_signals(self, stack: ExitStack) -> SignalPipe | None:
        """Take over the signals that the program has left alone; outside the main thread none."""
        if threading.current_thread() is not threading.main_thread():
            return None
        self._acts: dict[int, Callable[[], None]] = {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.quit,
            signal.SIGQUIT: self.quit,
            signal.SIGTTIN: lambda: self.grow(1),
            signal.SIGTTOU: lambda: self.grow(-1),
            **self._owner.signals,
        }
        wanted = [s for s in self._acts if signal.getsignal(s) in _UNTOUCHED]
        pipe = SignalPipe(dict.fromkeys([*wanted, signal.SIGCHLD] if self._pid == 1 else wanted))
        stack.callback(pipe.close)
        self._selector.register(pipe.fileno(), selectors.EVENT_READ)
        return pipe

    def _disown(self) -> None:
        """Close, in a child, what is the master's alone."""
        if self._signals is not None:
            self._signals.close()
        estate = self.estate
        for fd in (
            self._wake_r,
            self._wake_w,
            estate.board_fd,
            estate.report_r,
            estate.lifeline_w,
        ):
            os.close(fd)
        self._owner.disown()

    def _close_pipe(self) -> None:
        with self._lock:
            self._open = False
            os.close(self._wake_r)
            os.close(self._wake_w)


_ENDS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})


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


def _pipe() -> tuple[int, int]:
    return os.pipe2(os.O_CLOEXEC)
