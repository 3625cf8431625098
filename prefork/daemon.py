"""The daemon: plans become listeners, pools and a master, which runs until its end.

The master; also as a later image of the same process, that takes over what the
one before has left, and as a rehearsal. In this order: what can fail without
harm, what needs root, then the rights are dropped, then workers.
"""

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

from prefork import fleet, log, offices, privileges, systemd
from prefork.bulletin import Bulletin
from prefork.charter import Charter
from prefork.control.server import Control
from prefork.detach import Detached, detach
from prefork.errors import StartError, UsageError
from prefork.fleet import State
from prefork.listeners import Listener, Listeners, Stock
from prefork.logs.keeper import Keeper
from prefork.master import Estate, Master, Owner
from prefork.overseer import Overseer
from prefork.plan import Plan, Prepared, end_what_is_over, explain
from prefork.pool import Pool
from prefork.reload.handover import Stage
from prefork.reload.holding import Holding
from prefork.reload.image import Image
from prefork.reload.rehearsal import answer
from prefork.reload.reload import Reload
from prefork.reload.succession import (
    Leftover,
    adopt_processes,
    adopt_workers,
    drained_keys,
    keep_size,
)
from prefork.sockets import endpoint_of
from prefork.upkeep import Upkeep
from prefork.worker import Worker

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from prefork.pidfile import Pidfile


class Source(Protocol):
    """Where a charter and plans come from: a config, or the command line."""

    charter: Charter

    def plans(self) -> list[Plan]:
        """Import what is served; return the pools to be.

        Raises: PreforkError.
        """


#: Called with all listeners when they are open.
Greet = Callable[[Sequence[Listener]], None]


