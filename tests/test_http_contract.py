"""The contract of http.server, row by row, on real sockets.

Where a row holds for the stdlib too, the same test runs on its server, which proves that the test
states what the stdlib does; `same` compares what a handler written for the stdlib sees and sends
there with what it sees and sends here. Not compared: Date, Server, Connection and
Transfer-Encoding, which are the server's business.
"""

import contextlib
import email.message
import functools
import http.client
import http.server
import io
import os
import re
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from harness import DEADLINE_S, Daemon, Script, converse, read_all

import prefork.http
import prefork.socketserver

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


@pytest.fixture(params=SERVERS)
def server_class(request):
    return SERVERS[request.param]


@pytest.fixture(params=OUR_SERVERS)
def our_server_class(request):
    return OUR_SERVERS[request.param]


@dataclass
class Exchange:
    raw: bytes
    answers: list[Answer]
    seen: list = field(default_factory=list)

    @property
    def stable(self):
        return [answer.stable() for answer in self.answers], self.seen


@pytest.fixture(params=PLACES)
def same(request):
    """Return a function that runs a handler on the stdlib and here, and compares.

    make(module, seen) returns the handler: of module, http.server or ours, putting into seen what
    it sees. methods: of the requests.
    """
    place, module = PLACES[request.param]

    def run(server_class, base, make, data, methods):
        seen = []
        raw = ask(server_class, make(base, seen), data)
        return Exchange(raw, answers(raw, *methods), seen)

    def compare(make, data, *methods):
        theirs = run(STDLIB.HTTPServer, STDLIB, make, data, methods)
        here = run(place, module, make, data, methods)
        assert here.stable == theirs.stable
        return here

    return compare


# -- C. HTTPServer and friends -------------------------------------------------


def test_server_name_and_port_are_the_bound_address(server_class):
    with server_class(("127.0.0.1", 0), hello(STDLIB)) as server:
        assert server.server_port == server.socket.getsockname()[1] > 0
        assert server.server_address == ("127.0.0.1", server.server_port)
        assert server.server_name == socket.getfqdn("127.0.0.1")


def test_a_threading_server_is_not_held_up_by_spare_connections():
    assert OURS.ThreadingHTTPServer.daemon_threads is True
    assert issubclass(OURS.ThreadingHTTPServer, socketserver.ThreadingMixIn)
    with serving(OURS.ThreadingHTTPServer, hello(OURS)) as server:
        spare = [socket.create_connection(server.server_address, DEADLINE_S) for _ in range(8)]
        assert answers(converse(server.server_address, get()))[0].body == b"hello"
        for client in spare:
            client.close()


def test_our_servers_are_the_stdlibs():
    assert issubclass(OURS.HTTPServer, STDLIB.HTTPServer)
    assert issubclass(OURS.ThreadingHTTPServer, OURS.HTTPServer)
    assert issubclass(OURS.ThreadingHTTPServer, STDLIB.HTTPServer)


@pytest.mark.parametrize("reuse", [True, False])
def test_allow_reuse_address_decides_on_the_sockets_option(server_class, reuse):
    assert server_class.allow_reuse_address
    variables = {} if reuse else {"allow_reuse_address": False}
    kind = type("Server", (server_class,), variables)
    with kind(("127.0.0.1", 0), hello(STDLIB)) as server:
        assert server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == reuse


@pytest.mark.parametrize("size", [1, 7])
def test_request_queue_size_is_the_sockets(server_class, size):
    kind = type("Server", (server_class,), {"request_queue_size": size})
    with kind(("127.0.0.1", 0), hello(STDLIB)) as server:
        info = server.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
        assert struct.unpack("8B6I", info)[13] == size  # tcpi_sacked: the backlog of a listener


def test_service_actions_are_called_while_serving(server_class):
    turned = threading.Event()
    kind = type("Server", (server_class,), {"service_actions": lambda _: turned.set()})
    with serving(kind, hello(STDLIB)):
        assert turned.wait(DEADLINE_S)


def test_handle_request_serves_one_connection_in_the_calling_process(server_class):
    served = []

    class Handler(hello(STDLIB)):
        def do_GET(self):
            served.append(threading.get_ident())
            super().do_GET()
            self.close_connection = True

    with server_class(("127.0.0.1", 0), Handler) as server:
        for count in (1, 2):
            with socket.create_connection(server.server_address, DEADLINE_S) as client:
                client.sendall(get())
                server.handle_request()
                assert answers(read_all(client))[0].body == b"hello"
            assert len(served) == count


@pytest.mark.parametrize("where", ["class variable", "socket"])
def test_handle_request_calls_handle_timeout_when_nobody_comes(server_class, where):
    calls = []
    variables = {"handle_timeout": lambda _: calls.append("timeout")}
    if where == "class variable":
        variables["timeout"] = 0.01
    kind = type("Server", (server_class,), variables)
    with kind(("127.0.0.1", 0), hello(STDLIB)) as server:
        if where == "socket":
            server.socket.settimeout(0.01)
        server.handle_request()
    assert calls == ["timeout"]


