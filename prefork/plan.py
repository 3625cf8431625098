"""A pool before there is one: what it serves, where, and how; then its `Pool`.

The master and a rehearsal. Made of a config (`planning`) or of the command
line's words (`cli`); both run in the same way from here on.
"""

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prefork import log
from prefork.children import answer_of
from prefork.errors import PreforkError, StartError
from prefork.foreign import Maker
from prefork.listeners import Listener, Listeners, Where
from prefork.mixin import PreforkMixIn
from prefork.outfit import Outfit
from prefork.pool import Pool, Settings
from prefork.queues import Queue, Queues
from prefork.servers import make_server, maker_for
from prefork.target import Kind, Target
from prefork.worker import Worker

Hook = Callable[[Sequence[Any]], object]  #: gets the worker's servers


@dataclass(frozen=True)
class Place:
    """One listener and what is special about its server: class variables."""

    where: Where
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Code:
    """What comes from the program's modules. variables: the handler's defaults for the server's.

    maker: of the servers; None: what fits the handler.
    """

    target: Target
    maker: Maker | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    on_worker_start: Hook | None = None
    on_worker_stop: Hook | None = None


@dataclass(frozen=True)
class Plan:
    """load: imports the handler and the rest; called by the master (preload) or each worker.

    what: for people and process titles. variables: of the server class.
    least, most: between which the number of workers follows the load, if not None.
    spare_s: for how long one was not needed before it goes.
    max_memory_bytes, max_age_s: of a worker, above which it is replaced.
    """

    name: str
    what: str
    places: Sequence[Place]
    load: Callable[[], Code]
    settings: Settings
    variables: Mapping[str, Any] = field(default_factory=dict)
    outfit: Outfit = field(default_factory=Outfit)
    preload: bool = True
    reuse_port: bool = False
    least: int | None = None
    most: int | None = None
    spare_s: float = 0.0
    max_memory_bytes: int | None = None
    max_age_s: float | None = None
    access_log_path: str | None = None

    def try_on(self) -> None:
        """Have a child put on what all workers would, for none could serve if that fails.

        Raises: StartError.
        """
        if self.outfit.identity is None and self.outfit.chroot is None:
            return

        def put_on() -> str:
            self.outfit.put_on()
            return "it fits"

        try:
            answer_of(put_on)
        except StartError as error:
            raise StartError(f"server.{self.name}: {error}") from None


def claimed_twice(plans: Iterable[Plan]) -> Iterator[tuple[str, str, Where]]:
    """Return each place that two pools want, with their names; any free port is no such place."""
    owners: dict[str, str] = {}
    for plan in plans:
        for where in (place.where for place in plan.places):
            is_any = where.endpoint is not None and where.endpoint.address[1:2] == (0,)
            if not is_any and owners.setdefault(where.key, plan.name) != plan.name:
                yield plan.name, owners[where.key], where


