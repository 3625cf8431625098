"""The daemon's log: its targets, its forms, and what becomes of repetitions and bad days."""

import contextlib
import json
import logging
import os
import re
import socket
import struct
import subprocess
import sys
import textwrap
import time

import pytest

from prefork import log
from prefork.errors import StartError
from prefork.logs.events import Limited, Repeats, Wanted, configure
from prefork.logs.files import LogFiles
from prefork.logs.records import Json, Text, new_record
from prefork.logs.sinks import DescriptorSink, JournalSink, SyslogSink

TIME_S = 1700000000.1239  # 2023-11-14T22:13:20.123Z
INFO, WARNING, ERROR = logging.INFO, logging.WARNING, logging.ERROR


@pytest.fixture(autouse=True)
def logging_as_it_was():
    handlers, level, propagate = log.LOGGER.handlers[:], log.LOGGER.level, log.LOGGER.propagate
    last = logging.lastResort
    yield
    log.LOGGER.handlers[:] = handlers
    log.LOGGER.setLevel(level)
    log.LOGGER.propagate = propagate
    logging.lastResort = last


@pytest.fixture
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def record(name="some.event", level=INFO, **fields):
    it = new_record(level, name, fields)
    it.created = TIME_S
    it.process = 77
    return it


def foreign(message, *arguments, name="shop.till", level=WARNING):
    it = logging.LogRecord(name, level, __file__, 1, message, arguments, None)
    it.created = TIME_S
    it.process = 77
    return it


def failed(it):
    try:
        int("no good")
    except ValueError:
        it.exc_info = sys.exc_info()
    return it


def members(it):
    line = Json().format(it)
    assert line.isascii()
    assert "\n" not in line
    return json.loads(line)


@pytest.mark.usefixtures("utc")
def test_text_is_one_line_with_time_and_level():
    assert Text().format(record(slot=1, reason="a b")) == (
        '2023-11-14T22:13:20+0000 INFO some.event slot=1 reason="a b"'
    )


@pytest.mark.usefixtures("utc")
def test_a_programs_own_message_is_one_line_too_with_its_loggers_name():
    assert Text().format(foreign("sold %d\n2023 INFO forged", 3)) == (
        "2023-11-14T22:13:20+0000 WARNING shop.till: sold 3\\x0a2023 INFO forged"
    )


def test_a_traceback_follows_its_line():
    lines = Text().format(failed(record(slot=1))).splitlines()
    assert lines[0].endswith("some.event slot=1")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: invalid literal for int() with base 10: 'no good'"


@pytest.mark.usefixtures("utc")
def test_json_has_the_fields_as_they_are():
    assert members(record(slot=1, reason='a "b"\n', took_s=0.5, ok=True, what=None)) == {
        "time": "2023-11-14T22:13:20.123+00:00",
        "level": "info",
        "process": 77,
        "event": "some.event",
        "slot": 1,
        "reason": 'a "b"\n',
        "took_s": 0.5,
        "ok": True,
        "what": None,
    }


def test_json_has_what_is_no_json_as_text():
    it = record(at=("::1", 80), nan=float("nan"), city="caf\udce9", signal=b"x", half="\ud800")
    found = members(it)
    assert found["at"] == "('::1', 80)"
    assert found["nan"] == "nan"
    assert found["city"] == "caf\\xe9"
    assert found["signal"] == "b'x'"
    assert found["half"] == "\\ud800"


def test_json_keeps_its_own_members_apart_from_fields():
    found = members(record(time=1, process=2, event=3))
    assert (found["time_"], found["process"], found["process_"], found["event_"]) == (1, 77, 2, 3)
    assert found["event"] == "some.event"


def test_json_of_a_programs_own_message_has_its_logger_and_its_traceback():
    found = members(failed(foreign("sold %s", "caf\udce9")))
    assert (found["logger"], found["message"]) == ("shop.till", "sold caf\\xe9")
    assert found["exception"].endswith("'no good'")
    assert "event" not in found


def test_a_programs_extra_named_like_ours_is_not_taken_for_ours():
    it = foreign("party")
    it.event = object()
    assert members(it)["message"] == "party"


# Descriptors


def drained(fd):
    os.set_blocking(fd, False)
    return os.read(fd, 1 << 20).decode()


def test_lines_of_a_descriptor_are_whole():
    ours, theirs = os.pipe()
    sink = DescriptorSink(theirs, logging.Formatter("%(message)s"))
    sink.emit(record(name="grüße"))
    sink.emit(failed(record()))
    text = drained(ours)
    assert text.startswith("grüße\nsome.event\nTraceback")
    assert text.endswith("'no good'\n")
    os.close(ours)
    os.close(theirs)


