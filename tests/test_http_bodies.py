"""Bodies of requests: where they end, when they are asked for, and what becomes of the rest."""

import pytest
from http_rig import App

STYLES = {
    "inline": {"threads": 0},
    "threads": {"threads": 4},
    "kept": {"threads": 4, "handler": "Custom"},
}
CHUNKED = ["Transfer-Encoding: chunked"]
EXPECT = ["Expect: 100-continue"]
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module", params=STYLES)
def app(request):
    with App(**STYLES[request.param]) as app:
        yield app
        assert app.stop() == 0
        assert app.log.text().count("worker.died") == 1, "a test has ended the worker"


@pytest.fixture
def client(app):
    with app.connect() as client:
        yield client


@pytest.fixture
def is_inline(app):
    return '"threads": 0' in app.command[-1]


def chunk(data, extension=b""):
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


def tried(app, port):
    return [what for who, *what in app.notes("tries") if who == port]


# -- the end of a body ------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 8192, 65536, 65537, 3_000_000])
def test_a_body_arrives_as_it_was_sent(client, size):
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    answer = client.ask("/echo", "POST", body=body, fields=[f"Content-Length: {size}"])
    assert answer.body == body
    assert client.is_open()


def test_a_chunked_body_arrives_without_its_coding_extensions_and_trailers(client):
    body = chunk(b"hello ", b";a=b") + chunk(b"world" * 20000) + b"0\r\nX-Trailer: 1\r\n\r\n"
    answer = client.ask("/echo", "POST", body=body, fields=CHUNKED)
    assert answer.body == b"hello " + b"world" * 20000
    assert client.is_open()


def test_a_body_can_be_peeked_at_and_read_by_lines(client):
    answer = client.ask("/lines_of_body", "POST", body=b"one\ntwo\nthree")
    assert answer.json() == ["o", "one\n", "two\n", "three"]


def test_what_follows_a_chunked_body_is_the_next_request(client):
    client.request("/echo", "POST", body=chunk(b"a") + b"0\r\n\r\n", fields=CHUNKED)
    client.request("/echo", "POST", body=b"b")
    assert [client.answer().body, client.answer().body] == [b"a", b"b"]


def test_a_request_without_a_body_leaves_nothing_of_its_rfile_to_the_next(client):
    for n in range(3):
        assert client.ask("/echo").body == b""
        assert client.ask("/echo", "POST", body=b"%d" % n).body == b"%d" % n
        assert client.ask("/refuse", "POST", body=b"unread").body == b"no"


def test_a_body_is_cut_short_by_its_client_and_the_handler_is_told(app):
    for body, fields in [
        (b"x" * 1000, ["Content-Length: 100000"]),
        (b"5\r\nhel", CHUNKED),
        (b"5\r\nhello\r\n", CHUNKED),
        (b"5\r\nhello\r\n0\r\n", CHUNKED),
    ]:
        with app.connect() as client:
            client.request("/tries", "POST", body=body, fields=fields)
            client.end()
            assert client.answer().status == 400
            assert client.at_end() == b""
            ((name, _),) = tried(app, client.port)
            assert name == "CutShortError"  # a ConnectionResetError


def test_a_small_body_that_is_cut_short_reaches_no_handler(app):
    with app.connect() as client:
        client.request("/tries", "POST", body=b"xyz", fields=["Content-Length: 100"])
        client.end()
        data = client.at_end()
        assert data == b"" or data.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 500 "))
        assert [name for name, _ in tried(app, client.port) if name == "read"] == []


def test_bad_chunks_are_the_clients_fault(client):
    client.request("/echo", "POST", body=b"zz\r\n", fields=CHUNKED)
    assert client.answer().status == 400
    assert client.at_end() == b""


def test_bad_chunks_after_the_head_leave_an_answer_that_is_seen_to_be_cut(client):
    client.request("/late", "POST", body=b"zz\r\n", fields=CHUNKED)
    answer = client.answer()
    assert (answer.body, answer.is_whole) == (b"begun ", False)
    assert client.at_end() == b""


# -- Expect: 100-continue ------------------------------------------------------------


@pytest.mark.parametrize("size", [5, 100_000])
def test_the_client_is_asked_for_the_body_when_the_handler_first_reads_it(client, size):
    client.request("/asks", "POST", fields=[*EXPECT, f"Content-Length: {size}"])
    assert client.file.readline() == b"HTTP/1.1 102 Processing\r\n"
    assert client.file.readline() == b"\r\n"
    assert client.file.readline() == b"HTTP/1.1 100 Continue\r\n"
    assert client.file.readline() == b"\r\n"
    client.send(b"x" * size)
    answer = client.answer()
    assert (answer.interim, answer.body) == ([], b"x" * size)
    assert client.is_open()


