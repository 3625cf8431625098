"""Daemons without a service manager: what the caller waits for, and what it learns."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import pytest
from harness import DEADLINE_S, is_alive, wait_gone

PRELUDE = """
import os, socket, sys
from prefork.detach import Detached, detach
from prefork.errors import StartError
from prefork.pidfile import Pidfile
channel = socket.socket(fileno=int(sys.argv[1]))
channel.set_inheritable(False)
def tell(*what):
    channel.sendall((" ".join(map(str, what)) + "\\n").encode())
"""


class Start:
    """A program that detaches: the process that was called, and a channel from its daemon."""

    def __init__(self, source, cwd, **options):
        ours, theirs = socket.socketpair()
        ours.settimeout(DEADLINE_S)
        self.said = ours.makefile()
        self.channel = ours
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(source), str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            pass_fds=(theirs.fileno(), *options.pop("pass_fds", ())),
            **options,
        )
        theirs.close()

    def told(self):
        return self.said.readline().rstrip("\n")

    def go(self):
        self.channel.sendall(b"go")

    def end(self):
        """Return the caller's exit status, stdout and stderr: these at their end of file."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, out, err


@contextmanager
def start(source, cwd, **options):
    it = Start(source, cwd, **options)
    try:
        yield it
    finally:
        it.channel.close()
        it.said.close()
        if it.process.poll() is None:
            it.process.kill()
        it.process.communicate()


def test_the_caller_returns_0_when_the_daemon_is_ready_and_not_before(tmp_path):
    source = """
        detached = detach()
        tell(os.getpid(), os.getsid(0), os.getpgrp(), os.getcwd())
        channel.recv(2)
        detached.ready()
        tell("ready")
        channel.recv(1)
        """
    with start(source, tmp_path) as it:
        pid, session, group, folder = it.told().split()
        caller = os.pidfd_open(it.process.pid)
        assert select.select([caller], [], [], 0)[0] == []
        os.close(caller)
        it.go()
        assert it.told() == "ready"
        # The daemon runs on, and yet has let go of what the caller's caller reads.
        assert it.end() == (0, "", "")
        assert int(pid) != it.process.pid
        assert session == group != pid  # no leader: it can get no terminal
        assert folder == "/"
        it.channel.close()
        it.said.close()
        wait_gone(int(pid))


def test_a_failure_is_printed_by_the_caller_with_its_status(tmp_path):
    source = """
        detached = detach()
        detached.failed("port 80 is taken\\n\\x1b[2J" + "x" * 100000, 3)
        detached.failed("again")
        tell(os.getpid())
        """
    with start(source, tmp_path) as it:
        status, out, err = it.end()
        assert (status, out) == (3, "")
        assert err.startswith("prefork: error: port 80 is taken\nprefork: error: \\x1b[2Jxxx")
        assert err.count("\n") == 2
        assert len(err) < 40000
        wait_gone(int(it.told()))


def test_the_caller_ends_after_the_daemon_that_has_failed(tmp_path):
    source = """
        detached = detach()
        pidfile = Pidfile.create(os.environ["PIDFILE"])
        detached.failed("no")
        """
    path = tmp_path / "daemon.pid"
    with start(source, tmp_path, env=os.environ | {"PIDFILE": str(path)}) as it:
        assert it.end() == (1, "", "prefork: error: no\n")
        assert not is_alive(int(path.read_text()))


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_a_daemon_that_dies_without_a_word_is_a_failure(tmp_path, end):
    # A child holds everything that is open: only the daemon's own end can tell.
    source = f"""
        detach()
        if os.fork() == 0:
            channel.recv(1)
            os._exit(0)
        {end}
        """
    with start(source, tmp_path) as it:
        assert it.process.wait(DEADLINE_S) == 1
        assert (
            it.process.stderr.readline()
            == "prefork: error: the daemon has died before it was ready\n"
        )


def test_what_the_daemon_prints_before_it_is_ready_reaches_the_caller(tmp_path):
    source = """
        print("before")
        detached = detach()
        print("early", flush=True)
        sys.stderr.write("warning\\n")
        detached.ready()
        print("late", flush=True)
        """
    with start(source, tmp_path) as it:
        assert it.end() == (0, "before\nearly\n", "warning\n")


