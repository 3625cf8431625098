"""What is measured: the requests, how they come, and who answers them."""

from dataclasses import dataclass
from pathlib import Path

import commands as run
import peers

CONNECTIONS = 32
BIG_CONNECTIONS = 2  # of the file that takes a connection a long time
BODY_BYTES = 1_000_000
SIZES = {"1k": 1_000, "100k": 100_000, "100m": 100_000_000}

#: What a browser sends with a GET; wrk and http.client add Host, the eighth.
HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br",
    "Connection": "keep-alive",
    "Upgrade-Insecure-Requests": "1",
    "Cache-Control": "max-age=0",
}

WSGI = (run.BJOERN, run.GRANIAN, run.UWSGI, run.WAITRESS, run.GTHREAD, run.GUNICORN)
STDLIB = (run.THREADING, run.FORKING)
FILES = (run.FILES, run.NGINX, run.STDLIB_FILES)


@dataclass(frozen=True)
class Workload:
    """One request to each of some servers, the first of which the others are compared with.

    answer: the body that must come. connections: under way at a time. body_bytes: of a POST;
    0: it is a GET. idle: how many connections stay open beside, one run for each number.
    path None: not HTTP, but `peers.LINE` and its echo.
    """

    name: str
    title: str
    peers: tuple[run.Peer, ...]
    answer: bytes = peers.HELLO
    path: str | None = "/"
    connections: int = CONNECTIONS
    body_bytes: int = 0
    keep_alive: bool = True
    idle: tuple[int, ...] = (0,)
    log: bool = False

    @property
    def headers(self) -> dict[str, str]:
        return HEADERS if self.keep_alive else HEADERS | {"Connection": "close"}

    @property
    def request(self) -> bytes:
        """Return what our own clients send; wrk and http.client write the same by themselves."""
        if self.path is None:
            return peers.LINE
        fields = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n".encode()


def all_workloads(site: Path) -> list[Workload]:
    """Return them; the site gets their files."""
    return [*_hello(), *(_static(site, name) for name in SIZES), *_others()]


def _static(site: Path, name: str) -> Workload:
    text = b"x" * SIZES[name]
    (site / f"{name}.txt").write_bytes(text)
    connections = BIG_CONNECTIONS if len(text) > 1e6 else CONNECTIONS
    title = f"a file of {len(text):,} bytes"
    return Workload(f"static-{name}", title, FILES, text, f"/{name}.txt", connections)


def _hello() -> list[Workload]:
    threads = (run.GRANIAN_THREADS, run.UWSGI_THREADS, run.WAITRESS, run.GTHREAD)
    return [
        Workload("hello", "hello, inline", (run.HELLO, run.NGINX, *WSGI, *STDLIB)),
        Workload("threads", "hello, 4 threads", (run.HELLO_THREADS, *threads)),
        Workload(
            "adopted",
            "hello by a handler class of the stdlib",
            (run.ADOPTED, run.ADOPTED_THREADS, run.PREFORKMIXIN_THREADING, *STDLIB),
        ),
        Workload(
            "log",
            "hello, access log to a file",
            (run.HELLO, run.NGINX, *WSGI, *STDLIB),
            log=True,
        ),
    ]


def _others() -> list[Workload]:
    connecting = (run.HELLO, run.NGINX, *WSGI, run.PREFORKMIXIN, *STDLIB)
    return [
        Workload("connect", "hello, a connection for each", connecting, keep_alive=False),
        Workload(
            "idle",
            "hello on one connection beside idle ones",
            (run.HELLO, run.NGINX, run.GRANIAN, run.BJOERN),
            connections=1,
            idle=(0, 1_000, 10_000),
        ),
        Workload(
            "post",
            f"POST of {BODY_BYTES:,} bytes",
            (run.HELLO, *WSGI, *STDLIB),
            answer=peers.THANKS,
            body_bytes=BODY_BYTES,
        ),
        Workload("memory", "hello, 1 worker and 4", (run.HELLO, run.HELLO_4_WORKERS)),
        Workload(
            "echo",
            f"TCP echo of {len(peers.LINE)} bytes, a connection for each (StreamRequestHandler)",
            run.ECHO,
            answer=peers.LINE,
            path=None,
            connections=16,
        ),
    ]
