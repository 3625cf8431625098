"""Where clients come in: the listening socket of a server, in the loop of one process.

A worker, or the process of a server that serves alone. It accepts, or does not
for a while: when there are as many clients as there may be, or no descriptor
for another. What becomes of a client is the engine's affair.
"""

import resource
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from prefork import log
from prefork.http.client import ClientSocket
from prefork.loop import Loop
from prefork.shortage import SHORTAGE_S, is_shortage

#: What a worker has open besides, at least.
_OWN_DESCRIPTORS: Final = 24
#: How often that is worth a line in the log.
_COMPLAINT_S: Final = 60.0


def room_for(most: int) -> int:
    """Return how many clients there may be, with a quarter of the descriptors left for files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return most
    return max(1, min(most, soft - soft // 4 - _OWN_DESCRIPTORS))


class Door:
    """on_client: called with the socket and the address of each client."""

    def __init__(
        self, listener: socket.socket, loop: Loop, on_client: Callable[[ClientSocket, Any], None]
    ) -> None:
        self._listener = listener
        self._family, self._proto = int(listener.family), listener.proto
        self._unix = listener.family == socket.AF_UNIX
        self._loop = loop
        self._on_client = on_client
        self._fd = -1
        self._again_s = 0.0
        self._complained_s = 0.0

    def open(self, now_s: float) -> None:
        """Let clients in, if it is time."""
        if self._fd < 0 <= self._listener.fileno() and now_s >= self._again_s:
            self._fd = self._listener.fileno()
            self._loop.listen(self._fd, self._on_ready)

    def is_open(self) -> bool:
        """Tell whether clients are let in."""
        return self._fd >= 0

    def fill(self) -> None:
        """Take note that there are as many clients as there may be."""
        self._complain("as many clients as it may have")
        self.shut()

    def shut(self) -> None:
        """Leave clients to the other workers, or in the queue."""
        if self._fd >= 0:
            self._loop.forget(self._fd)
            self._fd = -1

    def accept(self) -> bool:
        """Take one client from the queue, if one is there; False: not before another has gone."""
        try:
            # accept() would make a second object to throw away.
            fd, address = self._listener._accept()  # type: ignore[attr-defined] # not in typeshed
        except BlockingIOError:
            return True
        except OSError as error:
            return self._fail(error)
        sock = ClientSocket(self._family, socket.SOCK_STREAM, self._proto, fd)
        # A Unix client's address is '', and BaseHTTPRequestHandler.address_string() wants a tuple.
        self._on_client(sock, ("unix", 0) if self._unix else address)
        return True

    def _on_ready(self, _mask: int) -> None:
        self.accept()

    def _fail(self, error: OSError) -> bool:
        """Pause when the machine is short of something; True: no, the client was gone.

        Without the pause the ready listener would spin this process.
        """
        if not is_shortage(error):
            return True
        self._complain(str(error.strerror))
        self._again_s = time.monotonic() + SHORTAGE_S
        self.shut()
        return False

    def _complain(self, reason: str) -> None:
        now_s = time.monotonic()
        if now_s - self._complained_s > _COMPLAINT_S or not self._complained_s:
            self._complained_s = now_s
            log.warning("worker.short", reason=reason)
