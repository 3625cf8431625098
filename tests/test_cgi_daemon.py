"""CGI from the command line and from a config: options, reload, and the ways to stop."""

import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from cgi_kit import HELLO, program, scripts_for_everybody
from daemon_kit import Site, fetch
from harness import DEADLINE_S, Prefork, is_alive, wait_gone


@pytest.fixture
def scripts():
    with scripts_for_everybody() as found:
        found.script("hello", HELLO)
        (found.folder / "file.txt").write_text("a file")
        yield found


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def write(site, scripts, threads=4, **options) -> None:
    site.write(
        handler="prefork.http:CGIHTTPRequestHandler",
        threads=threads,
        handler_options={"directory": str(scripts.folder), **options},
    )


class Waiting:
    """A request in a thread to a script that writes its number to a FIFO, then reads another."""

    def __init__(self, scripts, port):
        self.born, self.gate = scripts.fifo("born"), scripts.fifo("gate")
        scripts.script("waits", f"echo $$ >{self.born}\ncat <{self.gate}\n" + HELLO)
        self._answer: list = []
        self._thread = threading.Thread(target=self._ask, args=(port,), daemon=True)
        self._thread.start()
        self.pid = int(self.born.read_text())

    def _ask(self, port):
        try:
            self._answer.append(fetch(port, "/cgi-bin/waits")[2])
        except Exception as error:
            self._answer.append(error)

    def let_go(self) -> None:
        self.gate.write_text("")

    def answer(self):
        self._thread.join(DEADLINE_S)
        (answer,) = self._answer
        return answer


def test_the_command_line_runs_scripts_where_it_is_told_to(scripts):
    scripts.script("gains", "echo A: b\necho\nexec grep NoNewPrivs /proc/self/status\n")
    with Prefork(scripts.folder, "0", "-b", "127.0.0.1", "--cgi", "-w", "2") as daemon:
        assert fetch(daemon.port, "/cgi-bin/gains")[2] == b"NoNewPrivs:\t1\n"
        status, headers, body = fetch(daemon.port, "/cgi-bin/hello")
        assert (status, body) == (200, b"hello\n")
        assert headers["Content-Type"] == "text/plain"
        assert fetch(daemon.port, "/file.txt")[2] == b"a file"
        assert fetch(daemon.port, "/file.txt", "POST", b"x")[0] == 501
        daemon.log.wait_for(r'"GET /cgi-bin/hello HTTP/1\.1" 200 6')
        assert daemon.stop() == 0
    with Prefork(scripts.folder, "0", "-b", "127.0.0.1", "-w", "1") as daemon:
        assert fetch(daemon.port, "/cgi-bin/hello")[2].startswith(b"#!/bin/sh")
        assert daemon.stop() == 0


def test_what_scripts_cry_and_how_they_fail_is_in_the_log(scripts, site):
    scripts.script("cries", "echo of woe >&2\nexit 3\n")
    scripts.script("sleeps", "sleep 1000\n")
    write(site, scripts, cgi_timeout=0.2)
    with site.start() as daemon:
        assert fetch(daemon.port, "/cgi-bin/cries")[0] == 502
        daemon.log.wait_for(r'WARNING cgi\.stderr script=/cgi-bin/cries text="of woe"$')
        daemon.log.wait_for(
            r'cgi\.failed script=/cgi-bin/cries reason="it has said nothing" ended="exit 3"$'
        )
        assert fetch(daemon.port, "/cgi-bin/sleeps")[0] == 504
        daemon.log.wait_for(r"cgi\.failed script=/cgi-bin/sleeps reason=\"it neither read nor")
        assert daemon.stop() == 0


def test_a_script_has_the_default_signals(scripts, site):
    scripts.script("signals", "echo A: b\necho\nexec grep SigIgn /proc/self/status\n")
    write(site, scripts)
    with site.start() as daemon:
        # Those that only the master obeys, too.
        assert fetch(daemon.port, "/cgi-bin/signals")[2] == b"SigIgn:\t0000000000000000\n"
        for worker in daemon.workers():
            for signum in signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN, signal.SIGWINCH:
                os.kill(worker, signum)
        assert fetch(daemon.port, "/cgi-bin/hello")[2] == b"hello\n"
        assert daemon.stop() == 0
        assert "worker" not in daemon.log.text()


