"""The access log: what a line looks like, that it is one, and what becomes of it on bad days."""

import contextlib
import errno
import json
import logging
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
from http import HTTPStatus

import pytest

from prefork.http.access import FORMATS, AccessLog, Entry

TIME_S = 1700000000.1234  # 2023-11-14T22:13:20.123Z
ENTRY = Entry(
    host="192.0.2.1",
    user="",
    request_line="GET /a?b=c HTTP/1.1",
    status=200,
    size=1234,
    time_s=TIME_S,
    took_s=0.0123456789,
    referer="http://example.com/",
    user_agent="Mozilla/5.0 (X11; Linux)",
    method="GET",
    target="/a?b=c",
    version="HTTP/1.1",
)
COMMON = b'192.0.2.1 - - [14/Nov/2023:22:13:20 +0000] "GET /a?b=c HTTP/1.1" 200 1234'

WRITERS = """
import sys
from prefork.http.access import AccessLog, Entry
log = AccessLog(1, "common")
for number in range(2000):
    log.add(Entry("h", sys.argv[1], f"GET /{number} " + "x" * (number % 300), 200, 1, 0.0, 0.0,
                  "", "", "GET", "/", "HTTP/1.1"))
log.close()
"""


@pytest.fixture(autouse=True)
def zone(monkeypatch):
    def change(name):
        monkeypatch.setenv("TZ", name)
        time.tzset()

    change("UTC")
    yield change
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "access.log"


@pytest.fixture
def fd(path):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield fd
    os.close(fd)


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError as error:
            assert error.errno == errno.EBADF  # noqa: PT017 # a test has closed it


def line_of(path, fd, name, entry):
    log = AccessLog(fd, name)
    log.add(entry)
    log.flush()
    return path.read_bytes()


def numbered(number, size=100):
    return ENTRY._replace(request_line=f"{number} ".ljust(size, "x"))


def numbers_in(data):
    assert data.endswith(b"\n")
    return [int(re.search(rb'"(\d+) x*"', line)[1]) for line in data.splitlines()]


def read_all(fd):
    """Return what is in the pipe now."""
    data = b""
    while select.select([fd], [], [], 0)[0] and (piece := os.read(fd, 1 << 20)):
        data += piece
    return data


def fill(fd):
    """Fill a pipe without changing how its descriptor blocks."""
    os.set_blocking(fd, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(fd, b"f" * 4096):
            pass
    os.set_blocking(fd, True)


def test_a_common_line_is_apaches(path, fd):
    assert line_of(path, fd, "common", ENTRY) == COMMON + b"\n"


def test_a_combined_line_has_referer_and_user_agent(path, fd):
    assert line_of(path, fd, "combined", ENTRY) == (
        COMMON + b' "http://example.com/" "Mozilla/5.0 (X11; Linux)"\n'
    )


def test_what_is_not_there_is_a_hyphen(path, fd):
    entry = ENTRY._replace(host="", request_line="", status="-", size=0, referer="", user_agent="")
    assert line_of(path, fd, "combined", entry) == (
        b'- - - [14/Nov/2023:22:13:20 +0000] "-" - - "-" "-"\n'
    )


def test_status_and_size_are_what_handlers_pass(path, fd):
    entry = ENTRY._replace(status=HTTPStatus.NOT_FOUND, size="-")
    assert line_of(path, fd, "common", entry).endswith(b'" 404 -\n')
    assert line_of(path, fd, "common", entry._replace(status="200", size="12")).endswith(
        b'" 200 12\n'
    )
    assert line_of(path, fd, "common", entry._replace(status='2 "', size="\n")).endswith(
        b'" 2\\x20\\" \\x0a\n'
    )


def test_a_json_line_has_numbers_as_numbers_and_the_time_in_ms(path, fd):
    line = line_of(path, fd, "json", ENTRY)
    assert line.endswith(b"}\n")
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.123+00:00",
        "host": "192.0.2.1",
        "user": None,
        "method": "GET",
        "target": "/a?b=c",
        "version": "HTTP/1.1",
        "status": 200,
        "size": 1234,
        "took_s": 0.012346,
        "referer": "http://example.com/",
        "user_agent": "Mozilla/5.0 (X11; Linux)",
    }


