"""Reload: the same process, new code and config, and not one request lost."""

import contextlib
import fcntl
import hashlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest
from harness import (
    COMMAND,
    DEADLINE_S,
    Crowd,
    Prefork,
    backlog,
    children,
    converse,
    wait_gone,
    wait_until,
)

from prefork.control import remote
from prefork.control.protocol import Reload, Status

HELLO = """
from prefork.http import BaseHTTPRequestHandler

TEXT = {text!r}


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        body = TEXT.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        size = 0
        while part := self.rfile.read(65536):
            size += len(part)
        body = str(size).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
"""

CONFIG = """
[master]
control = "./control.sock"

[server.hello]
bind = [{bind}]
handler = "{handler}"
path = ["."]
access_log = "off"
{more}
"""


class Site:
    """A folder with a config, and the daemon that runs it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.config = folder / "site.toml"
        self.control = [self.config]
        self.write_code("one")
        self.write_config()

    def write_code(self, text: str) -> None:  # of another length, or Python thinks it unchanged
        (self.folder / "app.py").write_text(HELLO.format(text=text))

    def write_config(self, *binds: str, handler: str = "app:Hello", more: str = "workers = 2"):
        bind = ", ".join(f'"{b}"' for b in binds or ("127.0.0.1:0",))
        self.config.write_text(CONFIG.format(bind=bind, handler=handler, more=more))

    def start(self) -> Prefork:
        return Prefork(self.config, cwd=self.folder)

    def ask(self, *words: str, deadline_s: float = 60.0) -> subprocess.CompletedProcess:
        return subprocess.run(
            [COMMAND, words[0], *self.control, *words[1:]],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=deadline_s,
            check=False,
        )

    @property
    def socket(self) -> Path:
        return self.control[-1] if len(self.control) > 1 else self.folder / "control.sock"

    def status(self) -> dict:
        return remote.ask(self.socket, Status())["status"]

    def reload(self) -> None:
        """Return when it is done, as the command does, but without a process for each."""
        remote.ask(self.socket, Reload())


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def get(port: int, host: str = "127.0.0.1") -> str:
    connection = HTTPConnection(host, port, timeout=DEADLINE_S)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        return connection.getresponse().read().decode()


def stop(daemon: Prefork) -> None:
    assert daemon.stop() == 0


def test_a_reload_brings_the_new_code_into_the_same_process(site):
    with site.start() as daemon:
        before = daemon.workers()
        assert get(daemon.port) == "one"
        site.write_code("second")
        site.reload()
        assert get(daemon.port) == "second"
        for pid in before:
            wait_gone(pid)
        status = site.status()
        assert status["pid"] == daemon.pid
        assert status["generation"] == 2
        assert [w["generation"] for w in status["pools"][0]["workers"]] == [2, 2]
        stop(daemon)


def test_the_folder_where_it_was_started_may_be_deleted(site):
    before = site.folder / "releases"
    before.mkdir()
    with Prefork(site.config, cwd=before) as daemon:
        before.rmdir()
        for text in "second", "the third":
            site.write_code(text)
            site.reload()
            assert get(daemon.port) == text
        stop(daemon)


def test_a_config_that_has_become_a_folder_is_not_shared(site):
    with site.start() as daemon:
        before = daemon.workers()
        site.config.unlink()
        site.config.mkdir()
        daemon.send(signal.SIGHUP)
        daemon.log.wait_for("reload.failed reason=.*site.toml: cannot be read: Is a directory")
        assert daemon.workers() == before
        assert get(daemon.port) == "one"
        assert "prefork: error" not in daemon.log.text()  # the reason is an event of the log
        stop(daemon)


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGUSR2])
def test_a_signal_reloads(site, signum):
    with site.start() as daemon:
        site.write_code("second")
        daemon.send(signum)
        daemon.log.wait_for("reload.done")
        assert get(daemon.port) == "second"
        stop(daemon)


def test_without_preload_workers_import_for_themselves(site):
    site.write_config(more="workers = 2\npreload = false")
    with site.start() as daemon:
        assert get(daemon.port) == "one"
        site.write_code("second")
        site.reload()
        assert get(daemon.port) == "second"
        stop(daemon)


class Load(Crowd):
    """Clients that ask, some hundred times a second each, and note what is not a right answer."""

    def __init__(self, port: int, clients: int, *, keep_alive: bool):
        super().__init__(clients)
        self.answers = 0
        self._port = port
        self._keep_alive = keep_alive

    def ask(self, kept: dict) -> None:
        if not kept:
            kept["connection"] = HTTPConnection("127.0.0.1", self._port, timeout=DEADLINE_S)
        connection = kept["connection"]
        headers = {} if self._keep_alive else {"Connection": "close"}
        connection.request("GET", "/", headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        assert (answer.status, body) == (200, b"one")
        self.answers += 1
        if answer.getheader("Connection") == "close":
            self.leave(kept)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_50_reloads_under_load_lose_not_one_request(site):
    with site.start() as daemon:
        port = daemon.port
        with Load(port, 3, keep_alive=True) as kept, Load(port, 3, keep_alive=False) as fresh:
            for _ in range(50):
                before = kept.answers, fresh.answers
                site.reload()
                wait_until(lambda b=before: kept.answers > b[0] and fresh.answers > b[1])
        assert kept.faults == []
        assert fresh.faults == []
        assert kept.answers > 1000
        assert fresh.answers > 1000
        assert site.status()["generation"] == 51
        stop(daemon)
    assert "worker.died" not in daemon.log.text()


@pytest.mark.slow
def test_a_download_of_a_gigabyte_begun_before_a_reload_is_whole(site, tmp_path):
    share = tmp_path / "share"
    share.mkdir()
    with (share / "big").open("wb") as file:
        file.truncate(1 << 30)
        for at in range(0, 1 << 30, 1 << 26):
            file.seek(at)
            file.write(at.to_bytes(8) * 512)
    with (share / "big").open("rb") as file:
        wanted = hashlib.file_digest(file, "sha256").hexdigest()
    options = f'[server.hello.handler_options]\ndirectory = "{share}"'
    site.write_config(handler="prefork.http:SimpleHTTPRequestHandler", more=options)
    with site.start() as daemon:
        connection = HTTPConnection("127.0.0.1", daemon.port, timeout=DEADLINE_S)
        connection.request("GET", "/big")
        answer = connection.getresponse()
        digest = hashlib.sha256(answer.read(1 << 20))
        old = daemon.workers()
        site.reload()
        assert any(Path(f"/proc/{pid}").exists() for pid in old)
        while part := answer.read(1 << 20):
            digest.update(part)
        assert digest.hexdigest() == wanted
        connection.close()
        for pid in old:
            wait_gone(pid)
        stop(daemon)


def test_an_upload_begun_before_a_reload_is_answered_by_the_worker_that_began_it(site):
    with site.start() as daemon:
        with socket.create_connection(("127.0.0.1", daemon.port), DEADLINE_S) as client:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n"
            client.sendall(head + b"x" * 100000)
            site.write_code("second")
            site.reload()
            client.sendall(b"x" * 100000)
            answer = b""
            while part := client.recv(65536):
                answer += part
        assert answer.endswith(b"\r\n\r\n200000")
        assert b"\r\nConnection: close\r\n" in answer
        assert get(daemon.port) == "second"
        stop(daemon)


def broken_code(site):
    (site.folder / "app.py").write_text("def broken(:\n")
    return r"SyntaxError.*app\.py:1"


def missing_handler(site):
    site.write_config(handler="app:Helo")
    return r"server\.hello\.handler: .*no 'Helo'.*did you mean 'Hello'"


def missing_module(site):
    site.write_config(handler="nowhere:Hello")
    return r"server\.hello\.handler: no module named 'nowhere'"


def broken_toml(site):
    site.control = ["--socket", site.folder / "control.sock"]  # the config does not tell any more
    site.config.write_text("[server.hello\n")
    return r"site\.toml: line 1"


def unknown_key(site):
    site.write_config(more="wrokers = 2")
    return r"server\.hello\.wrokers: unknown key; did you mean 'workers'"


def failing_worker(site):
    site.write_config(more='on_worker_start = "app:explode"')
    with (site.folder / "app.py").open("a") as file:
        file.write("\n\ndef explode(servers):\n    raise RuntimeError('no database')\n")
    return r"a worker cannot start: RuntimeError: no database"


@pytest.mark.parametrize(
    "spoil",
    [broken_code, missing_handler, missing_module, broken_toml, unknown_key, failing_worker],
)
def test_what_cannot_work_is_told_and_the_old_generation_serves_on(site, spoil):
    with site.start() as daemon:
        before = daemon.workers()
        reason = spoil(site)
        answer = site.ask("reload")
        assert answer.returncode == 1
        assert re.search(reason, answer.stderr), answer.stderr
        assert answer.stderr.startswith("prefork: error: ")
        assert daemon.workers() == before
        assert get(daemon.port) == "one"
        daemon.log.wait_for("reload.failed")
        # Mended, it reloads.
        site.write_config()
        site.control = [site.config]
        site.write_code("second")
        site.reload()
        assert get(daemon.port) == "second"
        assert site.ask("status", "--json").returncode == 0
        stop(daemon)


def test_a_taken_port_is_told_and_the_old_generation_serves_on(site):
    with socket.create_server(("127.0.0.1", 0)) as other, site.start() as daemon:
        taken = other.getsockname()[1]
        site.write_config("127.0.0.1:0", f"127.0.0.1:{taken}")
        answer = site.ask("reload")
        assert answer.returncode == 1
        assert f"cannot listen on 127.0.0.1:{taken}: the port is in use" in answer.stderr
        assert get(daemon.port) == "one"
        stop(daemon)


def test_bind_lines_open_and_close_listeners_and_unchanged_ones_are_kept(site, tmp_path):
    first, second = tmp_path / "first.sock", tmp_path / "second.sock"
    site.write_config("127.0.0.1:0", f"unix:{first}")
    with site.start() as daemon:
        port = daemon.port
        kept = first.stat().st_ino
        assert first.is_socket()
        site.write_config("127.0.0.1:0", f"unix:{first}", f"unix:{second}")
        site.reload()
        assert first.stat().st_ino == kept
        assert second.is_socket()
        assert get(port) == "one"
        site.write_config("127.0.0.1:0", f"unix:{second}")
        site.reload()
        wait_until(lambda: not first.exists())
        assert second.is_socket()
        assert get(port) == "one"
        stop(daemon)
    assert not second.exists()


def test_clients_in_the_queue_of_a_listener_that_goes_are_answered(site, tmp_path):
    path = str(tmp_path / "old.sock")
    site.write_config("127.0.0.1:0", f"unix:{path}", more="workers = 1")
    with site.start() as daemon:
        (worker,) = daemon.workers()
        os.kill(worker, signal.SIGSTOP)
        clients = []
        for _ in range(5):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(DEADLINE_S)
            client.connect(path)
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            clients.append(client)
        site.write_config("127.0.0.1:0", more="workers = 1")
        site.reload()
        os.kill(worker, signal.SIGCONT)
        for client in clients:
            with client:
                answer = b""
                while part := client.recv(65536):
                    answer += part
                assert answer.endswith(b"\r\n\r\none")
        wait_gone(worker)
        stop(daemon)


EXTRA = """
[server.more]
bind = ["unix:{path}"]
handler = "app:Hello"
path = ["."]
workers = 1
"""


def test_a_pool_can_come_and_go(site, tmp_path):
    with site.start() as daemon:
        site.write_config(more="workers = 2" + EXTRA.format(path=tmp_path / "more.sock"))
        site.reload()
        assert [p["name"] for p in site.status()["pools"]] == ["hello", "more"]
        wait_until(lambda: len(daemon.workers()) == 3)  # the old ones have gone
        site.write_config()
        site.reload()
        wait_until(lambda: len(daemon.workers()) == 2)
        wait_until(lambda: [p["name"] for p in site.status()["pools"]] == ["hello"])
        stop(daemon)


@pytest.mark.parametrize("signum", [signal.SIGTTIN, signal.SIGTTOU])
def test_a_pool_that_has_ended_does_not_grow(site, tmp_path, signum):
    path = str(tmp_path / "more.sock")
    with site.start() as daemon:
        site.write_config(more=f"workers = 2{EXTRA.format(path=path)}")
        site.reload()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(DEADLINE_S)
            client.connect(path)
            head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n"
            client.sendall(head + b"x" * 100000)
            wait_until(lambda: site.status()["pools"][1]["workers"][0]["busy"] == 1)
            site.write_config()
            site.reload()
            daemon.send(signum)
            wanted = 3 if signum == signal.SIGTTIN else 1
            wait_until(lambda: site.status()["pools"][0]["wanted"] == wanted)
            assert [len(p["workers"]) for p in site.status()["pools"]][1:] == [1]
            client.sendall(b"x" * 100000)
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        stop(daemon)


def test_a_reload_that_is_asked_for_during_another_follows_it(site):
    with site.start() as daemon:
        site.write_code("second")
        asking = [
            subprocess.Popen([COMMAND, "reload", site.config], stderr=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        for process in asking:
            _, said = process.communicate(timeout=60)
            assert (process.returncode, said) == (0, "")
        assert get(daemon.port) == "second"
        assert site.status()["state"] == "serving"
        stop(daemon)


def test_a_stop_during_a_reload_ends_both(site):
    (site.folder / "app.py").write_text(
        HELLO.format(text="one") + "\nimport os\nif os.path.exists('gate'): open('gate').read()\n"
    )
    with site.start() as daemon:
        os.mkfifo(site.folder / "gate")
        asking = subprocess.Popen(
            [COMMAND, "reload", site.config], stderr=subprocess.PIPE, text=True
        )
        daemon.log.wait_for("reload.begun")
        wait_until(lambda: len(children(daemon.pid)) == 3)
        assert daemon.stop() == 0
        _, said = asking.communicate(timeout=DEADLINE_S)
        assert asking.returncode == 1
        assert "the server stops" in said


def descriptors(daemon):
    """Return how many the master and each of its two workers have."""
    wait_until(lambda: len(daemon.workers()) == 2)
    pids = [daemon.pid, *daemon.workers()]
    return [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids]


def test_nobody_but_the_master_keeps_what_only_it_needs(site):
    """Not one descriptor more after many reloads, in the master and in its workers."""
    with site.start() as daemon:
        site.reload()
        first = descriptors(daemon)
        for _ in range(4):
            site.reload()
        # What it tells systemd by is open for a moment.
        wait_until(lambda: all(map(int.__le__, descriptors(daemon), first)))
        stop(daemon)


def test_100_workers_killed_at_random_under_load_and_the_service_is_there(site):
    # Who kills without a pause wants no pauses before the next worker.
    site.write_config(more="workers = 2\nsettle_time = 0\nbackoff = 0.01\nbackoff_max = 0.05")
    with site.start() as daemon:
        port = daemon.port
        chance = random.Random(4)
        with Load(port, 2, keep_alive=True) as kept, Load(port, 2, keep_alive=False) as fresh:
            for _ in range(100):
                before = kept.answers + fresh.answers
                wait_until(daemon.workers)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(daemon.workers()), signal.SIGKILL)
                wait_until(lambda b=before: kept.answers + fresh.answers > b)
        # Connections die with the worker that has them, nothing else is lost.
        assert len(kept.faults) <= 200
        assert len(fresh.faults) <= 100
        assert not [fault for fault in kept.faults + fresh.faults if "AssertionError" in fault]
        wait_until(lambda: len(daemon.workers()) == 2)
        assert get(port) == "one"
        stop(daemon)


def test_a_master_that_was_stopped_for_a_while_kills_nobody(site):
    site.write_config(more="workers = 2\nheartbeat_timeout = 0.5")
    with site.start() as daemon:
        before = daemon.workers()
        os.kill(daemon.pid, signal.SIGSTOP)
        until_s = time.monotonic() + 1.5
        while time.monotonic() < until_s:
            assert get(daemon.port) == "one"
        os.kill(daemon.pid, signal.SIGCONT)
        assert site.status()["state"] == "serving"
        assert daemon.workers() == before
        stop(daemon)


def queues(port: int) -> int:
    """Return how many sockets listen on a port of 127.0.0.1."""
    lines = Path("/proc/net/tcp").read_text().splitlines()
    return sum(f"0100007F:{port:04X} 00000000:0000 0A" in line for line in lines)


def test_with_reuse_port_each_worker_has_a_queue_of_the_masters(site):
    site.write_config(more="workers = 3\nreuse_port = true")
    with site.start() as daemon:
        port = daemon.port
        assert queues(port) == 3
        os.kill(daemon.workers()[0], signal.SIGKILL)
        wait_until(lambda: len(daemon.workers()) == 3)
        assert queues(port) == 3
        stop(daemon)


@pytest.mark.slow
def test_with_reuse_port_neither_scaling_nor_reloads_lose_a_request(site):
    site.write_config(more="workers = 3\nreuse_port = true")
    with site.start() as daemon:
        port = daemon.port
        with Load(port, 3, keep_alive=True) as kept, Load(port, 3, keep_alive=False) as fresh:
            for workers in (5, 1, 4, 2):
                assert site.ask("scale", "hello", str(workers)).stderr == ""
                wait_until(lambda n=workers: queues(port) == n)
                before = fresh.answers
                wait_until(lambda b=before: fresh.answers > b + 20)
                site.reload()
                wait_until(lambda: queues(port) == 3)
        assert (kept.faults, fresh.faults) == ([], [])
        assert get(port) == "one"
        stop(daemon)


FAILS_AT = """
from pathlib import Path

