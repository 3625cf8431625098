"""The control socket: a real loop in a thread, real sockets, a clock of the test's own."""

import gc
import json
import os
import resource
import socket
import stat
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from control_rig import DEADLINE_S, asking, rig_at, status

from prefork.control import finding, remote
from prefork.control.callers import CALLERS
from prefork.control.places import (
    default_control_path,
    found_control_paths,
    open_control,
    usable_control_path,
)
from prefork.control.protocol import (
    LINE_BYTES,
    PATIENCE_S,
    KillWorker,
    ProtocolError,
    Reload,
    ReopenLogs,
    Scale,
    Status,
    Stop,
    decode_request,
    encode_request,
)
from prefork.errors import PreforkError, StartError


@pytest.fixture
def rig(tmp_path):
    with rig_at(tmp_path / "c" / "control.sock") as rig:
        yield rig


def read_all(client):
    parts = []
    with suppress(ConnectionResetError):  # it had more to say than was read
        while part := client.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def converse(rig, data, *, half_close=False):
    """Send bytes; return the answer's fields, which a newline and the end must follow."""
    with rig.connect() as client:
        with suppress(BrokenPipeError):
            client.sendall(data)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        answer = read_all(client)
    assert answer.endswith(b"\n")
    assert answer.count(b"\n") == 1
    return json.loads(answer)


# -- requests and answers --------------------------------------------------


def test_status_is_answered_with_what_the_overseer_says(rig):
    assert remote.ask(rig.path, Status())["status"] == status(2)


@pytest.mark.parametrize(
    ("request_", "asked"),
    [
        (Reload(), ("reload",)),
        (Scale("web", 4), ("scale", "web", 4)),
        (ReopenLogs(), ("reopen_logs",)),
        (KillWorker(3), ("kill_worker", 3)),
    ],
)
def test_an_answer_comes_when_it_is_done_and_not_before(rig, request_, asked):
    with asking(remote.ask, rig.path, request_) as outcome:
        what, done = rig.overseer.next()
        assert what == asked
        rig.turns(3)
        assert outcome == []
        rig.call(lambda: done(None))
    assert outcome == [{"ok": True}]


def test_what_was_done_at_once_is_answered_at_once(rig):
    rig.overseer.at_once = "done"
    assert remote.ask(rig.path, Reload()) == {"ok": True}


def test_why_it_was_not_done_comes_to_the_caller(rig):
    with asking(remote.ask, rig.path, Reload()) as outcome:
        _, done = rig.overseer.next()
        rig.call(lambda: done("web.toml: handler: no module named 'x'"))
    assert str(outcome[0]) == "web.toml: handler: no module named 'x'"
    assert outcome[0].exit_status == 1


def test_only_the_first_word_on_it_counts(rig):
    with asking(remote.ask, rig.path, Reload()) as outcome:
        _, done = rig.overseer.next()
        rig.call(lambda: [done("first"), done(None), done("third")])
    assert str(outcome[0]) == "first"


def test_what_cannot_be_is_refused_at_once(rig):
    rig.overseer.at_once = PreforkError("no pool is named 'wbe'; did you mean 'web'?")
    with pytest.raises(remote.RemoteError, match="did you mean 'web'"):
        remote.ask(rig.path, Scale("wbe", 2))


def test_an_overseer_that_fails_is_no_end_of_the_loop(rig):
    rig.overseer.at_once = ZeroDivisionError("ours")
    with pytest.raises(remote.RemoteError, match="its log says how"):
        remote.ask(rig.path, Reload())
    rig.overseer.at_once = None
    assert remote.ask(rig.path, Status())["ok"]


def test_a_status_that_is_no_json_is_no_end_of_the_loop(rig):
    rig.overseer.config = b"bytes"
    with pytest.raises(remote.RemoteError, match="its log says how"):
        remote.ask(rig.path, Status())


