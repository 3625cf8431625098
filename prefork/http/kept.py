"""For handlers that keep their connection on a thread: the waiting that else the loop does.

A worker, in the thread of such a handler.
"""

import contextlib
import select
import socket
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from prefork.http.wire import WireError

if TYPE_CHECKING:
    from prefork.http.connection import Connection

_RECEIVE_BYTES: Final = 1 << 16


def await_head(connection: "Connection") -> bool:
    """Wait for the next request; False: the client has gone.

    Raises: TimeoutError where the handler has a timeout of its own.
    """
    limits = connection.engine.limits
    limit_s = connection.stall_s(limits.keep_alive_s)
    started_s = time.monotonic()
    while not (connection.buffer and connection.parse(connection.buffer)):
        connection.idle = not connection.buffer
        try:
            data = _receive(connection, limit_s)
        except TimeoutError:
            if connection.timeout_s is not None:
                raise
            if not connection.buffer:
                return False
            connection.refuse(WireError(HTTPStatus.REQUEST_TIMEOUT, "", b""))
            break
        except OSError:
            return False
        if not data:
            return False
        if not connection.buffer:
            started_s = time.monotonic()
        connection.buffer += data
        limit_s = max(0.0, started_s + limits.head_s - time.monotonic())
    connection.idle = False
    return True


def settle(connection: "Connection") -> None:
    """Finish sending, and read what is left of the body; `over` tells whether it was the last.

    Raises: OSError, TimeoutError, WireError.
    """
    connection.outbox.flush()
    body = connection.body
    while not connection.over and body is not None and body.left:
        data = body.receive(_RECEIVE_BYTES)
        if not data:
            connection.over = True
            break
        body.discard(data)


def _receive(connection: "Connection", limit_s: float) -> bytes:
    while True:
        connection.wait(select.POLLIN, limit_s)
        with contextlib.suppress(BlockingIOError):  # poll(2) may err
            return socket.socket.recv(connection.sock, _RECEIVE_BYTES, socket.MSG_DONTWAIT)
