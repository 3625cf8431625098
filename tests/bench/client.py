"""A load generator for raw TCP and UDP: `client.py PORT SECONDS CLIENTS MODE`.

A process of its own: the request and the end of the reply as two lines of base64 on stdin; the
outcome as JSON on stdout. Some clients always wait for a reply. MODE:

- `tcp`, a connection for each request. Six system calls, about 40 microseconds: what a plain
  TCPServer needs, too.
- `kept`, connections that last: two system calls for each request.
- `udp`, a datagram for each request. One that is lost is an error, and its client sends another.
"""

import base64
import collections
import contextlib
import json
import signal
import socket
import struct
import sys
import time

GRACE_S = 5  # for the replies under way at the end

REPLY_BYTES = 65536  # at most; MSG_WAITALL reads to the end of a shorter one in one call
LOST_S = 1  # after which a datagram will not come any more
_LOST = struct.pack("ll", LOST_S, 0)


def connecting(port: int, seconds: float, clients: int, request: bytes, reply: bytes) -> dict:
    address = ("127.0.0.1", port)
    done = errors = 0
    under_way: collections.deque[socket.socket] = collections.deque()
    began_s = time.monotonic()
    ends_s = began_s + seconds
    while True:
        running = time.monotonic() < ends_s
        while running and len(under_way) < clients:
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


def keeping(
    port: int,
    seconds: float,
    clients: int,
    request: bytes,
    reply: bytes,
    *,
    kind: socket.SocketKind,
) -> dict:
    done = errors = 0
    began_s = time.monotonic()
    ends_s = began_s + seconds
    waiting: collections.deque[socket.socket] = collections.deque()
    for _ in range(clients):
        client = socket.socket(type=kind)
        # Not settimeout(), which makes it a non-blocking one: MSG_WAITALL would not wait.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _LOST)
        client.connect(("127.0.0.1", port))
        client.send(request)
        waiting.append(client)
    size = len(reply)
    while waiting:
        client = waiting.popleft()
        try:
            right = client.recv(size, socket.MSG_WAITALL) == reply
        except OSError:
            right = False
        done += right
        errors += not right
        if time.monotonic() < ends_s and (right or kind == socket.SOCK_DGRAM):
            client.send(request)
            waiting.append(client)
        else:
            client.close()
    return {"requests": done, "errors": errors, "seconds": time.monotonic() - began_s}


if __name__ == "__main__":
    port, seconds, clients = map(int, sys.argv[1:4])
    signal.alarm(seconds + GRACE_S)  # its default action ends this process
    request, reply = map(base64.b64decode, sys.stdin)
    if sys.argv[4] == "tcp":
        outcome = connecting(port, seconds, clients, request, reply)
    else:
        kind = socket.SOCK_DGRAM if sys.argv[4] == "udp" else socket.SOCK_STREAM
        outcome = keeping(port, seconds, clients, request, reply, kind=kind)
    print(json.dumps(outcome))
