"""Slow readers: `slow.py PORT COUNT BYTES_PER_S` read a long answer on each connection.

A process of its own. The request is a line of base64 on stdin. When all answers have begun, each
is read at its rate, in ten steps a second, until stdin ends. After two seconds it prints how many
there are; at the end, how many of them the server has not kept waiting: nine tenths of what they
would have read since has come. Like `bulk.py` it copies nothing.
"""

import base64
import contextlib
import itertools
import select
import socket
import sys
import time

SEGMENT_BYTES = 1448  # as on a LAN
RECEIVED_BYTES = 1 << 17  # that wait at the reader; said, so that it does not become more
#: The kernel takes some megabytes of each answer from the server, enough for the time of a
#: measurement. So they read before, each another part of this much: as if they had begun one after
#: the other, some at any moment want more of the server.
AHEAD_BYTES = 4 << 20
REPLY_S = 5.0
WARM_UP_STEPS = 20
STEP_S = 0.1
ENOUGH = 0.9
PIECE = bytearray(1 << 20)


class Reader:
    """due, taken: bytes that it would have read by now, and has."""

    def __init__(self, port: int, request: bytes):
        self._socket = socket.socket()
        self._socket.settimeout(REPLY_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED_BYTES)
        self._socket.connect(("127.0.0.1", port))
        self._socket.sendall(request)
        self.due = self.taken = 0

    def begin(self) -> None:
        if not self._socket.recv(1):
            raise ConnectionError("cut off")
        self._socket.setblocking(False)

    def read(self, more_bytes: int) -> None:
        self.due += more_bytes
        with contextlib.suppress(OSError):  # it waits, or is gone: what it has not got, tells
            while left := min(self.due - self.taken, len(PIECE)):
                more = self._socket.recv_into(PIECE, left, socket.MSG_TRUNC)
                self.taken += more
                if more < left:
                    break


def opened(port: int, count: int, request: bytes) -> list[Reader]:
    readers = []
    with contextlib.suppress(OSError):  # the number printed tells
        for _ in range(count):
            readers.append(Reader(port, request))
            readers[-1].begin()
        return readers
    return readers[:-1]


def has_ended(wait_s: float) -> bool:
    return bool(select.select([sys.stdin], [], [], max(0.0, wait_s))[0])


def read_on(readers: list[Reader], step_bytes: int) -> None:
    """Have each reader read a step after the other, all in the time of a step."""
    began_s = time.monotonic()
    for number, reader in enumerate(readers):
        reader.due = AHEAD_BYTES * number // len(readers)
    for turn in itertools.count():
        if turn == WARM_UP_STEPS:
            for reader in readers:
                reader.due = reader.taken = 0
            print(len(readers), flush=True)
        for number, reader in enumerate(readers, 1):
            reader.read(step_bytes)
            due_s = began_s + STEP_S * (turn + number / len(readers))
            # A few at a time: to wait for each would be thousands of system calls a second.
            is_time = number % 16 == 0 or number == len(readers)
            if is_time and has_ended(due_s - time.monotonic()):
                return


if __name__ == "__main__":
    port, count, bytes_per_s = map(int, sys.argv[1:])
    readers = opened(port, count, base64.b64decode(sys.stdin.buffer.raw.readline()))
    read_on(readers, round(bytes_per_s * STEP_S))
    print(sum(reader.taken >= ENOUGH * reader.due for reader in readers))
