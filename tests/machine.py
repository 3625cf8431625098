"""A machine of its own for tests: the real systemd, booted in a container over an overlay of /.

What it writes is gone when it ends, and it ends with the test, even one that is
killed: its mounts live in a namespace of its own, and its first process is told
when ours dies. Its network is its own, too: units may have the ports they are
shipped with.
"""

import contextlib
import ctypes
import importlib.metadata
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path
from typing import Self

from harness import DEADLINE_S, Log, wait_until

import prefork

PROGRAMS = ("systemd-nspawn", "nsenter", "unshare", "setpriv")
CLONE_NEWNET = 0x40000000  # linux/sched.h; os.setns and its names came with 3.12
CGROUPS = [
    path
    for path in map(Path, ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"))
    if (path / "cgroup.procs").exists()
]

BOOT_S = 60.0  # on a quiet machine it takes three

#: Where the package under test is installed in the machine; /usr/bin/prefork leads there.
HOME = "/opt/prefork"

#: Where this Python is found in the machine, if it is not the system's.
PYTHON = Path("/opt/python")

# There is no network but loopback, which would be waited for in vain.
KERNEL = ("systemd.mask=systemd-networkd-wait-online.service",)

# $1: an empty directory; $2: where the machine's init may keep its cgroup, or nothing.
BOOT = """
mount -t tmpfs -o mode=755 machine "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" machine "$1/root"
rm -f "$1/root/etc/machine-id"
for cgroup in $2; do echo $$ >"$cgroup/cgroup.procs"; done
directory=$1
shift 2
exec systemd-nspawn -q -D "$directory/root" "$@"
"""


def missing() -> str:
    """Return why no machine can be had here, or nothing."""
    if os.geteuid() != 0:
        return "a machine with systemd needs root"
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    if lacking:
        return f"a machine with systemd needs {', '.join(lacking)} (Debian: systemd-container)"
    with tempfile.TemporaryDirectory(prefix="prefork-test-") as folder:
        script = f"mount -t tmpfs machine {folder} && cd {folder} && mkdir u w r &&"
        script += " mount -t overlay -o lowerdir=/,upperdir=u,workdir=w machine r"
        tried = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False
        )
    return f"a machine with systemd needs overlay mounts: {tried.stderr}" * (tried.returncode != 0)


