"""Every key of a config, shown by a real daemon: what it says is so in the workers."""

import contextlib
import json
import os
import re
import resource
import socket
import struct
import sys
from pathlib import Path

import pytest
from daemon_kit import Asking, Gate, Mode, Site, connect, fetch, probe
from harness import COMMAND, DEADLINE_S, Daemon, backlog, children, converse, wait_until

from prefork.cpus import available_cpus


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def stop(daemon) -> None:
    assert daemon.stop() == 0


def listening(daemon) -> list[str]:
    return daemon.log.wait_for(r"master\.listening .*\bat=(\S+)")[1].strip('"').split(",")


# -- the worker's surroundings ---------------------------------------------------


def test_environment_path_umask_limits_and_privileges_are_as_the_config_says(site):
    lib = site.folder / "lib"
    lib.mkdir()
    (lib / "json_of_ours.py").write_text("WHERE = 'lib'\n")
    site.write(
        master={
            "working_directory": "lib",
            "umask": Mode(0o027),
            "rlimits": {"nofile": 777, "core": 0, "fsize": "unlimited"},
        },
        umask=Mode(0o077),
        path=[".", "lib"],
        environment={"COLOUR": "blue"},
    )
    with site.start() as daemon:
        at = daemon.port
        assert probe(at, "os.getcwd()") == str(lib)
        assert probe(at, "os.environ['COLOUR']") == "blue"
        assert probe(at, "__import__('json_of_ours').WHERE") == "lib"
        assert probe(at, "sys.path[:2]") == [str(site.folder), str(lib)]
        assert probe(at, "os.umask(0o077)") == 0o077
        assert probe(at, "resource.getrlimit(resource.RLIMIT_NOFILE)") == [777, 777]
        assert probe(at, "resource.getrlimit(resource.RLIMIT_CORE)") == [0, 0]
        assert probe(at, "resource.getrlimit(resource.RLIMIT_FSIZE)[0]") == resource.RLIM_INFINITY
        assert probe(at, "status('NoNewPrivs')") == ["1"]
        assert probe(at, "status('NoNewPrivs', os.getppid())") == ["1"]
        assert probe(at, "os.getppid()") == daemon.pid
        assert probe(at, "status('Umask', os.getppid())") == ["0027"]
        assert Path(f"/proc/{daemon.pid}/cwd").readlink() == lib
        stop(daemon)


def test_what_is_not_said_is_as_the_reference_says(site):
    site.write(master={"no_new_privs": False})
    with site.start() as daemon:
        at = daemon.port
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        soft = 65536 if hard == resource.RLIM_INFINITY else min(65536, hard)
        assert probe(at, "resource.getrlimit(resource.RLIMIT_NOFILE)[0]") == soft
        assert probe(at, "status('NoNewPrivs')") == ["0"]
        assert probe(at, "os.getcwd()") == str(site.folder)
        server = probe(at, "[self.server.request_queue_size, self.server.timeout]")
        assert server == [2048, None]
        stop(daemon)


def test_a_working_directory_that_is_not_there_is_an_error(site):
    site.write(master={"working_directory": "nowhere"})
    answer = site.run(site.config)
    assert answer.returncode == 1
    assert "master.working_directory" in answer.stderr
    assert f"{site.folder}/nowhere" in answer.stderr


def test_workers_are_as_many_as_the_config_says(site):
    site.write(workers=3, pools={"auto": {"workers": "auto"}})
    with site.start() as daemon:
        assert len(daemon.workers()) == 3 + available_cpus()
        assert [p["wanted"] for p in site.status()["pools"]] == [3, available_cpus()]
        stop(daemon)


@pytest.mark.parametrize("preload", [True, False])
def test_preload_decides_who_imports_the_handler(site, preload):
    site.write(preload=preload, environment={"COLOUR": "blue"})
    site.add_code("seen_at_import = os.environ.get('COLOUR')")
    with site.start() as daemon:
        importer = probe(daemon.port, "imported_by")
        assert (importer == daemon.pid) is preload
        assert (importer in daemon.workers()) is not preload
        assert probe(daemon.port, "seen_at_import") == "blue"
        stop(daemon)


