"""A folder of CGI scripts that every user may run, and servers for it in threads."""

import contextlib
import functools
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from harness import is_alive
from http_kit import OURS, answers, get, serving
from http_rig import Client

HELLO = """
echo Content-Type: text/plain
echo
echo hello
"""

#: Where programs are that every user may run: root's scripts are nobody's.
PROGRAMS = "/usr/local/bin:/usr/bin:/bin"


def program(name: str) -> str:
    """Return the path of a program, or skip."""
    found = shutil.which(name, path=PROGRAMS)
    if found is None:
        pytest.skip(f"there is no {name} in {PROGRAMS}")
    return found


class Scripts:
    """folder: what is shared. script(): makes one in cgi-bin."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.cgi_bin = folder / "cgi-bin"
        self.cgi_bin.mkdir()

    def script(self, name: str, source: str, interpreter: str = "/bin/sh", mode: int = 0o755):
        path = self.cgi_bin / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!{interpreter}\n{source}")
        path.chmod(mode)
        return path

    def fifo(self, name: str) -> Path:
        path = self.folder / name
        os.mkfifo(path)
        path.chmod(0o666)
        return path

    def handler(self, **variables):
        """Return a silent handler class for the folder."""

        class Handler(OURS.CGIHTTPRequestHandler):
            def log_message(self, *args):
                pass

        for key, value in variables.items():
            setattr(Handler, key, value)
        return functools.partial(Handler, directory=str(self.folder))

    def serving(self, server_class=OURS.ThreadingHTTPServer, **variables):
        return serving(server_class, self.handler(**variables))


@contextlib.contextmanager
def scripts_for_everybody():
    with tempfile.TemporaryDirectory(prefix="prefork-test-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield Scripts(folder)


@contextlib.contextmanager
def client(server, **options):
    with Client(server.server_address, **options) as found:
        yield found


def ask(server, path="/cgi-bin/hello", *lines, **options):
    """Return the one answer to one request, read until the server closes."""
    with client(server) as one:
        one.send(get(path, *lines, "Connection: close", **options))
        (answer,) = answers(one.file.read(), options.get("method", "GET"))
        return answer


def end(pid: int) -> None:
    """End a process that a test has made a script leave behind."""
    if is_alive(pid):
        os.kill(pid, signal.SIGKILL)