def test_names_that_are_no_text_travel_unchanged(rig):
    rig.overseer.config = "/etc/b\udcff.toml"
    assert remote.ask(rig.path, Status())["status"]["config"] == "/etc/b\udcff.toml"
    with asking(remote.ask, rig.path, Scale("\udcff", 2)):
        what, done = rig.overseer.next()
        assert what == ("scale", "\udcff", 2)
        rig.call(lambda: done(None))


def test_several_wait_and_each_gets_its_own_answer(rig):
    with asking(remote.ask, rig.path, Scale("a", 1)) as first:
        _, first_done = rig.overseer.next()
        with asking(remote.ask, rig.path, Scale("b", 1)) as second:
            _, second_done = rig.overseer.next()
            rig.call(lambda: second_done("no"))
        rig.call(lambda: first_done(None))
    assert first == [{"ok": True}]
    assert str(second[0]) == "no"


BAD = {
    b"": "no answer",
    b"\n": "not one JSON object",
    b"x\n": "not one JSON object",
    b"\xff\xfe\n": "not one JSON object",
    b"[" * 60000 + b"\n": "not one JSON object",
    b"9" * 5000 + b"\n": "not one JSON object",
    b"[]\n": "Expected `object`, got `array`",
    b"null\n": "Expected `object`, got `null`",
    b"{}\n": "missing required field `command`",
    b'{"command":"explode"}\n': "Invalid value 'explode'",
    b'{"command":7}\n': "Expected `str`, got `int`",
    b'{"command":"reload","now":true}\n': "unknown field `now`",
    b'{"command":"stop","now":1}\n': "Expected `bool`",
    b'{"command":"scale","pool":"web"}\n': "missing required field `workers`",
    b'{"command":"scale","pool":"web","workers":0}\n': "Expected `int` >= 1",
    b'{"command":"scale","pool":"web","workers":1025}\n': "Expected `int` <= 1024",
    b'{"command":"scale","pool":"web","workers":2.5}\n': "Expected `int`, got `float`",
    b'{"command":"kill-worker","slot":-1}\n': "Expected `int` >= 0",
    b'{"command":"kill-worker","slot":true}\n': "Expected `int`, got `bool`",
    b'{"command":"kill-worker","slot":NaN}\n': "Expected `int`, got `float`",
}


@pytest.mark.parametrize("line", BAD, ids=lambda line: repr(line[:24]))
def test_a_bad_line_is_refused_with_the_fault(rig, line):
    if not line:
        with rig.connect() as client:
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b""
        return
    answer = converse(rig, line)
    assert answer["ok"] is False
    assert BAD[line] in answer["reason"]
    assert rig.overseer.asked.empty()


def test_every_request_can_be_read_back():
    for request in (Status(), Reload(), Stop(), Stop(now=True), Scale("ä", 7), KillWorker(0)):
        assert decode_request(encode_request(request)) == request
    with pytest.raises(ProtocolError):
        decode_request(encode_request(Scale("web", 0)))


def test_the_longest_line_is_taken_and_one_byte_more_is_not(rig):
    head = b'{"command":"status"'
    longest = head + b" " * (LINE_BYTES - len(head) - 2) + b"}\n"
    assert len(longest) == LINE_BYTES
    assert converse(rig, longest)["ok"]
    assert converse(rig, b" " + longest)["reason"] == f"bad request: over {LINE_BYTES} bytes"


def test_a_request_may_come_byte_by_byte(rig):
    with rig.connect() as client:
        for byte in encode_request(Status()):
            client.send(bytes([byte]))
            rig.turns()
        assert json.loads(read_all(client))["ok"]


def test_a_last_line_needs_no_newline(rig):
    assert converse(rig, b'{"command":"status"}', half_close=True)["ok"]


def test_a_client_that_closed_its_half_still_gets_its_answer(rig):
    with rig.connect() as client:
        client.sendall(encode_request(Reload()))
        client.shutdown(socket.SHUT_WR)
        _, done = rig.overseer.next()
        rig.turns(3)
        rig.call(lambda: done(None))
        assert json.loads(read_all(client)) == {"ok": True}


