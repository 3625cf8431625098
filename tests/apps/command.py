"""The command as people start it: for its messages, as a service, in a terminal."""

import io
import os
import pty
import socket
import subprocess
import termios
from pathlib import Path
from typing import NamedTuple, Self

from harness import COMMAND, DEADLINE_S, Daemon, Log, Prefork, read_all

APPS = Path(__file__).parent


class Service(Prefork):
    """The command without a terminal, by default in the folder of these modules, and READY."""

    def __init__(self, *arguments, cwd=APPS, **environ):
        super().__init__(*arguments, cwd=cwd, **environ)


class Terminal(Prefork):
    """The command in a terminal of its own, and READY; `screen` is what a person sees there.

    size: rows and columns; None: the terminal does not know.
    """

    def __init__(self, *arguments, cwd=APPS, size=None, **environ):
        self._keyboard, self._theirs = pty.openpty()
        if size is not None:
            termios.tcsetwinsize(self._theirs, size)
        # A session's leader that opens a terminal gets it as its own, Ctrl-C included.
        script = 'tty=$1; shift; exec "$@" 0<>"$tty" 1>&0 2>&0'
        command = ["sh", "-c", script, "sh", os.ttyname(self._theirs)]
        command += [str(COMMAND), *arguments]
        Daemon.__init__(self, command, cwd=cwd, **environ)
        self.screen = Log(io.FileIO(self._keyboard))

    def __enter__(self) -> Self:
        super().__enter__()
        self._let_go()
        return self

    def __exit__(self, kind, error, trace):
        self._let_go()
        super().__exit__(kind, error, trace)
        seen = self.screen.wait_closed()
        if error is not None:
            print("\n".join(seen))

    def type(self, keys: bytes) -> None:
        os.write(self._keyboard, keys)

    def _let_go(self) -> None:
        """Leave the terminal to the command alone: its end is the end of the screen."""
        if self._theirs >= 0:
            os.close(self._theirs)
            self._theirs = -1


def run(*arguments, cwd=None, prefix=(), stdin=subprocess.DEVNULL, **environ):
    """Run the command to its end; return its CompletedProcess, both outputs as text."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "NOTIFY_"))}
    return subprocess.run(
        [*prefix, COMMAND, *arguments],
        check=False,
        cwd=cwd,
        env=env | environ,
        stdin=stdin,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=DEADLINE_S,
    )


class Answer(NamedTuple):
    line: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def status(self) -> int:
        return int(self.line.split()[1])

    def all(self, name: str) -> list[str]:
        return [value for known, value in self.headers if known.lower() == name.lower()]


def talk(address, data: bytes) -> bytes:
    """Connect to (host, port), of any family, or to a path; send; return all that comes."""
    if isinstance(address, str):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(DEADLINE_S)
        client.connect(address)
    else:
        client = socket.create_connection(address, DEADLINE_S)
    with client:
        client.sendall(data)
        return read_all(client)


def get(address, path: str = "/", *headers: str, method: str = "GET") -> Answer:
    """Ask once, by HTTP/1.0, and return the answer as it was on the wire."""
    lines = [f"{method} {path} HTTP/1.0", *headers, "", ""]
    head, _, body = talk(address, "\r\n".join(lines).encode()).partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    pairs = [(name, value.strip()) for name, _, value in (f.partition(":") for f in fields)]
    return Answer(line, pairs, body)
