"""A load generator for long answers: `bulk.py PORT SECONDS CONNECTIONS BODY_BYTES SLACK_BYTES`.

A process of its own: the requests as lines of base64 on stdin, which the connections have in
turns, and the outcome as JSON on stdout. Each answer has BODY_BYTES, or SLACK_BYTES more or less.
It counts the bytes of a body in the kernel and copies none (MSG_TRUNC, tcp(7)): wrk needs three
times the processor time that nginx does, and would be what is measured. The body may end by
Content-Length, by its last chunk, or with the connection. The answers under way at the end are
waited for: in 0 seconds, one for each connection.
"""

import base64
import json
import re
import selectors
import signal
import socket
import statistics
import sys
import time

GRACE_S = 10  # for the answers under way at the end
HEAD_BYTES = 4096
LINE_BYTES = 32  # of a chunk's size, and little of the chunk
PIECE = bytearray(1 << 20)


class Download:
    """One client, and the answer that it is reading.

    left: bytes to come before something must be read again; None: until the connection ends.
    taken: bytes of the body that have come. chunk: bytes of framing in a chunked body; None: it
    is none. asked_s, first_s: when it was asked for, and when its first byte came.
    """

    def __init__(self, port: int, request: bytes, body_bytes: int, slack_bytes: int):
        self._port, self._request = port, request
        self._body_bytes, self._slack_bytes = body_bytes, slack_bytes
        self._connect()

    def fileno(self) -> int:
        return self._socket.fileno()

    def ask(self) -> None:
        if self._last:
            self.close()
            self._connect()
        self._head: bytes | None = b""
        self._chunk: bytes | None = None
        self._left: int | None = 0
        self._taken = 0
        self.first_s: float | None = None
        self.asked_s = time.monotonic()
        self._socket.sendall(self._request)

    def close(self) -> None:
        self._socket.close()

    def has_ended(self) -> bool:
        """Read once; raise ConnectionError if that is not what must come."""
        if self._head is not None:
            ended = self._read_head()
        elif self._left == 0:
            ended = self._read_frame(self._receive(LINE_BYTES))
        else:
            size = len(PIECE) if self._left is None else min(len(PIECE), self._left)
            more = self._socket.recv_into(PIECE, size, socket.MSG_TRUNC)
            if self._left is None:
                ended = not more
            elif not more:
                raise ConnectionError("cut off")
            else:
                self._left -= more
                ended = self._left == 0 and self._chunk is None
            if self._chunk is None:
                self._taken += more
        if ended and abs(self._taken - self._body_bytes) > self._slack_bytes:
            raise ConnectionError(f"a body of {self._taken} bytes")
        return ended

    def _connect(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._port))
        self._last = False

    def _receive(self, size: int) -> bytes:
        if not (data := self._socket.recv(size)):
            raise ConnectionError("cut off")
        return data

    def _read_head(self) -> bool:
        self._head += self._receive(HEAD_BYTES)
        self.first_s = self.first_s or time.monotonic()
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            return False
        self._head = None
        fields = head.lower() + b"\r\n"
        if fields.split()[1] not in (b"200", b"206"):
            raise ConnectionError(head)
        self._last = b"\r\nconnection: close\r\n" in fields or fields.startswith(b"http/1.0")
        if b"\r\ntransfer-encoding: chunked\r\n" in fields:
            self._chunk = b""
            return self._read_frame(body)
        length = re.search(rb"\r\ncontent-length: *(\d+)", fields)
        self._taken = len(body)
        self._left = int(length[1]) - len(body) if length else None
        self._last = self._last or not length
        return self._left == 0

    def _read_frame(self, data: bytes) -> bool:
        """Go on in chunks (RFC 9112 §7.1) where a size is due; tell whether the last has come."""
        self._chunk += data
        while True:
            line, end, rest = self._chunk.partition(b"\r\n")
            if not end:
                return False
            size = int(line.partition(b";")[0], 16)
            if size == 0:
                return rest == b"\r\n"  # else it is under way; nobody sends trailers here
            self._taken += size
            self._chunk = rest[size + 2 :]
            if len(rest) < size + 2:
                self._left = size + 2 - len(rest)
                return False


def drive(numbers: list[int], requests: list[bytes]) -> dict:
    port, seconds, connections, *sizes = numbers
    took_s, waited_s = [], []
    with selectors.DefaultSelector() as selector:
        began_s = time.monotonic()
        for number in range(connections):
            download = Download(port, requests[number % len(requests)], *sizes)
            download.ask()
            selector.register(download, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                download = key.fileobj
                if not download.has_ended():
                    continue
                now_s = time.monotonic()
                took_s.append(now_s - download.asked_s)
                waited_s.append(download.first_s - download.asked_s)
                selector.unregister(download)
                if now_s < began_s + seconds:
                    download.ask()  # perhaps by another connection
                    selector.register(download, selectors.EVENT_READ)
                else:
                    download.close()  # some servers wait for that
    took_s.sort()
    return {
        "requests": len(took_s),
        "errors": 0,
        "seconds": time.monotonic() - began_s,
        "ttfb_us": round(statistics.median(waited_s) * 1e6),
        "p50_us": round(statistics.median(took_s) * 1e6),
        "p99_us": round(took_s[len(took_s) * 99 // 100] * 1e6),
    }


if __name__ == "__main__":
    numbers = list(map(int, sys.argv[1:]))
    signal.alarm(numbers[1] + GRACE_S)  # its default action ends this process
    requests = [base64.b64decode(line) for line in sys.stdin]
    print(json.dumps(drive(numbers, requests)))
