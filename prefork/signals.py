"""Signals as bytes on a descriptor, and a fork that loses none of them.

Master and worker. The interpreter's C handler writes each signal's number to a
pipe (`signal.set_wakeup_fd`), so a process that waits in `select` wakes and no
signal between two system calls is missed.
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Handler = Callable[[], None]


def react(signum: int, handler: Handler | None) -> Any:
    """Let handler run when the signal comes; return what did before, for `signal.signal`."""

    def call(*_: object) -> None:
        if handler is not None:
            handler()

    return signal.signal(signum, call)


class SignalPipe:
    """While open, the given signals make `fileno()` readable.

    handlers: what runs in the main thread beside that; None: nothing, the number
    in the pipe is enough.
    Raises: ValueError when not called in the main thread.
    """

    def __init__(self, handlers: Mapping[int, Handler | None]) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._previous = {signum: react(signum, handler) for signum, handler in handlers.items()}

    def fileno(self) -> int:
        """Return the readable end, for select and epoll."""
        return self._read

    def read(self) -> list[int]:
        """Return the numbers of the signals that came since the last call, oldest first."""
        try:
            numbers = list(os.read(self._read, 4096))
        except BlockingIOError:
            numbers = []
        # In a process that a thread other than the main one has forked, CPython 3.13 does not run
        # handlers by itself. This call, of no effect otherwise, does. It comes after the reading,
        # or a signal between the two would leave neither its number nor its handler's work.
        signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return numbers

    def quieten(self, _mask: int = 0) -> None:
        """Make it readable no more, for a loop: the handlers have run."""
        self.read()

    def close(self) -> None:
        """Give the signals back to whom they belonged before."""
        for signum, previous in self._previous.items():
            # None: the previous handler was not installed from Python, and
            # only the default can be put back in its place.
            signal.signal(signum, signal.SIG_DFL if previous is None else previous)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._read)
        os.close(self._write)


@contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """Block all signals; yield a function that lets them through again.

    A child forked inside starts with signals blocked and calls the function
    when its own handlers stand. Until then a signal sent to it waits; without
    this it would land in its parent's pipe, as if the parent had been meant.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def let_through() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    try:
        yield let_through
    finally:
        let_through()
