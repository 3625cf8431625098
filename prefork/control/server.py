"""The control socket's server: what local commands ask is asked of the overseer, and answered.

The master, in its one loop. It never waits, never raises because of a client,
and decides nothing: the overseer does.
"""

import math
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol, assert_never

from prefork import log
from prefork.control.callers import Caller, Callers, Phase
from prefork.control.protocol import (
    KillWorker,
    MasterStatus,
    Reload,
    ReopenLogs,
    Request,
    Scale,
    Status,
    Stop,
    decode_request,
    encode_answer,
)
from prefork.errors import PreforkError

# The status of many workers is work. A flood of questions gets the same one again, until its making
# is a small share of the time: at most one part in this many and one.
_STATUS_REUSE: Final = 4.0

#: Takes None for success, or why not. Only the first call counts; it never raises.
Done = Callable[[str | None], None]


class Overseer(Protocol):
    """Who knows and decides. Each may raise PreforkError for what cannot be at once.

    Called in the master's loop, so none may wait: what takes time calls `done`
    later, or at once if it took none.
    """

    def status(self) -> MasterStatus:
        """Return how things are."""

    def reload(self, done: Done) -> None:
        """Begin a reload; done when the new generation serves."""

    def stop(self, *, now: bool) -> None:
        """Begin the end; the clients that asked hear of it when the process is gone."""

    def scale(self, pool: str, workers: int, done: Done) -> None:
        """Have this many workers; done when they serve, and those too many have gone."""

    def reopen_logs(self, done: Done) -> None:
        """Open the log files again; done when nobody writes to the old ones any more."""

    def kill_worker(self, slot: int, done: Done) -> None:
        """End one worker by force; done when it has gone."""


class Control:
    """Serves one listening socket (`places.open_control`), which it owns.

    watch: have a function called whenever a descriptor is readable (for as
    long as it is, not once). forget: no more. Both get one descriptor only, the
    epoll of all clients. The loop calls `tick()` in each of its turns, which
    come at least once a second.
    """

    def __init__(
        self,
        listener: socket.socket,
        overseer: Overseer,
        watch: Callable[[int, Callable[[], None]], None],
        forget: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._overseer = overseer
        self._forget = forget
        self._clock = clock
        self._callers = Callers(listener, self._obey, clock)
        self._file = _identity(listener)
        self._status = b""
        self._status_until_s = -math.inf
        watch(self._callers.fileno(), self.turn)

    @property
    def listener(self) -> socket.socket:
        """The listening socket, to be handed over."""
        return self._callers.listener

    def turn(self) -> None:
        """Attend to clients; `watch` is told to call it."""
        if not self._callers.closed:
            self._callers.turn()

    def tick(self) -> None:
        """Part with clients that are out of time."""
        if not self._callers.closed:
            self._callers.tick()

    def close(self) -> None:
        """Stop serving, and remove the socket's file; who still waits is told so.

        After `stop`, call this as late as possible: its clients wait for it.
        """
        if self._callers.closed:
            return
        if self._file is not None and self._file == _identity(self.listener):
            with suppress(OSError):  # its folder belongs to root, who we were: stale from now on
                Path(self.listener.getsockname()).unlink()
        for caller in self._callers:
            if caller.phase is Phase.WAITING:
                self._callers.answer(caller, encode_answer("the master has ended"))
        self._forget(self._callers.fileno())
        self._callers.close()

    def abandon(self) -> None:
        """Close all descriptors and do nothing else: in a forked child, whose master goes on."""
        self._callers.close()

    # -- for a master that becomes another program -------------------------

    def handover(self) -> list[tuple[int, str]]:
        """Return each client that the next image shall answer, and what it has asked.

        Their descriptors, not the listener's, are made inheritable. A text ends
        with a newline, unless the request has not all arrived. Who is slow to
        take an answer that is under way is not among them.
        """
        return self._callers.hand_on(inheritable=True)

    def take_back(self) -> None:
        """Undo `handover()`, when there is no next image after all."""
        self._callers.hand_on(inheritable=False)

    def adopt(self, fd: int, text: str) -> Done | None:
        """Go on with a client of `handover()`; return how to answer it.

        None: its request has not all arrived; the overseer will hear of it.
        """
        caller = self._callers.adopt(fd, text)
        return self._done_for(caller) if caller.phase is Phase.WAITING else None

    # -- requests ----------------------------------------------------------

    def _obey(self, caller: Caller) -> None:
        try:
            request = decode_request(caller.text)
            tell = log.debug if isinstance(request, Status) else log.info
            pid, uid = caller.identity()
            tell("control.asked", request=caller.text.strip()[:200], pid=pid, uid=uid)
            self._perform(request, caller)
        except PreforkError as error:
            self._callers.answer(caller, encode_answer(str(error)))
        except Exception:
            log.exception("control.failed", request=caller.text.strip()[:200])
            reason = "the master failed at this; its log says how"
            self._callers.answer(caller, encode_answer(reason))

    def _perform(self, request: Request, caller: Caller) -> None:
        if isinstance(request, Status):
            self._callers.answer(caller, self._status_line())
            return
        self._status_until_s = -math.inf
        done = self._done_for(caller)
        match request:
            case Reload():
                self._overseer.reload(done)
            case Stop(now=now):
                self._overseer.stop(now=now)
                caller.hold = True
                self._callers.answer(caller, encode_answer(pid=os.getpid()))
            case Scale(pool=pool, workers=workers):
                self._overseer.scale(pool, workers, done)
            case ReopenLogs():
                self._overseer.reopen_logs(done)
            case KillWorker(slot=slot):
                self._overseer.kill_worker(slot, done)
            case _:
                assert_never(request)

    def _done_for(self, caller: Caller) -> Done:
        def done(reason: str | None) -> None:
            self._status_until_s = -math.inf
            if caller.phase is Phase.WAITING:
                self._callers.answer(caller, encode_answer(reason))

        return done

    def _status_line(self) -> bytes:
        begun_s = self._clock()
        if begun_s >= self._status_until_s:
            self._status = encode_answer(status=self._overseer.status())
            made_s = self._clock()
            self._status_until_s = made_s + _STATUS_REUSE * (made_s - begun_s)
        return self._status


def answer_alone(fd: int) -> Done:
    """Return how to answer a client of `handover()` where the next image has no control socket."""
    sock = socket.socket(fileno=fd)

    def done(reason: str | None) -> None:
        with sock, suppress(OSError):  # it has hung up
            sock.send(encode_answer(reason))
            sock.shutdown(socket.SHUT_RDWR)  # workers forked meanwhile have it, too

    return done


def _identity(listener: socket.socket) -> tuple[int, int] | None:
    """Return what tells a socket's file from another of the same name; None: there is none."""
    try:
        found = Path(listener.getsockname()).lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
