"""A folder with a config and a handler that tells what it finds in its worker."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

from harness import COMMAND, DEADLINE_S, Crowd, Prefork

from prefork.control import remote
from prefork.control.protocol import Status

#: GET /EXPRESSION answers its value as JSON: what a worker is, asked from outside.
APP = """
import json, os, resource, signal, socket, socketserver, sys, threading, time
from pathlib import Path
from urllib.parse import unquote

from prefork.http import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer

imported_by = os.getpid()


class Probe(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answer = "none"
    numbers = [0]

    def do_GET(self):
        value = eval(unquote(self.path[1:]), {**globals(), "self": self})
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = json.dumps(len(self.rfile.read(int(self.headers["Content-Length"])))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Says(Probe):
    def log_message(self, format, *args):
        print("handler says", format % args, file=sys.stderr, flush=True)


def status(name, pid="self"):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return line.split()[1:]


def block(fifo):
    \"\"\"Wait until somebody writes to a FIFO; the other end sees that this one waits.\"\"\"
    with open(fifo) as file:
        return file.read()


class Shout(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper())


class Echo(socketserver.DatagramRequestHandler):
    def handle(self):
        data = self.rfile.read()
        self.wfile.write(data if data else b"nothing")
"""


class Mode(int):
    """Permissions: in TOML 0o660, never decimal."""


def toml(value: object) -> str:
    """Return a value as TOML has it, tables inline."""
    if isinstance(value, Mode):
        return f"0o{value:03o}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(str(value) if isinstance(value, Path) else value)


def table(name: str, keys: dict) -> str:
    """Return a table; without the keys whose value is None."""
    lines = (f"{k} = {toml(v)}" for k, v in keys.items() if v is not None)
    return "\n".join([f"[{name}]", *lines, ""])


class Site:
    """Its config has one pool, `main`, unless more is asked for."""

    def __init__(self, folder: Path, app: str = APP):
        self.folder = folder
        self.config = folder / "site.toml"
        self.which: list[object] = [self.config]
        (folder / "app.py").write_text(app)

    def add_code(self, source: str) -> None:
        with (self.folder / "app.py").open("a") as file:
            file.write("\n\n" + source)

    def write(self, master: dict | None = None, pools: dict[str, dict] | None = None, **main):
        """Write the config. main: keys of the pool `main`; pools: of others."""
        parts = [table("master", {"control": "./control.sock"} | (master or {}))]
        for name, keys in ({"main": main} | (pools or {})).items():
            defaults = {"bind": ["127.0.0.1:0"], "handler": "app:Probe", "path": ["."]}
            if "handler" not in keys:
                defaults["access_log"] = "off"
            parts.append(table(f"server.{name}", defaults | {"workers": 1} | keys))
        self.config.write_text("\n".join(parts))

    def start(self, **environ: str) -> Prefork:
        return Prefork(self.config, cwd=self.folder, **environ)

    def run(self, *words: object, deadline_s: float = 60.0, **more) -> subprocess.CompletedProcess:
        return subprocess.run(
            [COMMAND, *map(str, words)],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=deadline_s,
            check=False,
            **more,
        )

    def ask(self, command: str, *words: object, **more) -> subprocess.CompletedProcess:
        return self.run(command, *self.which, *words, **more)

    def order(self, command: str, *words: object) -> None:
        answer = self.ask(command, *words)
        assert (answer.returncode, answer.stderr) == (0, "")

    def told_status(self) -> dict:
        """Return what `prefork status --json` prints."""
        answer = self.ask("status", "--json")
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    def status(self) -> dict:
        """Return the same, asked without starting a process."""
        return remote.ask(self.folder / "control.sock", Status())["status"]

    def workers(self, pool: int = 0) -> list[dict]:
        return self.status()["pools"][pool]["workers"]


def for_everybody(script: str, scratch: Path) -> list[str]:
    """Return a command for root: a shell's script, run where every user may run prefork.

    An interpreter in root's home is nobody else's: in a namespace of mounts of
    its own, another folder with the same contents takes the place of such a one.
    """
    needed = [COMMAND, Path(sys.executable), Path(sys.executable).resolve(), Path(__file__)]
    parents = {parent for path in needed for parent in path.parents}
    closed = sorted(p for p in parents if not p.stat().st_mode & 0o001)
    lines = []
    for number, folder in enumerate(p for p in closed if not set(p.parents) & set(closed)):
        keep = scratch / f"keep{number}"
        keep.mkdir()
        lines += [f"mount --bind {folder} {keep}", f"mount -t tmpfs -o mode=755 none {folder}"]
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.is_symlink() and any(path in n.parents for n in needed):
                lines += [f"mkdir {path}", f"mount --bind {keep / path.name} {path}"]
    return ["unshare", "--mount", "sh", "-ec", "\n".join([*lines, script])]


class UnixConnection(HTTPConnection):
    """HTTP over a Unix socket; a name that begins with @ is abstract."""

    def __init__(self, path: str):
        super().__init__("localhost", timeout=DEADLINE_S)
        self._path = path.replace("@", "\0", 1) if path.startswith("@") else path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE_S)
        self.sock.connect(self._path)


def connect(at: object) -> HTTPConnection:
    """at: a port of 127.0.0.1, a (host, port), or the path of a Unix socket."""
    if isinstance(at, int):
        at = "127.0.0.1", at
    return HTTPConnection(*at, timeout=DEADLINE_S) if isinstance(at, tuple) else UnixConnection(at)


def fetch(at: object, path: str = "/", method: str = "GET", body=None, **headers: str):
    """Return status, headers and body of one answer."""
    with contextlib.closing(connect(at)) as connection:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body=body, headers=names)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def probe(at: object, expression: str):
    """Return an expression's value in a worker."""
    status, _, body = fetch(at, "/" + quote(expression))
    assert status == 200, body
    return json.loads(body)


class Asking:
    """A request in a thread of its own: some are answered late."""

    def __init__(self, at: object, expression: str):
        self._answer: list = []
        self._thread = threading.Thread(target=self._ask, args=(at, expression), daemon=True)
        self._thread.start()

    def _ask(self, at, expression):
        try:
            self._answer.append(probe(at, expression))
        except Exception as error:
            self._answer.append(error)

    def answer(self):
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "no answer"
        return self._answer[0]


class Load(Crowd):
    """Clients that ask all the time and note what is not a right answer."""

    def __init__(self, at: object, clients: int = 2, expression: str = "os.getpid()"):
        super().__init__(clients)
        self.answers: list = []
        self._at, self._expression = at, expression

    def ask(self, kept: dict) -> None:  # noqa: ARG002 # each is a connection of its own
        self.answers.append(probe(self._at, self._expression))


class Gate:
    """A FIFO that handlers wait at, by `block()`; opening it lets all of them go on."""

    def __init__(self, folder: Path, name: str = "gate"):
        self.path = folder / name
        os.mkfifo(self.path)

    @property
    def expression(self) -> str:
        return f"block({str(self.path)!r})"

    def wait_for_somebody(self) -> "Held":
        """Return when a handler waits; it goes on when what is returned is closed."""
        return Held(self.path)

    def stay_open(self) -> None:
        """Let those go on who wait, and whoever comes from here on."""
        held = self.wait_for_somebody()
        opened = self.path.with_name("opened")
        opened.touch()
        opened.replace(self.path)
        held.let_go()


class Held:
    """The writing end of a FIFO: opening it returns when the reader is there."""

    def __init__(self, path: Path):
        limit = time.monotonic() + DEADLINE_S
        pause = threading.Event()
        while True:
            try:
                self._fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                assert time.monotonic() < limit, "nobody waits"
                pause.wait(0.005)
            else:
                return

    def let_go(self) -> None:
        os.close(self._fd)
