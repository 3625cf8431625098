"""The first answers of a server: whether they are right, and what the load has to know of them."""

import contextlib
import http.client
import re
import socket
from collections.abc import Iterator
from dataclasses import replace

from start import BenchError
from workloads import ENTRY, Transport, Workload

#: Longer than the slowest peer needs for the first byte of its longest list.
REPLY_S = 20.0
PIECE_BYTES = 1 << 20
_VALIDATORS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}


def check(port: int, workload: Workload) -> Workload:
    """Ask as the load will; return the workload with what is known now.

    Raises: BenchError unless the answer is the right one.
    """
    try:
        if workload.transport is not Transport.HTTP:
            return _compared(workload, _ask_raw(port, workload))
        if workload.ranges:
            return _check_ranges(port, workload)
        if workload.is_conditional:
            return _conditional(port, workload)
        if workload.answer is None:
            return _measured(port, workload)
        with _asked(port, workload) as response:
            return _compared(workload, response.read())  # IncompleteRead: less than was said
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(f"no answer: {error!r}") from None


def _compared(workload: Workload, reply: bytes) -> Workload:
    if reply != workload.answer:
        raise BenchError(f"wrong answer, {len(reply)} bytes: {reply[:200]!r}")
    return workload


def _check_ranges(port: int, workload: Workload) -> Workload:
    """Compare each range with what is in the file there."""
    for number, span in enumerate(workload.ranges):
        with (
            _asked(port, workload.asking({"Range": span}), 206) as response,
            workload.file.open("rb") as file,
        ):
            start = number * workload.length
            file.seek(start)
            while data := response.read(PIECE_BYTES):
                if data != file.read(len(data)):
                    raise BenchError(f"wrong bytes before {file.tell()}")
            if file.tell() != start + workload.length:
                raise BenchError(f"{span} ended at {file.tell()}")
    return workload


def _conditional(port: int, workload: Workload) -> Workload:
    """Take the validators of a first answer, and send them with each request, as browsers do."""
    with _asked(port, workload) as response:
        response.read()
        found = {
            condition: response.headers[name]
            for name, condition in _VALIDATORS.items()
            if response.headers[name]
        }
    known = replace(workload.asking(found), answer=b"")
    with _asked(port, known, 304) as response:
        response.read()
    missing = [name for name in _VALIDATORS.values() if name not in found]
    return replace(known, note=f"without {missing[0]}" if missing else "")


def _measured(port: int, workload: Workload) -> Workload:
    """Note how long an answer is that is each server's own; of a list, what is in it."""
    size, named, rest = 0, set[bytes](), b""
    with _asked(port, workload) as response:
        while data := response.read(PIECE_BYTES):
            size += len(data)
            if workload.entries:
                named |= {*re.findall(ENTRY, rest + data)}
                rest = data[-32:]
    if size < workload.least_bytes:
        raise BenchError(f"{size} bytes, and not at least {workload.least_bytes}")
    note = f"{size:,} bytes"
    if workload.entries:
        note += f" with {len(named):,} of {workload.entries:,} entries"
    return replace(workload, length=size, note=note)


@contextlib.contextmanager
def _asked(port: int, workload: Workload, status: int = 200) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REPLY_S)
    with contextlib.closing(connection):
        body = b"x" * workload.body_bytes
        connection.request("POST" if body else "GET", workload.path, body, workload.headers)
        response = connection.getresponse()
        if response.status != status:
            raise BenchError(f"status {response.status}: {response.read(200)!r}")
        yield response


def _ask_raw(port: int, workload: Workload) -> bytes:
    is_datagram = workload.transport is Transport.UDP
    with socket.socket(type=socket.SOCK_DGRAM if is_datagram else socket.SOCK_STREAM) as client:
        client.settimeout(REPLY_S)
        client.connect(("127.0.0.1", port))
        client.sendall(workload.request)
        if is_datagram:
            return client.recv(65536)
        if workload.transport is Transport.KEPT:
            client.shutdown(socket.SHUT_WR)  # else no end would come
        return b"".join(iter(lambda: client.recv(65536), b""))
