"""Handler and server classes of other people, unmodified, each a pool of one daemon's config.

What a user would write beside such a class stands here as that user's module.
"""

import contextlib
import json
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import xmlrpc.client
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from daemon_kit import Site, connect, fetch
from harness import DEADLINE_S, converse, read_all, wait_until


@dataclass(frozen=True)
class Stranger:
    """package: what must be installed, "" for the stdlib. keys: of the pool. code: the user's."""

    package: str
    keys: dict
    code: str = ""
    until: tuple[int, int] = (9, 0)  #: the first Python without it
    workers: int = 1


HELLO = """
def app(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)) or b"hello"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def set_app(servers):
    for server in servers:
        server.set_app(app)
"""

FUNCTIONS = """
import os


def add_functions(servers):
    for server in servers:
        server.register_function(pow)
        server.register_function(os.getpid, "pid")
"""

RESOLVER = """
from dnslib import RR, A, QTYPE
from dnslib.server import BaseResolver, DNSLogger


class Resolver(BaseResolver):
    def resolve(self, request, handler):
        reply = request.reply()
        reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A("192.0.2.1"), ttl=60))
        return reply


def set_resolver(servers):
    for server in servers:
        server.resolver, server.logger = Resolver(), DNSLogger("-request,-reply")
"""

CGI = """\
#!/bin/sh
echo Content-Type: text/plain
echo
head -c $CONTENT_LENGTH
"""

