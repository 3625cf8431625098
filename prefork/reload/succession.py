"""How a generation of workers follows another: what is handed over, and who is left.

The master, before and after its execve. It decides nothing about single
workers: `fleet` relieves them one by one.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from prefork.fleet import State
from prefork.life import Life
from prefork.listeners import Listener
from prefork.master import Master
from prefork.policy import Policy
from prefork.pool import Member, Pool, Settings
from prefork.queues import Queues
from prefork.reload.handover import Handover, Left
from prefork.reload.handover import Worker as Line
from prefork.roles import Server
from prefork.sockets import SharedSocket
from prefork.worker import Worker

#: What a worker of the generation before is in, by what it was in then. One that was about to get
#: READY serves until it is relieved, like those that were.
_AFTERWARDS: Final[Mapping[State, State]] = {
    State.STARTING: State.EXPIRING,
    State.SERVING: State.EXPIRING,
    State.EXPIRING: State.EXPIRING,
    State.RETIRING: State.LEAVING,
    State.LEAVING: State.LEAVING,
    State.KILLED: State.CONDEMNED,
    State.CONDEMNED: State.CONDEMNED,
}


def workers_of(master: Master) -> list[Line]:
    """Return the sheet's lines of all workers that live."""
    found = []
    for pool in master.pools:
        for line, member in pool.members.items():
            child = master.children.get(line)
            slot = pool.fleet.slots[member.slot]
            if child is None or slot.state not in _AFTERWARDS:
                continue
            found.append(
                Line(
                    pool=pool.name,
                    line=line,
                    pid=child.pid,
                    pidfd=child.pidfd,
                    state=slot.state.name,
                    due_s=slot.due_s,
                    generation=member.generation,
                    started_s=member.started_s,
                    keys=list(member.keys),
                )
            )
    return found


def lefts_of(listeners: Iterable[Listener]) -> list[Left]:
    """Return the sheet's lines of all listeners."""
    return [
        Left(key=n.key, fd=n.sock.fileno(), inode=n.inode, is_lent=n.is_lent) for n in listeners
    ]


def adopt_workers(handover: Handover, pools: Sequence[Pool]) -> list[Pool]:
    """Give each worker that lives on to its pool; return the pools, and those that are no more.

    Of a pool that the config does not have any more, the workers go at once.
    """
    by_name = {pool.name: pool for pool in pools}
    for worker in handover.workers:
        pool = by_name.get(worker.pool)
        if pool is None:
            pool = by_name[worker.pool] = _remnant(worker.pool, handover)
        served = {key for other in pools for key in other.queues.served()}
        doomed = sum(1 << n for n, key in enumerate(worker.keys) if key not in served)
        member = Member(
            line=worker.line,
            slot=0,
            generation=worker.generation,
            queue=-1,  # its number means nothing any more: `keys` tell what it serves
            started_s=worker.started_s,
            doomed=doomed,
            keys=tuple(worker.keys),
        )
        state = _AFTERWARDS[State[worker.state]]
        due_s = worker.due_s
        if state is State.LEAVING and due_s is None:
            due_s = time.monotonic() + pool.settings.policy.graceful_s
        pool.adopt(member, state, None if state is State.EXPIRING else due_s)
    return list(by_name.values())


def keep_size(handover: Handover, pool: Pool, least: int, most: int) -> None:
    """Have as many workers as were wanted before, where their number follows the load."""
    before = handover.targets.get(pool.name, least)
    pool.fleet = replace(pool.fleet, target=min(max(before, least), most))


def adopt_processes(handover: Handover, master: Master) -> None:
    """Have the master supervise them."""
    for worker in handover.workers:
        master.children.adopt(worker.line, worker.pid, worker.pidfd)


class Leftover:
    """Listeners that nobody asks for any more, until the last worker that serves them has gone.

    From the beginning they let no new client in; those in the queue are answered.
    """

    def __init__(self, listeners: Sequence[Listener], shut: Sequence[Listener] = ()) -> None:
        self.listeners = [*listeners, *shut]
        for listener in self.listeners:
            if not listener.is_lent:
                SharedSocket(listener.sock, for_good=True).refuse_new()

    def reusable(self) -> list[Listener]:
        """Return those that can let clients in again, if the next config wants that."""
        return [n for n in self.listeners if not n.is_shut_for_good]

    def shut(self) -> list[Listener]:
        """Return those that cannot."""
        return [n for n in self.listeners if n.is_shut_for_good]

    def tick(self, pools: Iterable[Pool], drained: Collection[str]) -> list[Listener]:
        """Close what is not served any more, and what is drained; return it."""
        if not self.listeners:
            return []
        served = {key for p in pools for member in p.members.values() for key in member.keys}
        gone = [n for n in self.listeners if n.key not in served or n.key in drained]
        for listener in gone:
            self.listeners.remove(listener)
            listener.end()
        return gone


def drained_keys(master: Master) -> set[str]:
    """Return the listeners whose queues all of their workers have answered, as they were told."""
    answered: set[str] = set()
    waiting: set[str] = set()
    for pool in master.pools:
        for line, member in pool.members.items():
            bits = master.board[line].drained
            for n, key in enumerate(member.keys):
                (answered if bits >> n & 1 else waiting).add(key)
    return answered - waiting


def _remnant(name: str, handover: Handover) -> Pool:
    patience_s = 3600.0
    policy = Policy(retire_s=patience_s)
    settings = Settings(0, policy, None, Life(what=name, poll_s=0.5), name)
    pool = Pool(settings, Queues(()), _nobody, handover.generation)
    pool.has_ended = True
    return pool


def _nobody(_queue: int, _worker: Worker) -> list[Server]:
    return []  # there are no workers to come
