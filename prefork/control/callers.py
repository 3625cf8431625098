"""The clients of the control socket: a line from each, an answer to each, all of it bounded.

The master, in its one loop. It never waits for a client, never raises because
of one, and does not know what the lines mean.

Whoever may connect may also stop the master, so the bounds are there to keep
clumsy clients from harm, and clever ones from the loop: whatever they send, a
turn takes bounded time, and so much memory.
"""

import math
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final

from prefork import log
from prefork.control.protocol import LINE_BYTES, PATIENCE_S, encode_answer

#: Of one master. A fleet's administrators and monitors are few.
CALLERS: Final = 64

# Of one turn, so that a flood of clients leaves the loop time for its workers.
_EVENTS: Final = 64
_ACCEPTS: Final = 16

# Without free descriptors a listener stays readable: leave it alone for so long.
_DEAF_S: Final = 1.0


class Phase(Enum):
    """What a client is at; the value is what epoll shall tell of it beside its hanging up."""

    ASKING = select.EPOLLIN
    WAITING = 0  #: for us, as long as it wants to
    ANSWERED = select.EPOLLOUT  #: not all of it is sent
    HELD = -1  #: all of it is sent, and the end of the conversation says the rest

    @property
    def mask(self) -> int:
        """Return it as epoll takes it."""
        return max(0, self.value)


class Caller:
    """One connection. text: the line that it has sent. hold: it is not closed after the answer."""

    def __init__(self, sock: socket.socket, deadline_s: float) -> None:
        self.sock = sock
        self.phase = Phase.ASKING
        self.deadline_s = deadline_s
        self.received = bytearray()
        self.unsent = memoryview(b"")
        self.hold = False

    @property
    def text(self) -> str:
        """What has come, without the newline; bytes that are no UTF-8 as in PEP 383."""
        return self.received.decode(errors="surrogateescape")

    def identity(self) -> tuple[int, int]:
        """Return PID and user of who connected (SO_PEERCRED, unix(7))."""
        record = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, _gid = struct.unpack("3i", record)
        return pid, uid