def test_secrets_come_from_the_environment_and_from_files(site):
    (site.folder / "password").write_text("hunter2\n")
    site.write(
        environment={"DATABASE": "${DATABASE_URL}", "PASSWORD_file": "password"},
        handler_options={"answer": "${ANSWER:-forty-two}", "numbers": [1, 2]},
    )
    with site.start(DATABASE_URL="postgres://here") as daemon:
        at = daemon.port
        assert probe(at, "os.environ['DATABASE']") == "postgres://here"
        assert probe(at, "os.environ['PASSWORD']") == "hunter2"
        assert probe(at, "[self.answer, self.numbers]") == ["forty-two", [1, 2]]
        assert probe(at, "[Probe.answer, Probe.numbers]") == ["none", [0]]  # it is derived from
        stop(daemon)
    shown = site.run("show", site.config, env={**os.environ, "DATABASE_URL": "secret-url"})
    assert shown.returncode == 0, shown.stderr
    assert "hunter2" not in shown.stdout
    assert "secret-url" not in shown.stdout


def test_a_handler_option_from_a_file_reaches_the_handler(site):
    (site.folder / "answer.txt").write_text("from a file\n")
    site.write(handler_options={"answer_file": "answer.txt"})
    with site.start() as daemon:
        assert probe(daemon.port, "self.answer") == "from a file"
        stop(daemon)


HOOKS = """
def started(servers):
    tell("start", servers)


def stopped(servers):
    tell("stop", servers)


def tell(what, servers):
    at = [server.server_address[1] for server in servers]
    with open(os.environ["DIARY"], "a") as file:
        file.write(f"{what} {os.getpid()} {at}\\n")
"""


@pytest.mark.parametrize("preload", [True, False])
def test_hooks_are_called_in_each_worker_with_its_servers(site, preload):
    diary = site.folder / "diary"
    site.add_code(HOOKS)
    site.write(
        bind=["127.0.0.1:0", "unix:web.sock"],
        workers=2,
        preload=preload,
        on_worker_start="app:started",
        on_worker_stop="app:stopped",
        environment={"DIARY": str(diary)},
    )
    with site.start() as daemon:
        workers, port = daemon.workers(), daemon.port
        # A Unix socket's address is a path: the hook shows one letter of it.
        at = [port, str(site.folder / "web.sock")[1]]
        assert sorted(diary.read_text().splitlines()) == sorted(
            f"start {pid} {at}" for pid in workers
        )
        stop(daemon)
        lines = diary.read_text().splitlines()
        assert sorted(lines[2:]) == sorted(f"stop {pid} {at}" for pid in workers)


# -- the server's class and its variables ---------------------------------------


def test_the_variables_of_a_server_class_are_those_of_the_config(site):
    said = {
        "threads": 3,
        "request_queue_size": 77,
        "timeout": 12.5,
        "daemon_threads": False,
        "block_on_close": False,
        "proxies": ["192.0.2.0/24"],
        "forwarders": ["198.51.100.7", "unix"],
    }
    site.write(**said, server_class="prefork.http:ThreadingHTTPServer")
    with site.start() as daemon:
        names = list(said)
        found = probe(daemon.port, f"[str(getattr(self.server, n)) for n in {names}]")
        values = [tuple(v) if isinstance(v, list) else v for v in said.values()]
        assert found == [str(value) for value in values]
        stop(daemon)


LIMITS = {
    "head_s": 11.0,
    "keep_alive_s": 12.0,
    "keep_alive_requests": 3,
    "body_stall_s": 13.0,
    "write_stall_s": 14.0,
    "lingering_s": 1.5,
    "line_bytes": 200,
    "field_bytes": 300,
    "fields": 8,
    "head_bytes": 1000,
    "body_bytes": 400,
    "prefetch_bytes": 100,
    "drain_bytes": 120,
    "buffer_bytes": 5000,
    "connections": 50,
}


