"""`[server.NAME]`: the keys of a pool, with type, range, unit and meaning.

Any process. Declarations only. Those that are class variables of the stdlib's
servers have their names.
"""

import re
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, field, structs

from prefork.config.kinds import (
    MOST,
    Address,
    Bytes,
    FileMode,
    FilePath,
    Name,
    Network,
    ObjectName,
    ObjectOrCall,
    QueueSize,
    Seconds,
    SomeBytes,
    SomeSeconds,
    Workers,
    about,
)
from prefork.http.limits import Limits

#: Names of pools: they stand in dotted keys, in logs and on the command line.
POOL_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CLASS: Final = "what the server class says"


class Scale(Struct, frozen=True, kw_only=True):
    """`workers = { min = 2, max = 16 }`."""

    min: Annotated[Workers, about("workers there always are", also=["minimum", "least"])]
    max: Annotated[Workers, about("workers while all others are busy", also=["maximum", "most"])]
    spare: Annotated[SomeSeconds, about("for which a worker was not needed, before it goes")] = 30.0


class LimitsConfig(Struct, frozen=True, kw_only=True):
    """`[server.NAME.limits]`: of HTTP clients; the fields of `prefork.http.limits.Limits`."""

    head_s: Annotated[
        SomeSeconds, about("for a whole head, then 408", also=["client_header_timeout"])
    ] = 20.0
    keep_alive_s: Annotated[
        SomeSeconds,
        about("between two requests of a client", also=["keepalive", "keepalive_timeout"]),
    ] = 75.0
    keep_alive_requests: Annotated[
        int, Meta(ge=1, le=MOST), about("of one connection", also=["keepalive_requests"])
    ] = 1000
    body_stall_s: Annotated[
        SomeSeconds, about("without a byte of the body, then 408", also=["client_body_timeout"])
    ] = 20.0
    write_stall_s: Annotated[
        SomeSeconds, about("without a byte taken by the client", also=["send_timeout"])
    ] = 30.0
    lingering_s: Annotated[
        SomeSeconds,
        about("after the last answer, for the client to close", also=["lingering_timeout"]),
    ] = 2.0
    line_bytes: Annotated[
        SomeBytes, about("of a request line, then 414", also=["limit_request_line"])
    ] = 8190
    field_bytes: Annotated[
        SomeBytes, about("of one field line, then 431", also=["limit_request_field_size"])
    ] = 8190
    fields: Annotated[
        int,
        Meta(ge=1, le=MOST),
        about("field lines of a head, then 431", also=["limit_request_fields"]),
    ] = 100
    head_bytes: Annotated[SomeBytes, about("of a whole head, then 431")] = 65536
    body_bytes: Annotated[
        Bytes | None, about("of a body, then 413", also=["client_max_body_size", "max_body_size"])
    ] = 1 << 30
    prefetch_bytes: Annotated[
        Bytes, about("a smaller body is complete before its handler is called")
    ] = 1 << 16
    drain_bytes: Annotated[
        Bytes, about("of an unread body that are dropped to keep the connection")
    ] = 1 << 16
    buffer_bytes: Annotated[
        SomeBytes, about("of an answer that wait in memory for a slow client")
    ] = 1 << 18
    connections: Annotated[
        int,
        Meta(ge=1, le=1 << 20),
        about("clients of one worker", also=["worker_connections", "max_connections"]),
    ] = 16384

    def for_engine(self) -> Limits:
        """Return them as the engine takes them."""
        return Limits(**structs.asdict(self))


