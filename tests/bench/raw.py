"""The handlers of raw TCP and UDP, as little as a handler can be."""

import socketserver


class Echo(socketserver.StreamRequestHandler):
    """A line, and the end."""

    def handle(self):
        self.wfile.write(self.rfile.readline())


class EchoLines(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


class EchoDatagram(socketserver.DatagramRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.read())
