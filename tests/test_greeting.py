"""What a person in front of a terminal sees, and how Ctrl-C ends it."""

import os
import re
import shutil
import signal
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest
import segno
from apps.command import Terminal, get, talk
from harness import free_port

import prefork
from prefork.greeting import Screen, Shown, code_url, greeting, reachable_urls
from prefork.qr import code_of, painted
from prefork.sockets import Endpoint
from prefork.target import Kind

STOP = r"Press Ctrl-C to stop"
URL = re.compile(r"\S+://\S+")


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "a.txt").write_text("here")
    return folder


def seen(terminal: Terminal) -> list[str]:
    """Return the lines up to the one that says how to stop, without colours."""
    terminal.screen.wait_for(STOP)
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in terminal.screen.lines()]


def urls(terminal: Terminal) -> list[str]:
    return [url for line in seen(terminal) for url in URL.findall(line)]


def interface_addresses() -> set[str]:
    """Return every address of an interface that is up, but link-local IPv6 ones."""
    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    return {
        entry.address
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if name in up
        and entry.family in (socket.AF_INET, socket.AF_INET6)
        and not entry.address.startswith("fe80")
    }


def host_of(url: str) -> str:
    return httpx.URL(url).host


def test_the_greeting_tells_version_directory_workers_and_how_to_stop(site):
    with Terminal(site, "0", "-w", "2") as terminal:
        lines = seen(terminal)
        assert lines[0] == f"prefork {prefork.__version__}"
        assert lines[1] == f"Serving {site}"
        assert re.search(r"\b2 worker processes\b", lines[-1])
        assert "Ctrl-C" in lines[-1]


def test_one_worker_is_not_called_many(site):
    with Terminal(site, "0", "-w", "1") as terminal:
        assert re.search(r"\b1 worker process\b", seen(terminal)[-1])


def test_there_is_a_url_for_each_address_of_each_interface(site):
    with Terminal(site, "0") as terminal:
        hosts = [host_of(url) for url in urls(terminal)]
        assert len(hosts) == len(set(hosts))
        assert {host for host in hosts if not host.endswith(".local")} == interface_addresses()


def test_every_url_answers(site):
    with Terminal(site, "0") as terminal, httpx.Client(trust_env=False) as client:
        found = urls(terminal)
        assert found
        for url in found:
            assert client.get(f"{url}a.txt").text == "here"


def test_urls_for_this_machine_alone_come_last(site):
    with Terminal(site, "0") as terminal:
        local = [host_of(url).startswith(("127.", "::1")) for url in urls(terminal)]
        assert local == sorted(local)
        assert any(local)


def test_the_host_name_in_local_is_shown_only_if_it_leads_here(site):
    name = f"{socket.gethostname().partition('.')[0]}.local"
    try:
        known = {info[4][0] for info in socket.getaddrinfo(name, None)}
    except OSError:
        known = set()
    with Terminal(site, "0") as terminal:
        hosts = [host_of(url) for url in urls(terminal)]
        assert (name in hosts) == bool(known & interface_addresses())


@pytest.mark.parametrize(
    ("bind", "url"),
    [("127.0.0.1", "http://127.0.0.1:{port}/"), ("::1", "http://[::1]:{port}/")],
)
def test_an_address_that_was_named_is_the_only_url(site, bind, url):
    if bind == "::1" and "::1" not in interface_addresses():
        pytest.skip("this machine has no IPv6 loopback")
    with Terminal(site, "0", "-b", bind) as terminal:
        (found,) = urls(terminal)
        assert found == url.format(port=httpx.URL(found).port)
        assert httpx.get(f"{found}a.txt", trust_env=False).text == "here"


def test_a_link_local_url_leads_here_with_its_zone(site):
    found = [
        entry.address
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if entry.family == socket.AF_INET6
        and entry.address.startswith("fe80:")
        and psutil.net_if_stats()[name].isup
    ]
    if not found:
        pytest.skip("no interface of this machine has a link-local address")
    with Terminal(site, "0", "-b", found[0]) as terminal:
        (url,) = urls(terminal)
        host, port = re.fullmatch(r"http://\[(.*)\]:(\d+)/", url).groups()
        address, zone = host.split("%25")
        assert f"{address}%{zone}" == found[0]
        assert get((f"{address}%{zone}", int(port)), "/a.txt").body == b"here"