STRANGERS = {
    "xmlrpc": Stranger(
        "",
        {
            "server_class": "xmlrpc.server:SimpleXMLRPCServer",
            "on_worker_start": "of_xmlrpc:add_functions",
        },
        FUNCTIONS,
        workers=2,
    ),
    "docxmlrpc": Stranger(
        "",
        {
            "server_class": "xmlrpc.server:DocXMLRPCServer",
            "handler_options": {"server_version": "Docs/1"},
            "on_worker_start": "of_docxmlrpc:add_functions",
        },
        FUNCTIONS,
    ),
    "wsgiref": Stranger(
        "",
        {
            "server_class": "wsgiref.simple_server:WSGIServer",
            "handler": "wsgiref.simple_server:WSGIRequestHandler",
            "access_log": "json",
            "access_log_path": "./wsgiref.log",
            "on_worker_start": "of_wsgiref:set_app",
        },
        HELLO,
    ),
    "cgi": Stranger("", {"handler": "http.server:CGIHTTPRequestHandler"}, until=(3, 15)),
    "pydoc": Stranger(
        "",
        {"server_class": "of_pydoc:Docs"},
        """
import inspect
import pydoc

# The classes are made inside a function. Where it cannot bind, it returns its thread, which has
# ended, and knows them.
ended = pydoc._start_server(pydoc._url_handler, "localhost", -1)


class Docs(inspect.getclosurevars(type(ended).run).nonlocals["DocServer"]):
    def __init__(self, address):
        super().__init__(*address, None)
""",
    ),
    "logging": Stranger(
        "",
        {"server_class": "of_logging:make_receiver()"},
        """
import logging.config


def make_receiver():
    thread = logging.config.listen()  # which is not started: it has the classes
    return thread.rcvr(port=0, handler=thread.hdlr, ready=thread.ready)
""",
    ),
    "metrics": Stranger("prometheus_client", {"handler": "prometheus_client:MetricsHandler"}),
    "silent": Stranger(
        "prometheus_client",
        {
            "server_class": "prometheus_client.exposition:ThreadingWSGIServer",
            "handler": "prometheus_client.exposition:_SilentHandler",
            "on_worker_start": "of_silent:set_app",
        },
        """
from prometheus_client import make_wsgi_app


def set_app(servers):
    for server in servers:
        server.set_app(make_wsgi_app())
""",
    ),
    "upload": Stranger(
        "uploadserver",
        {"handler": "of_upload:SimpleHTTPRequestHandler"},
        """
import argparse
import warnings

with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    import uploadserver  # it uses the stdlib's cgi, or its copy
from uploadserver import SimpleHTTPRequestHandler

# What its main() reads from the command line.
uploadserver.args = argparse.Namespace(
    directory="uploads", theme="auto", allow_replace=False, basic_auth=None, basic_auth_upload=None
)
""",
    ),
    "ranges": Stranger(
        "RangeHTTPServer",
        {
            "handler": "RangeHTTPServer:RangeRequestHandler",
            "handler_options": {"directory": "./uploads"},
        },
    ),
    "bottle": Stranger(
        "bottle",
        {"server_class": "of_bottle:make_server()"},
        HELLO
        + """
from wsgiref.simple_server import WSGIServer

import bottle


class Made(WSGIServer):
    def serve_forever(self):  # bottle makes server and handler where it serves
        pass


def make_server():
    adapter = bottle.WSGIRefServer("127.0.0.1", 0, server_class=Made, quiet=True)
    adapter.run(app)
    return adapter.srv
""",
    ),
    "dns_udp": Stranger(
        "dnslib",
        {
            "server_class": "dnslib.server:UDPServer",
            "handler": "dnslib.server:DNSHandler",
            "on_worker_start": "of_dns_udp:set_resolver",
        },
        RESOLVER,
    ),
    "dns_tcp": Stranger(
        "dnslib",
        {
            "server_class": "dnslib.server:TCPServer",
            "handler": "dnslib.server:DNSHandler",
            "on_worker_start": "of_dns_tcp:set_resolver",
        },
        RESOLVER,
    ),
    "werkzeug": Stranger(
        "werkzeug",
        {"server_class": "of_werkzeug:make_server()"},
        HELLO
        + """
import werkzeug.serving


def make_server():
    return werkzeug.serving.make_server("127.0.0.1", 0, app, threaded=True)
""",
    ),
    "werkzeug_class": Stranger(
        "werkzeug",
        {"server_class": "of_werkzeug_class:Server"},
        HELLO
        + """
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler


class Server(BaseWSGIServer):
    def __init__(self, address, handler=WSGIRequestHandler):
        super().__init__(*address, app, handler)
""",
    ),
    "django": Stranger(
        "django",
        {
            "server_class": "django.core.servers.basehttp:ThreadedWSGIServer",
            "handler": "django.core.servers.basehttp:WSGIRequestHandler",
            "on_worker_start": "of_django:set_app",
        },
        """
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="x",
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],  # which adds Content-Length
)
urlpatterns = [path("", lambda request: HttpResponse("django says hello"))]


def set_app(servers):
    for server in servers:
        server.set_app(get_wsgi_application())
""",
    ),
    "jsonrpc": Stranger(
        "jsonrpclib",
        {
            "server_class": "jsonrpclib.SimpleJSONRPCServer:SimpleJSONRPCServer",
            "on_worker_start": "of_jsonrpc:add_functions",
        },
        FUNCTIONS,
    ),
    "jsonrpc_pooled": Stranger(
        "jsonrpclib",
        {
            "server_class": "jsonrpclib.SimpleJSONRPCServer:PooledJSONRPCServer",
            "on_worker_start": "of_jsonrpc_pooled:add_functions",
        },
        FUNCTIONS,
    ),
    "websocket": Stranger(
        "websocket_server",
        {"server_class": "of_websocket:Chat"},
        """
from websocket_server import WebsocketServer


class Chat(WebsocketServer):
    def __init__(self, address):
        super().__init__(*address)

    def message_received(self, client, server, message):
        self.send_message_to_all(f"all: {message}")
""",
    ),
    "websockify": Stranger(
        "websockify",
        {"handler": "of_websockify:Echo"},
        """
from http.server import SimpleHTTPRequestHandler

from websockify.websocketserver import WebSocketRequestHandlerMixIn


class Echo(WebSocketRequestHandlerMixIn, SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_websocket(self):
        while (message := self.request.recvmsg()) is not None:
            self.request.sendmsg(message.upper())
""",
    ),
    "telnet": Stranger(
        "telnetsrv",
        {
            "handler": "telnetsrv.threaded:TelnetHandler",
            "handler_options": {"WELCOME": "at your service"},
        },
    ),
    "webdav": Stranger(
        "pywebdav",
        {"handler": "of_webdav:Dav"},
        """
from pathlib import Path

from pywebdav.server.fileauth import DAVAuthHandler
from pywebdav.server.fshandler import FilesystemHandler
from pywebdav.server.server import setupDummyConfig


class Dav(DAVAuthHandler):
    _config = setupDummyConfig(
        user="ada", password="secret", lockemulation=True, baseurl="", chunked_http_response=True,
        http_response_use_iterator=0, http_request_use_iterator=0, mimecheck=True,
    )
    IFACE_CLASS = FilesystemHandler(str(Path("uploads").resolve()), "http://localhost/")
    IFACE_CLASS.baseurl = ""
""",
    ),
    "wptserve": Stranger(
        "wptserve",
        {
            "server_class": "of_wptserve:Server",
            "handler": "wptserve.server:Http1WebTestRequestHandler",
        },
        """
from wptserve.handlers import handler
from wptserve.router import Router
from wptserve.server import RequestRewriter, WebTestServer


@handler
def say(request, response):
    return f"{request.method} {request.url_parts.path}"


class Server(WebTestServer):
    def __init__(self, address, handler):
        routes = [("*", "/*", say)]
        super().__init__(
            address, handler, Router("uploads", routes), RequestRewriter([]), True, config=object(),
            use_ssl=True, encrypt_after_connect=True, key_file="key.pem", certificate="cert.pem",
        )
""",
    ),
}


