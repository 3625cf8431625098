"""Handlers that are no HTTP, over each kind of socket: one at a time, by threads, by forks."""

import contextlib
import http.server
import os
import re
import signal
import socket
import socketserver

import pytest
from daemon_kit import Gate
from harness import DEADLINE_S, Crowd, Prefork, backlog, children, is_alive, wait_gone, wait_until
from raw_kit import APPS, Client, ask, ports, raw_site

from prefork.concurrency import Said, served_by, threads_of
from prefork.errors import UsageError
from prefork.foreign import Maker
from prefork.http import BaseHTTPRequestHandler, HTTPServer
from prefork.loading import of_kind
from prefork.target import Kind, Target

STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM


@pytest.fixture
def site(tmp_path):
    return raw_site(tmp_path)


def stop(daemon) -> None:
    assert daemon.stop() == 0


# -- four kinds of sockets, two ways to ask for them -------------------------------------------


def test_one_handler_is_served_over_each_kind_of_socket_from_a_config(site):
    tcp = {"handler": "app:Echo", "bind": ["127.0.0.1:0", "unix:stream.sock"]}
    udp = {
        "handler": "app:Echo",
        "bind": ["127.0.0.1:0", "unix:datagram.sock"],
        "socket_type": "SOCK_DGRAM",
    }
    site.write(**tcp, pools={"datagrams": udp})
    with site.start() as daemon:
        by_tcp, by_unix, by_udp, by_unix_datagram = ports(daemon)
        for at in by_tcp, by_unix:
            assert ask(at, "hello") == "hello"
        for at in by_udp, by_unix_datagram:
            assert ask(at, "hello", DATAGRAM) == "hello"
        stop(daemon)
    assert list(site.folder.glob("*.sock")) == []


@pytest.mark.parametrize(("option", "kind"), [((), STREAM), (("--udp",), DATAGRAM)])
def test_one_handler_is_served_over_each_kind_of_socket_from_the_command_line(
    tmp_path, option, kind
):
    words = ["0", "-b", "127.0.0.1", "-b", f"unix:{tmp_path}/s", "-w", "1"]
    with Prefork("raw_app:Echo", *words, *option, cwd=APPS) as daemon:
        for at in ports(daemon):
            assert ask(at, "hello", kind) == "hello"
        stop(daemon)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("handler", "said", "problem"),
    [
        ("Lines", "SOCK_DGRAM", "app:Lines is a StreamRequestHandler, for streams, not for"),
        ("Packets", "SOCK_STREAM", "app:Packets is a DatagramRequestHandler, for datagrams, not"),
    ],
)
def test_a_handler_of_one_kind_is_not_served_over_the_other(site, handler, said, problem):
    site.write(handler=f"app:{handler}", socket_type=said)
    checked = site.ask("check")
    assert checked.returncode == 1
    assert problem in checked.stderr


class Plain(socketserver.BaseRequestHandler):
    pass


class Lines(socketserver.StreamRequestHandler):
    pass


class Packets(socketserver.DatagramRequestHandler):
    pass


class Hello(BaseHTTPRequestHandler):
    pass


def target(handler, kind: Kind = Kind.STREAM) -> Target:
    return Target("app:Handler", kind, handler, handler)


class Different(socketserver.UDPServer):
    """Its handlers get something else."""

    def get_request(self):
        data, address = self.socket.recvfrom(100)
        return data, address


@pytest.mark.parametrize(
    ("handler", "server_class", "said", "kind"),
    [
        (Plain, None, None, Kind.STREAM),
        (Plain, None, "SOCK_DGRAM", Kind.DATAGRAM),
        (Plain, socketserver.UDPServer, None, Kind.DATAGRAM),
        (Lines, Different, None, Kind.DATAGRAM),  # only that class knows what it gives
        (Plain, Different, "SOCK_STREAM", Kind.STREAM),
    ],
)
def test_the_config_says_over_what_it_is_served_or_the_server_or_the_handler(
    handler, server_class, said, kind
):
    assert of_kind(target(handler), server_class, said).kind is kind


@pytest.mark.parametrize(
    ("handler", "server_class", "said", "problem"),
    [
        (Lines, socketserver.UDPServer, None, "StreamRequestHandler, for streams"),
        (Packets, socketserver.TCPServer, None, "DatagramRequestHandler, for datagrams"),
        (Plain, socketserver.TCPServer, "SOCK_DGRAM", "TCPServer wants a SOCK_STREAM"),
        (Plain, socketserver.UDPServer, "SOCK_STREAM", "UDPServer wants a SOCK_DGRAM"),
    ],
)
def test_what_cannot_go_together_is_an_error(handler, server_class, said, problem):
    with pytest.raises(UsageError, match=problem):
        of_kind(target(handler), server_class, said)