def test_a_unix_socket_is_named_as_it_was_typed(tmp_path, site):
    with Terminal(site, "-b", f"unix:{tmp_path}/s") as terminal:
        assert f"unix:{tmp_path}/s" in "\n".join(seen(terminal))
        assert get(f"{tmp_path}/s", "/a.txt").body == b"here"


@pytest.mark.parametrize(("target", "scheme"), [("served:Shout", "tcp"), ("served:Echo", "udp")])
def test_other_protocols_have_urls_of_their_own(target, scheme):
    with Terminal(target, "0", "-b", "127.0.0.1") as terminal:
        lines = seen(terminal)
        assert lines[1] == f"Serving {target}"
        (url,) = urls(terminal)
        assert re.fullmatch(scheme + r"://127\.0\.0\.1:\d+", url)
        if scheme == "tcp":
            port = int(url.rpartition(":")[2])
            assert talk(("127.0.0.1", port), b"hello\n") == b"HELLO\n"


def test_it_is_coloured_in_a_terminal(site):
    with Terminal(site, "0") as terminal:
        terminal.screen.wait_for(STOP)
        assert "\x1b[" in terminal.screen.text()


def test_no_color_means_no_colour(site):
    with Terminal(site, "0", NO_COLOR="1") as terminal:
        terminal.screen.wait_for(STOP)
        assert "\x1b" not in terminal.screen.text()


def test_an_empty_no_color_means_nothing(site):  # as https://no-color.org has it
    with Terminal(site, "0", NO_COLOR="") as terminal:
        terminal.screen.wait_for(STOP)
        assert "\x1b[" in terminal.screen.text()


@pytest.mark.parametrize("name", [b"new\nline", b"\x1b]0;title\x07", b"bad\xff", b"\xc2\x9b31m"])
def test_a_name_cannot_steer_the_terminal(tmp_path, name):
    folder = os.fsencode(tmp_path) + b"/" + name
    Path(os.fsdecode(folder)).mkdir()
    with Terminal(os.fsdecode(folder), "0", NO_COLOR="1") as terminal:
        lines = seen(terminal)
        assert lines[0] == f"prefork {prefork.__version__}"
        assert lines[1].startswith(f"Serving {tmp_path}/")
        assert URL.search(lines[3])
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", "".join(lines))


def test_without_target_the_current_directory_is_shared(site):
    with Terminal("0", "-b", "127.0.0.1", cwd=site) as terminal:
        assert seen(terminal)[1] == f"Serving {site}"
        (url,) = urls(terminal)
        assert httpx.get(f"{url}a.txt", trust_env=False).text == "here"


def test_a_number_alone_is_the_port_even_if_a_directory_has_that_name(site):
    port = free_port()
    (site / str(port)).mkdir()
    with Terminal(port, "-b", "127.0.0.1", cwd=site) as terminal:
        assert seen(terminal)[1] == f"Serving {site}"
        assert urls(terminal) == [f"http://127.0.0.1:{port}/"]


def test_a_number_with_a_slash_is_a_directory(site):
    (site / "8000").mkdir()
    (site / "8000" / "b.txt").write_text("there")
    with Terminal("./8000", "0", "-b", "127.0.0.1", cwd=site) as terminal:
        assert seen(terminal)[1] == f"Serving {site}/8000"
        (url,) = urls(terminal)
        assert httpx.get(f"{url}b.txt", trust_env=False).text == "there"


def test_ctrl_c_ends_it_with_a_word_and_status_0(site):
    with Terminal(site, "0") as terminal:
        workers = terminal.workers()
        assert workers
        terminal.type(b"\x03")
        assert terminal.wait() == 0
        lines = terminal.screen.wait_closed()
        assert lines[-2] == "Keyboard interrupt received, exiting."
        assert "Traceback" not in "\n".join(lines)


