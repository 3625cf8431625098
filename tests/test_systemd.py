"""The service under the real systemd: a machine is booted, with package and units installed."""

import contextlib
import http.client
import json
import re
import threading
from pathlib import Path

import machine as machines
import pytest
from conftest import CHECKOUT
from harness import is_alive, wait_until
from machine import Machine

pytestmark = pytest.mark.slow

UNITS = ["prefork.service", "prefork@.service", "prefork.socket", "prefork-local.socket"]
CONFIG = "/etc/prefork/prefork.toml"
BIG = 50_000_000

SHARE = """
[master]
graceful_timeout = 10

[server.files]
bind = [{bind}]
handler = "prefork.http:SimpleHTTPRequestHandler"
workers = 2

[server.files.handler_options]
directory = "{directory}"
"""

#: A handler that answers when something is written to a pipe.
WAITING = """
from http.server import BaseHTTPRequestHandler
from pathlib import Path

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        Path("/srv/app/gate").read_text()
        self.send_response(200)
        self.end_headers()
"""
PATH = 'path = ["/srv/app"]\n'

TALK = """
import os, signal, socket, sys, time
from prefork import systemd

def stop(*_):
    for _ in range(8):
        systemd.extend_timeout(1)
        time.sleep(0.25)
    print("took 2 seconds", flush=True)
    sys.exit()

signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGHUP, lambda *_: systemd.reloading())
signal.signal(signal.SIGUSR1, lambda *_: systemd.ready("again"))
signal.signal(signal.SIGUSR2, lambda *_: systemd.remove_from_store("web"))
kept = dict(systemd.inherited(os.environ))
web = kept.get("web") or socket.create_server(("127.0.0.1", 0))
systemd.store(web.fileno(), "web")
word = "kept" if kept else "stored"
systemd.ready(f"{word} {web.getsockname()[1]}")
while True:
    signal.pause()
"""

POOL = """
[server.{user}]
bind = ["127.0.0.1:{port}"]
handler = "prefork.http:SimpleHTTPRequestHandler"
workers = 1
user = "{user}"
handler_options = {{directory = "/srv/share"}}
"""


def share(bind='"*:8000"', directory="/srv/share"):
    return SHARE.format(bind=bind, directory=directory)


@pytest.fixture(scope="module")
def booted():
    reason = machines.missing()
    if reason:
        pytest.skip(reason)
    with Machine() as machine:
        for name in UNITS:
            text = (CHECKOUT / "systemd" / name).read_text()
            machine.write(f"/usr/lib/systemd/system/{name}", text)
        for kind in ("sysusers", "tmpfiles"):
            text = (CHECKOUT / f"systemd/prefork.{kind}").read_text()
            machine.write(f"/usr/lib/{kind}.d/prefork.conf", text)
        machine.run("systemd-sysusers")
        machine.run("systemd-tmpfiles", "--create", "--prefix=/run/prefork")
        machine.run("systemctl", "daemon-reload")
        for folder in ("share", "other"):
            machine.write(f"/srv/{folder}/name.txt", f"{folder}\n")
        with machine.path("/srv/share/big").open("wb") as file:
            file.truncate(BIG)
        yield machine


@pytest.fixture
def machine(booted, request):
    """The machine; what a test starts in it is stopped, what it writes to /etc is removed."""
    since = booted.run("date", "+%s.%N").strip()
    failed = request.session.testsfailed
    yield booted
    if request.session.testsfailed > failed:
        print(booted.journal("--since", f"@{since}"))
    booted.run("systemctl", "stop", "prefork*.service", "prefork*.socket")
    booted.run("systemctl", "reset-failed")
    booted.run("sh", "-c", "rm -rf /etc/prefork /etc/systemd/system/prefork*")
    booted.run("systemctl", "daemon-reload")


@pytest.fixture
def service(machine):
    """The shipped service, serving a folder on port 8000."""
    machine.write(CONFIG, share())
    machine.run("systemctl", "start", "prefork")
    return machine


def main_pid(machine, unit="prefork"):
    """Return the service's main process, as this machine numbers it."""
    inside = machine.show(unit, "MainPID")
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            found = re.search(r"^NSpid:\t(\d+)\t(\d+)$", status.read_text(), re.MULTILINE)
            if found and found[2] == inside and is_in(machine, found[1]):
                return int(found[1])
    raise AssertionError(f"no process {inside}")


def is_in(machine, pid):
    namespaces = [Path(f"/proc/{one}/ns/pid").readlink() for one in (pid, machine.leader)]
    return namespaces[0] == namespaces[1]