def test_what_follows_the_request_is_not_obeyed(rig):
    with rig.connect() as client:
        client.sendall(encode_request(Status()) + encode_request(Reload()))
        assert json.loads(read_all(client))["ok"]
    rig.turns(2)
    assert rig.overseer.asked.empty()


# -- stop ------------------------------------------------------------------


@pytest.mark.parametrize("now", [False, True])
def test_stop_is_answered_by_the_pid_and_then_the_end(rig, now):
    with rig.connect() as client:
        client.sendall(encode_request(Stop(now=now)))
        assert rig.overseer.next() == (("stop", now), None)
        rig.turns()
        assert json.loads(client.recv(4096)) == {"ok": True, "pid": os.getpid()}
        rig.pass_s(1000)  # it may take its time
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)
        client.settimeout(DEADLINE_S)
        rig.call(rig.control.close)
        assert client.recv(1) == b""


def test_a_stop_that_is_refused_is_an_answer_like_others(rig):
    rig.overseer.at_once = PreforkError("not now")
    with pytest.raises(remote.RemoteError, match="not now"):
        remote.stop(rig.path, now=False)


MASTER = """
import selectors, sys
from pathlib import Path
from prefork.control.server import Control
from prefork.control.places import open_control

class Overseer:
    def stop(self, *, now):
        global running
        running = now  # the second word ends it

selector = selectors.DefaultSelector()
def watch(fd, call): selector.register(fd, selectors.EVENT_READ, call)
control = Control(open_control(Path(sys.argv[1])), Overseer(), watch, selector.unregister)
print("READY", flush=True)
running = True
while running:
    for key, _ in selector.select():
        key.data()
if sys.argv[2] == "early":
    control.close()
print("ENDING", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("when", ["early", "never"])
def test_stop_returns_when_the_master_has_gone_however_it_closes_its_socket(tmp_path, when):
    path = tmp_path / "s"
    master = subprocess.Popen(
        [sys.executable, "-c", MASTER, path, when],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with master:
        assert master.stdout.readline() == "READY\n"
        with asking(remote.stop, path, now=False) as outcome:
            assert master.stdout.readline() == "ENDING\n"
            assert outcome == []
            master.stdin.close()
        assert outcome == [None]
        assert master.wait(DEADLINE_S) == 0


def test_a_master_that_goes_on_is_told(rig, monkeypatch):
    monkeypatch.setattr(remote, "_LAST_WORDS_S", 0.05)
    with asking(remote.stop, rig.path, now=False) as outcome:
        rig.overseer.next()
        rig.turns()
        rig.call(rig.control.close)
    assert f"process {os.getpid()} runs on" in str(outcome[0])


# -- clients that mean no good, or know no better ---------------------------


def test_a_silent_client_is_told_so_and_hung_up_on(rig):
    with rig.connect() as client:
        client.sendall(b'{"command":')
        rig.turns()
        rig.pass_s(PATIENCE_S - 0.1)
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)
        client.settimeout(DEADLINE_S)
        rig.pass_s(0.2)
        assert json.loads(read_all(client))["reason"] == "no request within 10 s"


def test_one_that_sends_a_byte_now_and_then_gains_nothing_by_it(rig):
    with rig.connect() as client:
        for _ in range(11):
            with suppress(BrokenPipeError):
                client.send(b" ")
            rig.pass_s(1)
        assert json.loads(read_all(client))["reason"] == "no request within 10 s"


def test_one_that_waits_for_its_answer_may_wait_long(rig):
    with asking(remote.ask, rig.path, Reload()) as outcome:
        _, done = rig.overseer.next()
        rig.pass_s(100 * PATIENCE_S)
        rig.call(lambda: done(None))
    assert outcome == [{"ok": True}]


def test_one_that_hangs_up_is_forgotten_and_its_answer_goes_nowhere(rig):
    with rig.connect() as client:
        client.sendall(encode_request(Reload()))
        _, done = rig.overseer.next()
    rig.turns(2)
    assert rig.call(rig.control.handover) == []
    rig.call(lambda: done(None))
    assert remote.ask(rig.path, Status())["ok"]


def test_a_large_answer_goes_out_as_it_is_taken(rig):
    rig.overseer.workers = 1024  # over 700 KB, more than a socket holds
    with rig.connect() as client:
        client.sendall(encode_request(Status()))
        rig.turns(5)
        assert json.loads(read_all(client))["status"] == status(1024)


def test_one_that_does_not_take_its_answer_is_hung_up_on(rig):
    rig.overseer.workers = 1024
    with rig.connect() as client:
        client.sendall(encode_request(Status()))
        rig.turns(3)
        rig.pass_s(PATIENCE_S)
        rest = read_all(client)
        assert 0 < len(rest) < len(json.dumps(status(1024)))


def test_a_crowd_that_says_nothing_makes_room_for_one_that_asks(rig):
    crowd = [rig.connect() for _ in range(3 * CALLERS)]
    assert remote.ask(rig.path, Status())["ok"]
    told = [client for client in crowd if _was_told(client)]
    assert len(crowd) - len(told) < CALLERS
    for client in crowd:
        client.close()


def _was_told(client):
    client.setblocking(False)
    try:
        return json.loads(client.recv(4096))["reason"] == "over 64 clients at a time; try again"
    except BlockingIOError:
        return False


def test_a_crowd_that_waits_for_answers_keeps_its_place(rig):
    crowd = [rig.connect() for _ in range(CALLERS)]
    for client in crowd:
        client.sendall(encode_request(Reload()))
    dones = [rig.overseer.next()[1] for _ in crowd]
    with pytest.raises(remote.RemoteError, match="64 others wait for answers"):
        remote.ask(rig.path, Status())
    rig.call(lambda: [done(None) for done in dones])
    assert [json.loads(read_all(client)) for client in crowd] == [{"ok": True}] * CALLERS
    assert remote.ask(rig.path, Status())["ok"]
    for client in crowd:
        client.close()


def test_noise_and_hang_ups_end_nothing(rig):
    noise = (b"\0" * 1000, b"{" * 70000, b"GET / HTTP/1.1\r\n\r\n", b'{"command"', b"\n\n\n\n")
    for turn in range(300):
        with rig.connect() as client:
            client.setblocking(False)
            with suppress(OSError):
                client.sendall(noise[turn % len(noise)])
            if turn % 3 == 0:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
            if turn % 7 == 0:  # close() with an answer unread is a reset
                rig.turns()
    assert remote.ask(rig.path, Status())["ok"]
    assert rig.overseer.asked.empty()
    rig.turns(2)
    assert rig.call(rig.control.handover) == []


def test_descriptors_that_are_sent_along_are_not_taken(rig):
    gc.collect()
    before = len(open_descriptors())
    with rig.connect() as client:
        socket.send_fds(client, [encode_request(Status())], [0, 1, 2])
        assert json.loads(read_all(client))["ok"]
    rig.turns()
    assert len(open_descriptors()) == before


def open_descriptors():
    return [int(path.name) for path in Path("/proc/self/fd").iterdir()]


def test_a_flood_of_status_does_not_make_one_for_each(rig):
    rig.overseer.workers = 1024
    crowd = [rig.connect() for _ in range(CALLERS)]
    make = rig.overseer.status

    def slowly():
        rig.now_s += 0.04
        return make()

    rig.overseer.status = slowly
    for client in crowd:
        client.sendall(encode_request(Status()))
    answers = [json.loads(read_all(client))["ok"] for client in crowd]
    assert answers == [True] * CALLERS
    assert rig.overseer.statuses == 1
    for client in crowd:
        client.close()
    rig.pass_s(0.2)
    assert remote.ask(rig.path, Status())["ok"]
    assert rig.overseer.statuses == 2


def test_a_status_after_a_change_is_a_new_one(rig):
    make = rig.overseer.status

    def slowly():
        rig.now_s += 0.04
        return make()

    rig.overseer.status = slowly
    rig.overseer.at_once = "done"
    remote.ask(rig.path, Status())
    rig.overseer.workers = 3
    remote.ask(rig.path, Scale("web", 3))
    assert remote.ask(rig.path, Status())["status"] == status(3)


def test_without_free_descriptors_the_loop_rests_and_then_goes_on(rig):
    """Clients wait in the queue meanwhile; without the rest the loop would spin."""
    client = rig.connect()
    client.close()
    rig.turns(3)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = socket.socket(socket.AF_UNIX)
    waiting.settimeout(DEADLINE_S)
    highest = max(open_descriptors())
    used = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    try:
        with suppress(OSError):
            while True:
                used.append(os.dup(0))
        waiting.connect(str(rig.path))
        waiting.sendall(encode_request(Status()))
        rig.turns(3)
        before_s = time.process_time()
        with suppress(TimeoutError):
            waiting.settimeout(0.3)
            waiting.recv(1)
        spent_s = time.process_time() - before_s
    finally:
        for fd in used:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert spent_s < 0.15
    rig.pass_s(1.1)
    waiting.settimeout(DEADLINE_S)
    assert json.loads(read_all(waiting))["ok"]
    waiting.close()


def test_what_a_forked_child_closes_goes_on_in_the_parent(rig):
    with rig.connect() as client:
        client.sendall(encode_request(Reload()))
        _, done = rig.overseer.next()

        def fork():
            pid = os.fork()
            if pid == 0:
                status = 1
                with suppress(BaseException):
                    rig.control.abandon()
                    status = 0
                os._exit(status)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        with _forking_with_threads():
            assert rig.call(fork) == 0
        rig.call(lambda: done(None))
        assert json.loads(read_all(client)) == {"ok": True}
    assert remote.ask(rig.path, Status())["ok"]


@contextmanager
def _forking_with_threads():
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # this process has threads, a master none
        yield


# -- a master that becomes another program ----------------------------------


def test_who_waits_is_answered_by_the_next_image(rig):
    waiting, half, done_with = rig.connect(), rig.connect(), rig.connect()
    waiting.sendall(encode_request(Reload()))
    rig.overseer.next()
    half.sendall(b'{"command":"sta')
    done_with.close()
    rig.turns(3)

    def become():
        clients = rig.control.handover()
        assert [text for _, text in clients] == ['{"command":"reload"}\n', '{"command":"sta']
        assert all(os.get_inheritable(fd) for fd, _ in clients)
        rig.control.take_back()
        assert not any(os.get_inheritable(fd) for fd, _ in clients)
        rig.control.handover()
        # As execve has it: the old object is gone without a word, descriptors stay.
        listener = os.dup(rig.control.listener.fileno())
        kept = [(os.dup(fd), text) for fd, text in clients]
        rig._forget(rig.control._callers.fileno())
        rig.control.abandon()
        rig.control = rig.new(socket.socket(fileno=listener))
        dones = [rig.control.adopt(fd, text) for fd, text in kept]
        assert not any(os.get_inheritable(fd) for fd, _ in kept)
        return dones

    done, none = rig.call(become)
    assert none is None
    half.sendall(b'tus"}\n')
    assert json.loads(read_all(half))["status"] == status(2)
    rig.call(lambda: done(None))
    assert json.loads(read_all(waiting)) == {"ok": True}
    assert remote.ask(rig.path, Status())["ok"]
    waiting.close()
    half.close()


IMAGE = """
import json, os, selectors, socket, sys
from pathlib import Path
from prefork.control.server import Control
from prefork.control.places import open_control