def test_ctrl_c_again_and_again_is_no_traceback(site):
    with Terminal(site, "0") as terminal:
        terminal.type(b"\x03\x03\x03")
        assert terminal.wait() == 0
        assert "Traceback" not in "\n".join(terminal.screen.wait_closed())


def test_ctrl_backslash_ends_it_without_a_core(site):
    with Terminal(site, "0") as terminal:
        terminal.type(b"\x1c")
        assert terminal.wait() == 0
        assert "Traceback" not in "\n".join(terminal.screen.wait_closed())


def test_a_terminal_that_is_closed_ends_it(site):
    with Terminal(site, "0", "-b", f"unix:{site}/s") as terminal:
        terminal.send(signal.SIGHUP)
        assert terminal.wait() in (0, -signal.SIGHUP)


def test_requests_are_logged_beneath_the_greeting(site):
    with Terminal(site, "0", "-b", "127.0.0.1", NO_COLOR="1") as terminal:
        (url,) = urls(terminal)
        assert httpx.get(f"{url}a.txt", trust_env=False).status_code == 200
        terminal.screen.wait_for(r"^\d\d:\d\d:\d\d  127\.0\.0\.1 +200     4 B  GET /a\.txt$")


def test_quiet_greets_and_then_is_quiet(site):
    with Terminal(site, "0", "-b", "127.0.0.1", "--quiet") as terminal:
        (url,) = urls(terminal)
        assert httpx.get(f"{url}a.txt", trust_env=False).status_code == 200
        terminal.type(b"\x03")
        assert terminal.wait() == 0
        assert "GET" not in "\n".join(terminal.screen.wait_closed())


# -- without processes -------------------------------------------------------


def test_a_dual_stack_socket_has_urls_of_both_families():
    endpoint = Endpoint(socket.AF_INET6, ("::", 80, 0, 0), v6only=False)
    shown = {host_of(url) for url in reachable_urls(Kind.HTTP, [endpoint])}
    assert {host for host in shown if not host.endswith(".local")} == interface_addresses()


def test_a_socket_for_ipv6_alone_has_no_url_of_ipv4():
    endpoint = Endpoint(socket.AF_INET6, ("::", 80, 0, 0), v6only=True)
    shown = [host_of(url) for url in reachable_urls(Kind.HTTP, [endpoint])]
    assert not [host for host in shown if re.fullmatch(r"[\d.]+", host)]


def test_the_same_address_is_shown_once():
    endpoints = [
        Endpoint(socket.AF_INET, ("0.0.0.0", 80)),
        Endpoint(socket.AF_INET, ("127.0.0.1", 80)),
    ]
    assert reachable_urls(Kind.HTTP, endpoints).count("http://127.0.0.1:80/") == 1


SHOWN = Shown(
    version="1.0",
    what="/srv/share",
    how="read-only",
    urls=["http://192.0.2.1:8000/", "http://127.0.0.1:8000/"],
    workers=3,
    code_url="http://192.0.2.1:8000/",
)
CODE = code_of("http://192.0.2.1:8000/")
WIDE = len("by 3 worker processes. Press Ctrl-C to stop.") + 2


def modules(lines: list[str]) -> list[list[int]]:
    """Return a code as segno has it: 1 for a dark module."""
    dark = {"█": (0, 0), "▀": (0, 1), "▄": (1, 0), " ": (1, 1)}
    return [[dark[half][which] for half in line] for line in lines for which in (0, 1)]


def code_in(text: str) -> list[str]:
    """Return the lines of a code beside other text or below it."""
    return [found[0] for line in text.splitlines() if (found := re.search("[█▀▄][█▀▄ ]+$", line))]


