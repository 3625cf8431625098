"""WSGI applications on the engine: PEP 3333 to the letter, from both sides."""

import contextlib
import enum
import gzip
import io
import itertools
import json
import os
import socket
import sys
import tempfile
import threading
import urllib.error
import urllib.request
import wsgiref.simple_server
from pathlib import Path
from wsgiref.util import shift_path_info
from wsgiref.validate import validator

import pytest
from harness import DEADLINE_S, Prefork, converse, read_all, wait_until
from http_kit import answers, get, serving

from prefork.http.limits import Limits
from prefork.wsgi import WSGIRequestHandler, WSGIServer, demo_app, make_server

TEXT = [("Content-Type", "text/plain")]


class Inline(WSGIServer):
    access_log = "off"


class Threads(Inline):
    threads = 4


BOTH = pytest.mark.parametrize("server_class", [Inline, Threads])


class Quiet(WSGIRequestHandler):
    error_message_format = "error %(code)d: %(message)s"


@contextlib.contextmanager
def serving_app(app, server_class=Inline, handler=Quiet):
    with serving(server_class, handler) as server:
        server.set_app(app)
        yield server


def ask(app, *requests, server_class=Inline, handler=Quiet) -> bytes:
    with serving_app(app, server_class, handler) as server:
        return converse(server.server_address, b"".join(requests))


def answered(app, *requests, methods=(), **options):
    return answers(ask(app, *requests, **options), *methods)


def asked(*requests, **options) -> list[dict]:
    """Return the environs of these requests."""
    seen = []

    def app(environ, start_response):
        seen.append(environ.copy())
        start_response("200 OK", TEXT)
        return [b"seen"]

    ask(app, *requests, **options)
    return seen


def hello(environ, start_response):  # noqa: ARG001 # PEP 3333's
    start_response("200 OK", [*TEXT, ("Content-Length", "6")])
    return [b"hello\n"]


def echo(environ, start_response):
    start_response("200 OK", TEXT)
    return [environ["wsgi.input"].read()]


def saying(status="200 OK", headers=TEXT, body=(b"",)):
    def app(_environ, start_response):
        start_response(status, headers)
        return body

    return app


# -- what the application gets --------------------------------------------------


def test_environ_has_what_the_request_says():
    (environ,) = asked(
        get("/a%20b/%C3%A9?x=1&y=%20", "Content-Type: text/x", "X-A: 1", "x-a: 2", method="POST")
    )
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b/Ã©",
        "QUERY_STRING": "x=1&y=%20",
        "REQUEST_URI": "/a%20b/%C3%A9?x=1&y=%20",
        "CONTENT_TYPE": "text/x",
        "HTTP_HOST": "here",
        "HTTP_X_A": "1,2",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    assert {name: environ[name] for name in expected} == expected
    assert "HTTP_CONTENT_TYPE" not in environ
    assert environ["wsgi.errors"] is sys.stderr
    assert environ["REMOTE_PORT"].isdecimal()


def test_server_name_and_port_are_the_servers():
    seen = []

    def app(environ, start_response):
        seen.append((environ["SERVER_NAME"], environ["SERVER_PORT"]))
        return hello(environ, start_response)

    with serving_app(app) as server:
        converse(server.server_address, get())
        assert seen == [(server.server_name, str(server.server_port))]


def test_what_no_client_has_sent_is_absent_or_empty():
    (environ,) = asked(get())
    assert environ["CONTENT_LENGTH"] == environ["QUERY_STRING"] == ""
    assert "CONTENT_TYPE" not in environ
    assert "HTTPS" not in environ
    assert not [name for name in environ if name.startswith("HTTP_") and name != "HTTP_HOST"]


def test_nothing_of_the_servers_own_environment_is_there(monkeypatch):
    monkeypatch.setenv("A_SECRET", "x")
    (environ,) = asked(get())
    assert "A_SECRET" not in environ
    assert "PATH" not in environ


def test_cookies_are_joined_as_one():
    (environ,) = asked(get("/", "Cookie: a=1", "Cookie: b=2"))
    assert environ["HTTP_COOKIE"] == "a=1; b=2"


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        ("http://other:81/a?b", "/a", "b", "other:81"),
        ("http://other", "/", "", "other"),
        ("http://user:word@other/", "/", "", "other"),
        ("//double/slash", "/double/slash", "", "here"),
        ("/a//b", "/a//b", "", "here"),
        ("/?", "/", "", "here"),
        ("/a?b?c", "/a", "b?c", "here"),
        ("/%2f%3F", "//?", "", "here"),
    ],
)
def test_the_target_is_taken_apart(target, path, query, host):
    (environ,) = asked(get(target))
    found = environ["PATH_INFO"], environ["QUERY_STRING"], environ["HTTP_HOST"]
    assert found == (path, query, host)


