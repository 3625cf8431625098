"""Where a worker is in the fleet, and how it lives. Values only.

Made by the master, kept by the worker.
"""

from collections.abc import Callable
from dataclasses import dataclass

from prefork.scoreboard import Slot


@dataclass(frozen=True, slots=True)
class Place:
    """A worker's place in the fleet.

    master: its PID. line, slot: where on the scoreboard this worker is. report_fd:
    the write end of the master's pipe. lifeline_fd: end of file there means
    that the master is dead.
    """

    master: int
    line: int
    slot: Slot
    report_fd: int
    lifeline_fd: int


def _nothing() -> None:
    """Stand in for what nobody wants to do."""


@dataclass(frozen=True, slots=True)
class Life:
    """How a worker lives.

    what: for the title. poll_s: the longest wait between two heartbeats.
    linger_s: how long idle keep-alive clients may still send a request after the
    order to go. max_requests: after so many it asks for a replacement, and
    serves on until that is READY; 0: never. jitter: the share of it by which
    workers differ, so that not all go at once. rehearsal: get ready, say so, and go.
    on_stop: called when the last request is answered.
    """

    what: str
    poll_s: float
    linger_s: float = 2.0
    max_requests: int = 0
    jitter: float = 0.0
    rehearsal: bool = False
    on_stop: Callable[[], None] = _nothing
