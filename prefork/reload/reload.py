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

from prefork import log, systemd
from prefork.control.server import answer_alone
from prefork.errors import StartError
from prefork.reload.handover import HANDOVER, Handover, Left
from prefork.reload.rehearsal import Outcome, Rehearsal
from prefork.reload.succession import lefts_of, workers_of

if TYPE_CHECKING:
    from prefork.daemon import Daemon

Done = Callable[[str | None], None]

#: What a rehearsal may take beside the time in which its workers must get ready.
_IMPORT_S: Final = 60.0
#: How long a handler of the old generation may keep its worker from taking notice that it is
#: relieved. After that the reload counts as done, though that worker may take one more client.
_HANDLER_S: Final = 1.0


class Reload:
    """Two things that may overlap: a rehearsal of the next generation, and this one's coming in."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._asked: list[Done] = []  # for what is being rehearsed
        self._next: list[Done] = []  # and when that is over, for another
        self._coming: list[Done] = []  # for this generation, when it was the next
        self._rehearsal: Rehearsal | None = None
        self._refused = ""  # why the last rehearsal failed
        self._comes = False  # until only this generation's workers take clients
        self._stalled = ""  # why that is not so yet
        self._relieved_s = 0.0  # when the last old worker was told to go

    @property
    def reason(self) -> str:
        """Why the last one failed, "" if it did not."""
        return self._refused or self._stalled

    @property
    def is_under_way(self) -> bool:
        """Tell whether one is not decided yet."""
        return self._rehearsal is not None or (self._comes and not self._stalled)

    def ask(self, done: Done) -> None:
        """Begin one, or another one after that which is being rehearsed: files may have changed.

        Raises: StartError when there is nothing to reload.
        """
        if self._daemon.charter.config_path is None:
            raise StartError("there is no config to reload: the command line says it all")
        if self._daemon.master.is_stopping:
            raise StartError("the server stops")
        if self._rehearsal is not None:
            self._next.append(done)
            return
        self._asked.append(done)
        self._begin()

    def resume(self, left: Handover) -> None:
        """In the next image: wait until the new workers serve, and tell those who wait for that."""
        control = self._daemon.control
        for fd, text in left.waiting:
            done = answer_alone(fd) if control is None else control.adopt(fd, text)
            if done is None:
                continue
            if '"reload"' in text:
                self._coming.append(done)
            else:
                done("a reload came in between; ask again")
        self._comes = True
        log.info("master.reexecuted", pid=os.getpid(), generation=self._daemon.generation)

    def tick(self) -> None:
        """See whether it is late, or over."""
        daemon = self._daemon
        if self._rehearsal is not None and self._rehearsal.is_late():
            daemon.master.forget(self._rehearsal.fileno())
            self._rehearsal.give_up()
        if not self._comes:
            return
        if daemon.is_renewed():
            self._relieved_s = self._relieved_s or time.monotonic()
            late = time.monotonic() > self._relieved_s + _HANDLER_S
            if late or daemon.only_new_accept():
                self._succeed()
        elif not self._stalled and (reason := daemon.trouble()):
            self._stalled = f"a worker cannot start: {reason}"
            self._fail(self._stalled, self._coming)

    def abandon(self, why: str) -> None:
        """Give it up: the server stops."""
        if self._rehearsal is not None:
            self._daemon.master.forget(self._rehearsal.fileno())
            self._rehearsal.abandon()
            self._rehearsal = None
        for waiting in (self._asked, self._next, self._coming):
            _tell(waiting, why)
        self._comes = False

    def disown(self) -> None:
        """In a forked child: close what is the master's alone."""
        if self._rehearsal is not None:
            os.close(self._rehearsal.fileno())

    # -- before ------------------------------------------------------------------

    def _begin(self) -> None:
        daemon = self._daemon
        daemon.bulletin.reloading()
        log.info("reload.begun", generation=daemon.generation + 1)
        boot_s = max(prepared.plan.settings.policy.boot_s for prepared in daemon.prepared)
        try:
            self._rehearsal = Rehearsal(
                daemon.image, self._sheet(), self._decide, boot_s + _IMPORT_S
            )
        except OSError as error:
            which = "" if error.filename is None else f"{error.filename}: "
            self._refuse(f"cannot start a process for the rehearsal: {which}{error.strerror}")
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
            self._refuse(outcome.reason)
        elif not self._next:
            self._execute(outcome.listeners)
        else:
            # Asked for again, because files have changed: what they are now is rehearsed first.
            for left in outcome.listeners:
                left.open().close()
        if self._next:
            self._asked, self._next = [*self._asked, *self._next], []
            self._begin()

    def _execute(self, new: list[Left]) -> None:
        """Become the next image; what comes back is a failure, and nothing has changed."""
        daemon = self._daemon
        try:
            sheet = self._sheet(new, with_clients=True)
            fd = sheet.write()
        except OSError as error:
            reason = f"cannot hand over: {error.strerror}"
        else:
            systemd.alive()  # the next one has imports to do before it can say so
            failure = daemon.image.execute(
                {HANDOVER: str(fd)}, [fd, *sheet.descriptors()], daemon.master.unheard_signals
            )
            os.close(fd)
            reason = f"cannot execute {daemon.image.executable}: {failure.strerror}"
        for left in new:
            left.open().close()
        if daemon.control is not None:
            daemon.control.take_back()
        self._refuse(reason)

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
            targets={pool.name: pool.fleet.target for pool in master.pools},
            control_fd=None if control is None else control.listener.fileno(),
            control_path=None if control is None else str(daemon.control_path),
            waiting=control.handover() if control is not None and with_clients else [],
            pidfile_fd=None if daemon.pidfile is None else daemon.pidfile.fd,
            pidfile_path=daemon.charter.pidfile,
            log_fds=daemon.logs.files(),
            relay_fds=daemon.logs.lines(),
        )

    # -- the end -----------------------------------------------------------------

    def _succeed(self) -> None:
        daemon = self._daemon
        self._comes, self._stalled = False, ""
        log.info("reload.done", generation=daemon.generation)
        if self._rehearsal is None:  # else it is not the end of what systemd knows of
            daemon.bulletin.ready(daemon.master, daemon.complaint())
        _tell(self._coming, None)

    def _refuse(self, reason: str) -> None:
        self._refused = reason
        self._fail(reason, self._asked)

    def _fail(self, reason: str, waiting: list[Done]) -> None:
        daemon = self._daemon
        log.error("reload.failed", reason=reason)
        daemon.bulletin.ready(daemon.master, daemon.complaint())
        _tell(waiting, reason)


def _tell(waiting: list[Done], reason: str | None) -> None:
    told = waiting.copy()
    waiting.clear()
    for done in told:
        done(reason)
