"""Stories of real daemons: one each of what can happen to a fleet."""

import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from harness import (
    DEADLINE_S,
    Daemon,
    Prefork,
    Script,
    children,
    converse,
    free_port,
    is_alive,
    read_all,
    title,
    wait_gone,
    wait_until,
)

HEAD = """
import logging, os, signal, socketserver, sys, threading, time, http.server
from prefork import PreforkMixIn
logging.basicConfig(level=logging.DEBUG)
"""

PID = """
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.rfile.readline()
        self.wfile.write(b"%d" % os.getpid())
"""

# A handler that tells that it has begun, and answers once the FIFO named GATE has a writer.
GATED = """
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        os.write(1, b"BEGUN %d\\n" % os.getpid())
        os.close(os.open("GATE", os.O_RDONLY))
        self.wfile.write(b"answered")
"""


@contextlib.contextmanager
def opened(gate: Path):
    """Let all handlers through from here on; one must be waiting."""
    writer = os.open(gate, os.O_WRONLY)
    try:
        yield
    finally:
        os.close(writer)


def server(workers: int = 2, body: str = "", bases: str = "socketserver.TCPServer") -> str:
    return f"""
class Server(PreforkMixIn, {bases}):
    workers = {workers}
    request_queue_size = 128
    allow_reuse_address = True
{body}

server = Server(("127.0.0.1", 0), Handler)
print("PORT", server.server_address[1], flush=True)
server.serve_forever()
server.server_close()
print("END", flush=True)
"""


def script(folder: Path, *parts: str) -> Script:
    return Script(folder, HEAD + "".join(parts))


def wait_ready(program, workers: int) -> list[int]:
    program.log.wait_for("worker.ready", count=workers)
    return program.workers()


class Load:
    """Clients in threads that ask again and again until told to stop."""

    def __init__(self, ask, clients: int = 4):
        self._ask = ask
        self._stop = threading.Event()
        self.answers: list[bytes] = []
        self.failures: list[OSError] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def _run(self):
        while not self._stop.is_set():
            try:
                self.answers.append(self._ask())
            except OSError as error:
                self.failures.append(error)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def wait_for_answers(self, count: int) -> None:
        target = len(self.answers) + count
        wait_until(lambda: len(self.answers) >= target, what=f"{count} answers more")

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def converse_or_reset(address, data) -> bytes:
    try:
        return converse(address, data)
    except ConnectionError:
        return b""


# -- workers that die ----------------------------------------------------------


def test_a_worker_killed_under_load_is_replaced_and_takes_only_its_request_with_it(tmp_path):
    with script(tmp_path, PID, server(3)) as program:
        first = wait_ready(program, 3)

        def ask():
            answer = converse(program.address, b"x\n")
            if not answer:
                raise ConnectionResetError("no answer")
            return answer

        with Load(ask) as load:
            for kills, victim in enumerate(first, 1):
                load.wait_for_answers(50)
                os.kill(victim, signal.SIGKILL)
                wait_gone(victim)
                program.log.wait_for("worker.ready", count=3 + kills)
                load.wait_for_answers(50)
        assert len(load.failures) <= 3  # one request can be in a worker's hands
        now = program.workers()
        assert len(now) == 3
        assert not set(now) & set(first)
        assert program.stop() == 0


def test_a_worker_that_cannot_start_backs_off_and_the_service_heals_when_it_is_mended(tmp_path):
    body = """
    def setup_worker(self):
        import broken
        self.RequestHandlerClass = broken.Handler
"""
    module = tmp_path / "broken.py"
    module.write_text("import nothing_of_that_name\n")
    with script(tmp_path, "Handler = None\n", server(1, body)) as program:
        program.log.wait_for(r"worker\.died .*ready=no")
        program.log.wait_for("ModuleNotFoundError: No module named 'nothing_of_that_name'")
        client = socket.create_connection(program.address, DEADLINE_S)  # it waits in the queue
        client.sendall(b"x\n")
        new = tmp_path / "new"
        new.write_text(f"import os, socketserver\n{PID}")
        new.replace(module)
        assert int(read_all(client)) in program.workers()
        client.close()
        assert is_alive(program.pid)
        assert program.stop() == 0


