"""Server classes and functions of the user's own in a config: how they are called, how they end."""

import contextlib
import re
import shutil
import socket
import socketserver
import ssl
import subprocess
import sys
from dataclasses import replace

import pytest
from daemon_kit import Site, fetch, probe, table
from harness import COMMAND, DEADLINE_S, Daemon, converse, read_all

from prefork.config import ConfigError, load
from prefork.errors import PreforkError
from prefork.foreign import find_maker
from prefork.planning import Planner
from prefork.servers import make_server

# -- how a server class is called --------------------------------------------------------


APP = """
import http.server
import socketserver
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer, SimpleHTTPRequestHandler


class Echo(socketserver.StreamRequestHandler):
    greeting = ""

    def handle(self):
        self.wfile.write(self.greeting.encode() + self.rfile.readline())


class Path(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())


class Brings(HTTPServer):
    def __init__(self, address, handler=Path, *, more=1):
        super().__init__(address, handler)
        self.timeout = 7
        self.more = more


class Hides(HTTPServer):
    def __init__(self, address):
        super().__init__(address, Path)


class Splits(HTTPServer):
    def __init__(self, host, port, greeting, *, more=1):
        super().__init__((host, port), Path)


class Late(socketserver.TCPServer):
    def __init__(self, address, handler):
        super().__init__(address, handler, bind_and_activate=False)


class Elsewhere(socketserver.TCPServer):
    def server_bind(self):
        self.socket.close()
        self.socket = socketserver.socket.create_server(("127.0.0.1", 0))
        self.server_address = self.socket.getsockname()


class Again(socketserver.TCPServer):
    def server_bind(self):
        self.socket.close()
        self.socket = socketserver.socket.create_server(self.server_address)


class Pools(HTTPServer):
    _pool = "mine"


class Ends(HTTPServer):
    def __init__(self, address, handler):
        sys.exit("no licence")


class Starts(HTTPServer):
    def __init__(self, address, handler):
        super().__init__(address, handler)
        threading.Thread(target=threading.Event().wait, name="mine", daemon=True).start()


def make():
    return HTTPServer(("127.0.0.1", 0), Path)


def make_late():
    return socketserver.TCPServer(("127.0.0.1", 1), Echo, bind_and_activate=False)


def make_udp():
    return socketserver.UDPServer(("127.0.0.1", 0), Echo)


def make_tls():
    server = make()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("cert.pem", "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server


def make_nothing():
    return None


made = socketserver.TCPServer(("127.0.0.1", 0), Echo, bind_and_activate=False)
made.socket.close()
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the user's, importable here."""
    (tmp_path / "mine.py").write_text(APP)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("mine", None)


@contextlib.contextmanager
def made(name, handler=None, kind=socket.SOCK_STREAM, **variables):
    """A server as a pool of a config has it, and its listener."""
    with socket.socket(socket.AF_INET, kind) as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            listener.listen()
        maker = find_maker(f"mine:{name}")
        target = replace(maker.target(), handler=handler)
        server = make_server(maker, {"access_log": "off", **variables}, listener, target)
        try:
            yield server, listener
        finally:
            server.server_close()


def bases(server):
    return [f"{cls.__module__}.{cls.__qualname__}" for cls in type(server).__mro__]


@pytest.mark.parametrize("name", ["Brings", "Hides", "make()"])
@pytest.mark.usefixtures("mine")
def test_http_servers_of_others_run_on_the_engine(name):
    with made(name, threads=3) as (server, listener):
        assert server.server_address == listener.getsockname()
        assert server.server_port == listener.getsockname()[1]
        assert server.thread_count() == 3
        assert "prefork.http.server.HTTPServer" in bases(server)


@pytest.mark.usefixtures("mine")
def test_a_class_that_uses_a_name_of_the_engines_is_served_without_it():
    with made("Pools", object) as (server, _):
        assert "prefork.http.server.HTTPServer" not in bases(server)
        assert server._pool == "mine"


@pytest.mark.usefixtures("mine")
def test_what_the_config_says_counts_also_where_an_init_says_otherwise():
    with made("Brings", timeout=3) as (server, _):
        assert (server.timeout, server.more) == (3, 1)
    with made("Brings") as (server, _):
        assert server.timeout == 7


