"""Programs that handlers have started and wait for: ended with the process, if it may not wait.

A worker. Any thread adds and removes; it starts none, and waits for none.
"""

import contextlib
import os
import signal


class Programs:
    """Groups of processes, by the numbers of their leaders, which have not been waited for."""

    def __init__(self) -> None:
        self._groups: set[int] = set()

    def add(self, group: int) -> None:
        """Take note of one."""
        self._groups.add(group)

    def discard(self, group: int) -> None:
        """Forget one that is about to be waited for: its number may be another's then."""
        self._groups.discard(group)

    def any_left(self) -> bool:
        """Tell whether there are any."""
        return bool(self._groups)

    def end(self) -> None:
        """Tell all to end; a signal handler may call it."""
        for group in list(self._groups):
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                os.killpg(group, signal.SIGTERM)