class Overseer:
    def reload(self, done):
        global again
        again = True

again = False
selector = selectors.DefaultSelector()
def watch(fd, call): selector.register(fd, selectors.EVENT_READ, call)
generation, listener, *clients = json.loads(sys.argv[2])
sock = socket.socket(fileno=listener) if generation else open_control(Path(sys.argv[1]))
control = Control(sock, Overseer(), watch, selector.unregister)
for done in [control.adopt(fd, text) for fd, text in clients]:
    done(f"generation {generation}")
print("READY", flush=True)
while not again:
    for key, _ in selector.select():
        key.data()
os.set_inheritable(control.listener.fileno(), True)
state = [generation + 1, control.listener.fileno(), *control.handover()]
os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:-1], json.dumps(state)])
"""


def test_a_reload_is_answered_by_what_the_master_has_become(tmp_path):
    path = tmp_path / "s"
    command = [sys.executable, "-c", IMAGE, path, "[0, -1]"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as master:
        assert master.stdout.readline() == "READY\n"
        for generation in (1, 2, 3):
            with pytest.raises(remote.RemoteError, match=f"^generation {generation}$"):
                remote.ask(path, Reload())
        master.kill()


def test_an_adopted_client_that_has_gone_is_dropped(rig):
    ours, theirs = socket.socketpair()
    theirs.close()
    fd = ours.detach()
    done = rig.call(lambda: rig.control.adopt(fd, '{"command":"reload"}\n'))
    rig.turns(2)
    rig.call(lambda: done(None))
    assert rig.call(rig.control.handover) == []


def test_at_the_end_who_waits_is_told_and_the_file_goes(rig):
    with rig.connect() as client:
        client.sendall(encode_request(Reload()))
        rig.overseer.next()
        rig.turns()
        rig.call(rig.control.close)
        assert json.loads(read_all(client))["reason"] == "the master has ended"
    assert not rig.path.exists()
    rig.call(rig.control.close)


def test_the_end_leaves_the_file_of_a_successor_alone(tmp_path):
    path = tmp_path / "s"
    with rig_at(path) as rig:
        path.unlink()
        with rig_at(path):
            rig.call(rig.control.close)
            assert remote.ask(path, Status())["ok"]


# -- the socket's file -----------------------------------------------------


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_file_has_its_mode_whatever_the_umask(tmp_path, mode, umask):
    before = os.umask(umask)
    try:
        open_control(tmp_path / "new" / "deep" / "s", mode).close()
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "new" / "deep" / "s") == mode
    assert mode_of(tmp_path / "new") == mode_of(tmp_path / "new" / "deep") == 0o755


def test_a_folder_that_is_there_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o711)
    open_control(tmp_path / "s").close()
    assert mode_of(tmp_path) == 0o711


def test_the_file_is_never_wider_than_its_mode(tmp_path):
    """What bind() has made is seen at the chmod() after it; listen() comes last."""
    modes = []

    def watch(event, args):
        if event == "os.chmod" and str(args[0]) == str(tmp_path / "s"):
            modes.append(mode_of(tmp_path / "s"))

    _hook(watch)
    before = os.umask(0)
    try:
        open_control(tmp_path / "s", 0o640).close()
    finally:
        os.umask(before)
        _hook(None)
    assert modes == [0o600]
    assert mode_of(tmp_path / "s") == 0o640


_hooks = []


def _hook(function):
    if not _hooks:
        _hooks.append(None)
        sys.addaudithook(lambda event, args: _hooks[0] and _hooks[0](event, args))
    _hooks[0] = function


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to any group")
def test_a_group_by_name_or_number_gets_the_file(tmp_path):
    open_control(tmp_path / "a", 0o660, "daemon").close()
    open_control(tmp_path / "b", 0o660, "12345").close()
    open_control(tmp_path / "c", 0o660, 54321).close()
    gids = [(tmp_path / name).stat().st_gid for name in "abc"]
    assert gids[1:] == [12345, 54321]
    assert gids[0] != os.getegid()


def test_an_unknown_group_is_an_error_that_leaves_nothing(tmp_path):
    with pytest.raises(StartError, match="no group is named 'nobody-has-it'"):
        open_control(tmp_path / "s", 0o660, "nobody-has-it")
    assert list(tmp_path.iterdir()) == []


def test_a_dead_masters_socket_is_replaced_and_a_live_ones_refused(tmp_path):
    path = tmp_path / "s"
    open_control(path).close()
    with open_control(path), pytest.raises(StartError, match="in use by a running server"):
        open_control(path)
    assert path.exists()


def test_a_file_that_is_no_socket_is_not_removed(tmp_path):
    (tmp_path / "s").write_text("precious")
    with pytest.raises(StartError, match="no socket"):
        open_control(tmp_path / "s")
    assert (tmp_path / "s").read_text() == "precious"


def test_a_path_that_does_not_fit_is_an_error(tmp_path):
    with pytest.raises(StartError, match="over 107 bytes"):
        open_control(tmp_path / ("x" * 107))


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="cannot open the control socket"):
        open_control(tmp_path / "file" / "s")


# -- the default places ----------------------------------------------------


def test_the_places_of_a_config_in_their_order():
    found = default_control_path("/etc/prefork/web.site.toml", 7, {"XDG_RUNTIME_DIR": "/run/u/7"})
    assert list(map(str, found)) == [
        "/run/prefork/web.site/control.sock",
        "/run/u/7/prefork/web.site/control.sock",
        "/tmp/prefork-7/web.site/control.sock",
    ]
    without = default_control_path("web.toml", 7, {"XDG_RUNTIME_DIR": "relative"})
    assert list(map(str, without)) == [
        "/run/prefork/web/control.sock",
        "/tmp/prefork-7/web/control.sock",
    ]


def test_the_first_place_that_can_be_made_is_taken_and_is_private(tmp_path):
    paths = [
        Path("/proc/nowhere/prefork/web/control.sock"),
        tmp_path / "prefork" / "web" / "control.sock",
        tmp_path / "other" / "web" / "control.sock",
    ]
    assert usable_control_path(paths, os.geteuid()) == paths[1]
    assert mode_of(tmp_path / "prefork") == mode_of(tmp_path / "prefork" / "web") == 0o700
    assert not (tmp_path / "other").exists()


def test_a_place_that_others_have_prepared_is_not_taken(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    paths = [tmp_path / "open" / "w" / "control.sock", tmp_path / "link" / "w" / "control.sock"]
    with pytest.raises(StartError, match="no place for the control socket"):
        usable_control_path(paths, os.geteuid())
    theirs = [tmp_path / "web" / "w" / "control.sock"]
    (tmp_path / "web").mkdir()
    with pytest.raises(StartError, match="no place"):
        usable_control_path(theirs, os.geteuid() + 1)


# -- finding a master ------------------------------------------------------


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """A user's own runtime directory: /run/prefork is the machine's, and may be in use."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


