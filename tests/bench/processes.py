"""A server as a tree of processes: its start, its end, its processor time and its memory."""

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Self

from answers import check
from start import HERE, BenchError
from workloads import Transport, Workload

START_S = 10.0
STOP_S = 5.0
POLL_S = 0.02
PORTS = range(18000, 19000)
WARM_UP = 20  # requests
WARM_UP_S = 1.0
BIG_BYTES = 1_000_000  # one request for such an answer warms up enough
CPUCLOCK_SCHED = 2  # of a process's clock, clock_getcpuclockid(3): Linux's posix-timers.h
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


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

    def __init__(self, command: Sequence[str], port: int, folder: Path, cpus: Collection[int]):
        self.port = port
        self._output = folder / f"{port}.log"
        # A file, not a pipe: nobody has to read it while the server is measured.
        with self._output.open("wb") as output, on_cpus(cpus):
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=HERE,
                env=os.environ | {"HOME": str(folder)},  # gunicorn makes a socket there
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

    def wait_ready(self, workload: Workload) -> Workload:
        """Return once the server listens and has answered right, with what it has told."""
        limit_s = time.monotonic() + START_S
        is_datagram = workload.transport is Transport.UDP
        while not (self._answers() if is_datagram else self._is_listening()):
            if self._has_ended() or time.monotonic() > limit_s:
                raise BenchError(f"did not start: {self._last_words()}")
            select.select([self._pidfd], [], [], POLL_S)  # until it listens, or ends
        known = check(self.port, workload)
        limit_s = time.monotonic() + WARM_UP_S
        for _ in range(WARM_UP if known.body_length < BIG_BYTES else 0):
            if time.monotonic() < limit_s:
                check(self.port, workload)
        return known

    def cpu_s(self) -> float:
        """Return the processor time of the tree since its start, its dead included.

        Those that died and were reaped are in their parents' accounts, the others (zombies
        too) have one of their own: a clock, for in /proc a short life is rounded to nothing.
        """
        if self._has_ended():
            raise BenchError(f"ended under load; last words: {self._last_words()}")
        used_s = 0.0
        for pid, reaped_s in self._tree():
            with contextlib.suppress(OSError):  # just ended
                used_s += reaped_s + time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)
        return used_s

    def memory_mb(self) -> float:
        """Return what the tree holds of memory: PSS, shared pages divided among their users."""
        size_kb = 0
        for pid, _ in self._tree():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # just ended
                smaps = Path(f"/proc/{pid}/smaps_rollup").read_text()
                size_kb += int(re.search(r"^Pss: +(\d+) kB$", smaps, re.MULTILINE)[1])
        return size_kb / 1000

    def _tree(self) -> list[tuple[int, float]]:
        """Return the PID of each process, and the processor time of its children reaped."""
        parents, reaped_s = {}, {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # just ended
                # proc(5): 4 ppid, 16 cutime, 17 cstime
                fields = path.read_text().rpartition(")")[2].split()
                pid = int(path.parent.name)
                parents[pid] = int(fields[1])
                reaped_s[pid] = (int(fields[13]) + int(fields[14])) / TICKS_PER_S
        tree = {self._process.pid}
        while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
            tree |= more
        return [(pid, reaped_s[pid]) for pid in tree if pid in reaped_s]

    def _has_ended(self) -> bool:
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def _is_listening(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def _answers(self) -> bool:
        with socket.socket(type=socket.SOCK_DGRAM) as client, contextlib.suppress(OSError):
            client.settimeout(POLL_S)
            client.connect(("127.0.0.1", self.port))
            client.send(b"\n")
            return bool(client.recv(1))
        return False

    def _last_words(self) -> str:
        lines = self._output.read_text(errors="backslashreplace").strip().split("\n")
        return lines[-1].strip()[-300:]


def free_port() -> int:
    """Return a port below those that the kernel gives to clients, which would take it first."""
    for port in PORTS:
        with (
            socket.socket() as stream,
            socket.socket(type=socket.SOCK_DGRAM) as datagram,
            contextlib.suppress(OSError),
        ):
            stream.bind(("127.0.0.1", port))
            datagram.bind(("127.0.0.1", port))
            return port
    raise BenchError(f"no port is free from {PORTS[0]} to {PORTS[-1]}")
