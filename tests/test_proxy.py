"""PROXY protocol headers: whole, byte by byte, with the request behind them, and malformed."""

import socket
import struct

import pytest

from prefork.http.proxy import ProxyError, ProxyHeader, parse_proxy

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4 = socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.2") + struct.pack("!HH", 5, 443)
V6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    + struct.pack("!HH", 65535, 80)
)
UNIX = b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")
V4_ADDRESSES = (("192.0.2.1", 5), ("198.51.100.2", 443))
V6_ADDRESSES = (("2001:db8::1", 65535, 0, 0), ("2001:db8::2", 80, 0, 0))
OWN = (None, None)


def v2(command, family, block, length=None):
    length = len(block) if length is None else length
    return SIGNATURE + struct.pack("!BBH", command, family, length) + block


VALID = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 5 443\r\n", V4_ADDRESSES),
    (b"PROXY TCP4 0.0.0.0 192.0.2.1 0 65535\r\n", (("0.0.0.0", 0), ("192.0.2.1", 65535))),
    (b"PROXY TCP6 2001:db8::1 2001:DB8:0:0::2 65535 80\r\n", V6_ADDRESSES),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", (("::ffff:192.0.2.1", 1, 0, 0), ("::1", 2, 0, 0))),
    (b"PROXY TCP6 " + b" ".join([b"ffff" + b":ffff" * 7] * 2) + b" 65535 65535\r\n",
     (("ffff" + ":ffff" * 7, 65535, 0, 0),) * 2),
    (b"PROXY UNKNOWN\r\n", OWN),
    (b"PROXY UNKNOWN ffff::1 what ever\0\x80\r\n", OWN),
    (b"PROXY UNKNOWN ".ljust(105, b"x") + b"\r\n", OWN),
    (v2(0x21, 0x11, V4), V4_ADDRESSES),
    (v2(0x21, 0x12, V4), V4_ADDRESSES),
    (v2(0x21, 0x21, V6), V6_ADDRESSES),
    (v2(0x21, 0x11, V4 + b"\x04\x00\x01\x00" + b"\xff" * 50), V4_ADDRESSES),
    (v2(0x21, 0x11, V4.ljust(2048, b"t")), V4_ADDRESSES),
    (v2(0x21, 0x31, UNIX), OWN),
    (v2(0x21, 0x00, b""), OWN),
    (v2(0x21, 0x10, V4), OWN),
    (v2(0x20, 0x00, b""), OWN),
    (v2(0x20, 0x11, V4), OWN),
    (v2(0x20, 0xFF, b"ignored"), OWN),
]  # fmt: skip

MALFORMED = [
    b"GET / HTTP/1.1\r\n",
    b"PUT / HTTP/1.1\r\n",
    b"PROXY\r\n",
    b"proxy UNKNOWN\r\n",
    b"PROXY  TCP4 192.0.2.1 198.51.100.2 5 443\r\n",
    b"PROXY TCP5 192.0.2.1 198.51.100.2 5 443\r\n",
    b"PROXY TCP4\t192.0.2.1 198.51.100.2 5 443\r\n",
    b"PROXY TCP4 192.0.2.1  198.51.100.2 5 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 5 443 \r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 5 443\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 5 443\r \n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 5\r\n",
    b"PROXY TCP4 192.0.2.1\r\n",
    b"PROXY TCP4 \r\n",
    b"PROXY TCP4 192.0.2.256 198.51.100.2 5 443\r\n",
    b"PROXY TCP4 192.0.2.01 198.51.100.2 5 443\r\n",
    b"PROXY TCP4 192.0.2 198.51.100.2 5 443\r\n",
    b"PROXY TCP4 2001:db8::1 2001:db8::2 5 443\r\n",
    b"PROXY TCP6 192.0.2.1 198.51.100.2 5 443\r\n",
    b"PROXY TCP6 2001:db8::1::2 ::1 5 443\r\n",
    b"PROXY TCP6 fe80::1%lo ::1 5 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 5 99999\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 05 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 5 000443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 -5 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 +5 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2  443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 5 \r\n",
    "PROXY TCP4 192.0.2.1 198.51.100.2 \u0665 443\r\n".encode(),
    b"PROXY UNKNOWNS\r\n",
    b"PROXY UNKNOWN\n",
    b"PROXY UNKNOWN a\rb\r\n",
    b"PROXY UNKNOWN ".ljust(106, b"x") + b"\r\n",
    SIGNATURE[:-1] + b"\r" + b"\x21\x11\x00\x0c" + V4,
    v2(0x11, 0x11, V4),
    v2(0x31, 0x11, V4),
    v2(0x22, 0x11, V4),
    v2(0x21, 0x41, V4),
    v2(0x21, 0x13, V4),
    v2(0x21, 0x11, V4[:-1]),
    v2(0x21, 0x21, V6[:-1]),
    v2(0x21, 0x31, UNIX[:-1]),
    v2(0x21, 0x11, V4.ljust(2049, b"t")),
    v2(0x20, 0x00, b"x" * 2049),
]  # fmt: skip


@pytest.mark.parametrize(("header", "addresses"), VALID)
def test_a_header_is_read_whole_and_what_follows_is_left(header, addresses):
    expected = ProxyHeader(*addresses, len(header))
    assert parse_proxy(header) == expected
    for junk in (b"G", b"GET / HTTP/1.1\r\n\r\n", b"\r\n", b"\0" * 4096, header):
        assert parse_proxy(header + junk) == expected


@pytest.mark.parametrize(("header", "addresses"), VALID)
def test_a_header_that_comes_byte_by_byte_is_waited_for(header, addresses):
    assert [parse_proxy(header[:size]) for size in range(len(header))] == [None] * len(header)
    found = parse_proxy(header)
    assert (found.client, found.server) == addresses


@pytest.mark.parametrize("data", MALFORMED)
def test_a_malformed_header_is_refused_whole_and_byte_by_byte(data):
    with pytest.raises(ProxyError):
        parse_proxy(data)
    refused = [size for size in range(len(data) + 1) if is_refused(data[:size])]
    assert refused == list(range(refused[0], len(data) + 1)), "once refused, always refused"


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (b"GET / HTTP/1.1\r\n", 1),
        (b"PUT / HTTP/1.1\r\n", 2),
        (b"\r\n\r\nGET / HTTP/1.1\r\n", 5),
        (b"PROXY TCP4 192.0.2.256 ", 23),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 ", 40),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 5 65536\r", 42),
        (b"PROXY UNKNOWN " + b"x" * 200, 107),
        (v2(0x31, 0x11, V4), 13),
        (v2(0x21, 0x41, V4), 14),
        (v2(0x21, 0x11, V4, 11), 16),
        (v2(0x21, 0x11, V4, 2049), 16),
    ],
)  # fmt: skip
def test_a_malformed_header_is_refused_as_early_as_it_is_certain(data, size):
    assert [parse_proxy(data[:before]) for before in range(size)] == [None] * size
    with pytest.raises(ProxyError):
        parse_proxy(data[:size])


def test_the_message_shows_what_came_and_no_more_than_a_line_of_it():
    with pytest.raises(ProxyError, match="GET / HTTP") as caught:
        parse_proxy(b"GET / HTTP/1.1\r\n" + b"x" * 100_000)
    assert len(str(caught.value)) < 600


def is_refused(data):
    try:
        parse_proxy(data)
    except ProxyError:
        return True
    return False
