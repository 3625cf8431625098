"""Every cell of the supervision table, and the arithmetic around it."""

import itertools
import random
from dataclasses import replace

import pytest

from prefork.fleet import (
    TABLE,
    Action,
    Event,
    Fleet,
    Happening,
    Slot,
    State,
    Wish,
    balance,
    is_over,
    is_renewed,
    is_serving,
    new_fleet,
    next_due_s,
    step,
)
from prefork.policy import Policy

POLICY = Policy(
    boot_s=60,
    graceful_s=30,
    retire_s=600,
    kill_s=2,
    settle_s=1,
    backoff_s=1,
    backoff_factor=1.5,
    backoff_cap_s=30,
)
NOW_S = 1000.0

W, S, V = State.WAITING, State.STARTING, State.SERVING
X = State.EXPIRING
R, L, K = State.RETIRING, State.LEAVING, State.KILLED
C, G = State.CONDEMNED, State.GONE

# The whole table, written down a second time: (state, action, due in s, failures) of a slot that
# had two failures, or None where nothing may change.
EXPECTED = {
    W: {
        Event.DUE: (S, Action.START, 60, 2),
        Event.DISMISS: (G, None, None, 2),
        Event.STOP: (G, None, None, 2),
        Event.QUIT: (G, None, None, 2),
    },
    S: {
        Event.DUE: (K, Action.ABORT, 2, 3),
        Event.READY: (V, None, 1, 2),
        Event.ASKED: (R, Action.RETIRE, 30, 2),
        Event.DIED: (W, None, 2.25, 3),
        Event.DISMISS: (L, Action.RETIRE, 600, 2),
        Event.STOP: (L, Action.DRAIN, 30, 2),
        Event.QUIT: (C, Action.QUIT, 2, 2),
    },
    V: {
        Event.DUE: (V, None, None, 0),
        Event.ASKED: (R, Action.RETIRE, 30, 2),
        Event.STUCK: (K, Action.ABORT, 2, 2),
        Event.DIED: (W, None, 1.5, 3),
        Event.EXPIRE: (X, None, None, 2),
        Event.DISMISS: (L, Action.RETIRE, 600, 2),
        Event.STOP: (L, Action.DRAIN, 30, 2),
        Event.QUIT: (C, Action.QUIT, 2, 2),
    },
    X: {
        Event.ASKED: (L, Action.RETIRE, 30, 2),
        Event.STUCK: (C, Action.ABORT, 2, 2),
        Event.DIED: (G, None, None, 2),
        Event.RELIEVE: (L, Action.RETIRE, 600, 2),
        Event.STOP: (L, Action.DRAIN, 30, 2),
        Event.QUIT: (C, Action.QUIT, 2, 2),
    },
    R: {
        Event.DUE: (K, Action.ABORT, 2, 2),
        Event.DIED: (W, None, 1.5, 2),
        Event.DISMISS: (L, None, 30, 2),
        Event.STOP: (L, Action.DRAIN, 30, 2),
        Event.QUIT: (C, Action.QUIT, 2, 2),
    },
    L: {
        Event.DUE: (C, Action.ABORT, 2, 2),
        Event.STUCK: (C, Action.ABORT, 2, 2),
        Event.DIED: (G, None, None, 2),
        Event.STOP: (L, Action.DRAIN, 30, 2),
        Event.QUIT: (C, Action.QUIT, 2, 2),
    },
    K: {
        Event.DUE: (K, Action.KILL, 2, 2),
        Event.DIED: (W, None, 1.5, 2),
        Event.DISMISS: (C, None, 2, 2),
        Event.STOP: (C, None, 2, 2),
        Event.QUIT: (C, Action.KILL, 2, 2),
    },
    C: {
        Event.DUE: (C, Action.KILL, 2, 2),
        Event.DIED: (G, None, None, 2),
    },
    G: {
        Event.HIRE: (S, Action.START, 60, 2),
        Event.UNSERVED: (L, Action.START_DRAINING, 30, 2),
    },
}


@pytest.mark.parametrize(("state", "event"), [*itertools.product(State, Event)])
def test_each_state_meets_each_event_as_written(state, event):
    slot = Slot(state, due_s=NOW_S + 7, failures=2)
    fleet, actions = step(Fleet((slot,), POLICY), Happening(event, 0), NOW_S)
    expected = EXPECTED[state].get(event)
    if expected is None:
        assert fleet.slots == (slot,)
        assert actions == []
    else:
        to, action, lasts_s, failures = expected
        due_s = None if lasts_s is None else NOW_S + lasts_s
        assert fleet.slots == (Slot(to, due_s, failures),)
        assert actions == ([] if action is None else [(action, 0)])


