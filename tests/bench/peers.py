"""The servers written in Python, each as a program: `peers.py NAME PORT`.

The handlers do as little as a handler can, so that the servers are what differs. The classes of
`prefork.http` are made when they are asked for: without them the rest can still be measured.
"""

import argparse
import http.server
import importlib
import sys
import warnings
from functools import partial
from http.server import HTTPServer, ThreadingHTTPServer
from pathlib import Path
from socketserver import (
    ForkingMixIn,
    ForkingTCPServer,
    ForkingUDPServer,
    TCPServer,
    ThreadingTCPServer,
    ThreadingUDPServer,
    UDPServer,
)

import wsgi
from raw import Echo, EchoDatagram, EchoLines

from prefork import PreforkMixIn

THREADS = 4  # of all who are measured with threads
THANKS = b"ok"
LINE = b"sixty-four bytes".ljust(63, b".") + b"\n"
#: Of the stdlib's 5, any burst loses some connections for a second: SYNs are sent again after
#: that, and the figures would show the timers of TCP. What is not the stdlib's keeps its own.
STDLIB_QUEUE = 128


class Hello:
    """Mixed into a BaseHTTPRequestHandler, the stdlib's or ours."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):  # noqa: N802 # http.server calls it so
        self.answer(wsgi.HELLO)

    def do_POST(self):  # noqa: N802 # http.server calls it so
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(THANKS)

    def answer(self, text):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(text)))
        if self.close_connection:  # else the client of the stdlib's server would ask once more
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text)


class StdlibHello(Hello, http.server.BaseHTTPRequestHandler):
    pass


class StdlibFiles(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"


class ForkingHTTPServer(ForkingMixIn, HTTPServer):
    pass


def silent(handler):
    """Return the handler class without its access log, as the stdlib's users do it."""
    return type(handler.__name__, (handler,), {"log_message": lambda *_: None})


def stdlib(server, handler):
    return lambda _: (
        type(server.__name__, (server,), {"request_queue_size": STDLIB_QUEUE}),
        handler,
    )


def preforking(server, handler):
    def classes(options):
        also = {"workers": options.workers, "request_queue_size": STDLIB_QUEUE}
        return type(server.__name__, (PreforkMixIn, server), also), handler

    return classes


def ours(threads, *, adopted=False):
    """Return what makes the classes of a server of `prefork.http`."""

    def classes(options):
        engine = importlib.import_module("prefork.http")
        if engine.HTTPServer is HTTPServer:  # else the stdlib is measured under our name
            sys.exit("prefork.http has no HTTPServer of its own")
        log = "common" if options.log else "off"
        also = {"workers": options.workers, "threads": threads, "access_log": log}
        server = type("Server", (PreforkMixIn, engine.HTTPServer), also)
        if adopted:
            return server, StdlibHello
        return server, type("Handler", (Hello, engine.BaseHTTPRequestHandler), {})

    return classes


def stdlib_cgi(options):
    """Return the stdlib's server of CGI scripts, which 3.15 has no more."""
    warnings.simplefilter("ignore", DeprecationWarning)
    handler = getattr(http.server, "CGIHTTPRequestHandler", None)
    if handler is None:
        sys.exit("the stdlib of this Python has no CGI")
    return stdlib(ThreadingHTTPServer, handler)(options)


PROGRAMS = {
    "hello": ours(0),
    "hello-threads": ours(THREADS),
    "adopted": ours(0, adopted=True),
    "adopted-threads": ours(THREADS, adopted=True),
    "preforkmixin": preforking(HTTPServer, StdlibHello),
    "preforkmixin-threading": preforking(ThreadingHTTPServer, StdlibHello),
    "stdlib": stdlib(HTTPServer, StdlibHello),
    "stdlib-threading": stdlib(ThreadingHTTPServer, StdlibHello),
    "stdlib-forking": stdlib(ForkingHTTPServer, StdlibHello),
    "stdlib-files": stdlib(ThreadingHTTPServer, StdlibFiles),
    "stdlib-cgi": stdlib_cgi,
    "echo-preforkmixin": preforking(TCPServer, Echo),
    "echo-preforkmixin-threading": preforking(ThreadingTCPServer, Echo),
    "echo": stdlib(TCPServer, Echo),
    "echo-threading": stdlib(ThreadingTCPServer, Echo),
    "echo-forking": stdlib(ForkingTCPServer, Echo),
    "echo-kept-preforkmixin-threading": preforking(ThreadingTCPServer, EchoLines),
    "echo-kept-threading": stdlib(ThreadingTCPServer, EchoLines),
    "echo-kept-forking": stdlib(ForkingTCPServer, EchoLines),
    "echo-udp-preforkmixin": preforking(UDPServer, EchoDatagram),
    "echo-udp": stdlib(UDPServer, EchoDatagram),
    "echo-udp-threading": stdlib(ThreadingUDPServer, EchoDatagram),
    "echo-udp-forking": stdlib(ForkingUDPServer, EchoDatagram),
}


WSGI = {
    "bjoern": lambda bjoern, app, *address: bjoern.run(app, *address),
    "waitress": lambda waitress, app, host, port: waitress.serve(
        app, host=host, port=port, threads=THREADS
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="peers.py", description=__doc__)
    parser.add_argument("name", choices=[*PROGRAMS, *WSGI])
    parser.add_argument("port", type=int)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--log", action="store_true", help="write the access log")
    parser.add_argument("--app", default="app", help="which of wsgi.py")
    parser.add_argument("--directory", type=Path, help="what to serve, of files")
    options = parser.parse_args()
    address = ("127.0.0.1", options.port)
    if options.name in WSGI:
        app = getattr(wsgi, options.app)
        WSGI[options.name](importlib.import_module(options.name), app, *address)
        return
    server_class, handler = PROGRAMS[options.name](options)
    if not options.log and not hasattr(server_class, "access_log"):
        handler = silent(handler)
    if issubclass(handler, http.server.SimpleHTTPRequestHandler):
        handler = partial(handler, directory=str(options.directory))
    with server_class(address, handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
