"""Which systemd units a config needs, and what each must say.

The calling process. It looks at where this Python is installed, and reads
nothing else; `install` writes.
"""

import re
import socket
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import Final

import prefork
from prefork.config import Address, Config, ListenerConfig, Place, ServerConfig, parse_address
from prefork.errors import StartError
from prefork.service.unittext import (
    SYSUSERS,
    TMPFILES,
    USER,
    Service,
    Socket,
    command_word,
    unit_name,
    word,
)

#: Where an administrator's units are, and what makes users and folders.
UNITS: Final = Path("/etc/systemd/system")
SYSUSERS_FILE: Final = Path("/etc/sysusers.d/prefork.conf")
TMPFILES_FILE: Final = Path("/etc/tmpfiles.d/prefork.conf")

_ROOT: Final = ("0", "root")
_HIDDEN: Final = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 # Protect..., PrivateTmp
_OWN: Final = (
    "/run/prefork",
    "/var/log/prefork",
    "/var/cache/prefork",
)  # the default user's, by tmpfiles and systemd
_EVERYWHERE: Final = ("*", "0.0.0.0", "::")
_STOP_EXTRA_S: Final = 10  # after graceful_timeout, to kill what is left and say so
_START_S: Final = 90  # DefaultTimeoutStartSec
_RESERVED_PORTS: Final = 1024  # net.ipv4.ip_unprivileged_port_start


def plan_units(config: Config) -> dict[Path, str]:
    """Return the files that make the config a service, the service's own first.

    Raises: StartError where a setting cannot be had under systemd.
    """
    if config.master.daemonize:
        raise StartError(
            f"{config.path}: daemonize: systemd itself runs services in the background; remove it"
        )
    name = service_name(config)
    sockets = _sockets(config, name)
    files = {UNITS / name: _service(config, name, sockets).text()}
    files |= {UNITS / one.name: one.text() for one in sockets}
    if config.master.user is None and not _needs_root(config):
        files |= {SYSUSERS_FILE: SYSUSERS, TMPFILES_FILE: TMPFILES}
    return files


def service_name(config: Config) -> str:
    """Return the name of a config's service: prefork-STEM.service."""
    stem = config.path.stem
    return "prefork.service" if stem == "prefork" else f"prefork-{unit_name(stem)}.service"


def _origin(config: Config) -> str:
    return f"Made by `prefork install-service` for {word(str(config.path))}; made anew by it, too."


def _service(config: Config, name: str, sockets: Sequence[Socket]) -> Service:
    user = None if _needs_root(config) else config.master.user or USER
    is_default = user == USER
    writable = sorted({str(path) for path in _written(config)})
    if is_default:
        writable = [path for path in writable if not _is_beneath(path, _OWN)]
    bound = [path for path in writable if _is_beneath(path, _HIDDEN)]
    shared_tmp = [path for path in bound if path in _HIDDEN]
    kept = [word(path) for path in writable if path not in bound]
    return Service(
        name=name,
        origin=_origin(config),
        command=_command(),
        config=command_word(str(config.path)),
        runtime=word(f"prefork/{config.path.stem}"),
        user=user,
        group=config.master.group,
        needs_network=any(_needs_network(one) for one in _listeners(config)),
        sockets=tuple(one.name for one in sockets),
        capabilities=tuple(_capabilities(config)),
        calls=tuple(_calls(config)),
        readable=tuple(map(word, _topmost(p for p in _read(config) if _is_beneath(p, _HIDDEN)))),
        bound=tuple(word(path) for path in _topmost(bound) if path not in shared_tmp),
        writable=("-/run/prefork", *kept) if is_default else tuple(kept),
        shares_tmp=bool(shared_tmp),
        start_s=_start_s(config),
        stop_s=_stop_s(config),
        settings=tuple(_limits(config)),
    )


def _command() -> str:
    """Return the words that run this installation, whatever the PATH."""
    command = Path(sysconfig.get_path("scripts")) / "prefork"
    if command.exists():
        return command_word(str(command))
    return f"{command_word(sys.executable)} -m prefork"


def _needs_root(config: Config) -> bool:
    """Tell whether the master must be root: to become others, or to change its root."""
    return config.master.user in _ROOT or any(
        pool.user or pool.group or pool.chroot for pool in config.servers.values()
    )


def _start_s(config: Config) -> int | None:
    boot_s = max(pool.boot_timeout for pool in config.servers.values()) + _STOP_EXTRA_S
    return ceil(boot_s) if boot_s > _START_S else None


def _stop_s(config: Config) -> int:
    kill_s = max(pool.kill_timeout for pool in config.servers.values())
    return ceil(config.master.graceful_timeout + kill_s) + _STOP_EXTRA_S


def _limits(config: Config) -> Iterator[str]:
    """Yield the hard limits that the master may need, for it cannot raise its own."""
    for name, limit in config.master.rlimits.items():
        if config.origins.get(f"master.rlimits.{name}") != "default":
            yield f"Limit{name.upper()}={'infinity' if limit == 'unlimited' else limit}"