def test_the_limits_table_is_the_engines(site):
    site.write(limits=LIMITS)
    with site.start() as daemon:
        at = daemon.port
        for name, value in LIMITS.items():
            assert probe(at, f"self.server.limits.{name}") == value, name
        assert fetch(at, "/" + "a" * 200)[0] == 414
        assert fetch(at, "/1", x="y" * 300)[0] == 431
        assert fetch(at, "/1", **{f"x{n}": "y" for n in range(9)})[0] == 431
        assert fetch(at, "/1", method="POST", body=b"x" * 401)[0] == 413
        assert fetch(at, "/1", method="POST", body=b"x" * 400)[2] == b"400"
        with contextlib.closing(connect(at)) as client:
            for turn in range(3):
                client.request("GET", "/1")
                answer = client.getresponse()
                assert answer.read() == b"1"
                assert (answer.headers["Connection"] == "close") is (turn == 2)
        stop(daemon)


def test_times_that_clients_have_are_those_of_the_config(site):
    short = {"head_s": 0.3, "body_stall_s": 0.3, "keep_alive_s": 0.3}
    site.write(limits=short)
    with site.start() as daemon:
        at = "127.0.0.1", daemon.port
        with socket.create_connection(at, DEADLINE_S) as client:
            client.sendall(b"GET / HTTP/1.1\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 408")
        with socket.create_connection(at, DEADLINE_S) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
            assert client.recv(65536).startswith(b"HTTP/1.1 408")
        with socket.create_connection(at, DEADLINE_S) as client:
            client.sendall(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(65536).endswith(b"1")
            assert client.recv(65536) == b""  # after keep_alive_s
        stop(daemon)


def test_without_threads_one_request_at_a_time_and_with_them_several(site, tmp_path):
    gate = Gate(tmp_path)
    site.write(threads=0, pools={"wide": {"threads": 2}})
    with site.start() as daemon:
        narrow, wide = (int(at.rpartition(":")[2]) for at in listening(daemon))
        for at in narrow, wide:
            first = Asking(at, gate.expression)
            held = gate.wait_for_somebody()
            second = Asking(at, "time.monotonic()")
            if at == wide:
                second.answer()  # while the first one waits
            released = probe(wide, "time.monotonic()")
            held.let_go()
            assert first.answer() == ""
            assert (second.answer() > released) is (at == narrow)
        stop(daemon)


OWN_SERVER = """
class Own(HTTPServer):
    heard = []

    def server_bind(self):
        super().server_bind()
        self.heard.append(f"bound {self.socket.getsockname()[1] > 0}")

    def server_activate(self):
        super().server_activate()
        self.heard.append("activated")

    def get_request(self):
        request, address = super().get_request()
        self.heard.append("got")
        return request, address

    def verify_request(self, request, client_address):
        self.heard.append("verified")
        return not Path("closed").exists()

    def handle_timeout(self):
        Path("timeouts").open("a").write("late\\n")
"""


def test_a_server_class_of_ones_own_has_all_its_hooks_called(site):
    site.add_code(OWN_SERVER)
    site.write(server_class="app:Own", threads=0, timeout=0.05)
    with site.start() as daemon:
        heard = probe(daemon.port, "self.server.heard")
        assert heard == ["bound True", "activated", "got", "verified"]
        assert "Own" in probe(daemon.port, "[c.__name__ for c in type(self.server).__mro__]")
        wait_until((site.folder / "timeouts").exists)
        (site.folder / "closed").touch()
        assert converse(("127.0.0.1", daemon.port), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") == b""
        stop(daemon)


FORKING = """
class Forking(socketserver.ForkingMixIn, socketserver.TCPServer):
    pass


class Waits(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(f"{os.getppid()} {self.server.max_children}\\n".encode())
        self.rfile.readline()
"""


def test_max_children_bounds_what_a_forking_server_forks(site):
    site.add_code(FORKING)
    site.write(server_class="app:Forking", handler="app:Waits", max_children=2)
    with site.start() as daemon, contextlib.ExitStack() as stack:
        (worker,) = daemon.workers()
        clients = []
        for _ in range(2):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
            client.settimeout(DEADLINE_S)
            assert client.recv(99) == f"{worker} 2\n".encode()
            clients.append(client)
        third = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
        third.settimeout(DEADLINE_S)
        assert len(children(worker)) == 2
        for client in clients:
            client.sendall(b"\n")
            assert client.recv(99) == b""
        assert third.recv(99) == f"{worker} 2\n".encode()
        third.sendall(b"\n")
        stop(daemon)


@pytest.mark.parametrize(
    ("handler", "key", "value", "classes"),
    [
        ("app:Shout", "access_log", "json", "HTTPServer"),
        ("app:Probe", "max_packet_size", 99, "UDPServer"),
        ("app:Probe", "max_children", 2, "ForkingMixIn"),
        ("app:Shout", "forwarders", ["127.0.0.1"], "HTTPServer"),
        ("app:Echo", "daemon_threads", True, "ThreadingMixIn"),
    ],
)
def test_a_key_that_the_server_would_not_heed_is_an_error(site, handler, key, value, classes):
    site.write(handler=handler, **{key: value})
    answer = site.run("check", site.config)
    assert answer.returncode == 1
    assert re.search(rf"server\.main\.{key}: .* {classes}", answer.stderr), answer.stderr


# -- sockets -----------------------------------------------------------------------


def test_each_listener_has_its_options(site):
    site.write(
        bind=[
            "127.0.0.1:0",
            {"address": "127.0.0.2:0", "request_queue_size": 33, "interface": "lo"},
            {"address": "192.0.2.99:0", "freebind": True},
            {"address": "unix:small.sock", "mode": Mode(0o600)},
            "unix:usual.sock",
            "unix:@prefork-test-${NUMBER}",
        ],
        request_queue_size=44,
    )
    with site.start(NUMBER=str(os.getpid())) as daemon:
        at = listening(daemon)
        port = daemon.port  # the same for all
        assert backlog(port, "127.0.0.1") == 44
        assert backlog(port, "127.0.0.2%lo") == 33
        assert at[2].startswith("192.0.2.99:")
        small, usual = site.folder / "small.sock", site.folder / "usual.sock"
        assert small.stat().st_mode & 0o7777 == 0o600
        assert usual.stat().st_mode & 0o7777 == 0o660
        for path in (str(small), str(usual), f"@prefork-test-{os.getpid()}"):
            assert probe(path, "1") == 1
        device = 'self.server.socket.getsockopt(socket.SOL_SOCKET, 25, 16).decode().strip("\\0")'
        assert probe(("127.0.0.1", port), device) == ""
        assert probe(("127.0.0.2", port), device) == "lo"
        stop(daemon)
    assert not small.exists()
    assert not usual.exists()


@pytest.mark.parametrize(("v6only", "found"), [(True, 1), (False, 0)])
def test_v6only_decides_whether_ipv4_clients_come_by_an_ipv6_socket(site, v6only, found):
    site.write(bind=[{"address": "[::]:0", "v6only": v6only}])
    with site.start() as daemon:
        option = "self.server.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)"
        assert probe(("::1", daemon.port), option) == found
        if v6only:
            with pytest.raises(ConnectionRefusedError):
                probe(daemon.port, "1")
        else:
            assert probe(daemon.port, "self.client_address[0]") == "::ffff:127.0.0.1"
        stop(daemon)


def test_a_star_is_all_interfaces_and_both_families(site):
    site.write(bind=["*:0"])
    with site.start() as daemon:
        assert probe(("::1", daemon.port), "self.client_address[0]") == "::1"
        assert probe(daemon.port, "self.client_address[0]") == "127.0.0.1"
        stop(daemon)


@pytest.mark.parametrize(("family", "at"), [("AF_INET", "0.0.0.0"), ("AF_INET6", "[::]")])
def test_an_address_family_is_the_only_one_that_is_served(site, family, at):
    site.write(bind=["*:0"], address_family=family)
    with site.start() as daemon:
        assert [n.rpartition(":")[0] for n in listening(daemon)] == [at]
        stop(daemon)
    site.write(bind=["unix:web.sock"], address_family=family)
    answer = site.run("check", site.config)
    assert answer.returncode == 1
    assert f"is not of address_family {family}" in answer.stderr


def test_without_allow_reuse_address_the_option_is_off(site):
    site.write(allow_reuse_address=False, pools={"on": {"allow_reuse_address": True}})
    with site.start() as daemon:
        option = "self.server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)"
        off, on = (int(at.rpartition(":")[2]) for at in listening(daemon))
        assert probe(off, option) == 0
        assert probe(on, option) == 1
        stop(daemon)


def test_a_socket_of_fd_n_is_inherited_from_whoever_started_it(site):
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        site.write(bind=[f"fd:{ours.fileno()}"])
        with Daemon([COMMAND, site.config], site.folder, [ours.fileno()]) as daemon:
            daemon.wait_notified("READY=1")
            assert daemon.log.wait_for(rf"master\.listening .*at=127\.0\.0\.1:{port}$")
            assert probe(port, "1") == 1
            site.order("reload")
            assert probe(port, "1") == 1
            stop(daemon)
        assert ours.fileno() >= 0


AS_SYSTEMD = """
import fcntl, os, sys
high = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in sys.argv[3:]]
for number, fd in enumerate(high, 3):
    os.dup2(fd, number)
    os.close(fd)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)))
os.environ["LISTEN_FDNAMES"] = sys.argv[2]
os.execv(sys.executable, [sys.executable, "-m", "prefork", sys.argv[1]])
"""


def test_sockets_of_systemd_go_by_their_names(site):
    with socket.create_server(("127.0.0.1", 0)) as web, socket.socket(socket.AF_UNIX) as admin:
        admin.bind(str(site.folder / "admin.sock"))
        admin.listen()
        site.write(bind=["systemd:web"], pools={"admin": {"bind": ["systemd:admin"]}})
        inherited = [admin.fileno(), web.fileno()]
        words = [site.config, "admin:web", *inherited]
        with Daemon([sys.executable, "-c", AS_SYSTEMD, *words], site.folder, inherited) as daemon:
            daemon.wait_notified("READY=1")
            pids = [pool["workers"][0]["pid"] for pool in site.status()["pools"]]
            assert probe(web.getsockname()[1], "os.getpid()") == pids[0]
            assert probe(str(site.folder / "admin.sock"), "os.getpid()") == pids[1]
            stop(daemon)
    site.write(bind=["systemd:web"])
    answer = site.run(site.config)
    assert answer.returncode == 1
    assert "systemd:web: no socket of that name was passed to this process" in answer.stderr


def test_a_number_that_is_no_socket_is_an_error(site):
    site.write(bind=["fd:77"])
    answer = site.run(site.config)
    assert (answer.returncode, answer.stderr) == (
        1,
        "prefork: error: fd:77: it is no open socket: Bad file descriptor\n",
    )


def test_a_stale_unix_socket_is_removed_and_a_live_one_refused(site):
    path = site.folder / "web.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    site.write(bind=["unix:web.sock"], master={"control": "off"})
    with site.start() as daemon:
        assert probe(str(path), "1") == 1
        second = site.run(site.config)
        assert second.returncode == 1
        assert second.stderr == (
            f"prefork: error: cannot bind to unix:{path}: it is in use by a running server\n"
        )
        assert probe(str(path), "1") == 1
        stop(daemon)
    assert not path.exists()
    path.write_text("precious")
    third = site.run(site.config)
    assert third.returncode == 1
    assert "a file of that name is there, and no socket" in third.stderr
    assert path.read_text() == "precious"


def test_an_interface_that_is_not_there_is_an_error(site):
    site.write(bind=[{"address": "127.0.0.1:0", "interface": "nosuch0"}])
    answer = site.run(site.config)
    assert answer.returncode == 1
    assert "there is no network interface 'nosuch0'" in answer.stderr


# -- TCP and datagrams -------------------------------------------------------------


BARE = """
class Bare(socketserver.BaseRequestHandler):
    def handle(self):
        data, sock = self.request
        sock.sendto(b"bare " + data, self.client_address)


class Shouts(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    pass
"""


def exchange(client: socket.socket, data: bytes, at) -> bytes:
    client.settimeout(DEADLINE_S)
    client.sendto(data, at)
    return client.recv(65536)


def test_streams_and_datagrams_are_served_over_ip_and_unix_sockets(site):
    site.add_code(BARE)
    site.write(
        handler="app:Shout",
        bind=["127.0.0.1:0", "unix:shout.sock"],
        pools={
            "echo": {"handler": "app:Echo", "bind": ["127.0.0.1:0", "unix:echo.sock"]},
            "short": {"handler": "app:Echo", "max_packet_size": 4},
            "by_type": {"handler": "app:Bare", "socket_type": "SOCK_DGRAM"},
            "by_class": {"handler": "app:Bare", "server_class": "socketserver:UDPServer"},
            "own": {
                "handler": "app:Shout",
                "server_class": "app:Shouts",
                "bind": ["unix:own.sock"],
            },
        },
    )
    with site.start() as daemon:
        at = [n.rpartition(":")[2] for n in listening(daemon)]
        tcp, udp, short, by_type, by_class = (int(at[n]) for n in (0, 2, 4, 5, 6))
        assert converse(("127.0.0.1", tcp), b"one\ntwo\n") == b"ONE\nTWO\n"
        for name in "shout.sock", "own.sock":
            assert converse(str(site.folder / name), b"one\n") == b"ONE\n"
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            assert exchange(client, b"x" * 8000, ("127.0.0.1", udp)) == b"x" * 8000
            assert exchange(client, b"", ("127.0.0.1", udp)) == b"nothing"
            assert exchange(client, b"123456", ("127.0.0.1", short)) == b"1234"
            assert exchange(client, b"type", ("127.0.0.1", by_type)) == b"bare type"
            assert exchange(client, b"class", ("127.0.0.1", by_class)) == b"bare class"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.bind(str(site.folder / "me.sock"))
            assert exchange(client, b"hello", str(site.folder / "echo.sock")) == b"hello"
        stop(daemon)
    assert not (site.folder / "echo.sock").exists()


def test_http_over_datagrams_is_an_error(site):
    site.write(socket_type="SOCK_DGRAM")
    answer = site.run("check", site.config)
    assert answer.returncode == 1
    assert "server.main.handler: HTTP is served over streams" in answer.stderr


# -- whom clients are behind ----------------------------------------------------------


def test_each_listener_believes_whom_it_is_told_to(site):
    site.write(
        bind=[
            "127.0.0.1:0",
            {"address": "127.0.0.2:0", "proxies": ["127.0.0.0/8"]},
            {"address": "127.0.0.3:0", "forwarders": ["127.0.0.0/8"]},
            {"address": "unix:web.sock", "forwarders": ["unix"]},
        ],
    )
    ask = b"GET /self.client_address[0] HTTP/1.0\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n"
    v1 = b"PROXY TCP4 198.51.100.1 198.51.100.2 1111 80\r\n"
    addresses = socket.inet_aton("198.51.100.3") + socket.inet_aton("198.51.100.4")
    v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H4s4sHH", 12, *addresses_of(addresses))
    with site.start() as daemon:
        port = daemon.port
        plain = converse(("127.0.0.1", port), ask)
        assert plain.endswith(b'"127.0.0.1"')
        assert converse(("127.0.0.2", port), v1 + ask).endswith(b'"198.51.100.1"')
        assert converse(("127.0.0.2", port), v2 + ask).endswith(b'"198.51.100.3"')
        assert converse(("127.0.0.3", port), ask).endswith(b'"203.0.113.9"')
        assert converse(str(site.folder / "web.sock"), ask).endswith(b'"203.0.113.9"')
        assert converse(("127.0.0.1", port), v1 + ask).startswith(b"HTTP/1.1 400")
        stop(daemon)


def addresses_of(pair: bytes) -> tuple:
    return pair[:4], pair[4:], 1111, 80


# -- access logs -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("common", r'^127\.0\.0\.1 - - \[[^]]+\] "GET /1 HTTP/1\.1" 200 1$'),
        ("combined", r'^127\.0\.0\.1 - - \[[^]]+\] "GET /1 HTTP/1\.1" 200 1 "from" "agent"$'),
        ("json", r'^\{.*"GET".*"/1".*\}$'),
    ],
)
def test_the_access_log_has_its_form_and_its_file(site, form, pattern):
    site.write(access_log=form, access_log_path="logs/access.log", workers=2)
    (site.folder / "logs").mkdir()
    with site.start() as daemon:
        assert fetch(daemon.port, "/1", Referer="from", User_Agent="agent")[2] == b"1"
        stop(daemon)
    (line,) = (site.folder / "logs/access.log").read_text().splitlines()
    assert re.search(pattern, line), line
    if form == "json":
        assert json.loads(line)["status"] == 200


