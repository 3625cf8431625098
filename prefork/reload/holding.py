"""What a next image does that cannot begin: it holds the service, whose old workers serve on.

The master, between its execve and the moment it supervises again. A rehearsal
has succeeded moments before, so this is for what changed in between: a file that
was replaced, a disk that is full. It supervises nobody; it tries again, or ends
the workers gracefully.
"""

import os
import select
import signal
import time
from contextlib import suppress
from typing import Final

import msgspec

from prefork import log, systemd
from prefork.control.protocol import encode_answer
from prefork.reload.handover import HANDOVER, Handover
from prefork.reload.image import Image
from prefork.scoreboard import Order, Scoreboard

_AGAIN_S: Final = 10.0
_ALIVE_S: Final = 1.0
_RELOADS: Final = (signal.SIGHUP, signal.SIGUSR2)
_ENDS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Holding:
    """Keeps what was handed over, until `release()`; `hold()` if it is needed again."""

    def __init__(self, image: Image, handover: Handover) -> None:
        self._image = image
        self._handover = _copied(handover)

    def release(self) -> None:
        """Close the copies: the next image has begun."""
        for fd in set(self._handover.descriptors()):
            os.close(fd)

    def hold(self, reason: str, stop_s: float = 30.0) -> None:
        """Try again now and then, and at a SIGHUP; return when the workers have been stopped."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        log.error("reload.failed", reason=reason, remedy="mend it; the old workers serve on")
        text = f"reload failed: {reason}; the old workers serve on, unsupervised"
        systemd.ready(text)
        self._answer(reason)
        again_s = time.monotonic() + _AGAIN_S
        while True:
            got = signal.sigtimedwait([*_RELOADS, *_ENDS], _ALIVE_S)
            systemd.alive()
            if got is not None and got.si_signo in _ENDS:
                self._stop(stop_s if got.si_signo == signal.SIGTERM else 0.0)
                return
            if got is not None or time.monotonic() >= again_s:
                again_s = time.monotonic() + _AGAIN_S
                self._execute()

    def _execute(self) -> None:
        try:
            sheet = self._handover.write()
        except OSError as error:  # short of descriptors or memory: later, then
            log.error("reload.failed", reason=error.strerror)
            return
        fds = [sheet, *self._handover.descriptors()]
        failure = self._image.execute({HANDOVER: str(sheet)}, fds)
        os.close(sheet)
        log.error("reload.failed", reason=failure.strerror)

    def _answer(self, reason: str) -> None:
        for fd, _ in self._handover.waiting:
            with suppress(OSError):
                os.write(fd, encode_answer(f"{reason}; the old workers serve on"))
            os.close(fd)
        self._handover = msgspec.structs.replace(self._handover, waiting=[])

    def _stop(self, limit_s: float) -> None:
        """Have the workers answer what is in hand and in the queues; the rest dies with us."""
        systemd.stopping("answering what is in hand")
        board = Scoreboard(os.dup(self._handover.estate["board_fd"]))
        poll = select.poll()
        left = {worker.pidfd for worker in self._handover.workers}
        for worker in self._handover.workers:
            board[worker.line].order = Order.DRAIN
            poll.register(worker.pidfd, select.POLLIN)
            with suppress(OSError):  # it has ended
                signal.pidfd_send_signal(worker.pidfd, signal.SIGTERM)
        until_s = time.monotonic() + limit_s
        while left and (left_s := until_s - time.monotonic()) > 0:
            for fd, _ in poll.poll(left_s * 1000):
                poll.unregister(fd)
                left.discard(fd)


def _copied(handover: Handover) -> Handover:
    """Return it with descriptors of its own, so that nothing done to the others matters."""
    copies = {fd: os.dup(fd) for fd in set(handover.descriptors())}

    def copy(fd: int | None) -> int | None:
        return None if fd is None else copies[fd]

    return msgspec.structs.replace(
        handover,
        estate={name: copies[fd] for name, fd in handover.estate.items()},
        workers=[msgspec.structs.replace(w, pidfd=copies[w.pidfd]) for w in handover.workers],
        listeners=[msgspec.structs.replace(n, fd=copies[n.fd]) for n in handover.listeners],
        shut=[msgspec.structs.replace(n, fd=copies[n.fd]) for n in handover.shut],
        waiting=[(copies[fd], text) for fd, text in handover.waiting],
        log_fds={path: copies[fd] for path, fd in handover.log_fds.items()},
        relay_fds={line: copies[fd] for line, fd in handover.relay_fds.items()},
        control_fd=copy(handover.control_fd),
        pidfile_fd=copy(handover.pidfile_fd),
    )
