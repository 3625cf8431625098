"""What handlers write and what their clients get: framing, connections, tunnels, and trouble."""

import json
import urllib.parse

import pytest
from harness import wait_until
from http_rig import App

STYLES = {
    "inline": {"threads": 0},
    "threads": {"threads": 4},
    "kept": {"threads": 4, "handler": "Custom"},
    "buffered": {"threads": 0, "handler": "Buffered"},
    "ours": {"threads": 0, "handler": "Ours"},
}


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


def raw(*parts):
    return "/raw?parts=" + urllib.parse.quote(json.dumps(parts))


# -- where an answer ends -------------------------------------------------------


def test_an_answer_without_length_comes_in_chunks_and_the_connection_stays(client):
    answer = client.ask("/nolength")
    assert answer["Transfer-Encoding"] == "chunked"
    assert (answer.body, answer.is_whole) == (b"hello world", True)
    assert client.is_open()


def test_an_answer_without_length_to_an_http_1_0_client_ends_with_the_connection(client):
    answer = client.ask("/nolength", version="1.0", fields=["Connection: keep-alive"])
    assert answer["Transfer-Encoding"] is None
    assert answer["Connection"] == "close"
    assert answer.body == b"hello world"


def test_an_answer_without_length_ends_with_the_connection_where_the_client_closes(client):
    answer = client.ask("/nolength", fields=["Connection: close"])
    assert answer["Connection"] == "close"
    assert (answer.body, answer.is_whole) == (b"hello world", True)
    assert client.at_end() == b""


@pytest.mark.parametrize("path", ["/hello", "/nolength", "/many", "/few", "/ownchunks"])
def test_an_answer_to_head_has_no_body_even_if_the_handler_writes_one(client, path):
    answer = client.ask(path, "HEAD")
    assert answer.status == 200
    if answer["Connection"] is None:
        assert client.ask("/hello").body == b"hello"
    else:
        assert client.at_end() == b""


@pytest.mark.parametrize("status", [204, 304])
def test_204_and_304_have_no_body_even_if_the_handler_writes_one(client, status):
    answer = client.ask(f"/bodyless?status={status}")
    assert answer.status == status
    assert answer["Transfer-Encoding"] is None
    assert client.ask("/hello").body == b"hello"


def test_what_is_written_beyond_the_length_is_never_taken_for_the_next_answer(client):
    client.request("/many")
    client.request("/hello")
    answer = client.answer()
    assert (answer.body, answer.is_whole) == (b"hello", True)
    assert client.has_ended()


def test_what_lacks_of_the_length_ends_the_connection(client):
    client.request("/few")
    client.request("/hello")
    answer = client.answer()
    assert (answer.body, answer.is_whole) == (b"hello", False)


def test_a_handler_that_answers_nothing_ends_the_connection(client):
    client.request("/nothing")
    assert client.at_end() == b""


def test_a_handler_may_make_chunks_itself(client):
    answer = client.ask("/ownchunks")
    assert (answer.body, answer.is_whole) == (b"hello", True)
    assert client.is_open()


def test_a_handler_that_says_length_and_chunked_makes_chunks(client):
    """RFC 9112 section 6.2: nobody may send both; two readers would see two ends."""
    answer = client.ask("/both")
    assert answer["Content-Length"] is None
    assert (answer.body, answer.is_whole) == (b"hello", True)
    assert client.is_open()


def test_write_takes_any_buffer_and_returns_the_number_of_bytes(app, client):
    answer = client.ask("/counts")
    assert answer.body[:4] + answer.body[16:] == b"fourend"
    wait_until(lambda: app.notes("counts")[-4:] == [4, 12, 3, 0])


def test_what_is_written_may_be_overwritten_at_once(client):
    client.request("/reused?size=8000000")
    body = client.answer().body
    assert [body[n : n + 1000] for n in range(0, len(body), 1000)] == [
        bytes([n % 256]) * 1000 for n in range(8000)
    ]


def test_a_flushed_head_is_sent_before_its_body(app, client):
    if "Buffered" in app.command[-1]:
        pytest.skip("the same")
    client.request("/flushed")
    assert client.file.readline() == b"HTTP/1.1 200 OK\r\n"
    client.send(b"go on\n")
    while client.file.readline() != b"\r\n":
        pass
    assert client.file.readline() == b"go on\n"


