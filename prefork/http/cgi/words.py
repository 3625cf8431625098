"""What a script writes to stderr, on its way to the log.

A worker, in the thread of the handler. One event for what comes at once: a
traceback is one, and not thirty that are counted as repeated.
"""

import math
import os
import time
from typing import Final

from prefork import log

#: Of one event.
_PIECE_BYTES: Final = 4096
#: Of one request; what is more is counted.
_MOST_BYTES: Final = 1 << 16
#: Read at the end: what a pipe holds.
_LAST_PIECES: Final = 16
#: How long words wait for others.
_TOGETHER_S: Final = 0.5


class Words:
    """script: its name, for the log. due_s: when `tick()` has something to do."""

    def __init__(self, script: str) -> None:
        self._script = script
        self._data = b""
        self._told_bytes = self._dropped_bytes = 0
        self.due_s = math.inf

    def read(self, fd: int) -> bool:
        """Read what is there; tell whether there may be more."""
        try:
            data = os.read(fd, _PIECE_BYTES)
        except BlockingIOError:
            return True
        room = _MOST_BYTES - self._told_bytes - len(self._data)
        self._dropped_bytes += max(0, len(data) - room)
        self._data += data[: max(0, room)]
        if len(self._data) >= _PIECE_BYTES:
            self.tell()
        elif self._data:
            self.due_s = min(self.due_s, time.monotonic() + _TOGETHER_S)
        return bool(data)

    def tick(self, now_s: float) -> None:
        """Log what has waited long enough."""
        if now_s >= self.due_s:
            self.tell()

    def tell(self) -> None:
        """Log what there is."""
        self.due_s = math.inf
        data, self._data = self._data, b""
        self._told_bytes += len(data)
        if data.strip():
            text = data.decode("utf-8", "backslashreplace").strip()
            log.warning("cgi.stderr", script=self._script, text=text)

    def close(self, fd: int) -> None:
        """Log the last of it, without waiting for more."""
        for _ in range(_LAST_PIECES):  # what it has left behind may write for ever
            before = self._seen_bytes()
            if not self.read(fd) or self._seen_bytes() == before:
                break
        self.tell()
        if self._dropped_bytes:
            log.warning("cgi.stderr_cut", script=self._script, dropped_bytes=self._dropped_bytes)

    def _seen_bytes(self) -> int:
        return len(self._data) + self._told_bytes + self._dropped_bytes