def test_a_worker_asked_to_go_by_somebody_else_finishes_its_request_and_is_replaced(tmp_path):
    os.mkfifo(tmp_path / "GATE")
    with script(tmp_path, GATED, server(1)) as program:
        (worker,) = wait_ready(program, 1)
        with socket.create_connection(program.address, DEADLINE_S) as client:
            program.out.wait_for(rf"BEGUN {worker}")
            os.kill(worker, signal.SIGTERM)
            program.log.wait_for("worker.ordered .*order=RETIRE")
            with opened(tmp_path / "GATE"):
                assert read_all(client) == b"answered"
        wait_gone(worker)
        program.log.wait_for("worker.ready", count=2)
        assert program.workers() not in ([], [worker])
        assert program.stop() == 0


def test_a_crash_is_reported_by_its_name_with_the_stack(tmp_path):
    handler = """
import ctypes
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        ctypes.string_at(0)
"""
    with script(tmp_path, handler, server(1)) as program:
        wait_ready(program, 1)
        assert not converse_or_reset(program.address, b"x\n")
        program.log.wait_for("Fatal Python error: Segmentation fault")
        program.log.wait_for("worker.died .*cause=SIGSEGV")
        program.log.wait_for("worker.ready", count=2)
        assert program.stop() == 0


def test_sys_exit_in_a_handler_ends_its_worker_alone(tmp_path):
    handler = """
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        if self.rfile.readline() == b"exit\\n":
            sys.exit(9)
        self.wfile.write(b"%d" % os.getpid())
"""
    with script(tmp_path, handler, server(1)) as program:
        first = converse(program.address, b"x\n")
        assert converse(program.address, b"exit\n") == b""
        program.log.wait_for('worker.died .*cause="exit 9"')
        assert converse(program.address, b"x\n") not in (b"", first)
        assert program.stop() == 0


# -- workers that are stuck ----------------------------------------------------

STUCK = """
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        if self.rfile.readline() == b"stick\\n":
            self.stick()
        self.wfile.write(b"%d" % os.getpid())

    def stick(self):
        threading.Event().wait()
"""


@pytest.mark.parametrize("bases", ["TCPServer", "ThreadingTCPServer"])
def test_a_stuck_worker_is_reported_with_its_stacks_killed_and_replaced(tmp_path, bases):
    source = server(1, "    heartbeat_timeout = 0.6\n", f"socketserver.{bases}")
    with script(tmp_path, STUCK, source) as program:
        (worker,) = wait_ready(program, 1)
        assert converse(program.address, b"x\n") == b"%d" % worker
        assert converse_or_reset(program.address, b"stick\n") == b""
        program.log.wait_for(rf"worker\.killed .*pid={worker} reason=\"stuck for ")
        program.log.wait_for(r'File ".*program.py", line \d+ in stick')
        program.log.wait_for("worker.died .*cause=SIGABRT")
        program.log.wait_for("worker.ready", count=2)
        assert int(converse(program.address, b"x\n")) != worker
        assert program.stop() == 0


def test_a_worker_stuck_in_c_code_that_ignores_signals_is_killed(tmp_path):
    handler = STUCK.replace(
        "threading.Event().wait()",
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()); time.sleep(600)",
    )
    with script(tmp_path, handler, server(1, "    heartbeat_timeout = 0.6\n")) as program:
        wait_ready(program, 1)
        assert converse_or_reset(program.address, b"stick\n") == b""
        program.log.wait_for("worker.died .*cause=.*SIGKILL")
        program.log.wait_for("worker.ready", count=2)
        assert program.stop() == 0


@pytest.mark.parametrize("bases", ["TCPServer", "ThreadingTCPServer", "ForkingTCPServer"])
def test_a_worker_that_waits_for_a_quiet_client_is_not_stuck(tmp_path, bases):
    body = """
    heartbeat_timeout = 0.3
    turns = 0
"""
    watchdog = """
def look():  # longer than the heartbeat's time, in the master's own time
    go.wait(1.5)
    print("LOOKED", flush=True)

go = threading.Event()
threading.Thread(target=look, daemon=True).start()
"""
    with script(tmp_path, PID, watchdog, server(1, body, f"socketserver.{bases}")) as program:
        with socket.create_connection(program.address, DEADLINE_S) as client:
            program.out.wait_for("^LOOKED$")
            client.sendall(b"x\n")
            assert int(read_all(client)) > 0
        assert program.stop() == 0
    assert "worker.killed" not in program.log.text()


