"""A daemon that root starts: what its master and workers are allowed, and whose its files are."""

import contextlib
import grp
import os
import pwd
import re
import shlex
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from daemon_kit import Mode, Site, fetch, for_everybody, probe
from harness import COMMAND, DEADLINE_S, Daemon, free_port, wait_gone, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

NOBODY = pwd.getpwnam("nobody")
OTHERS = grp.getgrnam("daemon").gr_gid
MAIL = pwd.getpwnam("mail")
LOW = range(600, 1024)  # ports that only root may bind


@pytest.fixture
def site():
    """A folder that everybody may enter: pytest's own are root's alone."""
    with tempfile.TemporaryDirectory(prefix="prefork-test-") as folder:
        Path(folder).chmod(0o755)
        yield Site(Path(folder))


def stop(daemon) -> None:
    assert daemon.stop() == 0


def status(pid: int, name: str) -> list[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1:] for line in lines if line.startswith(name + ":"))


@contextlib.contextmanager
def start_for_everybody(site):
    """Start it where a master that has dropped its rights can execute itself again."""
    command = for_everybody(f"exec {COMMAND} {site.config}", site.folder)
    with Daemon(command, site.folder) as daemon:
        daemon.wait_notified("READY=1")
        yield daemon


def run_as(site, groups: str, *words: object) -> subprocess.CompletedProcess:
    """Run a command of prefork as nobody."""
    scratch = Path(tempfile.mkdtemp(dir=site.folder))
    who = f"--reuid={NOBODY.pw_uid} --regid={NOBODY.pw_gid} {groups}"
    script = f"exec setpriv {who} {shlex.join(map(str, [COMMAND, *words]))}"
    return subprocess.run(
        for_everybody(script, scratch),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        cwd="/",
    )


def ids(uid: int) -> list[str]:
    return [str(uid)] * 4  # real, effective, saved, of files


def test_workers_are_the_pools_user_for_good_and_the_master_stays_root(site):
    site.write(user="nobody", pools={"mail": {"user": "mail", "group": "daemon"}, "root": {}})
    with site.start() as daemon:
        nobody, mail, root = (p["workers"][0]["pid"] for p in site.status()["pools"])
        assert status(daemon.pid, "Uid") == ids(0)
        assert status(root, "Uid") == ids(0)
        assert status(nobody, "Uid") == ids(NOBODY.pw_uid)
        assert status(nobody, "Gid") == ids(NOBODY.pw_gid)
        groups = sorted(map(str, os.getgrouplist("nobody", NOBODY.pw_gid)))
        assert sorted(status(nobody, "Groups")) == groups
        assert status(mail, "Uid") == ids(MAIL.pw_uid)
        assert status(mail, "Gid") == ids(OTHERS)
        for pid in nobody, mail:
            for capabilities in "CapEff", "CapPrm", "CapInh", "CapAmb":
                assert int(status(pid, capabilities)[0], 16) == 0
        port = daemon.port
        assert probe(port, "[os.environ['USER'], os.environ['HOME']]") == ["nobody", NOBODY.pw_dir]
        stop(daemon)


def test_supplementary_groups_are_those_of_the_user(site, tmp_path):
    # No user of a plain system is in several groups: one more user, in a namespace of mounts.
    passwd, group = tmp_path / "passwd", tmp_path / "group"
    entry = "tester:x:4242:4242::/nonexistent:/bin/false\n"
    passwd.write_text(Path("/etc/passwd").read_text() + entry)
    groups = "tester:x:4242:\nfirst:x:4243:tester\nsecond:x:4244:tester\n"
    group.write_text(Path("/etc/group").read_text() + groups)
    site.write(user="tester")
    script = (
        f"mount --bind {passwd} /etc/passwd && mount --bind {group} /etc/group"
        f" && exec {COMMAND} {site.config}"
    )
    with Daemon(["unshare", "--mount", "sh", "-c", script], site.folder) as daemon:
        daemon.wait_notified("READY=1")
        (worker,) = daemon.workers()
        assert status(worker, "Groups") == ["4242", "4243", "4244"]
        stop(daemon)


