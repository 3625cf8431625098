"""Looks after workers that serve: how old, how large, how busy they are.

The master, about ten times a second. Who is too old or too large is replaced,
without haste; the number of workers follows how busy they are.
"""

import os
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from prefork import log
from prefork.fleet import State
from prefork.plan import Plan
from prefork.pool import Member, Pool
from prefork.scoreboard import BUSY, Scoreboard, Slot

_LOOK_S: Final = 1.0
_SAMPLE_S: Final = 0.1
#: How many of the last samples count for a worker more, which is needed at once.
_GROW_SAMPLES: Final = 10
#: The share of its time that a worker may be busy before it counts as one that has no more to give.
_FULL: Final = 0.8
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final[int] = os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 if it has ended."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    return 0


class Upkeep:
    """Of one pool."""

    def __init__(self, plan: Plan, pool: Pool, board: Scoreboard) -> None:
        self._plan = plan
        self._pool = pool
        self._board = board
        self._due_s = 0.0
        self._load = Load(plan.spare_s) if plan.most is not None else None
        self._sample_due_s = 0.0
        if self._load is not None:
            pool.look_s = min(pool.look_s, _SAMPLE_S)

    def tick(self, pid_of: dict[int, int]) -> None:
        """Do what is due. pid_of: the PIDs of workers, by line."""
        if self._pool.has_ended:
            return
        now_s = time.monotonic()
        if self._load is not None and now_s >= self._sample_due_s:
            self._sample_due_s = now_s + _SAMPLE_S
            self._scale(self._load, pid_of)
        if now_s < self._due_s:
            return
        self._due_s = now_s + _LOOK_S
        for member in self._serving():
            age_s = now_s - member.started_s
            if self._plan.max_age_s is not None and age_s > self._plan.max_age_s:
                self._replace(member, f"{age_s:.0f} s old")
            elif self._plan.max_memory_bytes is not None:
                size = memory_bytes(pid_of.get(member.line, 0))
                if size > self._plan.max_memory_bytes:
                    self._replace(member, f"{size / 1048576:.0f} MiB in memory")

    def _serving(self) -> list[Member]:
        members = list(self._pool.members.values())
        return [m for m in members if self._pool.state_of(m.line) is State.SERVING]

    def _replace(self, member: Member, why: str) -> None:
        log.info("worker.outlived", pool=self._pool.name, slot=member.line, reason=why)
        self._pool.expire(member.line)

    def _scale(self, load: "Load", pid_of: dict[int, int]) -> None:
        serving = self._serving()
        target = self._pool.fleet.target
        if len(serving) != target or self._plan.least is None or self._plan.most is None:
            return  # wait until the last decision has become true
        busy = [self._share(self._board[m.line]) for m in serving]
        load.add(busy, [pid_of.get(m.line, 0) for m in serving])
        wanted = min(max(load.wanted(target), self._plan.least), self._plan.most)
        if wanted != target:
            log.info("pool.scaled", pool=self._pool.name, workers=wanted, before=target)
            self._pool.resize(wanted)
            load.forget()

    def _share(self, line: Slot) -> float:
        """Return how much of a worker handlers have: all of it, or so many of its threads."""
        says = self._plan.variables
        most = int(says.get("threads", 0) or says.get("max_children", 0))
        if not most:
            return float(line.activity == BUSY)
        return min(1.0, line.handled / most)


class Load:
    """How many workers are busy, over the last time.

    A worker is as busy as the greater of two shares of its time: that in which
    a handler ran when it was looked at, and that in which it had a processor.
    spare_s: over how long it is looked whether one less would do.
    """

    def __init__(self, spare_s: float) -> None:
        self._most = max(_GROW_SAMPLES, round(spare_s / _SAMPLE_S))
        self._samples: deque[float] = deque(maxlen=self._most)
        self._cpu_s: dict[int, float] = {}
        self._at_s = 0.0

    def forget(self) -> None:
        """Begin anew: the number of workers has changed."""
        self._samples.clear()

    def add(self, busy: Iterable[float], pids: Iterable[int]) -> None:
        """Take a sample: how much of each worker handlers have now, and the PIDs."""
        now_s = time.monotonic()
        took_s, self._at_s = now_s - self._at_s, now_s
        total, after = 0.0, {}
        for share, pid in zip(busy, pids, strict=True):
            after[pid] = _cpu_s(pid)
            computed = (after[pid] - self._cpu_s.get(pid, after[pid])) / took_s
            total += max(share, min(1.0, computed))
        self._cpu_s = after
        self._samples.append(total)

    def wanted(self, workers: int) -> int:
        """Return how many workers there should be, where there are so many."""
        recent = list(self._samples)[-_GROW_SAMPLES:]
        if len(recent) == _GROW_SAMPLES and sum(recent) / len(recent) > _FULL * workers:
            return workers + max(1, workers // 2)
        if len(self._samples) == self._most:
            busiest = max(self._samples)
            if busiest < _FULL * (workers - 1):
                return workers - 1
        return workers


def _cpu_s(pid: int) -> float:
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0
