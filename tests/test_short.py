"""Access lines for people: in columns, cut to the terminal's width, and harmless."""

import os
import pty
import re
import termios
import time
from http import HTTPStatus

import pytest

from prefork.columns import width_of
from prefork.http.access import AccessLog, Entry
from prefork.http.short import short_formatter

ENTRY = Entry(
    host="192.0.2.1",
    user="",
    request_line="GET /a/b.txt HTTP/1.1",
    status=200,
    size=1234,
    time_s=1700000000.5,
    took_s=0.01,
    referer="",
    user_agent="",
    method="GET",
    target="/a/b.txt",
    version="HTTP/1.1",
)
LINE = "22:13:20  192.0.2.1        200  1.2 kB  GET /a/b.txt\n"


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("locale.getencoding", lambda: "UTF-8")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def tty():
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    yield theirs
    os.close(ours)
    os.close(theirs)


@pytest.fixture
def fd(tmp_path):
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield fd
    os.close(fd)


def bare(line: str) -> str:
    """Return a line without colours."""
    assert line.endswith("\n")
    return re.sub(r"\x1b\[[0-9]*m", "", line).removesuffix("\n")


def what(fd: int, **fields) -> str:
    """Return the last column."""
    return bare(short_formatter(fd)(ENTRY._replace(**fields)))[40:]


def test_a_line_has_time_client_status_size_and_what_was_asked(fd):
    assert short_formatter(fd)(ENTRY) == LINE


def test_lines_stand_in_columns(tty):
    line = short_formatter(tty)
    for fields in (
        {"status": 404, "size": 0},
        {"status": HTTPStatus.NO_CONTENT, "size": "-"},
        {"status": "-", "size": 999_999},
        {"host": "2001:db8:1234:5678:9abc:def0:1234:5678", "size": 123_456_789_012},
        {"host": "", "size": 999},
        {"status": "odd", "size": "odd"},
    ):
        shown = bare(line(ENTRY._replace(**fields)))
        assert re.fullmatch(r"22:13:20  .{15}  .{3}  .{6}  GET /a/b\.txt", shown)


def test_a_long_address_keeps_its_ends_and_more_of_it_on_a_wide_terminal(tty):
    entry = ENTRY._replace(host="2001:db8:1234:5678:9abc:def0:1234:5678")
    assert bare(short_formatter(tty)(entry))[10:25] == "2001…:1234:5678"
    termios.tcsetwinsize(tty, (24, 120))
    assert bare(short_formatter(tty)(entry))[10:35] == "2001:db8…c:def0:1234:5678"


def test_in_a_file_nothing_is_cut_or_coloured(fd):
    path = "/" + "x" * 3000
    shown = short_formatter(fd)(ENTRY._replace(target=path, host="2001:db8::1:2:3:4:5:6"))
    assert shown.endswith(f"  GET {path}\n")
    assert "2001:db8::1:2:3:4:5:6  200" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("status", "colour"), [(200, 32), (206, 32), (304, 36), (404, 33), (500, 31), ("-", None)]
)
def test_the_status_has_a_colour(tty, status, colour, monkeypatch):
    shown = short_formatter(tty)(ENTRY._replace(status=status))
    assert re.findall(r"\x1b\[(\d+)m", shown) == ([str(colour), "0"] if colour else ["0"])
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in short_formatter(tty)(ENTRY._replace(status=status))


@pytest.mark.parametrize(
    ("took_s", "said"),
    [
        (0.99, ""),
        (1, "  1.0s"),
        (9.94, "  9.9s"),
        (9.96, "  10s"),
        (59.4, "  59s"),
        (59.6, "  1m00s"),
        (3599, "  59m59s"),
        (3600, "  1h00m"),
        (360000, "  100h00m"),
    ],
)
def test_how_long_it_took_is_told_if_that_was_long(fd, took_s, said):
    assert what(fd, took_s=took_s) == f"GET /a/b.txt{said}"


def test_the_time_is_that_of_the_end(fd):
    assert short_formatter(fd)(ENTRY._replace(took_s=61)).startswith("22:14:21  ")


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/caf%C3%A9", "/café"),
        ("/caf\xc3\xa9", "/café"),
        ("/%E6%97%A5%E6%9C%AC", "/日本"),
        ("/a%20b?q=%26", "/a b?q=&"),
        ("/%ff%FE", r"/\xff\xfe"),
        ("/%1b%5b31m", r"/\x1b[31m"),
        ("/%0a%0d%09%7f%00", r"/\x0a\x0d\x09\x7f\x00"),
        ("/%c2%9b31m", r"/\x9b31m"),
        ("/%e2%80%aegpj.exe", r"/\u202egpj.exe"),
        ("/%e2%80%a8", r"/\u2028"),
        ("/%ed%a0%80", r"/\xed\xa0\x80"),
        ("/100%", "/100%"),
        ("/\u20ac", "/?"),
    ],
)
def test_a_path_is_decoded_and_what_steers_or_hides_is_made_visible(fd, target, shown):
    assert what(fd, target=target) == f"GET {shown}"


def test_what_was_no_request_is_shown_as_it_came(fd):
    assert what(fd, method="", target="", request_line="\x16\x03\x01\xff") == r"\x16\x03\x01ÿ"
    assert what(fd, method="", target="", request_line="") == "-"


def test_a_name_in_another_script_is_escaped_where_the_terminal_has_no_utf8(tty, fd, monkeypatch):
    monkeypatch.setattr("locale.getencoding", lambda: "ISO-8859-1")
    assert what(tty, target="/caf%C3%A9") == r"GET /caf\xe9"
    assert what(fd, target="/caf%C3%A9") == "GET /café"


@pytest.mark.parametrize(
    "path", ["/x" * 200, "/日本語" * 100, "/e\u0301" * 200, "/a日" * 5000, "/\U0001f600" * 50]
)
@pytest.mark.parametrize("columns", [60, 61, 80, 133])
@pytest.mark.parametrize("took_s", [0, 75])
def test_a_line_is_never_longer_than_the_terminal_is_wide(tty, path, columns, took_s):
    termios.tcsetwinsize(tty, (24, columns))
    target = "".join(f"%{byte:02x}" for byte in path.encode())
    shown = bare(short_formatter(tty)(ENTRY._replace(target=target, took_s=took_s)))
    assert columns - 2 <= width_of(shown) <= columns
    assert "…" in shown
    assert shown.endswith(path[-3:] if not took_s else "  1m15s")


def test_a_narrow_terminal_still_shows_some_of_the_path(tty):
    termios.tcsetwinsize(tty, (24, 20))
    assert len(what(tty, target="/" + "x" * 100)) == 12


def test_a_terminal_that_does_not_know_its_size_is_taken_for_a_usual_one(tty):
    termios.tcsetwinsize(tty, (0, 0))
    assert len(bare(short_formatter(tty)(ENTRY._replace(target="/" + "x" * 100)))) == 80


def test_a_terminal_that_grows_has_longer_lines_a_second_later(tty):
    line = short_formatter(tty)
    entry = ENTRY._replace(target="/" + "x" * 100)
    assert len(bare(line(entry))) == 80
    termios.tcsetwinsize(tty, (24, 90))
    assert len(bare(line(entry))) == 80
    assert len(bare(line(entry._replace(time_s=ENTRY.time_s + 1)))) == 90


def test_lines_are_written_in_utf8(fd, tmp_path):
    log = AccessLog(fd, "short")
    log.add(ENTRY._replace(target="/%F0%9F%98%80"))
    log.close()
    assert (tmp_path / "log").read_text() == LINE.replace("/a/b.txt", "/\U0001f600")