@pytest.mark.parametrize("bases", ["HTTPServer", "ThreadingHTTPServer"])
def test_a_download_that_takes_longer_than_the_heartbeats_time_is_not_stuck(tmp_path, bases):
    size = 30_000_000
    (tmp_path / "big").write_bytes(os.urandom(1000) * (size // 1000))
    source = server(1, "    heartbeat_timeout = 0.3\n", f"http.server.{bases}").replace(
        "Handler)", "http.server.SimpleHTTPRequestHandler)"
    )
    with script(tmp_path, source) as program, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(DEADLINE_S)
        client.connect(program.address)
        client.sendall(b"GET /big HTTP/1.0\r\n\r\n")
        pause = threading.Event()
        received = 0
        for _ in range(10):  # a slow reader for a second, whole heartbeats apart
            pause.wait(0.1)
            received += len(client.recv(4096))
        received += len(read_all(client))
        assert received > size
        assert program.stop() == 0
    assert "worker.killed" not in program.log.text()


def test_a_worker_is_not_taken_for_stuck_after_the_master_itself_was_stopped(tmp_path):
    with script(tmp_path, PID, server(2, "    heartbeat_timeout = 0.6\n")) as program:
        before = wait_ready(program, 2)
        for pid in (program.pid, *before):
            os.kill(pid, signal.SIGSTOP)
        threading.Event().wait(1.5)  # the machine sleeps: what is waited for is time itself
        for pid in (program.pid, *before):
            os.kill(pid, signal.SIGCONT)
        assert int(converse(program.address, b"x\n")) in before
        assert program.workers() == before
        assert program.stop() == 0
    assert "worker.killed" not in program.log.text()


def test_a_worker_that_takes_too_long_to_start_is_killed_and_tried_again(tmp_path):
    body = """
    boot_timeout = 0.5
    def setup_worker(self):
        if not os.path.exists("MENDED"):
            time.sleep(600)
"""
    with script(tmp_path, PID, server(1, body)) as program:
        program.log.wait_for("worker.killed")
        (tmp_path / "MENDED").touch()
        assert int(converse(program.address, b"x\n")) in program.workers()
        assert program.stop() == 0


# -- the master dies -----------------------------------------------------------


def test_no_worker_outlives_a_killed_master(tmp_path):
    with script(tmp_path, PID, server(4)) as program:
        workers = wait_ready(program, 4)
        os.kill(program.pid, signal.SIGKILL)
        for pid in workers:
            wait_gone(pid)
        assert not any(map(is_alive, workers))


@pytest.mark.parametrize("bases", ["TCPServer", "ThreadingTCPServer", "ForkingTCPServer"])
def test_a_worker_in_the_middle_of_a_long_request_does_not_outlive_a_killed_master(tmp_path, bases):
    handler = """
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        os.write(1, b"BEGUN\\n")
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            time.sleep(600)
"""
    with script(tmp_path, handler, server(1, "", f"socketserver.{bases}")) as program:
        workers = wait_ready(program, 1)
        with socket.create_connection(program.address, DEADLINE_S):
            program.out.wait_for("BEGUN")
            all_of_them = workers + [child for pid in workers for child in children(pid)]
            assert len(all_of_them) == (2 if bases == "ForkingTCPServer" else 1)
            os.kill(program.pid, signal.SIGKILL)
            for pid in all_of_them:
                wait_gone(pid)


def test_an_orphan_still_answers_the_request_in_its_hands(tmp_path):
    os.mkfifo(tmp_path / "GATE")
    with script(tmp_path, GATED, server(1)) as program:
        (worker,) = wait_ready(program, 1)
        with socket.create_connection(program.address, DEADLINE_S) as client:
            program.out.wait_for("BEGUN")
            os.kill(program.pid, signal.SIGKILL)
            with opened(tmp_path / "GATE"):
                assert read_all(client) == b"answered"
        wait_gone(worker)


# -- the end -------------------------------------------------------------------


def test_a_graceful_stop_answers_the_requests_in_hand_and_in_the_queue(tmp_path):
    os.mkfifo(tmp_path / "GATE")
    with script(tmp_path, GATED, server(2)) as program, contextlib.ExitStack() as stack:
        wait_ready(program, 2)
        clients = [
            stack.enter_context(socket.create_connection(program.address, DEADLINE_S))
            for _ in range(20)
        ]
        program.out.wait_for("BEGUN", count=2)
        program.send(signal.SIGTERM)
        program.log.wait_for("worker.ordered .*order=DRAIN", count=2)
        with opened(tmp_path / "GATE"):
            assert [read_all(client) for client in clients] == [b"answered"] * 20
        assert program.wait() == 0
        assert program.out.wait_closed()[-1] == "END"


def test_a_stop_sent_to_the_whole_process_group_answers_the_queue_too(tmp_path):
    os.mkfifo(tmp_path / "GATE")
    with script(tmp_path, GATED, server(2)) as program, contextlib.ExitStack() as stack:
        wait_ready(program, 2)
        clients = [
            stack.enter_context(socket.create_connection(program.address, DEADLINE_S))
            for _ in range(10)
        ]
        program.out.wait_for("BEGUN", count=2)
        os.killpg(program.pid, signal.SIGTERM)
        program.log.wait_for("worker.ordered .*order=DRAIN", count=2)
        with opened(tmp_path / "GATE"):
            assert [read_all(client) for client in clients] == [b"answered"] * 10
        assert program.wait() == 0


@pytest.mark.parametrize("privileged", [True, False])
def test_a_graceful_stop_under_load_resets_nobody_who_was_let_in(tmp_path, privileged):
    """New connections keep coming; each is answered, or was never accepted by the kernel."""
    if privileged and os.getuid() != 0:
        pytest.skip("root alone has the privilege")
    drop = "os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
    drop = "" if privileged or os.getuid() != 0 else drop
    with script(tmp_path, drop, PID, server(2)) as program:
        wait_ready(program, 2)
        address = program.address
        broken: list[str] = []

        def ask():
            with socket.socket() as client:
                client.settimeout(0.7)  # a SYN that the closing door drops is sent again after 1 s
                try:
                    client.connect(address)
                except OSError:
                    return b"never in"
                client.settimeout(DEADLINE_S)
                try:
                    client.sendall(b"x\n")
                    answer = read_all(client)
                except OSError as error:
                    broken.append(repr(error))
                    return b""
                if not answer:
                    broken.append("no answer")
                return answer

        with Load(ask, clients=16) as load:
            load.wait_for_answers(500)
            assert program.stop() == 0
        assert broken == []
        assert b"never in" in load.answers


def test_datagrams_received_before_a_stop_are_answered(tmp_path):
    os.mkfifo(tmp_path / "GATE")
    source = """
class Handler(socketserver.DatagramRequestHandler):
    def handle(self):
        if self.packet == b"first":
            os.write(1, b"BEGUN\\n")
            os.close(os.open("GATE", os.O_RDONLY))
        self.wfile.write(self.packet)
""" + server(1, "", "socketserver.UDPServer")
    with (
        script(tmp_path, source) as program,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(DEADLINE_S)
        client.sendto(b"first", program.address)
        program.out.wait_for("BEGUN")
        for n in range(50):
            client.sendto(b"%d" % n, program.address)
        program.send(signal.SIGTERM)
        program.log.wait_for("order=DRAIN")
        with opened(tmp_path / "GATE"):
            assert [client.recv(100) for _ in range(51)] == [
                b"first",
                *(b"%d" % n for n in range(50)),
            ]
        assert program.wait() == 0


@pytest.mark.parametrize("bases", ["TCPServer", "ThreadingTCPServer"])
def test_an_idle_client_holds_a_graceful_stop_up_for_seconds_not_for_its_whole_time(
    tmp_path, bases
):
    handler = """
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)
        self.wfile.write(b"bye")
"""
    source = server(1, "    graceful_timeout = 600\n", f"socketserver.{bases}")
    with script(tmp_path, handler, source) as program:
        with socket.create_connection(program.address, DEADLINE_S) as client:
            client.sendall(b"one\n")
            assert client.recv(4, socket.MSG_WAITALL) == b"one\n"
            program.send(signal.SIGTERM)
            assert read_all(client) == b"bye"
        assert program.wait() == 0


def test_who_does_not_finish_in_the_graceful_time_is_killed_with_its_stack(tmp_path):
    with script(tmp_path, STUCK, server(1, "    graceful_timeout = 0.5\n")) as program:
        (worker,) = wait_ready(program, 1)
        with socket.create_connection(program.address, DEADLINE_S) as client:
            client.sendall(b"stick\n")
            wait_until(lambda: title(worker).endswith("busy"))
            program.send(signal.SIGTERM)
            assert program.wait() == 0
        program.log.wait_for(r'File ".*program.py", line \d+ in stick')
        program.log.wait_for("worker.died .*cause=SIGABRT")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGQUIT])
def test_a_fast_stop_waits_for_nobody(tmp_path, signum):
    os.mkfifo(tmp_path / "GATE")
    source = server(2).replace(
        "server.serve_forever()",
        "try:\n    server.serve_forever()\nexcept KeyboardInterrupt:\n    pass",
    )
    with script(tmp_path, GATED, source) as program:
        workers = wait_ready(program, 2)
        with socket.create_connection(program.address, DEADLINE_S) as client:
            program.out.wait_for("BEGUN")
            program.send(signum)
            assert program.wait() == 0
            assert not any(is_alive(pid) for pid in workers)
            assert client.recv(100) == b""


def test_a_second_signal_makes_a_graceful_stop_a_fast_one(tmp_path):
    os.mkfifo(tmp_path / "GATE")
    with script(tmp_path, GATED, server(1)) as program:
        wait_ready(program, 1)
        with socket.create_connection(program.address, DEADLINE_S):
            program.out.wait_for("BEGUN")
            program.send(signal.SIGTERM)
            program.log.wait_for("order=DRAIN")
            program.send(signal.SIGQUIT)
            assert program.wait() == 0


# -- other signals -------------------------------------------------------------


def test_ttin_and_ttou_change_the_number_of_workers_by_one(tmp_path):
    with script(tmp_path, PID, server(1)) as program:
        wait_ready(program, 1)
        program.send(signal.SIGTTIN)
        program.log.wait_for("worker.ready", count=2)
        program.send(signal.SIGTTIN)
        program.log.wait_for("worker.ready", count=3)
        assert len(program.workers()) == 3
        for left in (2, 1):
            program.send(signal.SIGTTOU)
            wait_until(lambda left=left: len(program.workers()) == left)
        program.send(signal.SIGTTOU)
        program.log.wait_for("signal=SIGTTOU", count=3)
        assert int(converse(program.address, b"x\n")) in program.workers()
        assert len(program.workers()) == 1
        assert program.stop() == 0


def test_sigint_to_a_worker_alone_changes_nothing(tmp_path):
    with script(tmp_path, PID, server(1)) as program:
        (worker,) = wait_ready(program, 1)
        os.kill(worker, signal.SIGINT)
        assert int(converse(program.address, b"x\n")) == worker
        assert program.stop() == 0


# -- resources -----------------------------------------------------------------


def shared_memory() -> set[str]:
    return {entry.name for entry in Path("/dev/shm").iterdir()}


def listens(port: int) -> bool:
    tables = (Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6"))
    return any(re.search(rf":{port:04X} \S+ 0A ", table) for table in tables)


@pytest.mark.slow
def test_64_starts_and_stops_on_one_port_leave_nothing_behind(tmp_path):
    (tmp_path / "file").write_text("hello")
    port = free_port()
    memory = shared_memory()
    for _ in range(64):
        with Prefork(tmp_path, port, "-b", "127.0.0.1", "-w", "2", "--quiet") as daemon:
            workers = daemon.workers()
            assert len(workers) == 2
            answer = converse(("127.0.0.1", port), b"GET /file HTTP/1.0\r\n\r\n")
            assert answer.endswith(b"\r\n\r\nhello")
            assert daemon.stop() == 0
            assert not any(is_alive(pid) for pid in workers)
            assert daemon.log.wait_closed()[1:] == []  # the access line, then end of file
    assert not listens(port)
    wait_until(lambda: shared_memory() <= memory)  # others' may come, and go


def test_a_process_that_serves_and_stops_64_times_keeps_no_descriptor(tmp_path):
    source = """
import random
def once():
    server = socketserver.TCPServer.__new__(Server)
    Server.__init__(server, ("127.0.0.1", PORT), Handler)
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        import socket
        with socket.create_connection(server.server_address) as client:
            client.sendall(b"x\\n")
            assert client.recv(100)
        server.shutdown()
        thread.join()

class Server(PreforkMixIn, socketserver.TCPServer):
    workers = 2
    allow_reuse_address = True

logging.disable(logging.INFO)
PORT = 0
once()
before = os.listdir("/proc/self/fd"), open("/proc/self/maps").read().count("/dev/zero")
for _ in range(64):
    once()
after = os.listdir("/proc/self/fd"), open("/proc/self/maps").read().count("/dev/zero")
print("SAME", before == after, before, after, flush=True)
"""
    with script(tmp_path, PID, source) as program:
        assert program.wait(deadline_s=90) == 0
        program.out.wait_for("^SAME True")


def test_a_worker_short_of_descriptors_neither_spins_nor_dies_and_recovers(tmp_path):
    body = """
    def setup_worker(self):
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
"""
    source = server(1, body, "socketserver.ThreadingTCPServer")
    with script(tmp_path, PID, source) as program:
        (worker,) = wait_ready(program, 1)
        with contextlib.ExitStack() as stack:
            idle = [
                stack.enter_context(socket.create_connection(program.address, DEADLINE_S))
                for _ in range(40)
            ]
            program.log.wait_for("worker.short .*Too many open files")
            idle[0].sendall(b"x\n")
            assert int(read_all(idle[0])) == worker
        assert int(converse(program.address, b"x\n")) == worker
        assert program.stop() == 0


def test_a_worker_leaves_its_parents_other_descriptors_and_pipes_alone(tmp_path):
    """The lifeline works only if no worker holds its sibling's, or the master's, write end."""
    with script(tmp_path, PID, server(3)) as program:
        workers = wait_ready(program, 3)
        for pid in workers:
            links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
            assert sum("pidfd" in link for link in links) == 0
            # sockets, pipes, an epoll, and the scoreboard, which all share
            assert sum(":" in link for link in links) <= 9
        assert program.stop() == 0


def test_forked_grandchildren_do_not_speak_for_their_worker(tmp_path):
    """A ForkingMixIn child that is told to go neither stops the fleet nor its worker."""
    os.mkfifo(tmp_path / "GATE")
    with script(tmp_path, GATED, server(1, "", "socketserver.ForkingTCPServer")) as program:
        (worker,) = wait_ready(program, 1)
        with socket.create_connection(program.address, DEADLINE_S) as client:
            grandchild = int(program.out.wait_for(r"BEGUN (\d+)")[1])
            assert children(worker) == [grandchild]
            os.kill(grandchild, signal.SIGTERM)
            with opened(tmp_path / "GATE"):
                assert read_all(client) == b"answered"
        assert program.workers() == [worker]
        assert program.stop() == 0
    assert "asked_to_leave" not in program.log.text()


def test_a_client_that_resets_before_it_is_accepted_harms_nobody(tmp_path):
    with script(tmp_path, PID, server(1)) as program:
        (worker,) = wait_ready(program, 1)
        os.kill(worker, signal.SIGSTOP)
        for _ in range(100):
            client = socket.create_connection(program.address, DEADLINE_S)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        os.kill(worker, signal.SIGCONT)
        assert int(converse(program.address, b"x\n")) == worker
        assert program.stop() == 0


def test_workers_that_wait_take_turns(tmp_path):
    """The first idle worker must not take every client."""
    with script(tmp_path, PID, server(3)) as program:
        workers = wait_ready(program, 3)
        took = []
        for _ in range(12):
            wait_until(lambda: all(map(sleeps, workers)), what="all workers wait")
            took.append(int(converse(program.address, b"x\n")))
        assert min(took.count(pid) for pid in workers) >= 2  # 4 each, but for a loaded machine
        assert program.stop() == 0


def sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_a_high_descriptor_limit_is_no_obstacle(tmp_path):
    """No select(2) anywhere: descriptors above 1023 work."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < 4096:
        pytest.skip(f"the hard limit of descriptors is {hard}")
    pad = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
pads = [os.open("/dev/null", os.O_RDONLY) for _ in range(1500)]
"""
    with script(tmp_path, PID, pad, server(2, "", "socketserver.ThreadingTCPServer")) as program:
        wait_ready(program, 2)
        assert converse(program.address, b"x\n").isdigit()
        assert program.stop() == 0


def test_as_pid_1_the_master_reaps_the_orphans_it_is_given(tmp_path):
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    unshare += ["--mount-proc"]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user and PID namespaces here (unshare --user --pid)")
    handler = """
def zombie(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False  # reaped while we looked

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        child = os.fork()
        if child == 0:
            if os.fork() == 0:
                os._exit(3)  # an orphan: PID 1 has to wait for it
            os._exit(0)
        os.waitpid(child, 0)
        while any(map(zombie, filter(str.isdigit, os.listdir("/proc")))):
            os.sched_yield()  # the answer is that no zombie is left
        self.wfile.write(b"master %d" % os.getppid())
"""
    (tmp_path / "program.py").write_text(HEAD + handler + server(1))
    with Daemon([*unshare, sys.executable, tmp_path / "program.py"], cwd=tmp_path) as program:
        port = int(program.out.wait_for(r"^PORT (\d+)$")[1])
        assert converse(("127.0.0.1", port)) == b"master 1"
        (init,) = children(program.pid)
        os.kill(init, signal.SIGTERM)
        assert program.wait() == 0


TLS = """
import ssl

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem")

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"begun ")
        os.write(1, b"BEGUN\\n")
        os.close(os.open("GATE", os.O_RDONLY))
        self.wfile.write(b"answered")

class Late(Handler):  # wraps its own socket
    def setup(self):
        self.request = context.wrap_socket(self.request, server_side=True)
        super().setup()
    def finish(self):
        super().finish()
        self.request.unwrap()
        self.request.close()
"""


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    path = tmp_path_factory.mktemp("tls") / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += [
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-keyout",
        str(path),
        "-out",
        str(path) + ".crt",
    ]
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.mark.parametrize("where", ["listening socket", "get_request", "handler"])
def test_tls_of_the_programs_own_is_neither_stuck_nor_cut_off_by_a_stop(
    tmp_path, certificate, where
):
    os.mkfifo(tmp_path / "GATE")
    shutil.copy(certificate, tmp_path / "cert.pem")
    body = "    heartbeat_timeout = 0.3\n" if where == "handler" else ""
    if where == "get_request":
        body = """
    def get_request(self):
        request, address = super().get_request()
        return context.wrap_socket(request, server_side=True), address
"""
    source = server(1, body, "socketserver.ThreadingTCPServer")
    source = source.replace(
        "server.serve_forever()", "server.daemon_threads = True\nserver.serve_forever()"
    )
    if where == "listening socket":
        wrap = "server.socket = context.wrap_socket(server.socket, server_side=True)"
        source = source.replace("server.daemon", wrap + "\nserver.daemon")
    if where == "handler":
        source = source.replace("Handler)", "Late)")
    with script(tmp_path, TLS, source) as program:
        wait_ready(program, 1)
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname = False
        trusting.verify_mode = ssl.CERT_NONE
        plain = socket.create_connection(program.address, DEADLINE_S)
        with trusting.wrap_socket(plain, suppress_ragged_eofs=True) as client:
            program.out.wait_for("BEGUN")
            program.send(signal.SIGTERM)
            program.log.wait_for("order=DRAIN")
            with opened(tmp_path / "GATE"):
                assert read_all(client) == b"begun answered"
        assert program.wait() == 0
    assert "worker.killed" not in program.log.text()