@pytest.mark.parametrize("name", ["Late", "make_late()"])
@pytest.mark.usefixtures("mine")
def test_a_server_that_is_not_bound_yet_is_bound(name):
    with made(name, None if name.endswith("()") else object) as (server, listener):
        assert server.socket.getsockname() == server.server_address == listener.getsockname()
        assert type(server.socket) is socket.socket


@pytest.mark.usefixtures("mine")
def test_tls_that_a_function_has_put_around_a_socket_stays(mine):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, check=True, capture_output=True, cwd=mine)
    with made("make_tls()") as (server, listener):
        assert isinstance(server.socket, ssl.SSLSocket)
        assert server.socket.getsockname() == listener.getsockname()


@pytest.mark.usefixtures("mine")
def test_shutdown_before_anybody_serves_does_not_wait():
    """Some call it in server_close(), which in the stdlib would then wait for ever."""
    with made("Brings") as (server, _):
        socketserver.BaseServer.shutdown(server)


@pytest.mark.parametrize(
    ("name", "handler", "problem"),
    [
        ("Elsewhere", object, "mine:Elsewhere binds a socket of its own, at "),
        ("Again", object, "mine:Again binds a socket of its own, and the address is in use"),
        ("Ends", object, "mine:Ends wants to end the program: exit no licence"),
        ("make_udp()", None, 'is one of streams; say socket_type = "SOCK_DGRAM"'),
        ("make_nothing()", None, "mine:make_nothing() returned something of type NoneType"),
    ],
)
@pytest.mark.usefixtures("mine")
def test_a_server_that_cannot_be_given_a_socket_is_an_error(name, handler, problem):
    with pytest.raises(PreforkError) as caught, made(name, handler):
        pass
    assert problem in str(caught.value)


SERVER_CLASS = "site.toml: server.main.server_class: "
PROBLEMS = [
    (
        {"server_class": "mine:Splits"},
        (
            f"{SERVER_CLASS}mine:Splits is called with (address), and takes (host, port, greeting,"
            " more=...); derive a class from it that takes these, or name a function that makes the"
            ' server, as in "module:function()"'
        ),
    ),
    (
        {"server_class": "http.server:HTTPServer"},
        f"{SERVER_CLASS}http.server:HTTPServer brings no handler of its own; name one as handler",
    ),
    (
        {"server_class": "mine:Hides", "handler": "mine:Path"},
        (
            f"{SERVER_CLASS}mine:Hides is called with (address, handler), and takes (address);"
            " derive a class from it that takes these, or name a function that makes the server,"
            ' as in "module:function()"'
        ),
    ),
    (
        {"server_class": "mine:made"},
        (
            f"{SERVER_CLASS}mine:made is a server that is made already, and each listener wants one"
            ' of its own; name its class, or a function that makes one, as in "module:function()"'
        ),
    ),
    (
        {"server_class": "mine:make"},
        f'{SERVER_CLASS}mine:make is no class; if it makes a server, write "mine:make()"',
    ),
    (
        {"server_class": "mine:Echo"},
        f"{SERVER_CLASS}mine:Echo is not derived from socketserver.TCPServer",
    ),
    (
        {"server_class": "mine:APP()"},
        f"{SERVER_CLASS}cannot serve mine:APP: there is no 'APP' in it",
    ),
    (
        {"server_class": "mine:made()"},
        f"{SERVER_CLASS}mine:made cannot be called, for it is of type TCPServer",
    ),
    (
        {"server_class": "mine:Hides", "handler_options": {"timeout": 3}},
        "site.toml: server.main.handler_options: whose? name the handler of mine:Hides",
    ),
    (
        {"server_class": "mine:Late", "handler": "mine:Echo", "proxies": ["192.0.2.1"]},
        (
            "site.toml: server.main.proxies: mine:Late is not derived from HTTPServer, which alone"
            " knows this"
        ),
    ),
]


@pytest.mark.parametrize(("keys", "problem"), PROBLEMS, ids=[str(p[0]) for p in PROBLEMS])
def test_a_server_class_that_cannot_be_called_is_an_error_of_the_config(mine, keys, problem):
    site = mine / "site.toml"
    site.write_text(table("server.main", {"bind": ["127.0.0.1:0"], **keys}))
    with pytest.raises(ConfigError) as caught:
        Planner(load("site.toml")).plans()
    assert caught.value.problems == [problem]


