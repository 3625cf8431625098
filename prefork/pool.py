"""One pool: workers that serve the same listeners, kept at their number.

The master. It performs what `fleet` decides, on the processes that `children`
holds, and tells workers apart by their lines of the scoreboard. It owns the
listening sockets for as long as it lives and never accepts from them. It never
raises because of what a worker does.
"""

import signal
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from prefork import fleet, log
from prefork.children import Child, Children
from prefork.errors import PreforkError
from prefork.fleet import Action, Event, Fleet, Happening, Slot, State, Wish
from prefork.life import Life, Place
from prefork.policy import Policy
from prefork.queues import Queues
from prefork.reports import Record, Report
from prefork.roles import Server
from prefork.scoreboard import BITS, CAPACITY, CLIENT, Order, Scoreboard
from prefork.worker import Worker

#: Gets the number of a queue; called in a worker, with it.
OpenServers = Callable[[int, Worker], Sequence[Server]]

_HERE: Final = frozenset({State.STARTING, State.SERVING, State.RETIRING, State.KILLED})


@dataclass(frozen=True, slots=True)
class Settings:
    """What the owner of a pool decides.

    workers: 0 to CAPACITY. heartbeat_timeout_s: None lets a silent worker be.
    name: "" where there is one pool only.
    Raises: ValueError.
    """

    workers: int
    policy: Policy
    heartbeat_timeout_s: float | None
    life: Life
    name: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.workers <= CAPACITY:
            raise ValueError(f"workers must be 0 to {CAPACITY}, not {self.workers}")


@dataclass(slots=True)
class Member:
    """A worker that is there.

    slot: of the fleet. queue: which listeners it has, -1 for those of another
    generation. started_s: when it was forked, monotonic. keys: of its listeners,
    in its order. doomed: bit n for its nth listener, if nobody after it will
    serve that.
    """

    line: int
    slot: int
    generation: int
    queue: int
    started_s: float
    keys: tuple[str, ...] = ()
    doomed: int = 0


@dataclass(frozen=True, slots=True)
class Premises:
    """What all pools of a master share.

    hiring, hired, buried: called with a worker's line, before and after its fork
    and after its end.
    """

    pid: int
    board: Scoreboard
    children: Children
    report_w: int
    lifeline_r: int
    hiring: Callable[[int], None]
    hired: Callable[[int], None]
    buried: Callable[[int], None]


