"""What is measured: the workloads, and the command that starts each peer."""

import sys
from dataclasses import dataclass
from pathlib import Path

import peers

FILE = "file.txt"
FILE_BYTES = 1024

CONNECTIONS = 16
#: What `python -m http.server` is sure to hold: a SYN more is dropped, and sent again a second
#: later, which is all that the figures would show.
STDLIB_QUEUE = 5


@dataclass(frozen=True)
class Peer:
    """A server. port: the regular expression of its port in what it prints."""

    name: str
    command: tuple[str, ...]
    port: str


@dataclass(frozen=True)
class Workload:
    """One request to each of some peers, the first of which the others are compared with.

    connections: under way at a time. path: for an HTTP client; None: not HTTP. request, reply:
    what is sent, and how the answer must end.
    """

    letter: str
    title: str
    connections: int
    path: str | None
    request: bytes
    reply: bytes
    peers: tuple[Peer, ...]


def all_workloads(folder: Path) -> list[Workload]:
    """Return them; the folder gets what they need."""
    site = folder / "site"
    site.mkdir()
    text = b"x" * FILE_BYTES
    (site / FILE).write_bytes(text)
    return [
        Workload(
            "A",
            "HTTP hello (BaseHTTPRequestHandler, no access log), a connection per request",
            CONNECTIONS,
            "/",
            _get("/"),
            peers.HELLO,
            tuple(map(_of_class, peers.HTTP)),
        ),
        Workload(
            "B",
            f"HTTP file of {FILE_BYTES} bytes, access log to a file, a connection per request",
            STDLIB_QUEUE,
            f"/{FILE}",
            _get(f"/{FILE}"),
            text,
            _of_folder(site),
        ),
        Workload(
            "C",
            f"TCP echo of {len(peers.LINE)} bytes (StreamRequestHandler), a connection per request",
            CONNECTIONS,
            None,
            peers.LINE,
            peers.LINE,
            tuple(map(_of_class, peers.TCP)),
        ),
    ]


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()


def _of_class(name: str) -> Peer:
    return Peer(name, (sys.executable, str(Path(peers.__file__)), name), r"^PORT (\d+)$")


def _of_folder(site: Path) -> tuple[Peer, ...]:
    here = ("-b", "127.0.0.1")
    python = (sys.executable, "-m")
    ours = (*python, "prefork", str(site), "0", *here, "-w", str(peers.WORKERS))
    said = r"master\.listening .*\bat=127\.0\.0\.1:(\d+)"
    return (
        Peer(
            "python -m http.server",
            (*python, "http.server", "0", *here, "-d", str(site)),
            r"\bport (\d+)\b",
        ),
        Peer("prefork DIR", ours, said),
    )