def get(machine, path, port=8000, host="127.0.0.1"):
    connection = http.client.HTTPConnection(host, port)
    with contextlib.closing(connection):
        connection.sock = machine.connect(port, host)
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read()


class Load:
    """Clients that ask again and again, each time by a new connection."""

    def __init__(self, machine, clients=4):
        self.answered = 0
        self.wrong = []
        self._machine = machine
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self):
        while not self._end.is_set():
            try:
                status, _ = get(self._machine, "/name.txt")
                wrong = [] if status == 200 else [status]
            except (OSError, http.client.HTTPException) as error:
                wrong = [repr(error)]
            with self._lock:
                self.answered += 1
                self.wrong += wrong

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self.wait_for_more()
        return self

    def __exit__(self, kind, error, trace):
        self._end.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count=50):
        goal = self.answered + count
        wait_until(lambda: self.answered >= goal, what=f"{count} more answers")


def fail_in(machine):
    with machine:
        machine.run("systemd-run", "-q", "--service-type=exec", "sleep", "1000")
        raise ZeroDivisionError


@pytest.mark.usefixtures("booted")
def test_a_machine_leaves_nothing_behind_when_a_test_fails():
    machine = Machine()
    with pytest.raises(ZeroDivisionError):
        fail_in(machine)
    assert machine.process.returncode is not None
    assert not is_alive(machine.leader)
    assert not machine.folder.exists()
    assert str(machine.folder) not in Path("/proc/mounts").read_text()
    assert not any((path / machine.name).exists() for path in machines.CGROUPS)


@pytest.fixture
def talking(machine):
    """A service of a test's own that only talks with systemd."""
    machine.write("/opt/talk.py", TALK)
    properties = ["Type=notify", "Restart=on-failure", "RestartSec=0", "FileDescriptorStoreMax=2"]
    words = [word for one in [*properties, "TimeoutStopSec=1"] for word in ("-p", one)]
    python = f"{machines.HOME}/bin/python"
    machine.run("systemd-run", "-q", "--unit=prefork-talk", *words, python, "/opt/talk.py")
    yield machine
    machine.run("systemctl", "stop", "prefork-talk", check=False)


def test_systemd_keeps_what_is_stored_until_it_is_removed_from_the_store(talking):
    first = talking.show("prefork-talk", "StatusText")
    assert first.startswith("stored ")
    talking.run("kill", "-KILL", talking.show("prefork-talk", "MainPID"))
    talking.wait_shown("prefork-talk", "StatusText", first.replace("stored", "kept"))
    assert talking.show("prefork-talk", "NFileDescriptorStore") == "1"
    talking.run("systemctl", "kill", "-s", "USR2", "prefork-talk")
    talking.wait_shown("prefork-talk", "NFileDescriptorStore", "0")


def test_systemd_is_told_when_a_reload_begins_and_ends(talking):
    talking.run("systemctl", "kill", "-s", "HUP", "prefork-talk")
    talking.wait_shown("prefork-talk", "ActiveState", "reloading")
    talking.run("systemctl", "kill", "-s", "USR1", "prefork-talk")
    talking.wait_shown("prefork-talk", "ActiveState", "active")
    assert talking.show("prefork-talk", "StatusText") == "again"


def test_a_stop_may_take_longer_for_who_asks(talking):
    talking.run("systemctl", "stop", "prefork-talk")
    assert talking.show("prefork-talk", "Result") == "success"
    assert "took 2 seconds" in talking.journal("-u", "prefork-talk")


def test_systemd_finds_nothing_wrong_with_the_units(machine):
    paths = [f"/usr/lib/systemd/system/{name}" for name in UNITS]
    assert machine.run("systemd-analyze", "verify", *paths) == ""


@pytest.mark.parametrize("unit", ["prefork.service", "prefork@share.service"])
def test_a_service_is_exposed_to_at_most_one_and_a_half(machine, unit):
    said = machine.run("systemd-analyze", "security", "--no-pager", unit)
    level = re.search(rf"Overall exposure level for {re.escape(unit)}: ([\d.]+)", said)
    assert float(level[1]) <= 1.5


def test_the_hardened_service_shares_a_folder(service):
    assert get(service, "/name.txt") == (200, b"share\n")
    assert get(service, "/name.txt", host="::1") == (200, b"share\n")
    status, listing = get(service, "/")
    assert status == 200
    assert b'href="name.txt"' in listing
    status, content = get(service, "/big")
    assert (status, len(content)) == (200, BIG)


