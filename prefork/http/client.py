"""The accepted socket as handlers see it: a plain blocking `socket.socket`.

A worker. The engine uses the methods of the C base class, without waiting. The
methods here are for the programs: they give what the engine has read ahead
first, keep the socket's timeout, and note that a client is waited for. It never
decides anything about the connection, but says that it was used.
"""

import contextlib
import copyreg
import errno
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from prefork.clients import reduce_socket

if TYPE_CHECKING:
    from prefork.http.connection import Connection

_Plain: Final = socket.socket
_DONTWAIT: Final = socket.MSG_DONTWAIT


class ClientSocket(socket.socket):
    """connection: the engine's; None when it has given the socket up.

    The descriptor stays blocking whatever `settimeout()` says, so that the
    engine needs no call to find out; the timeout is kept by poll(2).
    """

    __slots__ = ("_timeout_s", "connection")

    connection: "Connection | None"

    def __init__(
        self,
        family: int = -1,
        type: int = -1,  # noqa: A002 # socket's
        proto: int = -1,
        fileno: int | None = None,
    ) -> None:
        super().__init__(family, type, proto, fileno)
        self._timeout_s: float | None = None
        self.connection = None

    # -- time ----------------------------------------------------------------

    def settimeout(self, value: float | None) -> None:
        """Set how long each call may wait, in seconds; None: for ever, 0: not at all."""
        if value is not None and value < 0:
            raise ValueError("Timeout value out of range")
        self._timeout_s = value
        if self.connection is not None and value != 0:
            self.connection.timeout_s = value  # it holds for rfile and wfile, too

    def gettimeout(self) -> float | None:
        """Return what `settimeout()` has set."""
        return self._timeout_s

    @property
    def timeout(self) -> float | None:
        """What `settimeout()` has set."""
        return self._timeout_s

    def setblocking(self, flag: bool) -> None:
        """Set a timeout of None, or of 0."""
        self._timeout_s = None if flag else 0.0

    def getblocking(self) -> bool:
        """Tell whether calls may wait."""
        return self._timeout_s != 0

    # -- receive -------------------------------------------------------------

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive up to bufsize bytes; b"" at the end."""
        ahead = self._ahead(bufsize, flags)
        return ahead or bytes(self._call(select.POLLIN, _Plain.recv, bufsize, flags))

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive into a buffer; return how many bytes."""
        view = memoryview(buffer).cast("B")
        ahead = self._ahead(nbytes or len(view), flags)
        if ahead:
            view[: len(ahead)] = ahead
            return len(ahead)
        return int(self._call(select.POLLIN, _Plain.recv_into, buffer, nbytes, flags))

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """Receive as `recv()`, and return the address, which a stream has not."""
        ahead = self._ahead(bufsize, flags)
        return (
            (ahead, None) if ahead else self._call(select.POLLIN, _Plain.recvfrom, bufsize, flags)
        )

    def recvmsg(self, *args: Any) -> Any:
        """Receive with ancillary data."""
        return self._call(select.POLLIN, _Plain.recvmsg, *args)

    # -- send ----------------------------------------------------------------

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Send some of the data; return how many bytes."""
        self._before_sending()
        if self._timeout_s is not None:
            flags |= _DONTWAIT  # poll(2) says that some of it fits, not all
        return int(self._call(select.POLLOUT, _Plain.send, data, flags))

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Send all of the data."""
        self._before_sending()
        if self._timeout_s is None:
            with self._waiting():
                _Plain.sendall(self, data, flags)
            return
        view = memoryview(data).cast("B")
        limit_s = time.monotonic() + self._timeout_s
        while view:
            with self._waiting():
                self._wait(select.POLLOUT, max(0.0, limit_s - time.monotonic()))
                with contextlib.suppress(BlockingIOError):
                    view = view[_Plain.send(self, view, flags | _DONTWAIT) :]

    def sendmsg(self, *args: Any) -> int:
        """Send with ancillary data."""
        self._before_sending()
        return int(self._call(select.POLLOUT, _Plain.sendmsg, *args))

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """Send a file until its end; return how many bytes."""
        self._before_sending()
        with self._waiting():
            return super().sendfile(file, offset, count)

    # -- the end -------------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor; whoever has it may wait on it where that cannot be seen."""
        if self.connection is not None:
            if not self.connection.outbox.is_empty():
                self.connection.send_rest()
            self.connection.expose()
        return super().fileno()

    def shutdown(self, how: int, /) -> None:
        """End one direction, or both, after what has been written."""
        if self.connection is not None and how != socket.SHUT_RD:
            self.connection.send_rest()
        super().shutdown(how)

    def close(self) -> None:
        """Close; while a makefile() is open, take note only."""
        if self.connection is not None and self._io_refs <= 0:  # type: ignore[attr-defined] # typeshed leaves it out
            self.connection.abandon()
        super().close()

    def detach(self) -> int:
        """Give the descriptor away."""
        if self.connection is not None:
            self.connection.abandon()
        return super().detach()

    # -- how -----------------------------------------------------------------

    def _ahead(self, most: int, flags: int) -> bytes:
        if self.connection is None:
            return b""
        if not self.connection.outbox.is_empty():
            self.connection.send_rest()  # the client may wait for it, before it says more
        return self.connection.read_ahead(most, peek=bool(flags & socket.MSG_PEEK))

    def _before_sending(self) -> None:
        if self.connection is not None:
            self.connection.make_way()

    def _call(self, mask: int, plain: Callable[..., Any], *args: Any) -> Any:
        with self._waiting():
            if self._timeout_s is not None:
                self._wait(mask, self._timeout_s)
            return plain(self, *args)

    def _wait(self, mask: int, limit_s: float) -> None:
        poll = select.poll()
        poll.register(_Plain.fileno(self), mask)
        if not poll.poll(limit_s * 1000):
            if self._timeout_s == 0:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            raise TimeoutError("timed out")

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        connection = self.connection
        if connection is None:
            yield
            return
        connection.desk.away()
        try:
            yield
        finally:
            if not connection.exposed:
                connection.desk.back()


copyreg.pickle(ClientSocket, reduce_socket)