def test_the_server_as_a_whole_has_no_path():
    (environ,) = asked(get("*", method="OPTIONS"))
    assert (environ["PATH_INFO"], environ["REQUEST_URI"]) == ("", "*")


def test_each_request_has_an_environ_of_its_own():
    seen = []

    def app(environ, start_response):
        seen.append(dict(environ))
        shift_path_info(environ)
        environ["QUERY_STRING"] = environ["new"] = "changed"
        return hello(environ, start_response)

    ask(app, get("/a/b?c") * 3)
    assert [(e["SCRIPT_NAME"], e["PATH_INFO"], e["QUERY_STRING"]) for e in seen] == [
        ("", "/a/b", "c")
    ] * 3
    assert not any("new" in e for e in seen)


def test_a_change_of_base_environ_is_seen_by_the_next_request():
    seen = []
    with serving_app(hello) as server:

        def app(environ, start_response):
            seen.append(environ.get("SITE"))
            server.base_environ["SITE"] = f"{len(seen)}"
            return hello(environ, start_response)

        server.set_app(app)
        converse(server.server_address, get() * 3)
    assert seen == [None, "1", "2"]


def test_a_field_name_with_an_underscore_is_refused():
    calls = []
    raw = ask(lambda *_: calls.append(1), get("/", "X_Real_IP: 192.0.2.1"))
    (answer,) = answers(raw)
    assert answer.status == 400
    assert b"underscore (X_Real_IP)" in answer.body
    assert calls == []


def test_connect_is_not_for_applications():
    assert [a.status for a in answered(hello, get("here:80", method="CONNECT"))] == [501]


@pytest.mark.parametrize(("threads", "expected"), [(0, False), (1, False), (4, True)])
def test_multithread_is_told(threads, expected):
    server_class = type("Server", (Inline,), {"threads": threads})
    (environ,) = asked(get(), server_class=server_class)
    assert environ["wsgi.multithread"] is expected
    assert environ["wsgi.multiprocess"] is False


def test_a_trusted_proxy_says_client_scheme_and_host():
    fields = ["X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: site"]
    trusting = type("Server", (Inline,), {"forwarders": ("127.0.0.1",)})
    names = ["REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST"]
    trusted, plain = asked(get("/", *fields), get(), server_class=trusting)
    assert [trusted[n] for n in names] == ["192.0.2.7", "https", "site"]
    assert trusted["HTTPS"] == "on"
    assert [plain[n] for n in names] == ["127.0.0.1", "http", "here"]
    (untrusted,) = asked(get("/", *fields))
    assert [untrusted[n] for n in names] == ["127.0.0.1", "http", "here"]


class OwnEnviron(Quiet):
    def get_environ(self):
        return super().get_environ() | {"OWN": "yes"}


@pytest.mark.parametrize("handler", [Quiet, OwnEnviron])
def test_what_a_proxy_says_of_one_request_is_not_believed_of_the_next(handler, capsys):
    trusting = type("Server", (Inline,), {"forwarders": ("127.0.0.1",), "access_log": None})
    fields = [
        ["X-Forwarded-For: 192.0.2.7", "X-Forwarded-Host: site"],
        ["X-Forwarded-Proto: https"],
        ["X-Forwarded-For: 192.0.2.8"],
        ["Forwarded: for=unknown;proto=https"],
        ["X-Forwarded-For: 192.0.2.9"],
        [],
    ]
    seen = asked(*(get("/", *f) for f in fields), server_class=trusting, handler=handler)
    expected = ["192.0.2.7", "127.0.0.1", "192.0.2.8", "127.0.0.1", "192.0.2.9", "127.0.0.1"]
    assert [environ["REMOTE_ADDR"] for environ in seen] == expected
    assert [environ["HTTP_HOST"] for environ in seen] == ["site", *["here"] * 5]
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == expected


# -- the body of the request ----------------------------------------------------

