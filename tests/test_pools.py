"""Pools at work: how workers come and go by the config's keys, and what signals do to them."""

import contextlib
import itertools
import os
import re
import signal
import socket
from pathlib import Path

import pytest
from daemon_kit import Asking, Gate, Load, Site, connect, probe
from harness import COMMAND, DEADLINE_S, Daemon, children, wait_gone, wait_until


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def stop(daemon) -> None:
    assert daemon.stop() == 0


DEBUG = {"log": {"level": "debug", "repeat_burst": 1000}}


# -- workers that are replaced ---------------------------------------------------------


def test_after_max_requests_a_worker_is_replaced_before_it_goes_and_no_request_is_lost(site):
    site.write(max_requests=30, max_requests_jitter=0.5, master=DEBUG)
    with site.start() as daemon:
        with Load(daemon.port, clients=3) as load:
            daemon.log.wait_for("worker.died", count=4)
        assert load.faults == []
        text = daemon.log.text()
        gone = [int(pid) for pid in re.findall(r"worker\.died .*\bpid=(\d+)", text)]
        served = [load.answers.count(pid) for pid in gone]
        assert min(served) >= 15  # half of 30 more or less; more while its replacement starts
        order = re.findall(r"worker\.(expired|started|ready|ordered|died) slot=(\d+)", text)
        leaving = order.index(("expired", "0"))
        assert [what for what, _ in order[leaving : leaving + 4]] == [
            "expired",
            "started",
            "ready",
            "ordered",
        ]
        assert order[leaving + 3] == ("ordered", "0")
        stop(daemon)


def test_jitter_makes_workers_differ_and_none_makes_them_alike(site):
    site.write(max_requests=10, max_requests_jitter=0.0, threads=0)
    with site.start() as daemon:
        first = probe(daemon.port, "os.getpid()")
        served = [probe(daemon.port, "os.getpid()") for _ in range(9)]
        assert served == [first] * 9
        wait_gone(first)
        stop(daemon)


def test_a_worker_that_grows_above_max_memory_is_replaced(site):
    site.write(max_memory="200M")
    with site.start() as daemon:
        (before,) = daemon.workers()
        grow = "[sys.modules.setdefault('hog', b'x' * (220 << 20)), os.getpid()][1]"
        assert probe(daemon.port, grow) == before
        reason = daemon.log.wait_for(r"worker\.outlived .*reason=\"(\d+) MiB in memory\"")[1]
        assert int(reason) > 200
        wait_gone(before)
        assert probe(daemon.port, "os.getpid()") != before
        stop(daemon)


def test_a_worker_above_max_age_is_replaced(site):
    site.write(max_age=0.5)
    with site.start() as daemon:
        (before,) = daemon.workers()
        with Load(daemon.port, clients=1) as load:
            daemon.log.wait_for(r"worker\.outlived pool=main slot=0 .*s old")
            wait_gone(before)
        assert load.faults == []
        stop(daemon)


def test_a_pool_grows_while_its_handlers_block_and_shrinks_when_they_do_not(site, tmp_path):
    gate = Gate(tmp_path)
    site.write(workers={"min": 1, "max": 3, "spare": "1s"}, threads=0)
    with site.start() as daemon:
        assert len(daemon.workers()) == 1
        waiting = []
        for _ in range(3):
            waiting.append(Asking(daemon.port, gate.expression))
            wait_until(lambda: len(daemon.workers()) == min(3, len(waiting) + 1))
        grown = site.status()["pools"][0]
        assert grown["wanted"] == 3
        wait_until(lambda: sum(worker["busy"] for worker in site.workers()) == 3)
        gate.wait_for_somebody().let_go()  # one opening for all that wait
        assert [asked.answer() for asked in waiting] == ["", "", ""]
        wait_until(lambda: len(daemon.workers()) == 1)
        assert daemon.log.wait_for(r"pool\.scaled pool=main workers=1 before=2")
        stop(daemon)


def test_a_handler_that_shows_no_life_is_killed_with_its_stack_in_the_log(site):
    site.write(heartbeat_timeout=0.4, threads=0)
    site.add_code("def stuck_for_ever():\n    threading.Event().wait()\n")
    with site.start() as daemon:
        (before,) = daemon.workers()
        asked = Asking(daemon.port, "stuck_for_ever()")
        wait_gone(before)
        assert isinstance(asked.answer(), Exception)
        daemon.log.wait_for(rf'worker\.killed slot=0 pid={before} reason="stuck for \d\.\d s"')
        daemon.log.wait_for("in stuck_for_ever")
        wait_until(daemon.workers)
        assert probe(daemon.port, "os.getpid()") != before
        stop(daemon)