def test_the_access_log_is_on_stderr_off_or_the_handlers_own(site):
    site.write(access_log="common", pools={"off": {"access_log": "off"}})
    with site.start() as daemon:
        ports = [int(at.rpartition(":")[2]) for at in listening(daemon)]
        assert probe(ports[1], "2") == 2
        assert probe(ports[0], "1") == 1
        daemon.log.wait_for(r'^127\.0\.0\.1 .*"GET /1 HTTP/1\.1" 200')
        assert "GET /2" not in daemon.log.text()
        stop(daemon)
    site.write(access_log="handler", handler="app:Says")
    with site.start() as daemon:
        assert probe(daemon.port, "1") == 1
        daemon.log.wait_for(r'^handler says "GET /1 HTTP/1\.1" 200')
        stop(daemon)


# -- the log ---------------------------------------------------------------------------


def test_the_log_goes_to_its_file_in_its_form_from_its_level_on(site):
    log = {"target": "./log", "format": "json", "level": "debug", "mode": Mode(0o604)}
    site.write(master={"log": log})
    with site.start() as daemon:
        lines = [json.loads(line) for line in (site.folder / "log").read_text().splitlines()]
        events = [line["event"] for line in lines]
        assert events[0] == "master.listening"
        assert "worker.ready" in events
        assert lines[0]["pid"] == daemon.pid
        assert (site.folder / "log").stat().st_mode & 0o777 == 0o604
        stop(daemon)
        assert daemon.log.text() == ""
    site.write(master={"log": {"target": "./quiet", "level": "warning"}})
    with site.start() as daemon:
        stop(daemon)
    assert (site.folder / "quiet").read_text() == ""


def test_events_that_repeat_themselves_are_counted(site):
    site.write(master={"log": {"repeat_burst": 2, "repeat_window": 0.5}})
    site.add_code("class Fails(Probe):\n    def do_GET(self):\n        raise ValueError('no')")
    site.write(
        handler="app:Fails", master={"log": {"repeat_burst": 2, "repeat_window": 0.5}}, threads=0
    )
    with site.start() as daemon:
        for _ in range(6):
            assert fetch(daemon.port)[0] == 500
        daemon.log.wait_for(r"log\.repeated .*of=handler\.failed.* more=4")
        failures = [line for line in daemon.log.lines() if "handler.failed" in line]
        assert len([line for line in failures if "log.repeated" not in line]) == 2
        stop(daemon)
