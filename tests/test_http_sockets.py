"""Handlers that use their client's socket themselves, fork, or do something when it has gone."""

# ruff: noqa: N802 # http.server names what it calls

import os
import socket
import subprocess
import threading

import pytest
from harness import DEADLINE_S, converse, read_all
from http_kit import OUR_SERVERS, STDLIB, answers, get, plain, serving

LARGE = 3_000_000


@pytest.fixture(params=OUR_SERVERS)
def server_class(request):
    return OUR_SERVERS[request.param]


class Quiet(STDLIB.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, body=b"ok"):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def connected(server):
    return socket.create_connection(server.server_address, DEADLINE_S)


# -- what is done after the client ---------------------------------------------------


def kept_by(server_class, handler, requests=3):
    """Return the answers, and whether the handler kept its connection, at the last request."""
    with serving(server_class, handler) as server:
        data = get() * (requests - 1) + get("/", "Connection: close")
        return [answer.body for answer in answers(converse(server.server_address, data))]


def test_what_init_does_after_the_stdlibs_is_done_when_the_client_has_gone(server_class):
    class Handler(Quiet):
        def __init__(self, *args):
            self.open = True
            super().__init__(*args)
            self.open = False

        def do_GET(self):
            self.answer(str(self.open).encode())

    assert kept_by(server_class, Handler) == [b"True"] * 3


def test_what_finish_request_does_after_the_stdlibs_is_done_when_the_client_has_gone(server_class):
    class Server(server_class):
        open = False

        def finish_request(self, *args):
            self.open = True
            try:
                super().finish_request(*args)
            finally:
                self.open = False

    class Handler(Quiet):
        def do_GET(self):
            self.answer(str(self.server.open).encode())

    assert kept_by(Server, Handler) == [b"True"] * 3


class Prepared(Quiet):
    """Does something before, and nothing after: the most usual __init__ of all."""

    def __init__(self, *args, greeting=b"hello", **kwargs):
        self.greeting = greeting
        super().__init__(*args, **kwargs)

    def do_GET(self):
        kept = self.__dict__["_prefork_connection"].kept
        self.answer(self.greeting + (b" kept" if kept else b" parked"))


def test_an_init_that_does_nothing_afterwards_does_not_keep_its_client(server_class):
    assert kept_by(server_class, Prepared) == [b"hello parked"] * 3


def test_a_finish_request_that_only_adds_an_argument_does_not_keep_its_client(server_class):
    class Server(server_class):
        def finish_request(self, request, client_address):
            self.RequestHandlerClass(request, client_address, self, greeting=b"bye")

    assert kept_by(Server, Prepared) == [b"bye parked"] * 3


# -- the socket itself ---------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "shutdown", "detach"])
def test_what_was_written_arrives_though_the_handler_ends_the_connection_itself(server_class, end):
    class Handler(Quiet):
        def do_GET(self):
            self.answer(b"x" * LARGE)
            if end == "close":
                self.connection.close()
            elif end == "shutdown":
                self.connection.shutdown(socket.SHUT_RDWR)
            else:
                os.close(self.connection.detach())

    with serving(server_class, Handler) as server, connected(server) as client:
        client.sendall(get())
        (answer,) = answers(read_all(client))
        assert len(answer.body) == LARGE


def test_a_child_process_writes_after_the_head(server_class):
    class Handler(Quiet):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "6")
            self.end_headers()
            subprocess.run(["printf", "child\\n"], stdout=self.wfile, check=True)
            self.close_connection = True

    with serving(server_class, Handler) as server:
        (answer,) = answers(converse(server.server_address, get()))
        assert answer.body == b"child\n"


def test_an_exception_after_an_answer_by_the_socket_adds_nothing_to_it(server_class):
    class Handler(Quiet):
        def do_GET(self):
            self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            raise LookupError

    class Server(server_class):
        def handle_error(self, request, client_address):
            pass

    with serving(Server, Handler) as server:
        assert converse(server.server_address, get()).endswith(b"\r\n\r\nok")


def test_a_timeout_set_in_the_handler_holds_for_its_streams(server_class):
    class Handler(Quiet):
        def do_POST(self):
            self.connection.settimeout(0.05)
            try:
                self.rfile.read(5)
            except TimeoutError:
                self.answer(b"timed out")
            self.close_connection = True

    with serving(server_class, Handler) as server, connected(server) as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
        assert read_all(client).endswith(b"timed out")


def test_whoever_waits_for_its_client_has_said_everything_before(server_class):
    class Handler(Quiet):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            said = self.connection.recv(4)
            self.wfile.write(said)

    with serving(server_class, Handler) as server, connected(server) as client:
        client.sendall(get())
        assert client.recv(9) == b"HTTP/1.1 "
        client.sendall(b"more")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client).endswith(b"\r\n\r\nmore")


def test_the_head_of_a_stream_goes_at_once(server_class):
    gate = threading.Event()

    class Handler(plain(STDLIB)):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            assert gate.wait(DEADLINE_S)
            self.wfile.write(b"event")

    with serving(server_class, Handler) as server, connected(server) as client:
        client.sendall(get())
        assert client.recv(9) == b"HTTP/1.1 "
        gate.set()
        client.shutdown(socket.SHUT_WR)
        assert b"event" in read_all(client)


# -- processes -------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_that_closes_everything_disturbs_nobody(server_class):
    class Handler(Quiet):
        def do_GET(self):
            if self.path == "/fork":
                pid = os.fork()
                if pid == 0:
                    self.connection.close()
                    self.server.server_close()
                    os._exit(0)
                os.waitpid(pid, 0)
            self.answer()

    with serving(server_class, Handler) as server, connected(server) as client:
        for path in ("/", "/fork", "/", "/fork", "/"):
            client.sendall(get(path))
            assert client.recv(9) == b"HTTP/1.1 "
            while not client.recv(4096).endswith(b"ok"):
                pass
            (answer,) = answers(converse(server.server_address, get()))
            assert answer.body == b"ok"


# -- serving ---------------------------------------------------------------------------


def test_handle_request_with_no_time_serves_who_is_there_already(server_class):
    class Handler(Quiet):
        def do_GET(self):
            self.answer()

    timeouts = []

    class Server(server_class):
        timeout = 0

        def handle_timeout(self):
            timeouts.append(1)

    with Server(("127.0.0.1", 0), Handler) as server:
        server.handle_request()
        assert timeouts == [1]
        with connected(server) as client:
            client.sendall(get("/", "Connection: close"))
            server.handle_request()
            client.settimeout(DEADLINE_S)
            assert read_all(client).endswith(b"ok")


def test_shutdown_ends_though_clients_keep_coming(server_class):
    class Handler(Quiet):
        def do_GET(self):
            self.answer()

    stop = threading.Event()

    def hammer(address):
        while not stop.is_set():
            try:
                converse(address, get("/", "Connection: close"), deadline_s=1)
            except OSError:
                stop.wait(0.01)

    with server_class(("127.0.0.1", 0), Handler) as server:
        serving_thread = threading.Thread(target=server.serve_forever)
        serving_thread.start()
        clients = [threading.Thread(target=hammer, args=(server.server_address,)) for _ in range(4)]
        for client in clients:
            client.start()
        converse(server.server_address, get("/", "Connection: close"))
        server.shutdown()
        serving_thread.join(DEADLINE_S)
        assert not serving_thread.is_alive()
        stop.set()
        for client in clients:
            client.join()
