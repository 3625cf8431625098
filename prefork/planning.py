"""Makes plans of a config: imports what it names, resolves its addresses, finds its users.

The master, `prefork check`, a rehearsal. It opens nothing. All that is wrong is
said at once, as the config's own errors are.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from prefork.charter import Charter
from prefork.config import (
    Address,
    Config,
    ConfigError,
    ListenerConfig,
    Scale,
    ServerConfig,
    parse_address,
)
from prefork.config import Place as Scheme
from prefork.cpus import available_cpus
from prefork.errors import PreforkError, StartError
from prefork.life import Life
from prefork.listeners import Where
from prefork.loading import loader
from prefork.logs.events import Wanted
from prefork.outfit import Outfit
from prefork.plan import Place, Plan, claimed_twice, kind_of
from prefork.policy import Policy
from prefork.pool import Settings
from prefork.privileges import Identity, find_group, find_user, resolve
from prefork.sockets import UNIX_PREFIX, Endpoint, everywhere, keep_apart, warn_of_limit
from prefork.sockets import resolve as resolve_address
from prefork.target import Kind

_POLL_S: Final = 0.5


class Planner:
    """Everything of one config."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._problems: list[str] = []
        self.charter = self._charter()

    def plans(self) -> list[Plan]:
        """Import what the config names; return the pools to be.

        Raises: ConfigError with all that is wrong.
        """
        found = [self._plan(name, pool) for name, pool in self._config.servers.items()]
        plans = [plan for plan in found if plan is not None]
        for name, other, where in claimed_twice(plans):
            with self._at(f"server.{name}.bind"):
                raise StartError(f"{where} is that of server.{other}, too")
        if self._problems:
            raise ConfigError(self._problems)
        return plans

    @contextmanager
    def _at(self, key: str) -> Iterator[None]:
        """Add what goes wrong to the problems, as that of a key."""
        try:
            yield
        except (PreforkError, OSError) as error:
            origin = self._config.origins.get(key, "default")
            file = self._config.path.name if origin == "default" else origin
            for line in str(error).splitlines():
                self._problems.append(self._placed(file, key, line))

    def _placed(self, file: str, key: str, line: str) -> str:
        """Return a problem with its file and key; one of another key of the pool says which."""
        if key in line:
            return line
        other, _, _ = line.partition(": ")
        if other.startswith(key.rpartition(".")[0] + "."):
            origin = self._config.origins.get(other, "default")
            return f"{file if origin == 'default' else origin}: {line}"
        return f"{file}: {key}: {line}"

    # -- the master --------------------------------------------------------------

    def _charter(self) -> Charter:
        master = self._config.master
        said = {key for key, origin in self._config.origins.items() if origin != "default"}
        identity = control_group = None
        with self._at("master.user"):
            identity = resolve(master.user, master.group)
        with self._at("master.control_group"):
            if master.control_group is not None:
                control_group = find_group(master.control_group)
        says = master.log
        return Charter(
            config_path=self._config.path,
            identity=identity,
            umask=master.umask,
            working_directory=master.working_directory,
            pidfile=master.pidfile,
            daemonize=master.daemonize,
            control=master.control,
            control_mode=master.control_mode,
            control_group=control_group,
            rlimits={
                n: limit for n, limit in master.rlimits.items() if f"master.rlimits.{n}" in said
            },
            no_new_privs=master.no_new_privs,
            stop_s=master.graceful_timeout,
            logging=Wanted(
                target=says.target,
                format=says.format,
                level=says.level,
                mode=says.mode,
                owner=identity,
                repeat_window_s=says.repeat_window,
                repeat_burst=says.repeat_burst,
            ),
        )

    # -- a pool ------------------------------------------------------------------

    def _plan(self, name: str, pool: ServerConfig) -> Plan | None:
        key = f"server.{name}"
        before = len(self._problems)
        warn_of_limit(pool.request_queue_size)
        outfit = Outfit()
        with self._at(f"{key}.user"):
            outfit = Outfit(
                identity=self._identity(pool),
                chroot=pool.chroot,
                umask=pool.umask,
                rlimits=self.charter.rlimits,
                no_new_privs=self._config.master.no_new_privs,
                environment=pool.environment,
                path=pool.path,
            )
        plan = Plan(
            name=name,
            what=pool.handler or pool.server_class or "",
            places=(),
            load=loader(self._config, key, pool),
            settings=self._settings(name, pool),
            variables=_variables(pool),
            outfit=outfit,
            preload=pool.preload,
            reuse_port=pool.reuse_port,
            least=pool.workers.min if isinstance(pool.workers, Scale) else None,
            most=pool.workers.max if isinstance(pool.workers, Scale) else None,
            spare_s=pool.workers.spare if isinstance(pool.workers, Scale) else 0.0,
            max_memory_bytes=pool.max_memory,
            max_age_s=pool.max_age,
            access_log_path=pool.access_log_path,
        )
        kind = None
        with self._at(f"{key}.handler"):
            kind = kind_of(plan)
        places: list[Place] = []
        sort = socket.SOCK_DGRAM if kind is Kind.DATAGRAM else socket.SOCK_STREAM
        for bind in pool.bind:
            with self._at(f"{key}.bind"):
                places += self._places(pool, bind, sort)
        if kind is None or len(self._problems) > before:
            return None
        return _with_places(plan, places)

    def _identity(self, pool: ServerConfig) -> Identity | None:
        """Return whom its workers become; None: they stay what the master is.

        Raises: StartError also for what a master that is not root any more cannot give them.
        """
        master, its = self._config.master, self.charter.identity
        user = master.user if pool.user is None and pool.group is not None else pool.user
        identity = resolve(user, pool.group)
        if its is None or its.uid == 0:
            return identity
        if identity is not None and (identity.uid, identity.gid) != (its.uid, its.gid):
            raise StartError(
                f"the master becomes {its.user} (master.user), and then no worker can become"
                " another user or group; leave master.user out"
            )
        if pool.chroot is not None:
            raise StartError(
                f"the master becomes {its.user} (master.user), and then no worker can have a"
                " chroot; leave master.user out, and name a user for the pool"
            )
        return identity

    def _settings(self, name: str, pool: ServerConfig) -> Settings:
        workers = pool.workers
        if isinstance(workers, Scale):
            workers = workers.min
        return Settings(
            name=name,
            workers=available_cpus() if workers == "auto" else int(workers),
            policy=Policy(
                boot_s=pool.boot_timeout,
                graceful_s=self._config.master.graceful_timeout,
                retire_s=pool.retire_timeout,
                kill_s=pool.kill_timeout,
                settle_s=pool.settle_time,
                backoff_s=pool.backoff,
                backoff_factor=pool.backoff_factor,
                backoff_cap_s=pool.backoff_max,
            ),
            heartbeat_timeout_s=pool.heartbeat_timeout,
            life=Life(
                what=name,
                poll_s=_POLL_S,
                linger_s=pool.linger_timeout,
                max_requests=pool.max_requests,
                jitter=pool.max_requests_jitter,
            ),
        )

    def _places(
        self, pool: ServerConfig, bind: str | ListenerConfig, sort: socket.SocketKind
    ) -> list[Place]:
        special = ListenerConfig(address=bind) if isinstance(bind, str) else bind
        variables: dict[str, Any] = {}
        if special.proxies is not None:
            variables["proxies"] = special.proxies
        if special.forwarders is not None:
            variables["forwarders"] = special.forwarders
        if special.request_queue_size is not None:
            variables["request_queue_size"] = special.request_queue_size
        user, group = pool.user, pool.group
        if user is None and os.geteuid() == 0:  # else it is the master's by itself
            user = self._config.master.user
            group = self._config.master.group if group is None else group
        owner = user if special.owner is None else special.owner
        group = group if special.group is None else special.group
        address = parse_address(special.address)
        where = Where(
            None,
            sort,
            special.request_queue_size or pool.request_queue_size,
            inherited=str(address),
            reuse_address=pool.allow_reuse_address is not False,
            reuse_port=pool.reuse_port,
            mode=special.mode,
            owner=-1 if owner is None else find_user(owner),
            group=_gid_of(owner, group),
            interface=special.interface or "",
            freebind=special.freebind,
        )
        if address.place in (Scheme.SYSTEMD, Scheme.FD):
            return [Place(where, variables)]
        endpoints = _of_family(_endpoints(address, sort), pool.address_family)
        if special.v6only is not None:
            endpoints = [
                e if e.v6only is None else e._replace(v6only=special.v6only) for e in endpoints
            ]
        many = len(endpoints) > 1
        return [
            Place(replace(where, endpoint=e, inherited="", optional=many), variables)
            for e in endpoints
        ]


