"""The commands against a real daemon: what they do, say and return."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest
from daemon_kit import Asking, Gate, Site, probe
from harness import COMMAND, DEADLINE_S, is_alive, wait_until


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def stop(daemon) -> None:
    assert daemon.stop() == 0


def test_status_tells_what_there_is_and_what_each_worker_does(site, tmp_path):
    gate = Gate(tmp_path)
    site.write(workers=2, pools={"other": {"bind": ["unix:web.sock"], "workers": 1}})
    begun_s = time.time()
    with site.start() as daemon:
        port = daemon.port
        for _ in range(3):
            probe(str(site.folder / "web.sock"), "'x' * 1000")
        asked = Asking(port, gate.expression)
        held = gate.wait_for_somebody()
        status = site.told_status()
        assert status["pid"] == daemon.pid
        assert status["config"] == str(site.config)
        assert (status["state"], status["reason"], status["generation"]) == ("serving", None, 1)
        assert begun_s - 1 < status["started_s"] < time.time()
        main, other = status["pools"]
        assert (main["name"], main["at"], main["wanted"]) == ("main", [f"127.0.0.1:{port}"], 2)
        assert (other["name"], other["at"]) == ("other", [f"unix:{site.folder}/web.sock"])
        workers = main["workers"] + other["workers"]
        assert sorted(w["pid"] for w in workers) == sorted(daemon.workers())
        assert [w["slot"] for w in workers] == [0, 1, 2]
        assert {w["state"] for w in workers} == {"serving"}
        assert all(w["memory_bytes"] > 5 << 20 for w in workers)
        (busy,) = [w for w in workers if w["busy"]]
        assert re.match(r"GET /block.* from 127\.0\.0\.1$", busy["request"])
        assert 0 <= busy["request_age_s"] < DEADLINE_S
        assert workers[2]["requests"] == 3
        assert workers[2]["bytes"] > 3000
        held.let_go()
        assert asked.answer() == ""
        stop(daemon)


@pytest.mark.parametrize("command", ["status", "top"])
def test_the_table_has_a_line_for_each_worker(site, command):
    site.write(workers=2)
    with site.start() as daemon:
        answer = site.ask(command)
        assert (answer.returncode, answer.stderr) == (0, "")
        for pid in daemon.workers():
            assert re.search(rf"^\s*\d+\s+{pid}\s+1\s+serving", answer.stdout, re.MULTILINE), (
                answer.stdout
            )
        assert f"127.0.0.1:{daemon.port}" in answer.stdout
        stop(daemon)


def test_scale_blocks_until_it_is_true(site, tmp_path):
    gate = Gate(tmp_path)
    site.add_code("def wait(servers):\n    if os.path.exists('slow'):\n        block('gate')\n")
    site.write(workers=2, on_worker_start="app:wait", linger_timeout=0.1)
    with site.start() as daemon:
        (site.folder / "slow").touch()
        command = [COMMAND, "scale", site.config, "main", "3"]
        asking = subprocess.Popen(command, cwd=site.folder, stderr=subprocess.PIPE, text=True)
        with asking:
            wait_until(lambda: len(daemon.workers()) == 3)
            assert asking.poll() is None  # the third one is not READY
            gate.wait_for_somebody().let_go()
            assert (asking.communicate(timeout=DEADLINE_S)[1], asking.returncode) == ("", 0)
        (site.folder / "slow").unlink()
        assert [w["state"] for w in site.workers()] == ["serving"] * 3
        site.order("scale", "main", 1)
        assert [w["state"] for w in site.workers() if w["state"] == "serving"] == ["serving"]
        site.order("reload")
        assert site.status()["pools"][0]["wanted"] == 2  # the config's again
        stop(daemon)


def test_scaling_down_lets_requests_in_hand_end(site, tmp_path):
    gate = Gate(tmp_path)
    site.write(workers=2, threads=0)
    with site.start() as daemon:
        asked = []
        for n in (1, 2):  # the second is taken by the worker that is idle
            asked.append(Asking(daemon.port, gate.expression))
            wait_until(lambda n=n: sum(w["busy"] for w in site.workers()) == n)
        held = gate.wait_for_somebody()
        site.order("scale", "main", 1)
        held.let_go()
        assert [a.answer() for a in asked] == ["", ""]
        stop(daemon)


def test_kill_worker_ends_one_and_another_comes(site):
    site.write(workers=2)
    with site.start() as daemon:
        before = {w["slot"]: w["pid"] for w in site.workers()}
        site.order("kill-worker", 1)
        assert not is_alive(before[1])
        wait_until(lambda: len(daemon.workers()) == 2)
        after = {w["slot"]: w["pid"] for w in site.workers()}
        assert after[0] == before[0]
        assert before[1] not in after.values()
        stop(daemon)


def test_reopen_logs_goes_on_in_new_files(site):
    site.write(
        workers=2,
        access_log="common",
        access_log_path="access.log",
        master={"log": {"target": "./log"}},
    )
    with site.start() as daemon:
        port = int(site.status()["pools"][0]["at"][0].rpartition(":")[2])
        probe(port, "1")
        wait_until(lambda: "GET /1" in (site.folder / "access.log").read_text())
        for name in "access.log", "log":
            (site.folder / name).rename(site.folder / f"{name}.1")
        site.order("reopen-logs")
        for _ in range(20):  # by either worker
            probe(port, "2")
        stop(daemon)
    old, new = (site.folder / "access.log.1").read_text(), (site.folder / "access.log").read_text()
    assert (old.count("GET /1"), old.count("GET /2")) == (1, 0)
    assert (new.count("GET /1"), new.count("GET /2")) == (0, 20)
    assert "master.stopped" in (site.folder / "log").read_text()


def test_stop_returns_when_the_last_request_is_answered_and_the_master_gone(site, tmp_path):
    gate = Gate(tmp_path)
    site.write()
    with site.start() as daemon:
        asked = Asking(daemon.port, gate.expression)
        held = gate.wait_for_somebody()
        stopping = subprocess.Popen([COMMAND, "stop", site.config], stderr=subprocess.PIPE)
        with stopping:
            daemon.wait_notified("STOPPING=1")
            assert stopping.poll() is None
            held.let_go()
            assert asked.answer() == ""
            assert (stopping.wait(DEADLINE_S), stopping.stderr.read()) == (0, b"")
        assert daemon.wait() == 0
        assert not (site.folder / "control.sock").exists()


def test_stop_now_waits_for_nobody(site, tmp_path):
    gate = Gate(tmp_path)
    site.write()
    with site.start() as daemon:
        asked = Asking(daemon.port, gate.expression)
        held = gate.wait_for_somebody()
        site.order("stop", "--now")
        assert daemon.wait() == 0
        assert isinstance(asked.answer(), Exception)
        held.let_go()


def test_reload_moves_the_control_socket_with_its_key(site):
    site.write()
    with site.start() as daemon:
        site.write(master={"control": "./moved.sock"})
        site.which = ["--socket", site.folder / "control.sock"]
        site.order("reload")
        site.which = [site.config]
        assert site.told_status()["generation"] == 2
        assert (site.folder / "moved.sock").exists()
        assert not (site.folder / "control.sock").exists()
        site.write(master={"control": "off"})
        site.which = ["--socket", site.folder / "moved.sock"]
        site.order("reload")
        assert not (site.folder / "moved.sock").exists()
        assert site.ask("status").returncode == 1
        stop(daemon)


def test_without_a_path_the_control_socket_is_in_the_place_of_its_config(site):
    runtime = site.folder / "run"
    runtime.mkdir(0o700)
    name = f"prefork-test-{os.getpid()}"
    site.write()
    config = site.folder / f"{name}.toml"
    config.write_text(site.config.read_text().replace('control = "./control.sock"\n', ""))
    site.config, site.which = config, [config]
    with site.start(XDG_RUNTIME_DIR=str(runtime)) as daemon:
        answer = site.ask("status", "--json", env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)})
        assert json.loads(answer.stdout)["pid"] == daemon.pid, answer.stderr
        stop(daemon)
    shutil.rmtree(f"/run/prefork/{name}", ignore_errors=True)  # root's place; others have theirs


CANNOT = [
    (["scale", "main", "0"], 2, "N must be a number from 1 to 1024, not '0'"),
    (["scale", "main", "two"], 2, "N must be a number"),
    (["scale", "mian", "2"], 1, "there is no pool 'mian'; there are: main"),
    (["kill-worker", "7"], 1, "there is no worker in slot 7; there are: 0"),
    (["kill-worker", "x"], 2, "SLOT must be a number"),
    (["status", "--yaml"], 2, "unrecognized arguments: --yaml"),
    (["stop", "--socket", "s"], 2, "two masters"),
]


def test_what_cannot_be_meant_is_told(site):
    site.write()
    with site.start() as daemon:
        for words, status, reason in CANNOT:
            answer = site.ask(words[0], *words[1:])
            assert (answer.returncode, reason in answer.stderr) == (status, True), answer.stderr
            assert answer.stderr.startswith("prefork: error: ")
        stop(daemon)


def test_without_a_master_every_command_says_so(site):
    site.write()
    for words in ["status"], ["top"], ["reload"], ["stop"], ["reopen-logs"], ["scale", "main", "1"]:
        answer = site.ask(words[0], *words[1:])
        assert answer.returncode == 1
        assert str(site.folder / "control.sock") in answer.stderr


def test_a_second_master_is_refused_by_the_first_ones_control_socket(site):
    site.write()
    with site.start() as daemon:
        second = site.run(site.config)
        assert second.returncode == 1
        assert str(site.folder / "control.sock") in second.stderr
        assert site.status()["pid"] == daemon.pid
        stop(daemon)


def test_a_control_socket_that_a_dead_master_has_left_is_replaced(site):
    site.write()
    with site.start() as daemon:
        daemon.send(signal.SIGKILL)
        daemon.wait()
    assert (site.folder / "control.sock").is_socket()
    with site.start() as daemon:
        assert site.status()["pid"] == daemon.pid
        stop(daemon)


def test_a_failed_reload_is_degraded_until_one_succeeds(site):
    site.write()
    with site.start() as daemon:
        good = site.config.read_text()
        site.config.write_text(good.replace("app:Probe", "app:Prob"))
        answer = site.ask("reload")
        assert answer.returncode == 1
        assert "did you mean 'Probe'" in answer.stderr
        status = site.status()
        assert status["state"] == "degraded"
        assert status["reason"].removeprefix("reload failed: ") in answer.stderr
        site.config.write_text(good)
        site.order("reload")
        assert (site.status()["state"], site.status()["reason"]) == ("serving", None)
        stop(daemon)


def test_a_download_that_no_handler_has_any_more_is_in_hand(site, tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(100 << 20)
    options = {"directory": str(tmp_path)}
    site.write(handler="prefork.http:SimpleHTTPRequestHandler", workers=1, handler_options=options)
    with site.start() as daemon, socket.create_connection(("127.0.0.1", daemon.port)) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"
        (worker,) = site.workers()
        assert (worker["busy"], worker["request"]) == (1, "GET /large from 127.0.0.1")
        assert worker["bytes"] > 0
    # The client has gone, and with it the download.


def test_a_control_socket_whose_file_was_removed_is_back_after_a_reload(site):
    site.write()
    with site.start() as daemon:
        for _ in range(2):
            (site.folder / "control.sock").unlink()
            assert site.ask("status").returncode == 1
            daemon.send(signal.SIGHUP)
            wait_until((site.folder / "control.sock").is_socket)
            wait_until(lambda: site.ask("status").returncode == 0)
        stop(daemon)
