"""A reload: rehearsed by another process, then this one becomes its next image.

The master. As long as the rehearsal goes on, and if it fails, the running
generation serves as if nothing had been. After the execve, this object in the
next image waits until the new workers have relieved the old ones.
"""

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from prefork import log
from prefork.errors import StartError
from prefork.handover import HANDOVER, Handover, Left
from prefork.rehearsal import Outcome, Rehearsal
from prefork.succession import lefts_of, workers_of

if TYPE_CHECKING:
    from prefork.daemon import Daemon

Done = Callable[[str | None], None]

#: What a rehearsal may take beside the time in which its workers must get ready.
_IMPORT_S: Final = 60.0
#: How long a handler of the old generation may keep its worker from taking notice that it is
#: relieved. After that the reload counts as done, though that worker may take one more client.
_HANDLER_S: Final = 1.0


class Reload:
    """reason: why the last one failed, "" if it did not. is_under_way: until it is decided."""

    def __init__(self, daemon: "Daemon") -> None:
        self.reason = ""
        self.is_under_way = False
        self._daemon = daemon
        self._waiting: list[Done] = []
        self._next: list[Done] | None = None  # of one that was asked for during a rehearsal
        self._rehearsal: Rehearsal | None = None
        self._relieved_s = 0.0  # when the last old worker was told to go

    def ask(self, done: Done) -> None:
        """Begin one, or another one after that which is being rehearsed: files may have changed.

        Raises: StartError when there is nothing to reload.
        """
        if self._daemon.charter.config_path is None:
            raise StartError("there is no config to reload: the command line says it all")
        if self._daemon.master.is_stopping:
            raise StartError("the server stops")
        if self._rehearsal is not None:
            self._next = [*(self._next or ()), done]
            return
        self._waiting.append(done)
        self._begin()

    def resume(self, left: Handover) -> None:
        """In the next image: wait until the new workers serve, and tell those who wait for that."""
        control = self._daemon.control
        for fd, text in left.waiting:
            done = None if control is None else control.adopt(fd, text)
            if done is None:
                continue
            if '"reload"' in text:
                self._waiting.append(done)
            else:
                done("a reload came in between; ask again")
        self.is_under_way = True
        log.info("master.reexecuted", pid=os.getpid(), generation=self._daemon.generation)

    def tick(self) -> None:
        """See whether it is late, or over."""
        daemon = self._daemon
        if self._rehearsal is not None:
            self._rehearsal.is_late()
        elif self.is_under_way or self.reason:
            if daemon.handover is None:
                return
            if daemon.is_renewed():
                self._relieved_s = self._relieved_s or time.monotonic()
                late = time.monotonic() > self._relieved_s + _HANDLER_S
                if late or daemon.only_new_accept():
                    self._succeed()
            elif self.is_under_way and (reason := daemon.trouble()):
                self._fail(f"a worker cannot start: {reason}")

    def abandon(self, why: str) -> None:
        """Give it up: the server stops."""
        if self._rehearsal is not None:
            self._daemon.master.forget(self._rehearsal.fileno())
            self._rehearsal.abandon()
            self._rehearsal = None
        self._next = None
        self._tell(why)
        self.is_under_way = False

    def disown(self) -> None:
        """In a forked child: close what is the master's alone."""
        if self._rehearsal is not None:
            os.close(self._rehearsal.fileno())

    # -- before ------------------------------------------------------------------

    def _begin(self) -> None:
        daemon = self._daemon
        self.is_under_way = True
        daemon.bulletin.reloading()
        log.info("reload.begun", generation=daemon.generation + 1)
        boot_s = max(prepared.plan.settings.policy.boot_s for prepared in daemon.prepared)
        try:
            self._rehearsal = Rehearsal(
                daemon.image, self._sheet(), self._decide, boot_s + _IMPORT_S
            )
        except OSError as error:
            self._fail(f"cannot start a process for the rehearsal: {error.strerror}")
            return
        daemon.master.watch(self._rehearsal.fileno(), self._hear)

    def _hear(self) -> None:
        assert self._rehearsal is not None  # noqa: S101 # its descriptor is watched while it is there
        fd = self._rehearsal.fileno()
        self._daemon.master.forget(fd)
        if not self._rehearsal.hear():
            self._daemon.master.watch(fd, self._hear)

    def _decide(self, outcome: Outcome) -> None:
        self._rehearsal = None
        if outcome.reason is not None:
            self._fail(outcome.reason)
        else:
            self._execute(outcome.listeners)
        if self._next is not None:
            self._waiting, self._next = self._next, None
            self._begin()

    def _execute(self, new: list[Left]) -> None:
        """Become the next image; what comes back is a failure, and nothing has changed."""
        daemon = self._daemon
        if self._next is not None:
            # Whoever asked meanwhile is served by the new image, after another rehearsal there.
            self._waiting += self._next
            self._next = None
        sheet = self._sheet(new, with_clients=True)
        fd = sheet.write()
        error = daemon.image.execute(
            {HANDOVER: str(fd)}, [fd, *sheet.descriptors()], daemon.master.unheard_signals
        )
        os.close(fd)
        for left in new:
            left.open().close()
        if daemon.control is not None:
            daemon.control.take_back()
        self._fail(f"cannot execute {daemon.image.executable}: {error.strerror}")

    def _sheet(self, new: list[Left] | None = None, *, with_clients: bool = False) -> Handover:
        daemon, master = self._daemon, self._daemon.master
        control = daemon.control
        listeners = [*daemon.listeners.open, *daemon.leftover.reusable()]
        return Handover(
            pid=os.getpid(),
            generation=daemon.generation,
            born_s=daemon.born_s,
            estate=asdict(master.estate),
            workers=workers_of(master),
            listeners=[*lefts_of(listeners), *(new or ())],
            shut=lefts_of(daemon.leftover.shut()),
            control_fd=None if control is None else control.listener.fileno(),
            control_path=None if control is None else str(daemon.control_path),
            waiting=control.handover() if control is not None and with_clients else [],
            pidfile_fd=None if daemon.pidfile is None else daemon.pidfile.fd,
            pidfile_path=daemon.charter.pidfile,
            log_fds=daemon.files.handover(),
            relay_fds=daemon.relay.handover(),
        )

    # -- the end -----------------------------------------------------------------

    def _succeed(self) -> None:
        daemon = self._daemon
        self.is_under_way, self.reason = False, ""
        log.info("reload.done", generation=daemon.generation)
        daemon.bulletin.ready(daemon.master)
        self._tell(None)

    def _fail(self, reason: str) -> None:
        daemon = self._daemon
        self.is_under_way, self.reason = False, reason
        log.error("reload.failed", reason=reason)
        daemon.bulletin.ready(daemon.master, daemon.complaint())
        self._tell(reason)

    def _tell(self, reason: str | None) -> None:
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done(reason)