def test_the_table_is_total():
    assert set(TABLE) == set(State)
    assert all(set(row) == set(Event) for row in TABLE.values())


def test_a_step_touches_no_other_slot():
    before = Fleet((Slot(V), Slot(V), Slot(V)), POLICY)
    after, _ = step(before, Happening(Event.DIED, 1), NOW_S)
    assert [s.state for s in after.slots] == [V, W, V]


def test_a_new_fleet_starts_all_its_workers_at_once():
    fleet, actions = step(new_fleet(3, POLICY, NOW_S), Wish.TICK, NOW_S)
    assert actions == [(Action.START, 0), (Action.START, 1), (Action.START, 2)]
    assert not is_serving(fleet)
    for n in range(3):
        fleet, _ = step(fleet, Happening(Event.READY, n), NOW_S)
    assert is_serving(fleet)


def test_a_tick_moves_only_what_is_due():
    slots = (Slot(W, NOW_S), Slot(W, NOW_S + 0.1), Slot(V, None))
    fleet, actions = step(Fleet(slots, POLICY), Wish.TICK, NOW_S)
    assert actions == [(Action.START, 0)]
    assert fleet.slots[1:] == slots[1:]


def test_deaths_before_ready_back_off_to_the_cap_and_never_end_the_fleet():
    fleet, now_s, waits = new_fleet(1, POLICY, NOW_S), NOW_S, []
    for _ in range(200):
        fleet, actions = step(fleet, Wish.TICK, now_s)
        assert actions == [(Action.START, 0)]
        fleet, _ = step(fleet, Happening(Event.DIED, 0), now_s)
        waits.append(next_due_s(fleet) - now_s)
        now_s = next_due_s(fleet)
    assert waits[:4] == pytest.approx([1, 1.5, 2.25, 3.375])
    assert waits[-1] == 30
    assert not is_over(fleet)


def test_a_proven_worker_is_replaced_at_once():
    fleet = Fleet((Slot(V, NOW_S, failures=5),), POLICY)
    fleet, _ = step(fleet, Wish.TICK, NOW_S)  # it has settled
    fleet, _ = step(fleet, Happening(Event.DIED, 0), NOW_S)
    assert next_due_s(fleet) == NOW_S


def test_a_worker_that_dies_right_after_ready_again_and_again_backs_off():
    fleet, waits = new_fleet(1, POLICY, NOW_S), []
    now_s = NOW_S
    for _ in range(4):
        fleet, _ = step(fleet, Wish.TICK, now_s)
        fleet, _ = step(fleet, Happening(Event.READY, 0), now_s)
        fleet, _ = step(fleet, Happening(Event.DIED, 0), now_s)
        waits.append(next_due_s(fleet) - now_s)
        now_s = next_due_s(fleet)
    assert waits == pytest.approx([0, 1, 1.5, 2.25])


def test_a_stop_is_over_when_the_last_worker_has_gone():
    fleet = Fleet((Slot(V), Slot(S, NOW_S + 60), Slot(W, NOW_S + 5), Slot(K, NOW_S + 1)), POLICY)
    fleet, actions = step(fleet, Wish.STOP, NOW_S)
    assert actions == [(Action.DRAIN, 0), (Action.DRAIN, 1)]
    assert [s.state for s in fleet.slots] == [L, L, G, C]
    for n in (0, 1, 3):
        assert not is_over(fleet)
        fleet, actions = step(fleet, Happening(Event.DIED, n), NOW_S)
        assert actions == []
    assert is_over(fleet)


def test_a_quit_during_a_stop_hurries():
    fleet, _ = step(Fleet((Slot(V), Slot(K, NOW_S + 2)), POLICY), Wish.STOP, NOW_S)
    fleet, actions = step(fleet, Wish.QUIT, NOW_S + 1)
    assert actions == [(Action.QUIT, 0)]
    assert next_due_s(fleet) == NOW_S + 2
    fleet, actions = step(fleet, Wish.TICK, NOW_S + 3)
    assert actions == [(Action.KILL, 0), (Action.KILL, 1)]


def resized(fleet, target):
    return balance(replace(fleet, target=target), NOW_S)


def test_growing_revives_a_gone_slot_before_it_adds_one():
    fleet, actions = resized(Fleet((Slot(V), Slot(G)), POLICY), 2)
    assert actions == [(Action.START, 1)]
    fleet, actions = resized(fleet, 4)
    assert actions == [(Action.START, 2), (Action.START, 3)]
    assert [s.state for s in fleet.slots] == [V, S, S, S]