def test_no_process_of_the_service_has_a_right_that_it_does_not_need(service):
    uid = service.run("id", "-u", "prefork").strip()
    pids = service.run("pgrep", "-u", "prefork").split()
    assert len(pids) == 3
    for pid in pids:
        status = service.path(f"/proc/{pid}/status").read_text()
        assert re.search(rf"^Uid:\t{uid}\t{uid}\t{uid}\t{uid}$", status, re.MULTILINE)
        assert re.search(r"^CapBnd:\t0+$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
        assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE)


def test_a_reload_serves_what_the_new_config_says_and_loses_nothing(service):
    before = service.show("prefork", "MainPID")
    with Load(service) as load:
        service.write(CONFIG, share(directory="/srv/other"))
        service.run("systemctl", "reload", "prefork")
        assert get(service, "/name.txt") == (200, b"other\n")
        load.wait_for_more()
    assert load.wrong == []
    assert service.show("prefork", "MainPID") == before
    assert service.show("prefork", "ActiveState") == "active"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (share().replace("workers = 2", "wokers = 2"), "did you mean 'workers'"),
        (share().replace(":SimpleHTTP", ":SimplHTTP"), "SimplHTTPRequestHandler"),
    ],
    ids=["misspelled key", "handler that is not there"],
)
def test_a_reload_of_what_cannot_run_fails_and_says_why(service, wrong, reason):
    before = service.show("prefork", "MainPID")
    service.write(CONFIG, wrong)
    assert service.attempt("systemctl", "reload", "prefork").returncode == 1
    assert reason in service.journal("-u", "prefork")
    assert reason in service.show("prefork", "StatusText")
    assert service.show("prefork", "ActiveState") == "active"
    assert service.show("prefork", "MainPID") == before
    assert get(service, "/name.txt") == (200, b"share\n")
    service.write(CONFIG, share(directory="/srv/other"))
    service.run("systemctl", "reload", "prefork")
    assert reason not in service.show("prefork", "StatusText")
    assert get(service, "/name.txt") == (200, b"other\n")
    service.write(CONFIG, wrong)  # again, in a later generation
    assert service.attempt("systemctl", "reload", "prefork").returncode == 1
    service.wait_shown("prefork", "StatusText", f".*{re.escape(reason)}.*")


def test_a_start_that_fails_says_why(machine):
    machine.write(CONFIG, share().replace("workers = 2", "wokers = 2"))
    assert machine.attempt("systemctl", "start", "prefork").returncode == 1
    assert "did you mean 'workers'" in machine.journal("-u", "prefork")


def test_the_status_counts_workers(machine):
    machine.write("/srv/app/waiting.py", WAITING)
    machine.run("mkfifo", "-m", "666", "/srv/app/gate")
    text = share().replace("prefork.http:SimpleHTTPRequestHandler", "waiting:Handler")
    machine.write(CONFIG, text.partition("[server.files.handler_options]")[0] + PATH)
    machine.run("systemctl", "start", "prefork")
    machine.wait_shown("prefork", "StatusText", r"0 of 2 workers busy.*")
    with machine.connect(8000) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        machine.wait_shown("prefork", "StatusText", r"1 of 2 workers busy.*")
        said = machine.run("systemctl", "status", "prefork")
        machine.write("/srv/app/gate", "go\n")
        assert client.recv(100).startswith(b"HTTP/1.0 200")
    assert re.search(r"^ +Status: \"1 of 2 workers busy", said, re.MULTILINE)
    machine.wait_shown("prefork", "StatusText", r"0 of 2 workers busy.*")


def test_a_stopped_service_answers_by_its_sockets(machine):
    machine.write(CONFIG, share('"systemd:http", "systemd:local"'))
    machine.run("systemctl", "start", "prefork.socket", "prefork-local.socket")
    assert machine.show("prefork", "ActiveState") == "inactive"
    assert get(machine, "/name.txt") == (200, b"share\n")
    assert get(machine, "/name.txt", host="::1") == (200, b"share\n")
    machine.wait_shown("prefork", "ActiveState", "active")  # the first worker may answer before
    said = machine.run(
        "curl", "-s", "--unix-socket", "/run/prefork-local.sock", "http://a/name.txt"
    )
    assert said == "share\n"


def test_a_restart_of_an_activated_service_loses_nothing(machine):
    machine.write(CONFIG, share('"systemd:http"'))
    machine.run("systemctl", "start", "prefork.socket", "prefork.service")
    with Load(machine) as load:
        for _ in range(3):
            machine.run("systemctl", "restart", "prefork")
            load.wait_for_more()
    assert load.wrong == []