def test_a_json_line_of_a_malformed_request_has_its_first_line(path, fd):
    entry = ENTRY._replace(
        method="", target="", version="", request_line='\x16\x03 "', status="-", size="12"
    )
    found = json.loads(line_of(path, fd, "json", entry))
    assert (found["request_line"], found["method"], found["target"]) == ('\x16\x03 "', None, None)
    assert (found["status"], found["size"]) == (None, 12)


def test_a_json_line_keeps_any_text_and_is_valid_for_strict_readers(path, fd):
    text = 'a"\\\n\0\x7f\x9b\xff\u2028\U0001f600\udcff\ud800'
    line = line_of(path, fd, "json", ENTRY._replace(user_agent=text, status=HTTPStatus.OK))
    assert re.fullmatch(rb"[ -~]+\n", line)
    found = json.loads(line)
    assert found["user_agent"] == 'a"\\\n\0\x7f\x9b\xff\u2028\U0001f600\xff\ufffd'
    assert found["status"] == 200


@pytest.mark.parametrize("name", ["common", "combined", "json"])
def test_every_request_is_one_line_of_printable_ascii(path, fd, name):
    log = AccessLog(fd, name)
    chars = [*map(chr, range(0x180)), "\u2028", "\ud800", "\udc80", "\udcff", "\U0001f600"]
    for char in chars:
        text = f"a{char}b"
        log.add(Entry(text, text, text, text, text, TIME_S, 0.0, text, text, text, text, text))
    log.flush()
    assert re.fullmatch(rb"([ -~]+\n){%d}" % len(chars), path.read_bytes())


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("\x1b]0;x\x07\r\n", rb"\x1b]0;x\x07\x0d\x0a"),
        ('a"b\\c', rb"a\"b\\c"),
        ("\\x0a", rb"\\x0a"),
        ("\x7f\x80\x9f\xa0\xff", rb"\x7f\x80\x9f\xa0\xff"),
        ("\udcff\udc80", rb"\xff\x80"),
        ("\u20ac", rb"\xe2\x82\xac"),
        ("\ud800", rb"\x3f"),
    ],
)
def test_what_could_steer_a_terminal_or_end_a_field_is_escaped(path, fd, text, escaped):
    entry = ENTRY._replace(request_line=text, user=f"{text} x", referer=text, user_agent=text)
    assert line_of(path, fd, "combined", entry) == (
        b"192.0.2.1 - %b\\x20x [14/Nov/2023:22:13:20 +0000]" % escaped
        + b' "%b" 200 1234 "%b" "%b"\n' % (escaped, escaped, escaped)
    )


def test_times_are_local_and_right_for_every_second(path, fd, zone):
    zone("XST-5:30")
    log = AccessLog(fd, "common")
    seconds = [0, 1700000000.999, 1700000001, 1700000000, *range(1700000000, 1700000200), 0]
    for second in seconds:
        log.add(ENTRY._replace(time_s=second))
    log.flush()
    times = re.findall(rb"\[(.*?)\]", path.read_bytes())
    assert times[:3] == [
        b"01/Jan/1970:05:30:00 +0530",
        b"15/Nov/2023:03:43:20 +0530",
        b"15/Nov/2023:03:43:21 +0530",
    ]
    as_seconds = [time.mktime(time.strptime(t[:20].decode(), "%d/%b/%Y:%H:%M:%S")) for t in times]
    assert as_seconds == [int(second) for second in seconds]
    assert b'"time":"1970-01-01T05:30:00.500+05:30"' in line_of(
        path, fd, "json", ENTRY._replace(time_s=0.5)
    )


def test_off_writes_nothing_and_needs_no_descriptor():
    log = AccessLog(-1, "off")
    log.add(ENTRY)
    log.flush()
    log.reopen(-1)
    log.close()


def test_an_unknown_format_is_named_with_the_known_ones(fd):
    assert FORMATS == ("off", "common", "combined", "json", "short")
    with pytest.raises(ValueError, match="'apache': write one of off, common, combined, json, sh"):
        AccessLog(fd, "apache")


def test_a_descriptor_that_is_not_open_is_refused_and_a_new_one_not_taken(path, fd):
    with pytest.raises(OSError, match="Bad file descriptor"):
        AccessLog(-1, "common")
    log = AccessLog(fd, "common")
    with pytest.raises(OSError, match="Bad file descriptor"):
        log.reopen(-1)
    log.add(ENTRY)
    log.close()
    assert path.read_bytes() == COMMON + b"\n"