CHUNKED = (
    get("/", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"
)


@BOTH
@pytest.mark.parametrize("size", [1, 1000, 65536, 65537, 1 << 20])
def test_a_body_arrives_whole(server_class, size):
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    found = answered(
        echo, get("/", method="POST", body=body), CHUNKED, get(), server_class=server_class
    )
    assert [a.body for a in found] == [body, b"hello!", b""]


def test_a_body_can_be_read_by_line_and_by_size():
    found = []

    def app(environ, start_response):
        body = environ["wsgi.input"]
        found.extend(
            [body.read(2), body.readline(), body.readline(1), body.readlines(), body.read(5)]
        )
        return hello(environ, start_response)

    ask(app, get("/", method="POST", body=b"one\ntwo\nthree\nfour"))
    assert found == [b"on", b"e\n", b"t", [b"wo\n", b"three\n", b"four"], b""]


def test_a_body_that_nobody_reads_is_not_the_next_request():
    found = answered(hello, get("/", method="POST", body=get("/smuggled")), CHUNKED, get())
    assert [a.body for a in found] == [b"hello\n"] * 3


def test_a_body_is_asked_for_when_it_is_read():
    with serving_app(echo) as server, socket.create_connection(server.server_address) as client:
        client.settimeout(DEADLINE_S)
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"ok")
        client.shutdown(socket.SHUT_WR)
        (answer,) = answers(read_all(client))
    assert answer.body == b"ok"


def test_chunks_are_a_body_of_known_length():
    """Whoever decodes them says it (RFC 9112 §7.1.3); most frameworks see no body without."""
    chunked, plain, sized = asked(CHUNKED, get(), get("/", method="POST", body=b"hello!"))
    names = ["CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "wsgi.input_terminated"]
    assert [chunked.get(name) for name in names] == ["6", None, True]
    assert [plain.get(name) for name in names] == ["", None, True]
    assert [sized.get(name) for name in names] == ["6", None, True]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_is_logged_as_sent_was_sent(method):
    sizes = []

    class Handler(Quiet):
        def log_request(self, _code="-", size="-"):
            sizes.append(size)

    app = pieces(b"abc", b"def")
    answered(app, get(method=method), methods=[method], handler=Handler)
    assert sizes == [6 if method == "GET" else 0]


@BOTH
def test_long_chunks_fill_no_memory_and_leave_no_file_open(server_class, monkeypatch):
    seen = []
    body = b"x" * 300_000
    chunks = b"".join(b"%x\r\n%b\r\n" % (10_000, body[:10_000]) for _ in range(30))
    head = get("/", "Transfer-Encoding: chunked", method="POST")

    def app(environ, start_response):
        file = environ["wsgi.input"]
        seen.append((file, type(file), len(file.read(200_000)), len(file.read())))
        if len(seen) == 2:
            raise OSError("no")
        return hello(environ, start_response)

    monkeypatch.setattr(server_class, "handle_error", lambda *_: None)
    found = answered(app, (head + chunks + b"0\r\n\r\n") * 2, server_class=server_class)
    assert [a.status for a in found] == [200, 500]
    assert [s[1:] for s in seen] == [(io.BufferedRandom, 200_000, 100_000)] * 2
    assert all(file.closed for file, *_ in seen)


def test_chunks_beyond_the_limit_of_bodies_are_refused():
    limited = type("Server", (Inline,), {"limits": Limits(body_bytes=100_000)})
    head = get("/", "Transfer-Encoding: chunked", method="POST")
    found = answered(echo, head + b"20000\r\n" + bytes(0x20000), server_class=limited)
    assert [a.status for a in found] == [413]


@pytest.mark.parametrize("chunks", [b"zz\r\n", b"5\r\nhel"], ids=["malformed", "cut short"])
def test_a_broken_body_is_no_short_body(chunks, capsys):
    done = []

    def app(environ, start_response):
        environ["wsgi.input"].read()
        done.append(1)
        return hello(environ, start_response)

    raw = ask(app, get("/", "Transfer-Encoding: chunked", method="POST") + chunks)
    assert done == []
    assert [a.status for a in answers(raw)] == [400]
    assert "Traceback" not in capsys.readouterr().err  # it is no fault of ours


@BOTH
def test_a_body_with_a_length_that_is_cut_short_is_the_clients_fault(server_class, capfd):
    def app(environ, start_response):
        environ["wsgi.input"].read()
        return hello(environ, start_response)

    request = get("/", "Content-Length: 100000", method="POST") + b"x" * 99999
    (answer,) = answered(app, request, server_class=server_class)
    assert answer.status == 400
    assert "Traceback" not in capfd.readouterr().err


def test_a_long_answer_that_is_in_memory_holds_no_thread():
    server_class = type("Server", (Inline,), {"threads": 1})
    long = saying(body=[b"x" * (1 << 24)])

    def app(environ, start_response):
        return (long if environ["PATH_INFO"] == "/long" else hello)(environ, start_response)

    with (
        serving_app(app, server_class) as server,
        socket.create_connection(server.server_address) as slow,
    ):
        slow.sendall(get("/long"))
        slow.settimeout(DEADLINE_S)
        slow.recv(1)
        assert answers(converse(server.server_address, get()))[0].body == b"hello\n"


# -- start_response and the head ---------------------------------------------------


def test_an_answer_is_one_head_and_its_body():
    first, second = answered(hello, get() * 2)
    assert first.line == b"HTTP/1.1 200 OK"
    assert [name for name, _ in first.fields] == [
        b"Server",
        b"Date",
        b"Content-Type",
        b"Content-Length",
    ]
    assert first.body == second.body == b"hello\n"


def test_server_and_date_of_the_application_take_the_place_of_ours():
    date = "Mon, 05 Jun 2006 18:49:54 GMT"
    (answer,) = answered(saying(headers=[("Server", "mine"), ("date", date)]), get())
    assert (answer["Server"], answer["Date"]) == ("mine", date)


def test_a_head_keeps_order_and_repetition_of_its_headers():
    cookies = [("Set-Cookie", "a=1"), ("X-Y", "z"), ("Set-Cookie", "b=2")]
    (answer,) = answered(saying(headers=cookies), get())
    assert answer.all("Set-Cookie") == ["a=1", "b=2"]


class Kind(str, enum.Enum):  # noqa: UP042 # StrEnum's members are formatted as their values
    ONE = "one"


def test_equal_headers_are_sent_as_equal_bytes():
    headers = itertools.cycle([[("A", Kind.ONE)], [("A", "one"), *TEXT], [("A", Kind.ONE), *TEXT]])

    def app(_environ, start_response):
        start_response("200 OK", next(headers))
        return [b""]

    assert [a["A"] for a in answered(app, get() * 3)] == ["one"] * 3


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "299 Ça va", "200 ", "200"])
def test_a_status_is_sent_as_it_is(status):
    (answer,) = answered(saying(status), get())
    assert answer.line.decode("latin-1").rstrip() == f"HTTP/1.1 {status}".rstrip()


