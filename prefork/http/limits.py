"""How long and how large anything of a client may be: the engine's settings.

Master and workers. Values only; the engine's modules keep them.
"""

from dataclasses import dataclass

from prefork.http.wire import WireLimits


@dataclass(frozen=True, slots=True)
class Limits:
    """All times in seconds, all sizes in bytes; the precedents are named at each.

    A handler class with a `timeout` of its own has that in place of every time
    here; of head_s, if it is shorter.
    """

    #: For a whole head, from its first byte (mod_reqtimeout); then 408.
    head_s: float = 20.0
    #: Between two requests of a connection, and before the first (nginx).
    keep_alive_s: float = 75.0
    #: Requests of one connection (nginx); the last answer says `Connection: close`.
    keep_alive_requests: int = 1000
    #: Without a byte of the body that a handler waits for (mod_reqtimeout); then 408.
    body_stall_s: float = 20.0
    #: Without a byte of the answer taken by the client (nginx: 60).
    write_stall_s: float = 30.0
    #: After the last answer, for the client to read it and to close (nginx: 5 and 30).
    lingering_s: float = 2.0
    #: Request line, then 414 (httpd).
    line_bytes: int = 8190
    #: One field line, then 431 (httpd).
    field_bytes: int = 8190
    #: Field lines of a head, then 431 (httpd).
    fields: int = 100
    #: A whole head, then 431 (gunicorn).
    head_bytes: int = 65536
    #: A request's body, then 413 (waitress); None: any.
    body_bytes: int | None = 1 << 30
    #: A body up to this size is complete before its handler is called, so that no handler waits
    #: for a slow form.
    prefetch_bytes: int = 1 << 16
    #: An unread body that is read and dropped to keep the connection; above, it is closed.
    drain_bytes: int = 1 << 16
    #: Bytes of an answer that wait for a slow client in memory; then its handler waits.
    buffer_bytes: int = 1 << 18
    #: Clients of one worker; then it takes no more until one has gone.
    connections: int = 16384

    @property
    def least_s(self) -> float:
        """Return the shortest of the times."""
        return min(
            self.head_s, self.keep_alive_s, self.body_stall_s, self.write_stall_s, self.lingering_s
        )

    @property
    def wire(self) -> WireLimits:
        """Return those that the reader of heads and chunks keeps."""
        return WireLimits(
            line_bytes=self.line_bytes,
            field_bytes=self.field_bytes,
            fields=self.fields,
            head_bytes=self.head_bytes,
            body_bytes=self.body_bytes,
        )