# -- concurrency: which class that is -----------------------------------------------------------

Threading, Forking = socketserver.ThreadingMixIn, socketserver.ForkingMixIn


class Threaded(Threading, socketserver.TCPServer):
    pass


class Forked(Forking, socketserver.TCPServer):
    max_children = 7


class Varied(socketserver.TCPServer):
    timeout = 17
    daemon_threads = True


class OwnProcess(socketserver.TCPServer):
    def process_request(self, request, client_address):
        pass


class OwnThreads(Threaded):
    def process_request(self, request, client_address):
        pass


def class_for(target, named, said):
    """Return the class of the servers, where a class is named, or None."""
    maker = None if named is None else Maker(named.__name__, named, named)
    return served_by(target, maker, said).cls


@pytest.mark.parametrize(
    ("kind", "named", "said", "mixin"),
    [
        (Kind.STREAM, None, Said(), Threading),
        (Kind.STREAM, None, Said("threads", 9), Threading),
        (Kind.STREAM, None, Said("fork"), Forking),
        (Kind.STREAM, None, Said("none"), None),
        (Kind.STREAM, None, Said(None, 0), None),
        (Kind.STREAM, None, Said("none", 0), None),
        (Kind.DATAGRAM, None, Said(), None),
        (Kind.DATAGRAM, None, Said("threads"), Threading),
        (Kind.DATAGRAM, None, Said(None, 9), Threading),
        (Kind.DATAGRAM, None, Said("fork"), Forking),
        (Kind.STREAM, socketserver.TCPServer, Said(), None),
        (Kind.STREAM, socketserver.TCPServer, Said("none"), None),
        (Kind.STREAM, socketserver.TCPServer, Said("threads"), Threading),
        (Kind.STREAM, socketserver.TCPServer, Said("fork"), Forking),
        (Kind.STREAM, Threaded, Said(), Threading),
        (Kind.STREAM, Threaded, Said("threads", 9), Threading),
        (Kind.STREAM, Forked, Said("fork"), Forking),
        (Kind.STREAM, OwnProcess, Said("none"), None),
    ],
)
def test_a_mix_in_is_put_over_a_class_that_lacks_it(kind, named, said, mixin):
    found = class_for(target(Plain, kind), named, said)
    assert [m for m in (Threading, Forking) if issubclass(found, m)] == ([mixin] if mixin else [])
    if named is not None:
        assert issubclass(found, named)


def test_the_variables_of_a_class_are_its_own_under_a_mix_in_too():
    forked = class_for(target(Plain), Varied, Said("fork"))
    assert (forked.timeout, forked.max_children, forked.block_on_close) == (17, 40, True)
    assert class_for(target(Plain), Varied, Said("threads")).daemon_threads is True
    assert class_for(target(Plain), socketserver.TCPServer, Said("fork")).timeout == 300
    assert class_for(target(Plain), None, Said("fork")).timeout is None  # it is the clients'


@pytest.mark.parametrize(
    ("named", "said", "problem"),
    [
        (None, Said("threads", 0), "threads = 0 contradict each other"),
        (None, Said("fork", 4), "threads = 4 contradict each other"),
        (None, Said("none", 4), "threads = 4 contradict each other"),
        (Threaded, Said("fork"), 'Threaded has ThreadingMixIn in it, which is "threads"'),
        (Threaded, Said("none"), 'Threaded has ThreadingMixIn in it, which is "threads"'),
        (Threaded, Said(None, 0), 'Threaded has ThreadingMixIn in it, which is "threads"'),
        (Forked, Said("threads"), 'Forked has ForkingMixIn in it, which is "fork"'),
        (OwnProcess, Said("threads"), r"OwnProcess has a process_request\(\) of its own"),
        (OwnProcess, Said("fork"), r"OwnProcess has a process_request\(\) of its own"),
        (OwnThreads, Said(None, 9), r"OwnThreads has a process_request\(\) of its own"),
    ],
)
def test_what_contradicts_itself_or_the_class_is_an_error(named, said, problem):
    with pytest.raises(UsageError, match=problem):
        class_for(target(Plain), named, said)