def test_standard_streams_lead_nowhere_once_it_is_ready(tmp_path):
    source = """
        detached = detach()
        detached.ready()
        for fd in range(3):
            tell(os.readlink(f"/proc/self/fd/{fd}"), os.get_inheritable(fd))
        """
    with start(source, tmp_path) as it:
        assert [it.told() for _ in range(3)] == ["/dev/null True"] * 3


def test_directory_and_umask_are_as_asked(tmp_path):
    source = """
        detached = detach(working_directory=os.getcwd(), umask=0o027)
        tell(os.getcwd(), oct(os.umask(0)))
        detached.ready()
        """
    with start(source, tmp_path) as it:
        assert it.told() == f"{tmp_path} 0o27"


def test_the_umask_stays_where_none_is_asked_for(tmp_path):
    source = """
        detached = detach()
        tell(oct(os.umask(0)))
        detached.ready()
        """
    with start(source, tmp_path, umask=0o031) as it:
        assert it.told() == "0o31"


def test_a_directory_that_is_not_there_is_a_failure(tmp_path):
    with start("detach(working_directory='/nowhere/at/all')", tmp_path) as it:
        status, _, err = it.end()
        assert status == 1
        assert err.startswith("prefork: error: cannot become a daemon: Unable to change working")
        assert "/nowhere/at/all" in err


def test_what_the_caller_left_open_is_closed_but_not_what_is_kept_or_ours(tmp_path):
    junk, kept = os.pipe()
    source = f"""
        own = os.open("/dev/null", os.O_RDONLY)
        detached = detach(keep=[{kept}])
        for fd in own, {kept}, {junk}:
            try:
                os.fstat(fd)
            except OSError:
                tell("closed")
            else:
                tell("open")
        detached.ready()
        """
    with start(source, tmp_path, pass_fds=(junk, kept)) as it:
        os.close(junk)
        os.close(kept)
        assert [it.told() for _ in range(3)] == ["open", "open", "closed"]


def test_the_pidfile_of_the_daemon_names_the_daemon(tmp_path):
    source = """
        detached = detach()
        pidfile = Pidfile.create(os.environ["PIDFILE"])
        detached.ready()
        tell(os.getpid())
        channel.recv(1)
        """
    path = tmp_path / "daemon.pid"
    with start(source, tmp_path, env=os.environ | {"PIDFILE": str(path)}) as it:
        assert it.end() == (0, "", "")  # who waits for the caller may read the file
        assert path.read_text() == it.told() + "\n"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_caller_that_is_told_to_end_takes_the_daemon_with_it(tmp_path, signum):
    source = """
        detached = detach()
        tell(os.getpid())
        channel.recv(1)
        """
    with start(source, tmp_path) as it:
        pid = int(it.told())
        it.process.send_signal(signum)
        assert it.end() == (128 + signum, "", "")
        wait_gone(pid)


def test_a_daemon_whose_caller_has_gone_is_not_wanted(tmp_path):
    source = """
        detached = detach()
        tell(os.getpid())
        channel.recv(2)
        try:
            detached.ready()
        except StartError as error:
            tell(error)
        """
    with start(source, tmp_path) as it:
        it.told()
        it.process.kill()
        it.process.wait()
        it.go()
        assert it.told() == "whoever started the daemon does not wait for it"


def test_a_daemon_whose_caller_went_before_it_knew_the_daemon_is_not_wanted(tmp_path):
    source = """
        waiting, telling = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        telling.send(b"!")
        waiting.close()
        try:
            Detached(telling).ready()
        except StartError as error:
            tell(error)
        """
    with start(source, tmp_path) as it:
        assert it.told() == "whoever started the daemon does not wait for it"


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_closed_standard_stream_is_no_obstacle(tmp_path, closed):
    source = """
        from prefork.streams import secure_streams
        secure_streams()
        detached = detach()
        detached.ready()
        tell(*(os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)))
        """

    def close():
        with contextlib.suppress(OSError):
            os.close(closed)

    with start(source, tmp_path, preexec_fn=close) as it:
        assert it.told() == "/dev/null /dev/null /dev/null"
        assert it.end()[0] == 0