class Served:
    """A daemon that serves all who are there."""

    def __init__(self, site, daemon):
        self.site = site
        self.daemon = daemon
        self.at = {pool["name"]: pool["at"] for pool in site.status()["pools"]}

    def port(self, name):
        stranger = STRANGERS[name]
        if name not in self.at:
            pytest.skip(f"{stranger.package or name} is not there")
        return int(self.at[name][0].rpartition(":")[2])

    def connect(self, name):
        return socket.create_connection(("127.0.0.1", self.port(name)), DEADLINE_S)


def is_there(stranger):
    return sys.version_info < stranger.until and (
        not stranger.package or find_spec(stranger.package) is not None
    )


def make_certificate(folder):
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strangers")
    site = Site(folder)
    (folder / "uploads").mkdir()
    (folder / "uploads" / "digits").write_text("0123456789")
    here = {name: each for name, each in STRANGERS.items() if is_there(each)}
    if shutil.which("openssl") is None:
        here.pop("wptserve", None)
    else:
        make_certificate(folder)
    for name, each in here.items():
        (folder / f"of_{name}.py").write_text(each.code)
    pools = {
        name: {"handler": None, "workers": each.workers, **each.keys} for name, each in here.items()
    }
    # The scripts are run as nobody, who may not look into pytest's folders.
    with open_folder() as scripts:
        if "cgi" in pools:
            script = scripts / "cgi-bin" / "echo"
            script.parent.mkdir()
            script.write_text(
                "#!/bin/sh\necho Content-Type: text/plain\necho\nhead -c $CONTENT_LENGTH\n"
            )
            script.chmod(0o755)
            pools["cgi"]["handler_options"] = {"directory": scripts}
        site.write(pools=pools)
        with site.start() as daemon:
            yield Served(site, daemon)
            assert daemon.stop() == 0
            # What strangers print is theirs; prefork itself has nothing to complain of.
            assert re.findall(r"^\S+ (?:WARNING|ERROR) .*", daemon.log.text(), re.MULTILINE) == []


@contextlib.contextmanager
def open_folder():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


# -- of the stdlib ----------------------------------------------------------------------


