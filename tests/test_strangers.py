"""What handlers of all kinds do with their socket, their process and their time.

Each of these patterns is in use somewhere; none may look stuck, be cut off by a
stop, or hold one up.
"""

import os
import signal
import socket
import threading
from pathlib import Path

import pytest
from harness import DEADLINE_S, Prefork, Script, converse, is_alive, read_all, wait_gone

HEAD = """
import concurrent.futures, logging, multiprocessing, os, select, signal, socket, socketserver
import subprocess, sys, threading, time, http.server
from prefork import PreforkMixIn
logging.basicConfig(level=logging.DEBUG)
"""


def server(body: str = "", bases: str = "ThreadingTCPServer", workers: int = 1) -> str:
    return f"""
class Server(PreforkMixIn, socketserver.{bases}):
    workers = {workers}
    request_queue_size = 128
    heartbeat_timeout = 0.5
    daemon_threads = True
{body}

server = Server(("127.0.0.1", 0), Handler)
print("PORT", server.server_address[1], flush=True)
server.serve_forever()
server.server_close()
"""


def script(folder: Path, *parts: str) -> Script:
    return Script(folder, HEAD + "".join(parts))


def quietly_served(program: Script, client: socket.socket, data: bytes = b"x\n") -> bytes:
    """Return the answer to data sent after more than the heartbeat's time of silence."""
    program.log.wait_for("worker.ready")
    threading.Event().wait(1.2)  # silence itself is what is tested
    client.sendall(data)
    answer = read_all(client)
    assert "worker.killed" not in program.log.text()
    return answer


# -- waiting for a client by other means than a blocking call --------------------


def test_a_handler_that_waits_in_select_is_not_stuck(tmp_path):
    handler = """
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        while not select.select([self.request], [], [], 0.1)[0]:
            pass
        self.request.sendall(self.request.recv(100))
"""
    with script(tmp_path, handler, server()) as program:
        with socket.create_connection(program.address, DEADLINE_S) as client:
            assert quietly_served(program, client) == b"x\n"
        assert program.stop() == 0


def test_one_thread_may_read_while_another_writes(tmp_path):
    handler = """
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        threading.Timer(0.1, self.request.sendall, [b"hello "]).start()
        self.request.sendall(self.request.recv(100))
"""
    with script(tmp_path, handler, server()) as program:
        with socket.create_connection(program.address, DEADLINE_S) as client:
            assert client.recv(6, socket.MSG_WAITALL) == b"hello "
            assert quietly_served(program, client) == b"x\n"
        assert program.stop() == 0


def test_a_parent_that_waits_for_one_of_its_many_children_is_not_stuck(tmp_path):
    handler = """
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.readline())
"""
    source = server("    max_children = 1\n", "ForkingTCPServer")
    with script(tmp_path, handler, source) as program:
        first = socket.create_connection(program.address, DEADLINE_S)
        second = socket.create_connection(program.address, DEADLINE_S)
        with first, second:
            assert quietly_served(program, first) == b"x\n"
            second.sendall(b"y\n")
            assert read_all(second) == b"y\n"
        assert program.stop() == 0


# -- the end of idle and of late clients -----------------------------------------


@pytest.mark.parametrize(
    ("handler", "bases"),
    [
        (
            """
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.settimeout(0.05)
        while True:
            try:
                if not self.request.recv(100):
                    return
            except TimeoutError:
                continue
""",
            "TCPServer",
        ),
        (
            """
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.rfile.readline()
""",
            "ForkingTCPServer",
        ),
    ],
    ids=["recv with a timeout in a loop", "in a process of its own"],
)
def test_an_idle_client_is_let_go_at_a_stop(tmp_path, handler, bases):
    with script(tmp_path, handler, server("    graceful_timeout = 600\n", bases)) as program:
        program.log.wait_for("worker.ready")
        with socket.create_connection(program.address, DEADLINE_S) as client:
            program.send(signal.SIGTERM)
            assert read_all(client) == b""
        assert program.wait() == 0
    assert "worker.killed" not in program.log.text()


