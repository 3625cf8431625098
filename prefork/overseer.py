"""What people ask of a running daemon, by signals and by its control socket.

The master. It answers at once or says when it is done; it waits for nothing.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import prefork
from prefork import fleet, log
from prefork.control.protocol import MasterStatus, PoolStatus, WorkerStatus
from prefork.control.server import Done
from prefork.errors import StartError, UsageError
from prefork.fleet import State
from prefork.pool import Pool
from prefork.scoreboard import CAPACITY
from prefork.upkeep import memory_bytes

if TYPE_CHECKING:
    from prefork.daemon import Daemon

#: How long workers may take to write down what they do; who is inside a call of C code does not.
_ASK_S: Final = 0.05


class Overseer:
    """Of one daemon."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._pending: list[tuple[Callable[[], bool], Done]] = []

    def signals(self) -> Mapping[int, Callable[[], None]]:
        """Return what to do for which signal, beside those that any master obeys."""
        if self._daemon.charter.config_path is None:
            return {}
        acts: dict[int, Callable[[], None]] = {
            signal.SIGHUP: self._reload,
            signal.SIGUSR2: self._reload,
            signal.SIGUSR1: lambda: self.reopen_logs(_log_reason),
        }
        if not any(os.isatty(fd) for fd in range(3)):
            acts[signal.SIGWINCH] = self._drain  # at a terminal it says that the window was resized
        return acts

    def tick(self) -> None:
        """Tell who waits for something that has come true."""
        for fact, done in list(self._pending):
            if fact():
                self._pending.remove((fact, done))
                done(None)

    # -- control.Overseer ----------------------------------------------------------

    def status(self) -> MasterStatus:
        """Return how things are."""
        daemon = self._daemon
        reload = daemon.reload
        complaint = daemon.complaint()
        state = "degraded" if complaint else "serving"
        if daemon.master.is_stopping:
            state = "stopping"
        elif reload.is_under_way:
            state = "reloading"
        self._ask_workers()
        return {
            "version": prefork.__version__,
            "pid": os.getpid(),
            "config": str(daemon.charter.config_path),
            "generation": daemon.generation,
            "started_s": daemon.born_s,
            "state": state,
            "reason": complaint or None,
            "pools": [self._pool_status(pool) for pool in daemon.master.pools],
        }

    def reload(self, done: Done) -> None:
        """Begin a reload; done when the new generation serves."""
        self._daemon.reload.ask(done)

    def stop(self, *, now: bool) -> None:
        """Begin the end."""
        if now:
            self._daemon.master.quit()
        else:
            self._daemon.master.stop()

    def scale(self, pool: str, workers: int, done: Done) -> None:
        """Have this many workers in a pool, until the next reload.

        Raises: UsageError, StartError.
        """
        found = self._pool(pool)
        self._refuse_if_stopping()
        if found.has_ended:
            raise StartError(f"the pool {pool} has ended by its own shutdown(); reload starts it")
        if not 0 <= workers <= CAPACITY:
            raise UsageError(f"a pool has 0 to {CAPACITY} workers, not {workers}")
        found.resize(workers)

        def is_done() -> bool:
            staying = [line for line in found.members if found.state_of(line) in _STAYING]
            return fleet.is_renewed(found.fleet) and len(staying) == found.fleet.target

        self._pending.append((is_done, done))

    def reopen_logs(self, done: Done) -> None:
        """Open the log files anew."""
        self._daemon.logs.reopen(done)

    def kill_worker(self, slot: int, done: Done) -> None:
        """End one worker by force; done when it has gone, and another is on its way.

        Raises: UsageError.
        """
        self._refuse_if_stopping()
        for pool in self._daemon.master.pools:
            if slot in pool.members:
                self._kill(pool, slot, done)
                return
        slots = sorted(line for pool in self._daemon.master.pools for line in pool.members)
        there = ", ".join(map(str, slots)) or "none"
        raise UsageError(f"there is no worker in slot {slot}; there are: {there}")

    def _kill(self, pool: Pool, slot: int, done: Done) -> None:
        children = self._daemon.master.children
        child = children.get(slot)
        pool.kill(slot, "asked to by kill-worker")
        self._pending.append((lambda: children.get(slot) is not child, done))

    # -- details -------------------------------------------------------------------

    def _reload(self) -> None:
        try:
            self.reload(_log_reason)
        except StartError as error:
            log.warning("reload.refused", reason=error)

    def _drain(self) -> None:
        for pool in self._daemon.master.pools:
            pool.resize(0)

    def _refuse_if_stopping(self) -> None:
        if self._daemon.master.is_stopping:
            raise StartError("the server stops")

    def _pool(self, name: str) -> Pool:
        names = [plan.plan.name for plan in self._daemon.prepared]
        for pool in self._daemon.master.pools:
            if pool.name == name and name in names:
                return pool
        raise UsageError(f"there is no pool {name!r}; there are: {', '.join(names)}")

    def _ask_workers(self) -> None:
        """Have all workers write on the scoreboard what they do now."""
        master = self._daemon.master
        asked_ns = time.monotonic_ns()
        for child in master.children:
            master.children.send(child.line, signal.SIGURG)
        lines = [master.board[child.line] for child in master.children]
        while any(line.seen_ns < asked_ns for line in lines):
            if time.monotonic_ns() - asked_ns > _ASK_S * 1e9:
                break
            time.sleep(0.001)

    def _pool_status(self, pool: Pool) -> PoolStatus:
        at = [
            str(n) for p in self._daemon.prepared if p.plan.name == pool.name for n in p.listeners
        ]
        workers = [self._worker_status(pool, line) for line in sorted(pool.members)]
        return {
            "name": pool.name,
            "at": at,
            "wanted": pool.fleet.target,
            "workers": [status for status in workers if status is not None],
        }

    def _worker_status(self, pool: Pool, number: int) -> WorkerStatus | None:
        master = self._daemon.master
        child, member, line = (
            master.children.get(number),
            pool.members[number],
            master.board[number],
        )
        if child is None:
            return None
        now_s = time.monotonic()
        return {
            "slot": number,
            "pid": child.pid,
            "generation": member.generation,
            "state": pool.state_of(number).name.lower(),
            "age_s": now_s - member.started_s,
            "requests": line.requests,
            "bytes": line.sent_bytes,
            "busy": line.busy,
            "request": line.text or None,
            "request_age_s": now_s - line.since_ns / 1e9 if line.since_ns else None,
            "memory_bytes": memory_bytes(child.pid),
        }


_STAYING: Final = frozenset({State.STARTING, State.SERVING, State.EXPIRING})


def _log_reason(reason: str | None) -> None:
    """Take the answer to a signal: whoever sent it reads the log, where it is already."""
    del reason
