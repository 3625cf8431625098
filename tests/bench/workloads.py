"""What is measured: the requests, how they come, and who answers them."""

import importlib.util
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Self

import commands as run
import peers
import wsgi
from start import HERE, Peer

CONNECTIONS = 32
BIG_CONNECTIONS = 2  # of the file that takes a connection a long time
STREAMS = 8  # likewise, of the answer in pieces
RAW_CLIENTS = 16
#: Of CGI. /proc tells a process's time of dead children in 10 ms: few of Apache's, small an error.
CGI_CONNECTIONS = 8
BODY_BYTES = 1_000_000
SIZES = {"1k": 1_000, "100k": 100_000, "100m": 100_000_000}
GROUPS = ("http", "files", "share", "wsgi", "cgi", "raw")

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

WSGI_PEERS = (run.BJOERN, run.GRANIAN, run.UWSGI, run.WAITRESS, run.GTHREAD, run.GUNICORN)
WSGI = (run.WSGI, *WSGI_PEERS, run.UVICORN)
STDLIB = (run.THREADING, run.FORKING)
FILES = (run.SHARE, run.SIMPLE, run.NGINX, run.STDLIB_FILES)
#: The number in the name of an entry that is listed.
ENTRY = rb"(\d{6})\.(?:pdf|jpg|flac|txt)"
#: Where there is no C compiler to make a program of `hello.c`, which costs the least.
_SCRIPT = r"""#!/bin/sh
printf 'Content-Type: text/plain\r\nContent-Length: 14\r\n\r\nHello, world!\n'
"""


class Transport(Enum):
    """How requests come; the values are modes of `client.py`, but HTTP's."""

    HTTP = "http"
    TCP = "tcp"  # a connection for each
    KEPT = "kept"  # over TCP connections that last
    UDP = "udp"


@dataclass(frozen=True)
class Workload:
    """One request to each of some servers, the first of which the others are compared with.

    answer: the body that must come; None: each server has its own. connections: under way at a
    time. body_bytes: of a POST; 0: it is a GET. idle: how many connections stay open beside, one
    run for each number; slow_path: what these read meanwhile, slowly. varied: each request is for
    another path. app: which of `wsgi.py`. requires: packages without which there is nothing to
    serve. What is not HTTP is `peers.LINE` and its echo.

    Of shares: make: makes its files, once it is known that they are needed. file: what the path
    leads to. entries: of a list. least_bytes: of an answer that is
    the server's own. is_conditional: with the validators of the first answer, for 304. ranges: one
    for each connection. before: called before each sample, of one request for each connection.
    also: fields beside HEADERS, or None instead of one of them. length, note: what the first
    answer has told.
    """

    name: str
    title: str
    peers: tuple[Peer, ...]
    answer: bytes = wsgi.HELLO
    path: str = "/"
    connections: int = CONNECTIONS
    body_bytes: int = 0
    keep_alive: bool = True
    idle: tuple[int, ...] = (0,)
    log: bool = False
    transport: Transport = Transport.HTTP
    varied: bool = False
    app: str = "app"
    requires: tuple[str, ...] = ()
    group: str = "http"
    slow_path: str = ""
    make: Callable[[], None] | None = None
    file: Path | None = None
    entries: int = 0
    least_bytes: int = 0
    is_conditional: bool = False
    ranges: tuple[str, ...] = ()
    before: Callable[[], None] | None = None
    also: Mapping[str, str | None] = field(default_factory=dict)
    length: int = 0
    note: str = ""

    @property
    def headers(self) -> dict[str, str]:
        usual = HEADERS if self.keep_alive else HEADERS | {"Connection": "close"}
        return {name: value for name, value in {**usual, **self.also}.items() if value is not None}

    @property
    def body_length(self) -> int:
        """Return the length of an answer's body."""
        return self.length if self.answer is None else len(self.answer)

    @property
    def request(self) -> bytes:
        """Return what our own clients send; wrk and http.client write the same by themselves."""
        if self.transport is not Transport.HTTP:
            return peers.LINE
        fields = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n".encode()

    @property
    def requests(self) -> list[bytes]:
        """Return the request, or one for each range."""
        if not self.ranges:
            return [self.request]
        return [self.asking({"Range": span}).request for span in self.ranges]

    def asking(self, fields: Mapping[str, str | None]) -> Self:
        """Return it with other fields in its requests."""
        return replace(self, also={**self.also, **fields})

    def asked_of(self, peer: Peer) -> Self:
        """Return it as this peer is asked."""
        return replace(self.asking(peer.headers), path=peer.path.format(self.path))


def all_workloads(site: Path) -> list[Workload]:
    """Return them, by group; the site gets their files."""
    files = [_static(site, name) for name in SIZES]
    return [*_hello(), *_others(), *files, *_wsgi(), _cgi(site), *_raw()]