# -- heads that handlers write by themselves --------------------------------------

HEAD = "HTTP/1.1 200 OK\r\nX: 1\r\n"


def test_a_head_written_byte_by_byte_is_framed_like_any_other(client):
    answer = client.ask(raw(*HEAD, "\r", "\n", "h", "ello"))
    assert answer["Transfer-Encoding"] == "chunked"
    assert (answer["X"], answer.body) == ("1", b"hello")
    assert client.is_open()


def test_a_head_and_a_body_may_be_written_at_once(client):
    answer = client.ask(raw(HEAD + "Content-Length: 5\r\n\r\nhello"))
    assert answer.body == b"hello"
    assert client.is_open()


def test_an_http_1_0_answer_to_an_http_1_1_client_has_no_chunks(client):
    answer = client.ask(raw("HTTP/1.0 200 OK\r\n\r\nhel", "lo"))
    assert answer.version == "HTTP/1.0"
    assert answer["Transfer-Encoding"] is None
    assert answer.body == b"hello"


def test_a_head_that_says_close_is_believed(client):
    answer = client.ask(raw(HEAD + "CONNECTION:  Close\r\nContent-Length: 2\r\n\r\nhi"))
    assert answer.body == b"hi"
    assert client.at_end() == b""


def test_what_is_no_http_goes_out_as_it_is(client):
    client.request(raw("hello", "\r\n\r\nworld"))
    assert client.at_end() == b"hello\r\n\r\nworld"


def test_a_head_that_never_ends_goes_out_as_it_is(client):
    client.request(raw("HTTP/1.1 200 OK\r\nX: 1"))
    assert client.at_end() == b"HTTP/1.1 200 OK\r\nX: 1"


def test_interim_answers_go_before_the_final_one(client):
    answer = client.ask("/early")
    assert answer.interim == [(103, [("Link", "</style.css>; rel=preload")])]
    assert answer.body == b"hello"
    assert client.is_open()


def test_interim_and_final_answers_may_be_written_at_once(client):
    early = "HTTP/1.1 102 Processing\r\n\r\n"
    answer = client.ask(raw(early + early + HEAD + "Content-Length: 1\r\n\r\nx"))
    assert [status for status, _ in answer.interim] == [102, 102]
    assert answer.body == b"x"
    assert client.is_open()


def test_date_and_server_come_once_with_each_answer(client):
    for path in ("/hello", "/nolength", "/refuse"):
        answer = client.ask(path)
        assert len(answer.all_of("Date")) == len(answer.all_of("Server")) == 1


def test_a_handlers_own_date_and_server_take_the_place_of_ours(client):
    answer = client.ask("/dated")
    assert (answer["Date"], answer["Server"]) == ("yesterday", "mine")