def test_with_heartbeat_timeout_off_a_silent_handler_is_let_be(site, tmp_path):
    gate = Gate(tmp_path)
    site.write(heartbeat_timeout="off", threads=0, pools={"watched": {"heartbeat_timeout": 0.3}})
    with site.start() as daemon:
        at = daemon.log.wait_for(r"\bat=(\S+)")[1].split(",")
        let_be, watched = (int(a.rpartition(":")[2]) for a in at)
        asked = Asking(let_be, gate.expression)
        held = gate.wait_for_somebody()
        Asking(watched, "threading.Event().wait()")
        daemon.log.wait_for("worker.killed slot=1")
        held.let_go()
        assert asked.answer() == ""
        stop(daemon)


SLOW_START = """
def block_at_start(servers):
    block("gate")
"""


def test_a_worker_that_does_not_get_ready_within_boot_timeout_is_killed(site, tmp_path):
    gate = Gate(tmp_path)
    site.add_code(SLOW_START)
    site.write(
        boot_timeout=0.5,
        backoff=0.05,
        on_worker_start="app:block_at_start",
    )
    with Daemon([COMMAND, site.config], site.folder) as daemon:
        daemon.log.wait_for("worker.killed slot=0 .*not finished in time")
        daemon.log.wait_for("in block_at_start")
        gate.stay_open()  # for the next, too: this one may be late
        daemon.wait_notified("READY=1")
        stop(daemon)


DIES = """
def die_twice(servers):
    with open("tries", "a") as file:
        print(time.monotonic(), file=file)
    if len(open("tries").readlines()) < 4:
        raise RuntimeError("no database")
"""


def test_a_worker_that_fails_to_start_is_tried_again_after_a_growing_pause(site):
    site.add_code(DIES)
    site.write(backoff=0.1, backoff_factor=100, backoff_max=0.2, on_worker_start="app:die_twice")
    with Daemon([COMMAND, site.config], site.folder) as daemon:
        daemon.wait_notified("READY=1")
        tries = [float(line) for line in (site.folder / "tries").read_text().split()]
        pauses = [after - before for before, after in itertools.pairwise(tries)]
        assert len(pauses) == 3
        assert pauses[0] >= 0.1
        assert pauses[1] >= 0.2
        assert pauses[2] >= 0.2  # not 1000: backoff_max
        daemon.log.wait_for("RuntimeError: no database", count=3)
        stop(daemon)


STUBBORN = """
def never_mind(servers):
    import faulthandler
    faulthandler.disable()
    signal.signal(signal.SIGABRT, signal.SIG_IGN)
"""


def test_one_that_outlives_sigabrt_is_killed_after_kill_timeout(site):
    site.add_code(STUBBORN)
    site.write(
        heartbeat_timeout=0.3,
        kill_timeout=0.1,
        threads=0,
        on_worker_start="app:never_mind",
        master=DEBUG,
    )
    with site.start() as daemon:
        Asking(daemon.port, "threading.Event().wait()")
        daemon.log.wait_for(r"worker\.died slot=0 .*SIGKILL")
        stop(daemon)


def test_a_graceful_end_takes_graceful_timeout_at_most(site, tmp_path):
    gate = Gate(tmp_path)
    site.write(master={"graceful_timeout": 0.3}, kill_timeout=0.1)
    with site.start() as daemon:
        asked = Asking(daemon.port, gate.expression)
        held = gate.wait_for_somebody()
        stop(daemon)
        assert isinstance(asked.answer(), Exception)
        daemon.log.wait_for(r"worker\.killed .*not finished in time")
        held.let_go()


def test_a_replaced_worker_has_retire_timeout_for_what_is_in_its_hands(site, tmp_path):
    gate = Gate(tmp_path)
    site.write(retire_timeout=0.3, kill_timeout=0.1, heartbeat_timeout="off")
    with site.start() as daemon:
        (before,) = daemon.workers()
        asked = Asking(daemon.port, gate.expression)
        held = gate.wait_for_somebody()
        site.order("reload")
        wait_gone(before)
        assert isinstance(asked.answer(), Exception)
        assert probe(daemon.port, "1") == 1
        held.let_go()
        stop(daemon)


def test_idle_clients_have_linger_timeout_when_their_worker_goes(site):
    site.write(linger_timeout=0.2, pools={"patient": {"linger_timeout": "30s"}})
    with site.start() as daemon, contextlib.ExitStack() as stack:
        at = [int(a.rpartition(":")[2]) for a in daemon.log.wait_for(r"\bat=(\S+)")[1].split(",")]
        clients = []
        for port in at:
            client = stack.enter_context(contextlib.closing(connect(port)))
            client.request("GET", "/1")
            assert client.getresponse().read() == b"1"
            clients.append(client)
        daemon.send(signal.SIGTERM)
        assert clients[0].sock.recv(1) == b""
        clients[1].request("GET", "/2")
        answer = clients[1].getresponse()
        assert (answer.read(), answer.headers["Connection"]) == (b"2", "close")
        assert daemon.wait() == 0


