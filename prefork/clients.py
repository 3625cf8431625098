"""The clients a worker has in hand: who is served, who is waited for, who is idle.

A worker. Handlers of the stdlib know one thing only, a socket, so the socket
is what tells: its class is replaced by one derived from it that notes when a
call waits for the client and when bytes have moved. From these notes follow

- the heartbeat: a handler that waits for its client is alive for as long as
  its own `timeout` allows (a download to a slow phone, a quiet telnet); one
  that computes, or waits for something else, is stuck after a while;
- the graceful end: a client that has sent nothing since our last answer is
  idle and may be hung up on, all others are waited for.

It never closes a socket and never reads one. A socket whose class cannot be
replaced is waited for at the end, and exempt from the heartbeat.
"""

import contextlib
import copyreg
import functools
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

from prefork.scoreboard import ACTIVITY_WORD, BEAT_WORD, BUSY, CLIENT, IDLE, Slot

_RECEIVES: Final = ("recv", "recv_into", "recvfrom", "recvfrom_into", "recvmsg", "recvmsg_into")
_SENDS: Final = ("send", "sendall", "sendmsg", "sendto", "sendfile")
_FILENO: Final = socket.socket.fileno  # the program's calls are noted, ours are not


class _Client:
    """One accepted socket, until it is closed.

    silent_since_ns: when a call last returned or, 0, exempt. waiting: idents of
    the threads that are in a call now. polled: exempt for good, because the
    program waits for the client by means that cannot be seen. moved_ns: when
    bytes last moved. quiet: nothing received since our last answer. thread:
    the ident of the thread that last used the socket. inode: of a socket that
    lives on in another object, which TLS in a handler leads to.
    """

    __slots__ = (
        "inode",
        "moved_ns",
        "polled",
        "quiet",
        "silent_since_ns",
        "sock",
        "thread",
        "waiting",
    )

    def __init__(self, sock: socket.socket, now_ns: int, thread: int) -> None:
        self.sock = weakref.ref(sock)
        self.silent_since_ns = self.moved_ns = now_ns
        self.quiet = True
        self.thread = thread
        self.waiting: set[int] = set()
        self.polled = False
        self.inode: int | None = None

    def is_open(self, fd: int) -> bool:
        """Tell whether the descriptor that was accepted is still this socket."""
        if self.inode is not None:
            try:
                return os.fstat(fd).st_ino == self.inode
            except OSError:
                return False
        sock = self.sock()
        return sock is not None and _FILENO(sock) == fd