WRONG = {
    "status without a number": (saying("OK"), "'OK' is no status"),
    "status of bytes": (saying(b"200 OK"), "is no status"),
    "status with a line end": (saying("200 OK\r\nX: y"), "is no status"),
    "interim status": (saying("100 Continue"), "is no status"),
    "headers in a tuple": (saying(headers=()), "headers must be a list, not tuple"),
    "a header in a list": (saying(headers=[["A", "b"]]), "expected a tuple"),
    "a value of bytes": (saying(headers=[("A", b"b")]), "must be of type str"),
    "a value with a line end": (saying(headers=[("A", "b\r\nC: d")]), "a control character"),
    "a value with a control character": (saying(headers=[("A", "b\x01")]), "a control character"),
    "a value with DEL": (saying(headers=[("A", "b\x7f")]), "a control character"),
    "a name with a space": (saying(headers=[("Content-Length ", "1")]), "cannot be the name"),
    "a name with a colon": (saying(headers=[("A: b\r\nC", "d")]), "cannot be the name"),
    "no name": (saying(headers=[("", "d")]), "cannot be the name"),
    "hint with a line end": (
        lambda environ, _start_response: environ["wsgi.early_hints"]([("Link", "a\r\nB: c")]),
        "a control character",
    ),
    "a value beyond latin-1": (saying(headers=[("A", "\u20ac")]), "latin-1"),
    "hop-by-hop": (saying(headers=[("Connection", "close")]), "the server's affair"),
    "own framing": (saying(headers=[("Transfer-Encoding", "chunked")]), "the server's affair"),
    "length that is none": (saying(headers=[("Content-Length", "-1")]), "must be a number"),
    "two lengths": (
        saying(headers=[("Content-Length", "1"), ("Content-Length", "2")]),
        "two Content-Lengths",
    ),
    "body of str": (saying(body=["text"]), "of bytes, not str"),
    "no iterable": (saying(body=None), "not iterable"),
    "no start_response": (lambda _environ, _start_response: [b"x"], "has not called"),
    "no start_response, no body": (lambda _environ, _start_response: [], "has not called"),
    "exception": (lambda _environ, _start_response: 1 / 0, "ZeroDivisionError"),
}


@BOTH
@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_answered_is_an_error_with_a_reason(server_class, wrong, capsys):
    app, reason = WRONG[wrong]
    found = answered(app, get(), server_class=server_class)
    assert [a.status for a in found] == [500]
    assert reason in capsys.readouterr().err


def test_start_response_twice_is_an_error(capsys):
    def app(environ, start_response):
        start_response("200 OK", TEXT)
        return hello(environ, start_response)

    assert [a.status for a in answered(app, get())] == [500]
    assert "called again" in capsys.readouterr().err