class Prepared:
    """A plan with what the master has done for it: code imported, sockets open.

    listeners: of all processes. variables: of the server class, beside the
    plan's. move_in: called in each worker, before its servers are used.
    Raises: PreforkError, or what a class's `__init__` raises.
    """

    def __init__(
        self,
        plan: Plan,
        listeners: Listeners,
        variables: Mapping[str, Any],
        move_in: Callable[["Prepared", Worker], None],
    ) -> None:
        self.plan = plan
        self._listeners = listeners
        self._variables = variables
        self._move_in = move_in
        self._servers: list[PreforkMixIn] | None = None
        count = max(1, plan.settings.workers) if plan.reuse_port else 1
        self._queues: dict[int, list[tuple[Place, Listener]]] = {}
        for number in range(count):
            self._queues[number] = self._listen(number)
        if plan.preload:
            before = set(threading.enumerate())
            with plan.outfit.imported_in():
                self._code = plan.load()
                self._servers = self._make(self._queues[0])
            _warn_of_threads(plan, set(threading.enumerate()) - before)

    @property
    def listeners(self) -> list[Listener]:
        """Those of the first queue that there is, one or more for each place."""
        return [listener for _, listener in next(iter(self._queues.values()), [])]

    def pool(self, generation: int, *, rehearsal: bool = False) -> Pool:
        """Return the pool, to be run by a master."""
        settings = self.plan.settings
        life = replace(settings.life, on_stop=self._on_stop, rehearsal=rehearsal)
        settings = replace(settings, life=life)
        if rehearsal:
            policy = replace(settings.policy, retire_s=None)
            settings = replace(settings, workers=1, policy=policy)
        more = self._open_more if self.plan.reuse_port and not rehearsal else None
        queues = Queues(map(_queue, self._queues.values()), open_more=more, close=self._drop)
        return Pool(settings, queues, self._open, generation)

    def close(self) -> None:
        """Have the servers close their sockets; the listeners' own stay open."""
        for server in self._servers or ():
            server.server_close()

    def end(self) -> None:
        """Close what the pool has served: it has ended, and others go on.

        What is lent stays open: nobody would lend it again at the next reload.
        """
        self.close()
        self._servers = None
        mine = [listener for queue in self._queues.values() for _, listener in queue]
        self._queues.clear()
        self._listeners.end(listener for listener in mine if not listener.is_lent)

    def forget(self) -> None:
        """In a worker of another pool: close the servers' sockets, and call no hooks."""
        for server in self._servers or ():
            server.socket.close()

    def _listen(self, number: int) -> list[tuple[Place, Listener]]:
        """Open the listeners of a queue; what queues cannot have apart is the first one's."""
        first = next(iter(self._queues.values()), [])
        known = [[n for p, n in first if p is place] for place in self.plan.places]
        shared = [number > 0 and p.where.of_queue(number) is p.where for p in self.plan.places]
        wheres = [
            replace(place.where.of_queue(number), port=_port_of(some))
            for place, some, is_shared in zip(self.plan.places, known, shared, strict=True)
            if not is_shared
        ]
        fresh = iter(self._listeners.listen(wheres))
        found = [
            some if is_shared else next(fresh)
            for some, is_shared in zip(known, shared, strict=True)
        ]
        return [(p, n) for p, some in zip(self.plan.places, found, strict=True) for n in some]

    def _open_more(self, number: int) -> Queue:
        opened = self._listen(number)
        self._queues[number] = opened
        return _queue(opened)

    def _drop(self, keys: Sequence[str]) -> None:
        if any(listener.key in keys for _, listener in self._queues.get(0, ())):
            self.forget()  # the servers made beforehand would keep this queue open
            self._servers = None
        for number, opened in list(self._queues.items()):
            if any(listener.key in keys for _, listener in opened):
                del self._queues[number]
        self._listeners.drop(keys)

    def _open(self, queue: int, worker: Worker) -> list[PreforkMixIn]:
        """Return the servers of a worker, in that worker."""
        self.plan.outfit.put_on()
        if self._servers is None:
            self._code = self.plan.load()
            self._servers = self._make(self._queues[queue])
        elif queue:
            self.forget()  # they have the first worker's sockets
            self._servers = self._make(self._queues[queue])
        self._move_in(self, worker)
        if self._code.on_worker_start is not None:
            self._code.on_worker_start(self._servers)
        return self._servers

    def _on_stop(self) -> None:
        if self._code.on_worker_stop is not None:
            self._code.on_worker_stop(self._servers or ())

    def _make(self, queue: Sequence[tuple[Place, Listener]]) -> list[PreforkMixIn]:
        code = self._code
        maker = code.maker or maker_for(code.target)
        common = {**code.variables, **self.plan.variables, **self._variables}
        return [
            make_server(maker, {**common, **_variables(place)}, listener.sock, code.target)
            for place, listener in queue
        ]


def end_what_is_over(prepared: Iterable[Prepared], pools: Iterable[Pool]) -> None:
    """Close what pools that have ended themselves have served: clients are to be refused."""
    over = {pool.name for pool in pools if pool.has_ended and pool.is_over()}
    for each in prepared:
        if each.plan.name in over and each.listeners:
            log.info("pool.ended", pool=each.plan.name)
            each.end()


def _warn_of_threads(plan: Plan, threads: Iterable[threading.Thread]) -> None:
    """Log that workers will not have what the import of their code has started."""
    names = ", ".join(sorted(thread.name for thread in threads))
    if names:
        log.warning(
            "threads.left_behind",
            pool=plan.name or None,
            what=plan.what,
            threads=names,
            remedy="start them in on_worker_start, or preload = false",
        )


def _variables(place: Place) -> dict[str, Any]:
    """Return those of a place; the class's own `server_activate()` sets the queue's length."""
    return {"request_queue_size": place.where.request_queue_size, **place.variables}


def _port_of(listeners: Sequence[Listener]) -> int:
    for listener in listeners:
        if listener.sock.family != socket.AF_UNIX:
            return int(listener.sock.getsockname()[1])
    return 0


def _queue(opened: Sequence[tuple[Place, Listener]]) -> Queue:
    lent = [n.sock for _, n in opened if n.is_lent]
    return Queue([n.sock for _, n in opened], [n.key for _, n in opened], lent)


def kind_of(plan: Plan) -> Kind:
    """Return what family of servers a plan's handler wants.

    Without preload it is imported by a child, so that the master never has it.
    Raises: PreforkError.
    """
    if plan.preload:
        with plan.outfit.imported_in():
            return plan.load().target.kind

    def say() -> str:
        os.environ.update(plan.outfit.environment)
        sys.path[:0] = plan.outfit.path
        return plan.load().target.kind.value

    return Kind(answer_of(say))


def explain(error: BaseException, what: str) -> PreforkError:
    """Return what a server class has raised as an error for people."""
    if isinstance(error, PreforkError):
        return error
    return StartError(f"cannot serve {what}: {type(error).__name__}: {error}")
