"""Supervision as pure arithmetic: what happened, and when, to what must be done.

`step(fleet, happening, now_s)` returns the next fleet and the actions that the
master performs; `balance(fleet, now_s)` does the same for what follows from the
number of workers that is wanted. Nothing here forks, waits, reads a clock or
logs; the whole of the policy is one total table of state and event, and a test
walks every cell.

Rejected: states of the fleet beside those of the slots (running, stopping). A
slot whose worker must not be replaced says so itself (LEAVING, CONDEMNED), so
that a stop, a scale-down and a kill can overlap without special cases.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final, NamedTuple

from prefork.policy import Policy


class State(Enum):
    """What a slot is in."""

    WAITING = auto()  #: no worker; one starts when due
    STARTING = auto()  #: forked, not yet READY; killed when due
    SERVING = auto()  #: READY; its earlier failures are forgiven when due
    EXPIRING = auto()  #: serves on until its replacement, in another slot, is READY
    RETIRING = auto()  #: told to finish and go; replaced then; killed when due
    LEAVING = auto()  #: told to finish and go; not replaced; killed when due
    KILLED = auto()  #: ended by force; replaced; killed again when due
    CONDEMNED = auto()  #: ended by force; not replaced; killed again when due
    GONE = auto()  #: no worker, and none wanted


class Event(Enum):
    """What can happen to a slot."""

    DUE = auto()  #: the slot's time has come
    READY = auto()  #: its worker reports that it can serve
    ASKED = auto()  #: somebody other than the master asked its worker to go
    STUCK = auto()  #: its worker shows no life
    DIED = auto()  #: its worker has ended, however that came
    EXPIRE = auto()  #: its worker is to be replaced by another: of age, or of an old generation
    RELIEVE = auto()  #: its replacement is READY
    HIRE = auto()  #: the fleet grows by this slot
    DISMISS = auto()  #: the fleet shrinks by this slot
    STOP = auto()  #: the fleet ends, gracefully
    QUIT = auto()  #: the fleet ends now
    UNSERVED = auto()  #: the fleet ends, nobody is left, and clients wait in the queue


class Action(Enum):
    """What the master does to a slot."""

    START = auto()  #: fork a worker
    START_DRAINING = auto()  #: fork a worker that answers the accept queue, and goes
    RETIRE = auto()  #: order: finish what is in hand, then go
    DRAIN = auto()  #: order: answer the accept queue too, then go
    QUIT = auto()  #: SIGQUIT: go now
    ABORT = auto()  #: SIGABRT: write the stack of every thread, then die
    KILL = auto()  #: SIGKILL


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for one worker. due_s: when DUE happens, None for never."""

    state: State
    due_s: float | None = None
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Fleet:
    """All slots, by index; stopping once STOP or QUIT has happened.

    target: how many workers are wanted; `balance` makes it so.
    """

    slots: tuple[Slot, ...]
    policy: Policy
    target: int = 1
    stopping: bool = False


class Wish(Enum):
    """What can happen to the fleet as a whole."""

    TICK = auto()  #: time has passed
    STOP = auto()  #: end gracefully
    QUIT = auto()  #: end now


class Happening(NamedTuple):
    """An event and the slot it happens to."""

    event: Event
    slot: int


class Blame(Enum):
    """How a transition changes the slot's count of failures in a row."""

    NONE = auto()
    FAILED = auto()  #: it counts, and is waited for
    UNPROVEN = auto()  #: it counts, but only the earlier ones are waited for
    FORGIVEN = auto()  #: the count starts anew


class Cell(NamedTuple):
    """One cell of the table: where to go (None: stay, nothing changes) and what to do.

    patient: the worker that goes has retire_s for it.
    """

    state: State | None = None
    action: Action | None = None
    blame: Blame = Blame.NONE
    patient: bool = False


_STAY: Final = Cell()
_S, _A = State, Action

