"""A process that leaves its terminal, while the one that was started waits for it.

The caller, which becomes the master. Whoever starts a daemon learns how that
went from the exit status: 0 when the fleet is READY, else what the daemon says,
its reason on stderr. It never restarts one and keeps no pidfile.

Three processes: the one that was started waits; its child becomes a daemon as
python-daemon does it, by two more forks.
"""

import os
import select
import signal
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

import daemon  # type: ignore[import-untyped] # it has no stubs

from prefork import log
from prefork.errors import StartError
from prefork.signals import SignalPipe

_REASON_BYTES: Final = 32 * 1024  # one datagram holds it
_END_MS: Final = 5000  # how long a daemon that has failed may take to end


class Detached:
    """The daemon's side of the wait: say ready() or failed(), once."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def ready(self) -> None:
        """Let the caller go, with exit status 0, and let go of its terminal.

        Descriptors 0 to 2 lead to /dev/null from here on, in this process: who
        was forked before still has the caller's, and should be given others first
        (`relay`), or whoever reads the caller's output waits for its end.
        Raises: StartError when the caller has gone: it is not wanted any more.
        """
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for fd in range(3):
            os.dup2(null, fd)
        os.close(null)
        self._tell(0, "")

    def failed(self, reason: str, exit_status: int = 1) -> None:
        """Have the caller print the reason and end with the status; this process ends next.

        After ready() it is too late, and nothing happens.
        """
        with suppress(StartError, OSError):  # the caller has gone, or is told already
            self._tell(exit_status, reason)

    def _tell(self, exit_status: int, reason: str) -> None:
        text = reason.encode("utf-8", "backslashreplace")[:_REASON_BYTES]
        with self._channel as channel:
            try:
                channel.send(bytes([exit_status]) + text)
            except (BrokenPipeError, ConnectionResetError):  # reset: it had not read who we are
                raise StartError("whoever started the daemon does not wait for it") from None


def detach(
    *, working_directory: str = "/", umask: int | None = None, keep: Iterable[int] = ()
) -> Detached:
    """Return in a process that has no terminal, no parent and a session of its own.

    The process that was called never returns: it waits for what the `Detached`
    says, and ends. If the daemon dies without a word, it ends with status 1; if
    SIGINT or SIGTERM comes, the daemon gets SIGTERM.

    umask: None leaves it as it is. keep: descriptors from the caller that stay
    open beside 0 to 2 (systemd's, say); others of the caller are closed, those
    that this program has opened (they are closed on exec) are not.
    Locks and PIDs are other ones afterwards: take pidfiles after this call.
    Raises: StartError when no process can be started.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    waiting, telling = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        pid = os.fork()
    except OSError as error:
        raise StartError(f"cannot become a daemon: {error.strerror}") from None
    if pid:
        telling.close()
        _wait_and_end(waiting)
    waiting.close()
    detached = Detached(telling)
    try:
        _leave_terminal(working_directory, umask, keep)
        _introduce(telling)
    except (daemon.daemon.DaemonError, OSError) as error:
        detached.failed(f"cannot become a daemon: {error}")
        os._exit(1)
    return detached


def _leave_terminal(working_directory: str, umask: int | None, keep: Iterable[int]) -> None:
    if umask is None:
        umask = os.umask(0o077)  # the only way to know it is to change it
    if sys.stdin is None:  # python-daemon wants one to lead to /dev/null
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 # for the process's life
    context = daemon.DaemonContext(
        detach_process=True,  # whoever the parent is
        working_directory=working_directory,
        umask=umask,
        files_preserve=[1, 2, *keep, *_own_descriptors()],
        stdout=sys.stdout,
        stderr=sys.stderr,
        signal_map={},  # the master's own handlers follow
        prevent_core=False,  # a matter of rlimits
    )
    context.open()


def _own_descriptors() -> list[int]:
    """Return the numbers of what this program has opened: PEP 446 closes that on exec."""
    own = []
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that lists
            if not os.get_inheritable(int(path.name)):
                own.append(int(path.name))
    return own


def _introduce(channel: socket.socket) -> None:
    """Send who we are by a pidfd: workers hold the channel too, and no end of file would tell."""
    pidfd = os.pidfd_open(os.getpid())
    socket.send_fds(channel, [b"!"], [pidfd])
    os.close(pidfd)


def _wait_and_end(channel: socket.socket) -> NoReturn:
    """Be the caller. It leaves by os._exit: what is in its frames is the daemon's now."""
    status = 1
    try:
        status, reason = _wait(channel)
        for line in reason.split("\n") if reason else ():
            sys.stderr.write(f"prefork: error: {log.printable(line)}\n")
        sys.stderr.flush()
    finally:
        os._exit(status)


def _wait(channel: socket.socket) -> tuple[int, str]:
    """Return the exit status and what to print."""
    signals = SignalPipe({signal.SIGINT: None, signal.SIGTERM: None})
    silent = 1, "the daemon has died before it was ready"
    introduced, pidfds, *_ = socket.recv_fds(channel, _REASON_BYTES + 1, 1)
    if not pidfds:  # it could not even become a daemon
        return _told(introduced) if introduced else silent
    (pidfd,) = pidfds
    poll = select.poll()
    for waited_for in (signals, channel, pidfd):
        poll.register(waited_for, select.POLLIN)
    ready = {fd for fd, _ in poll.poll()}
    if channel.fileno() in ready and (told := channel.recv(_REASON_BYTES + 1)):
        answer = _told(told)
    elif signals.fileno() in ready:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        answer = 128 + signals.read()[0], ""  # as a shell would say it
    else:
        return silent
    if answer[0]:  # whoever tries again is to find ports and files free
        poll.unregister(channel)
        poll.unregister(signals)
        poll.poll(_END_MS)
    return answer


def _told(message: bytes) -> tuple[int, str]:
    return message[0], message[1:].decode("utf-8", "replace")
