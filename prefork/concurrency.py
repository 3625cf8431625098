"""`concurrency`: whether a worker serves one client at a time, or more by threads or processes.

The master, before there are servers. It decides which of the stdlib's mix-ins
goes over a server class; the class itself is never changed.
"""

import socketserver
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from prefork.errors import UsageError
from prefork.foreign import Maker
from prefork.servers import hands_over, maker_for
from prefork.target import Kind, Target

_MIXINS: Final[Mapping[str, type[Any]]] = {
    "threads": socketserver.ThreadingMixIn,
    "fork": socketserver.ForkingMixIn,
}
_VARIABLES: Final = ("timeout", "max_children", "daemon_threads", "block_on_close")

#: What `concurrency` may be.
CHOICES: Final = ("threads", "fork", "none")


@dataclass(frozen=True)
class Said:
    """concurrency: one of CHOICES, or None for what suits. threads: how many at most, if said."""

    concurrency: str | None = None
    threads: int | None = None


def threads_of(target: Target, said: Said) -> int | None:
    """Return how many threads a worker shall have at most; None: what its server class says."""
    if said.concurrency == "none":
        return 0
    # A folder's files are sent by the loop, and threads would only slow that down. What another
    # handler waits for, nobody knows.
    return 0 if target.is_folder and said == Said() else said.threads


def served_by(target: Target, named: Maker | None, said: Said) -> Maker:
    """Return what makes the servers: with a mix-in over their class, if it lacks one.

    named: the program's own class or function, if there is one.
    Raises: UsageError for what contradicts itself, or the class.
    """
    _refuse_nonsense(said)
    maker = named or maker_for(target)
    choice = said.concurrency or _implied(target, named, said)
    if maker.cls is None:
        if said.concurrency is not None:
            raise UsageError(f"concurrency: {maker.name} makes the server, and decides that itself")
        return maker
    plain: Any = maker.cls
    here = next((name for name, mixin in _MIXINS.items() if issubclass(plain, mixin)), None)
    if target.kind is Kind.HTTP:
        _require_engine(here, choice)
    elif here is not None:
        _require_like(plain, here, choice, said)
    if here is not None or choice in (None, "none"):
        return maker
    if plain.process_request is not socketserver.BaseServer.process_request:
        raise UsageError(
            f'concurrency = "{choice}": {plain.__name__} has a process_request() of its own,'
            " which would not be called"
        )
    return replace(maker, cls=_mixed(_MIXINS[choice], plain))


def _refuse_nonsense(said: Said) -> None:
    choice, threads = said.concurrency, said.threads
    if choice == "threads" and threads == 0:
        raise UsageError('concurrency = "threads" and threads = 0 contradict each other')
    if choice in ("fork", "none") and threads:
        raise UsageError(f'concurrency = "{choice}" and threads = {threads} contradict each other')


def _implied(target: Target, named: Maker | None, said: Said) -> str | None:
    """Return what suits where nothing is said: a silent telnet must not have a whole worker."""
    if target.kind is Kind.HTTP:
        return None
    if said.threads is not None:
        return "threads" if said.threads else "none"
    if named is not None:
        return None
    return "threads" if target.kind is Kind.STREAM else "none"


def _require_engine(here: str | None, choice: str | None) -> None:
    """Raise UsageError for processes, which the engine has not; its threads are by `threads`."""
    if choice == "fork" and here != "fork":
        raise UsageError(
            'concurrency = "fork": HTTP is served by one loop in each worker; for a process that'
            " handles one request at a time, say threads = 0, and how many workers there shall be"
        )
    if choice == "threads" and here == "fork":
        raise UsageError('concurrency = "threads": the server class has ForkingMixIn in it')


def _require_like(plain: type[Any], here: str, choice: str | None, said: Said) -> None:
    """Raise UsageError for another choice than that of the mix-in which a class has already."""
    if choice not in (here, None):
        raise UsageError(
            f'concurrency = "{choice}": {plain.__name__} has {_MIXINS[here].__name__} in it,'
            f' which is "{here}"'
        )
    if said.threads and not hands_over(plain):
        raise UsageError(
            f"threads = {said.threads}: {plain.__name__} has a process_request() of its own,"
            " which does not heed this"
        )


def _mixed(mixin: type[Any], plain: type[Any]) -> type[Any]:
    """Return the class with the mix-in before it, whose variables do not hide the class's own."""
    own = {
        name: getattr(plain, name)
        for name in _VARIABLES
        if any(name in vars(cls) for cls in plain.__mro__ if cls is not socketserver.BaseServer)
    }
    about = {"__module__": plain.__module__, "__doc__": plain.__doc__}
    return type(plain.__name__, (mixin, plain), about | own)
