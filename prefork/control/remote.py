"""The caller's side of the control socket: ask a master, wait for its answer or its end.

The calling process of a command. It never signals the master and never reads
its files.
"""

import os
import select
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from prefork.control.protocol import (
    PATIENCE_S,
    Request,
    Status,
    Stop,
    decode_answer,
    encode_request,
)
from prefork.errors import PreforkError

#: How long a master may run on after it has closed its control socket.
_LAST_WORDS_S: Final = 10.0

_ANSWER_BYTES: Final = 1 << 24  # many times the status of as many workers as there may be


class RemoteError(PreforkError):
    """The master cannot be reached, or has said no."""


class NobodyThereError(RemoteError):
    """There is no socket of this name."""


class Remote:
    """One conversation with a master: a request, its answer.

    Raises: RemoteError when nobody answers at this path.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._buffer = bytearray()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Not settimeout(): a non-blocking connect() fails at once where the master's queue is full.
        limit = struct.pack("ll", int(PATIENCE_S), 0)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        try:
            self._sock.connect(os.fspath(path))
        except OSError as error:
            self._sock.close()
            kind = NobodyThereError if isinstance(error, FileNotFoundError) else RemoteError
            raise kind(f"cannot reach a master at {path}: {_why(error)}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def ask(self, request: Request) -> dict[str, Any]:
        """Return the fields of the answer; for what takes long, wait as long as it takes.

        Raises: RemoteError, with the master's reason if it has given one.
        """
        limit_s = PATIENCE_S if isinstance(request, Status | Stop) else None
        try:
            self._sock.settimeout(PATIENCE_S)
            with suppress(BrokenPipeError):  # it may have said why before it hung up
                self._sock.sendall(encode_request(request))
            answer = decode_answer(self._line(limit_s))
        except TimeoutError:
            raise RemoteError(f"the master at {self._path} does not answer") from None
        except OSError as error:
            raise RemoteError(f"the master has hung up: {error.strerror}") from None
        if not answer["ok"]:
            raise RemoteError(str(answer.get("reason", "the master refuses, without a reason")))
        return answer

    def wait_gone(self, pid: int) -> None:
        """Wait for the end of a master that has answered `stop` by this PID.

        Raises: RemoteError if it goes on.
        """
        pidfd = self._pidfd(pid)
        try:
            poll = select.poll()
            poll.register(self._sock, 0)  # its hanging up is told in any case
            if pidfd is None:
                poll.poll()
                return
            poll.register(pidfd, select.POLLIN)
            ready = [fd for fd, _ in poll.poll()]
            if pidfd not in ready:
                poll.unregister(self._sock)
                if not poll.poll(_LAST_WORDS_S * 1000):
                    raise RemoteError(f"the master has stopped to serve, but process {pid} runs on")
        finally:
            if pidfd is not None:
                os.close(pidfd)

    def _pidfd(self, pid: int) -> int | None:
        """Return the master's pidfd; None: it has gone, or its numbers are not ours (containers).

        The kernel tells the PID in our own namespace of who called listen().
        """
        peer = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if struct.unpack("3i", peer)[0] != pid:
            return None
        try:
            return os.pidfd_open(pid)
        except OSError:
            return None

    def _line(self, limit_s: float | None) -> bytes:
        end_s = None if limit_s is None else time.monotonic() + limit_s
        while (end := self._buffer.find(b"\n")) < 0:
            if end_s is not None:
                left_s = end_s - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError
                self._sock.settimeout(left_s)
            else:
                self._sock.settimeout(None)
            part = self._sock.recv(65536)
            if not part or len(self._buffer) > _ANSWER_BYTES:
                raise RemoteError("the master has ended the conversation before its answer")
            self._buffer += part
        return bytes(self._buffer[:end])


def ask(path: Path, request: Request) -> dict[str, Any]:
    """Ask the master at a path one thing; return the fields of its answer.

    Raises: RemoteError.
    """
    with Remote(path) as remote:
        return remote.ask(request)


def stop(path: Path, *, now: bool) -> None:
    """Stop the master at a path, and wait until its process has gone.

    Raises: RemoteError.
    """
    with Remote(path) as remote:
        remote.wait_gone(int(remote.ask(Stop(now=now))["pid"]))


def _why(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "nothing is there; does it run?"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there any more"
    if isinstance(error, PermissionError):
        return "permission denied; ask as the user that it belongs to"
    if isinstance(error, BlockingIOError):  # the time is over
        return "it does not answer"
    return error.strerror or str(error)