def test_a_reader_that_has_stopped_costs_lines_but_never_stops_us():
    ours, theirs = os.pipe()
    sink = DescriptorSink(theirs, logging.Formatter("%(message)s"))
    for number in range(200):
        sink.emit(record(number=number, text="x" * 1000))
    text = drained(ours)
    written = text.count("some.event")
    assert 10 < written < 200
    sink.emit(record(number="last"))
    assert drained(ours).splitlines()[-2:] == [
        f"log.lines_lost lines={200 - written} reason=EAGAIN",
        "some.event number=last",
    ]
    os.close(ours)
    os.close(theirs)


def test_a_dead_reader_is_survived():
    ours, theirs = os.pipe()
    os.close(ours)
    sink = DescriptorSink(theirs, logging.Formatter("%(message)s"))
    sink.emit(record())
    os.close(theirs)


def test_a_full_disk_costs_lines_and_their_number_is_logged(tmp_path):
    full = os.open("/dev/full", os.O_WRONLY)
    path = tmp_path / "log"
    fine = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sink = DescriptorSink(full, logging.Formatter("%(message)s"))
    sink.emit(record())
    sink.emit(record())
    os.dup2(fine, full)
    sink.emit(record(slot=3))
    assert path.read_text() == "log.lines_lost lines=2 reason=ENOSPC\nsome.event slot=3\n"
    os.close(full)
    os.close(fine)


def test_a_line_that_was_torn_does_not_run_into_the_next(tmp_path):
    source = """
        import logging, os, resource, signal, sys
        from prefork.logs.records import new_record
        from prefork.logs.sinks import DescriptorSink
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        sink = DescriptorSink(fd, logging.Formatter("%(message)s"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
        sink.emit(new_record(logging.INFO, "first.of.them", {}))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        sink.emit(new_record(logging.INFO, "second", {}))
        """
    path = tmp_path / "log"
    subprocess.run([sys.executable, "-c", textwrap.dedent(source), path], check=True)
    assert path.read_text() == "first.of.t\nlog.lines_lost lines=1 reason=EFBIG\nsecond\n"


def test_a_message_that_does_not_fit_its_arguments_is_reported():
    ours, theirs = os.pipe()
    sink = DescriptorSink(theirs, logging.Formatter("%(message)s"))
    sink.emit(foreign("sold %d", "three"))
    sink.emit(record())
    lost, event = drained(ours).splitlines()
    assert lost.startswith('log.lines_lost lines=1 reason="shop.till: ')
    assert lost.endswith('not str"')  # the rest is Python's, in words that change
    assert event == "some.event"
    os.close(ours)
    os.close(theirs)


# Syslog and journal: a reader that is not ours, at a socket of its kind


@pytest.fixture
def opened():
    with contextlib.ExitStack() as stack:
        yield lambda kind, *arguments: stack.enter_context(contextlib.closing(kind(*arguments)))


@pytest.fixture
def daemon(tmp_path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(tmp_path / "daemon"))
    sock.settimeout(10)
    yield sock
    sock.close()


@pytest.mark.usefixtures("utc")
def test_syslog_gets_what_it_expects(daemon, opened):
    sink = opened(SyslogSink, Text(stamped=False), daemon.getsockname())
    sink.emit(record(level=ERROR, slot=1))
    assert daemon.recv(9999) == b"<27>Nov 14 22:13:20 prefork[77]: some.event slot=1"
    it = record()
    it.created -= 10 * 86400
    sink.emit(it)
    assert daemon.recv(9999) == b"<30>Nov  4 22:13:20 prefork[77]: some.event"


def test_syslog_gets_a_traceback_in_lines_of_its_own(daemon, opened):
    sink = opened(SyslogSink, Text(stamped=False), daemon.getsockname())
    sink.emit(failed(record(level=ERROR)))
    lines = [daemon.recv(9999).decode()]
    while "]: ValueError: " not in lines[-1]:
        lines.append(daemon.recv(9999).decode())
    assert {line.partition("prefork[77]: ")[0][:4] for line in lines} == {"<27>"}
    assert lines[0].endswith(": some.event")
    assert lines[1].endswith(": Traceback (most recent call last):")
    assert "prefork[77]: ValueError: invalid literal" in lines[-1]


def test_syslog_lines_are_cut_where_it_would_cut_them(daemon, opened):
    sink = opened(SyslogSink, Text(stamped=False), daemon.getsockname())
    sink.emit(record(text="x" * 100000))
    assert len(daemon.recv(200000)) == 8192


def test_a_syslog_that_was_restarted_is_found_again(daemon, opened, tmp_path):
    sink = opened(SyslogSink, Text(stamped=False), daemon.getsockname())
    daemon.close()
    sink.emit(record(number=1))
    (tmp_path / "daemon").unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as again:
        again.bind(str(tmp_path / "daemon"))
        sink.emit(record(number=2))
        assert again.recv(9999).endswith(b"log.lines_lost lines=1 reason=ECONNREFUSED")
        assert again.recv(9999).endswith(b"some.event number=2")