def place(runtime, stem):
    return runtime / "prefork" / stem / "control.sock"


def paths_of(runtime, config):
    return [p for p in default_control_path(config, os.geteuid()) if p.is_relative_to(runtime)]


def test_the_master_of_a_config_is_found_in_its_default_place(tmp_path, runtime):
    config = tmp_path / "web.toml"
    config.touch()
    with rig_at(place(runtime, "web")) as rig:
        rig.overseer.config = str(config)
        found = finding.find_of_config(config, paths_of(runtime, config), os.geteuid())
        assert found == rig.path
        (tmp_path / "link").symlink_to(tmp_path)
        linked = tmp_path / "link" / "web.toml"
        assert finding.find_of_config(linked, [rig.path], os.geteuid()) == rig.path


def test_the_master_of_another_config_of_that_name_is_not_taken_for_it(tmp_path, runtime):
    config = tmp_path / "web.toml"
    config.touch()
    with rig_at(place(runtime, "web")), pytest.raises(remote.RemoteError) as caught:
        finding.find_of_config(config, paths_of(runtime, config), os.geteuid())
    assert "is that of /etc/prefork/web.toml" in str(caught.value)


def test_a_config_that_was_deleted_is_known_by_its_path(tmp_path, runtime):
    config = tmp_path / "web.toml"
    with rig_at(place(runtime, "web")) as rig:
        rig.overseer.config = str(config)
        assert finding.find_of_config(config, [rig.path], os.geteuid()) == rig.path


