"""The master: performs what `fleet` decides, and is the only caller of fork and wait.

It runs in the thread that calls `run()`, one loop for everything: signals,
reports of workers, deaths (a pidfd each), time. It owns the listening sockets
for as long as it lives and never accepts from them. It starts no threads and
never raises because of what a worker does.
"""

import gc
import os
import platform
import selectors
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Final, NoReturn

from setproctitle import getproctitle, setproctitle

from prefork import fleet, log
from prefork.errors import PlatformError
from prefork.fleet import Action, Event, Happening, Policy, State, Wish
from prefork.scoreboard import CAPACITY, Activity, Order, Scoreboard
from prefork.signals import SignalPipe, held_back
from prefork.sockets import SharedSocket
from prefork.worker import Place, Report, Server, Worker

_RECORD: Final = 8  # bytes of a worker's report: what, slot (2), pid (5)

_WISHES: Final = {
    signal.SIGTERM: Wish.STOP,
    signal.SIGINT: Wish.QUIT,
    signal.SIGQUIT: Wish.QUIT,
    signal.SIGTTIN: Wish.GROW,
    signal.SIGTTOU: Wish.SHRINK,
}

_UNTOUCHED: Final = (signal.SIG_DFL, signal.default_int_handler)


@dataclass(slots=True)
class _Child:
    """A worker's process. doom: why the master itself ended it, if it did."""

    pid: int
    pidfd: int
    doom: str = ""


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

    on_ready: called once, when all first workers are READY. should_stop: asked
    in each turn of the loop.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        settings: Settings,
        on_ready: Callable[[], None],
        should_stop: Callable[[], bool],
    ) -> None:
        require_platform()
        self.thread = threading.get_ident()  #: of the caller of run()
        self.ended_by: int | None = None  #: the signal that ended run(), if one did
        self._servers = servers
        self._settings = settings
        limit_s = settings.heartbeat_timeout_s
        self._poll_s = settings.poll_s if limit_s is None else min(settings.poll_s, limit_s / 3)
        self._on_ready: Callable[[], None] | None = on_ready
        self._should_stop = should_stop
        self._children: dict[int, _Child] = {}
        self._looked_s = 0.0
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._open = True

    def wake(self) -> None:
        """Make `run()` look at once whether it should stop; any thread may call this."""
        if self._open:
            with suppress(OSError):  # full: it will wake; closed: it has ended
                os.write(self._wake_w, b"w")

    def run(self) -> None:
        """Start the fleet and return when it is over."""
        title = getproctitle()
        with ExitStack() as stack:
            stack.callback(self._close_pipe)
            self._board = Scoreboard()
            self._selector = stack.enter_context(selectors.DefaultSelector())
            self._signals = self._open_signals(stack)
            self._report_r, self._report_w = _pipe(stack)
            self._lifeline_r, self._lifeline_w = _pipe(stack)
            self._sockets = [SharedSocket(server.socket) for server in self._servers]
            for shared in self._sockets:
                stack.callback(shared.restore)
            self._selector.register(self._wake_r, selectors.EVENT_READ)
            self._selector.register(self._report_r, selectors.EVENT_READ)
            stack.callback(setproctitle, title)
            setproctitle(f"prefork: master [{self._settings.what}]")
            stack.enter_context(_frozen_heap())
            stack.callback(self._end_by_force)
            self._fleet = fleet.new_fleet(
                self._settings.workers, self._settings.policy, time.monotonic()
            )
            self._supervise()

    # -- the loop ----------------------------------------------------------

    def _supervise(self) -> None:
        self._happen(Wish.TICK)
        while not fleet.is_over(self._fleet):
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
            for index, child in list(self._children.items()):
                if child.pidfd in ready:
                    self._bury(index, child)
            self._check_heartbeats()
            self._happen(Wish.TICK)
            self._tell_ready()

    def _patience_s(self) -> float:
        due_s = fleet.next_due_s(self._fleet)
        return (
            self._poll_s if due_s is None else max(0.0, min(self._poll_s, due_s - time.monotonic()))
        )

    def _obey_signals(self) -> None:
        for signum in self._signals.read() if self._signals else ():
            if signum == signal.SIGCHLD:
                self._reap_strangers()
            elif signum in _WISHES:
                wish = _WISHES[signal.Signals(signum)]
                if wish in (Wish.STOP, Wish.QUIT):
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
            if (
                slot.state is State.SERVING
                and line.activity != Activity.CLIENT
                and silent_s > limit_s
            ):
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
            for shared in self._sockets:
                shared.refuse_new()
        if what is Wish.GROW and len(self._fleet.slots) >= CAPACITY:
            log.warning("master.full", workers=CAPACITY)
            return
        self._fleet, todo = fleet.step(self._fleet, what, time.monotonic())
        for action, index in todo:
            self._perform(action, index)

    def _perform(self, action: Action, index: int) -> None:
        if action is Action.START:
            self._start(index)
        elif action is Action.RETIRE:
            self._order(index, Order.RETIRE)
        elif action is Action.DRAIN:
            self._order(index, Order.DRAIN)
        elif action is Action.QUIT:
            self._send(index, signal.SIGQUIT)
        elif action is Action.ABORT:
            # faulthandler writes every thread's stack from C, even when the
            # interpreter hangs, and the default action ends the process.
            self._doom(index, "not finished in time")
            self._send(index, signal.SIGABRT)
        else:
            self._doom(index, "not finished in time")
            self._send(index, signal.SIGKILL)

    def _start(self, index: int) -> None:
        line = self._board[index]
        line.clear(time.monotonic_ns())
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)
        try:
            with held_back() as let_through:
                pid = os.fork()
                if pid == 0:
                    self._be_worker(index, let_through)
            pidfd = _pidfd_of(pid)
        except OSError as error:
            log.error("worker.not_started", slot=index, reason=error.strerror)
            self._happen(Happening(Event.DIED, index))
            return
        line.pid = pid
        self._children[index] = _Child(pid, pidfd)
        self._selector.register(pidfd, selectors.EVENT_READ)
        log.debug("worker.started", slot=index, pid=pid)

    def _order(self, index: int, order: Order) -> None:
        log.debug("worker.ordered", slot=index, order=order.name)
        self._board[index].order = order
        self._send(index, signal.SIGTERM)

    def _doom(self, index: int, why: str) -> None:
        child = self._children.get(index)
        if child is not None and not child.doom:
            child.doom = why
            log.error("worker.killed", slot=index, pid=child.pid, reason=why)

    def _send(self, index: int, signum: signal.Signals) -> None:
        child = self._children.get(index)
        if child is not None:
            with suppress(ProcessLookupError):  # it has ended; its pidfd says so soon
                signal.pidfd_send_signal(child.pidfd, signum)

    def _bury(self, index: int, child: _Child) -> None:
        """Take leave of a worker that has ended."""
        try:
            result = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
        except ChildProcessError:
            result = None  # the program that embeds us has waited for it, or ignores SIGCHLD
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        del self._children[index]
        cause = "unknown" if result is None else _cause(result.si_code, result.si_status)
        state = self._fleet.slots[index].state
        expected = cause == "exit 0" and state not in (State.STARTING, State.SERVING)
        tell = log.debug if expected or child.doom else log.warning
        if state is State.STARTING:
            tell("worker.died", slot=index, pid=child.pid, cause=cause, ready="no")
        else:
            tell("worker.died", slot=index, pid=child.pid, cause=cause)
        self._happen(Happening(Event.DIED, index))

    def _reap_strangers(self) -> None:
        """As PID 1, take leave of orphans that were adopted; workers have their pidfds."""
        if os.getpid() != 1:
            return
        ours = {child.pid: index for index, child in self._children.items()}
        while (end := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if end.si_pid in ours:
                index = ours.pop(end.si_pid)
                self._bury(index, self._children[index])
            else:
                os.waitpid(end.si_pid, 0)

    def _end_by_force(self) -> None:
        """Leave no worker behind, when an exception ends the loop."""
        for index in self._children:
            self._send(index, signal.SIGKILL)
        for child in self._children.values():
            with suppress(ChildProcessError):  # somebody else has waited for it
                os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
            os.close(child.pidfd)
        self._children.clear()

    # -- the child ---------------------------------------------------------

    def _be_worker(self, index: int, let_through: Callable[[], None]) -> NoReturn:
        """Become a worker, and end as one: never return through the master's frames."""
        status = 1
        try:
            self._forget()
            place = Place(index, self._board[index], self._report_w, self._lifeline_r)
            worker = Worker(place, self._servers, self._poll_s, self._settings.what)
            worker.run(let_through)
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            log.exception("worker.failed", slot=index, pid=os.getpid())
        finally:
            for stream in (sys.stdout, sys.stderr):
                _flush(stream)
            os._exit(status & 0xFF)

    def _forget(self) -> None:
        """Close, in the child, what is the master's alone."""
        if self._signals is not None:
            self._signals.close()
        self._selector.close()
        for child in self._children.values():
            os.close(child.pidfd)
        self._children.clear()
        for fd in (self._wake_r, self._wake_w, self._report_r, self._lifeline_w):
            os.close(fd)

    # -- set-up ------------------------------------------------------------

    def _open_signals(self, stack: ExitStack) -> SignalPipe | None:
        """Take over the signals that the program has left alone; outside the main thread none."""
        if threading.current_thread() is not threading.main_thread():
            return None
        wanted = [s for s in _WISHES if signal.getsignal(s) in _UNTOUCHED]
        pipe = SignalPipe(dict.fromkeys([*wanted, signal.SIGCHLD] if os.getpid() == 1 else wanted))
        stack.callback(pipe.close)
        self._selector.register(pipe.fileno(), selectors.EVENT_READ)
        return pipe

    def _close_pipe(self) -> None:
        self._open = False
        os.close(self._wake_r)
        os.close(self._wake_w)


def require_platform() -> None:
    """Raise PlatformError unless this is Linux 5.4 or later (pidfds that can be waited for)."""
    if sys.platform != "linux":
        raise PlatformError(f"prefork needs Linux 5.4 or later; this is {platform.system()}")
    release = platform.release()
    numbers = [int(part) for part in release.replace("-", ".").split(".")[:2] if part.isdecimal()]
    if numbers < [5, 4]:
        raise PlatformError(f"prefork needs Linux 5.4 or later; this kernel is {release}")


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


def _pidfd_of(pid: int) -> int:
    """Return a pidfd of a child just forked; without one it could not be supervised, and ends."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _pipe(stack: ExitStack) -> tuple[int, int]:
    ends = os.pipe2(os.O_CLOEXEC)
    for fd in ends:
        stack.callback(os.close, fd)
    return ends


def _flush(stream: object) -> None:
    """Write out what is buffered, so that no two processes do."""
    with suppress(AttributeError, OSError, ValueError):  # None, a full disk, closed: serve on
        stream.flush()  # type: ignore[attr-defined] # a program may have put anything there


def _cause(code: int, status: int) -> str:
    """Say how a process ended; code and status as waitid(2) gives them."""
    if code == os.CLD_EXITED:
        return f"exit {status}"
    try:
        name = signal.Signals(status).name
    except ValueError:
        name = f"signal {status}"
    hint = " (out of memory, or killed by hand)" if name == "SIGKILL" else ""
    return name + hint