def test_an_error_may_replace_a_head_that_has_not_been_sent():
    def app(_environ, start_response):
        start_response("200 OK", [("X-First", "1"), ("Content-Length", "99")])
        try:
            {}["nothing"]
        except LookupError:
            start_response("404 Not Found", TEXT, sys.exc_info())
        return [b"no"]

    (answer,) = answered(app, get())
    assert (answer.status, answer.body) == (404, b"no")
    assert answer.all("X-First") == []


@BOTH
def test_an_error_after_the_head_is_raised_again_and_cuts_the_answer(server_class, capsys):
    def app(_environ, start_response):
        start_response("200 OK", TEXT)
        yield b"some"
        try:
            {}["gone"]
        except LookupError:
            start_response("500 Oh", TEXT, sys.exc_info())
        yield b"never"

    raw = ask(app, get() * 2, server_class=server_class)
    assert raw.endswith(b"\r\n\r\n4\r\nsome\r\n")  # and no last chunk
    assert "KeyError: 'gone'" in capsys.readouterr().err


# -- the body of the answer ----------------------------------------------------------


def pieces(*data, headers=TEXT):
    def app(_environ, start_response):
        start_response("200 OK", headers)
        yield from data

    return app


def writing(*data, then=(), headers=TEXT):
    def app(_environ, start_response):
        write = start_response("200 OK", headers)
        for piece in data:
            write(piece)
        return then

    return app


SIZED = [("Content-Length", "6")]
BODIES = {
    "list of one": saying(body=[b"abcdef"]),
    "list": saying(body=[b"abc", b"", b"def"]),
    "tuple": saying(body=(b"ab", b"cdef")),
    "sized list": saying(headers=SIZED, body=[b"abc", b"def"]),
    "iterator": lambda environ, start_response: iter(
        saying(body=[b"abc", b"def"])(environ, start_response)
    ),
    "generator": pieces(b"", b"abc", b"", b"def"),
    "sized generator of one": pieces(b"abcdef", headers=SIZED),
    "sized generator": pieces(b"abc", b"def", headers=SIZED),
    "write": writing(b"", b"abc", b"def"),
    "write, then a list": writing(b"abc", then=[b"", b"def"]),
    "sized write": writing(b"abcdef", headers=SIZED),
    "write of some, then a list": writing(b"abc", then=[b"def"], headers=SIZED),
}


@BOTH
@pytest.mark.parametrize("body", BODIES)
def test_a_body_is_sent_whole_however_it_is_given(server_class, body):
    first, second = answered(BODIES[body], get(), server_class=server_class) + answered(
        BODIES[body],
        b"GET / HTTP/1.0\r\n\r\n",
        server_class=server_class,
    )
    assert (first.body, second.body) == (b"abcdef", b"abcdef")
    assert second.all("Transfer-Encoding") == []


@BOTH
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(("status", "method"), [("200 OK", "HEAD"), ("204 No Content", "GET")])
def test_no_body_is_sent_where_none_may_be(server_class, body, status, method):
    def app(environ, start_response):
        def start(_status, headers, exc_info=None):
            return start_response(status, headers, exc_info)

        return BODIES[body](environ, start)

    found = answered(app, get(method=method) * 2, methods=[method] * 2, server_class=server_class)
    assert [(a.status, a.body) for a in found] == [(int(status[:3]), b"")] * 2


def test_head_has_the_length_that_get_has():
    found = answered(saying(body=[b"abc"]), get(method="HEAD"), get(), methods=["HEAD", "GET"])
    assert [a["Content-Length"] for a in found] == ["3", "3"]


@pytest.mark.parametrize("body", [[b"abc"], iter([b"ab", b"c"])], ids=["list", "iterator"])
def test_a_body_shorter_than_promised_ends_the_connection(body, caplog):
    raw = ask(saying(headers=[("Content-Length", "5")], body=body), get() * 2)
    assert raw.endswith(b"\r\n\r\nabc")
    assert raw.count(b"HTTP/1.1") == 1
    assert [r.event for r in caplog.records] == ["wsgi.length"]


@pytest.mark.parametrize("pieces", [["abcdef"], ["abc", "def"], ["abcd", "e", "f"]])
@pytest.mark.parametrize("kind", [list, iter])
def test_a_body_longer_than_promised_is_cut_and_no_second_answer(kind, pieces, caplog, capsys):
    body = kind([piece.encode() for piece in pieces])
    logging = type("Server", (Inline,), {"access_log": None})
    app = saying(headers=[("Content-Length", "4")], body=body)
    raw = ask(app, get() * 2, server_class=logging)
    assert raw.endswith(b"\r\n\r\nabcd")
    assert raw.count(b"HTTP/1.1") == 1
    assert [(r.event, r.fields["gave"]) for r in caplog.records] == [("wsgi.length", 6)]
    assert capsys.readouterr().err.endswith('" 200 4\n')


