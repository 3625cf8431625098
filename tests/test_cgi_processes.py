"""The processes of scripts: what they inherit, how long they may live, and who ends them."""

import errno
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cgi_kit import HELLO, ask, client, end, program, scripts_for_everybody
from harness import DEADLINE_S, children, is_alive, wait_gone, wait_until
from http_kit import OURS, get

from prefork.http.cgi import process as process_module

#: Says its number, then goes on; NAME stands for a FIFO that nobody writes to.
PID = "echo X-Pid: $$\necho\n"


@pytest.fixture(scope="module")
def scripts():
    with scripts_for_everybody() as found:
        found.script("hello", HELLO)
        found.fifo("never")
        yield found


@pytest.fixture(scope="module")
def server(scripts):
    with scripts.serving() as found:
        yield found


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def wait_for_ever(scripts) -> str:
    return f"cat <{scripts.folder}/never\n"


def pid_of(path) -> int:
    """Return the number that a script writes to a FIFO, which says that it runs."""
    return int(path.read_text())


@pytest.fixture
def born(scripts, request):
    """A FIFO to which a script of the test writes its number: `echo $$ >{born}`."""
    path = scripts.fifo(f"born-{request.node.name}".partition("[")[0])
    yield path
    path.unlink()


def get_pid(one) -> int:
    """Read the head of an answer; return what it says of X-Pid."""
    found = 0
    while (line := one.file.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        found = int(value) if name == b"X-Pid" else found
    return found


# -- what it inherits --------------------------------------------------------------------


def test_a_script_inherits_three_descriptors(scripts, server):
    scripts.script("open", "echo A: b\necho\nls /proc/$$/fd\n")
    read, write = os.pipe()  # as a library written in C may leave behind
    os.set_inheritable(read, True)
    try:
        found = {int(fd) for fd in ask(server, "/cgi-bin/open").body.split()}
    finally:
        os.close(read)
        os.close(write)
    assert found - {10, 255} == {0, 1, 2}  # shells keep the script at one of these


def test_a_script_has_default_signals_a_session_and_no_terminal(scripts, server):
    # By the shell's own process: while it starts another, it blocks all signals itself.
    scripts.script("status", "echo A: $$\necho\nexec cat /proc/self/status /proc/self/stat\n")
    answer = ask(server, "/cgi-bin/status")
    *lines, stat = answer.body.decode().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    assert int(status["SigBlk"], 16) == 0
    ignored = int(status["SigIgn"], 16)
    for signum in signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM:
        assert not ignored & 1 << signum - 1
    _, _, group, session, terminal = stat.rpartition(")")[2].split()[:5]
    assert (group, session, terminal) == (answer["A"], answer["A"], "0")


@pytest.mark.skipif(os.geteuid() == 0, reason="it would be another user's process")
def test_a_script_may_have_as_many_descriptors_as_every_program(scripts, server):
    fifo = scripts.fifo("gate-limit")
    scripts.script("limit", f"echo A: b\necho\necho begun\ncat <{fifo}\nulimit -Sn\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with client(server) as one:
            one.send(get("/cgi-bin/limit"))
            while one.file.readline() != b"begun\n":  # seen by who has set its limit before
                pass
            fifo.write_text("")
            one.file.readline()
            one.file.readline()
            assert int(one.file.readline()) == min(1024, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_zombie_and_no_descriptor_is_left(server):
    ask(server, "/cgi-bin/hello")
    before = descriptors()
    with client(server) as one:
        for path in ["hello", "hello", "none", "hello"] * 5:
            one.request(f"/cgi-bin/{path}")
            if one.answer().status != 200:
                break
    for _ in range(10):
        ask(server, "/cgi-bin/hello", method="POST", body=b"x" * 100_000)
    wait_until(lambda: not children(os.getpid()))
    wait_until(lambda: descriptors() <= before)


@pytest.mark.parametrize("expects", [(), ("Expect: 100-continue",)])
def test_clients_that_go_before_their_body_leave_no_descriptor(server, expects):
    ask(server, "/cgi-bin/hello")
    before = descriptors()
    head = get("/cgi-bin/hello", "Content-Length: 1000000", *expects, method="POST")
    for _ in range(20):
        with client(server) as one:
            one.send(head)
            one.end()
            one.file.read()
    wait_until(lambda: not children(os.getpid()))
    wait_until(lambda: descriptors() <= before)


# -- time --------------------------------------------------------------------------------


def test_a_script_that_is_silent_for_too_long_is_answered_by_504(scripts, born, caplog):
    scripts.script("silent", f"echo $$ >{born}\n" + wait_for_ever(scripts))
    with scripts.serving(cgi_timeout=0.2) as server, client(server) as one:
        one.send(get("/cgi-bin/silent"))
        pid = pid_of(born)
        assert one.answer().status == 504
        wait_gone(pid)
    (record,) = [r for r in caplog.records if r.event == "cgi.failed"]
    assert record.fields["reason"] == "it neither read nor wrote for too long"


@pytest.mark.parametrize("limit", ["cgi_timeout", "cgi_time_limit"])
def test_an_answer_that_has_begun_is_cut_by_the_limits(scripts, limit):
    scripts.script("late", PID + "echo begun\n" + wait_for_ever(scripts))
    with scripts.serving(**{limit: 0.2}) as server, client(server) as one:
        one.request("/cgi-bin/late")
        answer = one.answer()
        assert answer.body == b"begun\n"
        assert not answer.is_whole
        wait_gone(int(answer["X-Pid"]))


def test_a_script_that_moves_has_time(scripts):
    source = "echo A: b\necho\nfor i in 1 2 3 4 5 6 7 8; do sleep 0.1; echo $i; done\n"
    scripts.script("moves", source)
    with scripts.serving(cgi_timeout=0.5) as server:
        assert ask(server, "/cgi-bin/moves").body.split() == [b"%d" % i for i in range(1, 9)]


def test_a_slow_upload_is_not_the_scripts_fault(scripts):
    """While the client is waited for, the script has all the time it likes."""

    class Server(OURS.ThreadingHTTPServer):
        limits = OURS.HTTPServer.limits.__class__(body_stall_s=0.5, prefetch_bytes=0)

    class Patient(OURS.ThreadingHTTPServer):
        limits = OURS.HTTPServer.limits.__class__(prefetch_bytes=0)

    scripts.script("cat", "echo A: b\necho\ncat\n")
    with scripts.serving(Patient, cgi_timeout=0.7) as server, client(server) as one:
        one.send(get("/cgi-bin/cat", "Content-Length: 4", method="POST") + b"ab")
        while one.file.readline() != b"2\r\n":  # "ab", which the script has had
            pass
        assert one.file.readline() == b"ab\r\n"
        assert select.select([one.sock], [], [], 1.0)[0] == []  # nobody has lost patience
        one.send(b"cd")
        assert one.file.read(12) == b"2\r\ncd\r\n0\r\n\r\n"
    scripts.script("reads", "read x\n" + HELLO)
    with scripts.serving(Server) as server, client(server) as one:
        one.request("/cgi-bin/reads", "POST", fields=("Content-Length: 4",))
        assert one.answer("POST").status == 408


def test_who_does_not_obey_sigterm_is_killed_with_all_it_has_started(scripts, born, monkeypatch):
    monkeypatch.setattr(process_module, "_TERM_S", 0.1)
    scripts.script(
        "stubborn", f"trap '' TERM\nsleep 1000 &\necho $! >{born}\n" + wait_for_ever(scripts)
    )
    with scripts.serving(cgi_timeout=0.1) as server, client(server) as one:
        one.send(get("/cgi-bin/stubborn"))
        pid = pid_of(born)
        assert one.answer().status == 504
        wait_gone(pid)


# -- size --------------------------------------------------------------------------------


def test_an_answer_of_any_size_needs_little_memory(scripts, server):
    scripts.script("large", "echo A: b\necho\nhead -c 300000000 /dev/zero\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with client(server, deadline_s=DEADLINE_S) as one:
        one.request("/cgi-bin/large")
        while one.file.readline() != b"\r\n":
            pass
        total = 0
        while size := int(one.file.readline(), 16):
            total += len(one.file.read(size))
            assert one.file.readline() == b"\r\n"
    assert total == 300_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_more_than_a_script_may_say_is_cut(scripts):
    scripts.script("much", PID + "yes\n")
    with scripts.serving(cgi_output_bytes=100_000) as server, client(server) as one:
        one.request("/cgi-bin/much")
        answer = one.answer()
        assert not answer.is_whole
        assert len(answer.body) <= 100_000
        wait_gone(int(answer["X-Pid"]))


def test_a_script_that_answers_while_it_reads_does_not_lock_up(scripts, server):
    """Each of the three pipes is full at times, and none is waited for alone."""
    scripts.script("busy", "echo A: b\necho\nyes x | head -c 300000 >&2\ntee /dev/stderr\n")
    body = os.urandom(1_500_000)
    with client(server, deadline_s=DEADLINE_S) as one:
        sender = threading.Thread(
            target=one.request, args=("/cgi-bin/busy", "POST", body), daemon=True
        )
        sender.start()
        answer = one.answer("POST")
        sender.join()
        assert answer.body == body


# -- its client --------------------------------------------------------------------------


def test_a_client_that_goes_ends_its_script(scripts, server):
    scripts.script("begun", PID + "echo begun\n" + wait_for_ever(scripts))
    with client(server) as one:
        one.send(get("/cgi-bin/begun"))
        pid = get_pid(one)
        assert is_alive(pid)
        one.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
    wait_gone(pid)


def test_a_client_that_closes_before_any_answer_ends_its_script(scripts, server, born):
    scripts.script("unborn", f"echo $$ >{born}\n" + wait_for_ever(scripts))
    with client(server) as one:
        one.send(get("/cgi-bin/unborn"))
        pid = pid_of(born)
        assert is_alive(pid)
    wait_gone(pid)


def test_a_client_that_closes_its_side_only_gets_its_answer(scripts, server, born):
    fifo = scripts.fifo("gate-half")
    scripts.script("patient", f"echo $$ >{born}\ncat <{fifo}\n" + HELLO)
    with client(server) as one:
        one.send(get("/cgi-bin/patient"))
        one.end()
        pid_of(born)
        assert one.file.readline() == b"HTTP/1.1 100 Continue\r\n"  # are you there?
        assert one.file.readline() == b"\r\n"
        fifo.write_text("")
        assert one.answer().body == b"hello\n"


def test_a_client_that_goes_within_its_body_ends_its_script(scripts, server, born):
    scripts.script("reader", f"echo $$ >{born}\ncat\n")
    with client(server) as one:
        one.send(get("/cgi-bin/reader", "Content-Length: 1000000", method="POST") + b"x" * 100_000)
        pid = pid_of(born)
    wait_gone(pid)


def test_a_client_that_does_not_read_ends_its_script_in_the_end(scripts):
    class Server(OURS.ThreadingHTTPServer):
        limits = OURS.HTTPServer.limits.__class__(write_stall_s=0.3)

    scripts.script("endless", PID + "yes\n")
    with scripts.serving(Server) as server, client(server, receive_bytes=4096) as one:
        one.send(get("/cgi-bin/endless"))
        wait_gone(get_pid(one))


# -- what it leaves ----------------------------------------------------------------------


def test_a_daemon_that_keeps_the_output_open_keeps_no_client(scripts, server):
    scripts.script("daemon", "echo A: b\necho\nsleep 1000 &\necho $!\n")
    answer = ask(server, "/cgi-bin/daemon")
    pid = int(answer.body)
    try:
        assert is_alive(pid)  # it is meant to stay
    finally:
        end(pid)


def test_a_script_that_answers_first_gets_its_input_nevertheless(scripts, server):
    fifo = scripts.fifo("counted")
    scripts.script("first", f"{HELLO}exec >&-\nsize=$(wc -c)\necho $size >{fifo}\n")
    with client(server) as one:
        one.send(get("/cgi-bin/first", "Content-Length: 1000000", method="POST"))
        assert one.answer().body == b"hello\n"
        one.send(b"x" * 1_000_000)
        assert int(fifo.read_text()) == 1_000_000
        one.request("/cgi-bin/hello")
        assert one.answer().body == b"hello\n"


def test_the_end_of_an_answer_does_not_wait_for_the_rest_of_the_input(scripts, server):
    gate, fifo = scripts.fifo("gate-end"), scripts.fifo("counted-late")
    wait = f"read x <{gate}\nexec >&-\n"
    scripts.script("early", f"{HELLO}{wait}size=$(wc -c)\necho $size >{fifo}\n")
    with client(server) as one:
        one.send(get("/cgi-bin/early", "Content-Length: 1000000", method="POST"))
        one.sock.recv(1, socket.MSG_PEEK)  # it has begun, without a length
        gate.write_text("\n")
        assert one.answer().body == b"hello\n"
        one.send(b"x" * 1_000_000)
        assert int(fifo.read_text()) == 1_000_000
        one.request("/cgi-bin/hello")
        assert one.answer().body == b"hello\n"


def test_a_script_that_goes_on_without_its_output_is_seen_to_its_end(scripts, server, caplog):
    fifo = scripts.fifo("gate-on")
    source = PID + f"echo done\nexec >&-\ncat <{fifo} 2>&1\necho later >&2\nexit 5\n"
    scripts.script("goes-on", source)
    answer = ask(server, "/cgi-bin/goes-on")
    assert answer.body == b"done\n"
    pid = int(answer["X-Pid"])
    assert is_alive(pid)
    fifo.write_text("")
    wait_until(lambda: not children(os.getpid()))
    events = {r.event: r.fields for r in caplog.records}
    assert events["cgi.stderr"]["text"].endswith("later")
    assert events["cgi.exited"]["cause"] == "exit 5"


def test_one_that_goes_on_for_too_long_is_ended(scripts):
    scripts.script("forever", PID + "exec >&-\n" + wait_for_ever(scripts))
    with scripts.serving(cgi_time_limit=0.3) as server:
        wait_gone(int(ask(server, "/cgi-bin/forever")["X-Pid"]))


def test_a_script_that_kills_itself_is_logged_by_its_signal(scripts, server, caplog):
    scripts.script("suicide", "kill -SEGV $$\n")
    assert ask(server, "/cgi-bin/suicide").status == 502
    assert [r.fields["ended"] for r in caplog.records if r.event == "cgi.failed"] == ["SIGSEGV"]


# -- when there is no more ------------------------------------------------------------------


@pytest.mark.parametrize("resource_kind", ["process", "descriptor", "pidfd"])
def test_a_machine_that_is_short_of_something_is_answered_by_503(
    server, monkeypatch, resource_kind
):
    def refuse(*_args, **_kwargs):
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    where = {
        "process": (process_module.subprocess, "Popen"),
        "descriptor": (os, "pipe2"),
        "pidfd": (os, "pidfd_open"),
    }[resource_kind]
    before = descriptors()
    with monkeypatch.context() as patched:
        patched.setattr(*where, refuse)
        answer = ask(server, "/cgi-bin/hello")
    assert answer.status == 503
    wait_until(lambda: not children(os.getpid()))
    wait_until(lambda: descriptors() <= before)
    assert ask(server, "/cgi-bin/hello").body == b"hello\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
@pytest.mark.parametrize("uid", [-1, 2**32 - 1, 2**32])
def test_root_runs_nothing_as_somebody_who_is_nobody_at_all(
    scripts, server, monkeypatch, caplog, uid
):
    marker = scripts.folder / "was-run"
    scripts.script("marks", f"touch {marker}\n" + HELLO)
    monkeypatch.setattr(OURS, "nobody", uid)
    assert ask(server, "/cgi-bin/marks").status == 403
    assert not marker.exists()
    (record,) = [r for r in caplog.records if r.event == "cgi.failed"]
    assert record.fields["reason"] == f"user {uid} is no one to run scripts as"


ROOT_OF_NOTHING = """
import os, sys
sys.path[:0] = [sys.argv[2]]
from cgi_kit import ask
from http_kit import OURS, serving

os.chdir(sys.argv[1])
with serving(OURS.HTTPServer, OURS.CGIHTTPRequestHandler) as server:
    assert os.geteuid() == 0
    answer = ask(server, "/cgi-bin/marks")
    print(answer.status)
"""


def test_a_root_that_cannot_become_nobody_runs_nothing(scripts):
    """In a namespace where there is no other user."""
    program("unshare")
    marker = scripts.folder / "was-run"
    scripts.script("marks", f"touch {marker}\n" + HELLO)
    alone = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this system lets nobody have a namespace of users")
    command = [*alone, sys.executable, "-c", ROOT_OF_NOTHING, scripts.folder, Path(__file__).parent]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.stdout == "403\n"
    assert not marker.exists()