def test_an_upload_announced_by_expect_100_continue_is_read_whole_during_a_stop(tmp_path):
    os.mkfifo(tmp_path / "GATE")
    handler = """
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        os.write(1, b"BEGUN\\n")
        os.close(os.open("GATE", os.O_RDONLY))
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"got %d" % len(body))
"""
    with script(tmp_path, handler, server("", "TCPServer")) as program:
        slow = socket.create_connection(program.address, DEADLINE_S)
        slow.sendall(b"GET / HTTP/1.0\r\n\r\n")
        program.out.wait_for("BEGUN")
        upload = socket.create_connection(program.address, DEADLINE_S)
        with slow, upload:
            upload.sendall(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            program.send(signal.SIGTERM)
            program.log.wait_for("order=DRAIN")
            threading.Event().wait(2.2)  # past the time that idle clients are given
            os.close(os.open(tmp_path / "GATE", os.O_WRONLY))
            assert upload.recv(100).startswith(b"HTTP/1.1 100 ")
            threading.Event().wait(1.2)
            upload.sendall(b"12345")
            assert read_all(upload).endswith(b"got 5")
        assert program.wait() == 0


# -- the accept queue, whatever becomes of the workers ---------------------------


def test_a_worker_told_to_retire_still_drains_when_the_fleet_then_stops(tmp_path):
    os.mkfifo(tmp_path / "GATE")
    handler = """
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        if self.rfile.readline() == b"slow\\n":
            os.write(1, b"BEGUN\\n")
            os.close(os.open("GATE", os.O_RDONLY))
        self.wfile.write(b"answered")
"""
    with script(tmp_path, handler, server()) as program:
        clients = [socket.create_connection(program.address, DEADLINE_S)]
        clients[0].sendall(b"slow\n")
        program.out.wait_for("BEGUN")
        os.kill(program.workers()[0], signal.SIGTERM)
        program.log.wait_for("order=RETIRE")
        for _ in range(5):
            clients.append(socket.create_connection(program.address, DEADLINE_S))
            clients[-1].sendall(b"x\n")
        program.send(signal.SIGTERM)
        program.log.wait_for("order=DRAIN")
        os.close(os.open(tmp_path / "GATE", os.O_WRONLY))
        assert [read_all(client) for client in clients] == [b"answered"] * 6
        assert program.wait() == 0
        for client in clients:
            client.close()


def test_a_worker_that_dies_in_the_drain_does_not_take_the_queue_with_it(tmp_path):
    os.mkfifo(tmp_path / "GATE")
    handler = """
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        line = self.rfile.readline()
        if line == b"slow\\n":
            os.write(1, b"BEGUN\\n")
            os.close(os.open("GATE", os.O_RDONLY))
        elif line == b"crash\\n":
            os._exit(9)
        self.wfile.write(b"answered")
"""
    with script(tmp_path, handler, server("", "TCPServer")) as program:
        clients = []
        for line in (b"slow\n", b"crash\n", *[b"x\n"] * 4):
            clients.append(socket.create_connection(program.address, DEADLINE_S))
            clients[-1].sendall(line)
        program.out.wait_for("BEGUN")
        program.send(signal.SIGTERM)
        program.log.wait_for("order=DRAIN")
        os.close(os.open(tmp_path / "GATE", os.O_WRONLY))
        answers = [read_all(client) for client in clients]
        assert answers == [b"answered", b"", *[b"answered"] * 4]
        assert program.wait() == 0
        for client in clients:
            client.close()


def test_a_queue_that_no_worker_can_serve_holds_no_stop_up(tmp_path):
    """One more worker tries; its failure is the end, not the beginning of a fork loop."""
    body = """
    graceful_timeout = 600
    def setup_worker(self):
        raise OSError("no database")
"""
    with script(tmp_path, "Handler = None\n", server(body, "TCPServer")) as program:
        program.log.wait_for("worker.died .*ready=no")
        with socket.create_connection(program.address, DEADLINE_S):
            program.send(signal.SIGTERM)
            assert program.wait() == 0
    assert program.log.text().count("master.unserved") == 1


def test_a_socket_file_lets_nobody_in_whom_a_stop_would_cut_off(tmp_path):
    """The command never serves again, so its Unix sockets refuse from the beginning of a stop."""
    handler = """
import os, socketserver
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.rfile.readline()
        self.wfile.write(b"answered")
"""
    (tmp_path / "served_here.py").write_text(handler)
    path = str(tmp_path / "s")
    broken: list[str] = []
    refused: list[OSError] = []

    def ask() -> None:
        while not refused:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(DEADLINE_S)
                try:
                    client.connect(path)
                except OSError as error:
                    refused.append(error)
                    return
                try:
                    client.sendall(b"x\n")
                    answer = read_all(client)
                except OSError as error:
                    answer = repr(error).encode()
                if answer != b"answered":
                    broken.append(answer.decode())

    with Prefork("served_here:Handler", "-b", f"unix:{path}", "-w", "2", cwd=tmp_path) as daemon:
        threads = [threading.Thread(target=ask) for _ in range(32)]
        for thread in threads:
            thread.start()
        threading.Event().wait(0.3)  # a load of some duration
        assert daemon.stop() == 0
        for thread in threads:
            thread.join()
    assert broken == []


# -- processes, threads and pools of the handler's own ----------------------------


@pytest.mark.parametrize("bases", ["TCPServer", "ForkingTCPServer"])
def test_a_handler_may_fork(tmp_path, bases):
    handler = """
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        pid = os.fork()
        if pid == 0:
            os._exit(42)
        self.wfile.write(b"%d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    with script(tmp_path, handler, server("", bases)) as program:
        assert converse(program.address) == b"42"
        assert program.stop() == 0


def test_a_process_that_a_handler_starts_can_be_terminated(tmp_path):
    handler = """
multiprocessing.set_start_method("fork")

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        child = multiprocessing.Process(target=time.sleep, args=(600,))
        child.start()
        child.terminate()
        child.join()
        self.wfile.write(b"%d" % child.exitcode)
"""
    with script(tmp_path, handler, server("", "TCPServer")) as program:
        assert converse(program.address) == b"-15"
        assert program.stop() == 0


def test_a_client_can_be_sent_to_another_process(tmp_path):
    handler = """
def answer(channel):
    with channel.recv() as client:
        client.sendall(b"from %d" % os.getpid())

class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        ours, theirs = context.Pipe()
        child = context.Process(target=answer, args=(theirs,))
        child.start()
        ours.send(self.request)
        child.join()

context = multiprocessing.get_context("fork")
"""
    with script(tmp_path, handler, server("", "TCPServer")) as program:
        word, pid = converse(program.address).split()
        assert word == b"from"
        assert int(pid) not in program.workers()
        assert program.stop() == 0


@pytest.mark.parametrize(
    "pool",
    [
        "ThreadPoolExecutor(2)",
        "ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('fork'))",
    ],
)
def test_an_idle_pool_holds_no_stop_up_and_leaves_nothing_behind(tmp_path, pool):
    body = f"""
    graceful_timeout = 600
    def setup_worker(self):
        self.pool = concurrent.futures.{pool}
        os.write(1, b"POOL %d\\n" % self.pool.submit(os.getpid).result())
"""
    handler = """
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"%d" % self.server.pool.submit(pow, 2, 10).result())
"""
    with script(tmp_path, handler, server(body, "TCPServer")) as program:
        pid = int(program.out.wait_for(r"POOL (\d+)")[1])
        assert converse(program.address) == b"1024"
        assert program.stop() == 0
        wait_gone(pid)


def test_a_master_killed_is_noticed_also_after_privileges_were_dropped(tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root has privileges to drop")
    handler = """
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        os.write(1, b"BEGUN\\n")
        threading.Event().wait()
