"""CPython's own tests of socketserver and http.server, and a first sign of life.

On every Python that is here: test_socketserver and test_httpservers. On the running one: what
else the stdlib derives from http.server's classes.

The running interpreter is tested as it is. The others get the wheel that the environment
variable PREFORK_WHEEL names, each in a virtual environment of its own.
"""

import json
import os
import platform
import re
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cpython_worker import NO_SUITE, SUITES
from harness import Daemon, converse

WORKER = Path(__file__).with_name("cpython_worker.py")
SUITE_S = 60.0  # the longest takes five
INSTALL_S = 40.0  # for each of the three steps to a virtual environment; all take five
PROBE_S = 10.0
OLDEST, NEWEST = 11, 15  # minor versions to look for on PATH

pytestmark = pytest.mark.timeout(4 * INSTALL_S)  # an installation may be slow, and then skips

# It wants __module__ of everything public to be "socketserver", or "http.server".
NAMES = {"MiscTestCase.test_all"}

DERIVED = sorted(SUITES.keys() - {"socketserver", "httpservers", "wsgiref", "cgi"})

# What PreforkMixIn does not have in common with the mix-in whose place it takes: handle_request()
# alone serves in the calling process, where SystemExit goes on its way; and it has no threads.
EXCEPTED = {
    "ForkingMixIn": {"ErrorHandlerTest.test_forking_not_handled"},
    "ThreadingMixIn": {
        "ErrorHandlerTest.test_threading_not_handled",
        "MiscTestCase.test_threads_reaped",
    },
}


@dataclass(frozen=True)
class Interpreter:
    """One installed Python. home: its prefix, by whichever path it is called."""

    python: Path
    home: str
    version: str
    is_running: bool = False

    @property
    def minor(self) -> int:
        return int(self.version.split(".")[1])

    def __str__(self):
        place = "running" if self.is_running else re.sub(r"[^\w.]+", "-", self.home).strip("-")
        return f"{self.version}-{place}"