TABLE: Final[Mapping[State, Mapping[Event, Cell]]] = {
    State.WAITING: {
        Event.DUE: Cell(_S.STARTING, _A.START),
        Event.READY: _STAY,
        Event.ASKED: _STAY,
        Event.STUCK: _STAY,
        Event.DIED: _STAY,
        Event.EXPIRE: _STAY,
        Event.RELIEVE: _STAY,
        Event.HIRE: _STAY,
        Event.DISMISS: Cell(_S.GONE),
        Event.STOP: Cell(_S.GONE),
        Event.QUIT: Cell(_S.GONE),
        Event.UNSERVED: _STAY,
    },
    State.STARTING: {
        Event.DUE: Cell(_S.KILLED, _A.ABORT, Blame.FAILED),
        Event.READY: Cell(_S.SERVING),
        Event.ASKED: Cell(_S.RETIRING, _A.RETIRE),
        Event.STUCK: _STAY,  # its time is bounded by boot_s
        Event.DIED: Cell(_S.WAITING, None, Blame.FAILED),
        Event.EXPIRE: _STAY,
        Event.RELIEVE: _STAY,
        Event.HIRE: _STAY,
        Event.DISMISS: Cell(_S.LEAVING, _A.RETIRE, patient=True),
        Event.STOP: Cell(_S.LEAVING, _A.DRAIN),
        Event.QUIT: Cell(_S.CONDEMNED, _A.QUIT),
        Event.UNSERVED: _STAY,
    },
    State.SERVING: {
        Event.DUE: Cell(_S.SERVING, None, Blame.FORGIVEN),
        Event.READY: _STAY,
        Event.ASKED: Cell(_S.RETIRING, _A.RETIRE),
        Event.STUCK: Cell(_S.KILLED, _A.ABORT),
        # A proven worker is replaced at once; one that dies soon after READY,
        # again and again, must not make the master a fork loop.
        Event.DIED: Cell(_S.WAITING, None, Blame.UNPROVEN),
        Event.EXPIRE: Cell(_S.EXPIRING),
        Event.RELIEVE: _STAY,
        Event.HIRE: _STAY,
        Event.DISMISS: Cell(_S.LEAVING, _A.RETIRE, patient=True),
        Event.STOP: Cell(_S.LEAVING, _A.DRAIN),
        Event.QUIT: Cell(_S.CONDEMNED, _A.QUIT),
        Event.UNSERVED: _STAY,
    },
    State.EXPIRING: {
        Event.DUE: _STAY,
        Event.READY: _STAY,
        Event.ASKED: Cell(_S.LEAVING, _A.RETIRE),
        Event.STUCK: Cell(_S.CONDEMNED, _A.ABORT),
        Event.DIED: Cell(_S.GONE),
        Event.EXPIRE: _STAY,
        Event.RELIEVE: Cell(_S.LEAVING, _A.RETIRE, patient=True),
        Event.HIRE: _STAY,
        Event.DISMISS: _STAY,  # it is not among those that the target counts
        Event.STOP: Cell(_S.LEAVING, _A.DRAIN),
        Event.QUIT: Cell(_S.CONDEMNED, _A.QUIT),
        Event.UNSERVED: _STAY,
    },
    State.RETIRING: {
        Event.DUE: Cell(_S.KILLED, _A.ABORT),
        Event.READY: _STAY,  # it was READY when the order reached it
        Event.ASKED: _STAY,
        Event.STUCK: _STAY,  # its time is bounded by graceful_s
        Event.DIED: Cell(_S.WAITING),
        Event.EXPIRE: _STAY,
        Event.RELIEVE: _STAY,
        Event.HIRE: _STAY,
        Event.DISMISS: Cell(_S.LEAVING),
        Event.STOP: Cell(_S.LEAVING, _A.DRAIN),
        Event.QUIT: Cell(_S.CONDEMNED, _A.QUIT),
        Event.UNSERVED: _STAY,
    },
    State.LEAVING: {
        Event.DUE: Cell(_S.CONDEMNED, _A.ABORT),
        Event.READY: _STAY,
        Event.ASKED: _STAY,
        Event.STUCK: Cell(_S.CONDEMNED, _A.ABORT),  # retire_s may be long
        Event.DIED: Cell(_S.GONE),
        Event.EXPIRE: _STAY,
        Event.RELIEVE: _STAY,
        Event.HIRE: _STAY,
        Event.DISMISS: _STAY,
        Event.STOP: Cell(_S.LEAVING, _A.DRAIN),  # dismissed before: now the queue is its, too
        Event.QUIT: Cell(_S.CONDEMNED, _A.QUIT),
        Event.UNSERVED: _STAY,
    },
    State.KILLED: {
        Event.DUE: Cell(_S.KILLED, _A.KILL),
        Event.READY: _STAY,
        Event.ASKED: _STAY,
        Event.STUCK: _STAY,
        Event.DIED: Cell(_S.WAITING),
        Event.EXPIRE: _STAY,
        Event.RELIEVE: _STAY,
        Event.HIRE: _STAY,
        Event.DISMISS: Cell(_S.CONDEMNED),
        Event.STOP: Cell(_S.CONDEMNED),
        Event.QUIT: Cell(_S.CONDEMNED, _A.KILL),
        Event.UNSERVED: _STAY,
    },
    State.CONDEMNED: {
        Event.DUE: Cell(_S.CONDEMNED, _A.KILL),
        Event.READY: _STAY,
        Event.ASKED: _STAY,
        Event.STUCK: _STAY,
        Event.DIED: Cell(_S.GONE),
        Event.EXPIRE: _STAY,
        Event.RELIEVE: _STAY,
        Event.HIRE: _STAY,
        Event.DISMISS: _STAY,
        Event.STOP: _STAY,
        Event.QUIT: _STAY,
        Event.UNSERVED: _STAY,
    },
    State.GONE: {
        Event.DUE: _STAY,
        Event.READY: _STAY,
        Event.ASKED: _STAY,
        Event.STUCK: _STAY,
        Event.DIED: _STAY,
        Event.EXPIRE: _STAY,
        Event.RELIEVE: _STAY,
        Event.HIRE: Cell(_S.STARTING, _A.START),
        Event.DISMISS: _STAY,
        Event.STOP: _STAY,
        Event.QUIT: _STAY,
        Event.UNSERVED: Cell(_S.LEAVING, _A.START_DRAINING),
    },
}