SERVER_HOOKS = (
    "get_request",
    "verify_request",
    "process_request",
    "finish_request",
    "shutdown_request",
    "close_request",
)


def test_the_servers_hooks_are_called_once_a_connection_in_the_stdlibs_order(server_class):
    seen = []

    def spy(name):
        def hook(self, *args):
            seen.append((name, len(args)))
            return getattr(server_class, name)(self, *args)

        return hook

    kind = type("Server", (server_class,), {name: spy(name) for name in SERVER_HOOKS})
    with serving(kind, hello(STDLIB)) as server:
        raw = converse(server.server_address, get() * 3)
        assert len(answers(raw)) == 3
    counts = {"get_request": 0, "shutdown_request": 1, "close_request": 1}
    assert seen == [(name, counts.get(name, 2)) for name in SERVER_HOOKS]


def test_a_request_that_is_not_verified_is_closed_unanswered(server_class):
    kind = type("Server", (server_class,), {"verify_request": lambda *_: False})
    assert ask(kind, hello(STDLIB), b"") == b""


def test_finish_request_may_give_the_handler_arguments(server_class, tmp_path):
    (tmp_path / "file").write_text("found")

    class Server(server_class):
        def finish_request(self, request, client_address):
            self.RequestHandlerClass(request, client_address, self, directory=tmp_path)

    raw = ask(Server, plain(STDLIB, "SimpleHTTPRequestHandler"), get("/file"))
    assert answers(raw)[0].body == b"found"


def test_the_handler_class_of_a_server_may_be_replaced(server_class):
    with serving(server_class, hello(STDLIB)) as server:
        assert answers(converse(server.server_address, get()))[0].body == b"hello"

        class Other(plain(STDLIB)):
            def do_GET(self):
                answer_with(self, b"other")

        server.RequestHandlerClass = Other
        assert answers(converse(server.server_address, get()))[0].body == b"other"


def test_an_exception_in_a_handler_reaches_handle_error_and_the_server_goes_on(server_class):
    errors = []

    class Server(server_class):
        def handle_error(self, request, client_address):
            errors.append((type(request), len(client_address), repr(sys.exception())))

    class Handler(hello(STDLIB)):
        def do_BREAK(self):
            raise ValueError("no good")

    with serving(Server, Handler) as server:
        raw = converse(server.server_address, get(method="BREAK"))
        assert not raw or answers(raw)[0].status == 500
        assert answers(converse(server.server_address, get()))[0].body == b"hello"
    ((kind, length, error),) = errors
    assert issubclass(kind, socket.socket)
    assert (length, error) == (2, "ValueError('no good')")


def test_the_default_handle_error_prints_client_and_traceback(server_class, capsys):
    class Handler(plain(STDLIB)):
        def do_GET(self):
            raise ValueError("no good")

    ask(server_class, Handler, get())
    said = capsys.readouterr().err
    assert re.search(r"^Exception occurred during processing of request from \('127", said, re.M)
    assert re.search(r"^ValueError: no good$", said, re.M)
    assert said.count("ValueError: no good") == 1


def test_the_client_sees_the_end_though_somebody_holds_the_socket(server_class):
    held = []

    class Handler(hello(STDLIB)):
        def do_GET(self):
            held.append(self.request.dup())
            super().do_GET()
            self.close_connection = True

    with serving(server_class, Handler) as server:
        with socket.create_connection(server.server_address, DEADLINE_S) as client:
            client.sendall(get())
            assert answers(read_all(client))[0].body == b"hello"
        held[0].close()


def test_a_forking_server_keeps_to_max_children(tmp_path):
    source = """
import os, socketserver, sys
from pathlib import Path
import prefork.http

class Handler(prefork.http.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response_only(102)
        self.end_headers()
        self.wfile.flush()
        self.rfile.read(1)
        Path("first").touch()
        self.answer(b"first")
    def do_GET(self):
        self.answer(b"%d" % Path("first").exists())
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", len(body))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

class Server(socketserver.ForkingMixIn, prefork.http.HTTPServer):
    max_children = 1

server = Server(("127.0.0.1", 0), Handler)
print("PORT", server.server_port, flush=True)
server.serve_forever()
"""
    with Script(tmp_path, source) as program:
        with socket.create_connection(program.address, DEADLINE_S) as first:
            first.sendall(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 1\r\n\r\n")
            assert first.recv(65536).startswith(b"HTTP/1.1 102 ")
            with socket.create_connection(program.address, DEADLINE_S) as second:
                second.sendall(get())
                first.sendall(b"x")
                assert answers(read_all(first))[0].body == b"first"
                assert answers(read_all(second))[0].body == b"1"  # it began when the first was over


# -- B. socketserver's handlers ------------------------------------------------


@pytest.mark.parametrize("kind", [socketserver.UDPServer, prefork.socketserver.PreforkUDPServer])
def test_a_datagram_may_be_of_max_packet_size(kind):
    assert kind.max_packet_size == 8192
    got = []

    class Handler(socketserver.DatagramRequestHandler):
        def handle(self):
            got.append(len(self.rfile.read()))

    server = kind(("127.0.0.1", 0), Handler)
    with server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"x" * 8192, server.server_address)
        server.handle_request()
    assert got == [8192]


