"""The live screen of `prefork top`: the table again and again, until told to end.

The calling process. It changes the terminal (alternate screen, no echo, no
cursor) and gives it back as it was on every way out that a process can take;
it knows nothing of sockets.
"""

import errno
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Any, Final

from prefork.control.protocol import MasterStatus
from prefork.control.table import clean, cut, rates_between, render
from prefork.errors import PreforkError
from prefork.signals import SignalPipe, held_back

# xterm's control sequences: the alternate screen, the cursor, home, the rest of a line or screen.
_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME, _WIPE_LINE, _WIPE_BELOW = "\x1b[H", "\x1b[2K", "\x1b[J"

_ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_ROWS_OF_FOOT: Final = 1


class _EndError(Exception):
    """A signal wants the end, wherever the program is just now."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def is_screen() -> bool:
    """Tell whether stdout is a terminal that can be drawn on."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def watch(ask: Callable[[], MasterStatus], interval_s: float) -> int:
    """Show what ask returns until q or Ctrl-C; return the exit status.

    ask: may take long, and raise PreforkError: for the first time an end, later
    a line on the screen.
    Raises: PreforkError.
    """
    sys.stdout.flush()
    status = ask()  # before the screen changes: its error is for the one that was
    screen = _Screen()
    ending: list[int] = []

    def end(signum: int) -> None:
        if not ending:  # a second Ctrl-C must not come between the first and the way out
            ending.append(signum)
            raise _EndError(signum)

    handlers: dict[int, Any] = {s: lambda s=s: end(s) for s in _ENDS}
    handlers |= {signal.SIGWINCH: None, signal.SIGTSTP: screen.suspend}
    try:
        with ExitStack() as stack:
            signals = SignalPipe(handlers)
            stack.callback(signals.close)
            stack.push(lambda *_: _quietly(screen.leave))
            screen.enter()
            _live(screen, signals, ask, status, interval_s)
    except _EndError as reason:
        return 0 if reason.signum == signal.SIGINT else 128 + reason.signum
    except (OSError, termios.error):  # the terminal has gone, and who could read of it
        return 128 + signal.SIGHUP
    return 0


def _quietly(leave: Callable[[], None]) -> None:
    with held_back(), suppress(OSError, termios.error):  # the terminal has gone
        leave()


def _live(
    screen: "_Screen",
    signals: SignalPipe,
    ask: Callable[[], MasterStatus],
    status: MasterStatus,
    interval_s: float,
) -> None:
    next_s = answered_s = time.monotonic()
    rates: Mapping[str, float] = {}
    trouble = ""
    while True:
        next_s += interval_s
        while time.monotonic() < next_s:
            screen.draw(status, rates, trouble)
            if _wait(screen, signals, next_s):
                return
        try:
            fresh = ask()
        except PreforkError as error:
            trouble = str(error)
        else:
            now_s = time.monotonic()
            rates = rates_between(status, fresh, max(now_s - answered_s, 0.001))
            status, answered_s, trouble = fresh, now_s, ""
        next_s = max(next_s, time.monotonic())


def _wait(screen: "_Screen", signals: SignalPipe, until_s: float) -> bool:
    """Wait for the time, a signal or a key; tell whether it was the key that ends."""
    left_s = max(0.0, until_s - time.monotonic())
    ready, _, _ = select.select([signals.fileno(), *screen.keyboard], [], [], left_s)
    if signals.fileno() in ready:
        signals.read()
    return any(fd in ready for fd in screen.keyboard) and screen.read_keys()


class _Screen:
    """stdout as a whole screen, and stdin as its keyboard, if it is one."""

    def __init__(self) -> None:
        self._out = sys.stdout.fileno()
        self._encoding = sys.stdout.encoding
        self._in = 0
        self._was: list[Any] | None = None
        self.keyboard = [self._in] if os.isatty(self._in) else []

    def enter(self) -> None:
        """Take the terminal."""
        if self.keyboard:
            self._was = termios.tcgetattr(self._in)
            tty.setcbreak(self._in, termios.TCSANOW)
        self._write(_ENTER)

    def leave(self) -> None:
        """Give the terminal back; again, if need be."""
        try:
            self._write(_LEAVE)
        finally:
            if self._was is not None:
                termios.tcsetattr(self._in, termios.TCSANOW, self._was)

    def suspend(self) -> None:
        """Do what Ctrl-Z does, and take the terminal again when the shell says so."""
        self.leave()
        signal.raise_signal(signal.SIGSTOP)
        self.enter()

    def read_keys(self) -> bool:
        """Tell whether a key that ends was pressed, or there is no keyboard any more."""
        try:
            keys = os.read(self._in, 1024)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            keys = b""
        return not keys or b"q" in keys

    def draw(self, status: MasterStatus, rates: Mapping[str, float], trouble: str) -> None:
        """Put the table over the one before, without a moment of nothing."""
        columns, rows = self._size()
        lines = render(status, time.time(), columns, max(1, rows - _ROWS_OF_FOOT), rates)
        foot = f"no answer: {clean(trouble)}" if trouble else "q: quit"
        lines.append(cut(foot, columns))
        body = "\r\n".join(_WIPE_LINE + line for line in lines[:rows])
        self._write(_HOME + body + _WIPE_BELOW)

    def _size(self) -> tuple[int, int]:
        columns, rows = os.get_terminal_size(self._out)
        return columns or 80, rows or 24  # some terminals do not know theirs

    def _write(self, text: str) -> None:
        # Not through sys.stdout: what a signal cuts off must not come out of a buffer later.
        data = text.encode(self._encoding, "backslashreplace")
        while data:
            data = data[os.write(self._out, data) :]
