"""Each limit of the HTTP engine: what happens to who goes beyond it, and to the others."""

import contextlib
import signal

import pytest
from harness import COMMAND, DEADLINE_S, Daemon, wait_until
from http_rig import App, Client, cpu_s
from test_http_bodies import CHUNKED, EXPECT, chunk

SIZES = {
    "line_bytes": 100,
    "field_bytes": 120,
    "fields": 10,
    "head_bytes": 500,
    "body_bytes": 1000,
    "prefetch_bytes": 100,
    "drain_bytes": 200,
    "keep_alive_requests": 5,
}
TIMES = {
    "head_s": 0.5,
    "keep_alive_s": 0.7,
    "body_stall_s": 0.4,
    "write_stall_s": 0.4,
    "lingering_s": 0.4,
}
STYLES = {
    "inline": {"threads": 0},
    "threads": {"threads": 4},
    "kept": {"threads": 4, "handler": "Custom"},
}
#: More than the kernel's buffers take.
HUGE = 50_000_000


@pytest.fixture(scope="module", params=STYLES)
def style(request):
    return STYLES[request.param]


@pytest.fixture(scope="module")
def app(style):
    with App(limits=SIZES, **style) as app:
        yield app
        assert app.stop() == 0
        assert app.log.text().count("worker.died") == 1, "a test has ended the worker"


@pytest.fixture
def client(app):
    with app.connect() as client:
        yield client


@pytest.fixture(scope="module")
def hasty(style):
    with App(limits=TIMES, **style) as app:
        yield app
        assert app.stop() == 0
        assert app.log.text().count("worker.died") == 1, "a test has ended the worker"


# -- sizes ------------------------------------------------------------------------


def refused(client, status):
    answer = client.answer()
    return (answer.status, answer["Connection"], client.at_end()) == (status, "close", b"")


def test_a_long_request_line_is_refused_with_414(client):
    client.request("/hello?" + "x" * 100)
    assert refused(client, 414)


def test_a_long_field_is_refused_with_431(client):
    client.request("/hello", fields=["X: " + "x" * 120])
    assert refused(client, 431)


def test_too_many_fields_are_refused_with_431(client):
    client.request("/hello", fields=["X: y"] * 10)
    assert refused(client, 431)


def test_a_large_head_is_refused_with_431(client):
    client.request("/hello", fields=["X: " + "x" * 100] * 6)
    assert refused(client, 431)


def test_what_is_just_within_the_limits_is_answered(client):
    line = "GET /hello?? HTTP/1.1"
    path = "/hello?" + "x" * (100 - len(line) + 1)
    fields = ["X: " + "x" * 117, "X: " + "x" * 117, *["X: y"] * 7]
    assert client.ask(path, fields=fields).body == b"hello"


def test_a_large_body_is_refused_with_413_before_it_is_read(client):
    client.request("/echo", "POST", fields=[*EXPECT, "Content-Length: 1001"])
    assert refused(client, 413)


def test_a_large_chunked_body_is_refused_with_413(client):
    client.request("/echo", "POST", fields=CHUNKED, body=chunk(b"x" * 600) * 2)
    assert refused(client, 413)


def test_the_last_answer_of_a_connection_says_close(client):
    for _ in range(4):
        assert client.ask("/hello")["Connection"] is None
    assert client.ask("/hello")["Connection"] == "close"
    assert client.at_end() == b""


def test_the_last_answer_says_close_even_if_the_handler_says_keep_alive(client):
    answers = [client.ask("/says?connection=keep-alive") for _ in range(5)]
    assert answers[-1]["Connection"] == "close"
    assert client.at_end() == b""


def test_requests_beyond_the_last_are_not_answered(client):
    for _ in range(20):
        client.request("/hello")
    answers = [client.answer() for _ in range(5)]
    assert [answer.body for answer in answers] == [b"hello"] * 5
    assert client.has_ended()


