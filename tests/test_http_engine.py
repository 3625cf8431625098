"""The engine in a worker: hooks and their failures, threads, many clients, memory."""

import contextlib
import socket
import struct

import pytest
from harness import DEADLINE_S, wait_until
from http_rig import App, cpu_s

REQUEST = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
both = pytest.mark.parametrize("threads", [0, 4])


@pytest.fixture(scope="module", params=[0, 4], ids=["inline", "threads"])
def app(request):
    with App(threads=request.param, limits={"keep_alive_requests": 1_000_000}) as app:
        yield app
        assert app.stop() == 0
        assert app.log.text().count("worker.died") == 1, "a test has ended the worker"


# -- hooks ------------------------------------------------------------------------

HOOKS = ["verify_request", "process_request", "finish_request", "shutdown_request", "close_request"]


@both
@pytest.mark.parametrize("chosen", [HOOKS, *([hook] for hook in HOOKS)], ids="-".join)
def test_overridden_hooks_are_called_once_for_each_client_in_the_stdlibs_order(threads, chosen):
    with App(threads=threads, server_class="Hooked", hooks=chosen) as app:
        with app.connect() as client:
            for _ in range(3):
                assert client.ask("/hello").body == b"hello"
        wait_until(lambda: app.notes(0) == chosen, 5)
        assert app.stop() == 0


@both
def test_a_client_that_is_not_verified_gets_nothing(threads):
    with App(threads=threads, server_class="Picky") as app:
        with app.connect() as client:
            client.request("/hello")
            assert client.at_end() == b""
        assert app.ask("/hello").body == b"hello"
        assert app.stop() == 0
    assert "Traceback" not in app.log.text()


# -- failures ---------------------------------------------------------------------


@both
@pytest.mark.parametrize("handler", ["BadErrors", "BadInit"])
def test_a_handler_that_fails_for_good_costs_its_client_alone_and_is_logged_once(threads, handler):
    with App(threads=threads, handler=handler) as app:
        with app.connect() as client:
            client.request("/raise")
            assert client.at_end().count(b"200 OK") == 0
            port = client.port
        assert app.ask("/hello").body == b"hello"
        assert app.stop() == 0
        app.log.wait_closed()
    text = app.log.text()
    assert text.count(str(port)) == 1
    assert "LookupError: raised in" in text or "ValueError: raised before" in text


@both
def test_an_exception_in_finish_is_logged_and_harms_nobody(threads):
    with App(threads=threads, handler="BadFinish") as app:
        with app.connect() as client:
            assert client.ask("/hello").body == b"hello"
            client.end()
            assert client.at_end() == b""
        app.log.wait_for("LookupError: raised in finish")
        assert app.facts()["threads"] > 0
        assert app.stop() == 0


@pytest.mark.parametrize(
    ("path", "status"), [("/exit", "3"), ("/exitlate", "3"), ("/interrupt", "1")]
)
def test_the_end_of_an_inline_handlers_process_is_never_a_whole_answer(path, status):
    with App(threads=0) as app:
        with app.connect() as client:
            client.request(path)
            with contextlib.suppress(AssertionError):
                answer = client.answer()
                assert answer.status == 500 or not answer.is_whole
        app.log.wait_for(f'worker.died .*cause="exit {status}"')
        assert app.ask("/hello").body == b"hello"
        assert app.stop() == 0


@pytest.mark.parametrize("path", ["/exit", "/exitlate", "/interrupt"])
def test_what_ends_a_thread_ends_its_request_alone_and_is_never_a_whole_answer(path):
    with App(threads=4) as app:
        before = app.facts()
        with app.connect() as client:
            client.request(path)
            data = client.at_end()
        assert not data.endswith(b"0\r\n\r\n")
        assert app.facts()["pid"] == before["pid"]
        wait_until(lambda: app.facts()["fds"] <= before["fds"])
        assert app.stop() == 0


@both
def test_a_timeout_of_the_handlers_own_is_an_exception_like_any_other(threads):
    with App(threads=threads) as app:
        assert app.ask("/timeout").status == 500
        assert app.stop() == 0


# -- threads ----------------------------------------------------------------------


def test_handlers_that_wait_hold_nobody_up():
    with App(threads=64) as app, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(app.connect()) for _ in range(30)]
        for client in waiting:
            client.request("/wait?name=go")
        wait_until(lambda: len(app.notes("waiting")) == 30)
        assert app.facts()["threads"] >= 32
        assert app.ask("/hello").body == b"hello"
        assert app.ask("/set?name=go").body == b"set"
        assert [client.answer().body for client in waiting] == [b"waited"] * 30
        stack.close()
        assert app.stop() == 0


def test_there_are_never_more_threads_than_allowed_and_who_waits_for_one_is_served_later():
    with App(threads=6) as app, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(app.connect()) for _ in range(5)]
        for client in waiting:
            client.request("/wait?name=go")
        wait_until(lambda: len(app.notes("waiting")) == 5)
        waiting += [stack.enter_context(app.connect()) for _ in range(20)]
        for client in waiting[5:]:
            client.request("/facts")
        facts = [client.answer().json() for client in waiting[5:]]
        assert {fact["threads"] for fact in facts} == {7}
        app.ask("/set?name=go")
        assert [client.answer().body for client in waiting[:5]] == [b"waited"] * 5
        stack.close()
        assert app.stop() == 0


