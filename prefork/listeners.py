"""Opens listening sockets, all or none, and closes them with what they leave behind.

The master, before and after serving; a rehearsal. It accepts nothing. Servers
find their socket bound and listening (`servers`): in this way one that systemd
or the image before has left is served as one of our own.
"""

import errno
import os
import socket
import stat
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from prefork import log
from prefork.errors import StartError
from prefork.sockets import Endpoint, clear_stale, endpoint_of

_KINDS: Final = {socket.SOCK_STREAM: "tcp", socket.SOCK_DGRAM: "udp"}


@dataclass(frozen=True, slots=True)
class Where:
    """Where to listen, and how.

    endpoint: None if the socket is inherited. inherited: "systemd:NAME" or
    "fd:N". optional: one of several addresses of a name, which this machine may
    lack. mode, owner, group: of a Unix socket's file; -1: as it comes.
    interface: a name, "" for any. queue: which one of several at one address
    (reuse_port). port: what to take where the endpoint says 0, if that is decided.
    """

    endpoint: Endpoint | None
    kind: socket.SocketKind
    request_queue_size: int
    inherited: str = ""
    optional: bool = False
    reuse_address: bool = True
    reuse_port: bool = False
    mode: int = 0o660
    owner: int = -1
    group: int = -1
    interface: str = ""
    freebind: bool = False
    queue: int = 0
    port: int = 0

    def __str__(self) -> str:
        return self.inherited or str(self.endpoint)

    @property
    def key(self) -> str:
        """What tells it from all others, also in the next image of this process."""
        if self.endpoint is None:
            return self.inherited
        words = ["unix" if self.endpoint.family == socket.AF_UNIX else "ip", _KINDS[self.kind]]
        if self.endpoint.v6only is not None:
            words.append("v6only" if self.endpoint.v6only else "dual")
        words += [self.interface] * bool(self.interface) + [str(self.endpoint)]
        return " ".join([*words, *([f"#{self.queue}"] * bool(self.queue))])

    def of_queue(self, number: int) -> Self:
        """Return the same place for another queue, if the kernel can have several there."""
        apart = self.endpoint is not None and self.endpoint.family != socket.AF_UNIX
        return replace(self, queue=number) if apart and self.reuse_port else self


@dataclass(slots=True)
class Listener:
    """An open listening socket.

    inode: of its file, if there is one that is ours. is_new: opened by this
    image. is_lent: somebody else's, who has it served again after us.
    """

    key: str
    sock: socket.socket
    inode: tuple[int, int] | None = None
    is_new: bool = True
    is_lent: bool = False

    @property
    def is_shut_for_good(self) -> bool:
        """Tell whether its door, once shut, stays so: the kernel opens no Unix stream's again."""
        is_stream = self.sock.type == socket.SOCK_STREAM
        return self.sock.family == socket.AF_UNIX and is_stream and not self.is_lent

    def __str__(self) -> str:
        return str(endpoint_of(self.sock))

    def end(self) -> None:
        """Close it for all processes: one that has a copy must not keep clients waiting."""
        if self.sock.type == socket.SOCK_STREAM and not self.is_lent:
            with suppress(OSError):  # it is shut already
                self.sock.shutdown(socket.SHUT_RDWR)
        self.close()

    def close(self) -> None:
        """Close it, and remove its file."""
        path = self.sock.getsockname() if self.inode else ""
        self.sock.close()
        if self.inode is not None:
            with suppress(OSError):  # gone already: that is what is wanted
                entry = Path(os.fsdecode(path)).lstat()
                if (entry.st_dev, entry.st_ino) == self.inode:
                    Path(os.fsdecode(path)).unlink()


@dataclass(slots=True)
class Stock:
    """Sockets that are open already.

    ours: what the image before has left. named: systemd's, by their names;
    those of the service manager's store among them.
    """

    ours: list[Listener] = field(default_factory=list)
    named: list[tuple[str, socket.socket]] = field(default_factory=list)

    def take(self, where: Where) -> Listener | None:
        """Return a socket that listens there, which nobody else will get then."""
        for listener in self.ours:
            if listener.key == where.key:
                self.ours.remove(listener)
                return listener
        if where.inherited.startswith("fd:"):
            return _by_number(where)
        for name, sock in self.named:
            wanted = where.inherited == f"systemd:{name}"
            if wanted or _listens_at(sock, where):
                self.named.remove((name, sock))
                inode = None if wanted else _inode_of(where)
                return Listener(where.key, sock, inode, is_new=False, is_lent=wanted)
        return None

    def port_of(self, where: Where) -> int:
        """Return the port that other queues at this place have; 0 if there are none."""
        place = where.of_queue(0).key
        for listener in self.ours:
            if listener.key.partition(" #")[0] == place and listener.sock.family != socket.AF_UNIX:
                return int(listener.sock.getsockname()[1])
        return 0


