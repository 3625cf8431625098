"""The server classes under measurement, each as a program: `peers.py NAME` prints its port.

The handlers do as little as a handler can, so that the servers are what differs.
"""

import socketserver
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from socketserver import ForkingMixIn, TCPServer, ThreadingTCPServer

from prefork import PreforkMixIn

HELLO = b"Hello, world!\n"
LINE = b"sixty-four bytes".ljust(63, b".") + b"\n"
WORKERS = 2
#: Of the stdlib's 5, any burst loses some connections for a second: SYNs are sent again after
#: that, and the figures would show the timers of TCP.
QUEUE = 128


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(HELLO)))
        self.end_headers()
        self.wfile.write(HELLO)

    def log_message(self, *args):
        pass


class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.readline())


class Preforking(PreforkMixIn):
    workers = WORKERS


class ForkingHTTPServer(ForkingMixIn, HTTPServer):
    pass


class PreforkHTTPServer(Preforking, HTTPServer):
    pass


class PreforkThreadingHTTPServer(Preforking, ThreadingHTTPServer):
    pass


class ForkingTCPServer(ForkingMixIn, TCPServer):
    pass


class PreforkTCPServer(Preforking, TCPServer):
    pass


class PreforkThreadingTCPServer(Preforking, ThreadingTCPServer):
    pass


HTTP = {
    "HTTPServer": HTTPServer,
    "ThreadingHTTPServer": ThreadingHTTPServer,
    "ForkingMixIn, HTTPServer": ForkingHTTPServer,
    "PreforkMixIn, HTTPServer": PreforkHTTPServer,
    "PreforkMixIn, ThreadingHTTPServer": PreforkThreadingHTTPServer,
}
TCP = {
    "TCPServer": TCPServer,
    "ThreadingTCPServer": ThreadingTCPServer,
    "ForkingMixIn, TCPServer": ForkingTCPServer,
    "PreforkMixIn, TCPServer": PreforkTCPServer,
    "PreforkMixIn, ThreadingTCPServer": PreforkThreadingTCPServer,
}


def main(name: str) -> None:
    handler = Hello if name in HTTP else Echo
    server_class = (HTTP | TCP)[name]
    tuned = type(server_class.__name__, (server_class,), {"request_queue_size": QUEUE})
    with tuned(("127.0.0.1", 0), handler) as server:
        print(f"PORT {server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