def _gid_of(owner: str | None, group: str | None) -> int:
    if group is not None:
        return find_group(group)
    identity = resolve(owner)
    return -1 if identity is None else identity.gid


def _endpoints(address: Address, sort: socket.SocketKind) -> list[Endpoint]:
    if address.place is Scheme.UNIX:
        return resolve_address(UNIX_PREFIX + address.name, 0, sort)
    if address.name == "*":
        return everywhere(address.number)
    return resolve_address(address.name, address.number, sort)


def _of_family(endpoints: list[Endpoint], name: str | None) -> list[Endpoint]:
    """Return those of an address family, such as "AF_INET6"; all where none is named."""
    found = [e for e in endpoints if name is None or e.family == socket.AddressFamily[name]]
    if not found:
        raise StartError(f"{endpoints[0]} is not of address_family {name}")
    return found


def _with_places(plan: Plan, places: list[Place]) -> Plan:
    """Return the plan with its places; IPv6 is kept apart where IPv4 has the port too."""
    endpoints = [p.where.endpoint for p in places if p.where.endpoint is not None]
    apart = {}
    for endpoint in keep_apart(endpoints):
        apart[endpoint.family, endpoint.address] = endpoint
    done: dict[str, Place] = {}
    for place in places:
        where, wanted = place.where, place.where.endpoint
        if wanted is not None and wanted.v6only is not None:
            where = replace(where, endpoint=apart[wanted.family, wanted.address])
        done.setdefault(where.key, Place(where, place.variables))
    return replace(plan, places=tuple(done.values()))


def _variables(pool: ServerConfig) -> dict[str, Any]:
    """Return the variables of the server class: what was said, and the engine's."""
    said = {
        "request_queue_size": pool.request_queue_size,
        "allow_reuse_address": pool.allow_reuse_address,
        "timeout": pool.timeout,
        "max_packet_size": pool.max_packet_size,
        "max_children": pool.max_children,
        "daemon_threads": pool.daemon_threads,
        "block_on_close": pool.block_on_close,
        "threads": pool.threads,
        "proxies": tuple(pool.proxies) or None,
        "forwarders": tuple(pool.forwarders) or None,
    }
    return {
        **{name: value for name, value in said.items() if value is not None},
        "access_log": None if pool.access_log == "handler" else pool.access_log,
        "limits": pool.limits.for_engine(),
    }
