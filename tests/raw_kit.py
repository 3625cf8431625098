"""Clients of the handlers in apps/raw_app.py, and a folder with these and a config."""

import contextlib
import os
import socket
from pathlib import Path

from daemon_kit import Site
from harness import DEADLINE_S

APPS = Path(__file__).parent / "apps"


def raw_site(folder: Path) -> Site:
    return Site(folder, (APPS / "raw_app.py").read_text())


def ports(daemon) -> list[int | str]:
    """Return where each pool listens: a port of 127.0.0.1, or a path."""
    places = daemon.at.split(",")
    return [
        place.removeprefix("unix:") if place.startswith("unix:") else int(place.rpartition(":")[2])
        for place in places
    ]


class Client:
    """A connection, or what datagrams leave from; it says a word and hears the answer."""

    def __init__(self, at: int | str, kind: socket.SocketKind = socket.SOCK_STREAM):
        family = socket.AF_UNIX if isinstance(at, str) else socket.AF_INET
        self.socket = socket.socket(family, kind)
        self.socket.settimeout(DEADLINE_S)
        if family == socket.AF_UNIX and kind == socket.SOCK_DGRAM:
            self.socket.bind(f"\0prefork-test-{os.getpid()}-{id(self)}")
        self.socket.connect(at if isinstance(at, str) else ("127.0.0.1", at))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def say(self, word: str) -> None:
        end = b"" if self.socket.type == socket.SOCK_DGRAM else b"\n"
        self.socket.sendall(word.encode() + end)

    def hear(self) -> str:
        """Return an answer; "" if there will be none."""
        with contextlib.suppress(ConnectionError):
            return self.socket.recv(65536).decode().strip()
        return ""

    def ask(self, word: str) -> str:
        self.say(word)
        return self.hear()

    def who(self) -> tuple[int, int, int]:
        """Return PID, parent's PID and thread of who answers."""
        pid, parent, thread = map(int, self.ask("who").split())
        return pid, parent, thread


def ask(at: int | str, word: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> str:
    with Client(at, kind) as client:
        return client.ask(word)
