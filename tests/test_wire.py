"""The reader of heads and chunked bodies, on every case of `wire/*.http` (see `wire_cases`)."""

import time
import tracemalloc

import pytest
import wire_cases
from wire_cases import Outcome

from prefork.http.chunked import Chunked
from prefork.http.wire import Parser, WireError, WireLimits

CASES = wire_cases.all_cases()
SHORT_BYTES = 1024  # up to here a case is also cut at every position
NEXT = b"GET /junk HTTP/1.1\r\nHost: junk\r\n\r\n"
JUNK = b"\x00\xff\r\n\r\n"


def each_case(chosen=CASES):
    return pytest.mark.parametrize("case", chosen, ids=lambda case: case.name)


class Client:
    """Reads one connection's bytes as a server would, and notes what each request came to."""

    def __init__(self, parser=None, limits=None):
        self.limits = limits or WireLimits()
        self.parser = parser or Parser(self.limits)
        self.outcomes = []
        self.buffer = b""
        self.head = None
        self.body = b""
        self.chunked = None
        self.is_over = False

    def feed(self, data):
        self.buffer += data
        try:
            while not self.is_over and self._advance():
                pass
        except WireError as error:
            self.outcomes.append(Outcome(status=error.status))
            self.is_over = True

    def end(self):
        if not self.is_over and (self.head or self.buffer.strip(b"\r\n")):
            self.outcomes.append(Outcome(incomplete=True))
        return self.outcomes

    def _advance(self):
        if self.head is None:
            head = self.parser.parse(self.buffer)
            if head is None:
                return False
            self.head, self.body = head, b""
            self.buffer = self.buffer[head.size :]
            self.chunked = Chunked(self.limits) if head.length is None else None
        if self.chunked:
            payload, used = self.chunked.decode(self.buffer)
            self.body += payload
            self.buffer = self.buffer[used:]
            if not self.chunked.done:
                return False
        elif len(self.buffer) < self.head.length:
            return False
        else:
            self.body, self.buffer = (
                self.buffer[: self.head.length],
                self.buffer[self.head.length :],
            )
        self._finish()
        return bool(self.buffer)

    def _finish(self):
        head, self.head = self.head, None
        self.outcomes.append(
            Outcome(
                None,
                False,
                head.method,
                head.target,
                head.version,
                self.body,
                head.fields,
                not head.keep_alive,
                head.expects_continue,
                head.upgrade,
            )
        )
        self.is_over = not head.keep_alive


def read(*pieces, parser=None):
    client = Client(parser)
    for piece in pieces:
        client.feed(piece)
    return client.end()


def plain(outcome):
    return (
        outcome.status,
        outcome.incomplete,
        outcome.method,
        outcome.target,
        outcome.version,
        outcome.body,
        outcome.closes,
        outcome.continues,
        outcome.upgrades,
    )


def check(got, wants):
    assert [plain(outcome) for outcome in got] == [plain(want) for want in wants]
    for outcome, want in zip(got, wants, strict=True):
        for pair in want.fields:
            assert pair in outcome.fields


@each_case()
def test_a_case_in_one_piece(case):
    check(read(case.data), case.wants)


@each_case()
def test_a_case_byte_by_byte(case):
    check(read(*[case.data[at : at + 1] for at in range(len(case.data))]), case.wants)


@each_case([case for case in CASES if len(case.data) <= SHORT_BYTES])
def test_a_case_in_two_pieces_cut_anywhere(case):
    for at in range(1, len(case.data)):
        check(read(case.data[:at], case.data[at:]), case.wants)


@each_case()
def test_a_case_twice_through_the_caches_of_one_parser(case):
    parser = Parser(WireLimits())
    check(read(case.data, parser=parser), case.wants)
    check(read(case.data, parser=parser), case.wants)


@each_case([case for case in CASES if not case.wants[-1].incomplete])
def test_a_case_with_something_after_it(case):
    last = case.wants[-1]
    is_over = last.closes or last.status
    then_next = (Outcome(None, False, "GET", "/junk", "HTTP/1.1", fields=(("Host", "junk"),)),)
    check(read(case.data + NEXT), case.wants + (() if is_over else then_next))
    check(read(case.data + JUNK), case.wants + (() if is_over else (Outcome(status=400),)))


def parse(data, **limits):
    return Parser(WireLimits(**limits)).parse(data)


def refusal(data, **limits):
    with pytest.raises(WireError) as caught:
        parse(data, **limits)
    return caught.value


def test_a_head_tells_its_bytes_apart():
    head = parse(b"\r\nPUT //a//b HTTP/1.1\r\nHost: h\r\nX:  y \r\n\r\nbody")
    assert head.size == 42
    assert head.request_line == b"PUT //a//b HTTP/1.1\r\n"
    assert head.block == b"Host: h\r\nX:  y \r\n\r\n"
    assert head.fields == (("Host", "h"), ("X", "y"))
    assert (head.method, head.method_name, head.target) == ("PUT", "do_PUT", "//a//b")


def test_a_head_without_fields():
    head = parse(b"GET / HTTP/1.0\r\n\r\n")
    assert (head.block, head.fields, head.size) == (b"\r\n", (), 18)


def test_the_attributes_are_what_parse_request_sets():
    assert parse(b"PUT //a//b?c HTTP/1.3\r\nHost: h\r\n\r\n").attributes == {
        "command": "PUT",
        "path": "/a//b?c",
        "request_version": "HTTP/1.1",
        "requestline": "PUT //a//b?c HTTP/1.3",
        "raw_requestline": b"PUT //a//b?c HTTP/1.3\r\n",
        "close_connection": False,
    }
    assert parse(b"GET / HTTP/1.0\r\n\r\n").attributes["close_connection"] is True