def test_settle_time_decides_when_a_ready_worker_has_its_slots_failures_forgiven(site):
    site.write(settle_time=3600, backoff="1h", backoff_max="1h")
    with site.start() as daemon:
        for _ in range(2):
            (pid,) = daemon.workers()
            os.kill(pid, signal.SIGKILL)
            wait_gone(pid)
            daemon.log.wait_for(rf"worker\.died .*pid={pid}")
            if _ == 0:
                wait_until(daemon.workers)  # the first one is not waited for
                probe(daemon.port, "1")
        assert site.workers() == []  # the second one is, for an hour
        assert daemon.stop(signal.SIGTERM) == 0


# -- signals -------------------------------------------------------------------------------


def test_term_answers_what_is_in_hand_and_in_the_queue(site, tmp_path):
    gate = Gate(tmp_path)
    site.write(threads=0)
    with site.start() as daemon, contextlib.ExitStack() as stack:
        first = Asking(daemon.port, gate.expression)
        held = gate.wait_for_somebody()
        queued = []
        for number in range(3):
            client = socket.create_connection(("127.0.0.1", daemon.port), DEADLINE_S)
            queued.append(stack.enter_context(client))
            client.sendall(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
        daemon.send(signal.SIGTERM)
        daemon.wait_notified("STOPPING=1")
        held.let_go()
        assert first.answer() == ""
        for number, client in enumerate(queued):
            assert client.recv(65536).endswith(b"\r\n\r\n%d" % number)
        assert daemon.wait() == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGQUIT])
def test_int_and_quit_end_at_once(site, tmp_path, signum):
    gate = Gate(tmp_path)
    site.write()
    with site.start() as daemon:
        asked = Asking(daemon.port, gate.expression)
        held = gate.wait_for_somebody()
        daemon.send(signum)
        assert daemon.wait() == 0
        assert isinstance(asked.answer(), Exception)
        held.let_go()


def test_ttin_and_ttou_change_each_pool_by_one_worker_but_leave_one(site):
    site.write(workers=1, pools={"other": {"workers": 2}})
    with site.start() as daemon:

        def wanted():
            return [pool["wanted"] for pool in site.status()["pools"]]

        daemon.send(signal.SIGTTIN)
        wait_until(lambda: len(daemon.workers()) == 5)
        wait_until(lambda: wanted() == [2, 3])  # a status is given again for a moment
        for workers in 3, 2, 2:
            daemon.send(signal.SIGTTOU)
            wait_until(lambda n=workers: len(daemon.workers()) == n)
        wait_until(lambda: wanted() == [1, 1])
        stop(daemon)


def test_winch_lets_all_workers_go_and_ttin_brings_one_back(site):
    site.write(workers=2)
    with site.start() as daemon:
        daemon.send(signal.SIGWINCH)
        wait_until(lambda: not daemon.workers())
        asked = Asking(daemon.port, "7")  # it waits in the queue, which the master holds
        daemon.send(signal.SIGTTIN)
        assert asked.answer() == 7
        assert len(daemon.workers()) == 1
        stop(daemon)


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGUSR2])
def test_hup_and_usr2_reload_the_config(site, signum):
    site.write(workers=1)
    with site.start() as daemon:
        site.write(workers=2)
        daemon.send(signum)
        daemon.log.wait_for("reload.done generation=2")
        serving = [w for w in site.workers() if w["state"] == "serving"]
        assert [w["generation"] for w in serving] == [2, 2]
        stop(daemon)


def test_usr1_reopens_the_logs(site):
    site.write(
        access_log="common", access_log_path="access.log", master={"log": {"target": "./log"}}
    )
    access, log = site.folder / "access.log", site.folder / "log"
    with site.start() as daemon:
        port = int(re.search(r"at=127\.0\.0\.1:(\d+)", log.read_text())[1])
        probe(port, "1")
        wait_until(lambda: "GET /1" in access.read_text())
        access.rename(site.folder / "access.1")
        log.rename(site.folder / "log.1")
        daemon.send(signal.SIGUSR1)
        wait_until(lambda: log.exists() and "log.reopened files=2 problems=0" in log.read_text())
        probe(port, "2")
        stop(daemon)
        assert "GET /1" in (site.folder / "access.1").read_text()
        assert "GET /2" not in (site.folder / "access.1").read_text()
        assert "GET /2" in access.read_text()
        assert "master.stopped" in log.read_text()


