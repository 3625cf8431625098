"""What systemd is told about the daemon, and when.

The master. Where no service manager listens all of this costs a look at the
clock.
"""

import os
import time
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Final

from prefork import systemd
from prefork.listeners import Listener

if TYPE_CHECKING:
    from prefork.daemon import Daemon
    from prefork.master import Master

_STATUS_S: Final = 1.0
#: How much longer each request for more time asks for than it is until the next.
_MARGIN_S: Final = 10.0


class Bulletin:
    """environ: of the process."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._is_heard = "NOTIFY_SOCKET" in environ
        self._watchdog_s = systemd.watchdog_interval_s(environ)
        self._alive_due_s = self._status_due_s = 0.0
        self._stop_by_s: float | None = None
        self._told = ""

    def ready(self, master: "Master", text: str = "") -> None:
        """Tell that it serves, or that a reload is over, well or not."""
        if not master.is_stopping:
            systemd.main_pid(os.getpid())
            systemd.ready(text or _busy(master))

    def reloading(self) -> None:
        """Tell that a reload has begun."""
        systemd.reloading()

    def stopping(self, limit_s: float) -> None:
        """Tell that the end has begun, and will take at most so long."""
        self._stop_by_s = time.monotonic() + limit_s
        systemd.stopping("answering what is in hand")

    def keep(self, listener: Listener) -> None:
        """Have a listener outlive a crash of this process."""
        if self._is_heard:
            systemd.store(listener.sock.fileno(), _name(listener))

    def drop(self, listener: Listener) -> None:
        """Have it not outlive anything any more."""
        if self._is_heard:
            systemd.remove_from_store(_name(listener))

    def tick(self, daemon: "Daemon") -> None:
        """Say what is due."""
        if not self._is_heard:
            return
        now_s = time.monotonic()
        if self._watchdog_s is not None and now_s >= self._alive_due_s:
            self._alive_due_s = now_s + self._watchdog_s / 2  # the loop may come half a second late
            systemd.alive()
        if now_s < self._status_due_s:
            return
        self._status_due_s = now_s + _STATUS_S
        if self._stop_by_s is not None:
            left_s = max(0.0, self._stop_by_s - now_s)
            systemd.extend_timeout(min(left_s, _STATUS_S) + _MARGIN_S)
        text = f"{_busy(daemon.master)}, generation {daemon.generation}"
        if reason := daemon.complaint():
            text = f"{reason}; {text}"
        if text != self._told and self._stop_by_s is None:
            self._told = text
            systemd.status(text)


def _busy(master: "Master") -> str:
    """Return how many workers have a request in hand."""
    lines = [line for pool in master.pools for line in pool.members]
    busy = sum(bool(master.board[line].busy) for line in lines)
    return f"{busy} of {len(lines)} workers busy"


def _name(listener: Listener) -> str:
    """Return what systemd may call it: printable ASCII without colons, the rest as %XX."""
    raw = os.fsencode(listener.key)
    plain = [chr(c) if 0x20 < c < 0x7F and c not in b":%" else f"%{c:02X}" for c in raw]
    return "".join(plain)[:255]