class Machine:
    """One booted machine; the context manager's end powers it off."""

    def __init__(self):
        self._stack = contextlib.ExitStack()
        self.leader = 0  # its init, as this machine numbers it
        self.console: Log | None = None
        self.name = "prefork-" + uuid.uuid4().hex

    def __enter__(self) -> Self:
        try:
            with self._stack:
                self._boot()
                self._install()
                self._stack = self._stack.pop_all()
        except BaseException:
            print(self.console.text() if self.console else "the machine was not started")
            raise
        return self

    def __exit__(self, kind, error, trace):
        if error is not None:
            print(self.run("journalctl", "--no-pager", "-n", "200", check=False))
        self._stack.close()

    def _boot(self):
        temporary = tempfile.TemporaryDirectory(prefix="prefork-test-")
        self.folder = folder = Path(self._stack.enter_context(temporary))
        (folder / "root").mkdir()
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(str(folder / "notify"))
        cgroups = [path / self.name for path in CGROUPS]
        for path in cgroups:
            path.mkdir()
            self._stack.callback(remove_cgroup, path)
        self._stack.callback(remove_empty, Path("/run/systemd/nspawn/propagate", self.name))
        environ = {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": str(folder / "notify")}
        if len(CGROUPS) > 1:
            # Both versions of cgroups are there. With the first, a systemd in a container is not
            # told that a cgroup is empty, and waits for killed services until their timeout.
            environ["SYSTEMD_NSPAWN_UNIFIED_HIERARCHY"] = "1"
        self.process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "TERM", "unshare", "--mount", "sh", "-euc", BOOT),
                *("sh", str(folder / "root"), " ".join(map(str, cgroups))),
                *("--register=no", "--keep-unit", "--link-journal=no", "--private-network"),
                *("--notify-ready=yes", f"--uuid={uuid.uuid4().hex}", f"--machine={self.name}"),
                *python_mounts(),
                *("-b", "--console=passive", "systemd.unit=basic.target", *KERNEL),
            ],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        self._stack.callback(self._power_off)
        self.console = Log(self.process.stdout)
        with notify:  # nspawn would wait for ever with more to tell than we read
            self._wait_booted(notify)

    def _wait_booted(self, notify):
        told = ""
        while "READY=1" not in told.split():
            assert select.select([notify], [], [], BOOT_S)[0], "the machine did not boot"
            told += notify.recv(4096).decode() + "\n"
            found = re.search(r"^X_NSPAWN_LEADER_PID=(\d+)$", told, re.MULTILINE)
            if found and not self.leader:
                self.leader = int(found[1])
                self._pidfd = os.pidfd_open(self.leader)

    def _power_off(self):
        """Let systemd end what runs; end it without asking where that does not."""
        try:
            if self.leader:
                self.run("systemctl", "poweroff", check=False)
            else:
                self.process.terminate()
            self.process.wait(BOOT_S)
        finally:
            if self.leader:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                os.close(self._pidfd)
            self.process.kill()
            self.process.wait()

    def _install(self):
        """Copy the installed package, and what it needs, into an environment in the machine."""
        if python_mounts() and [*Path(sys.base_prefix, "lib").glob("libpython*.so.*")]:
            self.write("/etc/ld.so.conf.d/python.conf", f"{PYTHON}/lib\n")
            self.run("ldconfig")
        self.run(python_inside(), "-m", "venv", "--without-pip", HOME)
        purelib = self.path(
            f"{HOME}/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
        )
        for name in requirements("prefork"):
            copy_distribution(name, purelib)
        if not (purelib / "prefork").exists():  # an editable install: the checkout is the package
            shutil.copytree(Path(prefork.__file__).parent, purelib / "prefork")
        script = f"#!{HOME}/bin/python\nimport sys\nfrom prefork.__main__ import main\n"
        self.write(f"{HOME}/bin/prefork", f"{script}sys.exit(main())\n").chmod(0o755)
        self.path("/usr/bin/prefork").symlink_to(f"{HOME}/bin/prefork")

    def path(self, inside: str) -> Path:
        """Return where a file of the machine is found from here."""
        return Path(f"/proc/{self.leader}/root{inside}")

    def write(self, inside: str, text: str) -> Path:
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def command(self, *words: object) -> list[str]:
        """Return the words that run a command in the machine."""
        return ["nsenter", "-t", str(self.leader), "-a", "--", *map(str, words)]

    def run(self, *words: object, check: bool = True) -> str:
        """Run a command in the machine; return all that it said."""
        done = self.attempt(*words)
        assert not check or done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def attempt(self, *words: object) -> subprocess.CompletedProcess:
        """Run a command in the machine, which may fail; what it said is in `stdout`."""
        return subprocess.run(
            self.command(*words),
            env=ENVIRON,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            timeout=DEADLINE_S,
            check=False,
        )

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit, as systemd has it."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).strip()

    def wait_shown(self, unit: str, name: str, pattern: str) -> re.Match:
        """Wait until a property of a unit has this form."""
        found = []

        def is_shown() -> bool:
            found[:] = [re.fullmatch(pattern, self.show(unit, name), re.DOTALL)]
            return found[0] is not None

        wait_until(is_shown, what=f"{name} of {unit} is {pattern!r}")
        return found[0]

    def journal(self, *options: object) -> str:
        return self.run("journalctl", "--no-pager", *options)

    @contextlib.contextmanager
    def following(self, unit: str):
        """Yield the unit's journal as a Log: all of it, and what comes."""
        follower = subprocess.Popen(
            self.command("journalctl", "-u", unit, "-n", "all", "-f", "-o", "cat"),
            env=ENVIRON,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        try:
            yield Log(follower.stdout)
        finally:
            follower.kill()
            follower.wait()

    def open_socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM) -> socket.socket:
        """Return a socket in the machine's network, to be used from here."""
        made = []
        thread = threading.Thread(target=lambda: made.append(self._socket(family, kind)))
        thread.start()
        thread.join()
        return made[0]

    def _socket(self, family, kind):
        # A namespace is entered by the thread alone, which ends with this.
        libc = ctypes.CDLL(None, use_errno=True)
        with Path(f"/proc/{self.leader}/ns/net").open() as namespace:
            assert libc.setns(namespace.fileno(), CLONE_NEWNET) == 0, os.strerror(
                ctypes.get_errno()
            )
        return socket.socket(family, kind)

    def connect(self, port: int, host: str = "127.0.0.1") -> socket.socket:
        client = self.open_socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        client.settimeout(DEADLINE_S)
        try:
            client.connect((host, port))
        except BaseException:
            client.close()
            raise
        return client


ENVIRON = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "SYSTEMD_COLORS": "0",
    "SYSTEMD_PAGER": "",
}


def python_mounts() -> list[str]:
    """Return how the machine gets at this Python where it may not be in reach of its services."""
    base = Path(sys.base_prefix)
    return [] if base.is_relative_to("/usr") else [f"--bind-ro={base}:{PYTHON}"]


def python_inside() -> str:
    """Return the interpreter of this test, as it is found in the machine."""
    base = Path(sys._base_executable).resolve()
    return str(PYTHON / base.relative_to(sys.base_prefix)) if python_mounts() else str(base)


def requirements(name: str, known: frozenset[str] = frozenset()) -> set[str]:
    """Return the distribution and all that it needs, by name."""
    found = set(known) | {name}
    for line in importlib.metadata.requires(name) or ():
        other = re.match(r"[\w.-]+", line)[0]
        if "extra ==" in line or other in found:
            continue
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # by its marker
            found |= requirements(other, frozenset(found))
    return found


def copy_distribution(name: str, purelib: Path) -> None:
    distribution = importlib.metadata.distribution(name)
    for file in distribution.files or ():
        if ".." in file.parts or file.suffix == ".pth":  # commands; editable installs
            continue
        target = purelib / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if distribution.locate_file(file).exists():
            shutil.copyfile(distribution.locate_file(file), target)


def remove_empty(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.rmdir()


def remove_cgroup(path: Path) -> None:
    """Remove a cgroup and those below; the kernel says busy for a moment after the last process."""

    def is_removed() -> bool:
        with contextlib.suppress(OSError):
            for folder, _, _ in os.walk(path, topdown=False):
                Path(folder).rmdir()
        return not path.exists()

    wait_until(is_removed, what=f"{path} is removed")