def test_handlers_that_keep_their_thread_hold_nobody_up():
    with App(threads=4, handler="Custom") as app, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(app.connect()) for _ in range(20)]
        for _ in range(3):
            assert [client.ask("/hello").body for client in clients] == [b"hello"] * 20
        before = app.facts()
        stack.close()
        wait_until(lambda: app.facts()["threads"] < before["threads"] - 15)
        assert app.stop() == 0


def threads_for_a_crowd():
    with App(threads=64) as app, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(app.connect()) for _ in range(40)]
        for _ in range(20):
            for client in clients:
                client.request("/hello")
            assert [client.answer().body for client in clients] == [b"hello"] * 40
        threads = app.facts()["threads"]
        stack.close()
        assert app.stop() == 0
    return threads


def test_fast_handlers_need_few_threads():
    # Where others take the processor away, fast handlers may look as if they blocked.
    assert any(threads_for_a_crowd() <= 5 for _ in range(10))


# -- many clients -----------------------------------------------------------------


def test_clients_that_only_wait_cost_no_thread_and_hold_nobody_up(app):
    before = app.facts()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(app.connect()) for _ in range(600)]
        for client in clients[:200]:
            client.send(b"GET /hello HTTP/1.1\r\nHo")
        for client in clients[200:300]:
            assert client.ask("/hello").body == b"hello"
        for client in clients[300:400]:
            client.request("/echo", "POST", fields=["Content-Length: 10"], body=b"x")
        for client in clients[500:]:
            client.request("/big?size=400000")  # more than the client has room for
        used = app.facts()
        assert used["threads"] <= max(before["threads"], 5)
        assert used["fds"] >= before["fds"] + 600
        for client in clients[:200]:
            client.send(b"st: a\r\n\r\n")
            assert client.answer().body == b"hello"
    wait_until(lambda: app.facts()["fds"] <= before["fds"] + 1)


def test_clients_that_ask_again_at_once_leave_room_for_new_ones(app):
    """Twelve connections with requests always in the pipe; fairness is a bound on turns."""
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(app.connect()) for _ in range(12)]
        for client in busy:
            for _ in range(3):
                client.send(REQUEST * 500)
        for _ in range(20):
            assert app.ask("/hello").body == b"hello"
        for client in busy:
            assert [client.answer().body for _ in range(1500)] == [b"hello"] * 1500


def test_20000_pipelined_requests_fill_no_memory_and_all_are_answered_in_order(app):
    before = app.facts()
    requests = [b"GET /some?n=0&%05d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(20000)]
    with app.connect(receive_bytes=4096) as client:
        client.sock.setblocking(False)
        data = memoryview(b"".join(requests))
        with contextlib.suppress(BlockingIOError):
            while data:
                data = data[client.sock.send(data[:65536]) :]
                app.ask("/hello")
        after = app.facts()
        assert after["rss_kb"] - before["rss_kb"] < 8000
        client.sock.settimeout(DEADLINE_S)
        answered = 0
        for _ in range(20000):
            if data and answered % 100 == 0:
                data = data[client.sock.send(data[:5000]) :]
            assert client.answer().status == 200
            answered += 1
        assert answered == 20000


def test_a_thousand_clients_that_reset_harm_nobody(app):
    (worker,) = app.workers()
    before = app.facts()
    before_s = cpu_s(worker)
    for n in range(1000):
        with socket.create_connection(app.address, DEADLINE_S) as client:
            client.sendall((b"", REQUEST[:10], REQUEST)[n % 3])
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: app.facts()["fds"] <= before["fds"])
    assert cpu_s(worker) - before_s < 2
    assert app.workers() == [worker]


def test_a_client_that_ends_while_much_is_unread_does_not_spin_the_worker(app):
    """Its last answer is stuck in the kernel, the rest of its body is unread, and it says FIN."""
    (worker,) = app.workers()
    with app.connect(receive_bytes=4096) as client:
        client.request("/big?size=600000", "POST", fields=["Content-Length: 1000000"])
        client.send(b"x" * 100_000)
        wait_until(lambda: app.notes("big")[-1:] == [600_000])
        client.end()
        before_s = cpu_s(worker)
        for _ in range(100):
            assert app.ask("/hello").body == b"hello"
        with app.connect() as other:
            other.sock.settimeout(0.5)
            with pytest.raises(TimeoutError):
                other.sock.recv(1)
        assert cpu_s(worker) - before_s < 0.3


def test_clients_that_came_and_went_leave_nothing_behind(app):
    def visit(count):
        for n in range(count):
            with app.connect() as client:
                client.request("/echo" if n % 2 else "/nolength", "POST", body=b"x" * 100)
                assert client.answer().status == 200
                if n % 5 == 0:
                    client.request("/raise")

    visit(200)
    before = app.facts()
    visit(2000)
    wait_until(lambda: app.facts()["fds"] <= before["fds"])
    after = app.facts()
    assert after["objects"] - before["objects"] < 500
    assert after["rss_kb"] - before["rss_kb"] < 3000
