"""How an HTTP worker ends: by a stop, by retiring, by its heartbeat; and what its clients see."""

import contextlib
import os
import signal
import threading

import pytest
from harness import wait_gone, wait_until
from http_rig import App

both = pytest.mark.parametrize("threads", [0, 4])
REQUEST = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"


@contextlib.contextmanager
def opened(gate):
    """Let the handlers through that wait at a FIFO."""
    writer = os.open(gate, os.O_WRONLY)
    try:
        yield
    finally:
        os.close(writer)


class Load:
    """Clients in threads; a request that was read and not answered is a failure."""

    def __init__(self, app):
        self.app = app
        self.answers = 0
        self.failures = []
        self.stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(visit,))
            for visit in (visit_once, visit_often, visit_with_bodies)
            for _ in range(3)
        ]

    def _run(self, visit):
        while not self.stopping.is_set():
            try:
                client = self.app.connect()
            except OSError:
                self.stopping.wait(0.01)
                continue  # never in
            with client:
                try:
                    visit(self, client)
                except (OSError, AssertionError) as error:
                    self.failures.append(repr(error))

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def wait_for_answers(self, count):
        target = self.answers + count
        wait_until(lambda: self.answers >= target, what=f"{count} answers more")

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self._threads:
            thread.join()


def visit_once(load, client):
    assert client.ask("/hello", fields=["Connection: close"]).body == b"hello"
    load.answers += 1


def visit_often(load, client):
    """Ask until told that it was the last answer."""
    while not load.stopping.is_set():
        answer = client.ask("/hello")
        assert answer.body == b"hello"
        load.answers += 1
        if answer["Connection"] == "close":
            assert client.at_end() == b""
            return


def visit_with_bodies(load, client):
    while not load.stopping.is_set():
        answer = client.ask("/echo", "POST", body=b"x" * 20_000)
        assert answer.body == b"x" * 20_000
        load.answers += 1
        if answer["Connection"] == "close":
            return


# -- a stop ----------------------------------------------------------------------


@both
def test_a_stop_under_load_answers_every_request_that_was_let_in(threads):
    with App(threads=threads, server={"workers": 2}) as app:
        app.log.wait_for("worker.ready", count=2)
        assert app.address
        with Load(app) as load:
            load.wait_for_answers(500)
            assert app.stop() == 0
        assert load.failures == []


@both
def test_a_worker_that_retires_under_load_answers_every_request_that_was_let_in(threads):
    with App(threads=threads, server={"workers": 2}) as app:
        app.log.wait_for("worker.ready", count=2)
        with Load(app) as load:
            for count in (3, 4):
                load.wait_for_answers(200)
                worker = app.workers()[0]
                os.kill(worker, signal.SIGTERM)
                app.log.wait_for("worker.ready", count=count)
                wait_gone(worker)
            load.wait_for_answers(200)
        assert load.failures == []
        assert app.stop() == 0


@both
def test_idle_clients_hold_a_stop_up_for_seconds_not_for_their_time(threads):
    limits = {"lingering_s": 600}  # nobody lingers for them once they have been let go
    options = {"threads": threads, "limits": limits, "server": {"graceful_timeout": 600}}
    with App(**options) as app, app.connect() as new, app.connect() as parked:
        parked.ask("/hello")
        app.send(signal.SIGTERM)
        assert [new.at_end(), parked.at_end()] == [b"", b""]
        assert app.wait() == 0


def test_idle_clients_of_handlers_that_keep_their_thread_are_let_go():
    options = {"threads": 4, "handler": "Custom", "server": {"graceful_timeout": 600}}
    with App(**options) as app, app.connect() as parked:
        parked.ask("/hello")
        app.send(signal.SIGTERM)
        assert parked.at_end() == b""
        assert app.wait() == 0


@both
def test_an_idle_client_that_asks_during_a_stop_is_answered_and_told_to_close(threads):
    with App(threads=threads) as app, app.connect() as client:
        client.ask("/hello")
        app.send(signal.SIGTERM)
        app.log.wait_for("worker.ordered .*order=DRAIN")
        answer = client.ask("/hello")
        assert answer.body == b"hello"
        if answer["Connection"] == "close":
            assert client.at_end() == b""
        client.close()
        assert app.wait() == 0


@both
def test_a_long_request_is_answered_in_a_stop_and_so_are_those_in_the_queue(threads, tmp_path):
    os.mkfifo(tmp_path / "gate")
    with App(tmp_path, threads=threads) as app, contextlib.ExitStack() as stack:
        long = stack.enter_context(app.connect())
        long.request("/gate?name=gate&size=3000000")
        app.out.wait_for("^BEGUN$")
        queued = [stack.enter_context(app.connect()) for _ in range(10)]
        for client in queued:
            client.request("/hello")
        app.send(signal.SIGTERM)
        app.log.wait_for("worker.ordered .*order=DRAIN")
        with opened(tmp_path / "gate"):
            assert len(long.answer().body) == 3_000_000
        assert [client.answer().body for client in queued] == [b"hello"] * 10
        stack.close()
        assert app.wait() == 0


