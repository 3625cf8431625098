"""Handlers and servers of the stdlib and ours, in threads, and what they answer, compared.

Where a fact holds for the stdlib too, the same test runs on its server, which proves that the test
states what the stdlib does; `same` compares what a handler written for the stdlib sees and sends
there with what it sees and sends here. Not compared: Date, Server, Connection and
Transfer-Encoding, which are the server's business.
"""

# ruff: noqa: N802 # http.server names what it calls

import contextlib
import http.server
import re
import threading
from dataclasses import dataclass, field

from harness import converse

import prefork.http

STDLIB = http.server
OURS = prefork.http

SERVERS = {
    "stdlib": STDLIB.HTTPServer,
    "ours": OURS.HTTPServer,
    "ours-threading": OURS.ThreadingHTTPServer,
}
OUR_SERVERS = {name: server for name, server in SERVERS.items() if name != "stdlib"}

#: What a handler may meet besides the stdlib's server with the stdlib's class.
PLACES = {
    "stdlib-server-our-class": (STDLIB.HTTPServer, OURS),
    "our-server-stdlib-class": (OURS.HTTPServer, STDLIB),
    "our-server-our-class": (OURS.HTTPServer, OURS),
    "our-threading-server-stdlib-class": (OURS.ThreadingHTTPServer, STDLIB),
    "our-threading-server-our-class": (OURS.ThreadingHTTPServer, OURS),
}

VOLATILE = (b"date", b"server", b"connection", b"transfer-encoding")


@contextlib.contextmanager
def serving(server_class, handler):
    """Yield a server that serves in a thread of this process."""
    server = server_class(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(server_class, handler, data: bytes) -> bytes:
    with serving(server_class, handler) as server:
        return converse(server.server_address, data)


def get(path="/", *lines, method="GET", version="HTTP/1.1", body=b"") -> bytes:
    length = [f"Content-Length: {len(body)}"] if body else []
    head = [f"{method} {path} {version}", "Host: here", *length, *lines, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


@dataclass
class Answer:
    line: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""

    @property
    def status(self) -> int:
        return int(self.line.split()[1])

    def __getitem__(self, name: str) -> str:
        (value,) = self.all(name)
        return value

    def all(self, name: str) -> list[str]:
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.fields if key.lower() == wanted]

    def stable(self):
        fields = [pair for pair in self.fields if pair[0].lower() not in VOLATILE]
        return self.line, fields, self.body


def answers(raw: bytes, *methods: str) -> list[Answer]:
    """Return the answers in raw; methods: of the requests, where one is HEAD or CONNECT."""
    found = []
    asked = iter(methods)
    while raw:
        head, end, raw = raw.partition(b"\r\n\r\n")
        assert end, f"no head: {head!r}"
        line, *rest = head.split(b"\r\n")
        assert re.fullmatch(rb"HTTP/1\.[01] [0-9]{3} .*", line), line
        answer = Answer(line, [tuple(re.split(rb": ?", text, maxsplit=1)) for text in rest])
        found.append(answer)
        if answer.status // 100 == 1:
            continue
        if next(asked, "GET") == "HEAD" or answer.status in (204, 304):
            continue
        if answer.all("Transfer-Encoding") == ["chunked"]:
            answer.body, raw = dechunk(raw)
        elif answer.all("Content-Length"):
            length = int(answer["Content-Length"])
            answer.body, raw = raw[:length], raw[length:]
        else:
            answer.body, raw = raw, b""
    return found


def dechunk(raw: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, _, raw = raw.partition(b"\r\n")
        chunk, raw = raw[: int(size, 16)], raw[int(size, 16) :]
        assert raw.startswith(b"\r\n")
        body, raw = body + chunk, raw[2:]
        if not chunk:
            return body, raw


def answer_with(handler, body=b"hello", status=200) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", "text/plain")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def plain(base, name="BaseHTTPRequestHandler"):
    """Return a silent HTTP/1.1 handler class, derived from the one of that name."""

    class Plain(getattr(base, name)):
        protocol_version = "HTTP/1.1"
        error_message_format = "error %(code)d: %(message)s"  # the page differs by version

        def log_message(self, *args):
            pass

    return Plain


def hello(base):
    class Hello(plain(base)):
        def do_GET(self):
            answer_with(self)

    return Hello


@dataclass
class Exchange:
    raw: bytes
    answers: list[Answer]
    seen: list = field(default_factory=list)

    @property
    def stable(self):
        return [answer.stable() for answer in self.answers], self.seen


def comparison(place):
    """Return a function that runs a handler on the stdlib and in this place, and compares.

    make(module, seen) returns the handler: of module, http.server or ours, putting into seen what
    it sees. methods: of the requests.
    """
    here_server, here_module = PLACES[place]

    def run(server_class, module, make, data, methods):
        seen = []
        raw = ask(server_class, make(module, seen), data)
        return Exchange(raw, answers(raw, *methods), seen)

    def compare(make, data, *methods):
        theirs = run(STDLIB.HTTPServer, STDLIB, make, data, methods)
        here = run(here_server, here_module, make, data, methods)
        assert here.stable == theirs.stable
        return here

    return compare


def in_folder(base, folder):
    class Files(plain(base, "SimpleHTTPRequestHandler")):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=folder, **kwargs)

    return Files