def test_nothing_is_written_before_flush_and_everything_in_one_write():
    # A datagram socket keeps the writes apart.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        theirs.settimeout(0)
        log = AccessLog(ours.fileno(), "common")
        log.add(ENTRY)
        log.add(ENTRY)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        log.flush()
        assert theirs.recv(1 << 20) == 2 * (COMMON + b"\n")
        log.flush()
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


def test_a_batch_of_32_kib_is_written_without_flush(path, fd):
    log = AccessLog(fd, "common")
    log.add(numbered(0, 16 * 1024))
    assert path.read_bytes() == b""
    log.add(numbered(1, 16 * 1024))
    assert numbers_in(path.read_bytes()) == [0, 1]


def test_more_than_64_kib_is_split_at_line_ends():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        log = AccessLog(ours.fileno(), "common")
        for number, size in enumerate([20_000, 70_000, 30_000]):
            log.add(numbered(number, size))
        log.flush()
        found = [theirs.recv(1 << 20) for _ in range(2)]
        found.append(theirs.recv(1 << 20))
    assert [numbers_in(data) for data in found] == [[0], [1], [2]]


def test_processes_that_share_a_file_leave_every_line_whole(path, fd):
    check_writers(fd, path.read_bytes)


def test_processes_that_share_a_pipe_leave_every_line_whole(pipe):
    data = []

    def read_slowly():  # so that the pipe is full most of the time
        while piece := os.read(pipe[0], 1000):
            data.append(piece)

    reader = threading.Thread(target=read_slowly)
    reader.start()

    def result():
        os.close(pipe[1])
        reader.join()
        return b"".join(data)

    check_writers(pipe[1], result)


