"""Opens the listening sockets that the command line asks for, all or none.

The master, before serving.
"""

import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from prefork import log
from prefork.errors import StartError
from prefork.mixin import PreforkMixIn
from prefork.servers import Serving, open_server
from prefork.sockets import Endpoint, everywhere, keep_apart, resolve
from prefork.target import Kind, Target

_SOMAXCONN: Final = Path("/proc/sys/net/core/somaxconn")


@contextmanager
def open_listeners(
    target: Target, binds: Sequence[str], port: int, serving: Serving
) -> Iterator[list[PreforkMixIn]]:
    """Yield a server for each endpoint; close all at the end.

    binds: as typed, none for all interfaces. port: 0 for any free one, the
    same for all endpoints.
    Raises: UsageError, StartError.
    """
    _warn_of_limit(serving.request_queue_size)
    endpoints = _endpoints(binds, port, target.kind)
    missing: StartError | None = None
    with ExitStack() as stack:
        servers: list[PreforkMixIn] = []
        given = 0
        for endpoint in endpoints:
            here = _with_port(endpoint, given)
            try:
                server = open_server(target.kind, here, target.handler, serving)
            except OSError as error:
                failure = StartError(f"cannot listen on {here}: {_reason(error, here)}")
                # A name like localhost may have an address of a family that is switched off.
                if error.errno != errno.EADDRNOTAVAIL or len(endpoints) == 1:
                    raise failure from None
                log.warning("socket.skipped", at=here, reason=error.strerror)
                missing = failure
            else:
                servers.append(stack.enter_context(server))
                if endpoint.family != socket.AF_UNIX:
                    given = server.socket.getsockname()[1]
        if missing is not None and not servers:
            raise missing
        yield servers


def _endpoints(binds: Sequence[str], port: int, kind: Kind) -> list[Endpoint]:
    if not binds:
        return everywhere(port)
    sort = socket.SOCK_DGRAM if kind is Kind.DATAGRAM else socket.SOCK_STREAM
    return keep_apart([endpoint for bind in binds for endpoint in resolve(bind, port, sort)])


def _with_port(endpoint: Endpoint, given: int) -> Endpoint:
    """Return the endpoint with the port that another was given, if it asks for any."""
    if endpoint.family == socket.AF_UNIX or endpoint.address[1] != 0:
        return endpoint
    host, _, *rest = endpoint.address
    return endpoint._replace(address=(host, given, *rest))


def _reason(error: OSError, endpoint: Endpoint) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use; stop the program that has it, or choose another PORT"
    if error.errno == errno.EACCES and endpoint.family != socket.AF_UNIX:
        return "permission denied; ports below 1024 need privileges, choose one from 1024 on"
    if error.errno == errno.EINVAL and endpoint.family == socket.AF_INET6:
        return "a link-local address needs its interface, as in fe80::1%eth0"
    if error.errno == errno.ENOENT:
        return "there is no such directory to put the socket in"
    if error.errno == errno.EADDRNOTAVAIL:
        return "no interface of this machine has that address"
    return error.strerror or str(error)


def _warn_of_limit(request_queue_size: int) -> None:
    try:
        limit = int(_SOMAXCONN.read_text())
    except (OSError, ValueError):
        return  # no /proc here: nothing to compare with
    if request_queue_size > limit:
        log.warning(
            "socket.queue_limited",
            request_queue_size=request_queue_size,
            limit=limit,
            remedy="sysctl net.core.somaxconn",
        )
