"""What a pool's config names, imported: its handler, server class and hooks.

The master, `prefork check`, a rehearsal; without `preload` each worker. It
makes no server, and opens nothing.
"""

import functools
import socket
import socketserver
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from prefork.concurrency import Said, served_by, threads_of
from prefork.config import Config, ListenerConfig, ServerConfig
from prefork.errors import PreforkError, StartError, UsageError
from prefork.foreign import Maker, find_maker
from prefork.http.server import HTTPServer
from prefork.options import with_options
from prefork.plan import Code
from prefork.servers import ENGINE
from prefork.target import Kind, Target, find_object, find_target, served_as

#: Which classes know a key of the config, where others would not heed it.
_KNOWN_BY: Final = MappingProxyType(
    {
        **dict.fromkeys(
            sorted(ENGINE - {"access_log_fd", "threads"} | {"access_log_path"}), (HTTPServer,)
        ),
        "max_children": (socketserver.ForkingMixIn,),
        "daemon_threads": (socketserver.ThreadingMixIn,),
        "block_on_close": (socketserver.ThreadingMixIn, socketserver.ForkingMixIn),
        "max_packet_size": (socketserver.UDPServer,),
    }
)


def loader(config: Config, key: str, pool: ServerConfig) -> Callable[[], Code]:
    """Return what imports the code of a pool, once. key: the pool's, as in "server.main".

    It raises PreforkError.
    """

    @functools.cache
    def load() -> Code:
        with _named(f"{key}.server_class"):
            maker = None if pool.server_class is None else find_maker(pool.server_class)
        target = _target(config, key, pool, maker)
        cls = None if maker is None else maker.cls
        target = of_kind(target, cls, pool.socket_type)
        if maker is not None:
            with _named(f"{key}.server_class"):
                maker.require(target.handler)
            if maker.cls is not None:
                maker.require_applications(target, maker.cls)
        said = Said(pool.concurrency, pool.threads)
        maker = served_by(target, maker, said)
        threads = threads_of(target, said)
        _refuse_unheeded(key, pool, target, maker)
        return Code(
            target,
            maker,
            {} if threads is None else {"threads": threads},
            _hook(pool.on_worker_start),
            _hook(pool.on_worker_stop),
        )

    return load


def _target(config: Config, key: str, pool: ServerConfig, maker: Maker | None) -> Target:
    if pool.handler is not None:
        target = find_target(pool.handler)
    else:
        assert maker is not None  # noqa: S101 # a config has one of both
        target = maker.target()
    if not pool.handler_options:
        return target
    where = f"{config.path.name}: {key}.handler_options"
    if target.handler is None:
        raise UsageError(f"{where}: whose? name the handler of {target.name}")
    root = pool.chroot or "/"
    return replace(
        target, handler=with_options(target.handler, pool.handler_options, where, root=root)
    )


def _refuse_unheeded(key: str, pool: ServerConfig, target: Target, maker: Maker) -> None:
    """Raise UsageError for a key that says something this server class does not know."""
    if pool.timeout is not None and pool.server_class is None:
        _refuse_timeout(key, target)
    cls = maker.cls
    if cls is None:
        return  # what a function makes is not known yet
    plain = ServerConfig(bind=[])
    special = [bind for bind in pool.bind if isinstance(bind, ListenerConfig)]
    for name, knowing in _KNOWN_BY.items():
        here = getattr(pool, name) != getattr(plain, name)
        here = here or any(getattr(bind, name, None) for bind in special)
        on_engine = knowing == (HTTPServer,) and target.kind is Kind.HTTP
        if here and not on_engine and not issubclass(cls, knowing):
            what = pool.server_class or f"what serves {pool.handler}"
            names = " or ".join(known.__name__ for known in knowing)
            raise UsageError(
                f"{key}.{name}: {what} is not derived from {names}, which alone knows this"
            )


def _refuse_timeout(key: str, target: Target) -> None:
    """Raise UsageError where the stdlib's handle_timeout(), which does nothing, is all there is."""
    if target.kind is Kind.HTTP:
        raise UsageError(f"{key}.timeout: the times of HTTP clients are in {key}.limits")
    if target.kind is Kind.DATAGRAM:
        raise UsageError(f"{key}.timeout: nobody waits for the clients of {target.name}")


@contextmanager
def _named(key: str) -> Iterator[None]:
    """Say of which key a problem is, where it is not that of the handler."""
    try:
        yield
    except PreforkError as error:
        raise type(error)(f"{key}: {error}") from error


def of_kind(target: Target, server_class: type[Any] | None, said: str | None) -> Target:
    """Return what is served: as the config says, else the server class, else the handler.

    Raises: UsageError for what contradicts itself.
    """
    its = getattr(server_class, "socket_type", None)
    if said is None and its is None:
        return target
    wanted = its if said is None else socket.SocketKind[said]
    is_plain = server_class is None or _gets_plainly(server_class)
    if server_class is not None and its not in (None, wanted) and is_plain:
        raise UsageError(f"socket_type = {said}: {server_class.__name__} wants a {its.name}")
    kind = Kind.DATAGRAM if wanted == socket.SOCK_DGRAM else Kind.STREAM
    if kind is Kind.STREAM and target.kind is Kind.HTTP:
        return target
    # What a get_request() of the program's own hands on, only that knows.
    return served_as(target, kind) if is_plain else replace(target, kind=kind)


def _gets_plainly(server_class: type[Any]) -> bool:
    """Tell whether handlers get the stdlib's requests: a socket, or a datagram with one."""
    return getattr(server_class, "get_request", None) in (
        socketserver.TCPServer.get_request,
        socketserver.UDPServer.get_request,
    )


def _hook(name: str | None) -> Callable[..., object] | None:
    if name is None:
        return None
    hook = find_object(name, object)
    if not callable(hook):
        raise StartError(f"{name} cannot be called, for it is a {type(hook).__name__}")
    found: Callable[..., object] = hook
    return found
