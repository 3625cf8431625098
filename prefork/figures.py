"""What a worker writes on the scoreboard for people: how much it has done, and what it does now.

A worker: in each tick, and when the master asks by SIGURG. Nothing is decided by
it but who is busy, and who has served enough.
"""

import time
from collections.abc import Callable, Mapping

from prefork.clients import Clients
from prefork.roles import Engine
from prefork.scoreboard import Slot


class Figures:
    """taken: requests that no engine has counted. in_hand: tells how many of them are not over."""

    def __init__(
        self,
        slot: Slot,
        in_hand: Callable[[], int],
        clients: Clients,
        engines: Mapping[int, Engine],
    ) -> None:
        self.taken = 0
        self._slot = slot
        self._in_hand = in_hand
        self._clients = clients
        self._engines = engines

    def requests(self) -> int:
        """Return how many requests were taken."""
        taken = self.taken
        for engine in self._engines.values():
            taken += engine.taken
        return taken

    def write(self) -> None:
        """Write how much there is and was."""
        slot, engines = self._slot, self._engines.values()
        slot.requests = self.requests()
        slot.sent_bytes = self._clients.sent_bytes + sum(e.sent_bytes for e in engines)
        slot.handled = self._in_hand() + sum(e.handled() for e in engines)
        slot.busy = slot.handled + sum(e.sending() for e in engines)

    def show_request(self) -> None:
        """Write what is being handled.

        A signal handler: it runs beside a handler that computes or waits. Only one that does not
        return from a call of C code is not seen.
        """
        found = [one for e in self._engines.values() if (one := e.oldest_request()) is not None]
        text, since_ns = min(found, key=lambda one: one[1], default=("", 0))
        slot = self._slot
        slot.since_ns, slot.text = since_ns, text
        self.write()
        slot.seen_ns = time.monotonic_ns()