class Pool:
    """open_servers: makes the servers of a worker, in that worker."""

    def __init__(
        self,
        settings: Settings,
        queues: Queues,
        open_servers: OpenServers,
        generation: int = 1,
    ) -> None:
        self.settings = settings
        self.queues = queues
        self.generation = generation
        self.members: dict[int, Member] = {}  #: by line
        self.fleet = Fleet((), settings.policy, settings.workers)
        self._life = settings.life
        if settings.heartbeat_timeout_s is not None:
            poll_s = min(settings.life.poll_s, settings.heartbeat_timeout_s / 3)
            self._life = replace(settings.life, poll_s=poll_s)
        self.has_ended = False  #: it lives as long as its last worker, and gets no more
        self.look_s = self._life.poll_s  #: how often, at least, the loop must come round for it
        self.past_requests = self.past_sent_bytes = 0  #: of workers that have ended
        self.trouble = ""  #: why the last worker that did not get READY ended
        self._open_servers = open_servers
        self._drain_until_s = 0.0
        self._drainer_ready = True  # nothing is known against the first
        self._short = False
        self._looked_s = 0.0

    @property
    def name(self) -> str:
        """What the pool is called."""
        return self.settings.name

    def open(self, premises: Premises) -> None:
        """Share the sockets, and want workers."""
        self._at = premises
        self.queues.open()
        if not self.fleet.slots:
            self.fleet = fleet.new_fleet(
                self.settings.workers, self.settings.policy, time.monotonic()
            )

    def close(self) -> None:
        """Leave the sockets as they were found."""
        self.queues.restore()

    def adopt(self, member: Member, state: State, due_s: float | None) -> None:
        """Take over a worker of the generation before; call it before `open()`."""
        member.slot = len(self.fleet.slots)
        self.fleet = replace(self.fleet, slots=(*self.fleet.slots, Slot(state, due_s)))
        self.members[member.line] = member

    # -- what happens --------------------------------------------------------

    def tick(self) -> None:
        """Look at the clock and at the heartbeats."""
        self._check_heartbeats()
        self.happen(Wish.TICK)

    def patience_s(self) -> float:
        """Return how long `tick()` can wait."""
        due_s = fleet.next_due_s(self.fleet)
        poll_s = self.look_s
        return poll_s if due_s is None else max(0.0, min(poll_s, due_s - time.monotonic()))

    def is_over(self) -> bool:
        """Tell whether the pool has stopped, and nobody waits in its queues."""
        return fleet.is_over(self.fleet) and not self._is_unserved()

    def hear(self, record: Record) -> None:
        """Take note of what one of its workers reports."""
        child = self._at.children.get(record.line)
        member = self.members.get(record.line)
        if child is None or member is None or child.pid != record.pid:
            return  # the last words of a worker that has been replaced
        if record.what is Report.READY:
            log.debug("worker.ready", slot=record.line, pid=record.pid)
            self._drainer_ready = True
            self.trouble = ""
            self.happen(Happening(Event.READY, member.slot))
        elif record.what is Report.EXPIRED:
            log.debug("worker.expired", slot=record.line, pid=record.pid)
            self.happen(Happening(Event.EXPIRE, member.slot))
        elif record.what is Report.FAILED:
            child.last_words = record.text
        elif record.what is Report.YIELDED:
            return  # it is there to wake who looks at the scoreboard
        else:
            tell = log.debug if self.fleet.stopping else log.info
            tell("worker.asked_to_leave", slot=record.line, pid=record.pid)
            self.happen(Happening(Event.ASKED, member.slot))

    def bury(self, child: Child) -> None:
        """Take leave of a worker that has ended."""
        member = self.members.pop(child.line)
        cause = self._at.children.bury(child)
        words = self._at.board[child.line]
        self.past_requests += words.requests
        self.past_sent_bytes += words.sent_bytes
        self._at.board.give_back(child.line)
        self._at.buried(child.line)
        self.queues.drop(member.queue, [m.queue for m in self.members.values()])
        state = self.fleet.slots[member.slot].state
        expected = cause == "exit 0" and state not in (State.STARTING, State.SERVING)
        tell = log.debug if expected or child.doom else log.warning
        early = {"ready": "no"} if state is State.STARTING else {}
        if state is State.STARTING or (state is State.KILLED and child.doom == _LATE):
            self.trouble = child.last_words or child.doom or cause
        tell("worker.died", slot=child.line, pid=child.pid, cause=cause, **early)
        self.happen(Happening(Event.DIED, member.slot))

    def happen(self, what: Happening | Wish) -> None:
        """Step the fleet and perform what follows, until nothing more does."""
        if what is Wish.STOP:
            if self.fleet.stopping:
                return
            self._shut_doors()
        if what is Wish.QUIT:
            self._drain_until_s = 0.0
        self.fleet, actions = fleet.step(self.fleet, what, time.monotonic())
        for action, slot in actions:
            self._perform(action, slot)
        self.fleet, actions = fleet.balance(self.fleet, time.monotonic())
        for action, slot in actions:
            self._perform(action, slot)

    # -- what is wished ------------------------------------------------------

    def resize(self, workers: int) -> None:
        """Have so many workers from now on."""
        self.fleet = replace(self.fleet, target=workers)
        self.happen(Wish.TICK)

    def end(self) -> None:
        """Stop gracefully, though others go on; it gets no workers any more."""
        self.has_ended = True
        self.happen(Wish.STOP)
        self.fleet = replace(self.fleet, target=0)

    def kill(self, line: int, why: str) -> None:
        """End a worker by force, with its stacks in the log; another takes its place."""
        self._doom(line, why)
        self.happen(Happening(Event.STUCK, self.members[line].slot))

    def expire(self, line: int) -> None:
        """Have a worker replaced, and then finish and go."""
        self.happen(Happening(Event.EXPIRE, self.members[line].slot))

    def close_drained(self, keys: Collection[str]) -> None:
        """Close queues whose workers are still there, but have answered all that was in them."""
        numbers = self.queues.drop_drained(keys)
        for member in self.members.values():
            if member.queue in numbers:
                member.queue = -1

    def state_of(self, line: int) -> State:
        """Return the state of a worker."""
        return self.fleet.slots[self.members[line].slot].state

    # -- heartbeats ----------------------------------------------------------

    def _check_heartbeats(self) -> None:
        now_s = time.monotonic()
        late_s = now_s - self._looked_s
        self._looked_s = now_s
        limit_s = self.settings.heartbeat_timeout_s
        # After this process itself was stopped (SIGSTOP, a paused machine),
        # every heartbeat looks old: give the workers one turn to beat again.
        if limit_s is None or late_s > self._life.poll_s + limit_s / 2:
            return
        beating = {State.SERVING, State.EXPIRING}
        if self.settings.policy.retire_s is not None and not self.fleet.stopping:
            beating.add(State.LEAVING)  # else graceful_s is a bound
        for line, member in list(self.members.items()):
            state = self.fleet.slots[member.slot].state
            if state not in beating:
                continue
            words = self._at.board[line]
            silent_s = now_s - words.beat_ns / 1e9
            if words.activity != CLIENT and silent_s > limit_s:
                self.kill(line, f"stuck for {silent_s:.1f} s")

    # -- actions -------------------------------------------------------------

    def _perform(self, action: Action, slot: int) -> None:
        if action in (Action.START, Action.START_DRAINING):
            self._start(slot, draining=action is Action.START_DRAINING)
            return
        member = next(m for m in self.members.values() if m.slot == slot)
        if action is Action.RETIRE:
            staying = self._staying(but=member)
            member.doomed |= self.queues.leave(member.queue, staying, self.fleet.target)
            self._order(member, Order.DRAIN_SOME if member.doomed else Order.RETIRE)
        elif action is Action.DRAIN:
            self._order(member, Order.DRAIN)
        elif action is Action.QUIT:
            self._at.children.send(member.line, signal.SIGQUIT)
        elif action is Action.ABORT:
            # faulthandler writes every thread's stack from C, even when the
            # interpreter hangs, and the default action ends the process.
            self._doom(member.line, _LATE)
            self._at.children.send(member.line, signal.SIGABRT)
        else:
            self._doom(member.line, _LATE)
            self._at.children.send(member.line, signal.SIGKILL)

    def _start(self, slot: int, *, draining: bool) -> None:
        if draining:
            self._drainer_ready = False
        line = self._at.board.take()
        if line is None:
            self._not_started(slot, f"there are {CAPACITY} workers already")
            return
        self._at.board[line].clear(time.monotonic_ns())
        try:
            queue = self.queues.pick(self._staying())
            self._at.hiring(line)
            child = self._at.children.start(line, self._main_of(line, queue))
        except (OSError, PreforkError) as error:
            self._at.buried(line)
            self._at.board.give_back(line)
            self._not_started(slot, getattr(error, "strerror", None) or str(error))
            return
        self._at.hired(line)
        self._short = False
        log.debug("worker.started", slot=line, pid=child.pid)
        keys = tuple(self.queues[queue].keys)
        member = Member(line, slot, self.generation, queue, time.monotonic(), keys)
        self.members[line] = member
        if draining:
            self._order(member, Order.DRAIN)

    def _not_started(self, slot: int, reason: str) -> None:
        # Of many slots that all fail, each again and again, one says why.
        tell = log.debug if self._short else log.error
        tell("worker.not_started", reason=reason)
        self._short = True
        self.trouble = reason
        self.happen(Happening(Event.DIED, slot))

    def _main_of(self, line: int, queue: int) -> Callable[[Callable[[], None]], None]:
        """Return what a worker does; it is called in the child."""

        def main(let_through: Callable[[], None]) -> None:
            at = self._at
            place = Place(at.pid, line, at.board[line], at.report_w, at.lifeline_r)
            worker = Worker(place, self._life, lambda own: self._open_servers(queue, own))
            try:
                worker.run(let_through)
            except BaseException as error:
                kind = type(error).__name__
                worker.report(Report.FAILED, f"{kind}: {error}" if str(error) else kind)
                raise

        return main

    def _staying(self, but: Member | None = None) -> list[int]:
        """Return the queues of the workers that stay."""
        members = [m for m in self.members.values() if m is not but]
        return [m.queue for m in members if self.state_of(m.line) in _HERE]

    def _order(self, member: Member, order: Order) -> None:
        log.debug("worker.ordered", slot=member.line, order=order.name)
        words = self._at.board[member.line]
        if member.doomed.bit_length() > BITS:
            order = Order.DRAIN if order is Order.DRAIN_SOME else order
        else:
            words.doomed = member.doomed
        words.order = order
        self._at.children.send(member.line, signal.SIGTERM)

    def _doom(self, line: int, why: str) -> None:
        child = self._at.children.get(line)
        if child is not None and not child.doom:
            child.doom = why
            log.error("worker.killed", slot=line, pid=child.pid, reason=why)

    # -- the end -------------------------------------------------------------

    def _shut_doors(self) -> None:
        self.queues.shut()
        self._drain_until_s = time.monotonic() + self.settings.policy.graceful_s

    def _is_unserved(self) -> bool:
        """Start a worker for clients that the last one, by dying, has left in the queue.

        Not again after one that died before it was READY: it has answered
        nobody, and the next would not either.
        """
        if not self._drainer_ready or time.monotonic() >= self._drain_until_s:
            return False
        if not self.fleet.slots:
            return False
        if not self.queues.has_clients():
            return False
        log.warning("master.unserved", reason="clients wait, and their worker has died")
        self.happen(Happening(Event.UNSERVED, 0))
        return True


_LATE: Final = "not finished in time"