#: Slots in these states hold a worker that is meant to stay, or will.
WANTED: Final = frozenset(
    {State.WAITING, State.STARTING, State.SERVING, State.RETIRING, State.KILLED}
)

Actions = list[tuple[Action, int]]  #: actions with their slots, in the order to perform them


def new_fleet(workers: int, policy: Policy, now_s: float) -> Fleet:
    """Return a fleet whose first TICK starts this many workers."""
    return Fleet((Slot(State.WAITING, now_s),) * workers, policy, workers)


def step(fleet: Fleet, what: Happening | Wish, now_s: float) -> tuple[Fleet, Actions]:
    """Return the fleet after what happened at now_s (monotonic seconds), and what to do.

    Pure: the same arguments give the same result, and nothing else changes.
    """
    happenings: list[Happening] = []
    if isinstance(what, Happening):
        happenings = [what]
    elif what is Wish.TICK:
        happenings = [Happening(Event.DUE, n) for n in _due(fleet, now_s)]
    else:
        fleet = replace(fleet, stopping=True)
        event = Event.STOP if what is Wish.STOP else Event.QUIT
        happenings = [Happening(event, n) for n in range(len(fleet.slots))]
    return _step_slots(fleet, happenings, now_s)


def balance(fleet: Fleet, now_s: float) -> tuple[Fleet, Actions]:
    """Return the fleet with as many workers as its target, and what to do for that. Pure.

    Those that expire are replaced a few at a time, each before it goes: at no
    moment fewer than the target serve because of it.
    """
    if fleet.stopping:
        return fleet, []
    wanted = _in_states(fleet, WANTED)
    expiring = _in_states(fleet, {State.EXPIRING})
    serving = _in_states(fleet, {State.SERVING})
    happenings = [Happening(Event.DISMISS, n) for n in wanted[fleet.target :]]
    relieved = expiring[: max(0, min(len(serving), fleet.target) + len(expiring) - fleet.target)]
    happenings += [Happening(Event.RELIEVE, n) for n in relieved]
    surge = max(1, fleet.target // 4)
    lacking = fleet.target - len(wanted)
    for _ in range(min(lacking, lacking + surge - len(expiring) + len(relieved))):
        fleet, free = _with_free_slot(fleet, {h.slot for h in happenings})
        happenings.append(Happening(Event.HIRE, free))
    return _step_slots(fleet, happenings, now_s)


def is_serving(fleet: Fleet) -> bool:
    """Tell whether as many workers as are wanted are READY, and none is about to start."""
    serving = len(_in_states(fleet, {State.SERVING, State.EXPIRING}))
    return serving >= fleet.target and not _in_states(fleet, {State.STARTING, State.WAITING})


def is_renewed(fleet: Fleet) -> bool:
    """Tell whether no worker waits for its replacement any more."""
    return is_serving(fleet) and not _in_states(fleet, {State.EXPIRING})


def is_over(fleet: Fleet) -> bool:
    """Tell whether nothing is left to do."""
    return fleet.stopping and all(slot.state is State.GONE for slot in fleet.slots)


def next_due_s(fleet: Fleet) -> float | None:
    """Return when the next TICK matters; None when only events do."""
    return min((slot.due_s for slot in fleet.slots if slot.due_s is not None), default=None)


def _in_states(fleet: Fleet, states: Container[State]) -> list[int]:
    return [n for n, slot in enumerate(fleet.slots) if slot.state in states]


def _due(fleet: Fleet, now_s: float) -> list[int]:
    return [
        n for n, slot in enumerate(fleet.slots) if slot.due_s is not None and slot.due_s <= now_s
    ]


def _with_free_slot(fleet: Fleet, taken: Container[int]) -> tuple[Fleet, int]:
    for n in _in_states(fleet, {State.GONE}):
        if n not in taken:
            return fleet, n
    return replace(fleet, slots=(*fleet.slots, Slot(State.GONE))), len(fleet.slots)


def _step_slots(fleet: Fleet, happenings: list[Happening], now_s: float) -> tuple[Fleet, Actions]:
    slots = list(fleet.slots)
    actions: Actions = []
    for event, index in happenings:
        cell = TABLE[slots[index].state][event]
        if cell.state is not None:
            slots[index] = _enter(slots[index], cell, fleet.policy, now_s)
        if cell.action is not None:
            actions.append((cell.action, index))
    return replace(fleet, slots=tuple(slots)), actions


def _enter(slot: Slot, cell: Cell, policy: Policy, now_s: float) -> Slot:
    state = cell.state
    assert state is not None  # noqa: S101 # narrowed for the type checker by the only caller
    failures = {
        Blame.NONE: slot.failures,
        Blame.FAILED: slot.failures + 1,
        Blame.UNPROVEN: slot.failures + 1,
        Blame.FORGIVEN: 0,
    }[cell.blame]
    waited_for = slot.failures if cell.blame is Blame.UNPROVEN else failures
    patience_s = policy.graceful_s
    if cell.patient and policy.retire_s is not None:
        patience_s = policy.retire_s
    lasts_s = {
        State.WAITING: policy.backoff_after_s(waited_for),
        State.STARTING: policy.boot_s,
        State.SERVING: None if cell.blame is Blame.FORGIVEN else policy.settle_s,
        State.EXPIRING: None,
        State.RETIRING: policy.graceful_s,
        State.LEAVING: patience_s,
        State.KILLED: policy.kill_s,
        State.CONDEMNED: policy.kill_s,
        State.GONE: None,
    }[state]
    return Slot(state, None if lasts_s is None else now_s + lasts_s, failures)