# -- tunnels ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/upgrade"), ("CONNECT", "tunnel:1")], ids=["101", "CONNECT"]
)
def test_a_tunnel_carries_bytes_both_ways_until_the_handler_returns(client, method, path):
    fields = ["Connection: Upgrade", "Upgrade: echo"] if method == "GET" else []
    client.request(path, method, fields=fields)
    client.send(b"early\n")  # with the head, or before the answer
    assert client.answer(method).status == (101 if method == "GET" else 200)
    assert client.file.readline() == b"heard early\n"
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    assert client.file.readline() == b"heard GET / HTTP/1.1\r\n"
    assert client.file.readline() == b"heard \r\n"
    client.send(b"bye\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.file.readline() == b"heard bye\n"
    assert client.has_ended()


def test_a_refused_connect_is_an_answer_like_any_other(client):
    answer = client.ask("elsewhere:1", "CONNECT")
    assert (answer.status, answer.body) == (403, b"ok")
    assert client.is_open()


# -- whether the connection stays ------------------------------------------------------


def test_a_client_that_says_close_is_told_so_and_closed(client):
    answer = client.ask("/hello", fields=["Connection: close"])
    assert answer["Connection"] == "close"
    assert client.at_end() == b""


def test_a_handler_that_says_close_closes(client):
    assert client.ask("/says?connection=close")["Connection"] == "close"
    assert client.at_end() == b""


def test_a_handler_that_sets_close_connection_closes(client):
    assert client.ask("/closed")["Connection"] == "close"
    assert client.at_end() == b""


def test_an_http_1_0_client_is_closed_unless_it_says_keep_alive(client):
    assert client.ask("/hello", version="1.0").body == b"hello"
    assert client.at_end() == b""


def test_an_http_1_0_client_that_says_keep_alive_is_told_so_and_kept(client):
    for _ in range(3):
        answer = client.ask("/hello", version="1.0", fields=["Connection: Keep-Alive"])
        assert answer["Connection"].lower() == "keep-alive"
    assert client.ask("/hello", version="1.0").body == b"hello"
    assert client.at_end() == b""


def test_pipelined_requests_are_answered_in_order(client):
    """Mixed methods, bodies read and unread, chunked and not; the last one closes."""
    expected = []
    for n in range(40):
        word = b"%d" % n
        client.request("/echo", "POST", body=word)
        client.request("/nolength")
        client.request("/hello", "HEAD")
        client.request("/refuse", "PUT", body=b"GET /smuggled HTTP/1.1\r\n\r\n")
        chunks = b"1\r\nc\r\n%x\r\n%b\r\n0\r\nX: y\r\n\r\n" % (len(word), word)
        client.request("/echo", "POST", body=chunks, fields=["Transfer-Encoding: chunked"])
        expected += [(200, word), (200, b"hello world"), (200, b""), (403, b"no")]
        expected.append((200, b"c" + word))
    client.request("/hello", fields=["Connection: close"])
    client.request("/hello")  # nobody's
    methods = ["POST", "GET", "HEAD", "PUT", "POST"] * 40
    answers = [client.answer(method) for method in methods]
    assert [(answer.status, answer.body) for answer in answers] == expected
    assert client.answer().body == b"hello"
    assert client.has_ended()


# -- trouble ---------------------------------------------------------------------------


LINES = ["a\r\nSet-Cookie: x", "a\nb", "a\rb", "a\0b", "\r\n\r\nHTTP/1.1 200 OK"]


@pytest.mark.parametrize("text", LINES)
@pytest.mark.parametrize("where", ["key", "value"])
def test_a_header_with_a_line_end_becomes_500_and_nothing_of_it_is_sent(client, text, where):
    query = {"key": "x", "value": "x"} | {where: text}
    client.request("/inject?" + urllib.parse.urlencode(query))
    client.request("/hello")
    answer = client.answer()
    assert answer.status == 500
    assert answer["Set-Cookie"] is None
    assert b"hello" not in answer.body
    assert client.has_ended()


def test_a_status_message_with_a_line_end_becomes_500(client):
    answer = client.ask("/reason?" + urllib.parse.urlencode({"reason": "OK\r\nX: y"}))
    assert (answer.status, answer["X"]) == (500, None)
    assert client.at_end() == b""


def test_an_exception_before_the_head_becomes_500_and_is_logged_once(app, client):
    answer = client.ask("/raise?mark=%1b[31m")
    assert (answer.status, answer["X-Mine"], answer["Connection"]) == (500, None, "close")
    assert client.at_end() == b""
    app.log.wait_for("ValueError: raised before the head")
    text = app.log.text()
    assert text.count("ValueError: raised before the head") == 1
    assert text.count(str(client.port)) == 1
    assert "GET /raise?mark=%1b[31m HTTP/1.1" in text
    assert "in at_raise" in text


@pytest.mark.parametrize("fields", [{}, {"Content-Length": "50"}, {"Transfer-Encoding": "chunked"}])
def test_an_exception_after_the_head_leaves_an_answer_that_is_seen_to_be_cut(app, client, fields):
    client.request("/raiselate?fields=" + urllib.parse.quote(json.dumps(fields)))
    if "Buffered" in app.command[-1]:  # nothing has been sent yet
        assert client.answer().status == 500
    elif "Transfer-Encoding" in fields:
        assert client.at_end().endswith(b"\r\n\r\nhello")
    else:
        answer = client.answer()
        assert (answer.body, answer.is_whole) == (b"hello", False)
    assert client.at_end() == b""