def test_the_client_is_asked_for_a_chunked_body(client):
    client.request("/echo", "POST", fields=[*EXPECT, *CHUNKED])
    assert client.file.readline() == b"HTTP/1.1 100 Continue\r\n"
    client.file.readline()
    client.send(chunk(b"hello") + b"0\r\n\r\n")
    assert client.answer().body == b"hello"
    assert client.is_open()


def test_a_client_that_is_refused_is_never_asked_and_what_it_sends_is_no_request(client):
    client.request("/refuse", "POST", fields=[*EXPECT, f"Content-Length: {len(SMUGGLED)}"])
    answer = client.answer()
    assert (answer.status, answer.interim) == (403, [])
    client.send(SMUGGLED)
    assert client.has_ended()


def test_a_client_that_does_not_wait_is_not_asked(client):
    client.request("/asks", "POST", fields=EXPECT, body=b"hello")
    answer = client.answer()
    assert [status for status, _ in answer.interim] == [102]
    assert answer.body == b"hello"
    assert client.is_open()


def test_an_http_1_0_client_is_never_asked(client):
    client.request("/echo", "POST", fields=[*EXPECT, "Content-Length: 5"], version="1.0")
    client.send(b"hello")
    answer = client.answer()
    assert (answer.interim, answer.body) == ([], b"hello")


# -- what nobody has read ---------------------------------------------------------------


def test_a_small_body_that_nobody_reads_is_dropped_and_the_connection_stays(client):
    for size in (1, 1000, 65536):
        body = SMUGGLED + b"x" * (size - len(SMUGGLED)) if size > 100 else b"x"
        assert client.ask("/refuse", "POST", body=body).status == 403
    assert client.is_open()


def test_a_body_that_is_read_in_part_is_dropped_to_its_end(client):
    body = b"y" * 10 + SMUGGLED * 100
    assert client.ask("/some?n=10", "POST", body=body).body == b"y" * 10
    assert client.is_open()


def test_a_large_body_that_nobody_reads_ends_the_connection_after_the_answer(client):
    body = SMUGGLED * 20000
    client.request("/refuse", "POST", fields=[f"Content-Length: {len(body)}"])
    assert client.answer().status == 403
    client.send(body)
    assert client.has_ended()


def test_a_small_chunked_body_that_nobody_reads_is_dropped_and_the_connection_stays(client):
    body = chunk(SMUGGLED) * 10 + b"0\r\n\r\n"
    assert client.ask("/refuse", "POST", body=body, fields=CHUNKED).status == 403
    assert client.is_open()


def test_a_large_chunked_body_that_nobody_reads_ends_the_connection(client):
    client.request("/refuse", "POST", fields=CHUNKED)
    assert client.answer().status == 403
    client.send(chunk(b"x" * 65536) * 3)
    assert client.has_ended()


def test_a_bad_chunk_in_a_body_that_nobody_reads_ends_the_connection(client):
    client.request("/refuse", "POST", fields=CHUNKED, body=chunk(b"x") + b"zz\r\n" + SMUGGLED)
    assert client.answer().status == 403
    assert client.has_ended()


# -- slow and hostile bodies --------------------------------------------------------------


def test_a_slow_form_keeps_nobody_waiting(app):
    with app.connect() as slow:
        slow.request("/echo", "POST", fields=["Content-Length: 10"])
        for byte in b"0123456789":
            assert app.ask("/hello").body == b"hello"
            slow.send(bytes([byte]))
        assert slow.answer().body == b"0123456789"
        assert slow.is_open()


def test_a_large_slow_body_keeps_nobody_waiting_where_there_are_threads(app, is_inline):
    if is_inline:
        pytest.skip("an inline handler is the only one")
    with app.connect() as slow:
        slow.request("/size", "POST", fields=["Content-Length: 1000000"])
        for _ in range(10):
            slow.send(b"x" * 100_000)
            assert app.ask("/hello").body == b"hello"
        assert slow.answer().json() == {"size": 1_000_000}


def test_a_megabyte_in_chunks_of_one_byte_costs_little(app):
    before = app.facts()
    with app.connect() as client:
        client.request("/size", "POST", fields=CHUNKED)
        for _ in range(100):
            client.send(b"1\r\nx\r\n" * 10_000)
        client.send(b"0\r\n\r\n")
        assert client.answer().json() == {"size": 1_000_000}
    after = app.facts()
    assert after["pid"] == before["pid"]
    assert after["cpu_s"] - before["cpu_s"] < 1.5  # CVE-2025-69229


def test_memory_is_not_set_aside_for_a_length_that_is_only_claimed(app, is_inline):
    before = app.facts()
    with app.connect() as client:
        client.request("/some?n=1000000000", "POST", fields=["Content-Length: 1000000000"])
        client.send(b"x" * 200_000)
        if not is_inline:
            assert app.facts()["rss_kb"] - before["rss_kb"] < 20_000
        client.end()
        assert client.answer().status == 400
    assert app.facts()["rss_kb"] - before["rss_kb"] < 20_000