before = len(list(Path(__file__).parent.glob("import-*")))
(Path(__file__).parent / f"import-{before}").touch()
if before == 2:  # after the start and the rehearsal
    raise RuntimeError("the disk is full")
"""


def fragile(site):
    with (site.folder / "app.py").open("a") as file:
        file.write(FAILS_AT)


def test_a_next_image_that_cannot_begin_holds_the_service_until_it_can(site):
    fragile(site)
    with site.start() as daemon:
        before = daemon.workers()
        answer = site.ask("reload")
        assert answer.returncode == 1
        assert "the disk is full" in answer.stderr
        assert "the old workers serve on" in answer.stderr
        assert daemon.workers() == before
        assert get(daemon.port) == "one"
        daemon.send(signal.SIGHUP)
        daemon.log.wait_for("reload.done")
        for pid in before:
            wait_gone(pid)
        assert get(daemon.port) == "one"
        assert site.status()["state"] == "serving"
        stop(daemon)


def test_a_service_that_is_held_can_be_stopped(site):
    fragile(site)
    with site.start() as daemon:
        before = daemon.workers()
        assert site.ask("reload").returncode == 1
        daemon.send(signal.SIGTERM)
        assert daemon.wait() == 1
        for pid in before:
            wait_gone(pid)


SLOW_END = """
import atexit
import time
from pathlib import Path