@pytest.mark.parametrize(
    ("said", "threads"),
    [(Said(), None), (Said("none"), 0), (Said("threads"), None), (Said(None, 3), 3)],
)
def test_for_http_none_is_no_threads(said, threads):
    assert threads_of(target(Hello, Kind.HTTP), said) == threads
    for named in None, HTTPServer, http.server.ThreadingHTTPServer:
        assert not issubclass(class_for(target(Hello, Kind.HTTP), named, said), Forking)


@pytest.mark.parametrize("named", [HTTPServer, http.server.HTTPServer])
def test_for_http_threads_are_those_of_the_engine(named):
    found = class_for(target(Hello, Kind.HTTP), named, Said("threads"))
    assert issubclass(found, Threading)
    assert issubclass(found, named)


def test_a_folder_needs_no_threads_unless_it_is_said():
    folder = Target("here", Kind.HTTP, Hello, Hello, is_folder=True)
    said = [Said(), Said("threads"), Said(None, 4), Said("none")]
    assert [threads_of(folder, one) for one in said] == [0, None, 4, 0]


def test_a_function_that_makes_the_server_decides_itself():
    maker = Maker("app:make()", socketserver.TCPServer, None)
    assert served_by(target(Plain), maker, Said(None, 9)) is maker
    with pytest.raises(UsageError, match=r"app:make\(\) makes the server, and decides that itself"):
        served_by(target(Plain), maker, Said("threads"))


@pytest.mark.parametrize("named", [None, HTTPServer, http.server.HTTPServer])
def test_http_has_no_process_for_each_request(named):
    with pytest.raises(UsageError, match="for a process that handles one request at a time, say"):
        class_for(target(Hello, Kind.HTTP), named, Said("fork"))


# -- concurrency: what it does --------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """One worker for each concurrency, over TCP, then over UDP; in this order."""
    site = raw_site(tmp_path_factory.mktemp("many"))
    pools = {
        f"{handler}-{choice}": {"handler": f"app:{handler}", "concurrency": choice}
        for handler in ("Lines", "Packets")
        for choice in ("threads", "fork", "none")
    }
    first, *others = pools
    site.write(**pools[first], pools={name: pools[name] for name in others})
    with site.start() as daemon:
        names = [pool["name"] for pool in site.status()["pools"]]
        workers = [pool["workers"][0]["pid"] for pool in site.status()["pools"]]
        assert names == ["main", *others]
        yield dict(zip(pools, zip(ports(daemon), workers, strict=True), strict=True))
        stop(daemon)


def test_threads_of_a_worker_serve_several_clients(many):
    at, worker = many["Lines-threads"]
    with Client(at) as first, Client(at) as second:
        one, two = first.who(), second.who()
    assert one[0] == two[0] == worker
    assert one[2] != two[2]


def test_processes_of_a_worker_serve_several_clients_and_are_reaped(many):
    at, worker = many["Lines-fork"]
    with Client(at) as first, Client(at) as second:
        one, two = first.who(), second.who()
        assert one[1] == two[1] == worker
        assert sorted([one[0], two[0]]) == children(worker)
    wait_until(lambda: children(worker) == [])


def test_one_client_at_a_time_keeps_others_waiting(many):
    at, worker = many["Lines-none"]
    with Client(at) as first, Client(at) as second:
        assert first.who()[0] == worker
        second.say("hello")
        second.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            second.hear()
        first.socket.close()
        second.socket.settimeout(20)
        assert second.hear() == "HELLO"


def test_datagrams_have_threads_and_processes_too(many, tmp_path):
    gate = Gate(tmp_path)
    for choice in "threads", "fork":
        at, worker = many[f"Packets-{choice}"]
        with Client(at, DATAGRAM) as slow, Client(at, DATAGRAM) as quick:
            slow.say(f"wait {gate.path}")
            held = gate.wait_for_somebody()
            pid, parent, _ = quick.who()
            assert (pid == worker, parent == worker) == (choice == "threads", choice == "fork")
            held.let_go()
            assert slow.hear().startswith("WAIT ")


def test_datagrams_are_handled_one_at_a_time_where_nothing_is_said(many, tmp_path):
    gate = Gate(tmp_path)
    at, worker = many["Packets-none"]
    with Client(at, DATAGRAM) as slow, Client(at, DATAGRAM) as late:
        slow.say(f"wait {gate.path}")
        held = gate.wait_for_somebody()
        late.say("who")
        late.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            late.hear()
        held.let_go()
        late.socket.settimeout(20)
        assert late.hear().split()[0] == str(worker)