"""
    body = """
    def setup_worker(self):
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
"""
    with script(tmp_path, handler, server(body, "TCPServer")) as program:
        program.log.wait_for("worker.ready")
        (worker,) = program.workers()
        with socket.create_connection(program.address, DEADLINE_S):
            program.out.wait_for("BEGUN")
            os.kill(program.pid, signal.SIGKILL)
            wait_gone(worker)
            assert not is_alive(worker)


@pytest.mark.parametrize("privileged", [True, False])
def test_a_listening_socket_survives_a_master_that_was_killed_in_a_stop(tmp_path, privileged):
    """Who has inherited the socket serves on; nothing of the dead one's is left on it."""
    if privileged and os.getuid() != 0:
        pytest.skip("root alone has the privilege")
    handler = """
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        os.write(1, b"BEGUN\\n")
        self.rfile.readline()
        self.wfile.write(b"answered")

"""
    drop = "os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
    handler = ("" if privileged or os.getuid() != 0 else drop) + handler
    adopt = """
class Server(PreforkMixIn, socketserver.TCPServer):
    workers = 1

server = Server(("127.0.0.1", 0), Handler, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=int(os.environ["LISTENER"]))
server.server_address = server.socket.getsockname()
server.serve_forever()
"""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.set_inheritable(listener.fileno(), True)
        address = listener.getsockname()
        environ = {"LISTENER": str(listener.fileno()), "inherit": [listener.fileno()]}
        first = Script(tmp_path, HEAD + handler + adopt, **environ)
        with first, socket.create_connection(address, DEADLINE_S):
            first.out.wait_for("BEGUN")
            first.send(signal.SIGTERM)
            first.log.wait_for("order=DRAIN")
            os.kill(first.pid, signal.SIGKILL)
        with Script(tmp_path, HEAD + handler + adopt, **environ) as second:
            assert converse(address) == b"answered"
            assert second.stop() == 0


def test_a_handler_that_closes_its_server_has_its_worker_replaced(tmp_path):
    handler = """
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"%d" % os.getpid())
        self.server.socket.close()
"""
    with script(tmp_path, handler, server("", "TCPServer")) as program:
        pids = [int(converse(program.address)) for _ in range(4)]
        assert len(set(pids)) == 4
        assert is_alive(program.pid)
        assert program.stop() == 0


def test_a_reason_given_to_sys_exit_in_setup_worker_is_logged(tmp_path):
    body = """
    def setup_worker(self):
        sys.exit("no database")
"""
    with script(tmp_path, "Handler = None\n", server(body)) as program:
        program.log.wait_for('worker.exited .*reason="no database"')
        assert program.stop() == 0