def test_the_master_drops_when_all_is_open_and_reloads_what_it_then_can(site):
    port = free_port(LOW)
    site.write(
        bind=[f"127.0.0.1:{port}", "unix:web.sock"],
        master={"user": "nobody", "pidfile": "pid", "log": {"target": "./log"}},
    )
    with start_for_everybody(site) as daemon:
        assert status(daemon.pid, "Uid") == ids(NOBODY.pw_uid)
        (worker,) = daemon.workers()
        assert status(worker, "Uid") == ids(NOBODY.pw_uid)
        assert probe(port, "os.getuid()") == NOBODY.pw_uid
        assert status(daemon.pid, "NoNewPrivs") == ["1"]
        site.order("reload")  # the port and the log are handed over, for nobody could open them
        wait_gone(worker)
        assert probe(port, "1") == 1
        stop(daemon)
    assert "reload.done generation=2" in (site.folder / "log").read_text()


def test_low_ports_are_bound_before_rights_are_dropped_and_not_after(site):
    low = free_port(LOW)
    site.write(bind=[f"127.0.0.1:{low}"], user="nobody")
    with site.start() as daemon:
        assert probe(low, "os.getuid()") == NOBODY.pw_uid
        attempt = f"[s := socket.socket(), s.connect_ex(('127.0.0.1', {low})), s.close()][1]"
        assert probe(low, attempt) == 0
        stop(daemon)
    site.write(bind=["127.0.0.1:0"], master={"user": "nobody"})
    with start_for_everybody(site) as daemon:
        port = int(daemon.log.wait_for(r"at=127\.0\.0\.1:(\d+)")[1])
        site.write(bind=["127.0.0.1:0", f"127.0.0.1:{low}"], master={"user": "nobody"})
        answer = site.ask("reload")
        assert answer.returncode == 1
        assert "ports below 1024 need privileges" in answer.stderr
        assert probe(port, "1") == 1
        stop(daemon)


def test_unix_sockets_have_their_owner_group_and_mode(site):
    site.write(
        bind=[
            "unix:usual.sock",
            {"address": "unix:own.sock", "owner": "mail", "group": "daemon", "mode": Mode(0o640)},
        ],
        user="nobody",
    )
    with site.start() as daemon:

        def whose(name):
            found = (site.folder / name).stat()
            return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)

        assert whose("usual.sock") == (NOBODY.pw_uid, NOBODY.pw_gid, 0o660)
        assert whose("own.sock") == (MAIL.pw_uid, OTHERS, 0o640)
        assert probe(str(site.folder / "own.sock"), "os.getuid()") == NOBODY.pw_uid
        stop(daemon)
    assert not (site.folder / "own.sock").exists()


@pytest.mark.parametrize("preload", [True])
def test_workers_are_locked_in_their_chroot(site, preload):
    (site.folder / "jail").mkdir()
    (site.folder / "jail/inside").write_text("here")
    site.write(chroot="jail", user="nobody", preload=preload)
    with site.start() as daemon:
        assert probe(daemon.port, "os.listdir('/')") == ["inside"]
        assert probe(daemon.port, "os.getcwd()") == "/"
        assert probe(daemon.port, "os.path.exists('/etc/passwd')") is False
        stop(daemon)


def test_a_folder_is_shared_from_within_its_chroot(site):
    (site.folder / "jail/pub").mkdir(parents=True)
    (site.folder / "jail/pub/file.txt").write_text("shared")
    (site.folder / "jail/pub/out").symlink_to("/etc/passwd")
    site.write(
        handler="prefork.http:SimpleHTTPRequestHandler",
        handler_options={"directory": "/pub"},
        chroot="jail",
        user="nobody",
    )
    with site.start() as daemon:
        assert fetch(daemon.port, "/file.txt")[2] == b"shared"
        assert fetch(daemon.port, "/out")[0] == 404
        stop(daemon)


def test_a_chroot_that_is_not_there_is_told(site):
    site.write(chroot="nowhere")
    answer = site.run(site.config)
    assert answer.returncode == 1
    assert answer.stderr == (
        f"prefork: error: server.main: cannot chroot to {site.folder}/nowhere:"
        " No such file or directory\n"
    )


@pytest.mark.parametrize(
    ("where", "keys", "reason"),
    [
        ("server.main.user", {"user": "nobdy"}, "this system has no user 'nobdy'; did you mean"),
        ("server.main.user", {"group": "nogrup"}, "this system has no group 'nogrup'; did you"),
        ("master.user", {"master": {"user": "nobdy"}}, "this system has no user 'nobdy'"),
        ("master.control_group", {"master": {"control_group": "x-y-z"}}, "has no group 'x-y-z'"),
    ],
)
def test_an_unknown_user_or_group_is_an_error_at_a_check_and_a_start(site, where, keys, reason):
    site.write(**keys)
    answer = site.run("check", site.config)
    assert answer.returncode == 1
    assert f"{where}: " in answer.stderr
    assert reason in answer.stderr
    started = site.run(site.config)
    assert (started.returncode, started.stderr) == (1, answer.stderr)