def test_each_piece_is_sent_before_the_next_is_made():
    arrived = {b"one": threading.Event(), b"two": threading.Event()}

    def app(_environ, start_response):
        start_response("200 OK", TEXT)
        for piece, seen in arrived.items():
            yield piece
            assert seen.wait(DEADLINE_S)

    with serving_app(app) as server, socket.create_connection(server.server_address) as client:
        client.settimeout(DEADLINE_S)
        client.sendall(get())
        client.shutdown(socket.SHUT_WR)
        for piece, seen in arrived.items():
            data = b""
            while not data.endswith(b"3\r\n%b\r\n" % piece):
                data += client.recv(1000)
            seen.set()
        assert read_all(client) == b"0\r\n\r\n"


class Closing:
    """An iterable that counts its closes; `at` which piece it fails."""

    def __init__(self, data=(b"ab", b"cd"), at=None):
        self.data, self.at, self.closed = data, at, 0

    def __iter__(self):
        for number, piece in enumerate(self.data):
            if number == self.at:
                raise LookupError("in the middle")
            yield piece

    def close(self):
        self.closed += 1


@BOTH
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("at", [None, 0, 1])
def test_an_iterable_is_closed_once_whatever_happens(server_class, method, at, capsys):
    body = Closing(at=at)
    ask(saying(body=body), get(method=method), server_class=server_class)
    assert body.closed == 1
    capsys.readouterr()


@BOTH
def test_an_iterable_is_closed_when_the_client_has_gone(server_class):
    body = Closing(data=[b"x" * 65536] * 1000)
    with (
        serving_app(saying(body=body), server_class) as server,
        socket.create_connection(server.server_address) as client,
    ):
        client.sendall(get())
        client.recv(1000)
    wait_until(lambda: body.closed == 1)


def test_what_an_application_keeps_is_of_no_use_in_the_next_request(capsys):
    kept = {}

    def app(environ, start_response):
        if not kept:
            kept["write"] = start_response("200 OK", TEXT)
            kept["early_hints"] = environ["wsgi.early_hints"]
            kept["input"] = environ["wsgi.input"]
            return [b"first"]
        assert kept["input"].read() == b""
        kept["early_hints"]([("Link", "</late>")])
        kept["write"](b"late")
        return []

    first, second = answered(app, get("/", method="POST"), get())
    assert (first.status, first.body) == (200, b"first")
    assert second.status == 500
    assert "the request has been answered" in capsys.readouterr().err


def test_exc_info_may_be_named():
    def app(_environ, start_response):
        start_response("200 OK", TEXT)
        try:
            {}["none"]
        except KeyError:
            start_response("404 Not Found", headers=TEXT, exc_info=sys.exc_info())
        return [b""]

    assert [a.status for a in answered(app, get())] == [404]


# -- files ---------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 4096)
    return file


def wrapping(made, headers=TEXT):
    """Return an application that sends what `made()` opens, and what it did with it."""
    seen = []

    def app(environ, start_response):
        start_response("200 OK", headers)
        file = made()
        seen.append(file)
        return environ["wsgi.file_wrapper"](file, 4096)

    return app, seen


@BOTH
@pytest.mark.parametrize("kind", ["open", "tempfile"])
def test_a_plain_file_is_sent_by_the_kernel(server_class, kind, path):
    watched = []

    def made():
        file = path.open("rb") if kind == "open" else tempfile.NamedTemporaryFile()  # noqa: SIM115 # the wrapper closes it
        if kind == "tempfile":
            file.write(path.read_bytes())
            file.seek(0)
        watched.append(os.dup(file.fileno()))  # it shares the position
        return file

    app, seen = wrapping(made)
    found = answered(app, get(), get(), server_class=server_class)
    assert [a.body for a in found] == [path.read_bytes()] * 2
    assert [a["Content-Length"] for a in found] == [str(1 << 20)] * 2
    assert [file.closed for file in seen] == [True, True]
    assert [os.lseek(fd, 0, os.SEEK_CUR) for fd in watched] == [0, 0]  # nobody has read it here
    for fd in watched:
        os.close(fd)


def test_a_file_that_says_it_is_empty_is_read():
    app, _ = wrapping(lambda: Path("/proc/version").open("rb"))  # noqa: SIM115 # the wrapper closes it
    (answer,) = answered(app, get())
    assert answer.body == Path("/proc/version").read_bytes()


