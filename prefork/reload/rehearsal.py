"""A rehearsal: another process that does all that the next image will do, but serve.

Both sides. The master starts it with its own command line, so that a new
version of prefork is what is tried. It reads the config, imports the handlers,
opens listeners that are not open yet, and gets one worker of each pool READY.
Then it ends, and the master has either the new listeners or the reason.
"""

import array
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from prefork.listeners import Listener
from prefork.reload.handover import HANDOVER, REHEARSAL, Handover, Left
from prefork.reload.image import Image

_MOST_FDS: Final = 250  # of one message; the kernel's limit is 253 (SCM_MAX_FD)
_READ_BYTES: Final = 65536


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a rehearsal has to say. reason: None if all went well. count: of descriptors."""

    reason: str | None = None
    listeners: list[Left] = msgspec.field(default_factory=list)


class Rehearsal:
    """The master's side: one run.

    watch, forget: of the master's loop. done: called once with the outcome.
    limit_s: how long it may take.
    """

    def __init__(
        self,
        image: Image,
        handover: Handover,
        done: Callable[[Outcome], None],
        limit_s: float,
    ) -> None:
        self._done = done
        self._data = b""
        self._fds: list[int] = []
        self._limit_s = limit_s
        self._deadline_s = time.monotonic() + limit_s
        sheet = handover.write()
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            os.close(sheet)
            raise
        ours.setblocking(False)
        quiet = {k: v for k, v in image.environ.items() if k != "NOTIFY_SOCKET"}
        stage = {HANDOVER: str(sheet), REHEARSAL: str(theirs.fileno())}
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 # our own command line
                image.arguments,
                executable=image.executable,
                env={**quiet, **stage},
                cwd=image.existing_folder(),
                stdin=subprocess.DEVNULL,
                pass_fds=[sheet, theirs.fileno(), *handover.descriptors()],
            )
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(sheet)
            theirs.close()
        self._channel = ours

    def fileno(self) -> int:
        """Return what becomes readable when it has something to say."""
        return self._channel.fileno()

    def hear(self) -> bool:
        """Take what it says; tell whether it has ended, and `done` has been called."""
        try:
            data, fds, _, _ = socket.recv_fds(self._channel, _READ_BYTES, _MOST_FDS)
        except BlockingIOError:
            return False
        except OSError:
            data, fds = b"", []
        self._data += data
        self._fds += fds
        if data:
            return False
        self._end()
        self._done(self._outcome())
        return True

    def is_late(self) -> bool:
        """Tell whether it has had its time."""
        return time.monotonic() >= self._deadline_s

    def give_up(self) -> None:
        """End it, and call `done`; what it has forked may keep its end of the channel open."""
        self.abandon()
        self._done(Outcome(reason=f"the new process was not ready within {self._limit_s:.0f} s"))

    def abandon(self) -> None:
        """End it; nobody is interested any more."""
        self._process.kill()
        self._end()
        for fd in self._fds:
            os.close(fd)

    def _end(self) -> None:
        self._channel.close()
        # It has said all, and nothing of it is wanted any more.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
            return
        self._process.kill()
        self._process.wait()

    def _outcome(self) -> Outcome:
        try:
            outcome = msgspec.json.decode(self._data, type=Outcome)
        except msgspec.MsgspecError:
            outcome = Outcome(reason=_how_it_ended(self._process.returncode))
        for fd in self._fds:
            os.set_inheritable(fd, False)
        if outcome.reason is not None or len(outcome.listeners) != len(self._fds):
            for fd in self._fds:
                os.close(fd)
            return Outcome(reason=outcome.reason or "its new sockets got lost")
        pairs = zip(outcome.listeners, self._fds, strict=True)
        return Outcome(listeners=[Left(key=n.key, fd=fd, inode=n.inode) for n, fd in pairs])


def answer(fd: int, reason: str | None, listeners: Sequence[Listener] = ()) -> None:
    """In the rehearsal: say how it went, and hand over the listeners it has opened."""
    with socket.socket(fileno=fd) as channel:
        lefts = [Left(key=n.key, fd=n.sock.fileno(), inode=n.inode) for n in listeners]
        data = msgspec.json.encode(Outcome(reason=reason, listeners=lefts))
        fds = [left.fd for left in lefts]
        with suppress(OSError):  # the master has gone, or lost patience
            while len(fds) > _MOST_FDS:
                _send(channel, b" ", fds[:_MOST_FDS])  # white space before JSON
                fds = fds[_MOST_FDS:]
            _send(channel, data[:1], fds)
            channel.sendall(data[1:])
            # The master waits for the end, and what a handler has forked may have a copy.
            channel.shutdown(socket.SHUT_RDWR)


def _send(channel: socket.socket, data: bytes, fds: Sequence[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    channel.sendmsg([data], rights)


def _how_it_ended(status: int) -> str:
    if status < 0:
        return f"the new process was ended by {signal.Signals(-status).name}"
    return f"the new process ended with status {status}; the log has the reason"