def test_a_body_within_prefetch_bytes_is_complete_before_the_handler_is_called(app, client):
    if "Custom" in app.command[-1]:
        pytest.skip("it reads by itself")
    client.request("/asks", "POST", fields=["Content-Length: 100"])
    client.send(b"x" * 99)
    assert app.ask("/hello").body == b"hello"
    client.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.sock.recv(1)
    client.sock.settimeout(DEADLINE_S)
    client.send(b"x")
    assert client.answer().interim == [(102, [])]


def test_the_handler_is_called_at_once_for_a_body_above_prefetch_bytes(client):
    client.request("/asks", "POST", fields=["Content-Length: 101"])
    assert client.file.readline() == b"HTTP/1.1 102 Processing\r\n"
    client.file.readline()
    client.send(b"x" * 101)
    assert client.answer().body == b"x" * 101


@pytest.mark.parametrize(("size", "stays"), [(200, True), (201, False)])
def test_an_unread_body_up_to_drain_bytes_is_dropped(client, size, stays):
    assert client.ask("/refuse", "POST", body=b"x" * size).status == 403
    assert client.is_open() is stays


# -- times ------------------------------------------------------------------------


def half_a_head(client):
    client.send(b"GET /hello HT")


def half_a_second_head(client):
    client.ask("/hello")
    client.send(b"GET /hello HT")


def half_a_form(client):
    client.request("/echo", "POST", fields=["Content-Length: 1000"])
    client.send(b"x" * 500)


def half_a_large_body(client):
    client.request("/echo", "POST", fields=["Content-Length: 100000"])
    client.send(b"x" * 70_000)


def half_a_chunked_body(client):
    client.request("/echo", "POST", fields=CHUNKED, body=chunk(b"x"))


def test_heads_and_bodies_that_take_too_long_are_answered_with_408(hasty):
    with contextlib.ExitStack() as stack:
        late = [half_a_head, half_a_second_head, half_a_form, half_a_large_body]
        clients = [stack.enter_context(hasty.connect()) for _ in range(5)]
        for client, be_late in zip(clients, [*late, half_a_chunked_body], strict=True):
            be_late(client)
        answers = [client.answer() for client in clients]
        assert [answer.status for answer in answers] == [408] * 5
        assert [answer["Connection"] for answer in answers] == ["close"] * 5
        assert [client.at_end() for client in clients] == [b""] * 5


def test_clients_that_say_nothing_or_nothing_more_are_let_go(hasty):
    with hasty.connect() as new, hasty.connect() as parked, hasty.connect() as unread:
        parked.ask("/hello")
        unread.request("/refuse", "POST", fields=["Content-Length: 60000"])
        unread.send(b"x" * 50)
        assert [client.at_end()[:20] for client in (new, parked)] == [b"", b""]
        assert unread.at_end()[:13] in (b"HTTP/1.1 403 ", b"HTTP/1.1 408 ")


