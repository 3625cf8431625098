"""`daemonize = true`: who starts a daemon learns how that went, and gets the terminal back."""

import contextlib
import os
import pty
import re
import signal
import subprocess

import pytest
from daemon_kit import Mode, Site, probe
from harness import COMMAND, DEADLINE_S, is_alive, wait_gone


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


@contextlib.contextmanager
def detached(site, *more, **environ):
    """Start a daemon in the background; yield the caller's end and the daemon's PID."""
    answer = site.run(*more, site.config, env={**os.environ, **environ})
    assert (answer.returncode, answer.stderr) == (0, answer.stderr)
    pid = int((site.folder / "pid").read_text())
    try:
        yield answer, pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        wait_gone(pid)


def port_of(site) -> int:
    return int(site.status()["pools"][0]["at"][0].rpartition(":")[2])


MASTER = {"daemonize": True, "pidfile": "./pid", "log": {"target": "./log"}}


def test_the_caller_returns_0_when_all_workers_are_ready(site):
    site.add_code("def note(servers):\n    open('READY', 'a').write('r')")
    site.write(
        master=MASTER | {"working_directory": str(site.folder)},
        workers=2,
        on_worker_start="app:note",
    )
    with detached(site) as (answer, pid):
        assert (site.folder / "READY").read_text() == "rr"
        assert (answer.stdout, answer.stderr) == ("", "")
        status = site.status()
        assert status["pid"] == pid
        assert len(status["pools"][0]["workers"]) == 2
        events = re.findall(r"INFO (\S+)", (site.folder / "log").read_text())
        assert events[:2] == ["master.listening", "master.ready"]


def test_a_daemon_has_no_terminal_and_is_where_it_should_be(site):
    site.write(master=MASTER | {"umask": Mode(0o027)})
    with detached(site) as (_, pid):
        port = port_of(site)
        for process in "os.getppid()", "os.getpid()":
            assert probe(port, f"os.readlink(f'/proc/{{{process}}}/cwd')") == "/"
            links = f"[os.readlink(f'/proc/{{{process}}}/fd/{{n}}') for n in (0, 1, 2)]"
            names = probe(port, links)
            assert names == ["/dev/null"] * 3
        assert probe(port, "os.getppid()") == pid
        assert os.getsid(pid) not in (os.getsid(0), pid)  # no session's leader: it gets no terminal
        assert probe(port, "os.umask(0o027)") == 0o027
        site.order("reload")
        assert probe(port, "os.readlink(f'/proc/{os.getppid()}/cwd')") == "/"
        assert probe(port, "os.umask(0o027)") == 0o027
        assert site.status()["pid"] == pid


def test_it_starts_in_its_working_directory(site):
    (site.folder / "home").mkdir()
    site.write(master=MASTER | {"working_directory": "home"})
    with detached(site):
        port = port_of(site)
        assert probe(port, "os.getcwd()") == str(site.folder / "home")
        site.order("reload")
        assert probe(port, "os.getcwd()") == str(site.folder / "home")


def test_the_option_daemon_does_the_same(site):
    site.write(master={**MASTER, "daemonize": False})
    with detached(site, "--daemon") as (answer, pid):
        assert (answer.stdout, answer.stderr) == ("", "")
        assert site.status()["pid"] == pid


def test_the_callers_output_ends_when_it_does(site):
    """Nobody who reads it waits for the daemon: neither master nor workers hold it."""
    site.write(master=MASTER, workers=2)
    ours, theirs = os.pipe()
    done = subprocess.run(
        [COMMAND, site.config], stdout=theirs, stderr=theirs, timeout=DEADLINE_S, check=False
    )
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        said = pipe.read()
    pid = int((site.folder / "pid").read_text())
    os.kill(pid, signal.SIGTERM)
    wait_gone(pid)
    assert (done.returncode, said) == (0, "")


def test_at_a_terminal_it_lets_go_of_it(site):
    site.write(master=MASTER)
    master, slave = pty.openpty()
    done = subprocess.run(
        [COMMAND, site.config],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        timeout=DEADLINE_S,
        check=False,
    )
    os.close(slave)
    said = b""
    with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
        while part := os.read(master, 4096):
            said += part
    os.close(master)
    pid = int((site.folder / "pid").read_text())
    os.kill(pid, signal.SIGTERM)
    wait_gone(pid)
    assert (done.returncode, said) == (0, b"")


FAILS = "def fail(servers):\n    raise RuntimeError('no database')"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ({"on_worker_start": "app:fail"}, r"RuntimeError: no database"),
        ({"handler": "app:Prob"}, r"server\.main\.handler: .*did you mean 'Probe'"),
        ({"bind": ["unix:nowhere/web.sock"]}, r"there is no such directory to put the socket in"),
        ({"master": MASTER | {"working_directory": "nowhere"}}, r"working.directory"),
        ({"master": MASTER | {"log": {"target": "nowhere/log"}}}, r"cannot open the log"),
        ({"workers": 0}, r"server\.main\.workers: found 0"),
    ],
)
def test_the_caller_returns_1_with_the_reason_once(site, spoil, reason):
    site.add_code(FAILS)
    site.write(**{"master": MASTER} | spoil)
    answer = site.run(site.config)
    assert answer.returncode == 1
    lines = [line for line in answer.stderr.splitlines() if line.startswith("prefork: error: ")]
    assert len(lines) == 1, answer.stderr
    assert re.search(reason, lines[0])
    assert lines[0].count("prefork: error: ") == 1
    assert not (site.folder / "pid").exists()
    assert site.ask("status").returncode == 1


def test_several_errors_are_several_lines(site):
    site.write(master=MASTER, handler="app:Prob", pools={"other": {"handler": "nowhere:Handler"}})
    answer = site.run(site.config)
    assert answer.returncode == 1
    lines = answer.stderr.splitlines()
    assert [bool(re.match(r"prefork: error: .*server\.\w+\.handler: ", n)) for n in lines] == [
        True,
        True,
    ]


def test_a_pidfile_that_a_dead_process_has_left_is_taken_over(site):
    dead = subprocess.Popen(["true"])
    dead.wait()
    (site.folder / "pid").write_text(f"{dead.pid}\n")
    site.write(master=MASTER)
    with detached(site) as (_, pid):
        assert pid != dead.pid
        assert is_alive(pid)
    assert not (site.folder / "pid").exists()  # removed at the end


def test_a_pidfile_of_a_running_daemon_refuses_the_second_one(site):
    site.write(master=MASTER)
    with detached(site) as (_, pid):
        site.write(master=MASTER | {"control": "./other.sock"})
        second = site.run(site.config)
        assert second.returncode == 1
        assert re.search(rf"{site.folder}/pid.*{pid}", second.stderr)
        assert int((site.folder / "pid").read_text()) == pid
        site.which = ["--socket", site.folder / "control.sock"]
        assert site.status()["pid"] == pid


def test_a_pidfile_survives_a_reload_and_follows_its_key(site):
    site.write(master=MASTER)
    with detached(site) as (_, pid):
        site.order("reload")
        assert int((site.folder / "pid").read_text()) == pid
        site.write(master=MASTER | {"pidfile": "./pid2"})
        site.order("reload")
        assert int((site.folder / "pid2").read_text()) == pid
        assert not (site.folder / "pid").exists()
    assert not (site.folder / "pid2").exists()


def test_a_daemon_without_a_log_is_refused(site):
    site.write(master={"daemonize": True})
    answer = site.run(site.config)
    assert answer.returncode == 2
    assert re.search(r"master\.log\.target|\[master\.log\]", answer.stderr), answer.stderr
