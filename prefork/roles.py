"""What a worker knows of those that it serves by: a server, and an engine in its loop.

Types only, so that the machinery needs neither socketserver nor HTTP.
"""

from typing import TYPE_CHECKING, Protocol

from prefork.acceptor import Listening
from prefork.programs import Programs

if TYPE_CHECKING:
    from prefork.worker import Worker


class Server(Listening, Protocol):
    """What a worker knows of a server: socketserver's own names, and two more."""

    timeout: float | None
    serves_again: bool

    def handle_timeout(self) -> None:
        """Do what is due when no request came within `timeout` seconds."""

    def service_actions(self) -> None:
        """Do what is due in each turn of the loop."""

    def heed_shutdown(self) -> None:
        """Tell the master if a handler has asked for the end in the stdlib's private way."""

    def enter_worker(self, worker: "Worker") -> None:
        """Get ready to serve in this process."""

    def leave_worker(self) -> None:
        """Finish: no request is left."""


class Engine(Protocol):
    """What a worker knows of a server that runs its clients in the worker's loop.

    wait_s: how long it can do without a `tick()`, in seconds. taken, sent_bytes:
    requests and bytes of answers, since it began. programs: for which handlers wait.
    """

    wait_s: float
    taken: int
    programs: Programs

    @property
    def sent_bytes(self) -> int:
        """Return how much clients have been sent."""

    def handled(self) -> int:
        """Return how many requests handlers have in hand."""

    def sending(self) -> int:
        """Return how many answers are on their way, without a handler."""

    def oldest_request(self) -> tuple[str, int] | None:
        """Return the request that a handler has had for longest: its line, and since when.

        In nanoseconds of CLOCK_MONOTONIC. A signal handler calls it.
        """

    def accept(self) -> bool:
        """Take one client from the queue, if one is there; False: not before another has gone."""

    def retire(self) -> None:
        """Take no more clients, and tell those that are served that no more is expected of them."""

    def any_left(self) -> bool:
        """Tell whether a client is still in hand, or a program that goes on without one."""

    def is_busy(self) -> bool:
        """Tell whether a handler runs."""

    def hang_up_idle(self, idle_ns: int) -> None:
        """Let go of clients that have been idle for so long."""

    def oldest_sign_of_life_ns(self, now_ns: int) -> int:
        """Return when the thread that has been silent longest last showed life; now if none."""

    def tick(self, now_s: float) -> None:
        """Do what is due now and then."""

    def write_log(self) -> None:
        """Write what is to be logged, unless the thread that a signal interrupted is at it."""

    def follow_log(self) -> None:
        """Look anew at the descriptor of the access log: it leads to another file now."""

    def close(self) -> None:
        """Finish, in a worker, after the last request."""