@pytest.mark.parametrize(
    ("choice", "mine"), [("threads", True), ("fork", False), ("none", True), (None, True)]
)
def test_the_command_line_has_concurrency_too(choice, mine):
    words = [] if choice is None else ["--concurrency", choice]
    with Prefork("raw_app:Lines", "0", "-w", "1", *words, cwd=APPS) as daemon:
        (worker,) = daemon.workers()
        with Client(daemon.port) as client:
            pid, parent, _ = client.who()
        assert (pid if mine else parent) == worker
        stop(daemon)


# -- keys -----------------------------------------------------------------------------------------


def test_keys_are_the_variables_of_the_server_class(site):
    lines = {"handler": "app:Lines", "block_on_close": True, "request_queue_size": 33}
    threads = {**lines, "daemon_threads": False, "threads": 5}
    site.write(
        **lines,
        concurrency="fork",
        max_children=3,
        timeout="7s",
        pools={"threads": threads, "packets": {"handler": "app:Packets", "max_packet_size": "1K"}},
    )
    with site.start() as daemon:
        by_fork, by_threads, packets = ports(daemon)
        with Client(by_fork) as client:
            names = "max_children timeout block_on_close request_queue_size"
            said = [client.ask(f"get {name}") for name in names.split()]
            assert said == ["3", "7.0", "True", "33"]
        with Client(by_threads) as client:
            names = "timeout block_on_close daemon_threads request_queue_size"
            said = [client.ask(f"get {name}") for name in names.split()]
            assert said == ["None", "True", "False", "33"]
        assert backlog(by_fork) == backlog(by_threads) == 33
        assert ask(packets, "get max_packet_size", DATAGRAM) == "1024"
        assert ask(packets, "x" * 2000, DATAGRAM) == "X" * 1024
        stop(daemon)


def test_an_address_of_two_families_is_served_in_the_one_that_is_said(site):
    families = {
        name: {"handler": "app:Lines", "bind": ["*:0"], "address_family": name}
        for name in ("AF_INET", "AF_INET6")
    }
    site.write(handler="app:Lines", pools=families)
    with site.start() as daemon:
        _, four, six = daemon.at.split(",")
        assert re.fullmatch(r"0\.0\.0\.0:\d+", four)
        assert re.fullmatch(r"\[::\]:\d+", six)
        stop(daemon)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"handler": "app:Lines", "max_children": 3}, "max_children: .* ForkingMixIn"),
        ({"handler": "app:Lines", "concurrency": "fork", "daemon_threads": True}, "ThreadingMixIn"),
        ({"handler": "app:Packets", "block_on_close": False}, "block_on_close: .* ForkingMixIn"),
        ({"handler": "app:Packets", "timeout": 5}, "timeout: nobody waits for the clients of"),
        ({"handler": "prefork.http:SimpleHTTPRequestHandler", "timeout": 5}, r"are in .*\.limits"),
        ({"handler": "app:Lines", "concurrency": "thread"}, 'concurrency: found "thread"'),
        ({"handler": "app:Lines", "address_family": "AF_INET6"}, "not of address_family AF_INET6"),
    ],
)
def test_a_key_that_nobody_would_heed_is_an_error(site, keys, problem):
    site.write(**keys)
    checked = site.ask("check")
    assert checked.returncode == 1
    assert re.search(problem, checked.stderr), checked.stderr


def test_a_class_with_a_mix_in_needs_no_concurrency(site):
    site.write(handler="app:Lines", server_class="app:Forked")
    with site.start() as daemon:
        with Client(daemon.port) as client:
            assert client.who()[1] == daemon.workers()[0]
            assert client.ask("get max_children") == "7"
        stop(daemon)


# -- ends -----------------------------------------------------------------------------------------


class Asking(Crowd):
    """Clients, each of which connects, asks twice and goes; or keeps its connection."""

    def __init__(self, at: int, size: int = 4):
        super().__init__(size)
        self._at = at
        self.answers = 0

    def ask(self, kept: dict) -> None:  # noqa: ARG002 # each is a connection of its own
        with Client(self._at) as client:
            for word in "one", "two":
                answer = client.ask(word)
                assert answer == word.upper(), answer
        self.answers += 1


@pytest.mark.parametrize("choice", ["threads", "fork", "none"])
def test_a_reload_and_a_stop_under_load_lose_nothing(site, choice):
    site.write(handler="app:Lines", concurrency=choice, workers=2)
    with site.start() as daemon:
        with Asking(daemon.port) as crowd:
            for _ in range(2):
                before = daemon.workers()
                site.order("reload")
                for pid in before:
                    wait_gone(pid)
        assert crowd.faults == []
        assert crowd.answers > 8
        stop(daemon)
    assert "Traceback" not in daemon.log.text()