def _capabilities(config: Config) -> Iterator[str]:
    listeners = _listeners(config)
    addresses = [parse_address(one.address) for one in listeners]
    if any(a.place is Place.HOST and 0 < a.number < _RESERVED_PORTS for a in addresses):
        yield "CAP_NET_BIND_SERVICE"
    needs_root = _needs_root(config)
    if needs_root or any(one.owner for one in listeners):
        yield "CAP_CHOWN"
    if needs_root:
        # To become the workers' users; to end them then; to read what belongs to them.
        yield from ("CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_DAC_OVERRIDE", "CAP_FOWNER")
    if any(pool.chroot for pool in config.servers.values()):
        yield "CAP_SYS_CHROOT"


def _calls(config: Config) -> Iterator[str]:
    """Yield system calls of @privileged that are needed all the same."""
    if any(_capabilities(config)):
        yield "capset"  # to give them up
    if _needs_root(config):
        yield "@setuid"
    if any(pool.chroot for pool in config.servers.values()):
        yield "chroot"
    if _needs_root(config) or any(one.owner or one.group for one in _listeners(config)):
        yield "@chown"


def _listeners(config: Config) -> list[ListenerConfig]:
    return [
        ListenerConfig(address=one) if isinstance(one, str) else one
        for pool in config.servers.values()
        for one in pool.bind
    ]


def _needs_network(listener: ListenerConfig) -> bool:
    """Tell whether an interface must have its address before it can be bound."""
    address = parse_address(listener.address)
    return (
        address.place is Place.HOST
        and not listener.freebind
        and address.name not in (*_EVERYWHERE, "localhost", "::1")
        and not address.name.startswith("127.")
    )


def _sockets(config: Config, service: str) -> list[Socket]:
    """Return the sockets that systemd must open: one for each name, however many pools have it."""
    found: dict[str, Socket] = {}
    for pool in config.servers.values():
        for one in pool.bind:
            listener = ListenerConfig(address=one) if isinstance(one, str) else one
            address = parse_address(listener.address)
            if address.place is Place.SYSTEMD and address.name not in found:
                found[address.name] = _socket(config, service, pool, listener, address)
    return list(found.values())


def _socket(
    config: Config, service: str, pool: ServerConfig, listener: ListenerConfig, address: Address
) -> Socket:
    stem = service.removesuffix(".service")
    return Socket(
        name=f"{stem}-{unit_name(address.name)}.socket",
        origin=_origin(config),
        service=service,
        fd_name=address.name,
        addresses=_places(stem, address.name),
        backlog=listener.request_queue_size or pool.request_queue_size,
        is_datagram=pool.socket_type == "SOCK_DGRAM" or "UDP" in (pool.server_class or ""),
        user=config.master.user or (None if _needs_root(config) else USER),
    )


def _places(stem: str, name: str) -> tuple[str, ...]:
    """Return where a socket of that name listens, which no config says.

    The port of services(5) if it is a service's name, as "http" is, or the port
    if it is a number; else a Unix socket, which can be in nobody's way.
    """
    try:
        port = int(name) if name.isdecimal() else socket.getservbyname(name)
    except OSError:
        return ("/run/" + re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{stem}-{name}") + ".sock",)
    return f"0.0.0.0:{port}", f"[::]:{port}"


def _read(config: Config) -> Iterator[str]:
    """Yield the folders that the service must see, wherever they are."""
    # The folder, not the file: editors put a new file in its place.
    folder = config.path.parent
    yield str(folder)
    yield from (sys.prefix, sys.base_prefix, str(Path(prefork.__file__).parent.parent))
    if config.master.working_directory:
        yield config.master.working_directory
    for pool in config.servers.values():
        yield from pool.path
        if pool.chroot:
            yield pool.chroot
        directory = pool.handler_options.get("directory")
        if isinstance(directory, str):
            yield str(folder / directory)


def _written(config: Config) -> Iterator[Path]:
    """Yield the folders in which the service makes files and sockets."""
    master = config.master
    files = [master.pidfile, master.control, master.log.target]
    files += [pool.access_log_path for pool in config.servers.values()]
    yield from (Path(file).parent for file in files if file and "/" in file)
    options = [pool.handler_options for pool in config.servers.values()]
    yield from (Path(cache) for o in options if isinstance(cache := o.get("cache_directory"), str))
    for listener in _listeners(config):
        address = parse_address(listener.address)
        if address.is_path:
            yield Path(address.name).parent


def _is_beneath(path: str, roots: Sequence[str]) -> bool:
    return any(Path(path).is_relative_to(root) for root in roots)


def _topmost(paths: Iterable[str]) -> list[str]:
    """Return the paths without those beneath another, in order."""
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not _is_beneath(path, kept):
            kept.append(path)
    return kept
