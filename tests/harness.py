"""Real daemons for tests: start them, wait for facts, end them.

Nothing here sleeps. Each wait blocks on what it waits for (a pipe, a notify
socket, a pidfd, a child) and fails with what the daemon said when the deadline
passes.
"""

import codecs
import contextlib
import io
import os
import random
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import pytest

DEADLINE_S = 20.0

#: The installed command. `python -m prefork` in the checkout would run the checkout.
COMMAND = Path(sysconfig.get_path("scripts")) / "prefork"


class Log:
    """A stream's lines, read as they come, so that the writer never blocks.

    Who asks for lines gets all that have been written until then: what a process
    has said is there when its end is known.
    """

    def __init__(self, stream: io.RawIOBase):
        self._stream = stream
        utf8 = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
        self._ready = polling(stream)
        self._lines: list[str] = []
        self._begun = ""  # a line without its end
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        ready = polling(self._stream)  # of this thread's own: one is not for two at a time
        with self._stream:
            while not self._closed:
                ready.poll()
                with self._changed:
                    self._take()

    def _take(self) -> None:
        """Read what has been written; the caller has the lock."""
        while not self._closed and self._ready.poll(0):
            try:
                data = os.read(self._stream.fileno(), 1 << 16)
            except OSError:  # EIO: no process has the other side of the terminal any more
                data = b""
            *lines, self._begun = (self._begun + self._decoder.decode(data, not data)).split("\n")
            if not data:
                self._closed = True
                lines += [self._begun] * bool(self._begun)
            self._lines += lines
            self._changed.notify_all()

    def lines(self) -> list[str]:
        with self._changed:
            self._take()
            return list(self._lines)

    def wait_for(self, pattern: str, count: int = 1, deadline_s: float = DEADLINE_S) -> re.Match:
        """Return the match of the count-th line with this pattern, waiting for it to come."""
        compiled = re.compile(pattern)
        limit = time.monotonic() + deadline_s
        with self._changed:
            while True:
                found = [m for m in map(compiled.search, self._lines) if m]
                if len(found) >= count:
                    return found[count - 1]
                left = limit - time.monotonic()
                if self._closed or (not self._changed.wait(max(0.0, left)) and left <= 0):
                    said = "\n".join(self._lines)
                    raise AssertionError(f"no {pattern!r} (x{count}) in:\n{said}")

    def wait_closed(self, deadline_s: float = DEADLINE_S) -> list[str]:
        """Return all lines once every process that held the stream has ended."""
        self._thread.join(deadline_s)
        assert not self._thread.is_alive(), "a process still holds the stream:\n" + self.text()
        return self.lines()

    def text(self) -> str:
        return "\n".join(self.lines())


def polling(stream) -> select.poll:
    """Return what waits for input; unlike select(), of a descriptor of any number."""
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    return poll


class Daemon:
    """One running program; the context manager's end is its end, and its children's."""

    def __init__(
        self,
        command: Iterable[object],
        cwd: Path | str | None = None,
        inherit: Iterable[int] = (),
        **environ: str,
    ):
        self.command = [str(word) for word in command]
        self._notify_dir = tempfile.TemporaryDirectory(prefix="prefork-test-")
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = f"{self._notify_dir.name}/notify"
        self._notify.bind(path)
        Path(self._notify_dir.name).chmod(0o711)  # as systemd's: a daemon may not be root any more
        Path(path).chmod(0o777)
        self._told: list[str] = []
        self._telling = threading.Condition()
        threading.Thread(target=self._hear, args=(self._notify.dup(),), daemon=True).start()
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "NOTIFY_"))}
        env |= {"NOTIFY_SOCKET": path, "PYTHONUNBUFFERED": "1"} | environ
        self.process = subprocess.Popen(
            self.command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            pass_fds=tuple(inherit),
        )
        self.out = Log(self.process.stdout)
        self.log = Log(self.process.stderr)

    @property
    def pid(self) -> int:
        return self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind, error, trace):
        left = children(self.pid)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        try:
            for pid in left:
                wait_gone(pid)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)  # what a failed test leaves of its session
        with contextlib.suppress(OSError):
            self._notify.shutdown(socket.SHUT_RD)  # ends the thread that listens
        self._notify.close()
        self._notify_dir.cleanup()
        if error is not None:
            print(f"$ {shlex.join(self.command)}\n{self.out.text()}\n{self.log.text()}")

    def wait_notified(self, state: str, deadline_s: float = DEADLINE_S) -> None:
        """Wait until the service manager would have been told `state`; its end is a failure."""
        limit = time.monotonic() + deadline_s
        with self._telling:
            while state not in self._told:
                left = limit - time.monotonic()
                ended = self.process.poll() is not None
                self._telling.wait(max(0.0, min(left, 0.1)))
                if (left <= 0 or ended) and state not in self._told:
                    raise AssertionError(f"not told {state}:\n{self.log.text()}")

    def told(self) -> list[str]:
        """Return every line that the service manager has been told."""
        with self._telling:
            return list(self._told)

    def _hear(self, channel: socket.socket) -> None:
        with channel:
            while data := channel.recv(8192):
                with self._telling:
                    self._told += data.decode().splitlines()
                    self._telling.notify_all()

    def send(self, signum: int) -> None:
        self.process.send_signal(signum)

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        """Return the exit status once the program has ended by itself."""
        try:
            return self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs:\n{self.log.text()}") from None

    def stop(self, signum: int = signal.SIGTERM) -> int:
        self.send(signum)
        return self.wait()

    def workers(self) -> list[int]:
        return children(self.pid)


