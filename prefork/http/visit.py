"""One client, as the handler that serves it and the parts of its request know it.

A worker, in the thread that owns it; `Connection` is what the loop makes of it.
It never touches the loop.
"""

import contextlib
import select
import socket
from typing import TYPE_CHECKING, Any, Final

from prefork.http.body import ENDLESS, Body
from prefork.http.client import ClientSocket
from prefork.http.outbox import Outbox
from prefork.http.response import Response

if TYPE_CHECKING:
    from prefork.desk import Desk
    from prefork.http.access import Entry
    from prefork.http.engine import Engine
    from prefork.http.wire import Head

# What a client is waited for. Plain numbers: they are looked at for each event.
READING: Final = 0  #: a head
PREFETCHING: Final = 1  #: a small body, before its handler is called
RUNNING: Final = 2  #: its handler, which owns it
SENDING: Final = 3  #: the client, to take the rest of an answer
DISCARDING: Final = 4  #: the rest of a body that nobody has read
LINGERING: Final = 5  #: the client, to close after the last answer
WAITING: Final = 6  #: a first byte, which stays in the socket for a handler that reads itself
CLOSED: Final = 7

_fileno = socket.socket.fileno


class Visit:
    """address: as accept() gave it. handler: its one instance, when there is one.

    head: of the request in hand. fresh: no handler has taken it up. error: why
    there is none, for the handler to say. invited: the client was asked for the
    body. buffer: what has been received and not been used. deadline_s: when the
    loop loses patience. kept: the handler stays in `handle()` until the end;
    idle: and waits for its client's next request. parked: the handler has
    returned, and is wanted again. over: no request is expected any more.
    announced: a proxy has yet to say who the client is. failing: the handler has
    raised. exposed: it has asked for the descriptor. abandoned: it has closed
    or taken the socket. deleted: names of attributes that the handler has
    deleted in this request. unlogged: the line of the access log for an answer that
    is still sent. is_special: more than usual is to be done after an answer.
    """

    __slots__ = (
        "_finished",
        "_mask",
        "abandoned",
        "address",
        "announced",
        "begun_s",
        "body",
        "buffer",
        "deadline_s",
        "deleted",
        "desk",
        "engine",
        "error",
        "exposed",
        "failing",
        "fresh",
        "handler",
        "head",
        "idle",
        "invited",
        "is_special",
        "kept",
        "outbox",
        "over",
        "parked",
        "requests",
        "response",
        "rfile",
        "sock",
        "started_s",
        "state",
        "timeout_s",
        "unlogged",
    )

    def __init__(self, engine: "Engine", sock: ClientSocket, address: Any, desk: "Desk") -> None:
        self.engine = engine
        self.sock = sock
        self.address = address
        self.desk = desk
        self.state = READING
        self.buffer = b""
        self.handler: Any = None
        self.head: Head | None = None
        self.error: Exception | None = None
        self.body: Body | None = None
        self.outbox = Outbox(sock, engine.limits.buffer_bytes, self._wait_to_send, engine.meter)
        self.response = Response(self)
        self.rfile: Any = None
        self.deleted: tuple[str, ...] = ()
        self.is_special = engine.access is not None
        self.requests = 0
        self.timeout_s: float | None = None
        self.deadline_s = engine.now_s + engine.limits.keep_alive_s
        self.started_s = self.begun_s = 0.0
        self.idle = self.kept = self.parked = self.over = self.failing = False
        self.announced = self.exposed = self.abandoned = self.fresh = self.invited = False
        self._finished = False
        self.unlogged: Entry | None = None
        self._mask = 0

    # -- for the request in hand ---------------------------------------------

    def must_close(self) -> bool:
        """Tell whether this request's answer is the connection's last."""
        return (
            self.requests >= self.engine.keep_alive_requests
            or self.over
            or self.handler is None
            or getattr(self.handler, "close_connection", True)
        )

    def is_unread(self) -> bool:
        """Tell whether a kept handler has been given no request yet."""
        return self.kept and self.requests == 0

    def open_tunnel(self) -> None:
        """Let the handler read whatever comes, without an end."""
        if self.body is not None and self.body.left:
            return  # the request's own comes first, and ends where it ends
        rfile = self.rfile
        if rfile is not None and not rfile.closed:
            # The handler may have it in another place already, and has not been at its end.
            self.body = rfile.raw
            rfile.raw.left = ENDLESS
        else:
            self.body = Body(self, ENDLESS)

    def expose(self) -> None:
        """Note that the handler has the descriptor, and cannot be seen waiting any more."""
        if self.state == RUNNING:
            self.exposed = True
            self.desk.away()

    def show_life(self) -> None:
        """Note that bytes move: a handler that has to do with its client is not stuck."""
        if not self.exposed:
            self.desk.back()

    def send_rest(self) -> None:
        """Wait until what was written has been sent: for the handler it has long been."""
        with contextlib.suppress(OSError):  # the client has gone, or is too slow
            self.response.flush_all()
            self.outbox.flush()

    def refuse(self, error: Exception) -> None:
        """Let the handler tell the client what is wrong, or the log."""
        self.head, self.fresh, self.error = None, True, error
        self.buffer = b""

    # -- receive -------------------------------------------------------------

    def head_deadline_s(self) -> float:
        """Return until when the head that has begun must be complete."""
        limit_s = self.engine.limits.head_s
        timeout_s = self.timeout_s
        return self.started_s + (limit_s if timeout_s is None else min(limit_s, timeout_s))

    def stall_s(self, limit_s: float) -> float:
        """Return the handler's own timeout, or else limit_s."""
        return limit_s if self.timeout_s is None else self.timeout_s

    def read_ahead(self, most: int, *, peek: bool) -> bytes:
        """Return what is in the buffer, for a handler that reads the socket itself."""
        data = self.buffer[:most]
        if not peek:
            self.buffer = self.buffer[most:]
            if not self.kept:
                self.response.close_after = True  # nobody knows where the next request begins
        return data

    def make_way(self) -> None:
        """Make ready for a handler that sends through the socket itself."""
        self.response.give_way()
        self.outbox.flush()
        if not self.kept:
            self.response.close_after = True  # nobody knows where its answer ends

    def unreceive(self, data: bytes) -> None:
        """Put back what belongs to the next request."""
        self.buffer = data + self.buffer

    def _wait_to_send(self, mask: int) -> None:
        self.wait(mask, self.stall_s(self.engine.limits.write_stall_s))

    def wait(self, mask: int, limit_s: float | None) -> None:
        """Wait for the client.

        Raises: TimeoutError after limit_s seconds; None: never.
        """
        if mask == select.POLLIN and not self.outbox.is_empty():
            self.outbox.flush()  # the client may wait for it, before it says more
        poll = select.poll()
        poll.register(_fileno(self.sock), mask)
        self.desk.away()
        try:
            if not poll.poll(None if limit_s is None else limit_s * 1000):
                raise TimeoutError("timed out")
        finally:
            if not self.exposed:
                self.desk.back()
