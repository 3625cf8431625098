"""A raw HTTP client that believes nothing, and the server of `apps/http_app.py` to try it on."""

import contextlib
import json
import os
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path

from harness import DEADLINE_S, Daemon

APP = Path(__file__).parent / "apps" / "http_app.py"


class App(Daemon):
    """The server, started and READY; options as in `http_app`."""

    def __init__(self, cwd=None, **options):
        super().__init__([sys.executable, APP, json.dumps(options)], cwd=cwd)

    def __enter__(self):
        try:
            self.log.wait_for("worker.ready")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    @property
    def address(self):
        return "127.0.0.1", int(self.out.wait_for(r"^PORT (\d+)$")[1])

    def connect(self, **options):
        return Client(self.address, **options)

    def ask(self, path="/hello", **options):
        """Return the answer to one request on a connection of its own."""
        with self.connect() as client:
            return client.ask(path, **options)

    def facts(self):
        return self.ask("/facts").json()

    def notes(self, name):
        return self.ask(f"/notes?name={name}").json()


@dataclass
class Answer:
    """interim: the heads of 1xx answers before it. is_whole: it came to its end."""

    status: int
    version: str
    fields: list
    interim: list
    body: bytes = b""
    is_whole: bool = True
    raw: bytes = field(default=b"", repr=False)

    def all_of(self, name):
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def __getitem__(self, name):
        """Return the value of a field that must not come twice; None without it."""
        found = self.all_of(name)
        assert len(found) < 2, found
        return found[0] if found else None

    def json(self):
        assert self.status == 200, self
        return json.loads(self.body)


class Reader:
    """Reads answers as RFC 9112 says, and asserts that they are so."""

    def __init__(self, file):
        self.file = file

    def answer(self, method="GET"):
        """Read one answer; its body too, if it can have one."""
        interim = []
        while True:
            head = self._head()
            assert head, "closed without an answer"
            status_line, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
            version, status, _ = status_line.split(" ", 2)
            fields = [tuple(line.split(": ", 1)) for line in lines]
            if not ("100" <= status < "200" and status != "101"):
                break
            interim.append((int(status), fields))
        assert version in ("HTTP/1.0", "HTTP/1.1")
        answer = Answer(int(status), version, fields, interim)
        is_tunnel = status == "101" or (method == "CONNECT" and status[0] == "2")
        if method != "HEAD" and status not in ("204", "304") and not is_tunnel:
            self._read_body(answer)
        return answer

    def _head(self):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.file.readline()
            if not line:
                assert head == b"", head
                return b""
            assert line.endswith(b"\r\n"), line
            head += line
        return head

    def _read_body(self, answer):
        length, coding = answer["Content-Length"], answer["Transfer-Encoding"]
        assert length is None or coding is None, answer
        if coding is not None:
            assert coding == "chunked"
            assert answer.version == "HTTP/1.1"
            self._read_chunks(answer)
        elif length is not None:
            answer.body = self._read(int(length))
            answer.is_whole = len(answer.body) == int(length)
        else:
            answer.body = self.file.read()

    def _read(self, most):
        """Read so much, or what there is until the end or a reset."""
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while most and (part := self.file.read1(min(most, 1 << 18))):
                parts.append(part)
                most -= len(part)
        return b"".join(parts)

    def _read_chunks(self, answer):
        while line := self.file.readline():
            size = int(line, 16)
            data = self.file.read(size + 2)
            if len(data) < size + 2:
                break
            assert data.endswith(b"\r\n"), data
            answer.body += data[:-2]
            if size == 0:
                return
        answer.is_whole = False


class Client(Reader):
    """One connection."""

    def __init__(self, address, receive_bytes=None, deadline_s=DEADLINE_S):
        self.sock = socket.socket()
        if receive_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.sock.settimeout(deadline_s)
        try:
            self.sock.connect(address)
        except OSError:
            self.sock.close()
            raise
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(self.sock.makefile("rb"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.sock.close()

    @property
    def port(self):
        return self.sock.getsockname()[1]

    def send(self, data):
        self.sock.sendall(data)

    def end(self):
        """Say that no more comes."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def request(self, path="/hello", method="GET", body=b"", fields=(), version="1.1"):
        if body and not any("encoding" in f.lower() or "length" in f.lower() for f in fields):
            fields = (*fields, f"Content-Length: {len(body)}")
        lines = [f"{method} {path} HTTP/{version}", "Host: test", *fields]
        self.send("".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n" + body)

    def ask(self, path="/hello", method="GET", **options):
        """Return the answer to one request."""
        self.request(path, method, **options)
        return self.answer(method)

    def at_end(self):
        """Return what comes until the server closes; b"" is a clean end."""
        parts = []
        try:
            while part := self.file.read1(65536):
                parts.append(part)
        except ConnectionResetError:
            parts = parts or [b"reset"]
        return b"".join(parts)

    def has_ended(self):
        """Tell whether nothing more comes; the server may reset who has sent too much."""
        return self.at_end() in (b"", b"reset")

    def is_open(self):
        """Tell whether the connection serves one more request."""
        try:
            return self.ask("/hello").body == b"hello"
        except (AssertionError, ConnectionError):
            return False


def cpu_s(pid):
    """Return the CPU time that a process has used, in seconds."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
