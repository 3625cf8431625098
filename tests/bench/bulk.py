"""A load generator for long answers: `bulk.py PORT SECONDS CONNECTIONS BODY_BYTES`.

A process of its own: the request as one line of base64 on stdin, the outcome as JSON on stdout.
It counts the bytes of a body in the kernel and copies none (MSG_TRUNC, tcp(7)): wrk needs three
times the processor time that nginx does, and would be what is measured. The answers under way at
the end are waited for.
"""

import base64
import json
import re
import selectors
import signal
import socket
import sys
import time

GRACE_S = 10  # for the answers under way at the end
HEAD_BYTES = 4096
PIECE = bytearray(1 << 20)


class Download:
    """One connection, and the answer that it is reading."""

    def __init__(self, port: int, request: bytes, body_bytes: int):
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._request, self._body_bytes = request, body_bytes

    def fileno(self) -> int:
        return self._socket.fileno()

    def ask(self) -> None:
        self._head, self._left = b"", None
        self._socket.sendall(self._request)

    def has_ended(self) -> bool:
        """Read once; raise ConnectionError if that is not what must come."""
        if self._left is None:
            self._head += (more := self._socket.recv(HEAD_BYTES))
            head, end, body = self._head.partition(b"\r\n\r\n")
            if end:
                length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
                if not head.split()[1] == b"200" or int(length[1]) != self._body_bytes:
                    raise ConnectionError(head)
                self._left = self._body_bytes - len(body)
        else:
            size = min(len(PIECE), self._left)
            more = self._socket.recv_into(PIECE, size, socket.MSG_TRUNC)
            self._left -= more
        if not more:
            raise ConnectionError("cut off")
        return self._left == 0


def drive(port: int, seconds: int, connections: int, body_bytes: int, request: bytes) -> dict:
    requests = 0
    with selectors.DefaultSelector() as selector:
        began_s = time.monotonic()
        for _ in range(connections):
            download = Download(port, request, body_bytes)
            selector.register(download, selectors.EVENT_READ)
            download.ask()
        while selector.get_map():
            for key, _ in selector.select():
                if key.fileobj.has_ended():
                    requests += 1
                    if time.monotonic() < began_s + seconds:
                        key.fileobj.ask()
                    else:
                        selector.unregister(key.fileobj)
    return {"requests": requests, "errors": 0, "seconds": time.monotonic() - began_s}


if __name__ == "__main__":
    port, seconds, connections, body_bytes = map(int, sys.argv[1:])
    signal.alarm(seconds + GRACE_S)  # its default action ends this process
    request = base64.b64decode(sys.stdin.readline())
    print(json.dumps(drive(port, seconds, connections, body_bytes, request)))