def test_a_file_is_sent_from_where_it_stands_as_far_as_was_promised(path):
    def made():
        file = path.open("rb")
        file.seek(300)
        return file

    app, seen = wrapping(made, [("Content-Length", "5")])
    (answer,) = answered(app, get())
    assert answer.body == path.read_bytes()[300:305]
    assert seen[0].closed


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_head_is_sent_for_a_file_too(path, method):
    app, _ = wrapping(lambda: path.open("rb"), [("Content-Length", str(1 << 20))])
    (answer,) = answered(app, get(method=method), methods=[method])
    assert len(answer.body) == (1 << 20 if method == "GET" else 0)


@pytest.mark.parametrize("kind", ["BytesIO", "gzip", "without a descriptor", "around another"])
def test_what_is_no_plain_file_is_read(kind, tmp_path):
    content = b"some text " * 1000
    if kind == "gzip":
        with gzip.open(tmp_path / "file.gz", "wb") as file:
            file.write(content)

    class Reader:
        def __init__(self):
            self.read = io.BytesIO(content).read

    class Decoded:
        def __init__(self):
            (tmp_path / "coded").write_bytes(content[::-1])
            self.file = (tmp_path / "coded").open("rb")
            self.close = self.file.close

        def read(self, _size):
            return self.file.read()[::-1]

    made = {
        "BytesIO": lambda: io.BytesIO(content),
        "gzip": lambda: gzip.open(tmp_path / "file.gz"),  # noqa: SIM115 # the wrapper closes it
        "without a descriptor": Reader,
        "around another": Decoded,
    }[kind]
    app, _ = wrapping(made)
    (answer,) = answered(app, get())
    assert answer.body == content


def test_a_file_that_is_shorter_than_promised_is_seen_to_be_cut(path, caplog):
    app, _ = wrapping(lambda: path.open("rb"), [("Content-Length", str((1 << 20) + 1))])
    raw = ask(app, get() * 2)
    assert raw.endswith(b"\r\n\r\n" + path.read_bytes())
    assert [r.event for r in caplog.records] == ["wsgi.length"]


# -- early hints -----------------------------------------------------------------------


@pytest.mark.parametrize(("version", "statuses"), [("HTTP/1.1", [103, 200]), ("HTTP/1.0", [200])])
def test_early_hints_go_before_the_answer(version, statuses):
    def app(environ, start_response):
        environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
        return hello(environ, start_response)

    found = answered(app, get(version=version))
    assert [a.status for a in found] == statuses
    assert found[-1].body == b"hello\n"
    if len(found) > 1:
        assert found[0].fields == [(b"Link", b"</style.css>; rel=preload")]


# -- both sides, validated ----------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("body", [b"", b"x" * 100, b"y" * 100_000])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_the_validator_of_wsgiref_has_nothing_to_say(server_class, method, body, capsys):
    def app(environ, start_response):
        data = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))
        environ["wsgi.errors"].flush()
        write = start_response("200 OK", [*TEXT, ("X-Size", str(len(data)))])
        write(b"a")
        return [b"b", b"c"]

    first, second = answered(
        validator(app),
        get(method=method, body=body) * 2,
        methods=[method] * 2,
        server_class=server_class,
    )
    assert first["X-Size"] == second["X-Size"] == str(len(body))
    assert first.body == second.body == (b"" if method == "HEAD" else b"abc")
    assert capsys.readouterr().err == ""


# -- wsgiref's names ----------------------------------------------------------------------


def test_the_names_are_those_of_wsgiref():
    import prefork.wsgi  # noqa: PLC0415 # as a user would look

    assert prefork.wsgi.__all__ == wsgiref.simple_server.__all__
    for name in ("ServerHandler", "server_version", "sys_version", "software_version"):
        assert getattr(prefork.wsgi, name) == getattr(wsgiref.simple_server, name)
    assert issubclass(WSGIServer, wsgiref.simple_server.WSGIServer)
    assert issubclass(WSGIServer, prefork.http.HTTPServer)
    assert issubclass(WSGIRequestHandler, wsgiref.simple_server.WSGIRequestHandler)
    assert demo_app is wsgiref.simple_server.demo_app


def test_make_server_answers_and_keeps_the_connection(capsys):
    with make_server("127.0.0.1", 0, demo_app) as server:
        assert server.get_app() is demo_app
        client = socket.create_connection(server.server_address)
        with client:
            client.settimeout(DEADLINE_S)
            client.sendall(get("/1") * 2)
            client.shutdown(socket.SHUT_WR)
            server.handle_request()  # and what follows at once
            found = answers(read_all(client))
    assert [a.body.splitlines()[0] for a in found] == [b"Hello world!"] * 2
    assert b"wsgi.multiprocess = False" in found[0].body
    assert '"GET /1 HTTP/1.1" 200' in capsys.readouterr().err