class Prefork(Daemon):
    """The installed command, started and READY."""

    def __init__(self, *arguments: object, cwd: Path | str | None = None, **environ: str):
        super().__init__([COMMAND, *arguments], cwd=cwd, **environ)

    def __enter__(self) -> Self:
        try:
            self.wait_notified("READY=1")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    @property
    def at(self) -> str:
        return self.log.wait_for(r"master\.listening .*\bat=(\S+)")[1].strip('"')

    @property
    def port(self) -> int:
        return int(self.at.split(",")[0].rpartition(":")[2])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Script(Daemon):
    """A program of a test's own, which prints `PORT n` when it listens."""

    def __init__(self, folder: Path, source: str, **environ):
        path = folder / "program.py"
        path.write_text(source)
        super().__init__([sys.executable, path], cwd=folder, **environ)

    @property
    def port(self) -> int:
        return int(self.out.wait_for(r"^PORT (\d+)$")[1])

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port


class Crowd:
    """Threads that call `ask` all the time while the context lasts; what it raises is a fault."""

    def __init__(self, size: int):
        self.faults: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(size)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)

    def _run(self) -> None:
        kept: dict = {}
        while not self._over.wait(0.005):
            try:
                self.ask(kept)
            except Exception as error:
                self.faults.append(repr(error))
                self.leave(kept)
        self.leave(kept)

    def ask(self, kept: dict) -> None:
        """Ask once. kept: what this thread goes on with, by a name, until a fault."""
        raise NotImplementedError

    def leave(self, kept: dict) -> None:
        """Close what was kept."""
        for thing in kept.values():
            thing.close()
        kept.clear()


def free_port(among: Iterable[int] = range(10_000, 65_536)) -> int:
    """Return a port that is free and stays so: none that the kernel gives to who asks for any."""
    given = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    first, last = map(int, given)
    mine = [port for port in among if not first <= port <= last] or [0]
    for port in random.sample(mine, len(mine)):
        with contextlib.suppress(OSError), socket.create_server(("", port)) as free:
            return free.getsockname()[1]
    raise AssertionError("no port is free")


def children(pid: int) -> list[int]:
    """Return the PIDs of a process's children, oldest first; none if it has ended."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, task.read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return sorted(found)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_gone(pid: int, deadline_s: float = DEADLINE_S) -> None:
    """Wait until a process, ours or not, has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([pidfd], [], [], deadline_s)
        assert ready, f"process {pid} still runs: {title(pid)}"
    finally:
        os.close(pidfd)


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def converse(address, data: bytes = b"", deadline_s: float = DEADLINE_S) -> bytes:
    """Connect, send, and return all that comes until the server closes."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(deadline_s)
        client.connect(address)
        client.sendall(data)
        with contextlib.suppress(OSError):  # it was reset already: reading tells
            client.shutdown(socket.SHUT_WR)
        return read_all(client)


def read_all(client: socket.socket) -> bytes:
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


def backlog(port: int, host: str = "127.0.0.1") -> int:
    """Return how many clients may wait on a TCP port, as the kernel has it."""
    if shutil.which("ss") is None:
        pytest.skip("ss (of iproute2) is not installed")
    told = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in told.splitlines()]
    return next(int(words[2]) for words in lines if words[3] == f"{host}:{port}")


def wait_until(fact, deadline_s: float = DEADLINE_S, what: str = "") -> None:
    """Wait for something that nothing announces, such as a process title; 10 ms a look."""
    limit = time.monotonic() + deadline_s
    pause = threading.Event()
    while not fact():
        assert time.monotonic() < limit, f"never came true: {what or fact}"
        pause.wait(0.01)
