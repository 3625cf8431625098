"""Who the client is behind proxies, and what the access log says, on real servers."""

import json
import re
import socket

import pytest
from harness import DEADLINE_S, Script, converse
from http_kit import OUR_SERVERS, answers, get, serving

import prefork.http

V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n"
V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24"
    + socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + b"\x12\x67\x00\x50"
)


class Who(prefork.http.BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802 # http.server's
        body = f"{self.client_address[0]} {self.client_address[1]}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Kept(Who):
    def handle(self):
        super().handle()


@pytest.fixture(params=OUR_SERVERS)
def server_class(request):
    return OUR_SERVERS[request.param]


def told(server_class, data, handler=Who, **variables):
    """Return what clients the handler saw, one for each request."""
    server_class = type("Server", (server_class,), variables)
    with serving(server_class, handler) as server:
        raw = converse(server.server_address, data)
    return [answer.body.decode() for answer in answers(raw) if answer.status == 200]


@pytest.mark.parametrize("handler", [Who, Kept])
@pytest.mark.parametrize(
    ("header", "client"), [(V1, "192.0.2.7 4711"), (V2, "2001:db8::7 4711")], ids=["v1", "v2"]
)
def test_a_proxy_header_says_who_the_client_is(server_class, handler, header, client):
    data = header + get() * 2
    assert told(server_class, data, handler, proxies=("127.0.0.0/8",)) == [client] * 2


@pytest.mark.parametrize("handler", [Who, Kept])
def test_a_proxy_header_may_come_byte_by_byte(server_class, handler):
    server_class = type("Server", (server_class,), {"proxies": ("127.0.0.1",)})
    with (
        serving(server_class, handler) as server,
        socket.create_connection(server.server_address, DEADLINE_S) as client,
    ):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for n in range(len(V1)):
            client.send(V1[n : n + 1])
        client.sendall(get("/", "Connection: close"))
        raw = b"".join(iter(lambda: client.recv(65536), b""))
    assert [answer.body for answer in answers(raw)] == [b"192.0.2.7 4711"]


@pytest.mark.parametrize("handler", [Who, Kept])
def test_a_named_proxy_without_its_header_gets_nothing(server_class, handler):
    assert told(server_class, get(), handler, proxies=("127.0.0.1",)) == []


def test_a_proxy_header_of_somebody_else_is_no_request(server_class):
    assert told(server_class, V1 + get(), proxies=("192.0.2.1",)) == []


def test_forwarded_fields_of_a_trusted_proxy_count_for_their_request_alone(server_class):
    data = get("/", "X-Forwarded-For: 192.0.2.9") + get("/", "Forwarded: for=192.0.2.10") + get()
    first, second, third = told(server_class, data, forwarders=("127.0.0.0/8",))
    assert (first.split()[0], second.split()[0]) == ("192.0.2.9", "192.0.2.10")
    assert third.split()[0] == "127.0.0.1"


def test_forwarded_fields_of_others_count_for_nothing(server_class):
    (client,) = told(server_class, get("/", "X-Forwarded-For: 192.0.2.9"))
    assert client.split()[0] == "127.0.0.1"


def test_proxies_that_contradict_each_other_get_400(server_class):
    data = get("/", "X-Forwarded-For: 192.0.2.9", "Forwarded: for=192.0.2.10")
    server_class = type("Server", (server_class,), {"forwarders": ("127.0.0.1",)})
    with serving(server_class, Who) as server:
        (answer,) = answers(converse(server.server_address, data))
    assert answer.status == 400


def test_a_network_that_is_none_is_named_at_the_start(server_class):
    server_class = type("Server", (server_class,), {"forwarders": ("127.0.0.1/33",)})
    with server_class(("127.0.0.1", 0), Who) as server, pytest.raises(ValueError, match="/33"):
        server.handle_request()


# -- the access log ------------------------------------------------------------------

LOGGING = """
import sys, prefork, prefork.http
from http.server import BaseHTTPRequestHandler

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

class Own(Handler):
    def log_message(self, format, *args):
        sys.stderr.write("own " + format % args + "\\n")

class Server(prefork.PreforkMixIn, prefork.http.HTTPServer):
    workers = 1
    access_log = {access_log!r}

with Server(("127.0.0.1", 0), {handler}) as server:
    print("PORT", server.server_address[1], flush=True)
    server.serve_forever()
"""

REQUEST = (
    b'GET /%1b]0;x"\x9b\xff HTTP/1.1\r\nHost: x\r\nUser-Agent: a"b\\c\r\nReferer: http://r/\r\n\r\n'
)


def logged(tmp_path, access_log, handler="Handler", data=REQUEST):
    """Return the lines of stderr that are there when the server has ended."""
    source = LOGGING.format(access_log=access_log, handler=handler)
    with Script(tmp_path, source) as script:
        port = int(script.out.wait_for(r"^PORT (\d+)$")[1])
        converse(("127.0.0.1", port), data)
        assert script.stop() == 0
        return script.log.wait_closed()


TIME = r"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"


def test_the_common_log_has_a_line_for_each_request_and_loses_none_at_the_end(tmp_path):
    lines = logged(tmp_path, "common", data=REQUEST * 3 + get("/", method="NONE"))
    target = r"/%1b\]0;x\\\"\\x9b\\xff"
    lines = [text for text in lines if " code 501, " not in text]  # the handler's own complaint
    line = rf'127\.0\.0\.1 - - {TIME} "GET {target} HTTP/1\.1" 200 5'
    assert [bool(re.fullmatch(line, text)) for text in lines[:3]] == [True] * 3, lines
    assert '"NONE / HTTP/1.1" 501 ' in "\n".join(lines)


def test_the_combined_log_adds_referer_and_user_agent(tmp_path):
    (line,) = logged(tmp_path, "combined")
    assert line.endswith(r'" 200 5 "http://r/" "a\"b\\c"')


def test_the_json_log_is_json(tmp_path):
    (line,) = logged(tmp_path, "json")
    entry = json.loads(line)
    assert entry["status"] == 200
    assert entry["size"] == 5
    assert entry["user_agent"] == 'a"b\\c'


def test_off_is_silent(tmp_path):
    assert logged(tmp_path, "off") == []


@pytest.mark.parametrize("access_log", [None, "off", "common"])
def test_a_log_message_of_the_handlers_own_is_asked_whatever_the_server_does(tmp_path, access_log):
    assert logged(tmp_path, access_log, "Own", get()) == ['own "GET / HTTP/1.1" 200 -']


def test_without_an_access_log_it_is_the_stdlibs(tmp_path):
    (line,) = logged(tmp_path, None, data=get())
    assert re.fullmatch(r'127\.0\.0\.1 - - \[[^]]+\] "GET / HTTP/1\.1" 200 -', line)
