"""What is told to systemd and taken over from it; the real one is in test_systemd.py."""

import array
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prefork import systemd

HAND_OVER = """
import json, os, sys
given, for_pid = json.loads(sys.argv[1])
for number, copy in enumerate([os.dup2(fd, 100 + fd) for fd in given], 3):
    os.dup2(copy, number)
os.environ["LISTEN_PID"] = str(os.getpid()) if for_pid is None else for_pid
"""

TAKE = """
from prefork import systemd
from prefork.errors import PreforkError
try:
    found = systemd.inherited(os.environ)
except PreforkError as error:
    print(json.dumps(str(error)))
else:
    told = [
        [name, one.fileno(), one.family.name, one.type.name, os.get_inheritable(one.fileno())]
        for name, one in found
    ]
    left = [name for name in os.environ if name.startswith("LISTEN_")]
    print(json.dumps([told, left, systemd.inherited(os.environ)]))
"""


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """A socket at which a service manager would listen, told of in the environment."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def take(fds, for_pid=None, count=None, names=None):
    """Return what a program finds that has these descriptors from 3 on, as systemd starts it."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("LISTEN_")}
    env["LISTEN_FDS"] = str(len(fds) if count is None else count)
    if names is not None:
        env["LISTEN_FDNAMES"] = names
    given = json.dumps([fds, for_pid])
    command = [sys.executable, "-c", HAND_OVER + TAKE, given]
    done = subprocess.run(
        command, env=env, pass_fds=fds, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_nothing_is_told_where_no_manager_listens(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert systemd.notify("READY=1") is False


def test_a_manager_that_has_gone_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert systemd.notify("READY=1") is False


def test_a_manager_in_the_abstract_namespace_is_told(monkeypatch):
    name = f"prefork-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        assert systemd.notify("READY=1") is True
        assert listening.recv(4096) == b"READY=1"


@pytest.mark.parametrize(
    ("tell", "told"),
    [
        (lambda: systemd.ready("2 workers"), "READY=1\nSTATUS=2 workers"),
        (lambda: systemd.stopping("draining"), "STOPPING=1\nSTATUS=draining"),
        (lambda: systemd.status("1 of 2 busy"), "STATUS=1 of 2 busy"),
        (systemd.alive, "WATCHDOG=1"),
        (lambda: systemd.main_pid(42), "MAINPID=42"),
        (lambda: systemd.extend_timeout(1.5), "EXTEND_TIMEOUT_USEC=1500000"),
        (lambda: systemd.remove_from_store("web"), "FDSTOREREMOVE=1\nFDNAME=web"),
    ],
)
def test_each_state_is_one_datagram(manager, tell, told):
    assert tell() is True
    assert manager.recv(4096).decode() == told


def test_a_reload_and_its_time_are_one_datagram(manager):
    before_us = time.monotonic_ns() // 1000
    systemd.reloading()
    first, second = manager.recv(4096).decode().split("\n")
    name, _, told_us = second.partition("=")
    assert first == "RELOADING=1"
    assert name == "MONOTONIC_USEC"
    assert before_us <= int(told_us) <= time.monotonic_ns() // 1000


def test_a_status_of_several_lines_cannot_say_anything_else(manager):
    systemd.status("bad config:\nREADY=1\tor \udcff")
    assert manager.recv(4096) == b"STATUS=bad config:\\x0aREADY=1\\x09or \\xff"


def test_a_long_status_is_cut_between_two_characters(manager):
    systemd.status("x" + "\N{SNOWMAN}" * 3000)
    told = manager.recv(65536)
    assert len(told) < 4096
    assert set(told.decode().removeprefix("STATUS=x")) == {"\N{SNOWMAN}"}


def test_a_stored_descriptor_goes_along_and_is_kept_whatever_poll_says(manager):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert systemd.store(listener.fileno(), "web 1") is True
        said, fds, _, _ = socket.recv_fds(manager, 4096, 8)
        with socket.socket(fileno=fds[0]) as same:
            assert same.getsockname() == listener.getsockname()
    assert said == b"FDSTORE=1\nFDNAME=web 1\nFDPOLL=0"
    assert len(fds) == 1


@pytest.mark.parametrize("name", ["", "a:b", "a\nb", "\N{SNOWMAN}", "x" * 256])
def test_a_name_that_systemd_would_not_take_is_refused(manager, name):
    with pytest.raises(ValueError, match="printable ASCII"):
        systemd.store(0, name)
    with pytest.raises(ValueError, match="printable ASCII"):
        systemd.remove_from_store(name)
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(1)


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_it_asks(environ, interval_s):
    given = dict(environ)
    assert systemd.watchdog_interval_s(environ) == interval_s
    assert environ == given


def test_sockets_are_taken_over_with_names_and_nobody_else_gets_them():
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
    ):
        fds = [tcp.fileno(), datagrams.fileno()]
        taken, left, again = take(fds, names="web:log 2")
    assert taken == [
        ["web", 3, "AF_INET", "SOCK_STREAM", False],
        ["log 2", 4, "AF_UNIX", "SOCK_DGRAM", False],
    ]
    assert left == []
    assert again == []


@pytest.mark.parametrize("names", [None, "", "web", "a:b:c"])
def test_sockets_with_too_few_or_too_many_names_have_none(names):
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        taken, _, _ = take([one.fileno(), two.fileno()], names=names)
    assert [name for name, *_ in taken] == ["unknown", "unknown"]


@pytest.mark.parametrize(("for_pid", "count"), [("1", 1), ("", 1), (None, "x")])
def test_sockets_that_are_not_for_this_process_are_left_alone(for_pid, count):
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        assert take([tcp.fileno()], for_pid, count) == [[], [], []]


def test_what_is_no_socket_is_refused_by_name():
    with Path(os.devnull).open() as file:
        said = take([file.fileno()], names="web")
    assert said == (
        "systemd handed over 'web' as file descriptor 3, which is no socket:"
        " look at Sockets= and the socket units of this service"
    )


def test_a_descriptor_that_is_not_there_is_refused():
    assert "file descriptor 3, which is no socket" in take([], count=1)


def test_no_descriptors_are_sent_with_a_plain_word(manager):
    systemd.notify("READY=1")
    room = socket.CMSG_SPACE(8 * array.array("i").itemsize)
    _, ancillary, _, _ = manager.recvmsg(4096, room)
    assert [data for _, _, data in ancillary] in ([], [b""])
