"""The worker processes: the only place that forks, signals and waits.

The master. Each child is known by its pidfd, so no signal ever reaches a
stranger to whom the kernel has given a dead worker's PID. It decides nothing.
"""

import os
import select
import selectors
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from prefork import log
from prefork.errors import StartError
from prefork.signals import held_back


@dataclass(slots=True)
class Child:
    """One process. doom: why the master itself ends it, if it does. last_words: why it does."""

    line: int
    pid: int
    pidfd: int
    doom: str = ""
    last_words: str = ""


class Children:
    """At most one child for each line of the scoreboard.

    selector: where their deaths become readable. disown: called in each child
    first, to close what is the master's alone.
    """

    def __init__(self, selector: selectors.BaseSelector, disown: Callable[[], None]) -> None:
        self._selector = selector
        self._disown = disown
        self._by_line: dict[int, Child] = {}

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._by_line.values()))

    def get(self, line: int) -> Child | None:
        """Return the child of a line, if there is one."""
        return self._by_line.get(line)

    def adopt(self, line: int, pid: int, pidfd: int) -> Child:
        """Take over a child that this process has forked in an image before this one."""
        child = self._by_line[line] = Child(line, pid, pidfd)
        self._selector.register(pidfd, selectors.EVENT_READ)
        return child

    def start(self, line: int, main: Callable[[Callable[[], None]], None]) -> Child:
        """Fork a child that runs main and ends with it.

        main: called with the function that lets signals through, which are
        blocked until then.
        Raises: OSError when the system has no process or descriptor left.
        """
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)
        # An exception from a signal handler of the program must not come
        # between the fork and the note of it.
        with held_back() as let_through:
            pid = os.fork()
            if pid == 0:
                self._live(line, main, let_through)
            child = self._by_line[line] = Child(line, pid, _pidfd_of(pid))
            self._selector.register(child.pidfd, selectors.EVENT_READ)
        return child

    def send(self, line: int, signum: signal.Signals) -> None:
        """Send a signal to the child of a line; one that has ended does not matter."""
        child = self._by_line.get(line)
        if child is not None:
            with suppress(ProcessLookupError):  # its pidfd is readable by now
                signal.pidfd_send_signal(child.pidfd, signum)

    def bury(self, child: Child) -> str:
        """Wait for a child and forget it; return how it ended, as `exit 1` or `SIGSEGV`."""
        try:
            result = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
        except ChildProcessError:
            result = None  # the program that embeds us has waited for it, or ignores SIGCHLD
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        del self._by_line[child.line]
        return "unknown" if result is None else _cause(result.si_code, result.si_status)

    def end_by_force(self) -> None:
        """Kill and bury all that are left."""
        for child in self:
            self.send(child.line, signal.SIGKILL)
        for child in self:
            self.bury(child)

    def reap_strangers(self) -> None:
        """As PID 1, take leave of the orphans that the kernel has given us."""
        ours = {child.pid for child in self}
        with suppress(ChildProcessError):  # nobody is left to wait for
            while (end := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if end.si_pid in ours:
                    return  # its pidfd is readable; who stands behind it is seen after its burial
                os.waitpid(end.si_pid, 0)

    def _live(
        self,
        line: int,
        main: Callable[[Callable[[], None]], None],
        let_through: Callable[[], None],
    ) -> NoReturn:
        """Be the child, and end as one: never return or raise through the master's frames."""
        status = 1
        try:
            self._selector.close()
            for sibling in self:
                os.close(sibling.pidfd)
            self._disown()
            main(let_through)
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
            if not isinstance(error.code, int | None):
                log.error("worker.exited", slot=line, pid=os.getpid(), reason=error.code)
        except BaseException:
            log.exception("worker.failed", slot=line, pid=os.getpid())
        finally:
            for stream in (sys.stdout, sys.stderr):
                _flush(stream)
            os._exit(status & 0xFF)


def reap(pids: set[int]) -> None:
    """Take leave of those of this process's children that have ended, and of no others.

    pids: whom to look at; who has ended, by whomever waited for, is removed.
    """
    for pid in list(pids):
        try:
            has_ended = os.waitpid(pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            has_ended = True
        if has_ended:
            pids.discard(pid)


def answer_of(say: Callable[[], str]) -> str:
    """Return what a function says in a child, of which nothing else is left.

    For what must not happen to this process, such as an import.
    Raises: StartError with the text of what say raises.
    """
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        text = "!it ended without a word"
        try:
            text = say()
        except BaseException as error:
            text = f"!{error}"
        finally:
            os.write(write_fd, text.encode("utf-8", "replace")[: select.PIPE_BUF])
            os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd, encoding="utf-8") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    if not answer or answer.startswith("!"):
        raise StartError(answer[1:] or "it ended the process")
    return answer


def _pidfd_of(pid: int) -> int:
    """Return a pidfd of a child just forked; without one it could not be supervised, and ends."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _flush(stream: object) -> None:
    """Write out what is buffered, so that no two processes do."""
    with suppress(AttributeError, OSError, ValueError):  # None, a full disk, closed: serve on
        stream.flush()  # type: ignore[attr-defined] # a program may have put anything there


def _cause(code: int, status: int) -> str:
    """Say how a process ended; code and status as waitid(2) gives them."""
    if code == os.CLD_EXITED:
        return f"exit {status}"
    try:
        name = signal.Signals(status).name
    except ValueError:
        name = f"signal {status}"
    hint = " (out of memory, or killed by hand)" if name == "SIGKILL" else ""
    return name + hint