def test_signals_to_the_whole_group_do_to_workers_only_what_the_master_says(site):
    site.write(workers=2)
    with site.start() as daemon:
        before = daemon.workers()
        for signum in (signal.SIGUSR1, signal.SIGTTIN):
            os.killpg(daemon.pid, signum)
        wait_until(lambda: len(daemon.workers()) == 3)
        assert set(before) <= set(daemon.workers())
        os.killpg(daemon.pid, signal.SIGTERM)
        assert daemon.wait() == 0
        assert not re.search(r"worker\.died .*cause=SIG", daemon.log.text())


def test_a_worker_that_is_asked_to_go_is_replaced(site):
    site.write()
    with site.start() as daemon:
        (before,) = daemon.workers()
        os.kill(before, signal.SIGTERM)
        wait_gone(before)
        wait_until(lambda: daemon.workers() not in ([], [before]))
        assert probe(daemon.port, "os.getpid()") != before
        stop(daemon)


# -- PID 1 ------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes PID namespaces")
def test_as_pid_1_it_reaps_strangers(site):
    site.write()
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", COMMAND, site.config]
    with Daemon(command, site.folder) as daemon:
        daemon.wait_notified("READY=1")
        port = int(daemon.log.wait_for(r"master\.listening pid=1 at=127\.0\.0\.1:(\d+)")[1])
        assert probe(port, "os.getppid()") == 1
        # A grandchild whose parent ends is PID 1's from then on; it ends, and is no zombie.
        orphan = (
            "__import__('subprocess').check_output("
            "['sh', '-c', 'sleep 0.01 >/dev/null & echo $!'], text=True)"
        )
        strangers = [int(probe(port, orphan)) for _ in range(3)]
        there = f"[n for n in {strangers} if os.path.exists(f'/proc/{{n}}')]"
        wait_until(lambda: probe(port, there) == [])
        (master,) = children(daemon.pid)
        os.kill(master, signal.SIGTERM)
        assert daemon.wait() == 0


# -- several pools -----------------------------------------------------------------------------


def listening_inode(port: int) -> str:
    """Return the number of the socket that listens on a port of IPv4."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return next(w[9] for w in lines if w[1].endswith(f":{port:04X}") and w[3] == "0A")


def test_pools_are_apart_and_included_files_add_to_them(site):
    (site.folder / "conf.d").mkdir()
    (site.folder / "conf.d/20-more.toml").write_text(
        '[server.more]\nbind = ["127.0.0.1:0"]\nhandler = "app:Probe"\npath = [".."]\n'
        'workers = 1\nenvironment = { WHO = "more" }\n'
    )
    site.write(workers=2, environment={"WHO": "main"})
    site.config.write_text('include = ["conf.d/*.toml"]\n' + site.config.read_text())
    with site.start() as daemon:
        at = [int(a.rpartition(":")[2]) for a in daemon.log.wait_for(r"\bat=(\S+)")[1].split(",")]
        assert [probe(port, "os.environ['WHO']") for port in at] == ["main", "more"]
        pools = site.status()["pools"]
        assert [(p["name"], p["at"], len(p["workers"])) for p in pools] == [
            ("main", [f"127.0.0.1:{at[0]}"], 2),
            ("more", [f"127.0.0.1:{at[1]}"], 1),
        ]
        pid = pools[1]["workers"][0]["pid"]
        assert probe(at[1], "os.getpid()") == pid
        held = []
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # that of the request before
                held.append(str(path.readlink()))
        inode = listening_inode(int(at[0]))
        assert f"socket:[{inode}]" not in held  # the other pool's is closed
        stop(daemon)


def test_one_address_for_two_pools_is_a_mistake_of_the_config(site):
    pools = {"echo": {"handler": "app:Echo", "bind": ["127.0.0.1:18000"]}}
    site.add_code(
        "import socketserver\n\n\nclass Echo(socketserver.DatagramRequestHandler):\n"
        "    def handle(self):\n        self.wfile.write(self.rfile.read())\n"
    )
    site.write(bind=["127.0.0.1:18000"], pools=pools | {"other": {"bind": ["127.0.0.1:18000"]}})
    answer = site.ask("check")
    assert (answer.returncode, answer.stderr.count("\n")) == (1, 1)
    assert answer.stderr.endswith(
        "site.toml: server.other.bind: 127.0.0.1:18000 is that of server.main, too\n"
    )
    for port in 18000, 0:
        site.write(bind=[f"127.0.0.1:{port}"], pools=pools if port else {"other": {}})
        assert site.ask("check").returncode == 0