@both
def test_an_answer_on_its_way_to_a_slow_client_is_sent_to_its_end_in_a_stop(threads):
    with App(threads=threads) as app, app.connect(receive_bytes=65536) as client:
        client.request("/big?size=6000000")
        assert client.file.peek(1)
        app.send(signal.SIGTERM)
        app.log.wait_for("worker.ordered .*order=DRAIN")
        assert len(client.answer().body) == 6_000_000
        client.close()
        assert app.wait() == 0


# -- heartbeats ---------------------------------------------------------------------

BEAT = {"heartbeat_timeout": 0.4}


def linger(app, looks=7):
    """Let more than the heartbeat's time pass."""
    pause = threading.Event()
    for _ in range(looks):
        pause.wait(0.1)
    assert "worker.killed" not in app.log.text()


@both
def test_a_handler_that_is_stuck_is_killed_with_its_stack(threads):
    with App(threads=threads, server=BEAT) as app:
        (worker,) = app.workers()
        with app.connect() as client:
            client.request("/stick")
            assert client.has_ended()
        app.log.wait_for(rf"worker\.killed .*pid={worker} reason=\"stuck for ")
        app.log.wait_for(r'File ".*http_app.py", line \d+ in at_stick')
        app.log.wait_for("worker.ready", count=2)
        assert app.ask("/hello").body == b"hello"
        assert app.stop() == 0


@both
def test_a_handler_that_waits_for_its_clients_body_is_not_stuck(threads):
    with App(threads=threads, server=BEAT) as app, app.connect() as client:
        client.request("/size", "POST", fields=["Content-Length: 100000"], body=b"x" * 50_000)
        linger(app)
        client.send(b"x" * 50_000)
        assert client.answer().json() == {"size": 100_000}
        client.close()
        assert app.stop() == 0


@both
def test_a_handler_that_waits_for_a_slow_reader_is_not_stuck(threads):
    with App(threads=threads, server=BEAT) as app, app.connect() as client:
        client.request("/big?size=50000000")
        assert client.file.peek(1)
        linger(app)
        assert len(client.answer().body) == 50_000_000
        client.close()
        assert app.stop() == 0


@both
def test_a_tunnel_that_is_silent_is_not_stuck(threads):
    with App(threads=threads, server=BEAT) as app, app.connect() as client:
        client.request("tunnel:1", "CONNECT")
        client.answer("CONNECT")
        linger(app)
        client.send(b"bye\n")
        assert client.at_end() == b"heard bye\n"
        client.close()
        assert app.stop() == 0


@both
def test_a_handler_that_moves_bytes_all_the_time_is_not_stuck(threads):
    with App(threads=threads, server=BEAT) as app, app.connect() as client:
        client.request("/lines?s=0.7")
        answer = client.answer()
        assert answer.is_whole
        assert set(answer.body.split(b"\n")) == {b"line", b""}
        assert "worker.killed" not in app.log.text()
        client.close()
        assert app.stop() == 0


def test_a_worker_with_idle_clients_is_not_stuck():
    with App(server=BEAT) as app:
        with app.connect() as client, app.connect() as half:
            half.send(b"GET")
            assert client.ask("/hello").body == b"hello"
            linger(app)
            assert client.ask("/hello").body == b"hello"
        assert app.stop() == 0


# -- the end of one connection ------------------------------------------------------------


@both
def test_an_answer_reaches_a_client_that_has_sent_more_than_will_be_read(threads, tmp_path):
    """RFC 9112 section 9.6: to close with unread data is to reset, and the answer is lost."""
    os.mkfifo(tmp_path / "gate")
    with App(tmp_path, threads=threads) as app, app.connect(receive_bytes=4096) as client:
        client.request("/gate?name=gate&size=1000000&close=1")
        app.out.wait_for("^BEGUN$")
        client.send(REQUEST * 10)
        with opened(tmp_path / "gate"):
            answer = client.answer()
        assert (len(answer.body), answer.is_whole) == (1_000_000, True)
        assert client.at_end() == b""
        client.close()
        assert app.stop() == 0


# -- a loop that was held up ----------------------------------------------------------


def test_nobodys_patience_is_counted_while_an_inline_handler_held_the_worker_up(tmp_path):
    """They were in time; that nobody looked is not their fault."""
    os.mkfifo(tmp_path / "gate")
    limits = {"head_s": 0.5, "body_stall_s": 0.5, "write_stall_s": 0.5, "keep_alive_s": 0.5}
    with App(tmp_path, threads=0, limits=limits) as app, contextlib.ExitStack() as stack:
        form, half, parked, long = [stack.enter_context(app.connect()) for _ in range(4)]
        parked.ask("/hello")
        half.send(REQUEST[:10])
        form.request("/echo", "POST", fields=["Content-Length: 2"], body=b"a")
        app.ask("/hello")  # the others have been seen
        long.request("/gate?name=gate&size=8000000")
        app.out.wait_for("^BEGUN$")
        half.send(REQUEST[10:])
        form.send(b"b")
        parked.send(REQUEST)
        threading.Event().wait(1.3)  # longer than any of the times, twice over
        with opened(tmp_path / "gate"):
            assert len(long.answer().body) == 8_000_000
        assert half.answer().body == b"hello"
        assert form.answer().body == b"ab"
        assert parked.answer().body == b"hello"
        stack.close()
        assert app.stop() == 0
