"""What the sites of this folder have in common: where their files are, and what is told of them.

Each site answers the same paths in its framework's own way:

    GET  /hello/NAME   a page made by a template        POST /form      urlencoded, sets cookies
    GET  /visits       counts in a session              POST /upload    multipart, with a file
    GET  /stream       a generator, without a length    PUT  /raw       a body as it comes
    GET  /download     the framework's way with files   GET  /old       leads to /hello/new
    GET  /who          the client, as proxies tell it   GET  /fail      raises
    ANY  /any          the method
"""

import hashlib
import os
import threading
from pathlib import Path

FOLDER = Path(os.environ["SITES"])
FILM = (FOLDER / "film.bin").resolve()  # ETags are made of its path
PIECES = 50


def pieces():
    """Yield what /stream answers."""
    for number in range(PIECES):
        yield f"piece {number}\n".encode() * 200


def measure(file) -> dict:
    """Read a file of any kind in pieces."""
    size, digest = 0, hashlib.sha256()
    while piece := file.read(100_000):
        size += len(piece)
        digest.update(piece)
    return {"size": size, "sha256": digest.hexdigest()}


def worker() -> dict:
    return {"pid": os.getpid(), "thread": threading.current_thread() is not threading.main_thread()}


class Watched:
    """Tells the log how much of a file the program has read that it has left to the server.

    What the kernel sends, nobody reads: the file is where it was.
    """

    def __init__(self, application):
        self._application = application

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/broken":
            raise RuntimeError("broken outside of the framework")
        result = self._application(environ, start_response)
        if type(result) is environ["wsgi.file_wrapper"]:
            close, errors = result.close, environ["wsgi.errors"]
            who = environ.get("HTTP_USER_AGENT")

            def tell_and_close():
                if result.seekable():
                    errors.write(f"{who} has read {result.tell()}\n")
                close()

            result.close = tell_and_close
        return result