def test_no_master_is_an_error_that_names_where_was_looked(tmp_path, runtime):
    config = tmp_path / "web.toml"
    paths = paths_of(runtime, config)
    with pytest.raises(remote.RemoteError) as caught:
        finding.find_of_config(config, paths, os.geteuid())
    assert str(caught.value) == f"no master of {config} runs: nothing at {paths[0]}"
    open_control(paths[0]).close()
    with pytest.raises(remote.RemoteError, match="nobody listens there any more"):
        finding.find_of_config(config, paths, os.geteuid())


def test_the_only_master_needs_no_name(runtime, monkeypatch):
    monkeypatch.setattr(
        finding,
        "found_control_paths",
        lambda uid: [p for p in found_control_paths(uid) if p.is_relative_to(runtime)],
    )
    with pytest.raises(remote.RemoteError, match="no master runs in the default places: name"):
        finding.find_only(os.geteuid())
    open_control(place(runtime, "dead")).close()
    with pytest.raises(remote.RemoteError, match=r"dead/control.sock: nobody listens there"):
        finding.find_only(os.geteuid())
    with rig_at(place(runtime, "web")) as web:
        assert finding.find_only(os.geteuid()) == web.path
        with rig_at(place(runtime, "api")) as api, pytest.raises(remote.RemoteError) as caught:
            finding.find_only(os.geteuid())
    assert f"2 masters run: name a CONFIG, or --socket one of {api.path}, {web.path}" in str(
        caught.value
    )


