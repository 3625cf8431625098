"""Open files on their way from the master to its workers.

The master, in its loop. Each worker has a line: a socket pair made before the
fork. What is sent has a name, and the worker knows under which number it has
the file of that name (`LogFiles.take`): numbers of two generations of a
configuration do not mean the same. It never opens a file and never waits.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from prefork.logs.files import ROUND_ENDS

#: How long workers may take before the caller hears that they have not; they may do it later.
ANSWER_S: Final = 10.0

Done = Callable[[str | None], None]  #: gets the reason, None if all went well


class Relay:
    """The lines to all workers, by slot.

    watch, forget: have the master's loop call back when a descriptor is
    readable. inherited: slot to number, of lines that were open before this
    process executed this program: `handover()` of then.
    """

    def __init__(
        self,
        watch: Callable[[int, Callable[[], None]], None],
        forget: Callable[[int], None],
        inherited: Mapping[int, int] | None = None,
    ) -> None:
        self._watch = watch
        self._forget = forget
        self._lines: dict[int, socket.socket] = {}
        self._round = 0
        self._awaited: set[int] = set()
        self._waiting: list[Done] = []
        self._due_s: float | None = None
        for slot, fd in (inherited or {}).items():
            self._keep(slot, socket.socket(fileno=fd))

    @property
    def due_s(self) -> float | None:
        """When `expire()` is to be called, monotonic seconds; None: it need not."""
        return self._due_s

    def open(self, slot: int) -> socket.socket:
        """Return the worker's end of a new line; the master closes it after the fork.

        A line that the slot still has is that of a worker that has ended.

        Raises: OSError when descriptors are short.
        """
        self.close(slot)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setblocking(False)
        self._keep(slot, ours)
        return theirs

    def close(self, slot: int) -> None:
        """Forget the line of a worker that has ended; one without a line is well, too."""
        line = self._lines.pop(slot, None)
        if line is not None:
            self._forget(line.fileno())
            line.close()
        self._answered(slot)

    def leave(self) -> None:
        """In a forked child: close the ends that are the master's."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()

    def handover(self) -> dict[int, int]:
        """Return slot to number of all lines; the caller makes these inheritable."""
        return {slot: line.fileno() for slot, line in self._lines.items()}

    def send(self, files: Mapping[str, int], done: Done) -> None:
        """Send open files to all workers; call done when each has them in use.

        files: name (`LogFiles.handover()`, `logfiles.STANDARD`) to descriptor,
        which stays open. done gets the reason if a worker does not take them
        within 10 s; called again meanwhile, both wait for the later one.
        """
        self._round += 1
        self._waiting.append(done)
        self._awaited = set(self._lines)
        self._due_s = time.monotonic() + ANSWER_S
        end = ROUND_ENDS + b"%d" % self._round
        for line in self._lines.values():
            # One that is stopped, and has not read the last rounds: expire() names it.
            with suppress(OSError):
                for name, fd in files.items():
                    socket.send_fds(line, [os.fsencode(name)], [fd])
                line.send(end)
        self._finish_if_complete()

    def expire(self) -> None:
        """Tell who waits that some workers do not answer, once it is time."""
        if self._due_s is not None and time.monotonic() >= self._due_s:
            late = ", ".join(map(str, sorted(self._awaited)))
            self._finish(f"still in the old files, for they are busy: workers in slots {late}")

    def _keep(self, slot: int, line: socket.socket) -> None:
        line.setblocking(False)
        line.set_inheritable(False)
        self._lines[slot] = line
        self._watch(line.fileno(), lambda: self._read(slot))

    def _read(self, slot: int) -> None:
        line = self._lines[slot]
        try:
            while data := line.recv(64):
                if data == ROUND_ENDS + b"%d" % self._round:
                    self._answered(slot)
        except BlockingIOError:
            return
        except ConnectionResetError:
            pass
        self.close(slot)  # end of file: it has ended, and its line would stay readable

    def _answered(self, slot: int) -> None:
        self._awaited.discard(slot)
        self._finish_if_complete()

    def _finish_if_complete(self) -> None:
        if not self._awaited and self._due_s is not None:
            self._finish(None)

    def _finish(self, reason: str | None) -> None:
        waiting, self._waiting = self._waiting, []
        self._awaited = set()
        self._due_s = None
        for done in waiting:
            done(reason)
