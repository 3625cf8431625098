"""The table of workers, and the live screen on a terminal of its own."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from contextlib import contextmanager, suppress

import pytest
from control_rig import DEADLINE_S, rig_at, status, worker

from prefork.control.table import cells, clean, cut, rates_between, render

NOW_S = 1_000_000.0

# -- the table ---------------------------------------------------------------


def pools(*counts, **fields):
    """Return a status with so many workers in each pool."""
    made = status(0) | {"started_s": NOW_S - 3 * 3600} | fields
    slot = 0
    made["pools"] = []
    for number, count in enumerate(counts):
        workers = [worker(slot + n, request="GET /", request_age_s=0.1) for n in range(count)]
        slot += count
        made["pools"].append(
            {"name": f"pool{number}", "at": ["[::]:80"], "wanted": count, "workers": workers}
        )
    return made


def test_the_table_says_everything():
    made = pools(1)
    made["pools"][0]["at"] = ["[::]:8000", "unix:/run/x"]
    made["pools"][0]["wanted"] = 2
    made["pools"][0]["workers"] = [
        worker(
            3,
            pid=4711,
            generation=12,
            state="retiring",
            age_s=3661,
            requests=1234567,
            bytes=3 * 2**30,
            busy=2,
            request="GET /film.mkv",
            request_age_s=75.4,
            memory_bytes=20 * 2**20,
        )
    ]
    assert render(made, NOW_S) == [
        f"prefork 1  pid {os.getpid()}  generation 1  serving  up 3h00m  /etc/prefork/web.toml",
        "",
        "POOL   WORKERS  BUSY  AT",
        "pool0      0/2     1  [::]:8000, unix:/run/x",
        "",
        "SLOT   PID  GEN  STATE       AGE  REQUESTS  BYTES  MEMORY  BUSY    FOR  REQUEST",
        "   3  4711   12  retiring  1h01m   1234567   3.0G     20M     2  1m15s  GET /film.mkv",
    ]


def test_workers_of_several_pools_tell_whose_they_are():
    lines = render(pools(1, 1), NOW_S)
    assert lines[2:5] == [
        "POOL   WORKERS  BUSY  AT",
        "pool0      1/1     1  [::]:80",
        "pool1      1/1     1  [::]:80",
    ]
    assert [line.split()[0] for line in lines[6:]] == ["POOL", "pool0", "pool1"]


def test_an_idle_worker_has_no_request():
    made = pools(1)
    made["pools"][0]["workers"] = [worker(0, busy=0, request=None, request_age_s=None)]
    assert render(made, NOW_S)[-1].endswith("1.0M     0")


def test_a_master_without_pools_or_workers_is_shown():
    assert len(render(pools(), NOW_S)) == 3
    assert render(pools(0), NOW_S)[-1].startswith("pool0      0/0     0")


def test_what_is_wrong_is_shown_line_by_line():
    reason = "reload failed: a.toml: x: no\na.toml: y: no"
    lines = render(pools(1, reason=reason, state="degraded"), NOW_S)
    assert "degraded" in lines[0]
    assert lines[1:3] == ["reload failed: a.toml: x: no", "    a.toml: y: no"]


def test_a_long_reason_leaves_room_for_the_workers():
    made = pools(4, reason="\n".join(f"a.toml: key{n}: no" for n in range(100)))
    lines = render(made, NOW_S, 80, 24)
    assert lines[5] == "and 96 more lines"
    assert sum("GET /" in line for line in lines) == 4


@pytest.mark.parametrize("columns", [1, 2, 5, 10, 20, 40, 60, 80, 100, 200])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7, 10, 24, 100])
def test_it_fits_any_terminal(columns, rows):
    made = pools(3, 20, 0, reason="because\nof this", config="/etc/" + "日本" * 40)
    lines = render(made, NOW_S, columns, rows, {"pool0": 12.0})
    assert len(lines) <= rows
    assert max(map(cells, lines)) <= columns


def test_a_narrow_terminal_has_the_columns_that_matter():
    made = pools(2)
    titles = {
        columns: next(line.split() for line in render(made, NOW_S, columns) if "SLOT" in line)
        for columns in (100, 60, 40, 20)
    }
    assert titles[100][-1] == titles[60][-1] == "REQUEST"
    assert {"SLOT", "STATE", "FOR", "REQUEST"} <= set(titles[60])
    assert "BYTES" not in titles[60]
    assert titles[40] == ["SLOT", "PID", "STATE", "BUSY", "FOR", "REQUEST"]
    assert titles[20] == ["SLOT", "REQUEST"]


def test_where_not_all_fit_the_oldest_requests_and_those_in_change_are_shown():
    made = pools(1024)
    workers = made["pools"][0]["workers"]
    for one in workers:
        one |= {"busy": 0, "request": None, "request_age_s": None}
    workers[1000] |= {"request": "GET /slow", "request_age_s": 60.0}
    workers[500] |= {"request": "GET /slower", "request_age_s": 90.0}
    workers[900]["state"] = "starting"
    lines = render(made, NOW_S, 100, 24)
    assert len(lines) == 24
    slots = [line.split()[0] for line in lines[6:-1]]
    assert slots[:4] == ["500", "1000", "900", "0"]
    assert lines[-1] == f"and {1024 - len(slots)} more"


def test_a_large_fleet_is_drawn_without_haste():
    made = pools(*[16] * 64)
    start_s = time.process_time()
    for _ in range(10):
        render(made, NOW_S, 120, 50, {})
    assert time.process_time() - start_s < 2


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("GET /\x1b[2J", "GET /\\x1b[2J"),
        ("a\tb\nc\x07", "a\\tb\\nc\\x07"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("b\udcff", "b\\udcff"),
        ("ü 日本", "ü 日本"),
    ],
)
def test_what_would_steer_a_terminal_is_shown_as_an_escape(raw, shown):
    assert clean(raw) == shown
    made = pools(1, reason=raw.replace("\n", ""), config=raw, version=raw, state=raw)
    made["pools"][0] |= {"name": raw, "at": [raw]}
    made["pools"][0]["workers"] = [worker(0, request=raw, state=raw)]
    assert all(line.isprintable() for line in render(made, NOW_S))


def test_wide_characters_take_two_columns():
    assert cells("日本") == 4
    assert cells("e\u0301") == 1
    assert cut("日本語", 5) == "日本+"
    assert cut("日本語", 4) == "日+"
    assert cut("abc", 3) == "abc"
    assert cut("abcd", 3) == "ab+"
    assert cut("abcd", 0) == ""


def test_the_rate_is_what_was_served_in_between():
    before, after = pools(2, 1), pools(2, 1)
    after["pools"][0]["workers"][0]["requests"] += 100
    after["pools"][0]["workers"][1] |= {"pid": 9, "requests": 20}  # a new one, all its own
    assert rates_between(before, after, 2.0) == {"pool0": 60.0, "pool1": 0.0}
    lines = render(after, NOW_S, rates={"pool0": 60.4})
    assert lines[2].split() == ["POOL", "WORKERS", "BUSY", "REQ/S", "AT"]
    assert lines[3].split()[3] == "60"


@pytest.mark.parametrize(
    ("age_s", "text"),
    [
        (-1, "0.0s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.6, "1m00s"),
        (3599.7, "1h00m"),
        (86400, "1d00h"),
        (90 * 86400 + 7200, "90d02h"),
    ],
)
def test_ages_are_short(age_s, text):
    made = pools(1)
    made["pools"][0]["workers"] = [worker(0, age_s=age_s)]
    assert render(made, NOW_S)[-1].split()[4] == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1.0K"),
        (1023 * 1024, "1.0M"),
        (5 * 2**30, "5.0G"),
        (2**50, "1.0P"),
    ],
)
def test_sizes_are_short(size, text):
    made = pools(1)
    made["pools"][0]["workers"] = [worker(0, bytes=size)]
    assert render(made, NOW_S)[-1].split()[6] == text


# -- the live screen ---------------------------------------------------------

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"

PROGRAM = """
import sys
from prefork.commands import Tools, run
sys.exit(run(sys.argv[1:], Tools(*[None] * 5)))
"""


class Terminal:
    """`prefork top` on a terminal of its own."""

    def __init__(self, *words, rows=24, columns=80, **environ):
        self.keyboard, self.theirs = pty.openpty()
        termios.tcsetwinsize(self.theirs, (rows, columns))
        self.modes = termios.tcgetattr(self.theirs)
        # A session's leader that opens a terminal gets it as its own, Ctrl-C included.
        script = 'tty=$1; shift; exec "$@" 0<>"$tty" 1>&0 2>&0'
        command = ["sh", "-c", script, "sh", os.ttyname(self.theirs)]
        command += [sys.executable, "-c", PROGRAM, *map(str, words)]
        env = os.environ | {"TERM": "xterm"} | environ
        self.process = subprocess.Popen(command, env=env, start_new_session=True)
        self.text = ""
        self._read = 0

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for fd in (self.keyboard, self.theirs):
            with suppress(OSError):
                os.close(fd)
        if error is not None:
            print(repr(self.text))

    def type(self, keys):
        os.write(self.keyboard, keys)

    def wait_for(self, pattern):
        """Return the next match of a pattern on the screen, after the one before."""
        limit_s = time.monotonic() + DEADLINE_S
        while not (found := re.compile(pattern, re.DOTALL).search(self.text, self._read)):
            left_s = limit_s - time.monotonic()
            ready, _, _ = select.select([self.keyboard], [], [], max(0.0, left_s))
            assert ready, f"no {pattern!r} in {self.text!r}"
            self.text += os.read(self.keyboard, 65536).decode()
        self._read = found.end()
        return found

    def frame(self, *, seen=""):
        """Return the lines of the next whole picture, in which something must be seen."""
        while True:
            found = self.wait_for(r"\x1b\[H(.*?)\x1b\[J")[1]
            if seen in found:
                return [line.removeprefix("\x1b[2K") for line in re.split("\r+\n", found)]

    def wait(self):
        status = self.process.wait(DEADLINE_S)
        with suppress(AssertionError):
            while select.select([self.keyboard], [], [], 0)[0]:
                self.text += os.read(self.keyboard, 65536).decode()
        return status

    def is_as_before(self):
        return termios.tcgetattr(self.theirs) == self.modes and self.text.count(
            ENTER
        ) == self.text.count(LEAVE)


@pytest.fixture
def rig(tmp_path):
    with rig_at(tmp_path / "s") as rig:
        yield rig


@contextmanager
def top(rig, *words, **kwargs):
    with Terminal("top", "--socket", rig.path, *words, **kwargs) as terminal:
        yield terminal


def test_the_screen_shows_the_workers_again_and_again(rig):
    with top(rig, "--interval", "0.1") as terminal:
        lines = terminal.frame()
        assert lines[0].startswith(f"prefork 1  pid {os.getpid()}")
        assert any(line.startswith("   0  1000") for line in lines)
        assert lines[-1] == "q: quit"
        rig.overseer.workers = 3
        assert any(line.startswith("   2  1002") for line in terminal.frame(seen="1002"))


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_q_and_ctrl_c_end_it_quietly(rig, key):
    with top(rig) as terminal:
        terminal.frame()
        local_modes = termios.tcgetattr(terminal.theirs)[3]
        assert not local_modes & (termios.ECHO | termios.ICANON)
        terminal.type(key)
        assert terminal.wait() == 0
        assert terminal.text.endswith(LEAVE)
        assert terminal.is_as_before()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signals_end_it_and_leave_the_terminal_as_it_was(rig, signum):
    with top(rig) as terminal:
        terminal.frame()
        terminal.process.send_signal(signum)
        assert terminal.wait() == 128 + signum
        assert terminal.text.endswith(LEAVE)
        assert terminal.is_as_before()


def test_ctrl_c_again_and_again_leaves_the_terminal_as_it_was(rig):
    for _ in range(5):
        with top(rig, "--interval", "0.1") as terminal:
            terminal.frame()
            terminal.type(b"\x03\x03\x03\x03")
            assert terminal.wait() == 0
            assert terminal.is_as_before()
            assert "Traceback" not in terminal.text


def test_ctrl_c_ends_it_while_the_master_does_not_answer(rig):
    with top(rig, "--interval", "0.1") as terminal:
        terminal.frame()
        asked, go_on = rig.overseer.asked, rig.overseer.asked.__class__()
        answer = rig.overseer.status

        def stopped():
            asked.put("stopped")
            go_on.get(timeout=DEADLINE_S)
            return answer()

        rig.overseer.status = stopped
        assert asked.get(timeout=DEADLINE_S) == "stopped"
        terminal.type(b"\x03")
        assert terminal.wait() == 0
        assert terminal.is_as_before()
        rig.overseer.status = answer
        go_on.put("go")


def test_ctrl_z_gives_the_terminal_back_and_fg_takes_it_again(rig):
    with top(rig) as terminal:
        terminal.frame()
        terminal.type(b"\x1a")
        pid, how = os.waitpid(terminal.process.pid, os.WUNTRACED)
        assert (pid, os.WIFSTOPPED(how)) == (terminal.process.pid, True)
        terminal.wait_for(re.escape(LEAVE))
        assert terminal.is_as_before()
        terminal.process.send_signal(signal.SIGCONT)
        terminal.wait_for(re.escape(ENTER))
        terminal.frame()
        terminal.type(b"q")
        assert terminal.wait() == 0
        assert terminal.is_as_before()


def test_another_size_of_the_window_is_another_picture_at_once(rig):
    rig.overseer.workers = 100
    with top(rig, "--interval", "3600") as terminal:
        assert len(terminal.frame()) == 24
        termios.tcsetwinsize(terminal.keyboard, (10, 30))
        lines = terminal.frame()
        assert len(lines) == 10
        assert max(map(len, lines)) <= 30


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 5), (3, 200)])
def test_the_smallest_windows_do_not_end_it(rig, rows, columns):
    with top(rig, rows=rows, columns=columns) as terminal:
        lines = terminal.frame()
        assert len(lines) <= rows
        assert max(map(len, lines)) <= columns
        terminal.type(b"q")
        assert terminal.wait() == 0


def test_a_terminal_that_does_not_know_its_size_has_the_usual_one(rig):
    rig.overseer.workers = 100
    with top(rig, rows=0, columns=0) as terminal:
        assert len(terminal.frame()) == 24


def test_a_master_that_goes_and_comes_again_is_waited_for(rig):
    with top(rig, "--interval", "0.1", columns=300) as terminal:
        terminal.frame()
        rig.call(rig.control.close)
        lines = terminal.frame(seen="no answer")
        assert "nothing is there" in lines[-1]
        assert any("1001" in line for line in lines)
        with rig_at(rig.path):
            terminal.frame(seen="q: quit")
        terminal.type(b"q")
        assert terminal.wait() == 0


def test_no_master_is_an_error_on_the_screen_that_was(tmp_path):
    with Terminal("top", "--socket", tmp_path / "none") as terminal:
        assert terminal.wait() == 1
        assert terminal.text.startswith("prefork: error: cannot reach a master at ")
        assert ENTER not in terminal.text


def test_a_terminal_that_is_closed_ends_it(rig):
    with top(rig, "--interval", "0.1") as terminal:
        terminal.frame()
        os.close(terminal.theirs)
        os.close(terminal.keyboard)
        assert terminal.process.wait(DEADLINE_S) == 128 + signal.SIGHUP


def test_what_a_client_asks_for_does_not_steer_the_screen(rig):
    answer = rig.overseer.status

    def hostile():
        made = answer()
        made["pools"][0]["workers"][0]["request"] = "GET /\x1b[2J\x1b]0;x\x07\r\nq"
        return made

    rig.overseer.status = hostile
    with top(rig) as terminal:
        lines = terminal.frame(seen="GET /\\x1b[2J")
        assert all(line.isprintable() for line in lines)


def run(rig, *words, **environ):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *words, "--socket", rig.path],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | environ,
        timeout=DEADLINE_S,
    )


def test_without_a_terminal_it_prints_one_table_and_ends(rig):
    done = run(rig, "top")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert done.stdout.startswith(f"prefork 1  pid {os.getpid()}")
    assert "GET /" + "x" * 600 in done.stdout


def test_a_dumb_terminal_gets_one_table(rig):
    with top(rig, TERM="dumb") as terminal:
        assert terminal.wait() == 0
        assert "\x1b" not in terminal.text
        assert max(map(len, terminal.text.splitlines())) <= 80


def test_a_reader_that_has_read_enough_is_no_traceback(rig):
    rig.overseer.workers = 1024
    command = [sys.executable, "-c", PROGRAM, "status", "--socket", str(rig.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(DEADLINE_S) == 1


def test_a_poor_encoding_is_no_traceback(rig):
    rig.overseer.config = "/etc/ü\udcff.toml"
    done = run(rig, "status", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0
    assert "/etc/\\xfc\\udcff.toml" in done.stdout
