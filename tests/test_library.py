"""PreforkMixIn over the stdlib's servers, unchanged, in programs of their own."""

import http.client
import os
import signal
import socket
import socketserver
import xmlrpc.client
from pathlib import Path

import pytest
from harness import Script, converse, is_alive, read_all, title, wait_gone, wait_until

import prefork.socketserver as ours

ANSWER_PID = """
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.readline().strip() + b" %d" % os.getpid())
"""

HEAD = """
import http.server, os, signal, socket, socketserver, sys, threading, time
import wsgiref.simple_server, xmlrpc.server
from prefork import PreforkMixIn
"""

LOG = "import logging; logging.basicConfig(level=logging.DEBUG)\n"

SERVE = """
print("PORT", server.server_address[1], flush=True)
server.serve_forever()
server.server_close()
print("END", os.getpid(), flush=True)
"""


def script(folder: Path, *parts: str) -> Script:
    return Script(folder, HEAD + "".join(parts))


def both_workers(program: Script) -> list[int]:
    wait_until(lambda: len(program.workers()) == 2)  # one may answer before the other is there
    return program.workers()


def tcp_server(body: str = "", bases: str = "PreforkMixIn, socketserver.TCPServer") -> str:
    return f"""
class Server({bases}):
    workers = 2
    allow_reuse_address = True
{body}
server = Server(("127.0.0.1", 0), Handler)
"""


# -- the seven servers ---------------------------------------------------------


def test_tcp_is_answered_by_a_worker_and_not_by_the_master(tmp_path):
    with script(tmp_path, ANSWER_PID, tcp_server(), SERVE) as program:
        word, pid = converse(program.address, b"hello\n").split()
        assert word == b"hello"
        assert int(pid) in program.workers()
        assert program.stop() == 0
    assert program.out.lines()[-1] == f"END {program.pid}"


