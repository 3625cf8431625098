"""The pidfile: who holds it, who is refused, and what is left of it."""

import fcntl
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import wait_gone

from prefork.errors import StartError
from prefork.pidfile import Pidfile

HOLD = """
import os, sys
from prefork.pidfile import Pidfile
pidfile = Pidfile.create(sys.argv[1])
{then}
print(os.getpid(), flush=True)
sys.stdin.read()
"""


@contextmanager
def another(path, then=""):
    """A process that holds path until its stdin is closed."""
    command = [sys.executable, "-c", HOLD.format(then=then), str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            process.ready = process.stdout.readline()
            yield process
        finally:
            process.kill()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "server.pid"


def test_it_holds_the_number_of_its_process_for_all_to_read(path):
    old = os.umask(0o077)
    try:
        pidfile = Pidfile.create(path)
    finally:
        os.umask(old)
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert not os.get_inheritable(pidfile.fd)
    pidfile.remove()
    assert names(path.parent) == []
    pidfile.remove()  # nothing is left to do


def test_a_running_one_is_refused_by_name_and_number(path):
    with another(path) as process:
        with pytest.raises(StartError) as caught:
            Pidfile.create(path)
        name = Path(f"/proc/{process.pid}/comm").read_text().strip()
    assert (
        str(caught.value)
        == f"{path}: {name} is running with that pidfile, PID {process.pid}; stop it first"
    )
    assert names(path.parent) == ["server.pid"]


def test_that_of_a_killed_one_is_replaced(path):
    with another(path) as process:
        process.kill()
        process.wait()
        assert path.read_text() == f"{process.pid}\n"
        pidfile = Pidfile.create(path)
    assert path.read_text() == f"{os.getpid()}\n"
    pidfile.remove()


@pytest.mark.parametrize("text", ["", "1\n", "no number\n", "99999999999999999999\n"])
def test_one_that_nobody_holds_is_replaced_whatever_it_says(path, text):
    path.write_text(text)
    Pidfile.create(path).remove()
    assert not path.exists()


def test_children_do_not_hold_it_for_a_dead_master(path):
    fork = """
ready, tell = os.pipe()
if os.fork() == 0:
    os.write(tell, b"!")
    sys.stdin.read()
    os._exit(0)
os.read(ready, 1)
"""
    with another(path, fork) as process:
        assert process.ready
        process.kill()
        process.wait()
        Pidfile.create(path).remove()


def test_a_child_that_removes_it_removes_nothing(path):
    child = """
if os.fork() == 0:
    pidfile.remove()
    os._exit(0)
os.wait()
"""
    with another(path, child) as process:
        assert process.ready
        assert path.read_text() == f"{process.pid}\n"


def test_it_is_held_through_execve(path):
    again = """
os.set_inheritable(pidfile.fd, True)
code = '''
import sys
from prefork.pidfile import Pidfile
pidfile = Pidfile.adopt(sys.argv[1], int(sys.argv[2]))
print("adopted", flush=True)
sys.stdin.readline()
pidfile.remove()
print("removed", flush=True)
'''
os.execv(sys.executable, [sys.executable, "-c", code, sys.argv[1], str(pidfile.fd)])
"""
    with another(path, again) as process:
        assert process.ready == "adopted\n"
        with pytest.raises(StartError, match=f"PID {process.pid};"):
            Pidfile.create(path)
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "removed\n"
        assert not path.exists()


def test_a_descriptor_that_is_not_open_cannot_be_adopted(path):
    with pytest.raises(StartError, match=r"server.pid: Bad file descriptor$"):
        Pidfile.adopt(path, 1023)


def test_anothers_that_came_in_its_place_stays(path):
    pidfile = Pidfile.create(path)
    path.unlink()
    other = Pidfile.create(path)
    pidfile.remove()
    assert path.exists()
    other.remove()
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_one_that_may_not_be_removed_any_more_is_left_empty(path):
    drop = "os.setuid(65534); pidfile.remove()"
    with another(path, drop) as process:
        assert process.ready
        assert path.read_text() == ""
        Pidfile.create(path).remove()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("none/server.pid", "No such file or directory"),
        ("folder", "Is a directory"),
        ("link", "Too many levels of symbolic links"),
    ],
)
def test_a_place_where_none_can_be_is_refused(tmp_path, name, why):
    (tmp_path / "folder").mkdir()
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "link").symlink_to("victim")
    with pytest.raises(StartError) as caught:
        Pidfile.create(tmp_path / name)
    assert str(caught.value) == f"cannot write {tmp_path / name}: {why}"
    assert (tmp_path / "victim").read_text() == "precious"
    assert names(tmp_path) == ["folder", "link", "victim"]


def test_of_many_that_find_a_stale_one_exactly_one_gets_it(path):
    path.write_text("1\n")
    command = [sys.executable, "-c", HOLD.format(then=""), str(path)]
    many = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        for _ in range(8)
    ]
    said = [process.stdout.readline() for process in many]
    winners = [line for line in said if line]
    assert len(winners) == 1
    assert path.read_text().encode() == winners[0]
    assert names(path.parent) == ["server.pid"]
    for process in many:
        process.kill()
        process.communicate()


def test_its_lock_is_the_one_that_flock_knows(path):
    with another(path) as process:
        with path.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process.stdin.close()
        wait_gone(process.pid)
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
