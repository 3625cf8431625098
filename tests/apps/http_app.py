"""A server whose handler does what its path says, for tests of the HTTP engine.

    python http_app.py '{"threads": 4, "limits": {"head_s": 0.3}, "server": {"workers": 2}}'

It prints `PORT n`. Handlers that wait for something wait for an event, which `/set?name=` sets.
"""

import array
import gc
import http.server
import json
import os
import resource
import sys
import threading
import time
import urllib.parse
from collections import defaultdict
from pathlib import Path

import prefork.http
from prefork import PreforkMixIn
from prefork.http import HTTPServer
from prefork.http.limits import Limits

OPTIONS = json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}")
EVENTS = defaultdict(threading.Event)
SEEN = defaultdict(list)  # by the client's port
NOTES = defaultdict(list)
CLIENTS = {}  # sockets, in the order of their first hook
BLOCK = b"0123456789abcdef" * 4096


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = OPTIONS.get("protocol", "HTTP/1.1")
    timeout = OPTIONS.get("timeout")

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.dispatch
        raise AttributeError(name)

    def dispatch(self):
        path, _, query = self.path.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query))
        getattr(self, "at_" + path.strip("/").removesuffix(":1"), self.at_seen_by_default)()

    def answer(self, body, status=200, **fields):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def begin(self, status=200, **fields):
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *_):
        pass

    def at_seen_by_default(self):
        body = self.rfile.read()
        method, target, _ = self.requestline.split(" ")
        SEEN[self.client_address[1]].append(
            {
                "method": method,
                "target": target,
                "version": self.request_version,
                "body": body.decode("latin-1"),
                "fields": self.headers.items(),
            }
        )
        self.answer(b"ok", 403 if method == "CONNECT" else 200)  # 2xx would be a tunnel

    # -- what happened ---------------------------------------------------------

    def at_seen(self):
        self.answer(SEEN.pop(int(self.query["port"]), []))

    def at_notes(self):
        self.answer(NOTES[self.query["name"]])

    def at_facts(self):
        gc.collect()
        lines = Path("/proc/self/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        self.answer(
            {
                "pid": os.getpid(),
                "threads": threading.active_count(),
                "fds": len(list(Path("/proc/self/fd").iterdir())),
                "rss_kb": int(status["VmRSS"].split()[0]),
                "cpu_s": time.process_time(),
                "objects": len(gc.get_objects()),
            }
        )

    def at_sockets(self):
        """Answer with the number of clients, the one that asks included."""
        port = self.server.server_address[1]
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        self.answer(sum(row[3] == "01" and row[1].endswith(f":{port:04X}") for row in rows))

    def at_set(self):
        EVENTS[self.query["name"]].set()
        self.answer(b"set")

    # -- answers ---------------------------------------------------------------

    def at_hello(self):
        self.answer(b"hello")

    def at_nolength(self):
        self.begin()
        self.wfile.write(b"hello ")
        self.wfile.write(b"")
        self.wfile.write(b"world")

    def at_bodyless(self):
        self.begin(int(self.query["status"]))
        self.wfile.write(b"must not be seen")

    def at_many(self):
        self.begin(Content_Length="5")
        self.wfile.write(b"hel")
        self.wfile.write(b"lo and more")
        self.wfile.write(b"and more")

    def at_few(self):
        self.begin(Content_Length="50")
        self.wfile.write(b"hello")

    def at_nothing(self):
        pass

    def at_headonly(self):
        self.begin(Content_Length="0")

    def at_ownchunks(self):
        self.begin(Transfer_Encoding="chunked")
        self.wfile.write(b"5\r\nhello\r\n0\r\n\r\n")

    def at_raw(self):
        for part in json.loads(self.query["parts"]):
            self.wfile.write(part.encode("latin-1"))

    def at_says(self):
        self.answer(b"hello", Connection=self.query["connection"])

    def at_dated(self):
        self.answer(b"hello", Date="yesterday", Server="mine")

    def at_inject(self):
        self.send_response(200)
        self.send_header(self.query.get("key", "X"), self.query["value"])
        self.end_headers()
        self.wfile.write(b"hello")

    def at_reason(self):
        self.send_response(200, self.query["reason"])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def at_early(self):
        self.send_response_only(103)
        self.send_header("Link", "</style.css>; rel=preload")
        self.end_headers()
        self.answer(b"hello")

    def at_counts(self):
        """Write what is no plain bytes; answer with what write() has returned."""
        data = array.array("I", [1, 2, 3])
        self.begin(Content_Length=str(4 + 12 + 3))
        counts = [self.wfile.write(bytearray(b"four")), self.wfile.write(memoryview(data))]
        NOTES["counts"] += [*counts, self.wfile.write(b"end"), self.wfile.write(b"")]

    def at_reused(self):
        size = int(self.query["size"])
        self.begin(Content_Length=str(size))
        data = bytearray(1000)
        for n in range(size // 1000):
            data[:] = bytes([n % 256]) * 1000
            self.wfile.write(data if n % 2 else memoryview(data))

    def at_flushed(self):
        """Answer with what the client says when it has seen the head."""
        self.begin(Content_Length="6")
        self.wfile.flush()
        self.connection.settimeout(3)
        self.wfile.write(self.connection.recv(6))

    def at_both(self):
        self.begin(Content_Length="5", Transfer_Encoding="chunked")
        self.wfile.write(b"5\r\nhello\r\n0\r\n\r\n")

    def at_big(self):
        size = int(self.query["size"])
        self.begin(Content_Length=str(size))
        sent = 0
        while sent < size:
            sent += self.wfile.write(BLOCK[: size - sent])
        NOTES["big"].append(sent)

    def at_lines(self):
        """One chunk of a body at a time, as long as asked for; never waits for its client."""
        until_s = time.monotonic() + float(self.query["s"])
        self.begin()
        while time.monotonic() < until_s:
            self.wfile.write(b"line\n" * 2000)

    def at_upgrade(self):
        self.begin(101, Upgrade="echo", Connection="Upgrade")
        self.tunnel()

    def at_tunnel(self):
        self.begin()
        self.tunnel()

    def tunnel(self):
        self.wfile.flush()
        while line := self.rfile.readline():
            self.wfile.write(b"heard " + line)
            self.wfile.flush()
            if line == b"bye\n":
                break

    # -- bodies ----------------------------------------------------------------

    def at_echo(self):
        self.answer(self.rfile.read())

    def at_size(self):
        size = 0
        while data := self.rfile.read1(65536):
            size += len(data)
        self.answer({"size": size})

    def at_some(self):
        self.answer(self.rfile.read(int(self.query["n"])))

    def at_refuse(self):
        self.answer(b"no", 403)

    def at_asks(self):
        """Read the body only after an interim answer of its own."""
        self.send_response_only(102)
        self.end_headers()
        self.wfile.flush()
        self.at_echo()

    def at_lines_of_body(self):
        peeked = self.rfile.peek(1)[:1]
        self.answer([peeked.decode(), *[line.decode() for line in self.rfile]])

    def at_tries(self):
        try:
            NOTES["tries"].append([self.client_address[1], "read", len(self.rfile.read())])
        except Exception as error:
            NOTES["tries"].append([self.client_address[1], type(error).__name__, str(error)])
            raise

    def at_late(self):
        self.begin()
        self.wfile.write(b"begun ")
        self.rfile.read()
        self.wfile.write(b"done")

    # -- trouble ---------------------------------------------------------------

    def at_raise(self):
        self.send_response(200)
        self.send_header("X-Mine", "1")
        raise ValueError("raised before the head")

    def at_raiselate(self):
        self.begin(**json.loads(self.query.get("fields", "{}")))
        self.wfile.write(b"hello")
        raise ValueError("raised after the head")

    def at_exit(self):
        sys.exit(3)

    def at_exitlate(self):
        self.begin()
        self.wfile.write(b"hello")
        sys.exit(3)

    def at_interrupt(self):
        raise KeyboardInterrupt

    def at_timeout(self):
        raise TimeoutError("the database did not answer")

    def at_stick(self):
        threading.Event().wait()

    def at_wait(self):
        NOTES["waiting"].append(self.query["name"])
        assert EVENTS[self.query["name"]].wait(20)
        self.answer(b"waited")

    def at_gate(self):
        os.write(1, b"BEGUN\n")
        os.close(os.open(self.query["name"], os.O_RDONLY))
        self.close_connection = "close" in self.query
        self.answer(b"x" * int(self.query.get("size", "5")))

    def at_sleep(self):
        time.sleep(float(self.query["s"]))
        self.at_big()

    def at_closed(self):
        self.close_connection = True
        self.answer(b"hello")


class Custom(Handler):
    """Its `handle` is its own: it keeps its thread until its client has gone."""

    def handle(self):
        super().handle()


class Buffered(Handler):
    wbufsize = -1


class Ours(prefork.http.BaseHTTPRequestHandler, Handler):
    """Derived from ours first."""


class BadErrors(Handler):
    def send_error(self, *_):
        raise LookupError("raised in send_error")


class BadInit(Handler):
    def __init__(self, request, client_address, server):
        if server.serves == 0:
            server.serves = 1
            raise LookupError("raised in __init__")
        super().__init__(request, client_address, server)


class BadFinish(Handler):
    def finish(self):
        super().finish()
        if self.path == "/hello":
            raise LookupError("raised in finish")


class Server(PreforkMixIn, HTTPServer):
    workers = 1
    threads = OPTIONS.get("threads", 0)
    limits = Limits(**OPTIONS.get("limits", {}))

    def setup_worker(self):
        if "nofile" in OPTIONS:
            # Its own idea of how many clients fit is upset by what others have open.
            hoard = 96
            resource.setrlimit(resource.RLIMIT_NOFILE, (OPTIONS["nofile"] + hoard,) * 2)
            self.hoard = [os.open(os.devnull, os.O_RDONLY) for _ in range(hoard)]

    serves = 0


class Picky(Server):
    def verify_request(self, *_):
        self.serves += 1
        return self.serves > 1


class Hooked(Server):
    """Notes the hooks that are called for each client, in their order."""


def note_calls(name):
    def hook(self, request, *rest):
        NOTES[str(CLIENTS.setdefault(request, len(CLIENTS)))].append(name)
        return getattr(super(Hooked, self), name)(request, *rest)

    setattr(Hooked, name, hook)


def main():
    for hook in OPTIONS.get("hooks", []):
        note_calls(hook)
    server_class = globals()[OPTIONS.get("server_class", "Server")]
    for name, value in OPTIONS.get("server", {}).items():
        setattr(Server, name, value)
    handler = globals()[OPTIONS.get("handler", "Handler")]
    server = server_class(("127.0.0.1", 0), handler)
    print("PORT", server.server_address[1], flush=True)
    server.serve_forever()
    server.server_close()
    print("END", flush=True)


if __name__ == "__main__":
    import logging

    logging.basicConfig(level=logging.DEBUG)
    main()