class Daemon:
    """One life of the process, from its image's start to its end."""

    def __init__(self, source: Source, stage: Stage, image: Image, greet: Greet) -> None:
        self.charter = source.charter
        self.image = image
        self.handover = stage.handover
        self.generation = 1 if stage.handover is None else stage.handover.generation + 1
        self.born_s = time.time() if stage.handover is None else stage.handover.born_s
        self.pidfile: Pidfile | None = None
        self.control: Control | None = None
        self.control_path: Path | None = None
        self.listeners = Listeners()
        self.prepared: list[Prepared] = []
        self.leftover = Leftover(())
        self.master: Master
        self._source = source
        self._answer_fd = stage.answer_fd
        self._greet = greet
        self._detached: Detached | None = None
        self._upkeep: list[Upkeep] = []
        self._has_begun = False
        self._holding: Holding | None = None
        self._control_socket: socket.socket | None = None

    # -- a life ------------------------------------------------------------------

    def run(self) -> None:
        """Serve until told to stop.

        A next image that cannot begin holds the service, and tries again.
        Raises: PreforkError when it cannot even begin.
        """
        charter = self.charter
        if self.handover is not None:
            self._holding = Holding(self.image, self.handover)
        if charter.daemonize and self.handover is None:
            if charter.logging is not None and charter.logging.target == "stderr":
                raise UsageError(
                    "master.log.target: stderr leads nowhere once the server has detached;"
                    ' name a file, "syslog" or "journald"'
                )
            self._detached = detach(
                working_directory=charter.working_directory or "/", umask=charter.umask
            )
        try:
            with ExitStack() as stack:
                self._prepare(stack)
                self._open_offices(stack)
                self._serve(stack)
        except Exception as error:
            if self._holding is not None and not self._has_begun:
                self._holding.hold(str(error), charter.stop_s)
                raise SystemExit(1) from None
            if self._detached is None:
                raise
            self._detached.failed(str(error))  # the caller prints it
            raise SystemExit(1) from None

    def rehearse(self) -> None:
        """Do all but serve; tell the master how it went."""
        assert self._answer_fd is not None  # noqa: S101 # a rehearsal has one
        fd = self._answer_fd
        os.set_inheritable(fd, False)
        privileges.die_with_parent()  # nobody else bounds its time, and it has the listeners
        if self.handover is None or os.getppid() != self.handover.pid:
            return
        with ExitStack() as stack:
            try:
                self._prepare(stack)
                assert self.handover is not None  # noqa: S101 # a rehearsal has one
                offices.rehearse(self.charter, self.handover)
                self._try_workers()
            except Exception as error:
                for listener in self.listeners.open:
                    if listener.is_new:  # the others' files are those of the service that runs
                        listener.close()
                answer(fd, str(explain(error, "this")))
                raise
            answer(fd, None, [n for n in self.listeners.open if n.is_new])

    def _prepare(self, stack: ExitStack) -> None:
        """Open the listeners, import the handlers."""
        left = self.handover.listeners if self.handover is not None else []
        named = systemd.inherited(os.environ) if self.handover is None else []
        self.listeners = Listeners(Stock([n.open() for n in left], named))
        if self._answer_fd is None:
            stack.callback(self._close_listeners)
        if self.charter.working_directory is not None or self.charter.daemonize:
            offices.go_to(self.charter.working_directory or "/")
        if self.charter.umask is not None:
            os.umask(self.charter.umask)
        if "nofile" not in self.charter.rlimits:
            privileges.raise_descriptors(self.charter.descriptors)
        privileges.apply_rlimits(self.charter.rlimits, for_good=False)
        files = {} if self.handover is None else self.handover.log_fds
        self.logs = Keeper(self.charter.logging, files)
        for plan in self._source.plans():
            if self.handover is None:
                plan.try_on()
            variables = {}
            if plan.access_log_path is not None:
                owner = plan.outfit.identity or self.charter.identity
                fd = self.logs.open(plan.access_log_path, owner)
                variables["access_log_fd"] = fd
            try:
                prepared = Prepared(plan, self.listeners, variables, self._move_in)
            except Exception as error:
                raise explain(error, plan.what) from error
            # No server_close() in a rehearsal: one of the program's own may remove the file of a
            # socket that the running generation serves.
            stack.callback(prepared.close if self._answer_fd is None else prepared.forget)
            self.prepared.append(prepared)

    def _open_offices(self, stack: ExitStack) -> None:
        """Open what people and programs know the daemon by: pidfile, control socket."""
        charter = self.charter
        self.pidfile = offices.take_pidfile(charter, self.handover)
        stack.callback(self._remove_pidfile)
        control = offices.take_control(charter, self.handover)
        if control is not None:
            self.control_path, self._control_socket = control
        if charter.identity is not None:
            privileges.drop(charter.identity)
        if charter.no_new_privs:
            privileges.set_no_new_privs()
        self._greet(self.listeners.open)

    def _serve(self, stack: ExitStack) -> None:
        charter, left = self.charter, self.handover
        pools = [prepared.pool(self.generation) for prepared in self.prepared]
        plans = [prepared.plan for prepared in self.prepared]
        if left is not None:
            pools = adopt_workers(left, pools)
            for plan, pool in zip(plans, pools, strict=False):
                if plan.least is not None and plan.most is not None:
                    keep_size(left, pool, plan.least, plan.most)
        self._names = {plan.name for plan in plans}
        self.bulletin = Bulletin(os.environ)
        self.listeners.on_drop = self.bulletin.drop
        self.reload = Reload(self)
        self.overseer = Overseer(self)
        owner = Owner(
            begun=lambda: self._begin(stack, pools, plans),
            ready=self._tell_ready,
            stopping=self._tell_stopping,
            turn=self._turn,
            disown=self._disown,
            hiring=self.logs.hiring,
            hired=self.logs.hired,
            buried=self.logs.buried,
            signals=self.overseer.signals(),
        )
        estate = None if left is None else Estate(**left.estate)
        at = ",".join(map(str, self.listeners.open))
        title = charter.config_path or f"{', '.join(plan.what for plan in plans)} {at}"
        self.master = Master(pools, owner, f"prefork: master [{title}]", estate)
        try:
            self.master.run()
        finally:
            log.info("master.stopped", pid=os.getpid())
        if self.master.ended_by == signal.SIGINT:
            raise KeyboardInterrupt

    # -- what the master tells its owner -------------------------------------------

    def _begin(self, stack: ExitStack, pools: Sequence[Pool], plans: Sequence[Plan]) -> None:
        """Take over what the image before has left, when the loop is about to run."""
        master, left = self.master, self.handover
        relay_fds = {} if left is None else left.relay_fds
        self.logs.begin(master.watch, master.forget, relay_fds)
        if left is not None:
            adopt_processes(left, master)
            shut = [n.open() for n in left.shut]
            self.leftover = Leftover(self.listeners.stock.ours, shut)
        if self._holding is not None:
            self._holding.release()
        self._has_begun = True
        self.listeners.follow_rights()
        self._upkeep = [
            Upkeep(plan, pool, master.board) for plan, pool in zip(plans, pools, strict=False)
        ]
        if self._control_socket is not None:
            self.control = Control(self._control_socket, self.overseer, master.watch, master.forget)
            stack.callback(self.control.close)
        if left is not None:
            self.reload.resume(left)
        for listener in self.listeners.open:
            if not listener.is_lent:
                self.bulletin.keep(listener)
        for name, sock in self.listeners.stock.named:
            log.warning("socket.unused", what=name, at=endpoint_of(sock))
            systemd.remove_from_store(name)
            sock.close()

    def _tell_ready(self) -> None:
        if self.handover is not None:
            return  # the reload is not over before the last old worker is relieved
        log.info("master.ready", pid=os.getpid())
        self.bulletin.ready(self.master)
        if self._detached is not None:
            self._leave_terminal(self._detached)

    def _tell_stopping(self) -> None:
        self.bulletin.stopping(self.charter.stop_s)
        for listener in self.listeners.open:
            if listener.is_shut_for_good:
                self.bulletin.drop(listener)  # of no use to the next start
        self.reload.abandon("the server stops")

    def _turn(self) -> None:
        master = self.master
        pid_of = {child.line: child.pid for child in master.children}
        if not master.is_stopping:
            for upkeep in self._upkeep:
                upkeep.tick(pid_of)
            if self._detached is not None and (reason := self.trouble()):
                self._detached.failed(reason)
                self._detached = None
                master.quit()
        end_what_is_over(self.prepared, master.pools)
        if self.leftover.listeners or any(pool.queues.has_doomed() for pool in master.pools):
            self._close_what_is_drained()
        self.reload.tick()
        self.overseer.tick()
        self.logs.tick()
        for pool in [p for p in master.pools if not p.members and p.name not in self._names]:
            master.pools.remove(pool)
        if self.control is not None:
            self.control.tick()
        self.bulletin.tick(self)

    def _close_what_is_drained(self) -> None:
        drained = drained_keys(self.master)
        for pool in self.master.pools:
            pool.close_drained(drained)
        for listener in self.leftover.tick(self.master.pools, drained):
            self.bulletin.drop(listener)

    def trouble(self) -> str:
        """Return why some worker did not get READY, "" if none is known to be in trouble."""
        return next((pool.trouble for pool in self.master.pools if pool.trouble), "")

    def complaint(self) -> str:
        """Return what someone should look at, "" if nothing."""
        if self.reload.reason:
            return f"reload failed: {self.reload.reason}"
        trouble = self.trouble()
        return f"a worker cannot start: {trouble}" if trouble else ""

    def is_renewed(self) -> bool:
        """Tell whether only workers of this generation serve."""
        return all(fleet.is_renewed(pool.fleet) for pool in self.master.pools)

    def _leave_terminal(self, detached: Detached) -> None:
        """Let the caller go, when nobody holds its terminal any more."""
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

        def leave(_reason: str | None) -> None:
            try:
                detached.ready()
            except StartError as error:
                log.error("master.unwanted", reason=error)
                self.master.quit()
            self._detached = None

        self.logs.leave_streams(null, leave)
        os.close(null)

    def only_new_accept(self) -> bool:
        """Tell whether all workers that were told to go take no more clients."""
        master = self.master
        return all(
            master.board[line].retired or pool.state_of(line) is not State.LEAVING
            for pool in master.pools
            for line in pool.members
        )

    def _close_listeners(self) -> None:
        if self._has_begun or self.handover is None:
            self.listeners.close()

    def _remove_pidfile(self) -> None:
        if self.pidfile is not None and (self._has_begun or self.handover is None):
            self.pidfile.remove()

    # -- details -------------------------------------------------------------------

    def _try_workers(self) -> None:
        """Have one worker of each pool get ready; raise what keeps it from that."""
        pools = [prepared.pool(self.generation, rehearsal=True) for prepared in self.prepared]
        were_ready = False

        def end() -> None:
            nonlocal were_ready
            were_ready = True
            for pool in pools:
                pool.resize(0)  # by what workers do at their end, too

        def look() -> None:
            over = were_ready and not any(pool.members for pool in pools)
            if over or any(pool.trouble for pool in pools):
                master.quit()

        def leave() -> None:
            master.quit()

        # At SIGTERM, too: a graceful end would shut doors, and answer queues, of those that serve.
        acts: dict[int, Callable[[], None]] = {signal.SIGTERM: leave}
        owner = Owner(ready=end, turn=look, signals=acts)
        master = Master(pools, owner, "prefork: rehearsal")
        master.run()
        for pool in pools:
            if pool.trouble:
                name = f"{pool.name}: " if pool.name else ""
                raise StartError(f"{name}a worker cannot start: {pool.trouble}")
        if not were_ready:
            raise StartError("the rehearsal was told to end before a worker was ready")

    def _move_in(self, mine: Prepared, worker: Worker) -> None:
        """In a worker: close what other pools serve, and follow when logs move."""
        for listener in [*self.listeners.open, *self.leftover.listeners]:
            listener.sock.close()
        for prepared in self.prepared:
            if prepared is not mine:
                prepared.forget()
        self.logs.move_in(worker)

    def _disown(self) -> None:
        """In each child: close what is the master's alone."""
        if self.control is not None:
            self.control.abandon()
        self.reload.disown()
        self.logs.leave()