def test_the_control_socket_is_its_owners_and_its_groups_if_they_are_named(site):
    site.write()
    with site.start() as daemon:
        found = (site.folder / "control.sock").stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o600)
        answer = run_as(site, "--clear-groups", "status", site.config)
        assert answer.returncode == 1
        assert re.search("control.sock.*ermission", answer.stderr), answer.stderr
        stop(daemon)
    site.write(master={"control_mode": Mode(0o660), "control_group": "daemon"})
    with site.start() as daemon:
        found = (site.folder / "control.sock").stat()
        assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (OTHERS, 0o660)
        assert run_as(site, "--clear-groups", "status", site.config).returncode == 1
        assert run_as(site, f"--groups={OTHERS}", "status", site.config).returncode == 0
        stop(daemon)


@pytest.mark.parametrize("whose", ["master", "pool"])
def test_logs_are_reopened_after_rights_were_dropped(site, whose):
    logs = site.folder / "logs"
    logs.mkdir()
    user = {"user": "nobody"}
    if whose == "master":
        os.chown(logs, NOBODY.pw_uid, NOBODY.pw_gid)  # or it could make no file there again
    site.write(
        access_log="common",
        access_log_path="logs/access.log",
        master={"log": {"target": "logs/log"}} | (user if whose == "master" else {}),
        **(user if whose == "pool" else {}),
    )
    with site.start() as daemon:
        at = re.search(r"at=127\.0\.0\.1:(\d+)", (logs / "log").read_text())[1]
        probe(int(at), "1")
        wait_until(lambda: "GET /1" in (logs / "access.log").read_text())
        (logs / "access.log").rename(logs / "access.1")
        (logs / "log").rename(logs / "log.1")
        site.order("reopen-logs")
        probe(int(at), "2")
        stop(daemon)
    assert "GET /1" in (logs / "access.1").read_text()
    assert "GET /2" in (logs / "access.log").read_text()
    assert "master.stopped" in (logs / "log").read_text()
    assert "master.stopped" not in (logs / "log.1").read_text()
    owner = NOBODY.pw_uid
    assert (logs / "access.log").stat().st_uid == owner


def test_a_log_that_cannot_be_reopened_is_told_and_goes_on_in_the_old_file(site):
    logs = site.folder / "logs"
    logs.mkdir()
    site.write(master={"user": "nobody", "log": {"target": "logs/log"}})
    with site.start() as daemon:
        (logs / "log").rename(logs / "log.1")
        answer = site.ask("reopen-logs")
        assert answer.returncode == 1
        assert answer.stderr == (
            f"prefork: error: cannot reopen {logs}/log: Permission denied (as user nobody)\n"
        )
        stop(daemon)
    assert "master.stopped" in (logs / "log.1").read_text()


def test_who_is_not_root_is_told_that_only_root_may(site):
    site.write(user="mail", master={"control": "off"})
    answer = run_as(site, "--clear-groups", site.config)
    assert answer.returncode == 1
    assert "only root may" in answer.stderr


@pytest.mark.parametrize("keys", [{"user": "mail"}, {"group": "daemon"}, {"chroot": "."}])
def test_what_a_master_that_is_not_root_any_more_cannot_give_is_a_mistake_of_the_config(site, keys):
    site.write(master={"user": "nobody"}, **keys)
    for answer in site.ask("check"), site.run(site.config):
        assert answer.returncode != 0
        assert "site.toml: server.main.user: the master becomes nobody" in answer.stderr
        assert "leave master.user out" in answer.stderr
    site.write(master={"user": "nobody"}, user="nobody")
    assert site.ask("check").returncode == 0


def test_sockets_and_logs_of_a_pool_belong_to_whom_the_master_becomes(site):
    site.write(
        bind=["unix:web.sock"],
        master={"user": "nobody", "group": "daemon"},
        access_log="common",
        access_log_path="./access.log",
    )
    with start_for_everybody(site) as daemon:
        for name in "web.sock", "access.log":
            found = (site.folder / name).stat()
            assert (found.st_uid, found.st_gid) == (NOBODY.pw_uid, OTHERS), name
        site.order("reload")
        stop(daemon)