def test_a_client_that_takes_nothing_is_let_go_and_its_handler_too(hasty):
    """Of HUGE the handler waits for the client; of the rest, where it is less, the loop does."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(hasty.connect(receive_bytes=4096)) for _ in range(2)]
        for client, size in zip(clients, (4_200_000, HUGE), strict=True):
            client.request(f"/big?size={size}")
            assert client.file.readline() == b"HTTP/1.1 200 OK\r\n"
        wait_until(lambda: hasty.ask("/sockets").json() == 1)
        assert len(clients[0].at_end()) < 4_200_000
        assert len(clients[1].at_end()) < HUGE


def send_for_ever(client):
    while True:
        client.send(b"x")


def test_a_client_that_sends_on_after_the_last_answer_is_let_go(hasty):
    with hasty.connect() as client:
        client.request("/refuse", "POST", fields=["Content-Length: 10000000"])
        assert client.answer().status == 403
        with pytest.raises(ConnectionError):
            send_for_ever(client)


@pytest.mark.parametrize("threads", [0, 4])
def test_a_handlers_own_timeout_takes_the_place_of_the_times(threads):
    with App(threads=threads, timeout=0.3) as app:
        with app.connect() as idle, app.connect() as parked, app.connect() as stalled:
            parked.ask("/hello")
            stalled.request("/echo", "POST", fields=["Content-Length: 100000"], body=b"x")
            assert [c.at_end() for c in (idle, parked, stalled)] == [b"", b"", b""]
        assert app.stop() == 0


# -- numbers ----------------------------------------------------------------------


@pytest.mark.parametrize("threads", [0, 4])
def test_clients_beyond_the_number_of_connections_wait_until_one_has_gone(threads):
    with App(threads=threads, limits={"connections": 3}) as app, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(app.connect()) for _ in range(6)]
        for client in clients:
            client.request("/hello")
        for client in clients[:3]:
            assert client.answer().body == b"hello"
        clients[3].sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            clients[3].sock.recv(1)
        clients[3].sock.settimeout(DEADLINE_S)
        for gone, client in zip(clients[:3], clients[3:], strict=True):
            gone.close()
            assert client.answer().body == b"hello"
        stack.close()
        assert app.stop() == 0


@pytest.mark.parametrize("threads", [0, 4])
def test_a_worker_short_of_descriptors_neither_spins_nor_dies_and_serves_again(threads):
    with App(threads=threads, nofile=32) as app, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(app.connect()) for _ in range(40)]
        app.log.wait_for("worker.short .*Too many open files")
        (worker,) = app.workers()
        before_s = cpu_s(worker)
        for _ in range(50):
            assert clients[1].ask("/hello").body == b"hello"
        assert cpu_s(worker) - before_s < 0.3
        for client in clients[:30]:
            client.close()
        for client in clients[30:]:
            assert client.ask("/hello").body == b"hello"
        assert app.workers() == [worker]
        stack.close()
        assert app.stop() == 0


def test_a_worker_short_of_descriptors_can_be_stopped():
    with App(nofile=32) as app, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(app.connect()) for _ in range(26)]
        app.log.wait_for("worker.short .*Too many open files")
        app.send(signal.SIGTERM)
        assert app.wait() == 0
        assert {client.at_end() for client in clients} <= {b"", b"reset"}


@pytest.mark.parametrize("threads", [0, 4])
def test_up_to_buffer_bytes_an_answer_does_not_hold_its_handler(threads):
    """What the kernel takes is unknown; so the handler of HUGE never returns without a reader."""
    size = 30_000_000
    with App(threads=threads, limits={"buffer_bytes": 60_000_000}) as app:
        with app.connect() as client:
            client.request(f"/big?size={size}")
            wait_until(lambda: app.notes("big") == [size])
            assert len(client.answer().body) == size
        assert app.stop() == 0


def test_above_buffer_bytes_a_handler_waits_for_its_client():
    with App(threads=4) as app:
        with app.connect() as client:
            client.request(f"/big?size={HUGE}")
            assert client.file.peek(1)
            for _ in range(10):
                assert app.facts()["rss_kb"] < 40_000
            assert app.notes("big") == []
            assert len(client.answer().body) == HUGE
            wait_until(lambda: app.notes("big") == [HUGE])
        assert app.stop() == 0


def test_a_worker_takes_no_more_clients_than_it_has_descriptors_to_send_files_to(tmp_path):
    (tmp_path / "large").write_bytes(b"x" * 1_000_000)
    limited = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh"]
    command = [*limited, COMMAND, tmp_path, "0", "-b", "127.0.0.1", "-w", "1"]
    with Daemon(command) as daemon, contextlib.ExitStack() as stack:
        daemon.wait_notified("READY=1")
        port = int(daemon.log.wait_for(r"master\.listening .*\bat=127\.0\.0\.1:(\d+)")[1])
        address = "127.0.0.1", port
        clients = [stack.enter_context(Client(address)) for _ in range(60)]
        daemon.log.wait_for("worker.short .*as many clients")
        assert len(clients[0].ask("/large").body) == 1_000_000