def test_the_watchdog_replaces_a_master_that_stands_still(machine):
    machine.write("/etc/systemd/system/prefork.service.d/test.conf", "[Service]\nWatchdogSec=1\n")
    machine.run("systemctl", "daemon-reload")
    machine.write(CONFIG, share())
    machine.run("systemctl", "start", "prefork")
    before = machine.show("prefork", "MainPID")
    machine.run("kill", "-STOP", before)
    machine.wait_shown("prefork", "NRestarts", "1")
    machine.wait_shown("prefork", "ActiveState", "active")
    assert machine.show("prefork", "MainPID") != before
    assert get(machine, "/name.txt") == (200, b"share\n")
    assert "Watchdog timeout" in machine.journal("-u", "prefork")


def test_a_master_that_is_killed_is_started_again_and_its_sockets_are_kept(service):
    before = service.show("prefork", "MainPID")
    assert int(service.show("prefork", "NFileDescriptorStore")) >= 2
    with Load(service) as load:
        service.run("kill", "-KILL", before)
        service.wait_shown("prefork", "NRestarts", "1")
        load.wait_for_more()
    # Who was being answered is lost; nobody is refused.
    assert [wrong for wrong in load.wrong if "refused" in wrong.lower()] == []
    service.wait_shown("prefork", "ActiveState", "active")
    assert service.show("prefork", "MainPID") != before
    assert len(service.run("pgrep", "-u", "prefork").split()) == 3


def test_systemd_keeps_only_sockets_that_the_config_still_has(service):
    service.write(CONFIG, share('"127.0.0.1:8001"'))
    service.run("systemctl", "reload", "prefork")
    assert get(service, "/name.txt", 8001) == (200, b"share\n")
    service.wait_shown("prefork", "NFileDescriptorStore", "1")
    with pytest.raises(ConnectionRefusedError):
        service.connect(8000)


def test_a_stop_under_load_ends_in_time_and_finishes_downloads(service):
    with Load(service, clients=2) as load, service.connect(8000) as slow:
        slow.sendall(b"GET /big HTTP/1.0\r\n\r\n")
        received = len(slow.recv(1000))
        stopping = threading.Thread(target=service.run, args=("systemctl", "stop", "prefork"))
        stopping.start()
        service.wait_shown("prefork", "ActiveState", "deactivating")
        while part := slow.recv(1 << 20):
            received += len(part)
        stopping.join()
    assert received > BIG
    assert service.show("prefork", "Result") == "success"
    assert {wrong for wrong in load.wrong if "refused" not in wrong.lower()} == set()


def test_a_stop_that_a_client_holds_up_ends_by_the_graceful_timeout(machine):
    machine.write(CONFIG, share().replace("graceful_timeout = 10", "graceful_timeout = 1"))
    machine.run("systemctl", "start", "prefork")
    with machine.connect(8000) as stuck:
        stuck.sendall(b"GET /big HTTP/1.0\r\n\r\n")
        stuck.recv(1000)
        machine.run("systemctl", "stop", "prefork")
    assert machine.show("prefork", "Result") == "success"
    assert "SIGKILL" not in machine.journal(
        "-u", "prefork", "-t", "systemd", "-o", "cat", "-n", "3"
    )


def test_instances_have_configs_and_control_sockets_of_their_own(machine):
    for name, port in (("share", 8001), ("other", 8002)):
        text = share(f'"*:{port}"', f"/srv/{name}")
        machine.write(f"/etc/prefork/{name}.toml", text)
        machine.run("systemctl", "start", f"prefork@{name}")
        machine.run("prefork", "status", f"/etc/prefork/{name}.toml")
    assert get(machine, "/name.txt", 8001) == (200, b"share\n")
    assert get(machine, "/name.txt", 8002) == (200, b"other\n")
    machine.run("systemctl", "stop", "prefork@share")
    assert get(machine, "/name.txt", 8002) == (200, b"other\n")


def test_an_installed_service_runs_from_where_its_config_is(machine):
    machine.write("/root/site/my site.toml", share('"*:80", "systemd:8001"', "public"))
    machine.write("/root/site/public/name.txt", "home\n")
    said = machine.run("prefork", "install-service", "/root/site/my site.toml", "--write")
    machine.run(*said.rpartition("next: ")[2].split())
    assert get(machine, "/name.txt", 8001) == (200, b"home\n")
    assert get(machine, "/name.txt", 80) == (200, b"home\n")
    assert machine.run("systemd-analyze", "verify", r"prefork-my\x20site.service") == ""
    machine.write("/root/site/public/name.txt", "changed\n")
    machine.run("systemctl", "reload", r"prefork-my\x20site.service")
    assert get(machine, "/name.txt", 80) == (200, b"changed\n")