def test_xml_rpc_is_served_by_several_workers(served):
    url = f"http://127.0.0.1:{served.port('xmlrpc')}"
    with xmlrpc.client.ServerProxy(url) as proxy:
        assert proxy.pow(2, 10) == 1024
        with pytest.raises(xmlrpc.client.Fault, match="not supported"):
            proxy.no_such_method()
    workers = {worker["pid"] for worker in workers_of(served, "xmlrpc")}
    seen = set()

    def ask():
        with xmlrpc.client.ServerProxy(url) as proxy:
            seen.add(proxy.pid())
        return seen == workers

    wait_until(ask)


def workers_of(served, name):
    return next(p["workers"] for p in served.site.status()["pools"] if p["name"] == name)


def test_silent_clients_of_a_server_class_of_the_stdlib_hold_nobody_up(served):
    """In a class of the stdlib the first of them would have the only worker to itself."""
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(served.connect("docxmlrpc"))
        status, headers, body = fetch(served.port("docxmlrpc"))
        assert (status, headers["Server"].split()[0]) == (200, "Docs/1")
        assert b"<strong>pid</strong>" in body


def test_wsgiref_runs_an_application_and_its_requests_are_in_the_access_log(served):
    port = served.port("wsgiref")
    assert fetch(port, "/a?b", User_Agent="me")[2] == b"hello"
    assert fetch(port, "/", "POST", b"0123")[2] == b"0123"
    path = served.site.folder / "wsgiref.log"
    wait_until(lambda: len(path.read_text().splitlines()) == 2)
    first = json.loads(path.read_text().splitlines()[0])
    assert {name: first[name] for name in ("method", "target", "status", "size", "user_agent")} == {
        "method": "GET",
        "target": "/a?b",
        "status": 200,
        "size": 5,
        "user_agent": "me",
    }


def test_cgi_scripts_of_the_stdlibs_handler_get_their_input(served):
    status, _, body = fetch(served.port("cgi"), "/cgi-bin/echo", "POST", b"to the script")
    assert (status, body) == (200, b"to the script")


def test_pydocs_server_shows_documentation(served):
    status, _, body = fetch(served.port("pydoc"), "/json.html")
    assert status == 200
    assert b"JSONDecodeError" in body


def test_the_logging_receiver_configures_its_worker(served):
    path = served.site.folder / "configured.log"
    config = {
        "version": 1,
        "handlers": {"file": {"class": "logging.FileHandler", "filename": str(path)}},
        "root": {"handlers": ["file"]},
    }
    data = json.dumps(config).encode()
    with served.connect("logging") as client:
        client.sendall(struct.pack(">L", len(data)) + data)
        assert read_all(client) == b""
    assert path.exists()


# -- HTTP -------------------------------------------------------------------------------


def test_prometheus_handler_gives_metrics(served):
    status, headers, body = fetch(served.port("metrics"), "/metrics")
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/plain")
    assert b"python_info" in body


def test_prometheus_wsgi_server_gives_metrics(served):
    assert b"python_info" in fetch(served.port("silent"), "/metrics")[2]


def test_uploadserver_receives_a_file(served):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="new.txt"\r\n\r\n'
        b"from far away\r\n--x--\r\n"
    )
    how = {"Content_Type": "multipart/form-data; boundary=x"}
    assert fetch(served.port("upload"), "/upload", "POST", body, **how)[0] == 204
    assert (served.site.folder / "uploads" / "new.txt").read_bytes() == b"from far away"
    assert b"File Upload" in fetch(served.port("upload"), "/upload")[2]


def test_rangehttpserver_sends_a_range(served):
    status, headers, body = fetch(served.port("ranges"), "/digits", Range="bytes=2-4")
    assert (status, headers["Content-Range"], body) == (206, "bytes 2-4/10", b"234")
    assert fetch(served.port("ranges"), "/digits")[2] == b"0123456789"


def test_bottles_own_server_runs_its_handler(served):
    status, headers, body = fetch(served.port("bottle"))
    assert (status, headers["Server"].split("/")[0], body) == (200, "WSGIServer", b"hello")


@pytest.mark.parametrize("name", ["werkzeug", "werkzeug_class"])
def test_werkzeugs_servers_run_an_application(served, name):
    status, headers, body = fetch(served.port(name))
    assert (status, headers["Server"].split("/")[0], body) == (200, "Werkzeug", b"hello")
    assert fetch(served.port(name), "/", "POST", b"0123")[2] == b"0123"