def end():
    (Path(__file__).parent / "ending").touch()
    time.sleep(0.9)  # the master waits for a second


atexit.register(end)
"""


def open_files(pid):
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed in between
            found.add(str(link.readlink()))
    return found


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGQUIT])
def test_a_signal_that_comes_right_before_the_next_image_is_obeyed_by_that(site, signum):
    with (site.folder / "app.py").open("a") as file:
        file.write(SLOW_END)
    with site.start() as daemon:
        before = open_files(daemon.pid)
        daemon.send(signal.SIGHUP)
        wait_until((site.folder / "ending").exists)
        # The channel is closed: the master has heard all, and waits for the rehearsal's end.
        wait_until(lambda: open_files(daemon.pid) <= before)
        assert daemon.stop(signum) == 0
        assert "master.reexecuted" in daemon.log.text()


UNIX_ECHO = """
import os
import socketserver


class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.readline())


class Server(socketserver.UnixStreamServer):
    def server_close(self):
        super().server_close()
        os.unlink(self.server_address)
"""


def test_a_rehearsal_does_not_close_servers_whose_own_close_removes_a_file(site, tmp_path):
    path = tmp_path / "echo.sock"
    (site.folder / "app.py").write_text(UNIX_ECHO)
    lines = ["[master]", 'control = "./control.sock"', "[server.echo]", f'bind = ["unix:{path}"]']
    lines += ['handler = "app:Echo"', 'server_class = "app:Server"', 'path = ["."]', "workers = 1"]
    site.config.write_text("\n".join(lines))
    with site.start() as daemon:
        site.reload()
        assert converse(str(path), b"hello\n") == b"hello\n"
        stop(daemon)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('pidfile = "/nowhere/at/all.pid"', "cannot write /nowhere/at/all.pid: No such file"),
        ('pidfile = "held.pid"', "is running with that pidfile"),
        ('control = "/proc/no/control.sock"', "cannot open the control socket /proc/no/control"),
    ],
)
def test_offices_that_cannot_be_opened_are_told_by_the_rehearsal(site, line, reason):
    config = site.config.read_text()
    site.control = ["--socket", site.folder / "control.sock"]
    with site.start() as daemon, (site.folder / "held.pid").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        before = daemon.workers()
        rest = config.partition("\n[server.hello]")[2]
        control = "" if line.startswith("control") else 'control = "./control.sock"\n'
        site.config.write_text(f"[master]\n{control}{line}\n[server.hello]{rest}")
        answer = site.ask("reload")
        assert answer.returncode == 1
        assert reason in answer.stderr
        assert "unsupervised" not in answer.stderr
        assert daemon.workers() == before
        assert "master.reexecuted" not in daemon.log.text()
        site.config.write_text(config)
        site.reload()
        assert get(daemon.port) == "one"
        stop(daemon)


def test_a_new_pidfile_and_control_socket_take_the_places_of_the_old_ones(site):
    config = site.config.read_text()
    site.config.write_text(config.replace("[master]", '[master]\npidfile = "a.pid"'))
    with site.start() as daemon:
        config = config.replace("control.sock", "new.sock")
        site.control = ["--socket", site.folder / "control.sock"]
        site.config.write_text(config.replace("[master]", '[master]\npidfile = "b.pid"'))
        site.reload()
        assert not (site.folder / "control.sock").exists()
        assert not (site.folder / "a.pid").exists()
        assert (site.folder / "b.pid").read_text() == f"{daemon.pid}\n"
        site.control = [site.config]
        answer = site.ask("status", "--json")
        assert json.loads(answer.stdout)["generation"] == 2
        stop(daemon)


FORKS_ONCE = """
import os
import time
from pathlib import Path