def test_one_command_shares_a_folder_on_a_machine_that_has_nothing(machine):
    machine.run("sh", "-c", "rm -rf /var/cache/prefork")
    said = machine.run("prefork", "install-service", "--now", "/srv/new folder")
    unit = "prefork-new-folder.service"
    assert said.endswith(
        f"started {unit}; what it does is written in /etc/prefork/new-folder.toml\n"
    )
    machine.write("/srv/new folder/name.txt", "new\n")
    machine.write("/srv/new folder/.hidden", "no\n")
    machine.path("/srv/new folder/out").symlink_to("/etc/passwd")
    assert get(machine, "/name.txt") == (200, b"new\n")
    assert [get(machine, path)[0] for path in ("/.hidden", "/out")] == [404, 404]
    assert b"name.txt" in get(machine, "/?plain")[1]
    cache = machine.run("stat", "-c", "%U %a", "/var/cache/prefork").split()
    assert cache == ["prefork", "700"]
    assert machine.run("systemctl", "is-enabled", unit).strip() == "enabled"
    assert machine.run("systemd-analyze", "verify", unit) == ""
    machine.run("prefork", "install-service", "--now", "/srv/new folder")
    machine.run("systemctl", "reload", unit)
    assert get(machine, "/name.txt") == (200, b"new\n")


def test_pools_run_as_users_of_their_own(machine):
    text = "".join(
        POOL.format(user=user, port=port) for user, port in (("nobody", 81), ("www-data", 82))
    )
    machine.write("/etc/prefork/two.toml", text)
    machine.run("prefork", "install-service", "/etc/prefork/two.toml", "--write")
    machine.run("systemctl", "start", "prefork-two")
    assert get(machine, "/name.txt", 81) == (200, b"share\n")
    machine.run("systemctl", "reload", "prefork-two")
    assert get(machine, "/name.txt", 82) == (200, b"share\n")
    pids = machine.run("pgrep", "-f", "^prefork: worker").split()
    users = [machine.run("ps", "-o", "user=", "-p", pid).strip() for pid in pids]
    assert sorted(users) == ["nobody", "www-data"]


def test_a_master_with_a_user_has_low_ports_and_then_no_right_any_more(machine):
    text = share('"*:80"').replace("[master]", '[master]\nuser = "www-data"')
    machine.write("/etc/prefork/low.toml", text)
    machine.run("prefork", "install-service", "/etc/prefork/low.toml", "--write")
    machine.run("systemctl", "start", "prefork-low")
    assert get(machine, "/name.txt", 80) == (200, b"share\n")
    pids = machine.run("pgrep", "-u", "www-data").split()
    status = [machine.path(f"/proc/{pid}/status").read_text() for pid in pids]
    assert [re.search(r"^CapEff:\t(0*)$", text, re.MULTILINE)[1] for text in status] == [
        "0" * 16
    ] * 3


def test_the_journal_has_the_fields_of_events(machine):
    machine.write(CONFIG, share() + '[master.log]\ntarget = "journald"\n')
    machine.run("systemctl", "start", "prefork")
    machine.run("systemctl", "reload", "prefork")
    said = machine.journal("PREFORK_EVENT=reload.begun", "-o", "json")
    record = json.loads(said.splitlines()[-1])
    assert record["_SYSTEMD_UNIT"] == "prefork.service"
    assert record["PREFORK_GENERATION"] == "2"
    assert record["PRIORITY"] == "6"


def test_with_notify_reload_systemd_waits_for_the_new_generation(machine):
    version = int(re.search(r"systemd (\d+)", machine.run("systemctl", "--version"))[1])
    if version < 253:
        pytest.skip(f"systemd {version} has no Type=notify-reload")
    text = (CHECKOUT / "systemd/notify-reload.conf").read_text()
    machine.write("/etc/systemd/system/prefork.service.d/notify-reload.conf", text)
    machine.run("systemctl", "daemon-reload")
    machine.write(CONFIG, share())
    machine.run("systemctl", "start", "prefork")
    for folder in ("other", "share"):
        machine.write(CONFIG, share(directory=f"/srv/{folder}"))
        machine.run("systemctl", "reload", "prefork")
        assert get(machine, "/name.txt") == (200, f"{folder}\n".encode())
    machine.write(CONFIG, share().replace("workers = 2", "wokers = 2"))
    machine.run("systemctl", "reload", "prefork")
    machine.wait_shown("prefork", "StatusText", r".*did you mean 'workers'.*")
    assert machine.show("prefork", "ActiveState") == "active"
