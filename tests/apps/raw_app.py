"""Handlers of socketserver that tell who runs them, for configs and command lines of tests."""

import os
import socket
import socketserver
import subprocess
import threading
from pathlib import Path


class Echo(socketserver.BaseRequestHandler):
    """Says nothing about streams or datagrams, and serves both."""

    def handle(self):
        if self.server.socket_type == socket.SOCK_DGRAM:
            data, sock = self.request
            sock.sendto(data, self.client_address)
        else:
            while data := self.request.recv(65536):
                self.request.sendall(data)


class Lines(socketserver.StreamRequestHandler):
    """Answers each line; some lines ask who answers."""

    def handle(self):
        for line in self.rfile:
            self.wfile.write(answer(self.server, line.strip()))


class Packets(socketserver.DatagramRequestHandler):
    """The same for datagrams."""

    def handle(self):
        self.wfile.write(answer(self.server, self.rfile.read()))


def answer(server, word: bytes) -> bytes:
    if word == b"who":
        return b"%d %d %d\n" % (os.getpid(), os.getppid(), threading.get_ident())
    if word.startswith(b"get "):
        return f"{getattr(server, word[4:].decode())}\n".encode()
    if word.startswith(b"wait "):  # until somebody opens the FIFO for writing
        with Path(word[5:].decode()).open() as gate:
            gate.read()
    return word.upper() + b"\n"


class Diary(socketserver.DatagramRequestHandler):
    """Writes each datagram down before it answers."""

    def handle(self):
        fd = os.open("diary", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, self.packet + b"\n")
        os.close(fd)
        self.wfile.write(self.packet)


class Plain(socketserver.TCPServer):
    pass


class Threaded(socketserver.ThreadingMixIn, socketserver.TCPServer):
    pass


class Forked(socketserver.ForkingMixIn, socketserver.TCPServer):
    max_children = 7


class OwnProcess(socketserver.TCPServer):
    def process_request(self, request, client_address):
        super().process_request(request, client_address)


class Varied(socketserver.TCPServer):
    """Its variables are not those of a mix-in."""

    timeout = 17
    max_children = 9
    daemon_threads = True


# What a worker has started itself: a mix-in must leave it alone.

own = None


def start_own_process(_servers):
    global own  # noqa: PLW0603 # of this worker
    own = subprocess.Popen(["/bin/sh", "-c", "read line; exit 7"], stdin=subprocess.PIPE)


def tell_how_own_process_ended(_servers):
    own.stdin.close()
    Path("ended").write_text(str(own.wait()))


# What a system that has no process left answers.


def let_forks_fail_twice(_servers):
    fork, failures = os.fork, [1, 2]

    def failing():
        if failures:
            failures.pop()
            raise BlockingIOError(11, os.strerror(11))
        return fork()

    os.fork = failing


def let_threads_fail_twice(_servers):
    start, failures = threading.Thread.start, [1, 2]

    def failing(thread):
        if failures:
            failures.pop()
            raise RuntimeError("can't start new thread")
        start(thread)

    threading.Thread.start = failing
