"""One request and its answer: what is to do before its handler runs, and after.

A worker, in the thread of the handler. It never calls the handler.
"""

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from prefork.http.access import AccessLog, Entry
from prefork.http.body import ENDLESS, Body
from prefork.http.forwarded import ForwardedError, Origin, origin_of
from prefork.http.wire import WireError

if TYPE_CHECKING:
    from prefork.http.connection import Connection

#: Fields that the access log tells.
_LOGGED: Final = frozenset({"referer", "user-agent"})


def begin(connection: "Connection") -> None:
    """Make ready for a request's handler."""
    connection.requests += 1
    connection.begun_s = time.monotonic()
    connection.exposed = connection.invited = connection.fresh = False
    connection.response.begin()
    connection.body = None
    connection.deleted = ()
    head = connection.head
    if head is not None and head.length != 0:
        connection.body = Body(connection, head.length)


def reclaim(connection: "Connection") -> None:
    """Take back what a handler has read ahead before it wants a request."""
    rfile, connection.rfile = connection.rfile, None
    if rfile is None or rfile.closed:
        return
    rfile.raw.left = 0  # what it has in its buffer, and nothing more
    connection.buffer = rfile.read() + connection.buffer


def complete(connection: "Connection") -> None:
    """Finish a request whose handler has returned; `over` tells whether it was the last.

    Raises: OSError.
    """
    response = connection.response
    if connection.failing:
        connection.outbox.withdraw()  # or the loop would wait for what nobody sends
    else:
        response.end()
    if response.close_after or connection.failing or connection.handler.close_connection:
        connection.over = True
    body = connection.body
    if body is not None and body.left and not connection.over:
        head = connection.head
        waits = head is not None and head.expects_continue and not connection.invited
        if waits or body.left == ENDLESS or body.left > connection.engine.limits.drain_bytes:
            connection.over = True


def replay(connection: "Connection") -> None:
    """Let the handler read the fields of the head again, by itself, before the body."""
    if connection.body is None:
        connection.body = Body(connection, 0)
    if connection.head is not None:
        connection.body.prefix = connection.head.block
        connection.invited = True  # the handler sees to it


def log(connection: "Connection", access: "AccessLog") -> None:
    """Add the request in hand, which is answered, to the access log: now, or when all is sent."""
    head, response, handler = connection.head, connection.response, connection.handler
    said = {}
    if head is not None and connection.engine.logs_fields:
        said = {n.lower(): v for n, v in head.fields if n.lower() in _LOGGED}
    took_s = time.monotonic() - connection.begun_s
    entry = Entry(
        host=handler.address_string(),
        user="",
        request_line=handler.requestline,
        status=response.status or "-",
        size=response.sent,
        time_s=time.time() - took_s,
        took_s=took_s,
        referer=said.get("referer", ""),
        user_agent=said.get("user-agent", ""),
        method="" if head is None else head.method,
        target="" if head is None else head.target,
        version="" if head is None else head.version,
    )
    if connection.outbox.is_empty():
        access.add(entry)
    else:
        connection.unlogged = entry


def log_alone(handler: Any, access: "AccessLog", status: Any, size: Any) -> None:
    """Add a request that a handler has read and answered by itself, as far as it can be known."""
    method, _, rest = handler.requestline.partition(" ")
    target, _, version = rest.rpartition(" ")
    headers = getattr(handler, "headers", None) or {}
    entry = Entry(
        host=handler.address_string(),
        user="",
        request_line=handler.requestline,
        status=str(getattr(status, "value", status)),
        size=size,
        time_s=time.time(),
        took_s=0.0,
        referer=headers.get("Referer", ""),
        user_agent=headers.get("User-Agent", ""),
        method=method,
        target=target,
        version=version,
    )
    access.add(entry)


def log_late(connection: "Connection") -> None:
    """Add a request to the access log whose answer has been sent, or will not be."""
    entry, connection.unlogged = connection.unlogged, None
    access = connection.engine.access
    if entry is not None and access is not None:
        # Not the entry's size: what is sent in chunks had not been counted by then.
        sent = max(0, connection.response.sent - connection.outbox.unsent_bytes())
        took_s = time.monotonic() - connection.begun_s
        access.add(entry._replace(size=sent, took_s=took_s))


def origin(connection: "Connection") -> Any:
    """Return the client's address, as proxies say it that may be believed.

    Raises: WireError when they contradict each other.
    """
    said = told(connection)
    return connection.address if said is None or not said.host else (said.host, said.port)


def told(connection: "Connection") -> Origin | None:
    """Return what proxies say of the client that may be believed; None: nothing.

    Raises: WireError when they contradict each other.
    """
    head, forwarders = connection.head, connection.engine.forwarders
    if head is None or forwarders is None:
        return None
    try:
        return origin_of(head.fields, connection.address[0], forwarders)
    except ForwardedError as error:
        raise WireError(HTTPStatus.BAD_REQUEST, str(error), b"") from None
