"""A whois server (RFC 3912): a question of one line, an answer of text."""

# ruff: noqa: INP001 # a file to copy, no package

import re
import socketserver
import time
from pathlib import Path

# Names of objects are names of files. This lets nobody out of the folder.
NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
LONGEST = 200  # bytes of a question; a file's name has at most 255


class Whois(socketserver.StreamRequestHandler):
    """Answers from a folder, where example.org.txt tells about example.org and all below it."""

    records = Path("/srv/whois")  # handler_options can set both
    timeout = 10  # seconds for a client to ask, and then to take its answer

    def handle(self) -> None:
        """Answer one question."""
        line, end, _ = self.ask().partition(b"\n")
        if end:  # else it was cut off, or is too long
            text = self.find(line.decode("ascii", "replace").strip().lower())
            self.wfile.write(text.replace("\n", "\r\n").encode())

    def ask(self) -> bytes:
        """Return what the client has said in time; readline() would give it that for each byte."""
        said, end_s = b"", time.monotonic() + self.timeout
        while b"\n" not in said and len(said) < LONGEST:
            self.connection.settimeout(max(0.001, end_s - time.monotonic()))
            more = self.connection.recv(LONGEST - len(said))
            if not more:
                break
            said += more
        self.connection.settimeout(self.timeout)
        return said

    def find(self, name: str) -> str:
        """Return what is known of an object, or of the next one above it."""
        above = name
        while NAME.fullmatch(above):
            try:
                return (self.records / f"{above}.txt").read_text("utf-8", "replace")
            except FileNotFoundError:
                above = above.partition(".")[2]
        return "No match.\n"