def test_the_text_without_colour_has_no_escapes():
    text = greeting(SHOWN, Screen(0, 0, has_colour=False))
    assert "\x1b" not in text
    assert text.endswith("\n")
    for part in ("1.0", "/srv/share", "read-only", *SHOWN.urls, "3 worker processes"):
        assert part in text


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1:8000/", "http://[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:65535/"]
)
def test_the_code_is_the_url_with_a_quiet_zone_on_all_sides(url, tmp_path):
    found = modules(code_of(url))
    plain = segno.make(url, error="l", micro=False)
    wanted = [list(row) for row in plain.matrix_iter(border=4)]
    assert found[: len(wanted)] == wanted
    assert all(not any(row) for row in [*wanted[:4], *wanted[-4:]])
    if shutil.which("zbarimg") is None:
        pytest.skip("zbarimg is not installed")
    rows = [b"".join(b"\xff\x00"[bit : bit + 1] * 8 for bit in row) * 8 for row in wanted]
    size = len(wanted) * 8
    (tmp_path / "code.pgm").write_bytes(b"P5 %d %d 255\n" % (size, size) + b"".join(rows))
    command = ["zbarimg", "-q", "--raw", tmp_path / "code.pgm"]
    assert subprocess.run(command, check=True, capture_output=True).stdout.decode() == f"{url}\n"


def test_the_code_stands_beside_the_text_where_there_is_room():
    text = greeting(SHOWN, Screen(WIDE + len(CODE[0]), len(CODE) + 1, has_colour=False))
    assert code_in(text) == CODE
    assert len(text.splitlines()) == len(CODE)
    assert text.splitlines()[0].startswith("prefork 1.0  ")
    assert "    http://192.0.2.1:8000/  (QR code)  " in text


def test_the_code_stands_below_the_text_where_that_is_too_long():
    text = greeting(SHOWN, Screen(WIDE + len(CODE[0]) - 1, len(CODE) + 7, has_colour=False))
    assert code_in(text) == CODE
    assert text.splitlines()[:2] == ["prefork 1.0", "Serving /srv/share"]
    assert text.splitlines()[6:] == CODE


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        (WIDE + len(CODE[0]), len(CODE)),
        (WIDE + len(CODE[0]) - 1, len(CODE) + 6),
        (len(CODE[0]) - 1, 100),
        (0, 0),
    ],
)
def test_without_room_for_all_of_it_there_is_no_code(columns, rows):
    text = greeting(SHOWN, Screen(columns, rows, has_colour=False))
    assert text == greeting(replace(SHOWN, code_url=None), Screen(200, 200, has_colour=False))
    assert "QR" not in text


def test_the_code_has_colours_of_its_own_where_there_are_any():
    text = greeting(SHOWN, Screen(200, 200, has_colour=True))
    for line in CODE:
        assert painted(line) in text
        assert line in painted(line)
    assert painted("█") == "\x1b[38;5;231;48;5;16m█\x1b[0m"


def test_a_name_of_wide_letters_does_not_push_the_code_aside():
    wide = replace(SHOWN, what="日本語" * 20)
    lines = greeting(wide, Screen(200, 200, has_colour=False)).splitlines()
    assert lines[1].startswith(f"Serving {wide.what}  █")
    assert lines[0].index("█") == len("Serving ") + 120 + 2


@pytest.mark.parametrize(
    ("urls", "chosen"),
    [
        ([], None),
        (["http://127.0.0.1:80/", "http://[::1]:80/"], None),
        (["unix:/run/site", "tcp://192.168.1.2:80"], None),
        (["http://desk.local:80/", "http://192.168.1.2:80/"], "http://192.168.1.2:80/"),
        (["http://desk.local:80/", "http://127.0.0.1:80/"], "http://desk.local:80/"),
        (["http://[fd00::7]:80/", "http://desk.local:80/"], "http://[fd00::7]:80/"),
        (["http://[fd00::7]:80/", "http://10.9.9.9:80/"], "http://10.9.9.9:80/"),
        (["http://8.8.8.8:80/", "http://10.9.9.9:80/"], "http://10.9.9.9:80/"),
        (["http://169.254.3.4:80/", "http://8.8.8.8:80/"], "http://8.8.8.8:80/"),
        (["http://[fe80::1%25eth0]:80/"], "http://[fe80::1%25eth0]:80/"),
    ],
)
def test_the_code_is_of_the_url_that_a_phone_can_use(urls, chosen):
    assert code_url(urls) == chosen


def test_the_address_that_leads_out_comes_before_all_others():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("no way leads out of this machine")
        own = sock.getsockname()[0]
    assert code_url(["http://10.9.9.9:80/", f"http://{own}:80/"]) == f"http://{own}:80/"