class Callers:
    """All clients of one listening socket, which it owns.

    on_line: called with each client whose line is there; it must not raise.
    fileno() is readable when `turn()` has something to do.
    """

    def __init__(
        self,
        listener: socket.socket,
        on_line: Callable[[Caller], None],
        clock: Callable[[], float],
    ) -> None:
        self.listener = listener
        self._on_line = on_line
        self._clock = clock
        self._callers: dict[int, Caller] = {}
        self._deaf_until_s = math.inf
        listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(listener, select.EPOLLIN)

    def __iter__(self) -> Iterator[Caller]:
        return iter(list(self._callers.values()))

    @property
    def closed(self) -> bool:
        """Tell whether `close()` has been called."""
        return self._epoll.closed

    def fileno(self) -> int:
        """Return the epoll of all clients; one may wait for an epoll as for a socket."""
        return self._epoll.fileno()

    def turn(self) -> None:
        """Attend to whom epoll tells of."""
        called = False
        for fd, mask in self._epoll.poll(0, _EVENTS):
            caller = self._callers.get(fd)
            if caller is not None:
                self._attend(caller, mask)
            called = called or fd == self.listener.fileno()
        # Last: a new client may get the descriptor of one that has gone in this turn.
        if called and not self.closed:
            self._welcome()

    def tick(self) -> None:
        """Part with clients that are out of time."""
        now_s = self._clock()
        if now_s >= self._deaf_until_s:
            self._deaf_until_s = math.inf
            self._epoll.modify(self.listener, select.EPOLLIN)
        for caller in self:
            if caller.deadline_s > now_s:
                continue
            if caller.phase is Phase.ASKING:
                self.answer(caller, encode_answer(f"no request within {PATIENCE_S:g} s"))
            else:
                self.drop(caller)

    def answer(self, caller: Caller, line: bytes) -> None:
        """Send a client its answer, as fast as it takes it; nothing if it has gone."""
        if self._callers.get(caller.sock.fileno()) is caller:
            self._enter(caller, Phase.ANSWERED)
            caller.unsent = memoryview(line)
            self._send(caller)

    def drop(self, caller: Caller) -> None:
        """Hang up."""
        if self._callers.pop(caller.sock.fileno(), None) is not None:
            # Not by close() alone: a child that has not yet closed its copy would keep it in epoll.
            self._epoll.unregister(caller.sock)
            caller.sock.close()

    def adopt(self, fd: int, text: str) -> Caller:
        """Go on with a client of another image; text is what it has sent, with its newline."""
        sock = socket.socket(fileno=fd)
        sock.set_inheritable(False)
        caller = self._admit(sock)
        line, newline, _ = text.partition("\n")
        caller.received += line.encode(errors="surrogateescape")
        if newline:
            self._enter(caller, Phase.WAITING)
        return caller

    def hand_on(self, *, inheritable: bool) -> list[tuple[int, str]]:
        """Return who can be adopted, their descriptors made inheritable, or not any more."""
        found = []
        for fd, caller in self._callers.items():
            if caller.phase in (Phase.ASKING, Phase.WAITING):
                os.set_inheritable(fd, inheritable)
                found.append((fd, caller.text + "\n" * (caller.phase is Phase.WAITING)))
        return found

    def close(self) -> None:
        """Close all descriptors and say nothing.

        Also right in a forked child, whose parent goes on: epoll, which is the
        parent's as well, is not told.
        """
        for caller in self:
            caller.sock.close()
        self._callers.clear()
        self.listener.close()
        self._epoll.close()

    def _welcome(self) -> None:
        for _ in range(_ACCEPTS):
            try:
                sock, _address = self.listener.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:
                log.warning("control.deaf", reason=error.strerror, for_s=_DEAF_S)
                self._deaf_until_s = self._clock() + _DEAF_S
                self._epoll.modify(self.listener, 0)
                return
            if len(self._callers) >= CALLERS:
                self._make_room()
            caller = self._admit(sock)
            if len(self._callers) > CALLERS:
                self.answer(caller, encode_answer(f"{CALLERS} others wait for answers already"))
                self.drop(caller)

    def _make_room(self) -> None:
        """Hang up on the one that has been slow for longest; those that wait for us stay."""
        slowest = min(self._callers.values(), key=lambda caller: caller.deadline_s)
        if slowest.phase is Phase.ASKING:
            self.answer(slowest, encode_answer(f"over {CALLERS} clients at a time; try again"))
        if slowest.deadline_s < math.inf:
            self.drop(slowest)

    def _admit(self, sock: socket.socket) -> Caller:
        sock.setblocking(False)
        caller = Caller(sock, self._clock() + PATIENCE_S)
        self._callers[sock.fileno()] = caller
        self._epoll.register(sock, caller.phase.mask)
        return caller

    def _enter(self, caller: Caller, phase: Phase) -> None:
        caller.phase = phase
        patient = phase in (Phase.WAITING, Phase.HELD)
        caller.deadline_s = math.inf if patient else self._clock() + PATIENCE_S
        self._epoll.modify(caller.sock, phase.mask)

    def _attend(self, caller: Caller, mask: int) -> None:
        if caller.phase is Phase.ASKING:  # even if it has hung up: what it has sent counts
            self._listen_to(caller)
        elif mask & (select.EPOLLHUP | select.EPOLLERR):
            self.drop(caller)
        elif caller.phase is Phase.ANSWERED:
            self._send(caller)

    def _listen_to(self, caller: Caller) -> None:
        try:
            data = caller.sock.recv(LINE_BYTES - len(caller.received))
        except BlockingIOError:
            return
        except OSError:  # it has gone, and with it whom this could matter to
            data = b""
            caller.received.clear()
        end = data.find(b"\n")
        caller.received += data if end < 0 else data[:end]
        # A last line needs no newline: `printf | nc -N` is a client as well.
        if end >= 0 or (not data and caller.received):
            self._enter(caller, Phase.WAITING)
            self._on_line(caller)
        elif not data:
            self.drop(caller)
        elif len(caller.received) >= LINE_BYTES:
            self.answer(caller, encode_answer(f"bad request: over {LINE_BYTES} bytes"))

    def _send(self, caller: Caller) -> None:
        try:
            sent = caller.sock.send(caller.unsent, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        except OSError:  # it has hung up
            self.drop(caller)
            return
        caller.unsent = caller.unsent[sent:]
        if not caller.unsent and caller.hold:
            self._enter(caller, Phase.HELD)
        elif not caller.unsent:
            self.drop(caller)
