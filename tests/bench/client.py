"""A load generator: one connection per request, some of them always under way.

A process of its own: `client.py PORT SECONDS CONNECTIONS`, the request and the end of the reply
as two lines of base64 on stdin; the outcome as JSON on stdout. Six system calls per request,
about 40 microseconds: what a plain TCPServer needs, too.
"""

import base64
import collections
import contextlib
import json
import signal
import socket
import sys
import time

GRACE_S = 5  # for the connections under way at the end

REPLY_BYTES = 65536  # at most; MSG_WAITALL reads to the end of a shorter one in one call


def drive(port: int, seconds: float, connections: int, request: bytes, reply: bytes) -> dict:
    address = ("127.0.0.1", port)
    done = errors = 0
    under_way: collections.deque[socket.socket] = collections.deque()
    began_s = time.monotonic()
    ends_s = began_s + seconds
    while True:
        running = time.monotonic() < ends_s
        while running and len(under_way) < connections:
            client = socket.socket()
            under_way.append(client)
            with contextlib.suppress(OSError):  # counted below: such a socket has no reply
                client.connect(address)
                client.send(request)
        if not under_way:
            break
        with under_way.popleft() as client:
            try:
                right = client.recv(REPLY_BYTES, socket.MSG_WAITALL).endswith(reply)
            except OSError:
                right = False
        done += right
        errors += not right
    return {"requests": done, "errors": errors, "seconds": time.monotonic() - began_s}


if __name__ == "__main__":
    port, seconds, connections = map(int, sys.argv[1:])
    signal.alarm(seconds + GRACE_S)  # its default action ends this process
    request, reply = map(base64.b64decode, sys.stdin)
    print(json.dumps(drive(port, seconds, connections, request, reply)))