def _nothing(_listener: Listener) -> None:
    """Stand in for who wants to know."""


class Listeners:
    """All that this process has open. on_drop: called with each that is closed before the end."""

    on_drop: Callable[[Listener], None] = staticmethod(_nothing)

    def __init__(self, stock: Stock | None = None) -> None:
        self.stock = stock or Stock()
        self.open: list[Listener] = []
        self._kept: list[tuple[Listener, Where]] = []

    def listen(self, wheres: Iterable[Where]) -> list[list[Listener]]:
        """Open all, or take them from the stock; return those of each.

        Systemd may pass several sockets by one name. Port 0: any free one, the
        same for all of them.
        Raises: StartError.
        """
        found: list[list[Listener]] = []
        missing: StartError | None = None
        given = 0
        for where in wheres:
            here = _with_port(where, where.port or self.stock.port_of(where) or given)
            try:
                listeners = self._find(where) or [_open(here)]
            except _AbsentError as error:
                if not where.optional:
                    raise StartError(str(error)) from None
                log.warning("socket.skipped", at=here, reason="no such address here")
                missing = StartError(str(error))
                found.append([])
                continue
            for listener in listeners:
                listener.key = where.key
                if listener.inode is not None and not listener.is_new:
                    self._kept.append((listener, where))
                if listener.sock.family != socket.AF_UNIX:
                    given = given or listener.sock.getsockname()[1]
            self.open += listeners
            found.append(listeners)
        if missing is not None and not any(found):
            raise missing
        return found

    def follow_rights(self) -> None:
        """Give the files of sockets that were kept the rights that are wanted now."""
        for listener, where in self._kept:
            try:
                _set_rights(listener, where)
            except OSError as error:
                log.warning("socket.rights", at=listener, reason=error.strerror, remedy="restart")
        self._kept.clear()

    def drop(self, keys: Collection[str]) -> None:
        """Close some, which nobody serves any more."""
        self.end([n for n in self.open if n.key in keys])

    def end(self, some: Iterable[Listener]) -> None:
        """Close these; two pools may have the same key where each has any free port."""
        for listener in some:
            if any(listener is n for n in self.open):
                self.open = [n for n in self.open if n is not listener]
                self.on_drop(listener)
                listener.end()

    def _find(self, where: Where) -> list[Listener]:
        found = []
        while (listener := self.stock.take(where)) is not None:
            found.append(listener)
            if where.inherited[:8] != "systemd:":
                break
        if not found and where.inherited:
            raise StartError(_not_inherited(where, [name for name, _ in self.stock.named]))
        for listener in found:
            if listener.sock.type != where.kind:
                wanted, got = _KINDS[where.kind], _KINDS.get(listener.sock.type, "?")
                raise StartError(f"{where}: the handler wants a {wanted} socket, and it is {got}")
        return found

    def close(self) -> None:
        """Close all, with the files that are ours."""
        for listener in self.open:
            listener.close()
        self.open.clear()


class _AbsentError(Exception):
    """This machine has no such address."""


def _open(where: Where) -> Listener:
    """Open a socket that listens.

    Raises: StartError, _AbsentError.
    """
    endpoint = where.endpoint
    assert endpoint is not None  # noqa: S101 # inherited ones are never opened
    sock = socket.socket(endpoint.family, where.kind)
    try:
        inode = _bind(sock, where, endpoint)
        if where.kind == socket.SOCK_STREAM:
            sock.listen(where.request_queue_size)
    except OSError as error:
        sock.close()
        text = f"cannot listen on {endpoint}: {_reason(error, where, endpoint)}"
        if error.errno == errno.EADDRNOTAVAIL:
            raise _AbsentError(text) from None
        raise StartError(text) from None
    except BaseException:
        sock.close()
        raise
    return Listener(where.key, sock, inode)


def _bind(sock: socket.socket, where: Where, endpoint: Endpoint) -> tuple[int, int] | None:
    if endpoint.family == socket.AF_UNIX:
        return _bind_file(sock, where, str(endpoint.address))
    if where.reuse_address and where.kind == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if where.reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if where.interface:
        name = where.interface.encode()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
    if where.freebind:
        sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)  # of IPv6 sockets, too (ip(7))
    if endpoint.v6only is not None:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, endpoint.v6only)
    sock.bind(endpoint.address)
    return None