def test_udp_is_answered(tmp_path):
    server = """
class Handler(socketserver.DatagramRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.read()[::-1])

class Server(PreforkMixIn, socketserver.UDPServer):
    workers = 2

server = Server(("127.0.0.1", 0), Handler)
"""
    with (
        script(tmp_path, server, SERVE) as program,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(20)
        for n in range(50):
            client.sendto(b"abc%d" % n, program.address)
            assert client.recv(100) == (b"abc%d" % n)[::-1]
        assert program.stop() == 0


def test_unix_streams_are_answered(tmp_path):
    server = f"""
class Server(PreforkMixIn, socketserver.UnixStreamServer):
    workers = 2

server = Server({str(tmp_path / "s")!r}, Handler)
"""
    with script(tmp_path, ANSWER_PID, server, SERVE.replace("server.server_address[1]", "1")) as p:
        assert p.port == 1
        word, pid = converse(str(tmp_path / "s"), b"hello\n").split()
        assert word == b"hello"
        assert int(pid) in p.workers()
        assert p.stop() == 0


def test_unix_datagrams_are_answered(tmp_path):
    server = f"""
class Handler(socketserver.DatagramRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.read()[::-1])

class Server(PreforkMixIn, socketserver.UnixDatagramServer):
    workers = 2

server = Server({str(tmp_path / "s")!r}, Handler)
"""
    with (
        script(tmp_path, server, SERVE.replace("server.server_address[1]", "1")) as program,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client,
    ):
        assert program.port == 1
        client.bind(str(tmp_path / "c"))
        client.settimeout(20)
        client.sendto(b"abc", str(tmp_path / "s"))
        assert client.recv(100) == b"cba"
        assert program.stop() == 0


@pytest.mark.parametrize("name", ["HTTPServer", "ThreadingHTTPServer"])
def test_http_servers_are_answered(tmp_path, name):
    (tmp_path / "file.txt").write_text("hello")
    server = f"""
class Server(PreforkMixIn, http.server.{name}):
    workers = 2

server = Server(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
"""
    with script(tmp_path, server, SERVE) as program:
        for _ in range(5):
            client = http.client.HTTPConnection(*program.address, timeout=20)
            client.request("GET", "/file.txt")
            answer = client.getresponse()
            assert (answer.status, answer.read()) == (200, b"hello")
            client.close()
        assert program.stop() == 0


def test_wsgi_server_is_answered(tmp_path):
    server = """
class Server(PreforkMixIn, wsgiref.simple_server.WSGIServer):
    workers = 2

server = wsgiref.simple_server.make_server(
    "127.0.0.1", 0, wsgiref.simple_server.demo_app, server_class=Server
)
"""
    with script(tmp_path, server, SERVE) as program:
        client = http.client.HTTPConnection(*program.address, timeout=20)
        client.request("GET", "/x?y=1")
        body = client.getresponse().read().decode()
        assert body.startswith("Hello world!")
        assert "QUERY_STRING = 'y=1'" in body
        client.close()
        assert program.stop() == 0


def test_xmlrpc_server_is_answered(tmp_path):
    server = """
class Server(PreforkMixIn, xmlrpc.server.SimpleXMLRPCServer):
    workers = 2

server = Server(("127.0.0.1", 0), logRequests=False)
server.register_function(pow)
"""
    with script(tmp_path, server, SERVE) as program:
        with xmlrpc.client.ServerProxy(f"http://127.0.0.1:{program.port}") as proxy:
            assert proxy.pow(2, 10) == 1024
        assert program.stop() == 0


@pytest.mark.parametrize(
    "name", ["PreforkTCPServer", "PreforkUDPServer", "PreforkUnixStreamServer"]
)
def test_ready_made_classes_are_the_mixin_and_the_stdlibs_class(name):
    made = getattr(ours, name)
    plain = getattr(socketserver, name.removeprefix("Prefork"))
    assert made.__mro__[1:] == (ours.PreforkMixIn, *plain.__mro__)
    assert ours.BaseServer is socketserver.BaseServer


def test_prefork_socketserver_has_every_public_name_of_the_stdlib():
    assert set(socketserver.__all__) <= set(ours.__all__)
    assert all(getattr(ours, n) is getattr(socketserver, n) for n in socketserver.__all__)
    assert ours._SocketWriter is socketserver._SocketWriter
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ours.no_such_name


# -- ends ----------------------------------------------------------------------


def test_shutdown_from_a_thread_of_the_master_returns_when_the_fleet_has_ended(tmp_path):
    end = """
print("PORT", server.server_address[1], flush=True)

def end():
    go.wait()
    server.shutdown()
    print("SHUT", flush=True)

go = threading.Event()
signal.signal(signal.SIGUSR1, lambda *_: go.set())
thread = threading.Thread(target=end)
thread.start()
server.serve_forever()
thread.join()
print("END", flush=True)
"""
    with script(tmp_path, ANSWER_PID, tcp_server(), end) as program:
        assert converse(program.address, b"x\n").startswith(b"x ")
        workers = both_workers(program)
        program.send(signal.SIGUSR1)
        assert program.wait() == 0
        assert not any(is_alive(pid) for pid in workers)
    assert program.out.lines()[-2:] in (["SHUT", "END"], ["END", "SHUT"])


def test_serve_forever_in_a_thread_is_ended_by_the_main_thread(tmp_path):
    end = """
print("PORT", server.server_address[1], flush=True)
thread = threading.Thread(target=server.serve_forever)
thread.start()
with socket.create_connection(server.server_address) as client:
    client.sendall(b"hi\\n")
    print("GOT", client.recv(100).split()[0].decode(), flush=True)
server.shutdown()
thread.join()
print("THREADS", threading.active_count(), flush=True)
"""
    with script(tmp_path, ANSWER_PID, tcp_server(), end) as program:
        assert program.wait() == 0
        assert program.out.wait_closed()[-2:] == ["GOT hi", "THREADS 1"]


def test_a_server_serves_again_after_shutdown(tmp_path):
    again = """
print("PORT", server.server_address[1], flush=True)
for round in range(3):
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    with socket.create_connection(server.server_address) as client:
        client.sendall(b"hi\\n")
        print("GOT", client.recv(100).split()[0].decode(), flush=True)
    server.shutdown()
    thread.join()
print("BLOCKING", os.get_blocking(server.fileno()), server.socket.gettimeout())
with socket.create_connection(server.server_address) as client:
    client.sendall(b"hi\\n")
    server.handle_request()
    print("SELF", client.recv(100).split()[1] == b"%d" % os.getpid(), flush=True)
"""
    with script(tmp_path, ANSWER_PID, tcp_server(), again) as program:
        assert program.wait() == 0
        assert program.out.wait_closed()[1:] == ["GOT hi"] * 3 + ["BLOCKING True None", "SELF True"]


def test_shutdown_from_inside_a_handler_answers_and_ends_the_fleet(tmp_path):
    handler = """
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.server.shutdown()
        self.wfile.write(b"goodbye")
"""
    with script(tmp_path, handler, tcp_server(), SERVE) as program:
        assert converse(program.address) == b"goodbye"
        assert program.wait() == 0
        assert program.out.wait_closed()[-1] == f"END {program.pid}"


def test_the_stdlibs_private_shutdown_flag_set_by_a_handler_ends_the_fleet(tmp_path):
    handler = """
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.server._BaseServer__shutdown_request = True
"""
    with script(tmp_path, handler, tcp_server(), SERVE) as program:
        assert converse(program.address) == b""
        assert program.wait() == 0


def test_sigint_ends_at_once_and_raises_keyboardinterrupt_in_the_program(tmp_path):
    interrupted = """
print("PORT", server.server_address[1], flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    print("INTERRUPTED", flush=True)
print("HANDLER", signal.getsignal(signal.SIGINT) is signal.default_int_handler, flush=True)
"""
    with script(tmp_path, ANSWER_PID, tcp_server(), interrupted) as program:
        assert converse(program.address, b"x\n").startswith(b"x ")
        program.send(signal.SIGINT)
        assert program.wait() == 0
        assert program.out.wait_closed()[1:] == ["INTERRUPTED", "HANDLER True"]


def test_a_signal_handler_of_the_program_is_left_to_it(tmp_path):
    own = """
def on_term(signum, frame):
    print("MINE", flush=True)
    server.shutdown()

signal.signal(signal.SIGTERM, on_term)
"""
    with script(tmp_path, ANSWER_PID, tcp_server(), own, SERVE) as program:
        assert converse(program.address, b"x\n").startswith(b"x ")
        assert program.stop() == 0
        assert program.out.wait_closed()[1:] == ["MINE", f"END {program.pid}"]


def test_an_exception_from_the_programs_signal_handler_leaves_no_worker_behind(tmp_path):
    own = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
"""
    with script(tmp_path, ANSWER_PID, tcp_server(), own, SERVE) as program:
        assert converse(program.address, b"x\n").startswith(b"x ")
        workers = both_workers(program)
        assert program.stop() == 7
        for pid in workers:
            wait_gone(pid)


# -- hooks ---------------------------------------------------------------------


def test_every_hook_of_the_server_is_called_in_the_worker_in_the_stdlibs_order(tmp_path):
    hooks = """
    def _note(self, name):
        who = "master" if os.getpid() == MASTER else "worker"
        os.write(1, f"HOOK {name} {who}\\n".encode())

    def server_bind(self): self._note("server_bind"); super().server_bind()
    def server_activate(self): self._note("server_activate"); super().server_activate()
    def get_request(self): self._note("get_request"); return super().get_request()
    def verify_request(self, request, address):
        self._note("verify_request")
        return super().verify_request(request, address)
    def process_request(self, request, address):
        self._note("process_request")
        super().process_request(request, address)
    def finish_request(self, request, address):
        self._note("finish_request")
        super().finish_request(request, address)
    def shutdown_request(self, request):
        self._note("shutdown_request")
        super().shutdown_request(request)
    def close_request(self, request): self._note("close_request"); super().close_request(request)
    def server_close(self): self._note("server_close"); super().server_close()
    def setup_worker(self): self._note("setup_worker")
    def finish_worker(self): self._note("finish_worker")
"""
    parts = ["MASTER = os.getpid()\n", ANSWER_PID, tcp_server(hooks).replace("= 2", "= 1"), SERVE]
    with script(tmp_path, *parts) as program:
        assert converse(program.address, b"x\n").startswith(b"x ")
        assert program.stop() == 0
        said = [line for line in program.out.wait_closed() if line.startswith("HOOK")]
    assert said == [
        "HOOK server_bind master",
        "HOOK server_activate master",
        "HOOK setup_worker worker",
        "HOOK get_request worker",
        "HOOK verify_request worker",
        "HOOK process_request worker",
        "HOOK finish_request worker",
        "HOOK shutdown_request worker",
        "HOOK close_request worker",
        "HOOK finish_worker worker",
        "HOOK server_close master",
    ]


def test_a_request_that_is_not_verified_is_closed_unanswered(tmp_path):
    hooks = """
    def verify_request(self, request, address): return False
"""
    with script(tmp_path, ANSWER_PID, tcp_server(hooks), SERVE) as program:
        assert converse(program.address) == b""
        assert program.stop() == 0


def test_a_handlers_exception_reaches_handle_error_and_the_worker_serves_on(tmp_path):
    handler = """
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        if self.rfile.readline() == b"bad\\n":
            raise ValueError("no good")
        self.wfile.write(b"%d" % os.getpid())
"""
    hooks = """
    def handle_error(self, request, address):
        os.write(1, f"ERROR {sys.exc_info()[1]!r}\\n".encode())
"""
    with script(tmp_path, handler, tcp_server(hooks).replace("= 2", "= 1"), SERVE) as program:
        first = converse(program.address, b"good\n")
        assert converse(program.address, b"bad\n") == b""
        program.out.wait_for(r"^ERROR ValueError\('no good'\)$")
        assert converse(program.address, b"good\n") == first
        assert program.stop() == 0


def test_the_default_handle_error_prints_the_traceback(tmp_path):
    handler = """
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        raise ValueError("no good")
"""
    with script(tmp_path, handler, tcp_server(), SERVE) as program:
        assert converse(program.address) == b""
        program.log.wait_for("^ValueError: no good$")
        program.log.wait_for("^Exception occurred during processing of request from")
        assert program.stop() == 0


def test_service_actions_are_called_in_idle_workers(tmp_path):
    hooks = """
    def service_actions(self): os.write(1, b"TURN %d\\n" % os.getpid())
"""
    serve = SERVE.replace("serve_forever()", "serve_forever(0.02)")
    with script(tmp_path, ANSWER_PID, tcp_server(hooks), serve) as program:
        turns = {program.out.wait_for(r"^TURN (\d+)$", count=n)[1] for n in range(1, 20)}
        assert turns <= {str(pid) for pid in program.workers()}
        assert program.stop() == 0


@pytest.mark.parametrize("where", ["class variable", "socket"])
def test_handle_timeout_is_called_when_no_request_comes(tmp_path, where):
    hooks = """
    def handle_timeout(self): os.write(1, b"TIMEOUT\\n")
"""
    if where == "class variable":
        parts = [tcp_server(hooks + "    timeout = 0.05\n")]
    else:
        parts = [tcp_server(hooks), "server.socket.settimeout(0.05)\n"]
    serve = SERVE.replace("serve_forever()", "serve_forever(0.02)")
    with script(tmp_path, ANSWER_PID, *parts, serve) as program:
        program.out.wait_for("^TIMEOUT$", count=5)
        for n in range(20):
            assert converse(program.address, b"%d\n" % n).split()[0] == b"%d" % n
        assert program.stop() == 0


def test_handle_timeout_is_not_called_without_a_timeout(tmp_path):
    hooks = """
    def handle_timeout(self): os.write(1, b"TIMEOUT\\n")
    turns = 0
    def service_actions(self):
        self.turns += 1
        os.write(1, b"TURN %d\\n" % self.turns)
"""
    serve = SERVE.replace("serve_forever()", "serve_forever(0.02)")
    with script(tmp_path, ANSWER_PID, tcp_server(hooks), serve) as program:
        program.out.wait_for("^TURN 10$")
        assert program.stop() == 0
    assert "TIMEOUT" not in program.out.text()


def test_handle_request_overrides_are_honoured(tmp_path):
    hooks = """
    def handle_request(self):
        os.write(1, b"MINE\\n")
        super().handle_request()
"""
    with script(tmp_path, ANSWER_PID, tcp_server(hooks), SERVE) as program:
        assert converse(program.address, b"x\n").startswith(b"x ")
        program.out.wait_for("^MINE$")
        assert program.stop() == 0


def test_handle_request_without_serve_forever_stays_in_the_calling_process(tmp_path):
    once = """
print("PORT", server.server_address[1], flush=True)
server.handle_request()
print("END", flush=True)
"""
    with script(tmp_path, ANSWER_PID, tcp_server(), once) as program:
        assert converse(program.address, b"x\n") == b"x %d" % program.pid
        assert program.wait() == 0


@pytest.mark.parametrize("mixin", ["ThreadingMixIn", "ForkingMixIn"])
def test_a_second_mixin_serves_several_clients_in_one_worker(tmp_path, mixin):
    bases = f"PreforkMixIn, socketserver.{mixin}, socketserver.TCPServer"
    parts = [ANSWER_PID, tcp_server(bases=bases).replace("workers = 2", "workers = 1"), SERVE]
    with script(tmp_path, *parts) as program:
        clients = [socket.create_connection(program.address, 20) for _ in range(4)]
        for client in reversed(clients):  # the first to connect is the last to ask
            client.sendall(b"x\n")
            word, pid = read_all(client).split()
            assert word == b"x"
            worker = program.workers()[0]
            assert (int(pid) == worker) == (mixin == "ThreadingMixIn")
            client.close()
        assert program.stop() == 0


@pytest.mark.parametrize("mixin", ["ThreadingMixIn", "ForkingMixIn"])
@pytest.mark.parametrize("daemon", [True, False])
def test_a_graceful_end_waits_for_the_requests_of_a_second_mixin(tmp_path, mixin, daemon):
    handler = """
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"first ")
        self.rfile.readline()
        self.wfile.write(b"second")
