"""The contract of http.server, row by row: servers, handlers, and what users override in them."""

# ruff: noqa: N802, ARG001, ARG002 # http.server and http_kit name what they call, and its arguments

import email.message
import functools
import http.client
import io
import re
import select
import socket
import socketserver
import struct
import sys
import threading
import time

import pytest
from harness import DEADLINE_S, Script, converse, read_all
from http_kit import (
    OUR_SERVERS,
    OURS,
    PLACES,
    SERVERS,
    STDLIB,
    answer_with,
    answers,
    ask,
    comparison,
    get,
    hello,
    in_folder,
    plain,
    serving,
)

import prefork.socketserver


@pytest.fixture(params=SERVERS)
def server_class(request):
    return SERVERS[request.param]


@pytest.fixture(params=OUR_SERVERS)
def our_server_class(request):
    return OUR_SERVERS[request.param]


@pytest.fixture(params=PLACES)
def same(request):
    return comparison(request.param)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"text")
    (tmp_path / "listed").mkdir()
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.htm").write_bytes(b"<p>old")
    (tmp_path / "large.bin").write_bytes(bytes(range(256)) * 4096)
    return tmp_path


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
    assert re.search(
        r"^Exception occurred during processing of request from \('127", said, re.MULTILINE
    )
    assert re.search(r"^ValueError: no good$", said, re.MULTILINE)
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
    with (
        Script(tmp_path, source) as program,
        socket.create_connection(program.address, DEADLINE_S) as first,
    ):
        first.sendall(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 1\r\n\r\n")
        assert first.recv(65536).startswith(b"HTTP/1.1 102 ")
        with socket.create_connection(program.address, DEADLINE_S) as second:
            second.sendall(get())
            assert select.select([second], [], [], 0.2)[0] == []  # its turn has not come
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
    with server, socket.create_connection(server.server_address, DEADLINE_S) as client:
        client.sendall(b"x")
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


def test_a_timeout_error_in_a_handler_with_a_timeout_is_logged_and_ends_the_connection(same):
    def make(base, seen):
        class Handler(plain(base)):
            timeout = 30.0

            def do_GET(self):
                raise TimeoutError("mine")

            def log_error(self, *args):
                seen.append((args[0], repr(args[1])))

        return Handler

    here = same(make, get() * 2)
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


# -- D. what a handler finds in its instance -----------------------------------


def test_the_request_is_in_the_instances_variables(same):
    def make(base, seen):
        class Handler(hello(base)):
            def do_GET(self):
                seen.append((self.raw_requestline, self.requestline, self.command, self.path))
                seen.append((self.request_version, self.close_connection))
                seen.append((self.client_address[0], type(self.client_address).__name__))
                seen.append(self.request is self.connection)
                seen.append(issubclass(self.server.RequestHandlerClass, Handler))
                super().do_GET()

        return Handler

    here = same(make, get("//a//b?c=%20d#e", "Connection: close"))
    assert here.seen == [
        (
            b"GET //a//b?c=%20d#e HTTP/1.1\r\n",
            "GET //a//b?c=%20d#e HTTP/1.1",
            "GET",
            "/a//b?c=%20d#e",
        ),
        ("HTTP/1.1", True),
        ("127.0.0.1", "tuple"),
        True,
        True,
    ]


def test_headers_are_a_real_message(same):
    def make(base, seen):
        class Handler(hello(base)):
            def do_GET(self):
                fields = self.headers
                seen.append((isinstance(fields, http.client.HTTPMessage), type(fields).__name__))
                seen.append((fields.items(), fields.keys(), fields.values(), len(fields)))
                seen.append((fields["x-one"], fields.get("X-NONE"), fields.get("X-None", 7)))
                seen.append((fields.get_all("x-two"), fields.get_all("x-none"), "X-Two" in fields))
                seen.append((fields.get_content_type(), fields.get_content_maintype()))
                seen.append((fields.get_param("q"), fields.get_content_charset(), str(fields)))
                seen.append((bytes(fields), fields.as_string(), list(fields), fields.defects))
                seen.append((fields.is_multipart(), fields.get_payload(), fields.preamble))
                seen.append(fields.getallmatchingheaders("x-two"))
                fields["X-New"] = "1"
                del fields["x-one"]
                fields.replace_header("x-two", "z")
                seen.append((fields.items(), fields.raw_items().__class__.__name__))
                super().do_GET()

        return Handler

    lines = ["X-One:  1", "x-two: a", "X-Two: b\xe9", "Content-Type: text/x; q=1; charset=UTF-8"]
    here = same(make, get("/", *lines))
    assert here.seen[0] == (True, "HTTPMessage")
    assert here.seen[2] == ("1", None, 7)
    assert here.seen[3] == (["a", "b\xe9"], None, True)


def test_headers_of_one_request_are_not_those_of_the_next(same):
    def make(base, seen):
        class Handler(hello(base)):
            def do_GET(self):
                seen.append(self.headers.items())
                super().do_GET()

        return Handler

    here = same(make, get("/", "A: 1") + get("/", "B: 2") + get())
    assert here.seen == [
        [("Host", "here"), ("A", "1")],
        [("Host", "here"), ("B", "2")],
        [("Host", "here")],
    ]


@pytest.mark.parametrize(
    "kind", ["multipart/form-data; boundary=cut", "message/rfc822", "multipart/mixed"]
)
def test_headers_of_multipart_and_message_types_are_those_of_the_email_parser(same, kind):
    def make(base, seen):
        class Handler(hello(base)):
            def do_POST(self):
                seen.append((self.headers.items(), self.headers.get_content_type()))
                seen.append((self.headers.get_boundary(), self.headers.is_multipart()))
                seen.append([type(defect).__name__ for defect in self.headers.defects])
                seen.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.do_GET()

        return Handler

    body = b"--cut\r\n\r\nx\r\n--cut--\r\n"
    here = same(make, get("/", f"Content-Type: {kind}", method="POST", body=body))
    assert here.seen[0][1] == kind.partition(";")[0]
    assert here.seen[-1] == body


def test_headers_and_other_variables_can_be_replaced_and_deleted(same):
    def make(base, seen):
        class Handler(hello(base)):
            def do_GET(self):
                self.headers = {"mine": "1"}
                self.requestline = "changed"
                self.path = "/changed"
                seen.append((self.headers, self.requestline, self.path))
                del self.headers
                seen.append(hasattr(self, "headers"))
                super().do_GET()

        return Handler

    here = same(make, get() * 2)
    assert here.seen == [({"mine": "1"}, "changed", "/changed"), False] * 2


def test_a_message_class_of_the_handlers_own_is_used(same):
    class Mine(email.message.Message):
        pass

    def make(base, seen):
        class Handler(hello(base)):
            MessageClass = Mine

            def do_GET(self):
                seen.append((type(self.headers) is Mine, self.headers.items()))
                super().do_GET()

        return Handler

    here = same(make, get("/", "A: 1"))
    assert here.seen == [(True, [("Host", "here"), ("A", "1")])]


def test_rfile_is_a_buffered_reader_with_all_its_methods(same):
    def make(base, seen):
        class Handler(hello(base)):
            def do_POST(self):
                seen.append((isinstance(self.rfile, io.BufferedReader), self.rfile.readable()))
                seen.append(self.rfile.fileno() == self.connection.fileno())
                seen.append(isinstance(self.rfile.raw, io.RawIOBase))
                seen.append(self.rfile.peek(1)[:2])
                seen.append((self.rfile.read1(2), self.rfile.read(3), self.rfile.readline()))
                target = bytearray(4)
                seen.append((self.rfile.readinto(target), bytes(target)))
                seen.append(self.rfile.readlines(2))
                self.do_GET()

        return Handler

    body = b"abcdefgh\nijklmn\n"
    here = same(make, get(method="POST", body=body) + get())
    assert here.seen[3:5] == [b"ab", (b"ab", b"cde", b"fgh\n")]
    assert here.seen[5:] == [(4, b"ijkl"), [b"mn\n"]]
    assert [answer.body for answer in here.answers] == [b"hello"] * 2


def test_a_body_is_read_and_the_next_request_follows_it(same):
    def make(base, seen):
        class Handler(hello(base)):
            def do_PUT(self):
                answer_with(self, self.rfile.read(int(self.headers["Content-Length"]))[::-1])

        return Handler

    big = bytes(range(256)) * 1000
    here = same(make, get(method="PUT", body=b"GET / HTTP/1.1") + get(method="PUT", body=big))
    assert [answer.body for answer in here.answers] == [b"1.1/PTTH / TEG", big[::-1]]


def test_wfile_writes_return_the_number_of_bytes(same):
    def make(base, seen):
        class Handler(plain(base)):
            def do_GET(self):
                answer_with(self, b"", 204)
                self.close_connection = True

            def do_LONG(self):
                self.send_response(200)
                self.send_header("Content-Length", "10")
                self.end_headers()
                seen.append(self.wfile.write(b"ab"))
                seen.append(self.wfile.write(memoryview(b"cdef")))
                seen.append(self.wfile.write(bytearray(b"gh")))
                seen.append(self.wfile.write(memoryview(struct.pack("H", 0x6A69))))
                seen.append((self.wfile.writable(), self.wfile.fileno() == self.request.fileno()))
                seen.append((self.wfile.flush(), self.wfile.closed))

        return Handler

    here = same(make, get(method="LONG"))
    assert here.seen == [2, 4, 2, 2, (True, True), (None, False)]
    assert here.answers[0].body == b"abcdefghij"


def test_attributes_last_as_long_as_the_connection(same):
    def make(base, seen):
        class Handler(plain(base)):
            count = 0

            def do_GET(self):
                self.count += 1
                answer_with(self, b"%d" % self.count)

        return Handler

    here = same(make, get() * 4)
    assert [answer.body for answer in here.answers] == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize(
    ("version", "lines", "value", "count"),
    [
        ("HTTP/1.1", [], True, 1),
        ("HTTP/1.1", [], 1, 1),
        ("HTTP/1.1", [], None, 3),
        ("HTTP/1.1", ["Connection: close"], None, 1),
        ("HTTP/1.1", ["Connection: Close"], None, 1),
        ("HTTP/1.0", [], None, 1),
        ("HTTP/1.0", ["Connection: keep-alive"], None, 3),
        ("HTTP/1.0", ["Connection: Keep-Alive"], None, 3),
    ],
)
def test_close_connection_decides_whether_there_is_a_next_request(
    same, version, lines, value, count
):
    def make(base, seen):
        class Handler(hello(base)):
            def do_GET(self):
                seen.append(bool(self.close_connection))
                super().do_GET()
                if value is not None:
                    self.close_connection = value

        return Handler

    assert len(same(make, get("/", *lines, version=version) * 3).answers) == count


@pytest.mark.parametrize(
    ("sends", "count"), [("close", 1), ("Close", 1), ("keep-alive", 3), ("x", 3)]
)
def test_a_connection_header_that_is_sent_decides_too(same, sends, count):
    def make(base, seen):
        class Handler(plain(base)):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.send_header("Connection", sends)
                self.end_headers()

        return Handler

    here = same(make, get() * 3)
    assert len(here.answers) == count
    assert sends in here.answers[0].all("Connection")


def test_a_handler_of_the_stdlibs_default_protocol_closes_after_one_answer(our_server_class):
    class Handler(STDLIB.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"until the end")

        def log_message(self, *args):
            pass

    (answer,) = answers(ask(our_server_class, Handler, get() * 2))
    assert answer.line == b"HTTP/1.0 200 OK"
    assert answer.body == b"until the end"


# -- E and F. class variables and methods --------------------------------------


def test_hooks_that_name_the_server_and_the_date_are_asked(server_class):
    class Handler(hello(STDLIB)):
        server_version = property(lambda self: f"Mine/{self.path[1:]}")
        sys_version = ""

        def date_time_string(self, timestamp=None):
            return f"today {timestamp}"

    (answer,) = answers(ask(server_class, Handler, get("/7")))
    assert answer["Server"] == "Mine/7 "
    assert answer["Date"] == "today None"


@pytest.mark.parametrize("module", [STDLIB, OURS])
def test_version_string_is_both_versions(server_class, module):
    (answer,) = answers(ask(server_class, hello(module), get()))
    kind = module.BaseHTTPRequestHandler
    assert kind.sys_version == f"Python/{sys.version.split()[0]}"
    assert answer["Server"] == f"{kind.server_version} {kind.sys_version}"


def test_the_date_is_now(server_class):
    (answer,) = answers(ask(server_class, hello(STDLIB), get()))
    sent = time.mktime(time.strptime(answer["Date"], "%a, %d %b %Y %H:%M:%S GMT")) - time.timezone
    assert abs(sent - time.time()) < 30


@pytest.mark.parametrize("module", [STDLIB, OURS])
def test_the_log_says_who_when_and_what(server_class, module, capsys, monkeypatch):
    class Handler(module.BaseHTTPRequestHandler):
        def do_GET(self):
            answer_with(self)

    monkeypatch.setenv("NO_COLOR", "1")
    ask(server_class, Handler, get("/a"))
    said = capsys.readouterr().err
    line = re.fullmatch(r'127\.0\.0\.1 - - \[(.*)\] "GET /a HTTP/1\.1" 200 -\n', said)
    assert line, said
    logged = time.mktime(time.strptime(line[1], "%d/%b/%Y %H:%M:%S"))
    assert abs(logged - time.time()) < 30


def test_log_message_gets_the_line_the_status_and_the_size(same):
    def make(base, seen):
        class Handler(hello(base)):
            def log_message(self, format, *args):  # noqa: A002 # the stdlib's name
                seen.append((format, args, [type(arg).__name__ for arg in args]))

        return Handler

    here = same(make, get("/x") + get(method="NONE"))
    kinds = ["str", "str", "str"]
    assert here.seen[0] == ('"%s" %s %s', ("GET /x HTTP/1.1", "200", "-"), kinds)
    assert here.seen[1][:2] == ("code %d, message %s", (501, "Unsupported method ('NONE')"))
    assert here.seen[2] == ('"%s" %s %s', ("NONE / HTTP/1.1", "501", "-"), kinds)


def test_an_unknown_method_is_not_implemented_and_post_is_no_exception(same):
    for method in ("POST", "get", "BREW"):
        here = same(lambda base, _: plain(base, "SimpleHTTPRequestHandler"), get(method=method))
        assert here.answers[0].line == f"HTTP/1.1 501 Unsupported method ('{method}')".encode()
        assert here.answers[0].body == f"error 501: Unsupported method ('{method}')".encode()


def test_the_headers_buffer_is_a_list_with_an_item_a_header(same):
    def make(base, seen):
        class Handler(plain(base)):
            def do_GET(self):
                self.send_response(203, "Fine")
                self.send_header("X-Int", 1)
                self.send_header("Content-Length", 2)
                kept = self._headers_buffer
                seen.append((type(kept), len(kept), kept[0], kept[3:]))
                seen.append([item.split(b":")[0] for item in kept[1:3]])
                kept.insert(1, b"X-Raw: yes\r\n")
                kept.append(b"X-Last: \xff\r\n")
                self.end_headers()
                seen.append((list(self._headers_buffer), self._headers_buffer is kept))
                self.wfile.write(b"ok")

        return Handler

    here = same(make, get() * 2)
    assert here.seen[0] == (
        list,
        5,
        b"HTTP/1.1 203 Fine\r\n",
        [b"X-Int: 1\r\n", b"Content-Length: 2\r\n"],
    )
    assert here.seen[1:3] == [[b"Server", b"Date"], ([], False)]
    assert here.answers[0].fields[0] == (b"X-Raw", b"yes")
    assert here.answers[1]["X-Last"] == "\xff"


def test_flush_headers_sends_what_there_is(same):
    def make(base, seen):
        class Handler(plain(base)):
            def do_GET(self):
                self.send_response_only(200)
                self.flush_headers()
                seen.append(self._headers_buffer)
                self.send_header("Content-Length", "0")
                self.flush_headers()
                self.end_headers()

        return Handler

    here = same(make, get() * 2)
    assert here.raw == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" * 2


def test_end_headers_of_nothing_is_an_error_of_the_handler(same):
    def make(base, seen):
        class Handler(hello(base)):
            def do_GET(self):
                try:
                    self.end_headers()
                except AttributeError:
                    seen.append("AttributeError")
                super().do_GET()

        return Handler

    assert same(make, get()).seen == ["AttributeError"]


def test_send_error_with_all_its_arguments(same):
    def make(base, seen):
        class Handler(plain(base)):
            error_message_format = "%(code)d|%(message)s|%(explain)s"
            error_content_type = "text/x"

            def do_GET(self):
                self.send_error(999, "<Short>", "long & <b>")
                seen.append(bool(self.close_connection))

            def do_HEAD(self):
                self.send_error(404)

        return Handler

    here = same(make, get() * 2)
    (answer,) = here.answers
    assert answer.line == b"HTTP/1.1 999 <Short>"
    assert answer.body == b"999|&lt;Short&gt;|long &amp; &lt;b&gt;"
    assert (answer["Content-Type"], answer["Connection"]) == ("text/x", "close")
    assert here.seen == [True]
    here = same(make, get(method="HEAD"), "HEAD")
    assert here.answers[0]["Content-Length"] == str(
        len("404|Not Found|Nothing matches the given URI")
    )


def test_send_error_overridden_with_two_arguments_is_called_with_two(same):
    def make(base, seen):
        class Handler(hello(base)):
            def send_error(self, code, message=None):
                seen.append((int(code), message))
                self.close_connection = True
                answer_with(self, b"mine", code)

        return Handler

    here = same(make, get(method="NONE"))
    assert here.seen == [(501, "Unsupported method ('NONE')")]
    assert here.answers[0].body == b"mine"


@pytest.mark.parametrize("accepts", [True, False])
def test_expect_100_is_the_handlers_to_answer(same, accepts):
    def make(base, seen):
        class Handler(hello(base)):
            def handle_expect_100(self):
                seen.append(self.headers["Expect"])
                if accepts:
                    return super().handle_expect_100()
                self.send_error(417)
                return False

            def do_PUT(self):
                seen.append(self.rfile.read(2))
                self.do_GET()

        return Handler

    data = get("/", "Expect: 100-continue", method="PUT", body=b"ok")
    here = same(make, data)
    assert [answer.status for answer in here.answers] == ([100, 200] if accepts else [417])
    assert here.seen == ["100-continue", b"ok"][: 2 if accepts else 1]


# -- overriding ----------------------------------------------------------------

BASE_HOOKS = (
    "setup",
    "handle",
    "handle_one_request",
    "parse_request",
    "handle_expect_100",
    "send_response",
    "send_response_only",
    "send_header",
    "end_headers",
    "flush_headers",
    "send_error",
    "log_request",
    "log_error",
    "log_message",
    "version_string",
    "date_time_string",
    "do_GET",
    "finish",
)
FOLDER_HOOKS = (
    "do_HEAD",
    "send_head",
    "translate_path",
    "guess_type",
    "list_directory",
    "copyfile",
)
ALL = "all of them"


def spy(kind, names, seen):
    """Return a class derived from kind that notes each call of these methods."""

    def watched(name):
        def method(self, *args, **kwargs):
            known = [arg if isinstance(arg, str | int | None) else "object" for arg in args]
            volatile = name == "send_header" and args[0] in ("Server", "Date")
            seen.append((name, known[:1] if volatile else known, kwargs))
            return getattr(super(spied, self), name)(*args, **kwargs)

        return method

    spied = type("Spied", (kind,), {name: watched(name) for name in names})
    return spied


CONVERSATION = (
    get("/a")
    + get("/", "Connection: keep-alive", version="HTTP/1.0")
    + get("/b")
    + get("/x", method="NONE")
)
#: Begins with a request that expects 100, which the engine sends by itself unless a handler does.
EXPECTANT = get("/", "Expect: 100-continue") + CONVERSATION


@pytest.mark.parametrize("hook", [*BASE_HOOKS, ALL])
def test_an_overridden_hook_is_called_as_the_stdlib_calls_it(same, hook):
    names = BASE_HOOKS if hook == ALL else (hook,)
    expects = "handle_expect_100" in names
    data = EXPECTANT if expects else CONVERSATION
    here = same(lambda base, seen: spy(hello(base), names, seen), data)
    statuses = [answer.status for answer in here.answers]
    assert statuses == [100, 200] * expects + [200, 200, 200, 501]
    assert {name for name, _, _ in here.seen} == set(names)


@pytest.mark.parametrize("hook", [*FOLDER_HOOKS, ALL])
def test_an_overridden_hook_of_files_is_called_as_the_stdlib_calls_it(same, folder, hook):
    names = FOLDER_HOOKS if hook == ALL else (hook,)
    paths = ["/a.txt", "/site/", "/site", "/none", "/a.txt", "/large.bin"]
    data = b"".join(map(get, paths[:3])) + get("/a.txt", method="HEAD") + get(paths[5])
    methods = ["GET", "GET", "GET", "HEAD", "GET"]
    here = same(lambda base, seen: spy(in_folder(base, folder), names, seen), data, *methods)
    assert [answer.status for answer in here.answers] == [200, 200, 301, 200, 200]
    assert {name for name, _, _ in here.seen} == set(names) - {"list_directory"}


def test_an_overridden_list_directory_is_called_with_the_path(same, folder):
    def make(base, seen):
        class Handler(in_folder(base, folder)):
            def list_directory(self, path):
                seen.append(path)
                body = b"no listing"
                self.send_response(200)
                self.send_header("Content-Length", len(body))
                self.end_headers()
                return io.BytesIO(body)

        return Handler

    here = same(make, get("/listed/"))
    assert here.answers[0].body == b"no listing"
    assert here.seen == [f"{folder}/listed/"]


@pytest.mark.parametrize(
    "hook",
    [
        "handle_one_request",
        "parse_request",
        "send_response",
        "send_header",
        "end_headers",
        "log_request",
        "log_message",
        "version_string",
        "date_time_string",
        "do_GET",
        "finish",
    ],
)
@pytest.mark.parametrize("where", ["__init__", "setup"])
def test_a_hook_set_in_the_instance_is_called_as_the_stdlib_calls_it(same, hook, where):
    def make(base, seen):
        def arm(self):
            original = getattr(self, hook)

            def spied(*args):
                seen.append((hook, len(args)))
                return original(*args)

            setattr(self, hook, spied)

        class Handler(hello(base)):
            def __init__(self, *args):
                if where == "__init__":
                    arm(self)
                super().__init__(*args)

            def setup(self):
                super().setup()
                if where == "setup":
                    arm(self)

        return Handler

    here = same(make, CONVERSATION)
    assert len(here.answers) == 4
    assert here.seen


def test_a_method_set_in_the_instance_between_two_requests_is_the_next_ones(same):
    def make(base, seen):
        class Handler(hello(base)):
            def do_GET(self):
                self.do_GET = lambda: answer_with(self, b"changed")
                super().do_GET()

        return Handler

    here = same(make, get() * 2)
    assert [answer.body for answer in here.answers] == [b"hello", b"changed"]


def test_a_method_set_in_the_class_between_two_requests_is_the_next_ones(same):
    def make(base, seen):
        class Handler(hello(base)):
            def do_SET(self):
                Handler.do_GET = lambda self: answer_with(self, b"changed")
                answer_with(self, b"set")

        return Handler

    here = same(make, get() + get(method="SET") + get())
    assert [answer.body for answer in here.answers] == [b"hello", b"set", b"changed"]


def test_methods_made_by_getattr_are_dispatched_to(same):
    def make(base, seen):
        class Handler(plain(base)):
            def __getattr__(self, name):
                if not name.startswith("do_"):
                    raise AttributeError(name)
                if name not in seen:  # hasattr() and getattr(), or getattr() alone
                    seen.append(name)
                return lambda: answer_with(self, name.encode())

        return Handler

    here = same(make, get() + get(method="BREW-X"))
    assert [answer.body for answer in here.answers] == [b"do_GET", b"do_BREW-X"]
    assert here.seen == ["do_GET", "do_BREW-X"]


def test_protocol_version_set_in_the_instance_is_heeded(same):
    def make(base, seen):
        class Handler(hello(base)):
            def __init__(self, *args):
                self.protocol_version = "HTTP/1.0"
                super().__init__(*args)

        return Handler

    (answer,) = same(make, get() * 2).answers
    assert answer.line == b"HTTP/1.0 200 OK"


@pytest.mark.parametrize("way", ["partial", "closure", "lambda", "callable object", "staticmethod"])
def test_a_handler_may_be_anything_callable(same, folder, way):
    def make(base, seen):
        kind = plain(base, "SimpleHTTPRequestHandler")

        def closure(*args):
            seen.append(len(args))
            return kind(*args, directory=folder)

        class Maker:
            def __call__(self, request, client_address, server):
                return kind(request, client_address, server, directory=folder)

        return {
            "partial": functools.partial(kind, directory=folder),
            "closure": closure,
            "lambda": lambda *args: kind(*args, directory=str(folder)),
            "callable object": Maker(),
            "staticmethod": functools.partial(functools.partial(kind), directory=folder),
        }[way]

    here = same(make, get("/a.txt") * 2)
    assert [answer.body for answer in here.answers] == [b"text"] * 2
    assert here.seen == ([3] if way == "closure" else [])


def test_super_and_unbound_calls_meet_the_stdlibs_methods(same):
    def make(base, seen):
        unbound = base.BaseHTTPRequestHandler

        class Between(plain(base)):
            def end_headers(self):
                seen.append("between")
                self.send_header("X-Between", "1")
                super().end_headers()

        class Handler(Between):
            def do_GET(self):
                unbound.send_response(self, 200)
                STDLIB.BaseHTTPRequestHandler.send_header(self, "X-Std", "1")
                unbound.send_header(self, "Content-Length", "0")
                Between.end_headers(self)

            def do_SKIP(self):
                unbound.send_response(self, 200)
                unbound.send_header(self, "Content-Length", "0")
                unbound.end_headers(self)

            def send_response(self, code, message=None):
                seen.append("never")

        return Handler

    here = same(make, get() + get(method="SKIP"))
    assert here.answers[0].all("X-Between") == ["1"]
    assert here.answers[1].all("X-Between") == []
    assert here.seen == ["between"]


@pytest.mark.parametrize("feature", ["__slots__", "__setattr__", "__getattribute__"])
def test_classes_with_ways_of_their_own_are_served(same, feature):
    def make(base, seen):
        class Handler(hello(base)):
            if feature == "__slots__":
                __slots__ = ("mine",)
            elif feature == "__setattr__":

                def __setattr__(self, name, value):
                    if name in ("path", "command", "requestline"):
                        seen.append((name, value))
                    super().__setattr__(name, value)
            else:

                def __getattribute__(self, name):
                    if name.startswith("do_"):
                        seen.append(name)
                    return super().__getattribute__(name)

        return Handler

    assert [answer.body for answer in same(make, get() * 2).answers] == [b"hello"] * 2


def test_mix_ins_before_and_behind_the_handler_class_are_heeded(same):
    class Before:
        def end_headers(self):
            self.send_header("X-Before", "1")
            super().end_headers()

    class Behind:
        def do_EXTRA(self):
            answer_with(self, b"extra")

    def make(base, seen):
        class Handler(Before, hello(base), Behind):
            pass

        return Handler

    here = same(make, get() + get(method="EXTRA"))
    assert [answer["X-Before"] for answer in here.answers] == ["1", "1"]
    assert here.answers[1].body == b"extra"


def test_handle_may_read_the_connection_itself(same):
    def make(base, seen):
        class Handler(plain(base)):
            def handle(self):
                data = b""
                while not data.endswith(b"."):
                    data += self.connection.recv(7)
                seen.append(data)
                self.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        return Handler

    here = same(make, b"no HTTP at all, whatever it is.")
    assert here.seen == [b"no HTTP at all, whatever it is."]
    assert here.answers[0].body == b"ok"


def test_handle_may_speak_first(same):
    def make(base, seen):
        class Handler(plain(base)):
            def handle(self):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX: 220 ready\r\n\r\n")
                seen.append(self.rfile.readline())

        return Handler

    assert same(make, b"EHLO\r\n").seen == [b"EHLO\r\n"]


def test_handle_one_request_may_be_the_handlers_own(same):
    def make(base, seen):
        class Handler(hello(base)):
            def handle_one_request(self):
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline:
                    self.close_connection = True
                elif self.parse_request():
                    seen.append(self.command)
                    self.do_GET()

        return Handler

    here = same(make, get(method="ANY") + get(method="THING"))
    assert here.seen == ["ANY", "THING"]
    assert len(here.answers) == 2


def test_rfile_and_wfile_may_be_replaced_in_setup(same):
    class Upper(io.RawIOBase):
        def __init__(self, under):
            self.under = under

        def writable(self):
            return True

        def write(self, data):
            return self.under.write(bytes(data).replace(b"hello", b"HELLO"))

    class Lines:
        def __init__(self, under, seen):
            self.under, self.seen = under, seen

        def readline(self, *args):
            line = self.under.readline(*args)
            self.seen.append(line[:3])
            return line

        def __getattr__(self, name):
            return getattr(self.under, name)

    def make(base, seen):
        class Handler(hello(base)):
            def setup(self):
                super().setup()
                self.rfile = Lines(self.rfile, seen)
                self.wfile = Upper(self.wfile)

        return Handler

    here = same(make, get())
    assert here.answers[0].body == b"HELLO"
    assert here.seen[0] == b"GET"


def test_a_wfile_may_collect_the_answer(same):
    def make(base, seen):
        class Handler(hello(base)):
            def do_GET(self):
                socket_file, self.wfile = self.wfile, io.BytesIO()
                super().do_GET()
                collected, self.wfile = self.wfile.getvalue(), socket_file
                seen.append(collected.startswith(b"HTTP/1.1 200 OK\r\nServer: "))
                self.wfile.write(collected)

        return Handler

    here = same(make, get() * 2)
    assert here.seen == [True, True]
    assert [answer.body for answer in here.answers] == [b"hello"] * 2


def test_a_connect_handler_turns_the_connection_into_a_tunnel(same):
    def make(base, seen):
        class Handler(plain(base)):
            def do_CONNECT(self):
                seen.append(self.path)
                self.send_response(200)
                self.end_headers()
                while line := self.rfile.readline():
                    self.wfile.write(line.upper())
                self.close_connection = True

        return Handler

    data = b"CONNECT there:443 HTTP/1.1\r\nHost: there:443\r\n\r\nHTTP/1.1 299 a\r\n\r\nb\r\n"
    here = same(make, data, "CONNECT")
    assert here.seen == ["there:443"]
    assert here.answers[0].body == b"HTTP/1.1 299 A\r\n\r\nB\r\n"


@pytest.mark.parametrize("place", [None, *PLACES])
def test_setup_may_be_called_again_in_mid_connection(place):
    def make(base, seen):
        class Handler(hello(base)):
            def do_UPGRADE(self):
                self.send_response(101)
                self.end_headers()
                self.setup()
                seen.append(self.rfile.readline())
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                self.close_connection = True

        return Handler

    seen = []
    server_class, module = PLACES[place] if place else (STDLIB.HTTPServer, STDLIB)
    with (
        serving(server_class, make(module, seen)) as server,
        socket.create_connection(server.server_address, DEADLINE_S) as client,
    ):
        client.sendall(get(method="UPGRADE"))
        raw = b""
        while not raw.endswith(b"\r\n\r\n"):
            raw += client.recv(4096)
        client.sendall(b"after\n")
        raw += read_all(client)
    assert [answer.status for answer in answers(raw)] == [101, 200]
    assert seen == [b"after\n"]
