"""What a person sees at the terminal while a folder is shared, and how much it tells at the end."""

import os
import re
import select
import signal
import socket
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from apps.command import Service, Terminal, run, talk
from harness import DEADLINE_S

from prefork.amounts import count_text, size_text, time_text
from prefork.visitors import MOST, Visitors, host_of

SUMMARY = r"^Served (.*) in \d+ s; sent (.*)\.$"


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "a.txt").write_text("here")
    (folder / ".secret").write_text("hidden")
    (tmp_path / "outside.txt").write_text("outside")
    (folder / "out.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "in.txt").symlink_to("a.txt")
    (folder / "index.html").write_text("<!doctype html><title>index</title>")
    return folder


def fetch(port: int, path: str = "/a.txt", *, host: str = "localhost", source="127.0.0.1") -> bytes:
    """Ask once, from an address of loopback; return all that comes."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S, (source, 0)) as client:
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        client.sendall(head.encode())
        return b"".join(iter(lambda: client.recv(65536), b""))


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def port_of(terminal: Terminal) -> int:
    return int(terminal.screen.wait_for(r"http://127\.0\.0\.1:(\d+)/")[1])


@contextmanager
def stopped(pid: int):
    """Keep a worker from taking clients."""
    os.kill(pid, signal.SIGSTOP)
    stat = Path(f"/proc/{pid}/stat")
    limit_s = time.monotonic() + DEADLINE_S
    # It stops when it next leaves the kernel, and nobody but its parent is told.
    while stat.read_text().rpartition(")")[2].split()[0] != "T" and time.monotonic() < limit_s:
        os.sched_yield()
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def replace(worker: int) -> None:
    """Have a worker go, and another come."""
    pidfd = os.pidfd_open(worker)
    os.kill(worker, signal.SIGTERM)
    assert select.select([pidfd], [], [], DEADLINE_S)[0]
    os.close(pidfd)


def ended(terminal: Terminal) -> list[str]:
    terminal.type(b"\x03")
    assert terminal.wait() == 0
    return terminal.screen.wait_closed()


def test_the_summary_is_true_of_all_workers_also_of_those_that_have_gone(site):
    size = 0
    with Terminal(site, "0", "-b", "127.0.0.1", "-w", "2", NO_COLOR="1", size=(40, 120)) as tty:
        port = port_of(tty)
        first, second = tty.workers()
        with stopped(first):
            size += sum(len(fetch(port, source=f"127.0.0.{1 + n % 3}")) for n in range(20))
        with stopped(second):
            size += sum(len(fetch(port, source=f"127.0.0.{1 + n % 4}")) for n in range(20))
        tty.screen.wait_for("GET /a.txt", 40)
        replace(first)
        size += sum(len(fetch(port, "/none%1b", source=f"127.0.0.{1 + n % 2}")) for n in range(20))
        tty.screen.wait_for(r"404  .*GET /none\\x1b$", 20)
        lines = ended(tty)
    assert lines[-2] == "Keyboard interrupt received, exiting."
    assert re.search(SUMMARY, lines[-1]).groups() == (
        "60 requests from 4 addresses",
        size_text(size),
    )


def test_one_request_is_not_called_many(site):
    with Terminal(site, "0", "-b", "127.0.0.1", "-w", "1") as tty:
        size = len(fetch(port_of(tty)))
        lines = ended(tty)
    counted = re.search(SUMMARY, lines[-1]).groups()
    assert counted == ("1 request from 1 address", size_text(size))


def test_who_shares_nothing_with_anybody_is_told_that(site):
    with Terminal(site, "0", "-b", f"unix:{site}/s") as tty:
        assert re.search(SUMMARY, ended(tty)[-1]).groups() == ("0 requests", "0 B")


@pytest.mark.parametrize(("target", "sent"), [("served:Shout", "6 B"), ("served:Echo", "0 B")])
def test_other_protocols_have_a_summary_too(target, sent):
    with Terminal(target, "0", "-b", "127.0.0.1", "-w", "1") as tty:
        port = int(tty.screen.wait_for(r"://127\.0\.0\.1:(\d+)")[1])
        if target == "served:Shout":
            assert talk(("127.0.0.1", port), b"hello\n") == b"HELLO\n"
        else:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(DEADLINE_S)
                client.sendto(b"hello", ("127.0.0.1", port))
                client.recv(100)
        assert re.search(SUMMARY, ended(tty)[-1]).groups() == ("1 request from 1 address", sent)


def test_quiet_shows_urls_and_no_code_no_lines_and_no_summary(site):
    with Terminal(site, "0", "--quiet", size=(60, 200)) as tty:
        assert status_of(fetch(port_of(tty))) == 200
        lines = ended(tty)
    text = "\n".join(lines)
    assert "http://127.0.0.1" in text
    assert lines[-1] == "Keyboard interrupt received, exiting."
    assert not re.search("GET|Served|QR|█", text)


def has_lan(text: str) -> bool:
    return bool(re.search(r"http://(?!127\.|\[::1\])", text))


def test_a_large_terminal_has_a_code_unless_that_is_unwanted(site):
    with Terminal(site, "0", size=(60, 200)) as tty:
        tty.screen.wait_for("Press Ctrl-C")
        text = "\n".join(ended(tty))
    if not has_lan(text):
        pytest.skip("this machine is in no network")
    assert text.count("(QR code)") == 1
    assert "\x1b[38;5;231;48;5;16m█" in text
    with Terminal(site, "0", "--no-qr", size=(60, 200)) as tty:
        tty.screen.wait_for("Press Ctrl-C")
        assert not re.search("QR|█", "\n".join(ended(tty)))


def test_where_only_this_machine_is_served_there_is_no_code(site):
    with Terminal(site, "0", "-b", "127.0.0.1", size=(60, 200)) as tty:
        port_of(tty)
        assert not re.search("QR|█", "\n".join(ended(tty)))


def test_a_greeting_says_how_and_the_options_make_it_so(site):
    with Terminal(site, "0", "-b", "127.0.0.1") as tty:
        assert tty.screen.wait_for("read-only.*")[0].rstrip() == (
            "read-only, no hidden files, no links out"
        )
        port = port_of(tty)
        paths = ("/in.txt", "/out.txt", "/.secret", "/no/such")
        assert [status_of(fetch(port, path)) for path in paths] == [200, 404, 404, 404]
        assert status_of(fetch(port, host="files.example.org")) == 421
        assert b"sandbox" in fetch(port, "/index.html")
    options = ["--hidden", "--symlinks", "follow", "--spa", "--allowed-host", ".example.org"]
    with Terminal(site, "0", "-b", "127.0.0.1", *options) as tty:
        assert tty.screen.wait_for("read-only.*")[0].rstrip() == (
            "read-only, trusted, hidden files too, all links"
        )
        port = port_of(tty)
        assert [status_of(fetch(port, path)) for path in paths] == [200, 200, 200, 200]
        assert status_of(fetch(port, host="files.example.org")) == 200
        assert b"sandbox" not in fetch(port, "/index.html")
        assert fetch(port, "/no/such").endswith(b"<title>index</title>")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["http.server:SimpleHTTPRequestHandler", "--hidden", "--spa"], "--hidden and --spa: http"),
        ([".", "--cgi", "--trusted"], "--trusted: "),
        ([".", "--allowed-host", "http://x"], "--allowed-host: expected a name such as "),
        ([".", "--symlinks", "yes"], "argument --symlinks: invalid choice: 'yes'"),
        (["site.toml", "--symlinks", "never"], "--symlinks: site.toml says that itself; write it"),
    ],
)
def test_an_option_that_cannot_count_is_refused(tmp_path, words, said):
    result = run(*words, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith(f"prefork: error: {said}")


def test_without_a_terminal_lines_are_in_the_common_format(site):
    with Service(site, "0", "-b", "127.0.0.1") as service:
        assert status_of(fetch(service.port)) == 200
        service.log.wait_for(r'^127\.0\.0\.1 - - \[.*\] "GET /a\.txt HTTP/1\.1" 200 4$')
        service.send(signal.SIGINT)
        assert service.wait() == 0
    assert service.out.lines() == []


# -- without processes -------------------------------------------------------


def test_addresses_are_counted_once_in_all_workers():
    visitors = Visitors()
    for line in (0, 5, 1023):
        mine = visitors.__class__.__new__(Visitors)  # as after a fork: the same memory
        mine.__dict__.update(visitors.__dict__)
        for host in ("192.0.2.1", "192.0.2.2", f"192.0.2.{100 + line % 100}"):
            mine.note(line, host)
            mine.note(line, host)
    assert visitors.count() == (5, True)


def test_more_addresses_than_one_worker_can_tell_apart_are_said_to_be_more():
    visitors = Visitors()
    for number in range(MOST):
        visitors.note(3, f"h{number}")
    assert visitors.count() == (MOST, True)
    visitors.note(3, "h0")
    assert visitors.count() == (MOST, True)
    visitors.note(3, "one more")
    visitors.note(3, "and another")
    assert visitors.count() == (MOST, False)


def test_a_client_is_known_by_its_address_without_the_port():
    assert host_of(("192.0.2.1", 5)) == host_of(("192.0.2.1", 6)) == "192.0.2.1"
    assert host_of("") == host_of(b"\0x") == host_of("/run/s") == "unix"


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9949, "9.9 kB"),
        (9950, "10 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (123_456_789_012, "123 GB"),
        (10**21, "1000 EB"),
    ],
)
def test_sizes_are_in_peoples_units(size_bytes, text):
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (59.6, "1 min"),
        (65, "1 min 5 s"),
        (3600, "1 h"),
        (7384, "2 h 3 min"),
        (86400 * 3 + 3600 * 4 + 5, "3 d 4 h"),
        (86405, "1 d"),
    ],
)
def test_times_are_in_two_units_at_most(seconds, text):
    assert time_text(seconds) == text


def test_counts_have_their_plural():
    assert count_text(1, "address", "addresses") == "1 address"
    assert count_text(1234, "address", "addresses") == "1,234 addresses"
    assert count_text(0, "request") == "0 requests"