def check_writers(fd, result):
    command = [sys.executable, "-c", WRITERS]
    writers = [subprocess.Popen([*command, name], stdout=fd) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    form = re.compile(rb'h - ([abc]) \[01/Jan/1970:00:00:00 \+0000\] "GET /(\d+) (x*)" 200 1')
    found = [form.fullmatch(line).groups() for line in result().splitlines()]
    for name in (b"a", b"b", b"c"):
        numbers = [int(number) for writer, number, _ in found if writer == name]
        assert numbers == list(range(2000)), "each line once and in order"
    assert all(len(text) == int(number) % 300 for _, number, text in found)


def test_threads_that_log_at_once_lose_and_mix_nothing(path, fd):
    log = AccessLog(fd, "common")

    def work(first):
        for number in range(first, first + 500):
            log.add(numbered(number))
            if number % 7 == 0:
                log.flush()

    threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 4000, 500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    found = numbers_in(path.read_bytes())
    assert sorted(found) == list(range(4000))
    assert [n for n in found if n < 500] == list(range(500))


@pytest.mark.parametrize("blocking", [True, False])
def test_a_pipe_that_is_full_is_not_waited_for_and_nothing_is_lost(pipe, blocking, caplog):
    fill(pipe[1])
    os.set_blocking(pipe[1], blocking)
    log = AccessLog(pipe[1], "common")
    for number in range(2000):  # 340 KiB, several batches
        log.add(numbered(number))
    log.flush()
    filling = read_all(pipe[0])
    assert set(filling) == {ord("f")}
    data = b""
    for _ in range(20):
        log.flush()
        data += read_all(pipe[0])
    assert numbers_in(data) == list(range(2000))
    assert caplog.messages == []


def test_a_line_longer_than_a_pipe_continues_where_it_stopped(pipe):
    os.set_blocking(pipe[1], False)
    log = AccessLog(pipe[1], "common")
    log.add(numbered(0, 200_000))
    log.add(numbered(1))
    data = b""
    for _ in range(5):
        data += read_all(pipe[0])
        log.flush()
    data += read_all(pipe[0])
    assert numbers_in(data) == [0, 1]
    assert len(data.splitlines()[0]) > 200_000


def test_a_reader_that_stands_still_costs_a_mebibyte_and_the_newest_lines(pipe, caplog):
    fill(pipe[1])
    log = AccessLog(pipe[1], "common")
    for number in range(1500):
        log.add(numbered(number, 1000))
    log.flush()
    assert read_all(pipe[0])
    data = b""
    for _ in range(40):
        log.flush()
        data += read_all(pipe[0])
    found = numbers_in(data)
    assert found == list(range(len(found)))
    assert 950 <= len(found) < 1024 * 1024 / 1000
    lost = 1500 - len(found)
    assert caplog.messages == [f"access_log.lines_lost lines={lost} reason=EAGAIN"]


def test_close_waits_for_a_slow_reader(pipe):
    fill(pipe[1])
    log = AccessLog(pipe[1], "common")
    for number in range(1000):
        log.add(numbered(number))
    closing = threading.Thread(target=log.close)
    closing.start()
    data = b""
    while not data.endswith(b"1234\n") or len(numbers_in(data)) < 1000:
        data = (data + os.read(pipe[0], 4096)).lstrip(b"f")
    closing.join()
    assert numbers_in(data) == list(range(1000))


def test_close_gives_a_reader_up_that_stands_still_and_tells_what_is_lost(pipe, caplog):
    fill(pipe[1])
    log = AccessLog(pipe[1], "common")
    log.add(numbered(0))
    log.add(numbered(1))
    log.close()
    assert caplog.messages == ["access_log.lines_lost lines=2 reason=EAGAIN"]


def test_a_dead_reader_raises_nothing(pipe, caplog):
    os.close(pipe[0])
    log = AccessLog(pipe[1], "common")
    for number in range(3):
        log.add(numbered(number))
        log.flush()
    assert caplog.messages == []
    log.close()
    assert caplog.messages == ["access_log.lines_lost lines=3 reason=EPIPE"]


def test_a_full_disk_raises_nothing_and_is_told_once_when_writing_works_again(path, fd, caplog):
    full = os.open("/dev/full", os.O_WRONLY)
    log = AccessLog(full, "common")
    for number in range(5):
        log.add(numbered(number))
        log.flush()
    log.add(numbered(5))
    assert caplog.messages == []
    os.dup2(fd, full)
    for number in range(6, 8):
        log.add(numbered(number))
        log.flush()
    os.close(full)
    assert numbers_in(path.read_bytes()) == [5, 6, 7]
    assert caplog.messages == ["access_log.lines_lost lines=5 reason=ENOSPC"]
    assert caplog.records[0].levelno == logging.WARNING


def test_a_line_that_was_cut_by_a_full_disk_does_not_spoil_the_next(path, fd):
    # A limit on the size of files writes in part, and refuses the rest, as a full disk does.
    script = """
import os, resource, sys
from prefork.http.access import AccessLog, Entry
log = AccessLog(1, "common")
def add(text):
    log.add(Entry("h", "", text, 200, 1, 0.0, 0.0, "", "", "", "", ""))
    log.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
add("a" * 10); add("b" * 50); add("c")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
add("d"); add("e")
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=fd, stderr=subprocess.PIPE,
                          check=True)  # fmt: skip
    head = b'h - - [01/Jan/1970:00:00:00 +0000] "'
    first = head + b"a" * 10 + b'" 200 1\n'
    cut = (head + b"b" * 50)[: 100 - len(first)]
    assert path.read_bytes() == first + cut + b"\n" + head + b'd" 200 1\n' + head + b'e" 200 1\n'
    assert done.stderr == b"access_log.lines_lost lines=2 reason=EFBIG\n"


def test_reopen_writes_to_the_old_file_what_was_before_and_closes_nothing(path, fd, tmp_path):
    log = AccessLog(fd, "common")
    log.add(numbered(0))
    new = os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    log.reopen(new)
    assert numbers_in(path.read_bytes()) == [0]
    log.add(numbered(1))
    log.close()
    os.fstat(fd)
    os.close(new)
    assert numbers_in((tmp_path / "new").read_bytes()) == [1]


def test_reopen_takes_along_whole_lines_that_the_old_descriptor_did_not_take(
    path, fd, pipe, caplog
):
    os.set_blocking(pipe[1], False)
    log = AccessLog(pipe[1], "common")
    log.add(numbered(0, 200_000))
    log.add(numbered(1))
    log.reopen(fd)
    log.add(numbered(2))
    log.flush()
    assert numbers_in(path.read_bytes()) == [1, 2]
    assert caplog.messages == ["access_log.lines_lost lines=1 reason=reopened"]