@pytest.mark.parametrize(
    "base", [WSGIRequestHandler, wsgiref.simple_server.WSGIRequestHandler], ids=["ours", "wsgiref"]
)
def test_overrides_of_a_handler_are_called(base):
    seen = []
    errors = io.StringIO()

    class Handler(base):
        def get_environ(self):
            return super().get_environ() | {"EXTRA": "1", "PATH_INFO": self.path.upper()}

        def get_stderr(self):
            return errors

        def log_request(self, code="-", size="-"):
            seen.append((self.requestline, str(code), size))

    def app(environ, start_response):
        environ["wsgi.errors"].write("said")
        start_response("200 OK", TEXT)
        return [
            f"{environ['PATH_INFO']} {environ['EXTRA']} ".encode(),
            environ["wsgi.input"].read(),
        ]

    post = get("/b", method="POST", body=b"body")
    head = get("/c", method="HEAD")
    methods = "GET", "POST", "POST", "HEAD"
    found = answered(app, get("/a"), post, CHUNKED, head, methods=methods, handler=Handler)
    assert [a.body for a in found] == [b"/A 1 ", b"/B 1 body", b"/ 1 hello!", b""]
    assert seen == [
        ("GET /a HTTP/1.1", "200", 5),
        ("POST /b HTTP/1.1", "200", 9),
        ("POST / HTTP/1.1", "200", 10),
        ("HEAD /c HTTP/1.1", "200", 0),
    ]
    assert errors.getvalue() == "said" * 4


def test_a_handler_with_its_own_handle_serves_as_in_the_stdlib():
    class Handler(Quiet):
        def handle(self):
            super().handle()

        def log_message(self, *args):
            pass

    (answer,) = answered(hello, get() * 2, handler=Handler)
    assert (answer.line, answer.body) == (b"HTTP/1.0 200 OK", b"hello\n")


def test_a_protocol_version_of_the_handlers_own_is_kept():
    class Handler(Quiet):
        protocol_version = "HTTP/1.0"

    (answer,) = answered(hello, get() * 2, handler=Handler)
    assert (answer.line, answer.body) == (b"HTTP/1.0 200 OK", b"hello\n")


# -- as a service ---------------------------------------------------------------------------

APPLICATION = """
import json
import os


def application(environ, start_response):
    if environ["PATH_INFO"].endswith("/fork"):
        child = os.fork()
        if not child:
            raise LookupError("in a child, which has no server to return to")
        assert os.waitpid(child, 0) == (child, 0)
    start_response("200 OK", [("Content-Type", "application/json")])
    names = ["PATH_INFO", "wsgi.multithread", "wsgi.multiprocess"]
    return [json.dumps([environ[name] for name in names]).encode()]


class Site:
    def __init__(self, prefix):
        self.prefix = prefix

    def __call__(self, environ, start_response):
        environ["PATH_INFO"] = self.prefix + environ["PATH_INFO"]
        return application(environ, start_response)


def create():
    return Site("/made")


class Once:
    def __init__(self, environ, start_response):
        self.result = application(environ, start_response)

    def __iter__(self):
        return iter(self.result)
"""

CONFIG = """
[server.plain]
bind = ["127.0.0.1:0"]
handler = "site_app:application"
workers = 1
threads = 0

[server.made]
bind = ["127.0.0.1:0"]
handler = "site_app:create()"
workers = 2

[server.class]
bind = ["127.0.0.1:0"]
handler = "site_app:Once"
workers = 1
"""


def fetch(url):
    with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
        return json.load(answer)


def test_applications_and_what_makes_them_are_named_in_a_config(tmp_path):
    (tmp_path / "site_app.py").write_text(APPLICATION)
    config = tmp_path / "site.toml"
    config.write_text(CONFIG)
    with Prefork(config, cwd=tmp_path) as daemon:
        at = daemon.log.wait_for(r"master\.listening .*at=(\S+)")[1].split(",")
        found = [fetch(f"http://{place}/x") for place in at]
        for place in at:
            with pytest.raises(urllib.error.HTTPError, match="500") as caught:
                fetch(f"http://{place}/fork")
            caught.value.close()
            fetch(f"http://{place}/x")  # the forked process has ended: it was waited for
    assert found == [["/x", False, True], ["/made/x", True, True], ["/x", True, True]]


def test_an_application_is_served_from_the_command_line(tmp_path):
    (tmp_path / "site_app.py").write_text(APPLICATION)
    with Prefork("site_app:create()", 0, "-b", "127.0.0.1", "-w", 2, cwd=tmp_path) as daemon:
        assert fetch(f"{daemon.url}/x") == ["/made/x", True, True]
