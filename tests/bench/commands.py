"""How each server is started: its command line, and its configuration where it needs one."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import peers

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
THREADS = str(peers.THREADS)
DEBIAN_PACKAGES = ("wrk", "nginx", "gcc", "libev-dev")  # the last two: to build bjoern, uWSGI


class BenchError(Exception):
    """A server is not there, or it, or the load on it, did not do what it should."""


@dataclass(frozen=True)
class Start:
    """What a server is started with. site: the files; folder: for what it writes itself."""

    port: int
    site: Path
    folder: Path
    workers: int
    log: bool


@dataclass(frozen=True)
class Peer:
    """A server; program: makes its command line, or raises BenchError if it is not installed."""

    name: str
    program: Callable[[Start], list[str]]
    workers: int = 1


def python(name: str, start: Start) -> list[str]:
    """Return the command of one of `peers.py`."""
    command = [sys.executable, str(HERE / "peers.py"), name, str(start.port)]
    command += ["--workers", str(start.workers)]
    if name.endswith("-files"):
        command += ["--directory", str(start.site)]
    return command + ["--log"] * start.log


def python_wsgi(name: str, start: Start) -> list[str]:
    """Return the command of a server that `peers.py` calls, and that keeps no access log."""
    _module(name)
    if start.log:
        raise BenchError("has no access log")
    return python(name, start)


def folder(start: Start) -> list[str]:
    """Return the command line of prefork itself."""
    command = [*_module("prefork"), str(start.site), str(start.port), "-b", "127.0.0.1"]
    return [*command, "-w", str(start.workers), *["--quiet"] * (not start.log)]


def gunicorn(*more: str) -> Callable[[Start], list[str]]:
    def command(start: Start) -> list[str]:
        words = [*_module("gunicorn"), "wsgi:app", "--chdir", str(HERE)]
        words += ["-b", f"127.0.0.1:{start.port}", "-w", str(start.workers), *more]
        return words + ["--access-logfile", "-"] * start.log

    return command


def granian(*more: str) -> Callable[[Start], list[str]]:
    def command(start: Start) -> list[str]:
        words = [*_module("granian"), "--interface", "wsgi", "--working-dir", str(HERE)]
        words += ["--host", "127.0.0.1", "--port", str(start.port)]
        words += ["--workers", str(start.workers), *more]
        return [*words, "--access-log" if start.log else "--no-access-log", "wsgi:app"]

    return command


def uwsgi(*more: str) -> Callable[[Start], list[str]]:
    def command(start: Start) -> list[str]:
        program = Path(sys.executable).with_name("uwsgi")  # there pip puts it
        if not program.exists():
            raise BenchError("not installed (pip install uwsgi)")
        words = [str(program)]
        words += ["--http-socket", f"127.0.0.1:{start.port}", "--processes", str(start.workers)]
        words += ["--chdir", str(HERE), "--module", "wsgi:app", "--die-on-term", *more]
        # Its http-socket ends each connection without saying so: a client would count an error.
        words += ["--add-header", "Connection: close"]
        return words + ["--disable-logging"] * (not start.log)

    return command


def nginx(start: Start) -> list[str]:
    """Write its configuration and return its command; needs no root.

    What is not said here has nginx's default; said with the default's value is what prefork has
    the same (75 s and 1000 requests of a connection).
    """
    own = start.folder / f"nginx-{start.port}"
    own.mkdir(exist_ok=True)
    temporary = "".join(
        f"  {name}_temp_path {own};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # else nobody, who may not enter the folder
    (own / "nginx.conf").write_text(f"""\
{user} daemon off; worker_processes {start.workers};
pid {own}/pid; error_log stderr;
events {{ worker_connections 16384; }}
http {{
{temporary}
  access_log {f"{own}/access.log" if start.log else "off"};
  keepalive_timeout 75s; keepalive_requests 1000;
  sendfile on; tcp_nopush on;
  open_file_cache max=1000 inactive=60s; open_file_cache_valid 1s;
  types {{ text/plain txt; }}
  server {{
    listen 127.0.0.1:{start.port}; root {start.site};
    location = / {{ default_type text/plain; return 200 "Hello, world!\\n"; }}
  }}
}}
""")
    program = nginx_program()
    if program is None:
        raise BenchError("not installed (apt-get install nginx)")
    return [program, "-p", str(own), "-c", str(own / "nginx.conf"), "-e", "stderr"]


def _module(name: str) -> list[str]:
    if importlib.util.find_spec(name) is None:
        raise BenchError(f"not installed (pip install {name})")
    return [sys.executable, "-m", name]


def nginx_program() -> str | None:
    # Debian's place for daemons is in the PATH of root alone.
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def _ours(name: str, program: str, workers: int = 1) -> Peer:
    return Peer(name, partial(python, program), workers)


HELLO = _ours("prefork", "hello")
HELLO_4_WORKERS = _ours("prefork, 4 workers", "hello", 4)
HELLO_THREADS = _ours("prefork, 4 threads", "hello-threads")
ADOPTED = _ours("prefork, stdlib's handler", "adopted")
ADOPTED_THREADS = _ours("prefork, stdlib's handler, 4 threads", "adopted-threads")
FILES = Peer("prefork DIR", folder)
NGINX = Peer("nginx", nginx)
THREADING = _ours("ThreadingHTTPServer", "stdlib-threading")
FORKING = _ours("ForkingMixIn, HTTPServer", "stdlib-forking")
STDLIB_FILES = _ours("ThreadingHTTPServer, files", "stdlib-files")
PREFORKMIXIN = _ours("PreforkMixIn, stdlib's HTTPServer", "preforkmixin")
PREFORKMIXIN_THREADING = _ours("PreforkMixIn, ThreadingHTTPServer", "preforkmixin-threading")
BJOERN = Peer("bjoern", partial(python_wsgi, "bjoern"))
GRANIAN = Peer("granian", granian())
GRANIAN_THREADS = Peer("granian, 4 threads", granian("--blocking-threads", THREADS))
UWSGI = Peer("uWSGI", uwsgi())
UWSGI_THREADS = Peer("uWSGI, 4 threads", uwsgi("--threads", THREADS))
WAITRESS = Peer("waitress, 4 threads", partial(python_wsgi, "waitress"))
GUNICORN = Peer("gunicorn sync", gunicorn())
GTHREAD = Peer("gunicorn gthread, 4 threads", gunicorn("-k", "gthread", "--threads", THREADS))
ECHO = tuple(
    _ours(name, program)
    for name, program in (
        ("PreforkMixIn, TCPServer", "echo-preforkmixin"),
        ("PreforkMixIn, ThreadingTCPServer", "echo-preforkmixin-threading"),
        ("TCPServer", "echo"),
        ("ThreadingTCPServer", "echo-threading"),
        ("ForkingMixIn, TCPServer", "echo-forking"),
    )
)