def test_a_syslog_that_does_not_read_never_stops_us(daemon, opened):
    sink = opened(SyslogSink, Text(stamped=False), daemon.getsockname())
    for number in range(2000):
        sink.emit(record(number=number))
    assert b"number=0" in daemon.recv(9999)


@pytest.mark.parametrize(("sink", "what"), [(SyslogSink, "syslog"), (JournalSink, "journald")])
def test_a_daemon_that_is_not_there_is_named(tmp_path, sink, what):
    path = str(tmp_path / "nobody")
    arguments = [Text()] if sink is SyslogSink else []
    with pytest.raises(StartError) as caught:
        sink(*arguments, path)
    assert str(caught.value) == f"cannot log to {what}: {path}: No such file or directory"


def journal_fields(data):
    found = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack("<Q", data[:8])
            value, data = data[8 : 8 + size], data[8 + size + 1 :]
        found[name.decode()] = value.decode()
    return found


def test_the_journal_gets_fields(daemon, opened):
    sink = opened(JournalSink, daemon.getsockname())
    sink.emit(record("worker.died", WARNING, slot=1, reason="a b", http2_max=3))
    assert journal_fields(daemon.recv(9999)) == {
        "MESSAGE": 'worker.died slot=1 reason="a b" http2_max=3',
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "prefork",
        "SYSLOG_FACILITY": "3",
        "PREFORK_EVENT": "worker.died",
        "PREFORK_SLOT": "1",
        "PREFORK_REASON": "a b",
        "PREFORK_HTTP2_MAX": "3",
    }


def test_the_journal_gets_values_of_several_lines_and_tracebacks_whole(daemon, opened):
    sink = opened(JournalSink, daemon.getsockname())
    sink.emit(failed(record("handler.failed", ERROR, request="GET /\nFORGED=1")))
    found = journal_fields(daemon.recv(9999))
    assert found["PREFORK_REQUEST"] == "GET /\nFORGED=1"
    assert "FORGED" not in found
    assert found["MESSAGE"].startswith('handler.failed request="GET /\\x0aFORGED=1"\nTraceback')
    assert found["PRIORITY"] == "3"


def test_the_journal_gets_a_programs_own_messages(daemon, opened):
    sink = opened(JournalSink, daemon.getsockname())
    sink.emit(foreign("sold %d", 3))
    found = journal_fields(daemon.recv(9999))
    assert (found["MESSAGE"], found["LOGGER"]) == ("shop.till: sold 3", "shop.till")
    assert "PREFORK_EVENT" not in found


def test_the_journal_gets_a_large_record_as_a_sealed_file(daemon, opened):
    sink = opened(JournalSink, daemon.getsockname())
    sink.emit(record(text="x" * 1_000_000))
    data, (fd,), *_ = socket.recv_fds(daemon, 9999, 1)
    assert data == b""
    with os.fdopen(fd, "rb") as file:
        file.seek(0)  # where the sender wrote last; the journal maps it
        assert journal_fields(file.read())["PREFORK_TEXT"] == "x" * 1_000_000
        with pytest.raises(PermissionError):
            os.truncate(f"/proc/self/fd/{fd}", 0)


# Repetitions


def kinds(*records):
    return [it.getMessage() for it in records]


def test_of_repeated_events_the_first_pass_and_the_others_are_counted():
    repeats = Repeats(10.0, 3)
    assert [repeats.admits(record(slot=1), 0.0 + n) for n in range(5)] == [True] * 3 + [False] * 2
    assert repeats.take_over(9.9) == []
    (told,) = repeats.take_over(10.0)
    assert told.getMessage() == "log.repeated of=some.event slot=1 more=2 window_s=10.0"
    assert told.levelno == INFO
    assert repeats.take_over(1e9) == []
    assert repeats.admits(record(slot=1), 10.0)


def test_few_are_not_told_of():
    repeats = Repeats(10.0, 3)
    assert all(repeats.admits(record(), 0.0) for _ in range(3))
    assert repeats.take_over(1e9) == []


def test_events_repeat_when_name_and_slot_do_whatever_else_differs():
    repeats = Repeats(10.0, 1)
    assert repeats.admits(record("handler.failed", client="::1"), 0)
    assert not repeats.admits(record("handler.failed", client="::2"), 0)
    assert repeats.admits(record("handler.other"), 0)
    assert repeats.admits(record("worker.ready", slot=1), 0)
    assert repeats.admits(record("worker.ready", slot=2), 0)
    assert repeats.admits(foreign("sold %d", 1), 0)
    assert not repeats.admits(foreign("sold %d", 2), 0)
    assert repeats.admits(foreign("sold %d", 1, name="shop.door"), 0)
    assert kinds(*repeats.take_over(1e9)) == [
        "log.repeated of=handler.failed more=1 window_s=10.0",
        'log.repeated of="sold %d" more=1 window_s=10.0',
    ]


