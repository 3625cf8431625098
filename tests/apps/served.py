"""Handlers that the tests name on the command line, as `served:Hello`."""

import functools
import http.server
import os
import socketserver
from pathlib import Path


class Hello(http.server.BaseHTTPRequestHandler):
    """Answers with what it knows of its client."""

    def do_GET(self):
        body = repr(self.client_address).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Outer:
    class Inner(Hello):
        pass


class Folder(http.server.SimpleHTTPRequestHandler):
    """Has a header of its own on each answer."""

    def end_headers(self):
        self.send_header("X-Own", "yes")
        super().end_headers()


class Shout(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.readline().upper())


class Who(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(repr((os.getpid(), self.client_address)).encode())


class Echo(socketserver.DatagramRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.read().upper())


class Server(socketserver.TCPServer):
    pass


def application(environ, start_response):  # noqa: ARG001 # the names are those of PEP 3333
    start_response("200 OK", [])
    return []


here = functools.partial(http.server.SimpleHTTPRequestHandler, directory=Path(__file__).parent)
number = 5


def create_application():
    return application


def fail():
    raise LookupError("no database")


def takes_one(request):
    return request


async def asgi(scope, receive, send):
    """Do as ASGI applications do."""


class Asgi:
    async def __call__(self, scope, receive, send):
        """Do as ASGI applications do."""