class ListenerConfig(Struct, frozen=True, kw_only=True):
    """One element of `bind` in its table form."""

    address: Annotated[Address, about("where to listen", also=["listen", "host", "path"])]
    request_queue_size: Annotated[
        QueueSize | None,
        about("connections that may wait", unset="the pool's", also=["backlog"]),
    ] = None
    v6only: Annotated[
        bool | None,
        about("leave IPv4 to others", unset="only if another listener has the port on IPv4"),
    ] = None
    mode: Annotated[FileMode, about("permissions of a Unix socket", also=["umask"])] = 0o660
    owner: Annotated[
        Name | None, about("user whom a Unix socket belongs to", unset="the pool's", also=["user"])
    ] = None
    group: Annotated[
        Name | None, about("group whom a Unix socket belongs to", unset="the pool's")
    ] = None
    interface: Annotated[
        Name | None,
        about("network interface, by SO_BINDTODEVICE", unset="any", also=["device"]),
    ] = None
    freebind: Annotated[bool, about("bind an address that is not there yet")] = False
    proxies: Annotated[
        list[Network] | None, about("trusted to begin with PROXY", unset="the pool's")
    ] = None
    forwarders: Annotated[
        list[Network] | None, about("trusted with X-Forwarded-*", unset="the pool's")
    ] = None


