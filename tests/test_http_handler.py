"""What `prefork.http` has of its own: its names, its differences, its command."""

# ruff: noqa: N802, N815 # http.server names what it calls

import contextlib
import functools
import http.client
import io
import os
import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import warnings

import pytest
from harness import DEADLINE_S, Daemon, converse, read_all
from http_kit import (
    OUR_SERVERS,
    OURS,
    SERVERS,
    STDLIB,
    answer_with,
    answers,
    ask,
    get,
    serving,
)

CONTROLS = ["\r", "\n", "\0", "\r\nX-Evil: 1", "\n\n<html>"]


@pytest.fixture(params=SERVERS)
def server_class(request):
    return SERVERS[request.param]


@pytest.fixture(params=OUR_SERVERS)
def our_server_class(request):
    return OUR_SERVERS[request.param]


class Quiet(OURS.BaseHTTPRequestHandler):
    """Our class with its own protocol, on a server of either kind."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        answer_with(self)


def bare(raw: bytes = b""):
    """Return a handler whose __init__() and setup() never ran."""
    handler = Quiet.__new__(Quiet)
    handler.rfile, handler.wfile = io.BytesIO(raw), io.BytesIO()
    handler.client_address = ("127.0.0.1", 1)
    return handler


def wait_for_end(server_class, handler, data: bytes) -> bytes:
    """Return what comes until the server closes, though the client stays."""
    with (
        serving(server_class, handler) as server,
        socket.create_connection(server.server_address, DEADLINE_S) as client,
    ):
        client.sendall(data)
        return read_all(client)


# -- names -----------------------------------------------------------------------


def test_every_public_name_of_the_stdlibs_module_is_here():
    assert set(STDLIB.__all__) <= set(OURS.__all__)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        missing = [name for name in dir(STDLIB) if not hasattr(OURS, name) and name[:2] != "__"]
        assert OURS.__version__ == STDLIB.__version__ == "0.6"
    assert missing == []


def test_names_that_newer_versions_dropped_or_brought_are_here():
    assert OURS._url_collapse_path("/a//b/../c?d=..//") == "/a/c?d=..//"
    assert OURS.executable(sys.executable)
    assert OURS.nobody_uid() > 0
    assert OURS.os is os
    assert callable(OURS._main)
    assert "color-scheme: light dark" in OURS.DEFAULT_ERROR_MESSAGE
    assert OURS.DEFAULT_ERROR_MESSAGE % {"code": 1, "message": "m", "explain": "e"}
    assert OURS.DEFAULT_ERROR_CONTENT_TYPE == "text/html;charset=utf-8"


@pytest.mark.skipif(not hasattr(STDLIB, "_url_collapse_path"), reason="3.15 has none")
@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        ".",
        "..",
        "/a/..",
        "/a/.",
        "/a/./b",
        "//a//b//",
        "/%2e%2e/a",
        "a/b",
        "/a/../../b",
        "/x?",
        "/x?a/..?b",
    ],
)
def test_url_collapse_path_is_the_stdlibs(path):
    def tried(function):
        try:
            return function(path)
        except IndexError:
            return IndexError

    assert tried(OURS._url_collapse_path) == tried(STDLIB._url_collapse_path)


def test_our_handlers_are_the_stdlibs():
    assert issubclass(OURS.BaseHTTPRequestHandler, STDLIB.BaseHTTPRequestHandler)
    assert issubclass(OURS.SimpleHTTPRequestHandler, STDLIB.SimpleHTTPRequestHandler)
    assert issubclass(OURS.SimpleHTTPRequestHandler, OURS.BaseHTTPRequestHandler)
    for name, value in vars(STDLIB.BaseHTTPRequestHandler).items():
        assert name in dir(OURS.BaseHTTPRequestHandler)
        if callable(value):
            assert callable(getattr(OURS.BaseHTTPRequestHandler, name))


def test_the_cgi_handler_is_ours_on_every_python():
    assert "CGIHTTPRequestHandler" in OURS.__all__
    assert issubclass(OURS.CGIHTTPRequestHandler, OURS.SimpleHTTPRequestHandler)
    assert OURS.CGIHTTPRequestHandler.cgi_directories == ["/cgi-bin", "/htbin"]
    for name in vars(getattr(STDLIB, "CGIHTTPRequestHandler", object)):
        assert hasattr(OURS.CGIHTTPRequestHandler, name)


def test_importing_is_silent():
    command = [sys.executable, "-W", "error", "-c", "import prefork.http"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=DEADLINE_S)
    assert done.stdout + done.stderr == b""


# -- the protocol ------------------------------------------------------------------


def test_http_1_1_is_the_default_and_connections_persist(server_class):
    assert OURS.BaseHTTPRequestHandler.protocol_version == "HTTP/1.1"
    found = answers(ask(server_class, Quiet, get() * 3))
    assert [answer.line for answer in found] == [b"HTTP/1.1 200 OK"] * 3


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_answer_without_a_length_has_an_end(server_class, method):
    class Handler(Quiet):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"some")
            self.wfile.write(b"thing")

        do_POST = do_GET

    with (
        serving(server_class, Handler) as server,
        socket.create_connection(server.server_address, DEADLINE_S) as client,
    ):
        client.sendall(get(method=method))
        answer = http.client.HTTPResponse(client, method=method)
        answer.begin()
        assert answer.read() == b"something"
        answer.close()


@pytest.mark.parametrize(
    ("status", "method"), [(200, "HEAD"), (204, "GET"), (304, "GET"), (404, "HEAD")]
)
def test_an_answer_that_has_no_body_needs_no_length(server_class, status, method):
    class Handler(Quiet):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()

        do_HEAD = do_GET

    found = answers(ask(server_class, Handler, get(method=method) * 2), method, method)
    assert [answer.status for answer in found] == [status] * 2
    assert found[0].all("Connection") == []


@pytest.mark.parametrize("status", [101, 204, 304, 200])
def test_direct_use_says_close_only_where_the_client_would_wait(status):
    class Handler(Quiet):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.close_connection = True

    (answer,) = answers(ask(STDLIB.HTTPServer, Handler, get()))
    assert answer.all("Connection") == (["close"] if status == 200 else [])


def test_direct_use_leaves_the_calls_of_send_header_as_they_are():
    seen = []

    class Handler(Quiet):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def send_header(self, keyword, value):
            seen.append(keyword)
            super().send_header(keyword, value)

    ask(STDLIB.HTTPServer, Handler, get())
    assert seen == ["Server", "Date"]


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET / HTTP/1.x", 400),
        (b"GET / HTTP/1", 400),
        (b"GET / HTTP/1.1.1", 400),
        (b"GET / HTTP/-1.1", 400),
        (b"GET / HTTP/1.12345678901", 400),
        (b"GET / http/1.1", 400),
        (b"GET / FUBAR", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET", 400),
        (b"POST /", 400),
        (b"GET / HTTP/2.0", 505),
        (b"GET / HTTP/9.9", 505),
    ],
)
def test_a_malformed_request_line_is_answered_with_a_status_line(server_class, line, status):
    raw = wait_for_end(server_class, Quiet, line + b"\r\nHost: here\r\n\r\n")
    (answer,) = answers(raw)
    assert answer.status == status
    assert answer["Connection"] == "close"
    assert len(answer.body) == int(answer["Content-Length"]) > 0
    assert len(answer.all("Server")) == len(answer.all("Date")) == 1


def test_http_0_9_is_answered_without_waiting_for_a_head_and_refused_by_the_engine(server_class):
    seen = []

    class Handler(Quiet):
        def do_GET(self):
            seen.append((self.headers, self.request_version, self.path))
            super().do_GET()

    if server_class is not STDLIB.HTTPServer:
        assert wait_for_end(server_class, Handler, b"GET /x\r\n").startswith(b"HTTP/1.1 400 ")
        return
    assert wait_for_end(server_class, Handler, b"GET /x\r\n") == b"hello"
    assert seen == [({}, "HTTP/0.9", "/x")]


@pytest.mark.parametrize(("count", "status"), [(99, 200), (100, 200), (101, 431), (1000, 431)])
def test_a_request_may_have_100_fields(server_class, count, status):
    lines = [f"X-{n}: {n}" for n in range(count - 1)]  # and Host
    (answer,) = answers(ask(server_class, Quiet, get("/", *lines)))
    assert answer.status == status


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /" + b"x" * 70000 + b" HTTP/1.1\r\nHost: here\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: here\r\nX: " + b"x" * 70000 + b"\r\n\r\n", 431),
    ],
)
def test_a_line_may_not_be_longer_than_64_kib(server_class, raw, status):
    with serving(server_class, Quiet) as server:
        client = socket.create_connection(server.server_address, DEADLINE_S)
        with client:
            sender = threading.Thread(target=_send_all, args=(client, raw))
            sender.start()
            line = client.recv(12, socket.MSG_WAITALL)
            sender.join()
    assert line == b"HTTP/1.1 %d" % status


def _send_all(client, raw):
    with contextlib.suppress(OSError):  # the server may have had enough
        client.sendall(raw)


# -- what goes out -----------------------------------------------------------------


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize(("name", "value"), [("X-Name", "a{}b"), ("X-Na{}me", "b")])
def test_a_line_end_in_a_header_is_refused_with_its_name(control, name, value):
    handler = bare()
    handler.request_version = "HTTP/1.1"
    name, value = name.format(control), value.format(control)
    with pytest.raises(ValueError, match=re.escape(repr(name))):
        handler.send_header(name, value)
    assert getattr(handler, "_headers_buffer", []) == []


@pytest.mark.parametrize("control", CONTROLS)
def test_a_line_end_in_a_status_message_is_refused(control):
    handler = bare()
    handler.request_version = handler.requestline = "HTTP/1.1"
    for send in (handler.send_response_only, handler.send_response):
        with pytest.raises(ValueError, match="status 200"):
            send(200, f"O{control}K")
    assert getattr(handler, "_headers_buffer", []) == []


def test_a_header_with_a_line_end_ends_no_answer_early(server_class):
    class Server(server_class):
        def handle_error(self, request, client_address):
            pass

    class Handler(Quiet):
        def do_GET(self):
            self.send_response(200)
            self.send_header("X", "a\r\n\r\n<script>")
            self.end_headers()

    assert b"<script>" not in ask(Server, Handler, get())


def test_send_error_makes_one_line_of_its_message(server_class):
    class Handler(Quiet):
        error_message_format = "%(message)s|%(explain)s"

        def do_GET(self):
            self.send_error(500, "line 1\r\nline\0 2\n", "a\nb")

    (answer,) = answers(ask(server_class, Handler, get()))
    assert answer.line == b"HTTP/1.1 500 line 1  line  2 "
    assert answer.body == b"line 1  line  2 |a\nb"


@pytest.mark.parametrize(("server", "date"), [("Server", "Date"), ("SERVER", "date")])
def test_server_and_date_go_out_once_and_the_handlers_own_win(server_class, server, date):
    class Handler(Quiet):
        def do_GET(self):
            self.send_response(200)
            self.send_header(date, "today")
            self.send_header("Content-Length", "0")
            self.send_header(server, "mine")
            self.end_headers()

    found = answers(ask(server_class, Handler, get() * 2))
    for answer in found:
        assert (answer["Server"], answer["Date"]) == ("mine", "today")
    assert len(found) == 2


def test_other_headers_may_go_out_often(server_class):
    class Handler(Quiet):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Set-Cookie", "a=1")
            self.send_header("Set-Cookie", "b=2")
            self.send_header("Content-Length", "0")
            self.end_headers()

    (answer,) = answers(ask(server_class, Handler, get()))
    assert answer.all("Set-Cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("192.0.2.1", 80), "192.0.2.1"),
        (("::1", 80, 0, 0), "::1"),
        ("", "unix"),
        (b"", "unix"),
        (None, "unix"),
        ("/run/client.sock", "/run/client.sock"),
        (b"\0abstract", "\0abstract"),
    ],
)
def test_address_string_knows_every_kind_of_client(address, text):
    handler = bare()
    handler.client_address = address
    assert handler.address_string() == text


def test_a_unix_clients_request_is_logged(tmp_path, capsys):
    class Handler(OURS.BaseHTTPRequestHandler):
        do_GET = Quiet.do_GET

    class Server(OURS.HTTPServer):
        address_family = socket.AF_UNIX

        def server_bind(self):
            self.socket.bind(self.server_address)
            self.server_name, self.server_port = "unix", 0

    path = str(tmp_path / "socket")
    with Server(path, Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            assert answers(converse(path, get()))[0].body == b"hello"
        finally:
            server.shutdown()
            thread.join()
    assert capsys.readouterr().err.startswith("unix - - [")


def test_the_error_page_is_that_of_3_14(server_class):
    (answer,) = answers(ask(server_class, Quiet, get(method="NO")))
    assert answer.status == 501
    assert answer["Content-Type"] == "text/html;charset=utf-8"
    assert b"color-scheme: light dark" in answer.body
    assert b"<p>Message: Unsupported method ('NO').</p>" in answer.body


# -- without __init__ and setup ------------------------------------------------------


def test_parse_request_works_without_init_and_setup():
    handler = bare(b"A: 1\r\nConnection: keep-alive\r\n\r\nbody")
    handler.raw_requestline = b"PUT //x?y HTTP/1.1\r\n"
    assert handler.parse_request() is True
    assert (handler.command, handler.path, handler.request_version) == ("PUT", "/x?y", "HTTP/1.1")
    assert handler.headers.items() == [("A", "1"), ("Connection", "keep-alive")]
    assert handler.close_connection is False
    assert handler.rfile.read() == b"body"
    assert handler.wfile.getvalue() == b""


@pytest.mark.parametrize("line", [b"\r\n", b"  \r\n"])
def test_parse_request_of_a_blank_line_says_no_and_nothing_else(line):
    handler = bare()
    handler.raw_requestline = line
    assert handler.parse_request() is False
    assert handler.wfile.getvalue() == b""
    assert handler.close_connection is True


def test_parse_request_sends_its_errors_without_init_and_setup():
    handler = bare()
    handler.raw_requestline = b"NONSENSE\r\n"
    assert handler.parse_request() is False
    assert (
        answers(handler.wfile.getvalue())[0].line == b"HTTP/1.1 400 Bad request syntax ('NONSENSE')"
    )


# -- test() and the command ------------------------------------------------------------


class RecordedError(Exception):
    pass


def recorded(calls):
    class Server:
        def __init__(self, *args, **kwargs):
            calls.append((args, kwargs))
            raise RecordedError

    return Server


def test_test_tells_the_classes_what_it_was_told():
    class Handler(OURS.SimpleHTTPRequestHandler):
        pass

    calls = []
    server = recorded(calls)
    with pytest.raises(RecordedError):
        OURS.test(Handler, server, "HTTP/1.1", 0, "::1", "a/b", "cert", "key", "secret")
    assert server.address_family == socket.AF_INET6
    assert (Handler.protocol_version, Handler.default_content_type) == ("HTTP/1.1", "a/b")
    tls = {"certfile": "cert", "keyfile": "key", "password": "secret"}
    assert calls == [((("::1", 0, 0, 0), Handler), tls)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {}),
        (["1234"], {"port": 1234}),
        (["-b", "127.0.0.1"], {"bind": "127.0.0.1"}),
        (["--protocol", "HTTP/1.1"], {"protocol": "HTTP/1.1"}),
        (["--content-type", "a/b"], {"content_type": "a/b"}),
        (["-d", "/", "-H", "A", "1", "--header", "B", "2"], {}),
    ],
)
def test_main_calls_test_with_the_stdlibs_keywords(monkeypatch, arguments, expected):
    calls = []
    monkeypatch.setattr(OURS, "test", lambda **kwargs: calls.append(kwargs))
    OURS._main(arguments)
    (call,) = calls
    assert issubclass(call.pop("ServerClass"), OURS.ThreadingHTTPServer)
    defaults = {
        "HandlerClass": OURS.SimpleHTTPRequestHandler,
        "protocol": "HTTP/1.0",
        "port": 8000,
        "bind": None,
        "content_type": "application/octet-stream",
        "tls_cert": None,
        "tls_key": None,
        "tls_password": None,
    }
    assert call == defaults | expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["--unknown"],
        ["no-port"],
        ["-H", "only-a-name"],
        ["--tls-key", "key"],
        ["--tls-password-file", "file"],
        ["--tls-cert", "cert", "--tls-password-file", "/none/such"],
        ["--cgi", "-H", "A", "1"],
    ],
)
def test_wrong_arguments_are_a_usage_error(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        OURS._main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m prefork.http" in capsys.readouterr().err


def test_cgi_is_an_option_on_every_python(monkeypatch):
    calls = []
    monkeypatch.setattr(OURS, "test", lambda **kwargs: calls.append(kwargs["HandlerClass"]))
    OURS._main(["--cgi"])
    assert calls == [OURS.CGIHTTPRequestHandler]


@pytest.mark.parametrize("module", ["http.server", "prefork.http"])
def test_the_command_serves_the_folder_says_so_and_ends_by_ctrl_c(tmp_path, module):
    (tmp_path / "file").write_text("found")
    command = [sys.executable, "-u", "-m", module, "0", "-b", "127.0.0.1", "-d", tmp_path]
    with Daemon(command) as daemon:
        said = r"^Serving HTTP on 127\.0\.0\.1 port (\d+) \(http://127\.0\.0\.1:(\d+)/\) \.\.\.$"
        port = daemon.out.wait_for(said)
        assert port[1] == port[2]
        (answer,) = answers(converse(("127.0.0.1", int(port[1])), get("/file")))
        assert (answer.line, answer.body) == (b"HTTP/1.0 200 OK", b"found")
        assert daemon.stop(signal.SIGINT) == 0
        assert daemon.out.wait_closed()[-1] == "Keyboard interrupt received, exiting."


def test_the_command_takes_ipv4_on_all_interfaces_and_the_options_of_3_15(tmp_path):
    (tmp_path / "file").write_text("found")
    options = ["-p", "HTTP/1.1", "-H", "X-A", "1", "-H", "X-B", "2", "--content-type", "a/b"]
    with Daemon([sys.executable, "-u", "-m", "prefork.http", "0", *options], tmp_path) as daemon:
        port = int(daemon.out.wait_for(r"^Serving HTTP on (?:::|0\.0\.0\.0) port (\d+) ")[1])
        found = answers(converse(("127.0.0.1", port), get("/file") * 2))
        assert len(found) == 2
        assert found[1]["Content-type"] == "a/b"
        assert (found[1]["X-A"], found[1]["X-B"], found[1].body) == ("1", "2", b"found")


def test_a_handler_that_says_what_it_allows_answers_405(our_server_class):
    class Handler(Quiet):
        allowed_methods = ("GET", "HEAD")

    raw = wait_for_end(our_server_class, Handler, b"PUT / HTTP/1.1\r\nHost: here\r\n\r\n")
    (answer,) = answers(raw)
    assert answer.status == 405
    assert answer.all("Allow") == ["GET, HEAD"]
    assert answer.all("Connection") == ["close"]


def test_threading_mix_in_over_our_server_means_threads():
    class Server(socketserver.ThreadingMixIn, OURS.HTTPServer):
        daemon_threads = True

    first, second = threading.Event(), threading.Event()

    class Handler(Quiet):
        def do_GET(self):
            if self.path == "/first":
                second.set()
                assert first.wait(DEADLINE_S)
            else:
                assert second.wait(DEADLINE_S)
                first.set()
            answer_with(self)

    with (
        serving(Server, Handler) as server,
        socket.create_connection(server.server_address, DEADLINE_S) as client,
    ):
        client.sendall(get("/first", "Connection: close"))
        (answer,) = answers(converse(server.server_address, get("/second")))
        assert answer.body == b"hello"
        assert answers(read_all(client))[0].body == b"hello"


def test_a_server_that_serves_again_serves_the_same_way(our_server_class):
    server = our_server_class(("127.0.0.1", 0), functools.partial(Quiet))
    with server:
        for _ in range(3):
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            data = get() * 2 + get("/", "Connection: close")
            found = answers(converse(server.server_address, data))
            assert [answer.status for answer in found] == [200] * 3
            server.shutdown()
            thread.join()
