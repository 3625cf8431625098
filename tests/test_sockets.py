"""Addresses, and a listening socket that is shared, shut and given back."""

import os
import socket

import pytest

from prefork.errors import UsageError
from prefork.sockets import Endpoint, SharedSocket, everywhere, keep_apart, resolve

STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
V4, V6, UNIX = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX


@pytest.mark.parametrize(
    ("bind", "endpoints"),
    [
        ("127.0.0.1", [Endpoint(V4, ("127.0.0.1", 80))]),
        ("0.0.0.0", [Endpoint(V4, ("0.0.0.0", 80))]),
        ("::1", [Endpoint(V6, ("::1", 80, 0, 0), v6only=False)]),
        ("[::1]", [Endpoint(V6, ("::1", 80, 0, 0), v6only=False)]),
        ("unix:/run/x", [Endpoint(UNIX, "/run/x")]),
        ("unix:@name", [Endpoint(UNIX, "\0name")]),
    ],
)
def test_an_address_means_its_endpoint(bind, endpoints):
    assert resolve(bind, 80, STREAM) == endpoints


@pytest.mark.parametrize("bind", ["", "unix:", "unix:@", "unix:" + "x" * 108, "127.0.0.1:80"])
def test_what_is_no_address_is_a_usage_error(bind):
    with pytest.raises(UsageError):
        resolve(bind, 80, STREAM)


def test_a_path_of_107_bytes_is_bound_whole(tmp_path):
    path = f"{tmp_path}/".ljust(107, "x")
    (endpoint,) = resolve(f"unix:{path}", 0, STREAM)
    with socket.socket(UNIX) as sock:
        sock.bind(endpoint.address)
        assert sock.getsockname() == path


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        (Endpoint(V4, ("127.0.0.1", 80)), "127.0.0.1:80"),
        (Endpoint(V6, ("::1", 80, 0, 0)), "[::1]:80"),
        (Endpoint(V6, ("fe80::1", 80, 0, 1)), "[fe80::1%lo]:80"),
        (Endpoint(UNIX, "/run/x"), "unix:/run/x"),
        (Endpoint(UNIX, b"\0name"), "unix:@name"),
    ],
)
def test_an_endpoint_is_written_as_it_is_typed(endpoint, text):
    assert str(endpoint) == text


def test_ipv6_leaves_ipv4_alone_only_where_ipv4_has_the_port_itself():
    v4, v6 = Endpoint(V4, ("0.0.0.0", 80)), Endpoint(V6, ("::", 80, 0, 0), v6only=False)
    assert keep_apart([v6]) == [v6]
    assert keep_apart([v4, v6, v4]) == [v4, v6._replace(v6only=True)]
    other = Endpoint(V6, ("::", 81, 0, 0), v6only=False)
    assert keep_apart([v4, other]) == [v4, other]


def test_all_interfaces_are_one_socket_for_each_family():
    families = [endpoint.family for endpoint in everywhere(80)]
    assert families in ([V4, V6], [V4])


@pytest.fixture(params=[V4, V6])
def listener(request):
    host = "127.0.0.1" if request.param == V4 else "::1"
    try:
        sock = socket.create_server((host, 0), family=request.param)
    except OSError as error:
        pytest.skip(f"no {host} here: {error}")
    with sock:
        sock.settimeout(20)
        yield sock


def test_a_shut_door_keeps_who_is_in_and_lets_nobody_else_in(listener):
    shared = SharedSocket(listener)
    address = listener.getsockname()[:2]
    with socket.create_connection(address, 20) as early:
        assert shared.refuse_new()
        early.sendall(b"early")
        with pytest.raises(TimeoutError):
            socket.create_connection(address, 0.2)
        with listener.accept()[0] as accepted:
            assert accepted.recv(5, socket.MSG_WAITALL) == b"early"
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
        listener.settimeout(20)
        shared.restore()
        with socket.create_connection(address, 20):
            listener.accept()[0].close()


@pytest.mark.parametrize("blocking", [True, False])
def test_a_stream_is_non_blocking_while_it_is_shared_and_then_as_before(blocking):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(blocking)
        shared = SharedSocket(sock)
        assert not os.get_blocking(sock.fileno())
        assert sock.gettimeout() == (None if blocking else 0.0)
        with pytest.raises(BlockingIOError):
            sock.accept()
        shared.restore()
        assert os.get_blocking(sock.fileno()) is blocking


def test_a_connection_accepted_from_a_shared_socket_blocks_as_ever():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        shared = SharedSocket(sock)
        with socket.create_connection(sock.getsockname(), 20), sock.accept()[0] as accepted:
            assert accepted.gettimeout() is None
            assert os.get_blocking(accepted.fileno())
        shared.restore()


@pytest.mark.parametrize("family", [V4, UNIX])
def test_a_datagram_socket_does_not_wait_for_what_another_worker_took(family, tmp_path):
    with socket.socket(family, DATAGRAM) as sock:
        sock.bind(("127.0.0.1", 0) if family == V4 else str(tmp_path / "s"))
        before = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
        shared = SharedSocket(sock)
        assert os.get_blocking(sock.fileno())
        with pytest.raises(BlockingIOError):
            sock.recv(100)
        shared.restore()
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16) == before


@pytest.mark.parametrize("family", [V4, UNIX])
def test_a_shut_datagram_socket_gives_out_what_it_has_and_takes_nothing_new(family, tmp_path):
    with socket.socket(family, DATAGRAM) as sock, socket.socket(family, DATAGRAM) as client:
        sock.bind(("127.0.0.1", 0) if family == V4 else str(tmp_path / "s"))
        shared = SharedSocket(sock)
        client.sendto(b"before", sock.getsockname())
        assert shared.refuse_new()
        client.sendto(b"after", sock.getsockname())
        assert sock.recv(100) == b"before"
        with pytest.raises(BlockingIOError):
            sock.recv(100)
        shared.restore()
        client.sendto(b"again", sock.getsockname())
        assert sock.recv(100) == b"again"


def test_a_unix_stream_cannot_be_shut_for_a_while(tmp_path):
    with socket.socket(UNIX) as sock, socket.socket(UNIX) as client:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        shared = SharedSocket(sock)
        assert not shared.refuse_new()
        client.connect(str(tmp_path / "s"))
        sock.accept()[0].close()
        shared.restore()


def test_a_closed_socket_is_left_alone():
    sock = socket.create_server(("127.0.0.1", 0))
    shared = SharedSocket(sock)
    sock.close()
    assert not shared.refuse_new()
    shared.restore()
