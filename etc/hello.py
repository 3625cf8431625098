"""The handlers of the examples: HTTP, TCP and UDP."""

# ruff: noqa: INP001 # a file to copy, no package

import socketserver

from prefork.http import BaseHTTPRequestHandler


class Hello(BaseHTTPRequestHandler):
    """Greets whoever asks."""

    greeting = "Hello"  # handler_options can set it

    def do_GET(self) -> None:  # noqa: N802 # the stdlib's name
        """Answer with the greeting and the client's address."""
        who = self.client_address[0] if self.client_address else "you"
        body = f"{self.greeting}, {who}!\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Shout(socketserver.StreamRequestHandler):
    """Sends each line back in capitals."""

    def handle(self) -> None:
        """Read until the client has said all."""
        for line in self.rfile:
            self.wfile.write(line.upper())


class Echo(socketserver.DatagramRequestHandler):
    """Sends each datagram back."""

    def handle(self) -> None:
        """Answer one datagram."""
        self.wfile.write(self.rfile.read())
