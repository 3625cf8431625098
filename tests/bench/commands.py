"""Who is measured: the command line of each server, and its name in the tables."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import peers
import webservers
from start import HERE, BenchError, Peer, Start, module, require

THREADS = str(peers.THREADS)
#: The last two: to build bjoern, uWSGI and the CGI script.
DEBIAN_PACKAGES = ("wrk", "nginx", "apache2-bin", "lighttpd", "caddy", "gcc", "libev-dev")
NPM_PACKAGES = ("http-server", "serve")


# -- prefork -------------------------------------------------------------------


def prefork(*words: str, start: Start) -> list[str]:
    command = [*module("prefork"), *words, str(start.port), "-b", "127.0.0.1"]
    return [*command, "-w", str(start.workers), *["--quiet"] * (not start.log)]


def files(handler: str) -> Callable[[Start], list[str]]:
    return lambda start: prefork(handler, "-d", str(start.site), start=start)


def cgi(start: Start) -> list[str]:
    return prefork("--cgi", str(start.site), start=start)


def cgi_service(start: Start) -> list[str]:
    """Run as a service would: its workers are no root, as Apache's are not."""
    config = start.folder / f"cgi-{start.port}.toml"
    user = 'user = "nobody"' if os.geteuid() == 0 else ""
    config.write_text(f"""\
[server.cgi]
bind = ["127.0.0.1:{start.port}"]
handler = "prefork.http:CGIHTTPRequestHandler"
workers = {start.workers}
access_log = "{"common" if start.log else "off"}"
{user}

[server.cgi.handler_options]
directory = "{start.site}"
""")
    return [*module("prefork"), str(config), "--quiet"]


def wsgi(*more: str) -> Callable[[Start], list[str]]:
    return lambda start: [*prefork(f"wsgi:{start.app}", start=start), *more]


def raw(handler: str) -> Callable[[Start], list[str]]:
    return lambda start: prefork(f"raw:{handler}", start=start)


# -- the others in Python ------------------------------------------------------


def python(name: str, start: Start) -> list[str]:
    """Return the command of one of `peers.py`."""
    command = [sys.executable, str(HERE / "peers.py"), name, str(start.port)]
    command += ["--workers", str(start.workers), "--app", start.app]
    command += ["--directory", str(start.site)]
    return command + ["--log"] * start.log


def python_wsgi(name: str, start: Start) -> list[str]:
    """Return the command of a server that `peers.py` calls, and that keeps no access log."""
    require(name)
    if start.log:
        raise BenchError("has no access log")
    return python(name, start)


def gunicorn(*more: str) -> Callable[[Start], list[str]]:
    def command(start: Start) -> list[str]:
        words = [*module("gunicorn"), f"wsgi:{start.app}"]
        words += ["-b", f"127.0.0.1:{start.port}", "-w", str(start.workers), *more]
        return words + ["--access-logfile", "-"] * start.log

    return command


def granian(*more: str) -> Callable[[Start], list[str]]:
    def command(start: Start) -> list[str]:
        words = [*module("granian"), "--interface", "wsgi"]
        words += ["--host", "127.0.0.1", "--port", str(start.port)]
        words += ["--workers", str(start.workers), *more]
        words += ["--access-log" if start.log else "--no-access-log"]
        return [*words, f"wsgi:{start.app}"]

    return command


def uwsgi(*more: str) -> Callable[[Start], list[str]]:
    def command(start: Start) -> list[str]:
        program = Path(sys.executable).with_name("uwsgi")  # there pip puts it
        if not program.exists():
            raise BenchError("not installed (pip install uwsgi)")
        words = [str(program)]
        words += ["--http-socket", f"127.0.0.1:{start.port}", "--processes", str(start.workers)]
        words += ["--module", f"wsgi:{start.app}", "--die-on-term", *more]
        # Its http-socket ends each connection without saying so: a client would count an error.
        words += ["--add-header", "Connection: close"]
        return words + ["--disable-logging"] * (not start.log)

    return command


def uvicorn(start: Start) -> list[str]:
    require("a2wsgi")  # its own adapter is deprecated
    words = [*module("uvicorn"), "--interface", "wsgi", "--host", "127.0.0.1"]
    words += ["--port", str(start.port), "--workers", str(start.workers), "--log-level", "error"]
    return [*words, "--access-log" if start.log else "--no-access-log", f"wsgi:{start.app}"]


def wsgidav(start: Start) -> list[str]:
    """It wants to be told who may write; here, as everywhere, nobody does."""
    require("cheroot")  # the server that it brings up
    words = [*module("wsgidav.server.server_cli"), "--host", "127.0.0.1", "--quiet"]
    return [*words, "--port", str(start.port), "--root", str(start.site), "--auth", "anonymous"]


def copyparty(start: Start) -> list[str]:
    words = [*module("copyparty"), "-q", "-i", "127.0.0.1", "-p", str(start.port)]
    return [*words, "-v", f"{start.site}::r"]


# -- the others, in Go and JavaScript -------------------------------------------


def caddy(start: Start) -> list[str]:
    words = [_program("caddy", "apt-get install caddy"), "file-server", "--browse"]
    return [*words, "--root", str(start.site), "--listen", f"127.0.0.1:{start.port}"]


