"""Who is there of an engine's clients, and what is done for them.

A worker; the master's questions and the engine's own. It changes nothing.
"""

from typing import TYPE_CHECKING, Final

from prefork.http.outbox import Meter
from prefork.http.visit import RUNNING, SENDING

if TYPE_CHECKING:
    from prefork.http.connection import Connection

#: What may be kept in memory of listings that slow clients take; then a handler waits for them.
_KEPT_BYTES: Final = 1 << 26


class Census:
    """connections: all that have not gone. meter: of what they are sent."""

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.meter = Meter()

    @property
    def sent_bytes(self) -> int:
        """Return how much clients have been sent."""
        return self.meter.sent_bytes

    def has_memory(self) -> bool:
        """Tell whether more of answers may be kept for slow clients than the limit of one."""
        return sum(c.outbox.kept_bytes() for c in list(self.connections)) < _KEPT_BYTES

    def handled(self) -> int:
        """Return how many requests handlers have in hand."""
        return sum(c.state == RUNNING for c in list(self.connections))

    def sending(self) -> int:
        """Return how many answers are on their way, without a handler."""
        return sum(c.state == SENDING for c in list(self.connections))

    def oldest_request(self) -> tuple[str, int] | None:
        """Return the request that has been in hand for longest, and since when, in nanoseconds."""
        busy = [c for c in list(self.connections) if c.state in (RUNNING, SENDING)]
        first = min(busy, key=lambda connection: connection.begun_s, default=None)
        if first is None:
            return None
        head, address = first.head, first.address
        line = "?" if head is None else f"{head.method} {head.target}"
        client = address[0] if isinstance(address, tuple) and address else "unix"
        return f"{line} from {client}", int(first.begun_s * 1e9)
