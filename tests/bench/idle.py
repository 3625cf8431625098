"""Idle clients: `idle.py PORT COUNT` opens keep-alive connections and holds them.

A process of its own. Each connection makes one request; that and the end of the reply are two
lines of base64 on stdin. When all are open it prints how many; when its stdin ends, how many the
server has not closed since.
"""

import base64
import contextlib
import socket
import sys

REPLY_S = 5.0  # a server that takes no more connections leaves one without a reply


def opened(port: int, count: int, request: bytes, answer: bytes) -> list[socket.socket]:
    clients = []
    with contextlib.suppress(OSError):  # the number printed tells
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", port), REPLY_S)
            clients.append(client)
            client.sendall(request)
            reply = b""
            while not reply.endswith(answer):
                reply += (more := client.recv(65536))
                if not more:
                    raise ConnectionError
        return clients
    return clients[:-1]


def is_open(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


if __name__ == "__main__":
    port, count = map(int, sys.argv[1:])
    request, answer = (base64.b64decode(sys.stdin.readline()) for _ in range(2))
    clients = opened(port, count, request, answer)
    print(len(clients), flush=True)
    sys.stdin.read()
    print(sum(map(is_open, clients)))
