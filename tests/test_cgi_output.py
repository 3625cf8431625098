"""What a script may say, and what it means: RFC 3875 §6, byte by byte and whole."""

import pytest

from prefork.http.cgi.output import Answer, HeadReader, OutputError, status_of

MOST = 200


def read(data: bytes, size: int, **options):
    """Return the answer and what follows its head, when the data comes in pieces of a size."""
    reader = HeadReader(MOST, **options)
    for at in range(0, len(data), size):
        found = reader.feed(data[at : at + size])
        if found is not None:
            return found[0], found[1] + data[at + size :]
    reader.close()
    raise AssertionError("closed without an error")


TYPE = ("Content-Type", "text/plain")

RIGHT = [
    (b"Content-Type: text/plain\n\nbody", Answer(200, "", (TYPE,)), b"body"),
    (b"Content-Type: text/plain\r\n\r\nbody", Answer(200, "", (TYPE,)), b"body"),
    (b"Content-Type:text/plain \t\r\n\nbody", Answer(200, "", (TYPE,)), b"body"),
    (b"Content-Type: text/plain\n\r\n\n\nbody", Answer(200, "", (TYPE,)), b"\n\nbody"),
    (b"X-Empty:\n\n", Answer(200, "", (("X-Empty", ""),)), b""),
    (b"X-Bytes: \xe9\n\n", Answer(200, "", (("X-Bytes", "\xe9"),)), b""),
    (b"Status: 404\n\n", Answer(404, "", ()), b""),
    (b"status: 404 Gone  away\n\nx", Answer(404, "Gone  away", ()), b"x"),
    (
        b"Status: 201 Created\nLocation: /new\nContent-Type: text/plain\n\n",
        Answer(201, "Created", (("Location", "/new"), TYPE)),
        b"",
    ),
    (
        b"Location: http://a/b\n\n",
        Answer(302, "", (("Location", "http://a/b"),)),
        b"",
    ),
    (b"Location: /a?b=c\n\nrest", Answer(200, "", (), "/a?b=c"), b"rest"),
    (b"Location: //a/b\n\n", Answer(302, "", (("Location", "//a/b"),)), b""),
    (b"Location: b.html\n\n", Answer(302, "", (("Location", "b.html"),)), b""),
    (
        b"Location: /a\nSet-Cookie: a=b\n\n",
        Answer(302, "", (("Location", "/a"), ("Set-Cookie", "a=b"))),
        b"",
    ),
    (
        b"Status: 302 Found\nLocation: /a\n\n",
        Answer(302, "Found", (("Location", "/a"),)),
        b"",
    ),
    (
        b"Set-Cookie: a=b\nSet-Cookie: c=d\n\n",
        Answer(200, "", (("Set-Cookie", "a=b"), ("Set-Cookie", "c=d"))),
        b"",
    ),
    (
        b"Connection: close\nKeep-Alive: 5\nUpgrade: h2c\nContent-Length: 4\n\nbody",
        Answer(200, "", (("Content-Length", "4"),)),
        b"body",
    ),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(("data", "answer", "body"), RIGHT, ids=repr)
def test_an_answer_is_read_however_it_comes(data, answer, body, size):
    assert read(data, size) == (answer, body)


WRONG = [
    (b"", "it has said nothing"),
    (b"Content-Type: text/plain\n", "it ended within its headers"),
    (b"\nhello", "it begins with an empty line"),
    (b"\r\nhello", "it begins with an empty line"),
    (b"hello\n\n", "a line of its headers is none: 'hello'"),
    (b"Name : value\n\n", "a line of its headers is none"),
    (b"A: b\n folded\n\n", "a line of its headers is none: ' folded'"),
    (b"A: b\rc\n\n", "a line of its headers is none"),
    (b"A: b\0c\n\n", "a line of its headers is none"),
    (b"A\xe9: b\n\n", "a line of its headers is none"),
    (b": b\n\n", "a line of its headers is none"),
    (b"HTTP/1.1 200 OK\nA: b\n\n", "a line of its headers is none: 'HTTP/1.1 200 OK'"),
    (b"Status: 99\n\n", "its Status is '99'"),
    (b"Status: 100 Continue\n\n", "its Status is '100 Continue'"),
    (b"Status: 2000\n\n", "its Status is '2000'"),
    (b"Status: OK\n\n", "its Status is 'OK'"),
    (b"Status:\n\n", "its Status is ''"),
    (b"Content-Type: a/b\ncontent-type: c/d\n\n", "it says content-type twice"),
    (b"Location: /a\nLocation: /b\n\n", "it says Location twice"),
    (b"Content-Length: -1\n\n", "its Content-Length is '-1'"),
    (b"Content-Length: 1, 1\n\n", "its Content-Length is '1, 1'"),
    (b"Transfer-Encoding: chunked\n\n", "it says Transfer-Encoding"),
    (b"A: " + b"b" * MOST, "its headers are longer than 200 bytes"),
    (b"A: " + b"b" * (MOST - 4) + b"\n\n", "its headers are longer than 200 bytes"),
]


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize(("data", "reason"), WRONG, ids=repr)
def test_what_is_no_answer_is_refused_with_the_reason(data, reason, size):
    with pytest.raises(OutputError) as caught:
        read(data, size)
    assert str(caught.value).startswith(reason)


def test_headers_of_exactly_the_limit_are_read():
    data = b"A: " + b"b" * (MOST - 5) + b"\n\n"
    assert len(data) == MOST
    assert read(data, 1000)[0].fields == (("A", "b" * (MOST - 5)),)


def test_status_and_location_are_plain_headers_where_a_program_wants_that():
    answer, _ = read(b"Status: 404 No\nLocation: /a\n\n", 5, follows=True)
    assert (answer.status, answer.reason) == (200, "Script output follows")
    assert answer.fields == (("Status", "404 No"), ("Location", "/a"))
    assert answer.redirect == ""


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"HTTP/1.1 404 Not Found\r\n", 404),
        (b"HTTP/1.0 200\r\n", 200),
        (b"HTTP/1.1 404", 0),
        (b"hello", 0),
    ],
)
def test_the_status_of_what_speaks_http_itself_is_known_to_the_log(data, status):
    assert status_of(data) == status