"""
    bases = f"PreforkMixIn, socketserver.{mixin}, socketserver.TCPServer"
    body = f"    daemon_threads = {daemon}\n"
    with script(tmp_path, LOG, handler, tcp_server(body, bases), SERVE) as program:
        client = socket.create_connection(program.address, 20)
        client.sendall(b"a beginning, ")
        assert client.recv(6, socket.MSG_WAITALL) == b"first "
        program.send(signal.SIGTERM)
        program.log.wait_for("worker.ordered .*order=DRAIN")
        client.sendall(b"and an end\n")
        assert read_all(client) == b"second"
        client.close()
        assert program.wait() == 0


def test_a_handler_may_replace_the_servers_socket_before_serving(tmp_path):
    other = """
server.socket.close()
server.socket = socket.create_server(("127.0.0.1", 0))
server.server_address = server.socket.getsockname()
"""
    with script(tmp_path, ANSWER_PID, tcp_server(), other, SERVE) as program:
        assert converse(program.address, b"x\n").startswith(b"x ")
        assert program.stop() == 0


def test_workers_auto_is_the_number_of_processors_of_the_process(tmp_path):
    source = tcp_server().replace("    workers = 2\n", "")
    with script(tmp_path, LOG, ANSWER_PID, source, SERVE) as program:
        assert converse(program.address, b"x\n").startswith(b"x ")
        wait_until(lambda: len(program.workers()) >= len(os.sched_getaffinity(0)))
        assert program.stop() == 0
    assert program.log.text().count("worker.started") == len(os.sched_getaffinity(0))


def test_the_processes_say_what_they_are_and_the_programs_title_returns(tmp_path):
    tail = """
from setproctitle import getproctitle
print("TITLE", getproctitle(), flush=True)
"""
    parts = [ANSWER_PID, tcp_server().replace("workers = 2", "workers = 1"), SERVE, tail]
    with script(tmp_path, *parts) as program:
        where = f"Server 127.0.0.1:{program.port}"
        with socket.create_connection(program.address, 20) as client:
            wait_until(lambda: title(program.pid) == f"prefork: master [{where}]")
            wait_until(program.workers)
            worker = program.workers()[0]
            wait_until(lambda: title(worker) == f"prefork: worker 0 [{where}] busy")
            client.sendall(b"x\n")
            read_all(client)
        wait_until(lambda: title(worker) == f"prefork: worker 0 [{where}] idle")
        assert program.stop() == 0
        assert "program.py" in program.out.wait_for("^TITLE (.*)")[1]


def test_a_number_of_workers_that_cannot_be_is_an_error(tmp_path):
    source = tcp_server().replace("workers = 2", "workers = 0")
    with script(tmp_path, ANSWER_PID, source, SERVE) as program:
        assert program.wait() == 1
        program.log.wait_for("ValueError: workers must be 1 to 1024, not 0")