class ServerConfig(Struct, frozen=True, kw_only=True):
    """`[server.NAME]`: a pool, its listeners and its workers."""

    bind: Annotated[
        list[Address | ListenerConfig],
        Meta(min_length=1),
        about(
            "where to listen; tables where an address needs more",
            also=["listen", "address", "host", "port"],
        ),
    ]
    handler: Annotated[
        ObjectOrCall | None,
        about(
            "the handler class, or a WSGI application; module:NAME(): what NAME makes",
            unset="what server_class brings",
            also=["handler_class", "app", "application", "module"],
        ),
    ] = None
    server_class: Annotated[
        ObjectOrCall | None,
        about(
            "the server class; module:NAME(): the server that NAME makes",
            unset="what fits the handler",
        ),
    ] = None
    workers: Annotated[
        Workers | Literal["auto"] | Scale,
        about('how many; "auto": one for each processor', also=["num_workers", "processes"]),
    ] = "auto"
    concurrency: Annotated[
        Literal["threads", "fork", "none"] | None,
        about(
            "of a worker's clients: ThreadingMixIn, ForkingMixIn, one at a time",
            unset="as threads says",
            also=["worker_class", "mixin"],
        ),
    ] = None
    threads: Annotated[
        Annotated[int, Meta(ge=0, le=4096)] | None,
        about(
            "that run HTTP handlers, or have a client each; 0: one at a time",
            unset="512; folder, UDP 0; WSGI 16",
        ),
    ] = None
    request_queue_size: Annotated[
        QueueSize, about("connections that may wait to be accepted", also=["backlog"])
    ] = 2048
    preload: Annotated[
        bool, about("import the handler before the fork, once", also=["preload_app"])
    ] = True
    max_requests: Annotated[
        int,
        Meta(ge=0, le=2**63 - 1),
        about('after which a worker is replaced; 0 is "off"', off=0, also=["maxrequests"]),
    ] = 0
    max_requests_jitter: Annotated[
        float,
        Meta(ge=0, le=1),
        about("share of max_requests by which workers differ, so that not all go at once"),
    ] = 0.1
    max_memory: Annotated[
        SomeBytes | None, about("of a worker, above which it is replaced", also=["memory_limit"])
    ] = None
    max_age: Annotated[
        SomeSeconds | None, about("of a worker, above which it is replaced", also=["lifetime"])
    ] = None
    boot_timeout: Annotated[SomeSeconds, about("for a worker to get ready")] = 60.0
    heartbeat_timeout: Annotated[
        SomeSeconds | None,
        about(
            "after which a handler that moves no byte is killed",
            also=["request_timeout", "harakiri", "worker_timeout"],
        ),
    ] = 30.0
    kill_timeout: Annotated[Seconds, about("for a killed worker's last words")] = 2.0
    retire_timeout: Annotated[
        Seconds, about("for a replaced worker to finish what is in its hands")
    ] = 3600.0
    linger_timeout: Annotated[
        Seconds, about("for idle clients of a worker that is about to go, or is full")
    ] = 2.0
    backoff: Annotated[Seconds, about("before a worker that failed to start is tried again")] = 1.0
    backoff_factor: Annotated[
        float, Meta(ge=1, le=100), about("by which backoff grows with each failure in a row")
    ] = 1.5
    backoff_max: Annotated[Seconds, about("the longest backoff")] = 30.0
    settle_time: Annotated[
        Seconds, about("after which a worker that is ready has its slot's failures forgiven")
    ] = 0.2
    user: Annotated[
        Name | None, about("name or number to run workers as", unset="the master's", also=["uid"])
    ] = None
    group: Annotated[
        Name | None, about("name or number of the group", unset="the user's", also=["gid"])
    ] = None
    chroot: Annotated[FilePath | None, about("folder that is the workers' root", unset="none")] = (
        None
    )
    umask: Annotated[FileMode | None, about("permissions new files lack", unset="the master's")] = (
        None
    )
    environment: Annotated[
        dict[str, str], about("variables of the workers, beside the master's", also=["env"])
    ] = field(default_factory=dict)
    path: Annotated[
        list[FilePath],
        about("folders to import from before all others", also=["pythonpath", "sys_path"]),
    ] = field(default_factory=list)
    on_worker_start: Annotated[
        ObjectName | None,
        about("called in each worker before it serves", unset="none", also=["post_fork"]),
    ] = None
    on_worker_stop: Annotated[
        ObjectName | None,
        about("called in each worker after its last request", unset="none", also=["worker_exit"]),
    ] = None
    access_log: Annotated[
        Literal["common", "combined", "json", "short", "off", "handler"],
        about(
            'who logs requests, and how; "handler": its log_message()',
            also=["accesslog"],
            path_key="access_log_path",
        ),
    ] = "common"
    access_log_path: Annotated[FilePath | None, about("file of the access log", unset="stderr")] = (
        None
    )
    proxies: Annotated[
        list[Network],
        about("trusted to begin each connection with PROXY", also=["proxy_protocol"]),
    ] = field(default_factory=list)
    forwarders: Annotated[
        list[Network],
        about(
            'trusted with Forwarded and X-Forwarded-*; "unix": Unix sockets',
            also=["forwarded_allow_ips", "trusted_proxies"],
        ),
    ] = field(default_factory=list)
    reuse_port: Annotated[
        bool, about("a queue of its own for each worker, by SO_REUSEPORT", also=["reuseport"])
    ] = False
    timeout: Annotated[
        SomeSeconds | None,
        about(
            "of silence of a TCP client; of a server_class: then handle_timeout()",
            unset="none, or what the class says",
        ),
    ] = None
    address_family: Annotated[
        Literal["AF_INET", "AF_INET6", "AF_UNIX"] | None,
        about("the server class's", unset="what the address is of"),
    ] = None
    socket_type: Annotated[
        Literal["SOCK_STREAM", "SOCK_DGRAM"] | None,
        about("the server class's", unset=_CLASS),
    ] = None
    allow_reuse_address: Annotated[
        bool | None, about("the server class's: SO_REUSEADDR", unset=_CLASS)
    ] = None
    max_packet_size: Annotated[
        Annotated[int, Meta(ge=1, le=65535, extra={"form": "size"})] | None,
        about("of a datagram", unset=_CLASS),
    ] = None
    max_children: Annotated[
        Annotated[int, Meta(ge=1, le=MOST)] | None, about("of ForkingMixIn", unset=_CLASS)
    ] = None
    daemon_threads: Annotated[
        bool | None, about("of ThreadingMixIn: do not wait for them at the end", unset=_CLASS)
    ] = None
    block_on_close: Annotated[
        bool | None, about("of both mix-ins: wait for them at the end", unset=_CLASS)
    ] = None
    limits: Annotated[LimitsConfig, about("of HTTP clients")] = LimitsConfig()
    handler_options: Annotated[
        dict[str, Any], about("the handler class's variables", also=["options"])
    ] = field(default_factory=dict)