TCP_SERVERS = [
    socketserver.TCPServer,
    prefork.socketserver.PreforkTCPServer,
    OURS.HTTPServer,
    OURS.ThreadingHTTPServer,
]


@pytest.mark.parametrize("where", ["handle", "setup", "nowhere"])
@pytest.mark.parametrize("kind", TCP_SERVERS)
def test_finish_is_called_unless_setup_raises(kind, where):
    seen = []
    over = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        def setup(self):
            super().setup()
            if where == "setup":
                raise ValueError

        def handle(self):
            seen.append("handle")
            if where == "handle":
                raise ValueError

        def finish(self):
            super().finish()
            seen.append(("finish", self.wfile.closed, self.rfile.closed))

    class Server(kind):
        def handle_error(self, request, client_address):
            seen.append("error")

        def close_request(self, request):
            super().close_request(request)
            over.set()

    server = Server(("127.0.0.1", 0), Handler)
    with server, socket.create_connection(server.server_address, DEADLINE_S):
        server.handle_request()
        assert over.wait(DEADLINE_S)
    finish = ("finish", True, True)
    assert (
        seen
        == {
            "handle": ["handle", finish, "error"],
            "setup": ["error"],
            "nowhere": ["handle", finish],
        }[where]
    )


def test_finish_sends_what_a_buffered_wfile_holds(same):
    def make(base, seen):
        class Handler(plain(base)):
            wbufsize = 1 << 16

            def do_GET(self):
                seen.append(type(self.wfile).__name__)
                self.close_connection = True
                answer_with(self)

            def handle(self):
                self.raw_requestline = self.rfile.readline()
                self.parse_request()
                self.do_GET()

            def finish(self):
                wfile, rfile = self.wfile, self.rfile
                super().finish()
                seen.append((wfile.closed, rfile.closed))

        return Handler

    here = same(make, get())
    assert here.answers[0].body == b"hello"
    assert here.seen == ["BufferedWriter", (True, True)]


def test_disable_nagle_algorithm_is_heeded(server_class):
    seen = []

    class Handler(hello(STDLIB)):
        disable_nagle_algorithm = True

        def do_GET(self):
            seen.append(self.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            super().do_GET()

    ask(server_class, Handler, get())
    assert seen[0] != 0


def test_a_handlers_timeout_ends_an_idle_connection(server_class):
    class Handler(hello(STDLIB)):
        timeout = 0.05

    with serving(server_class, Handler) as server:
        for data in (b"", get()[:20], get()):
            with socket.create_connection(server.server_address, DEADLINE_S) as client:
                client.sendall(data)
                raw = read_all(client)  # to the server's end: the client has not ended its side
                assert raw.endswith(b"hello") == (data == get())


def test_a_timeout_in_a_handler_is_logged_and_ends_the_connection(server_class):
    logged, errors = [], []

    class Server(server_class):
        def handle_error(self, request, client_address):
            errors.append(sys.exception())

    class Handler(hello(STDLIB)):
        timeout = 0.05

        def do_POST(self):
            self.rfile.read(5)

        def log_error(self, format, *args):  # noqa: A002 # the stdlib's name
            logged.append((format, [type(arg) for arg in args]))

    with (
        serving(Server, Handler) as server,
        socket.create_connection(server.server_address, DEADLINE_S) as client,
    ):
        client.sendall(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\n1")
        read_all(client)
    assert logged == [("Request timed out: %r", [TimeoutError])]
    assert errors == []


def test_a_handlers_own_timeout_error_is_no_error_of_the_server(same):
    def make(base, seen):
        class Handler(plain(base)):
            def do_GET(self):
                raise TimeoutError("mine")

            def log_error(self, *args):
                seen.append((args[0], repr(args[1])))

        return Handler

    here = same(lambda base, seen: make(base, seen), get() * 2)
    assert here.seen == [("Request timed out: %r", "TimeoutError('mine')")]
    assert here.raw == b""


def test_the_server_flushes_a_buffered_wfile_after_each_request(same):
    def make(base, seen):
        class Handler(hello(base)):
            wbufsize = -1

            def do_GET(self):
                seen.append(isinstance(self.wfile, io.BufferedWriter))
                super().do_GET()

        return Handler

    here = same(make, get() * 2)
    assert [answer.body for answer in here.answers] == [b"hello"] * 2
    assert here.seen == [True, True]