def no_text(size_bytes: int) -> bytes:
    """Return the content of a file that nobody will compress."""
    return (bytes(range(256)) * (size_bytes // 256 + 1))[:size_bytes]


def _static(site: Path, name: str) -> Workload:
    data = no_text(SIZES[name])
    (site / f"{name}.bin").write_bytes(data)
    return Workload(
        f"static-{name}",
        f"a file of {len(data):,} bytes",
        FILES,
        data,
        f"/{name}.bin",
        BIG_CONNECTIONS if len(data) > 1e6 else CONNECTIONS,
        group="files",
    )


def _hello() -> list[Workload]:
    compared = (run.NGINX, run.BJOERN, run.GRANIAN, *STDLIB)  # wsgi-hello has the others
    return [
        Workload("hello", "hello, inline", (run.HELLO, *compared)),
        Workload(
            "threads",
            "hello, 4 threads",
            (run.HELLO_THREADS, run.GRANIAN_THREADS, run.GTHREAD),
        ),
        Workload(
            "adopted",
            "hello by a handler class of the stdlib",
            (run.ADOPTED, run.ADOPTED_THREADS, run.PREFORKMIXIN_THREADING, *STDLIB),
        ),
        Workload(
            "log",
            "hello, access log to a file",
            (run.HELLO, run.WSGI, run.NGINX, *WSGI_PEERS, *STDLIB),
            log=True,
        ),
    ]


def _others() -> list[Workload]:
    connecting = (run.HELLO, run.WSGI, run.NGINX, *WSGI_PEERS, run.PREFORKMIXIN, *STDLIB)
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
            (run.HELLO, *STDLIB),
            answer=peers.THANKS,
            body_bytes=BODY_BYTES,
        ),
        Workload("memory", "hello, 1 worker and 4", (run.HELLO, run.HELLO_4_WORKERS)),
    ]


def _wsgi() -> list[Workload]:
    threads = (run.WSGI_THREADS, run.WSGI_DEFAULT, run.GRANIAN_THREADS, run.UWSGI_THREADS)
    page = wsgi.rendered() if importlib.util.find_spec("jinja2") else b""
    streamed = b"".join(wsgi.PIECES)
    return [
        Workload("wsgi-hello", "WSGI, hello", WSGI, group="wsgi"),
        Workload(
            "wsgi-threads",
            "WSGI, hello, 4 threads",
            (*threads, run.WAITRESS, run.GTHREAD),
            group="wsgi",
        ),
        Workload(
            "wsgi-paths", "WSGI, hello, each from another path", WSGI, varied=True, group="wsgi"
        ),
        Workload(
            "wsgi-page",
            f"WSGI, a page of {len(page):,} bytes, by a template",
            WSGI,
            page,
            app="page",
            requires=("jinja2",),
            group="wsgi",
        ),
        Workload(
            "wsgi-stream",
            f"WSGI, {len(streamed):,} bytes in {len(wsgi.PIECES)} pieces, no Content-Length",
            WSGI,
            streamed,
            connections=STREAMS,
            app="stream",
            group="wsgi",
        ),
        Workload(
            "wsgi-post",
            f"WSGI, POST of {BODY_BYTES:,} bytes",
            WSGI,
            b"%d" % BODY_BYTES,
            body_bytes=BODY_BYTES,
            app="upload",
            group="wsgi",
        ),
    ]


def _cgi(site: Path) -> Workload:
    folder = site / "cgi-bin"
    folder.mkdir(0o755)
    script = folder / "hello"
    what = _compiled(script)
    if what is None:
        script.write_text(_SCRIPT)
        what = "in sh"
    script.chmod(0o755)
    return Workload(
        "cgi",
        f"CGI, hello, a script {what}",
        (run.CGI_SERVICE, run.CGI, run.APACHE, run.LIGHTTPD, run.STDLIB_CGI),
        path="/cgi-bin/hello",
        connections=CGI_CONNECTIONS,
        group="cgi",
    )


def _compiled(script: Path) -> str | None:
    """Make a program of `hello.c`; tell what it is, None: nothing can be compiled here."""
    command = ["cc", "-O2", "-o", str(script), str(HERE / "hello.c")]
    if shutil.which("cc"):
        for option, what in (("-static", "in C, statically linked"), ("-O2", "in C")):
            done = subprocess.run([*command, option], capture_output=True, check=False)
            if done.returncode == 0:
                return what
    return None


def _raw() -> list[Workload]:
    line = f"of {len(peers.LINE)} bytes"
    each, kept, udp = Transport.TCP, Transport.KEPT, Transport.UDP
    return [
        Workload(
            name,
            title,
            servers,
            peers.LINE,
            connections=RAW_CLIENTS,
            transport=transport,
            group="raw",
        )
        for name, title, servers, transport in (
            ("echo", f"TCP echo {line}, a connection for each", run.ECHO, each),
            ("echo-kept", f"TCP echo {line} on connections that last", run.ECHO_KEPT, kept),
            ("echo-udp", f"UDP echo {line}", run.ECHO_UDP, udp),
        )
    ]