def test_what_is_counted_at_a_time_is_bounded():
    repeats = Repeats(10.0, 1)
    for number in range(2000):
        assert repeats.admits(foreign(f"sold {number}"), 0)
    assert [repeats.admits(foreign(f"sold {number}"), 1) for number in (1, 1999)] == [False, True]


def test_repetitions_are_told_by_tick_and_at_the_end():
    ours, theirs = os.pipe()
    handler = Limited(DescriptorSink(theirs, logging.Formatter("%(message)s")), 1e6, 1)
    for _ in range(3):
        handler.handle(record())
    handler.tick()
    assert drained(ours) == "some.event\n"
    handler.flush()
    assert drained(ours) == "log.repeated of=some.event more=2 window_s=1000000.0\n"
    os.close(ours)
    os.close(theirs)


def test_a_worker_does_not_tell_what_its_master_has_counted():
    ours, theirs = os.pipe()
    handler = Limited(DescriptorSink(theirs, logging.Formatter("%(message)s")), 1e6, 1)
    handler.handle(record())
    handler.handle(record())
    pid = os.fork()
    if pid == 0:
        handler.flush()
        handler.handle(record(by="worker"))
        os._exit(0)
    os.waitpid(pid, 0)
    handler.flush()
    assert drained(ours).splitlines() == [
        "some.event",
        "some.event by=worker",
        "log.repeated of=some.event more=1 window_s=1000000.0",
    ]
    os.close(ours)
    os.close(theirs)


# All of it


@pytest.fixture
def path(tmp_path):
    return tmp_path / "master.log"


def test_a_file_is_made_and_gets_the_events_of_its_level(path):
    files = LogFiles()
    configure(Wanted(target=str(path), level="warning", mode=0o600), files)
    log.info("not.this")
    log.warning("but.this", slot=1)
    assert re.fullmatch(r"\S+ WARNING but.this slot=1\n", path.read_text())
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(files.handover()) == [str(path)]


def test_json_goes_to_a_file_as_well(path):
    configure(Wanted(target=str(path), format="json"), LogFiles())
    log.info("some.event", slot=1)
    assert json.loads(path.read_text())["slot"] == 1


def test_what_was_configured_before_is_over(path, capfd):
    log.configure(logging.INFO)
    configure(Wanted(target=str(path)), LogFiles())
    log.info("some.event")
    assert capfd.readouterr().err == ""


def test_a_target_that_cannot_be_opened_changes_nothing(tmp_path):
    before = log.LOGGER.handlers[:]
    with pytest.raises(StartError, match=r"^cannot open the log .*/no/log: No such file"):
        configure(Wanted(target=str(tmp_path / "no" / "log")), LogFiles())
    assert log.LOGGER.handlers == before


def test_stderr_gets_text(capfd):
    configure(Wanted(), LogFiles(), {})
    log.info("some.event")
    assert capfd.readouterr().err.endswith(" INFO some.event\n")


def test_a_journal_stream_that_is_not_stderr_is_no_journal(capfd):
    configure(Wanted(), LogFiles(), {"JOURNAL_STREAM": "1:2"})
    log.info("some.event")
    assert capfd.readouterr().err.endswith(" INFO some.event\n")


def test_loggers_that_nobody_configured_go_along_and_others_do_not(path):
    source = f"""
        import logging
        from prefork.logs.files import LogFiles
        from prefork.logs.events import Wanted, configure
        configure(Wanted(target={str(path)!r}), LogFiles())
        logging.getLogger("shop").info("too low, as ever")
        logging.getLogger("shop").warning("sold out")
        logging.basicConfig()
        logging.getLogger("shop").warning("on stderr")
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)], capture_output=True, text=True, check=True
    )
    assert path.read_text().endswith(" WARNING shop: sold out\n")
    assert done.stderr == "WARNING:shop:on stderr\n"


def test_repetitions_are_limited_and_told_at_the_interpreters_end(path):
    source = f"""
        from prefork import log
        from prefork.logs.files import LogFiles
        from prefork.logs.events import Wanted, configure
        configure(Wanted(target={str(path)!r}, repeat_burst=2, repeat_window_s=1000), LogFiles())
        for number in range(1000):
            log.info("some.event", number=number)
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(source)], check=True)
    assert [line.split(" ", 1)[1] for line in path.read_text().splitlines()] == [
        "INFO some.event number=0",
        "INFO some.event number=1",
        "INFO log.repeated of=some.event more=998 window_s=1000",
    ]