def test_options_are_those_of_the_handler_that_a_server_class_brings(mine):
    site = mine / "site.toml"
    keys = {"server_class": "mine:Brings", "threads": 4, "handler_options": {"timeout": 3}}
    site.write_text(table("server.main", {"bind": ["127.0.0.1:0"], **keys}))
    (plan,) = Planner(load("site.toml")).plans()
    assert plan.what == "mine:Brings"
    assert plan.load().target.handler.timeout == 3


# -- the end of a pool -------------------------------------------------------------------


ENDING = """


class Ends(socketserver.StreamRequestHandler):
    def handle(self):
        if self.rfile.readline() == b"end\\n":
            threading.Thread(target=self.server.shutdown).start()
        self.wfile.write(b"answered")


class Flags(Probe):
    def do_POST(self):
        super().do_POST()
        self.server._BaseServer__shutdown_request = True


class Threads(HTTPServer):
    def __init__(self, address, handler):
        super().__init__(address, handler)
        threading.Thread(target=threading.Event().wait, name="of mine", daemon=True).start()
"""


def is_refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), DEADLINE_S).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.fixture
def lent():
    """A socket that somebody else has lent, as systemd does."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def test_shutdown_in_a_handler_ends_its_pool_and_the_others_go_on(tmp_path, lent):
    site = Site(tmp_path)
    site.add_code(ENDING)
    bind = ["127.0.0.1:0", f"fd:{lent.fileno()}"]
    site.write(pools={"other": {"handler": "app:Ends", "workers": 2, "bind": bind}})
    with Daemon([COMMAND, site.config], site.folder, [lent.fileno()]) as daemon:
        daemon.wait_notified("READY=1")
        pools = site.status()["pools"]
        main, other = (int(pool["at"][0].rpartition(":")[2]) for pool in pools)
        with socket.create_connection(("127.0.0.1", other), DEADLINE_S) as waiting:
            assert converse(("127.0.0.1", other), b"end\n") == b"answered"
            waiting.sendall(b"begun before\n")
            assert read_all(waiting) == b"answered"
        daemon.log.wait_for("pool.ended pool=other")
        assert is_refused(other)
        assert fetch(main, "/1")[2] == b"1"
        status = site.status()
        assert status["state"] == "serving"
        ended = status["pools"][1]
        assert (ended["at"], ended["wanted"], ended["workers"]) == ([], 0, [])
        answer = site.ask("scale", "other", 2)
        assert answer.returncode == 1
        assert "the pool other has ended by its own shutdown(); reload starts it" in answer.stderr
        site.order("reload")
        again = [int(at.rpartition(":")[2]) for at in site.status()["pools"][1]["at"]]
        assert again[1] == lent.getsockname()[1]
        for port in again:
            assert converse(("127.0.0.1", port), b"again\n") == b"answered"
        assert daemon.stop() == 0


def test_shutdown_in_the_last_pool_ends_the_service_with_status_0(tmp_path):
    """So that systemd's Restart=on-failure lets it be."""
    site = Site(tmp_path)
    site.add_code(ENDING)
    site.write(handler="app:Ends", pools={"other": {"handler": "app:Flags"}})
    with site.start() as daemon:
        main, other = (int(pool["at"][0].rpartition(":")[2]) for pool in site.status()["pools"])
        # The stdlib's private flag, set by a handler on the engine.
        assert fetch(other, "/", "POST", b"abc")[2] == b"3"
        daemon.log.wait_for("pool.ended pool=other")
        assert converse(("127.0.0.1", main), b"end\n") == b"answered"
        assert daemon.wait() == 0


def test_threads_that_workers_will_not_have_are_warned_of(tmp_path):
    site = Site(tmp_path)
    site.add_code(ENDING)
    site.write(
        server_class="app:Threads", pools={"own": {"server_class": "app:Threads", "preload": False}}
    )
    with site.start() as daemon:
        (line,) = re.findall(r".* threads\.left_behind .*", daemon.log.text())
        assert 'pool=main what=app:Probe threads="of mine"' in line
        own = int(site.status()["pools"][1]["at"][0].rpartition(":")[2])
        assert "of mine" in probe(own, "[thread.name for thread in threading.enumerate()]")
        assert daemon.stop() == 0