# -- masters that are not well ---------------------------------------------


@pytest.fixture
def listener(tmp_path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        sock.settimeout(DEADLINE_S)
        yield sock


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "ended the conversation before its answer"),
        (b'{"ok": tr', "ended the conversation before its answer"),
        (b"HTTP/1.1 400 Bad Request\n", "not one of a prefork master"),
        (b'{"ok": 1}\n', "not one of a prefork master"),
        (b"[]\n", "not one of a prefork master"),
        (b'{"ok": false}\n', "without a reason"),
    ],
)
def test_an_answer_that_is_none_is_an_error(tmp_path, listener, said, reason):
    with asking(remote.ask, tmp_path / "s", Reload()) as outcome, listener.accept()[0] as accepted:
        accepted.recv(4096)
        accepted.sendall(said)
        accepted.shutdown(socket.SHUT_RDWR)
    assert reason in str(outcome[0])


def test_a_reset_is_an_error_too(tmp_path, listener):
    with asking(remote.ask, tmp_path / "s", Reload()) as outcome:
        listener.accept()[0].close()
    assert isinstance(outcome[0], remote.RemoteError)


@pytest.mark.usefixtures("listener")
def test_a_master_that_is_stopped_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PATIENCE_S", 0.05)
    with pytest.raises(remote.RemoteError, match="does not answer"):
        remote.ask(tmp_path / "s", Status())


def test_the_pid_of_another_container_is_not_waited_for(tmp_path, listener):
    """What listens says another PID than the kernel: only the end of the conversation counts."""
    init = 1
    with (
        asking(remote.stop, tmp_path / "s", now=False) as outcome,
        listener.accept()[0] as accepted,
    ):
        accepted.recv(4096)
        accepted.sendall(b'{"ok":true,"pid":%d}\n' % init)
        accepted.shutdown(socket.SHUT_RDWR)
    assert outcome == [None]