def test_djangos_development_server_keeps_connections(served):
    with contextlib.closing(connect(served.port("django"))) as connection:
        for _ in range(2):
            connection.request("GET", "/")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"django says hello")
            assert connection.sock is not None


@pytest.mark.parametrize("name", ["jsonrpc", "jsonrpc_pooled"])
def test_json_rpc_calls_a_function(served, name):
    call = {"jsonrpc": "2.0", "method": "pow", "params": [2, 10], "id": 1}
    status, _, body = fetch(served.port(name), "/", "POST", json.dumps(call))
    assert (status, json.loads(body)["result"]) == (200, 1024)


def test_webdav_authenticates_and_lists_a_folder(served):
    port = served.port("webdav")
    assert fetch(port, "/digits", "PROPFIND")[0] == 401
    allowed = {"Authorization": "Basic YWRhOnNlY3JldA==", "Depth": "0"}
    status, _, body = fetch(port, "/digits", "PROPFIND", **allowed)
    assert status == 207
    assert b"getcontentlength" in body


def test_a_handler_may_begin_tls_after_connect_and_set_up_again(served):
    """wptserve's replaces `request`, `rfile` and `wfile` by calling setup() in mid-connection."""
    with served.connect("wptserve") as client:
        client.sendall(b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n")
        assert receive_head(client).startswith(b"HTTP/1.1 200 ")
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        with trusting.wrap_socket(client) as tunnel:
            for path in (b"/one", b"/two"):
                tunnel.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
                answer = b""
                while path not in answer:
                    part = tunnel.recv(4096)
                    assert part, answer
                    answer += part
                assert answer.startswith(b"HTTP/1.1 200 ")


# -- what is no HTTP, or becomes something else ------------------------------------------


QUESTION = bytes.fromhex("abcd01000001000000000000") + b"\7example\3org\0\0\1\0\1"


def test_dnslib_answers_datagrams(served):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(DEADLINE_S)
        client.sendto(QUESTION, ("127.0.0.1", served.port("dns_udp")))
        answer = client.recv(512)
    assert answer[:2] == QUESTION[:2]
    assert answer.endswith(bytes([192, 0, 2, 1]))


def test_dnslib_answers_over_tcp(served):
    framed = struct.pack("!H", len(QUESTION)) + QUESTION
    answer = converse(("127.0.0.1", served.port("dns_tcp")), framed)
    assert answer[2:4] == QUESTION[:2]
    assert answer.endswith(bytes([192, 0, 2, 1]))


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MESSAGE = b"\x81\x85\0\0\0\0hello"  # masked by nothing


def receive(client, size):
    data = b""
    while len(data) < size:
        part = client.recv(size - len(data))
        assert part, data
        data += part
    return data


def receive_head(client):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += receive(client, 1)
    return head


def open_websocket(client):
    client.sendall(UPGRADE)
    head = receive_head(client)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head


def test_websocket_servers_clients_of_one_worker_see_each_other(served):
    with served.connect("websocket") as one, served.connect("websocket") as two:
        for client in (one, two):
            open_websocket(client)
            client.sendall(MESSAGE)
            assert receive(client, 12) == b"\x81\x0aall: hello"
        assert receive(one, 12) == b"\x81\x0aall: hello"  # what the other has said


def test_websockify_takes_the_connection(served):
    with served.connect("websockify") as client:
        open_websocket(client)
        client.sendall(b"\x82" + MESSAGE[1:])  # it knows binary messages only
        assert receive(client, 7) == b"\x82\x05HELLO"


def test_telnetsrv_has_a_dialogue(served):
    """Its setup() starts a thread of its own that reads."""
    with served.connect("telnet") as client:
        client.sendall(b"exit\r\n")
        answer = read_all(client)
    assert answer.endswith(b"Goodbye\r\n")
    assert b"at your service" in answer
