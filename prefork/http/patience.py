"""Who of the clients that are waited for is out of time.

A worker, in the thread of its loop. It looks when the next may be late, not
more often, and never at one whose handler runs.
"""

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from prefork.http.connection import Connection
from prefork.http.visit import PREFETCHING, READING, RUNNING, WAITING
from prefork.http.wire import WireError

if TYPE_CHECKING:
    from prefork.http.engine import Engine

#: How often the clock is looked at, in seconds.
_TICK_S: Final = 0.5
#: How often when threads are to be added, or a handler's timeout is short.
STUCK_S: Final = 0.02

_TOO_LATE: Final = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Patience:
    """wait_s: how long the loop may wait before the next `tick()`."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self.wait_s = _TICK_S
        self._least_s = engine.limits.least_s
        self._ticked_s = engine.now_s
        self._due_s = 0.0
        self._spared = False

    def learn(self, timeout_s: float | None) -> None:
        """Look at the clock often enough for handlers with this timeout."""
        self.wait_s = _TICK_S
        self._least_s = self._engine.limits.least_s
        if timeout_s is not None:
            self.wait_s = min(_TICK_S, max(STUCK_S, timeout_s / 4))
            self._least_s = min(self._least_s, timeout_s)
        self._due_s = 0.0

    def tick(self, now_s: float) -> None:
        """Let those go whose time is up, if it is time to look."""
        late_s, self._ticked_s = now_s - self._ticked_s, now_s
        if now_s < self._due_s:
            return
        # After a handler has held this loop up, clients look late who were not heard: give them
        # one turn.
        self._spared = not self._spared
        if late_s < 2 * self.wait_s or not self._spared:
            self._spared = False
            self._sweep(now_s)

    def _sweep(self, now_s: float) -> None:
        """Let those go whose time is up; find out when the next will be.

        Not more often: among 10,000 idle clients a look at each is a millisecond.
        """
        due_s = now_s + self._least_s  # whoever begins to wait from now on has so long
        for connection in list(self._engine.connections):
            if connection.state == RUNNING:
                continue
            if connection.deadline_s <= now_s:
                self._engine.safely(self._expire, connection)
            elif connection.deadline_s < due_s:
                due_s = connection.deadline_s
        self._due_s = max(due_s, now_s + STUCK_S)

    def _expire(self, connection: Connection) -> None:
        """Lose patience with a client."""
        state = connection.state
        if state == WAITING:
            if connection.started_s:
                connection.outbox.send(_TOO_LATE)
            connection.finish()
        elif state in (READING, PREFETCHING) and connection.timeout_s is not None:
            connection.refuse(TimeoutError("timed out"))
            self._engine.dispatch(connection)
        elif state == PREFETCHING or (state == READING and connection.buffer):
            connection.refuse(WireError(HTTPStatus.REQUEST_TIMEOUT, "", b""))
            self._engine.dispatch(connection)
        elif state == READING:
            connection.finish()
        else:
            connection.abort()
            connection.close()

    def hang_up(self, idle_s: float) -> None:
        """Let those go who have been idle for so long."""
        engine = self._engine
        for connection in list(engine.connections):
            if connection.state in (READING, WAITING) and not connection.buffer:
                idle_since_s = connection.deadline_s - connection.stall_s(
                    engine.limits.keep_alive_s
                )
                if engine.now_s - idle_since_s >= idle_s:
                    engine.safely(Connection.finish, connection)