def http_server(start: Start) -> list[str]:
    program = _program("http-server", "npm install -g http-server")
    return [program, str(start.site), "-a", "127.0.0.1", "-p", str(start.port), "--silent"]


def serve(start: Start) -> list[str]:
    words = [_program("serve", "npm install -g serve"), "-l", f"tcp://127.0.0.1:{start.port}"]
    return [*words, "--no-request-logging", "--no-clipboard", str(start.site)]


def _program(name: str, how: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise BenchError(f"not installed ({how})")
    return found


def _ours(name: str, program: str, workers: int = 1) -> Peer:
    return Peer(name, partial(python, program), workers)


# -- their names ---------------------------------------------------------------

HELLO = _ours("prefork", "hello")
HELLO_4_WORKERS = _ours("prefork, 4 workers", "hello", 4)
HELLO_THREADS = _ours("prefork, 4 threads", "hello-threads")
ADOPTED = _ours("prefork, stdlib's handler", "adopted")
ADOPTED_THREADS = _ours("prefork, stdlib's handler, 4 threads", "adopted-threads")
SHARE = Peer("prefork, share", files("prefork.share:ShareRequestHandler"))
SIMPLE = Peer("prefork, SimpleHTTPRequestHandler", files("prefork.http:SimpleHTTPRequestHandler"))
NGINX = Peer("nginx", webservers.nginx)
THREADING = _ours("ThreadingHTTPServer", "stdlib-threading")
FORKING = _ours("ForkingMixIn, HTTPServer", "stdlib-forking")
STDLIB_FILES = _ours("ThreadingHTTPServer, files", "stdlib-files")
PREFORKMIXIN = _ours("PreforkMixIn, stdlib's HTTPServer", "preforkmixin")
PREFORKMIXIN_THREADING = _ours("PreforkMixIn, ThreadingHTTPServer", "preforkmixin-threading")

WSGI = Peer("prefork, WSGI", wsgi("--threads", "0"))
WSGI_THREADS = Peer("prefork, WSGI, 4 threads", wsgi("--threads", THREADS))
WSGI_DEFAULT = Peer("prefork, WSGI, threads by default", wsgi())
BJOERN = Peer("bjoern", partial(python_wsgi, "bjoern"))
GRANIAN = Peer("granian", granian())
GRANIAN_THREADS = Peer("granian, 4 threads", granian("--blocking-threads", THREADS))
UWSGI = Peer("uWSGI", uwsgi())
UWSGI_THREADS = Peer("uWSGI, 4 threads", uwsgi("--threads", THREADS))
UVICORN = Peer("uvicorn, 10 threads", uvicorn)  # its default for WSGI
WAITRESS = Peer("waitress, 4 threads", partial(python_wsgi, "waitress"))
GUNICORN = Peer("gunicorn sync", gunicorn())
GTHREAD = Peer("gunicorn gthread, 4 threads", gunicorn("-k", "gthread", "--threads", THREADS))

CGI = Peer("prefork --cgi", cgi)
CGI_SERVICE = Peer("prefork, a service", cgi_service)
APACHE = Peer("Apache, mod_cgi", webservers.apache)
LIGHTTPD = Peer("lighttpd, mod_cgi", webservers.lighttpd)
STDLIB_CGI = _ours("ThreadingHTTPServer, CGI", "stdlib-cgi")

SHARE_JSON = replace(SHARE, name="prefork, share, ?json", path="{}?json")
SHARE_ZIP = replace(SHARE, path="{}?zip")
NGINX_JSON = replace(NGINX, name="nginx, JSON", path="/json{}")
CADDY = Peer("Caddy", caddy)
CADDY_JSON = replace(CADDY, name="Caddy, JSON", headers={"Accept": "application/json"})
COPYPARTY = Peer("copyparty", copyparty)
COPYPARTY_ZIP = replace(COPYPARTY, path="{}?zip")
WSGIDAV = Peer("WsgiDAV", wsgidav)
HTTP_SERVER = Peer("http-server, of npm", http_server)
SERVE = Peer("serve, of npm", serve)

ECHO = (
    _ours("PreforkMixIn, TCPServer", "echo-preforkmixin"),
    _ours("PreforkMixIn, ThreadingTCPServer", "echo-preforkmixin-threading"),
    Peer("prefork raw:Echo", raw("Echo")),
    _ours("TCPServer", "echo"),
    _ours("ThreadingTCPServer", "echo-threading"),
    _ours("ForkingTCPServer", "echo-forking"),
)
ECHO_KEPT = (
    Peer("prefork raw:EchoLines", raw("EchoLines")),
    _ours("PreforkMixIn, ThreadingTCPServer", "echo-kept-preforkmixin-threading"),
    _ours("ThreadingTCPServer", "echo-kept-threading"),
    _ours("ForkingTCPServer", "echo-kept-forking"),
)
ECHO_UDP = (
    Peer("prefork raw:EchoDatagram", raw("EchoDatagram")),
    _ours("PreforkMixIn, UDPServer", "echo-udp-preforkmixin"),
    _ours("UDPServer", "echo-udp"),
    _ours("ThreadingUDPServer", "echo-udp-threading"),
    _ours("ForkingUDPServer", "echo-udp-forking"),
)