@pytest.mark.parametrize("threads", [0, 4])
def test_a_script_that_runs_at_a_reload_is_answered(scripts, site, threads):
    write(site, scripts, threads)
    with site.start() as daemon:
        waiting = Waiting(scripts, daemon.port)
        (old,) = daemon.workers()
        site.order("reload")
        assert is_alive(waiting.pid)
        assert is_alive(old)
        assert fetch(daemon.port, "/cgi-bin/hello")[2] == b"hello\n"  # by the new one
        waiting.let_go()
        assert waiting.answer() == b"hello\n"
        wait_gone(old)
        assert daemon.stop() == 0


def test_a_graceful_stop_waits_for_a_script(scripts, site):
    write(site, scripts)
    with site.start() as daemon:
        waiting = Waiting(scripts, daemon.port)
        daemon.send(signal.SIGTERM)
        daemon.log.wait_for("master.signal signal=SIGTERM")
        waiting.let_go()
        assert waiting.answer() == b"hello\n"
        assert daemon.wait() == 0


def test_a_graceful_stop_waits_for_a_script_that_goes_on_without_its_output(scripts, site):
    scripts.script("goes-on", f"{HELLO}exec >&-\nsleep 0.5\necho of work >&2\n")
    write(site, scripts)
    with site.start() as daemon:
        assert fetch(daemon.port, "/cgi-bin/goes-on")[2] == b"hello\n"
        assert daemon.stop() == 0
        assert 'cgi.stderr script=/cgi-bin/goes-on text="of work"' in daemon.log.text()


def test_a_quick_stop_ends_the_scripts(scripts, site):
    write(site, scripts)
    with site.start() as daemon:
        waiting = Waiting(scripts, daemon.port)
        daemon.send(signal.SIGQUIT)
        daemon.wait()
        wait_gone(waiting.pid)


def test_a_long_script_is_not_taken_for_a_stuck_handler(scripts, site):
    site.write(
        handler="prefork.http:CGIHTTPRequestHandler",
        heartbeat_timeout=0.5,
        threads=0,
        handler_options={"directory": str(scripts.folder)},
    )
    scripts.script("long", "sleep 1.5\n" + HELLO)
    with site.start() as daemon:
        before = daemon.workers()
        assert fetch(daemon.port, "/cgi-bin/long")[2] == b"hello\n"
        assert daemon.workers() == before
        assert daemon.stop() == 0


# -- git ---------------------------------------------------------------------------------


def git(*words, cwd, **environ) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    who = {
        f"GIT_{a}_{b}": "me@example.org" for a in ("AUTHOR", "COMMITTER") for b in ("NAME", "EMAIL")
    }
    private = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "HOME": str(cwd)}
    done = subprocess.run(
        [program("git"), *map(str, words)],
        cwd=cwd,
        env=clean | who | private | {"GIT_TERMINAL_PROMPT": "0"} | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def open_to_all(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o777 if path.is_dir() else 0o666)


def test_git_clones_and_pushes(scripts, site, tmp_path):
    exec_path = Path(git("--exec-path", cwd=tmp_path).strip())
    if not (exec_path / "git-http-backend").exists():
        pytest.skip(f"there is no git-http-backend in {exec_path}")
    scripts.script("git", f"exec {exec_path}/git-http-backend\n")
    project = scripts.folder / "project.git"
    git("init", "--bare", "-q", "-b", "main", project, cwd=tmp_path)
    git("config", "http.receivepack", "true", cwd=project)
    shutil.rmtree(project / "hooks")
    open_to_all(project)
    environ = {
        "GIT_PROJECT_ROOT": str(scripts.folder),
        "GIT_HTTP_EXPORT_ALL": "1",
        # The server may be another user than the one the files belong to.
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }
    write(site, scripts, cgi_environment=environ)
    with site.start() as daemon:
        url = f"http://127.0.0.1:{daemon.port}/cgi-bin/git/project.git"
        one, other = tmp_path / "one", tmp_path / "other"
        git("clone", "-q", url, one, cwd=tmp_path)
        large = os.urandom(3_000_000)  # more than http.postBuffer: its body is chunked
        (one / "large").write_bytes(large)
        (one / "small").write_text("small\n")
        git("add", ".", cwd=one)
        git("commit", "-q", "-m", "first", cwd=one)
        git("push", "-q", "origin", "HEAD:main", cwd=one)
        git("clone", "-q", url, other, cwd=tmp_path)
        assert (other / "large").read_bytes() == large
        (other / "small").write_text("changed\n")
        git("commit", "-q", "-a", "-m", "second", cwd=other)
        git("push", "-q", "origin", "HEAD:main", cwd=other)
        git("pull", "-q", "origin", "main", cwd=one)
        assert (one / "small").read_text() == "changed\n"
        assert daemon.stop() == 0