@pytest.mark.parametrize(
    ("data", "status", "reason", "request_line"),
    [
        (b"GET /\r\n", 400, "Bad request syntax ('GET /')", b"GET /"),
        (b"G\xc9T / HTTP/1.1\r\n", 400, "Bad request syntax ('G\xc9T / HTTP/1.1')", None),
        (b"GET / FUBAR\r\n", 400, "Bad request version ('FUBAR')", b"GET / FUBAR"),
        (b"GET / HTTP/2.0\r\n", 505, "Invalid HTTP version (2.0)", b"GET / HTTP/2.0"),
        (b"GET /" + b"x" * 8190, 414, "", b""),
        (b"GET /\x00 HTTP/1.1\r\n", 400, "Control character in the request line", b""),
        (b"GET / HTTP/1.0\r\nX: " + b"x" * 8190, 431, "Line too long", b"GET / HTTP/1.0"),
        (b"GET / HTTP/1.0\r\n" + b"X: y\r\n" * 101, 431, "Too many headers", b"GET / HTTP/1.0"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Missing Host", b"GET / HTTP/1.1"),
    ],
)
def test_a_refusal_speaks_as_http_server_does(data, status, reason, request_line):
    error = refusal(data)
    wanted = data.removesuffix(b"\r\n") if request_line is None else request_line
    assert (error.status, error.reason, error.request_line) == (status, reason, wanted)


def test_limits_are_the_callers():
    data = b"POST /abc HTTP/1.1\r\nHost: abc\r\nContent-Length: 9\r\n\r\n"
    exact = {"line_bytes": 18, "field_bytes": 17, "fields": 2, "head_bytes": 52, "body_bytes": 9}
    assert len(data) == 52
    assert parse(data, **exact).length == 9
    statuses = [refusal(data, **exact | {name: exact[name] - 1}).status for name in exact]
    assert statuses == [414, 431, 431, 431, 413]
    assert parse(data.replace(b"9", b"9" * 18), body_bytes=None).length == 10**18 - 1


def test_a_repeated_head_is_the_same_object():
    parser = Parser(WireLimits())
    head = parser.parse(NEXT)
    assert parser.parse(bytes(bytearray(NEXT))) is head
    assert parser.parse(NEXT + b"rest") is head


def test_what_is_remembered_is_bounded():
    parser = Parser(WireLimits())
    at_most = 4 << 20
    tracemalloc.start()
    try:
        for number in range(5_000):
            fields = b"".join(b"%d-%d:\r\n" % (number, turn) for turn in range(20))
            assert parser.parse(b"GET / HTTP/1.1\r\nHost:\r\n%b\r\n" % fields).fields
        assert tracemalloc.get_traced_memory()[1] < at_most
    finally:
        tracemalloc.stop()


def test_a_verdict_of_one_version_is_not_remembered_for_another():
    parser = Parser(WireLimits())
    assert parser.parse(b"GET / HTTP/1.0\r\nX: y\r\n\r\n").version == "HTTP/1.0"
    with pytest.raises(WireError):
        parser.parse(b"GET / HTTP/1.1\r\nX: y\r\n\r\n")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 8000 + b"\x10",
        b"GET / HTTP/1.1\r\nHost: " + b"a" * 8000 + b"/\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: " + b"%61" * 2700 + b"/\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: " + b"1:" * 4000 + b"\r\n\r\n",
        b"GET http://" + b"a" * 8000 + b"@ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: " + b"a , " * 2000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX:" + b" \t" * 4000 + b"\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X" * 8000 + b"\r\n\r\n",
    ],
)
def test_no_head_takes_long(data):
    started_s = time.process_time()
    refusal(data)
    assert time.process_time() - started_s < 0.05


def test_single_bytes_make_no_head_quadratic():
    data = b"GET / HTTP/1.0\r\n" + (b"X: " + b"y" * 1000 + b"\r\n") * 64
    parser = Parser(WireLimits())
    started_s = time.process_time()
    for end in range(1, len(data)):
        assert parser.parse(data[:end]) is None
    assert time.process_time() - started_s < 10  # 1.3 s where this was written


def decode(data, size, **limits):
    chunked, buffer, payload = Chunked(WireLimits(**limits)), b"", []
    for at in range(0, len(data), size):
        buffer += data[at : at + size]
        part, used = chunked.decode(buffer)
        payload.append(part)
        buffer = buffer[used:]
    return b"".join(payload), chunked.done, buffer


def test_a_megabyte_in_chunks_of_one_byte():
    data = b"1\r\nx\r\n" * (1 << 20) + b"0\r\n\r\n"
    started_s = time.process_time()
    assert decode(data, 65536) == (b"x" * (1 << 20), True, b"")
    assert time.process_time() - started_s < 5  # 0.6 s where this was written


def test_a_large_chunk_is_given_as_it_comes():
    chunked = Chunked(WireLimits())
    assert chunked.decode(b"100\r\nabc") == (b"abc", 8)
    assert chunked.decode(bytearray(b"d" * 252)) == (b"d" * 252, 252)
    assert chunked.decode(b"e\r") == (b"e", 1)
    assert chunked.decode(b"\r\n0\r\n") == (b"", 5)
    assert not chunked.done
    assert chunked.decode(b"\r\nGET") == (b"", 2)
    assert chunked.done
    assert chunked.decode(b"GET") == (b"", 0)


def test_a_chunked_body_is_bounded_as_a_whole():
    data = b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n"
    assert decode(data, 3, body_bytes=10) == (b"helloworld", True, b"")
    with pytest.raises(WireError) as caught:
        decode(data, 3, body_bytes=9)
    assert caught.value.status == 413
