"""A server as a tree of processes: its start, its end, and the processor time it took."""

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Self

from workloads import Peer, Workload

START_S = 10.0
STOP_S = 5.0
REPLY_S = 5.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A server, or the load on it, did not do what it should."""


@contextlib.contextmanager
def on_cpus(cpus: Collection[int]) -> Iterator[None]:
    """Confine what is started inside; an empty set confines nothing."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Server:
    """A running peer; `with` ends it, and whatever it has started."""

    def __init__(self, peer: Peer, folder: Path, cpus: Collection[int]):
        self.peer = peer
        self._output = folder / f"{time.monotonic_ns()}.log"
        # A file, not a pipe: nobody has to read it while the server is measured.
        with self._output.open("wb") as output, on_cpus(cpus):
            self._process = subprocess.Popen(
                peer.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        self._pidfd = os.pidfd_open(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End it by SIGTERM; what then remains of its session, by force."""
        with contextlib.suppress(ProcessLookupError):  # it has failed, and was reported
            signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)  # Popen's own would wait()
        select.select([self._pidfd], [], [], STOP_S)
        os.close(self._pidfd)
        os.killpg(self._process.pid, signal.SIGKILL)  # before wait(), which gives the PID away
        self._process.wait()

    def wait_port(self) -> int:
        """Return the port once the server has said it."""
        limit_s = time.monotonic() + START_S
        pause = threading.Event()
        while not (found := re.search(self.peer.port, self._said(), re.MULTILINE)):
            if time.monotonic() > limit_s or self._has_ended():
                raise BenchError(f"did not start: {self._said()[-300:].strip()}")
            pause.wait(0.01)
        return int(found[1])

    def cpu_s(self) -> float:
        """Return the processor time of the tree since its start, its dead included.

        Those that died and were reaped are in their parents' accounts, the others (zombies
        too) have one of their own.
        """
        if self._has_ended():
            raise BenchError(f"ended under load; last words: {self._said()[-300:].strip()}")
        parents, ticks = {}, {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # just ended
                # proc(5): 4 ppid, 14 utime, 15 stime, 16 cutime, 17 cstime
                fields = path.read_text().rpartition(")")[2].split()
                pid = int(path.parent.name)
                parents[pid] = int(fields[1])
                ticks[pid] = sum(map(int, fields[11:15]))
        tree = {self._process.pid}
        while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
            tree |= more
        return sum(ticks.get(pid, 0) for pid in tree) / TICKS_PER_S

    def _has_ended(self) -> bool:
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def _said(self) -> str:
        return self._output.read_text(errors="backslashreplace")


def check(port: int, workload: Workload) -> None:
    """Raise BenchError unless the server's answer is the right one."""
    try:
        with socket.create_connection(("127.0.0.1", port), REPLY_S) as client:
            client.sendall(workload.request)
            reply = b"".join(iter(lambda: client.recv(65536), b""))
    except OSError as error:
        raise BenchError(f"no answer: {error}") from None
    if not reply.endswith(workload.reply):
        raise BenchError(f"wrong answer: {reply[:200]!r}")