_IP_FREEBIND: Final = 15  # linux/in.h; the socket module does not name it


def _bind_file(sock: socket.socket, where: Where, path: str) -> tuple[int, int] | None:
    if path.startswith("\0"):
        sock.bind(path)
        return None
    clear_stale(path, where.kind)
    before = os.umask(0o777 & ~where.mode)  # never wider, not even for a moment
    try:
        sock.bind(path)
    finally:
        os.umask(before)
    entry = Path(path).lstat()
    try:
        if (where.owner, where.group) != (-1, -1):
            os.chown(path, where.owner, where.group, follow_symlinks=False)
    except OSError:
        Path(path).unlink()
        raise
    return entry.st_dev, entry.st_ino


def _set_rights(listener: Listener, where: Where) -> None:
    """Change mode and owner of a socket's file, if it is ours, and they are others."""
    path = Path(os.fsdecode(listener.sock.getsockname()))
    entry = path.lstat()
    if (entry.st_dev, entry.st_ino) != listener.inode:
        return
    owner = entry.st_uid if where.owner == -1 else where.owner
    group = entry.st_gid if where.group == -1 else where.group
    if stat.S_IMODE(entry.st_mode) != where.mode:
        path.chmod(where.mode)
    if (owner, group) != (entry.st_uid, entry.st_gid):
        os.chown(path, owner, group, follow_symlinks=False)


def with_rest(wheres: Sequence[Where]) -> list[Where]:
    """Return the places without repetition, and mark those that may be missing: some of several."""
    unique = list({where.key: where for where in wheres}.values())
    return [replace(where, optional=len(unique) > 1) for where in unique]


def _with_port(where: Where, given: int) -> Where:
    """Return the place with the port that another was given, if it asks for any."""
    endpoint = where.endpoint
    if endpoint is None or endpoint.family == socket.AF_UNIX or endpoint.address[1] != 0:
        return where
    host, _, *rest = endpoint.address
    return replace(where, endpoint=endpoint._replace(address=(host, given, *rest)))


def _by_number(where: Where) -> Listener:
    fd = int(where.inherited.removeprefix("fd:"))
    try:
        sock = socket.socket(fileno=os.dup(fd))
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    except OSError as error:
        raise StartError(f"{where}: it is no open socket: {error.strerror}") from None
    return Listener(where.key, sock, None, is_new=False, is_lent=True)


def _inode_of(where: Where) -> tuple[int, int] | None:
    """Return what tells the file of one of our sockets, which the service manager has kept."""
    endpoint = where.endpoint
    if endpoint is None or endpoint.family != socket.AF_UNIX:
        return None
    with suppress(OSError):  # removed meanwhile, or in the abstract namespace
        entry = Path(str(endpoint.address)).lstat()
        return entry.st_dev, entry.st_ino
    return None


def _listens_at(sock: socket.socket, where: Where) -> bool:
    """Tell whether it is the socket that would be opened: one of ours that was stored."""
    endpoint = where.endpoint
    if endpoint is None or sock.type != where.kind:
        return False
    here = endpoint_of(sock)
    return (here.family, here.address, here.v6only) == (
        endpoint.family,
        endpoint.address,
        endpoint.v6only,
    )


def _not_inherited(where: Where, names: Sequence[str]) -> str:
    text = f"{where}: no socket of that name was passed to this process"
    if names:
        return f"{text}; there are: {', '.join(sorted(set(names)))}"
    return f"{text}; start it by its .socket unit, which names it by FileDescriptorName="


def _reason(error: OSError, where: Where, endpoint: Endpoint) -> str:
    if error.errno == errno.EACCES and endpoint.family == socket.AF_UNIX:
        return "permission denied"
    if error.errno == errno.EINVAL and endpoint.family != socket.AF_INET6:
        return "Invalid argument"
    if error.errno == errno.ENODEV:
        return f"there is no network interface {where.interface!r}"
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)


_REASONS: Final = {
    errno.EADDRINUSE: "the port is in use; stop the program that has it, or choose another PORT",
    errno.EACCES: "permission denied; ports below 1024 need privileges, choose one from 1024 on",
    errno.EINVAL: "a link-local address needs its interface, as in fe80::1%eth0",
    errno.ENOENT: "there is no such directory to put the socket in",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address",
}