def test_shrinking_takes_the_last_workers():
    fleet, actions = resized(Fleet((Slot(V), Slot(V), Slot(L, NOW_S)), POLICY), 1)
    assert actions == [(Action.RETIRE, 1)]
    assert [s.state for s in fleet.slots] == [V, L, L]
    fleet, actions = resized(fleet, 0)
    assert actions == [(Action.RETIRE, 0)]


def test_a_stopping_fleet_is_not_resized():
    stopping, _ = step(Fleet((Slot(V), Slot(V)), POLICY, 2), Wish.STOP, NOW_S)
    assert resized(stopping, 5)[1] == []


def test_workers_that_expire_are_replaced_one_by_one_each_before_it_goes():
    fleet = Fleet((Slot(X), Slot(X), Slot(X)), POLICY, 3)
    started = relieved = 0
    fleet, actions = balance(fleet, NOW_S)
    while actions or not is_renewed(fleet):
        started += sum(action is Action.START for action, _ in actions)
        relieved += sum(action is Action.RETIRE for action, _ in actions)
        states = [s.state for s in fleet.slots]
        assert states.count(V) + states.count(X) >= 3
        assert states.count(S) <= 1
        if S in states:
            fleet, more = step(fleet, Happening(Event.READY, states.index(S)), NOW_S)
            assert more == []
        fleet, actions = balance(fleet, NOW_S)
    assert (started, relieved) == (3, 3)
    assert [s.state for s in fleet.slots].count(V) == 3


def test_a_replacement_that_cannot_start_relieves_nobody():
    fleet, actions = balance(Fleet((Slot(X), Slot(X)), POLICY, 2), NOW_S)
    assert actions == [(Action.START, 2)]
    for _ in range(5):
        fleet, _ = step(fleet, Happening(Event.DIED, 2), NOW_S)
        assert balance(fleet, NOW_S) == (fleet, [])
        fleet, actions = step(fleet, Wish.TICK, next_due_s(fleet))
        assert actions == [(Action.START, 2)]
    assert [s.state for s in fleet.slots] == [X, X, S]
    assert is_serving(fleet) is False


def test_a_large_fleet_is_replaced_several_at_a_time():
    _, actions = balance(Fleet((Slot(X),) * 16, POLICY, 16), NOW_S)
    assert len(actions) == 4


def test_an_expiring_worker_that_dies_is_replaced_by_those_to_come():
    fleet, _ = balance(Fleet((Slot(X), Slot(X)), POLICY, 2), NOW_S)
    fleet, _ = step(fleet, Happening(Event.DIED, 0), NOW_S)
    fleet, actions = balance(fleet, NOW_S)
    assert actions == [(Action.START, 0)]
    assert [s.state for s in fleet.slots] == [S, X, S]


def test_fewer_workers_than_expire_relieve_some_at_once():
    _, actions = balance(Fleet((Slot(X),) * 4, POLICY, 2), NOW_S)
    assert actions == [(Action.RETIRE, 0), (Action.RETIRE, 1), (Action.START, 4)]


def test_no_sequence_of_happenings_starts_a_worker_in_a_slot_that_has_one():  # noqa: C901 # a story
    """A model of the processes follows the actions; 300 random lives of 200 happenings each."""
    chance = random.Random(20261120)
    for _ in range(300):
        fleet, now_s, alive = new_fleet(3, POLICY, 0.0), 0.0, set()
        for _ in range(200):
            now_s += chance.choice([0.0, 0.5, 3.0, 40.0])
            kind = chance.choice(["tick", "ready", "die", "asked", "stuck", "expire", "resize"])
            what = Wish.TICK if kind == "tick" else None
            if chance.random() < 0.01:
                what = chance.choice([Wish.STOP, Wish.QUIT])
            if kind == "resize" and what is None:
                fleet, what = replace(fleet, target=chance.randrange(6)), Wish.TICK
            if what is None:
                if not alive:
                    continue
                slot = chance.choice(sorted(alive))
                if kind == "die":
                    alive.discard(slot)
                    kind = "died"
                what = Happening(Event[kind.upper()], slot)
            fleet, actions = step(fleet, what, now_s)
            fleet, more = balance(fleet, now_s)
            for action, slot in actions + more:
                if action is Action.START:
                    assert slot not in alive
                    alive.add(slot)
                else:
                    assert slot in alive
            occupied = {n for n, s in enumerate(fleet.slots) if s.state not in (W, G)}
            assert occupied == alive
        fleet, _ = step(fleet, Wish.QUIT, now_s)
        for slot in alive:
            fleet, _ = step(fleet, Happening(Event.DIED, slot), now_s)
        assert is_over(fleet)