def probe(python: Path) -> Interpreter | None:
    """Return what answers to this path; None if nothing does, as with a shim of pyenv."""
    ask = "import sys, platform; print(sys.base_prefix); print(platform.python_version())"
    try:
        said = subprocess.run(
            [python, "-I", "-c", ask], capture_output=True, text=True, timeout=PROBE_S, check=True
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None  # whatever it is, no Python that could be tested
    return Interpreter(python, *said) if len(said) == 2 else None


def on_path() -> list[Path]:
    names = [f"python3.{minor}" for minor in range(OLDEST, NEWEST + 1)]
    folders = [Path(folder) for folder in os.get_exec_path() if folder]
    paths = [folder / name for name in names for folder in folders]
    return [path for path in paths if os.access(path, os.X_OK)]


def of_pyenv() -> list[Path]:
    """Return the newest of each minor version that pyenv has."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    newest: dict[int, tuple[int, Path]] = {}
    try:
        pythons = [*root.glob("versions/3.*/bin/python")]
    except OSError:
        return []  # another user's
    for python in pythons:
        numbers = re.fullmatch(r"3\.(\d+)\.(\d+)", python.parent.parent.name)
        if numbers and int(numbers[1]) >= OLDEST:
            minor, patch = map(int, numbers.groups())
            newest[minor] = max(newest.get(minor, (-1, python)), (patch, python))
    return [python for _, python in newest.values()]


def installed() -> list[Interpreter]:
    """Return every interpreter once, the running one first."""
    here = Interpreter(
        Path(sys.executable), sys.base_prefix, platform.python_version(), is_running=True
    )
    found = {(here.home, here.version): here}
    for other in filter(None, map(probe, [*on_path(), *of_pyenv()])):
        if other.minor >= OLDEST:
            found.setdefault((other.home, other.version), other)
    return sorted(found.values(), key=lambda one: (not one.is_running, one.minor))


def run(*command: object) -> subprocess.CompletedProcess:
    """Run an installer; skip if it does not come to an end."""
    try:
        return subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"{' '.join(map(str, command))}: {error}")


def make_environment(interpreter: Interpreter, folder: Path) -> Path:
    """Return a Python with the wheel installed, or skip with the reason why there can be none."""
    wheel = os.environ.get("PREFORK_WHEEL")
    if not wheel:
        pytest.skip(f"{interpreter}: PREFORK_WHEEL does not name a wheel to install there")
    python = folder / "bin" / "python"
    made = run(interpreter.python, "-I", "-m", "venv", folder)
    if made.returncode != 0:
        pytest.skip(f"{interpreter}: no virtual environment: {made.stdout.strip()[-300:]}")
    pip = (python, "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    # The wheel alone must install anywhere; what it depends on may be out of reach.
    alone = run(*pip, "--no-deps", wheel)
    assert alone.returncode == 0, alone.stdout
    dependencies = run(*pip, wheel)
    if dependencies.returncode != 0:
        pytest.skip(f"{interpreter}: no dependencies: {dependencies.stdout.strip()[-300:]}")
    return python


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(one, marks=() if one.is_running else pytest.mark.slow, id=str(one))
        for one in installed()
    ],
)
def interpreter(request, tmp_path_factory) -> Interpreter:
    """Return an interpreter that has prefork."""
    if request.param.is_running:
        return request.param
    folder = tmp_path_factory.mktemp("python") / "env"
    return replace(request.param, python=make_environment(request.param, folder))


def search_path(interpreter: Interpreter) -> dict[str, str]:
    """Return PYTHONPATH for the running interpreter alone: the others must meet the wheel."""
    if not interpreter.is_running or "PYTHONPATH" not in os.environ:
        return {}
    return {"PYTHONPATH": os.environ["PYTHONPATH"]}


def as_no_root() -> list[str]:
    """Return how to run a command as somebody who is not root, for tests that skip for root."""
    if os.geteuid() != 0:
        return []
    command = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True, timeout=PROBE_S)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"root cannot be somebody else here: {error}")
    return command


def run_suite(
    interpreter: Interpreter, tmp_path: Path, suite: str, *mixin: str, via: Sequence[str] = ()
) -> dict:
    """Return the worker's report; skip where there is no suite to run."""
    report_path = tmp_path / "report.json"
    folder = tmp_path / "work"  # the suite leaves sockets and files in it
    folder.mkdir()
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    with (tmp_path / "output").open("w+") as output:
        # A file, not a pipe: what the suite forks may outlive it.
        process = subprocess.Popen(
            [
                *via,
                *(interpreter.python, "-P", "-X", "faulthandler"),
                *(WORKER, report_path, suite, *mixin),
            ],
            cwd=folder,
            env=environ | search_path(interpreter),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        pidfd = os.pidfd_open(process.pid)
        try:
            ended, _, _ = select.select([pidfd], [], [], SUITE_S)
        finally:
            os.close(pidfd)
            os.killpg(process.pid, signal.SIGKILL)  # before wait(), which gives the PID away
            status = process.wait()
        output.seek(0)
        said = output.read()
    assert ended, f"no end after {SUITE_S} s: {said}"
    if status == NO_SUITE:
        pytest.skip(f"{interpreter}: without CPython's tests: {said.strip()}")
    assert status == 0, said
    report = json.loads(report_path.read_text())
    assert report["run"] >= SUITES[suite].least, report
    return report


def assert_passed(report: dict, excepted: set[str]) -> None:
    wrong = {name: trace for name, trace in report["wrong"].items() if name not in excepted}
    assert not wrong, "\n".join([report["python"], *wrong.values()])


@pytest.mark.parametrize("suite", ["socketserver", "httpservers", "wsgiref"])
def test_cpythons_own_suite_passes(suite, interpreter, tmp_path):
    assert_passed(run_suite(interpreter, tmp_path, suite), NAMES)


def test_cpythons_own_tests_of_cgi_pass(interpreter, tmp_path):
    report = run_suite(interpreter, tmp_path, "cgi", via=as_no_root())
    assert not report["skipped"]
    assert_passed(report, set())


@pytest.mark.parametrize("suite", DERIVED)
def test_cpythons_own_suite_of_what_derives_from_http_server_passes(suite, tmp_path):
    assert_passed(run_suite(installed()[0], tmp_path, suite), set())


@pytest.mark.parametrize("mixin", EXCEPTED)
def test_cpythons_own_suite_passes_with_prefork_in_place_of(mixin, interpreter, tmp_path):
    report = run_suite(interpreter, tmp_path, "socketserver", mixin)
    assert_passed(report, NAMES | EXCEPTED[mixin])


def test_command_serves_a_file_and_stops_by_term(interpreter, tmp_path):
    (tmp_path / "hello.txt").write_text("hello\n")
    command = [interpreter.python, "-m", "prefork", tmp_path, "0", "-b", "127.0.0.1"]
    with Daemon(command, cwd=tmp_path, **search_path(interpreter)) as daemon:
        daemon.wait_notified("READY=1")
        port = int(daemon.log.wait_for(r"master\.listening .*\bat=127\.0\.0\.1:(\d+)")[1])
        answer = converse(("127.0.0.1", port), b"GET /hello.txt HTTP/1.0\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split()[1] == b"200"
        assert body == b"hello\n"
        assert daemon.stop() == 0
