"""The application of wsgi.toml: a guest book in SQLite, by the standard library alone.

All workers share the file. What a request needs it opens itself: nothing that was
opened before the fork is used after it.
"""

# ruff: noqa: INP001 # a file to copy, no package

import html
import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

PAGE = """<!DOCTYPE html>
<title>Guest book</title>
<form method="post"><input name="text" autofocus> <button>Sign</button></form>
<ul>%s</ul>
<p>You come from %s by %s. <a href="/book">All of it, as a file</a></p>
"""
Environ = dict[str, Any]
StartResponse = Callable[..., Any]


def create_app() -> Callable[[Environ, StartResponse], Iterable[bytes]]:
    """Make the application, once, before the workers are forked."""
    book = Path(os.environ["BOOK"])

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if path == "/book":
            start_response("200 OK", [("Content-Type", "application/vnd.sqlite3")])
            # The kernel sends the file. The server closes it.
            return environ["wsgi.file_wrapper"](book.open("rb"))
        if path != "/":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"Not here.\n"]
        with closing(sqlite3.connect(book, timeout=10)) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS entry (text)")
            if method == "POST":
                sign(connection, environ)
                start_response("303 See Other", [("Location", "/")])
                return []
            rows = connection.execute("SELECT text FROM entry ORDER BY rowid DESC LIMIT 50")
            entries = "".join(f"<li>{html.escape(text)}</li>\n" for (text,) in rows)
        page = PAGE % (entries, environ["REMOTE_ADDR"], environ["wsgi.url_scheme"])
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return [page.encode()]

    return app


def sign(connection: sqlite3.Connection, environ: Environ) -> None:
    """Add what the form says."""
    size = int(environ["CONTENT_LENGTH"] or 0)
    form = parse_qs(environ["wsgi.input"].read(size).decode("utf-8", "replace"))
    for text in form.get("text", []):
        connection.execute("INSERT INTO entry VALUES (?)", (text,))
    connection.commit()
