"""All logs of the daemon: which files are open, and how workers hear that they have moved.

The master, which opens and reopens; and each of its workers, by the copy that it
inherits: what is a line's worker end there has been opened right before the fork.
"""

import select
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from prefork import log
from prefork.logs.events import Limited, Wanted, configure
from prefork.logs.files import STANDARD, LogFiles
from prefork.logs.relay import Relay
from prefork.privileges import Identity

if TYPE_CHECKING:
    import socket

_MODE: Final = 0o640

Done = Callable[[str | None], None]


class Keeper:
    """says: None leaves the log of events as it is. inherited: files of the image before, by path.

    Raises: StartError when a target cannot be opened.
    """

    def __init__(self, says: Wanted | None, inherited: Mapping[str, int]) -> None:
        self._files = LogFiles(inherited)
        self._mode = _MODE if says is None else says.mode
        self._handler: Limited | None = None if says is None else configure(says, self._files)
        self._relay: Relay | None = None
        self._line: socket.socket | None = None

    # -- the master --------------------------------------------------------------

    def open(self, path: str, owner: Identity | None) -> int:
        """Return the descriptor of a file to append to.

        Raises: StartError.
        """
        return self._files.open(path, self._mode, owner).fd

    def begin(self, watch: Any, forget: Any, inherited: Mapping[int, int]) -> None:
        """Everything that is wanted is open, and workers come. inherited: lines, by slot.

        watch, forget: of the master's loop.
        """
        self._files.close_unused()
        self._relay = Relay(watch, forget, inherited)

    def hiring(self, slot: int) -> None:
        """Open a line for a worker; right before its fork."""
        if self._relay is not None:
            self._line = self._relay.open(slot)

    def hired(self, _slot: int) -> None:
        """Let go of the worker's end."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def buried(self, slot: int) -> None:
        """Close the line of a worker that has ended."""
        if self._relay is not None:
            self._relay.close(slot)

    def tick(self) -> None:
        """Do what is due."""
        if self._relay is not None:
            self._relay.expire()
        if self._handler is not None:
            self._handler.tick()

    def reopen(self, done: Done) -> None:
        """Open all files anew; done when nobody writes to the old ones any more."""
        problems = self._files.reopen()

        def tell(reason: str | None) -> None:
            if reason is not None:
                problems.append(reason)
            log.info("log.reopened", files=len(self.files()), problems=len(problems))
            done("; ".join(problems) or None)

        if self._relay is not None:
            self._relay.send(self.files(), tell)

    def leave_streams(self, null: int, done: Done) -> None:
        """Have all workers take null for their standard streams."""
        if self._relay is not None:
            self._relay.send(dict.fromkeys(STANDARD, null), done)

    def files(self) -> dict[str, int]:
        """Return what is open, by path, for the next image."""
        return self._files.handover()

    def lines(self) -> dict[int, int]:
        """Return the lines to all workers, by slot, for the next image."""
        return {} if self._relay is None else self._relay.handover()

    # -- a worker ----------------------------------------------------------------

    def leave(self) -> None:
        """In a child: close the ends that are the master's."""
        if self._relay is not None:
            self._relay.leave()

    def move_in(self, worker: Any) -> None:
        """Follow when the master says that files have moved; count what repeats itself."""
        line = self._line
        if line is None:
            return  # a rehearsal

        def follow(_mask: int) -> None:
            worker.move_logs(lambda: None if self._files.take(line) else worker.loop.forget(fd))

        fd = line.fileno()
        worker.loop.watch(fd, select.EPOLLIN, follow)
        if self._handler is not None:
            worker.chores.append(self._handler.tick)
