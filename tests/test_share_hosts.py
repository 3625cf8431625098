"""Which Host fields a share believes, and that a page of a stranger's name never reads it."""

import socket
from pathlib import Path

import pytest

from prefork.share.hosts import Hosts

HOST = socket.gethostname()


@pytest.fixture(scope="module")
def plain():
    return Hosts(())


@pytest.mark.parametrize(
    "host",
    [
        "192.0.2.7",
        "192.0.2.7:8000",
        "127.0.0.1:80",
        "[::1]",
        "[::1]:8000",
        "[2001:DB8::1]:8000",
        "[fe80::1%eth0]:8000",
        "[fe80::1%25eth0]",
        "[::ffff:192.0.2.7]",
        "localhost",
        "LOCALHOST:8000",
        "localhost.",
        "app.localhost:8000",
        "nas",
        "nas:8000",
        "my-nas",
        "my_nas:80",
        "nas.local",
        "Nas.Local.:8000",
        "nas.lan",
        "nas.home",
        "nas.home.arpa",
        "nas.corp",
        "nas.internal",
        "eu.compute.internal:80",
        "localhost.localdomain",
        HOST,
        f"{HOST.upper()}:8000",
        f"{HOST}.",
    ],
)
def test_what_no_stranger_can_be_called_is_allowed_unsaid(plain, host):
    assert plain.allows(host)


@pytest.mark.parametrize("host", [None, ""])
def test_no_host_is_allowed(plain, host):
    assert plain.allows(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "192.0.2.7.nip.io",
        "192.0.2.7.example.org",
        "localhost.example.org",
        "nas.local.example.org",
        "notlocal",  # no dot: allowed, see below
        "nas.fritz.box",
        "evil.arpa",
        "home.arpa.evil.example",
        "evillocal.example",
        "[192.0.2.7]",
        "2001:db8::1",
        "[::1",
        "::1]",
        "[::1]x",
        "[::1]:80:80",
        "[evil.example]",
        "evil.example]",
        "192.0.2.7@evil.example",
        "evil.example/localhost",
        "evil example",
        "eviL.example.",
        "evil.example.:80",
        "evil.example:port",
        "192.0.2.256",
        "192.0.2.7:80:80",
        ".",
        "..",
        ":80",
        ".local.evil.example",
        "n\u00e4s",
        "evil\x00",
        "%31",
        "a" * 300,
        "a" * 300 + ".local",
    ],
)
def test_all_other_names_are_refused(plain, host):
    assert plain.allows(host) is (host == "notlocal")


def test_a_configured_name_is_allowed_and_not_what_lies_below_it():
    hosts = Hosts(["files.example.org"])
    assert hosts.allows("Files.Example.ORG.:8000")
    assert hosts.allows("nas.local")
    assert not hosts.allows("a.files.example.org")
    assert not hosts.allows("example.org")
    assert not hosts.allows("xfiles.example.org")


@pytest.mark.parametrize("named", [".example.org", "*.example.org", ".EXAMPLE.org."])
def test_a_dot_before_a_name_means_all_below_it_too(named):
    hosts = Hosts([named])
    assert hosts.allows("example.org:80")
    assert hosts.allows("a.b.example.org")
    assert not hosts.allows("badexample.org")
    assert not hosts.allows("example.org.evil.example")


def test_a_star_lets_every_name_in():
    hosts = Hosts(["files.example.org", "*"])
    assert hosts.allows("evil.example")
    assert hosts.allows("[")


@pytest.mark.parametrize("named", ["bücher.example", "BÜCHER.example.", ".bücher.example"])
def test_a_configured_name_of_another_alphabet_is_what_browsers_send(named):
    assert Hosts([named]).allows("xn--bcher-kva.example:8000")


def test_a_configured_name_may_have_a_port_or_be_an_odd_one():
    assert Hosts(["files.example.org:8000"]).allows("files.example.org")
    assert Hosts(["a..b"]).allows("a..b")
    assert not Hosts(["", ".", ".."]).allows("evil.example")


@pytest.fixture
def network(monkeypatch):
    """This machine, as others find it: named by a router, or by its own files."""
    files = {
        "/etc/hosts": "127.0.1.1 Desk.example.org desk # mine\n0.0.0.0 evil.example\n#1 desk x.y\n",
        "/etc/resolv.conf": "nameserver 192.0.2.1\nsearch fritz.box corp.example.\n\nsearch\n",
    }
    monkeypatch.setattr(socket, "gethostname", lambda: "Desk")
    monkeypatch.setattr(Path, "read_text", lambda path, *_: files[str(path)])
    return files


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("desk.example.org", True),
        ("desk.fritz.box:8000", True),
        ("desk.corp.example", True),
        ("evil.fritz.box", False),
        ("evil.desk.fritz.box", False),
        ("example.org", False),
        ("evil.example", False),
        ("x.y", False),
    ],
)
@pytest.mark.usefixtures("network")
def test_the_machine_knows_its_own_names_from_its_files(host, allowed):
    assert Hosts(()).allows(host) is allowed


def test_a_machine_without_such_files_has_its_host_name(monkeypatch):
    def missing(*_):
        raise FileNotFoundError

    monkeypatch.setattr(socket, "gethostname", lambda: "desk.example.org")
    monkeypatch.setattr(Path, "read_text", missing)
    assert Hosts(()).allows("desk.example.org")
    assert not Hosts(()).allows("other.example.org")


def test_what_is_remembered_is_bounded(plain):
    for number in range(2000):
        assert not plain.allows(f"{number}.example.org")
    assert plain._knows.cache_info().currsize <= 256