class Clients:
    """All clients of one worker; slot is where the worker's heartbeat goes."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._main = threading.get_ident()
        self._by_fd: dict[int, _Client] = {}
        self.sent_bytes = 0
        self._metered: dict[type[socket.socket], type[socket.socket]] = {}

    def adopt(self, request: object) -> None:
        """Take note of a request as `get_request()` gave it."""
        now_ns = time.monotonic_ns()
        words = self._slot.words
        words[BEAT_WORD] = now_ns
        words[ACTIVITY_WORD] = BUSY
        if not isinstance(request, socket.socket):
            return  # a datagram: over when the handler returns
        client = _Client(request, now_ns, self._main)
        plain = type(request)
        try:
            request.__class__ = self._metered.get(plain) or self._metered_class(plain)
        except TypeError:
            # Its class has a layout of its own. Exempt it, or a long download would look stuck.
            client.silent_since_ns = 0
            words[ACTIVITY_WORD] = CLIENT
        self._by_fd[_FILENO(request)] = client

    def release(self, request: object) -> None:
        """Take note that `process_request()` has returned, the request done or handed on."""
        self._slot.words[ACTIVITY_WORD] = IDLE
        if isinstance(request, socket.socket):
            client = self._by_fd.get(_FILENO(request))
            if client is not None and client.thread == self._main:
                client.silent_since_ns = 0  # whoever has it now has not used it yet

    def any_left(self) -> bool:
        """Tell whether a client is still in hand, after a look at each."""
        for fd, client in list(self._by_fd.items()):
            if not client.is_open(fd):
                self._by_fd.pop(fd, None)
        return bool(self._by_fd)

    def count(self) -> int:
        """Return how many there are."""
        return len(self._by_fd)

    def oldest_sign_of_life_ns(self, now_ns: int) -> int:
        """Return when the handler that has been silent longest last moved a byte; now if none."""
        oldest_ns = now_ns
        alive: set[int | None] = set()
        for client in list(self._by_fd.values()):
            since_ns = client.silent_since_ns
            if since_ns == 0 or since_ns >= oldest_ns or client.waiting or client.sock() is None:
                continue
            alive = alive or {thread.ident for thread in threading.enumerate()}
            if client.thread in alive:
                oldest_ns = since_ns
        return oldest_ns

    def hang_up_idle(self, idle_ns: int) -> None:
        """Let every handler that waits for an idle client's next request read end of file.

        Bytes that arrived before are still read (Linux keeps them readable
        after SHUT_RD). idle_ns: how long nothing must have moved.
        """
        latest_ns = time.monotonic_ns() - idle_ns
        for client in list(self._by_fd.values()):
            sock = client.sock()
            if sock is not None and client.quiet and client.moved_ns <= latest_ns:
                with contextlib.suppress(OSError):  # the client was faster; the handler will see
                    socket.socket.shutdown(sock, socket.SHUT_RD)

    def hang_up_silent(self, silent_ns: int, most: int) -> int:
        """Hang up on clients that a handler waits for and nothing was heard of; return how many.

        Whoever has been silent for longest goes first. silent_ns: for how long nothing must have
        moved. most: how many may go.
        """
        latest_ns = time.monotonic_ns() - silent_ns
        # `waiting` is read while threads change it: whoever has just been heard has moved bytes.
        silent = [c for c in list(self._by_fd.values()) if c.waiting and c.moved_ns <= latest_ns]
        silent.sort(key=lambda client: client.moved_ns)
        for client in silent[:most]:
            sock = client.sock()
            client.moved_ns = time.monotonic_ns()  # not again before its handler has had time
            if sock is not None:
                with contextlib.suppress(OSError):  # it was faster
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
        return len(silent[:most])

    def _metered_class(self, plain: type[socket.socket]) -> type[socket.socket]:
        members: dict[str, Any] = {"__slots__": (), "__module__": plain.__module__}
        members |= {n: self._noting(getattr(plain, n), quiet=False) for n in _RECEIVES}
        members |= {n: self._noting(getattr(plain, n), quiet=True) for n in _SENDS}
        members["fileno"] = self._polling(plain.fileno)
        members["close"] = self._forgetting(plain.close)
        members["detach"] = self._parting(plain.detach)
        metered = type(plain.__name__, (plain,), members)
        copyreg.pickle(metered, reduce_socket)
        self._metered[plain] = self._metered[metered] = metered
        return metered

    def _noting(self, plain: Callable[..., Any], *, quiet: bool) -> Callable[..., Any]:
        # One flat function, called several times in each request: 1.5 us a call.
        slot, main, by_fd = self._slot, self._main, self._by_fd
        get_ident, monotonic_ns, fileno = threading.get_ident, time.monotonic_ns, _FILENO

        @functools.wraps(plain)
        def noting(sock: socket.socket, *args: Any, **kwargs: Any) -> Any:
            client = by_fd.get(fileno(sock))
            if client is None:
                return plain(sock, *args, **kwargs)
            client.silent_since_ns = 0
            client.thread = thread = get_ident()
            client.waiting.add(thread)
            if thread == main:
                slot.words[ACTIVITY_WORD] = CLIENT
            try:
                result = plain(sock, *args, **kwargs)
                client.moved_ns = monotonic_ns()
                # An interim answer (100 Continue, RFC 9110 §15.2) asks for more: not idle.
                if quiet:
                    self.sent_bytes += result if isinstance(result, int) else len(args[0])
                client.quiet = quiet and not (args and _is_interim(args[0]))
                return result
            finally:
                client.waiting.discard(thread)
                now_ns = monotonic_ns()
                if not client.polled:
                    client.silent_since_ns = now_ns
                if thread == main:
                    words = slot.words
                    words[BEAT_WORD] = now_ns
                    words[ACTIVITY_WORD] = CLIENT if client.polled else BUSY

        return noting

    def _polling(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        # Whoever asks for the descriptor will wait in select, or read by os.read, and is exempt
        # from here on: nobody tells what moves. Calls like sendfile() ask for it, too.
        @functools.wraps(plain)
        def polling(sock: socket.socket) -> Any:
            fd = plain(sock)
            client = self._by_fd.get(fd)
            if client is not None and threading.get_ident() not in client.waiting:
                client.polled = True
                client.silent_since_ns = 0
                if threading.get_ident() == self._main:
                    self._slot.activity = CLIENT
            return fd

        return polling

    def _forgetting(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(plain)
        def forgetting(sock: Any) -> Any:
            # While a makefile() is open, close() only takes note, and is called again by its end.
            if sock._io_refs <= 0:
                self._by_fd.pop(_FILENO(sock), None)
            return plain(sock)

        return forgetting

    def _parting(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(plain)
        def parting(sock: socket.socket) -> Any:
            client = self._by_fd.get(_FILENO(sock))
            if client is not None:  # exempt from here on: nobody tells what moves
                client.inode = os.fstat(_FILENO(sock)).st_ino
                client.silent_since_ns = 0
                if threading.get_ident() == self._main:
                    self._slot.activity = CLIENT
            return plain(sock)

        return parting


def _is_interim(data: object) -> bool:
    """Tell whether an HTTP answer of class 1xx begins here (RFC 9110 §15.2)."""
    return isinstance(data, bytes) and data[:5] == b"HTTP/" and data[8:10] == b" 1"


def reduce_socket(sock: socket.socket) -> Any:
    """Let multiprocessing send a client to another process; it goes by the exact class."""
    from multiprocessing import reduction  # noqa: PLC0415 # few programs do, and it is large

    return reduction._reduce_socket(sock)  # type: ignore[attr-defined] # it has no public name