@pytest.mark.parametrize("choice", ["threads", "fork"])
def test_a_stop_waits_for_threads_and_processes_and_answers_the_queue(site, choice, tmp_path):
    gate = Gate(tmp_path)
    most = {"threads": 2} if choice == "threads" else {"max_children": 2}
    site.write(handler="app:Lines", concurrency=choice, **most, master={"log": {"level": "debug"}})
    with site.start() as daemon, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(daemon.port)) for _ in range(6)]
        for client in clients:
            client.say(f"wait {gate.path}")
        held = gate.wait_for_somebody()
        daemon.send(signal.SIGTERM)
        daemon.log.wait_for("order=DRAIN")
        for client in clients:
            client.socket.shutdown(socket.SHUT_WR)
        gate.path.unlink()  # those that come later find no gate, and write so
        gate.path.write_text("open")
        held.let_go()
        assert [client.hear()[:5] for client in clients] == ["WAIT "] * 6
        assert daemon.wait() == 0


def test_processes_end_with_a_killed_worker_and_only_its_own(site):
    site.write(handler="app:Lines", concurrency="fork", workers=2, linger_timeout="0.2s")
    with site.start() as daemon, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(daemon.port)) for _ in range(8)]
        of_worker = {pid: set() for pid in daemon.workers()}
        for client in clients:
            pid, parent, _ = client.who()
            of_worker[parent].add(pid)
        victim = max(of_worker, key=lambda pid: len(of_worker[pid]))
        os.kill(victim, signal.SIGKILL)
        for pid in of_worker.pop(victim):
            wait_gone(pid)
        assert all(map(is_alive, *of_worker.values()))
        assert ask(daemon.port, "hello") == "HELLO"
        stop(daemon)


def test_without_block_on_close_processes_finish_by_themselves(site, tmp_path):
    gate = Gate(tmp_path)
    site.write(handler="app:Lines", concurrency="fork", block_on_close=False, linger_timeout=0.2)
    with site.start() as daemon:
        with Client(daemon.port) as client, Client(daemon.port) as idle:
            assert idle.who()[1] == daemon.workers()[0]
            pid = client.who()[0]
            client.say(f"wait {gate.path}")
            held = gate.wait_for_somebody()
            stop(daemon)
            assert is_alive(pid)
            assert idle.hear() == ""  # it was told to hang up on who is idle
            with pytest.raises(ConnectionRefusedError):  # there is nobody to accept
                socket.create_connection(("127.0.0.1", daemon.port), DEADLINE_S)
            held.let_go()
            assert client.hear().startswith("WAIT ")
        wait_gone(pid)


def test_without_block_on_close_threads_that_are_daemons_are_cut_off(site, tmp_path):
    gate = Gate(tmp_path)
    site.write(handler="app:Lines", block_on_close=False)
    with site.start() as daemon, Client(daemon.port) as client:
        client.say(f"wait {gate.path}")
        held = gate.wait_for_somebody()
        stop(daemon)
        assert client.hear() == ""
        with contextlib.suppress(OSError):
            held.let_go()


def test_a_mix_in_leaves_alone_what_its_worker_has_started(site):
    """ForkingMixIn itself, with max_children at work, waits for any child of the process."""
    site.write(
        handler="app:Lines",
        concurrency="fork",
        max_children=2,
        on_worker_start="app:start_own_process",
        on_worker_stop="app:tell_how_own_process_ended",
    )
    with site.start() as daemon:
        (worker,) = daemon.workers()
        (own,) = children(worker)
        with Client(daemon.port) as first, Client(daemon.port) as second:
            first.who(), second.who()
            assert len(children(worker)) == 3
            with Client(daemon.port) as third:
                third.say("hello")
                os.kill(own, signal.SIGTERM)
                wait_gone(own)
                second.socket.close()
                assert third.hear() == "HELLO"
            assert own in children(worker)  # nobody has waited for it
            first.socket.close()
        stop(daemon)
    assert (site.folder / "ended").read_text() == "-15"


@pytest.mark.parametrize(
    ("choice", "failing"), [("fork", "let_forks_fail_twice"), ("threads", "let_threads_fail_twice")]
)
def test_a_client_waits_while_the_system_has_no_process_or_thread_left(site, choice, failing):
    site.write(handler="app:Lines", concurrency=choice, on_worker_start=f"app:{failing}")
    with site.start() as daemon:
        assert ask(daemon.port, "hello") == "HELLO"
        daemon.log.wait_for("worker.short slot=0")
        assert "Traceback" not in daemon.log.text()
        stop(daemon)
