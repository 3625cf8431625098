"""Echo: what comes is sent back (RFC 862)."""

# ruff: noqa: INP001 # a file to copy, no package

import socketserver


class Echo(socketserver.BaseRequestHandler):
    """One TCP or Unix client, until it has said all."""

    def handle(self) -> None:
        """Send back what comes, as it comes."""
        while data := self.request.recv(65536):
            self.request.sendall(data)


class EchoDatagram(socketserver.BaseRequestHandler):
    """One datagram."""

    def handle(self) -> None:
        """Send it back, but not to another service: two echo servers would never end."""
        data, sock = self.request
        port = self.client_address[1]
        if port >= 1024 and port != self.server.server_address[1]:
            sock.sendto(data, self.client_address)