here = Path(__file__).parent
if (here / "fork").exists():
    (here / "fork").unlink()
    if (pid := os.fork()) == 0:
        time.sleep(600)
        os._exit(0)
    (here / "forked").write_text(str(pid))
"""


def test_a_rehearsal_is_over_though_what_its_handler_has_forked_lives_on(site):
    with (site.folder / "app.py").open("a") as file:
        file.write(FORKS_ONCE)
    with site.start() as daemon:
        (site.folder / "fork").touch()
        try:
            assert site.ask("reload", deadline_s=DEADLINE_S).returncode == 0
            assert site.status()["generation"] == 2
        finally:
            os.kill(int((site.folder / "forked").read_text()), signal.SIGKILL)
        stop(daemon)


def test_a_rehearsal_that_is_told_to_end_has_not_succeeded(site):
    with (site.folder / "app.py").open("a") as file:
        file.write("\n\ndef wait(servers):\n    import time\n    time.sleep(60)\n")
    with site.start() as daemon:
        before = daemon.workers()
        site.write_config(more='workers = 2\non_worker_start = "app:wait"')
        daemon.send(signal.SIGHUP)
        wait_until(lambda: any(children(pid) for pid in children(daemon.pid)))
        (rehearsal,) = set(children(daemon.pid)) - set(before)
        os.kill(rehearsal, signal.SIGQUIT)
        daemon.log.wait_for("reload.failed reason=.*told to end")
        assert daemon.workers() == before
        stop(daemon)


def test_what_failed_stands_in_the_status_of_a_later_generation(site):
    with site.start() as daemon:
        site.reload()
        broken_code(site)
        assert site.ask("reload").returncode == 1
        daemon.log.wait_for("reload.failed")
        for _ in range(3):  # turns of the master's loop
            status = site.status()
            assert status["state"] == "degraded"
            assert "SyntaxError" in status["reason"]
        assert daemon.log.text().count("reload.done") == 1
        site.write_code("second")
        site.reload()
        assert (site.status()["state"], site.status()["reason"]) == ("serving", None)
        stop(daemon)


def test_what_is_executed_has_been_rehearsed_after_the_last_that_asked(site):
    gate = site.folder / "gate"
    (site.folder / "app.py").write_text(
        HELLO.format(text="one") + "\nimport os\nif os.path.exists('gate'): open('gate').read()\n"
    )
    with site.start() as daemon:
        os.mkfifo(gate)
        asking = [subprocess.Popen([COMMAND, "reload", site.config], stderr=subprocess.PIPE)]
        with gate.open("w"):  # opens when the rehearsal, which has read the code, reads it
            gate.unlink()
            broken_code(site)
            asking += [subprocess.Popen([COMMAND, "reload", site.config], stderr=subprocess.PIPE)]
            daemon.log.wait_for("control.asked.*reload", count=2)
        for process in asking:
            _, said = process.communicate(timeout=60)
            assert process.returncode == 1
            assert b"SyntaxError" in said
            assert b"old workers serve on" not in said
        assert "master.reexecuted" not in daemon.log.text()
        assert get(daemon.port) == "one"
        stop(daemon)


def test_who_asked_for_the_end_of_the_control_socket_is_told_when_it_is_done(site):
    with site.start() as daemon:
        control = site.folder / "control.sock"
        site.control = ["--socket", control]
        site.config.write_text(site.config.read_text().replace("./control.sock", "off"))
        site.reload()
        assert not control.exists()
        assert "reload.done" in daemon.log.text()
        stop(daemon)


def upload(port: int) -> socket.socket:
    """Return a client that has sent half of a body of 200000 bytes."""
    client = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
    client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n")
    client.sendall(b"x" * 100000)
    return client


@pytest.mark.parametrize("way", ["scale", "reload"])
def test_with_reuse_port_a_worker_that_leaves_slowly_takes_no_share_of_new_clients(site, way):
    site.write_config(more="workers = 4\nreuse_port = true")
    with site.start() as daemon, contextlib.ExitStack() as stack:
        port = daemon.port
        held = [stack.enter_context(upload(port)) for _ in range(32)]
        wait_until(lambda: sum(w["busy"] for w in site.status()["pools"][0]["workers"]) == 32)
        if way == "scale":
            assert site.ask("scale", "hello", "1").returncode == 0
        else:
            site.write_config(more="workers = 1\nreuse_port = true")
            site.reload()
        wait_until(lambda: queues(port) == 1)
        assert len(daemon.workers()) > 1
        for _ in range(50):
            assert get(port) == "one"
        for client in held:
            client.sendall(b"x" * 100000)
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        stop(daemon)


def test_a_pool_that_has_grown_with_its_load_keeps_its_size(site):
    (site.folder / "app.py").write_text(
        HELLO.format(text="one").replace("self.send_response(200)", "self.send_slowly()", 1)
        + "\n    def send_slowly(self):\n        import time\n        time.sleep(0.1)\n"
        + "        self.send_response(200)\n"
    )
    site.write_config(more="threads = 0\nworkers = {min = 1, max = 3}")
    with site.start() as daemon:
        with Load(daemon.port, 6, keep_alive=False) as load:
            wait_until(lambda: len(daemon.workers()) == 3)
            site.reload()
            assert site.status()["pools"][0]["wanted"] == 3
        assert load.faults == []
        stop(daemon)


def test_new_rights_and_queue_lengths_of_listeners_that_are_kept_hold(site, tmp_path):
    path = tmp_path / "kept.sock"
    config = site.config.read_text()

    def write(mode: str, size: int) -> None:
        tcp = f'{{address = "127.0.0.1:0", request_queue_size = {size}}}'
        unix = f'{{address = "unix:{path}", mode = {mode}}}'
        site.config.write_text(config.replace('"127.0.0.1:0"', f"{tcp}, {unix}"))

    write("0o666", 5)
    with site.start() as daemon:
        port = int(daemon.at.split(",")[0].rpartition(":")[2])
        assert backlog(port) == 5
        inode = path.stat().st_ino
        write("0o600", 7)
        site.reload()
        assert backlog(port) == 7
        assert (path.stat().st_ino, path.stat().st_mode & 0o777) == (inode, 0o600)
        stop(daemon)


def test_a_rehearsal_that_gets_sigterm_leaves_the_doors_of_the_service_open(site, tmp_path):
    path = str(tmp_path / "kept.sock")
    with (site.folder / "app.py").open("a") as file:
        file.write("\n\ndef wait(servers):\n    import time\n    time.sleep(600)\n")
    site.write_config("127.0.0.1:0", f"unix:{path}")
    with site.start() as daemon:
        port = int(daemon.at.split(",")[0].rpartition(":")[2])
        before = daemon.workers()
        more = 'workers = 2\non_worker_start = "app:wait"'
        site.write_config("127.0.0.1:0", f"unix:{path}", more=more)
        daemon.send(signal.SIGHUP)
        wait_until(lambda: any(children(pid) for pid in children(daemon.pid)))
        (rehearsal,) = set(children(daemon.pid)) - set(before)
        os.kill(rehearsal, signal.SIGTERM)
        daemon.log.wait_for("reload.failed reason=.*told to end")
        assert get(port) == "one"
        head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        assert converse(path, head).endswith(b"\r\n\r\none")
        stop(daemon)


def test_a_rehearsal_does_not_outlive_a_master_that_is_killed(site):
    with (site.folder / "app.py").open("a") as file:
        file.write("\nimport os\nif os.path.exists('gate'): open('gate').read()\n")
    with site.start() as daemon:
        before = daemon.workers()
        os.mkfifo(site.folder / "gate")
        daemon.send(signal.SIGHUP)
        with (site.folder / "gate").open("w"):  # opens when the rehearsal does
            (rehearsal,) = set(children(daemon.pid)) - set(before)
            daemon.send(signal.SIGKILL)
            for pid in [rehearsal, *before]:
                wait_gone(pid)


def test_a_rehearsal_ends_its_worker_as_it_began_it(site):
    with (site.folder / "app.py").open("a") as file:
        file.write("\n\nfrom pathlib import Path\nNOTES = Path(__file__).parent / 'notes'\n")
        file.write("\n\ndef begin(servers):\n    NOTES.open('a').write('begin ')\n")
        file.write("\n\ndef end(servers):\n    NOTES.open('a').write('end ')\n")
    hooks = 'on_worker_start = "app:begin"\non_worker_stop = "app:end"'
    site.write_config(more=f"workers = 1\n{hooks}")
    with site.start() as daemon:
        site.reload()
        stop(daemon)
    notes = (site.folder / "notes").read_text().split()
    assert notes.count("begin") == notes.count("end") == 3  # of each generation, and the rehearsal
