"""What a person who has typed `prefork TARGET` sees at the terminal: the beginning, and the end.

The master. Without a terminal nobody is spoken to. What comes between, a line
for each request, is the workers' access log.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import prefork
from prefork import log
from prefork.amounts import count_text, size_text, time_text
from prefork.greeting import Screen, Shown, code_url, greeting, reachable_urls
from prefork.listeners import Listener
from prefork.pool import Pool
from prefork.sockets import endpoint_of
from prefork.target import Kind, Target
from prefork.visitors import Visitors, host_of

_LINKS: Final = {"inside": "no links out", "follow": "all links", "never": "no links"}


class Front:
    """target: what is served, by so many workers. quiet: warnings, errors and URLs are enough."""

    def __init__(self, target: Target, workers: int, *, quiet: bool, has_code: bool) -> None:
        self._target = target
        self._workers = workers
        self._has_code = has_code and not quiet and target.kind is Kind.HTTP
        self._visitors = Visitors() if is_watched() and not quiet else None
        self._begun_s = time.monotonic()

    def variables(self) -> dict[str, Any]:
        """Return variables of the server class, by which clients are counted."""
        if self._visitors is None:
            return {}
        return {"verify_request": _counting(self._visitors)}

    def greet(self, listeners: Sequence[Listener]) -> None:
        """Log where it listens; tell a person at a terminal."""
        endpoints = [endpoint_of(listener.sock) for listener in listeners]
        at = ",".join(map(str, endpoints))
        name, workers = self._target.name, self._workers
        log.info("master.listening", pid=os.getpid(), what=name, at=at, workers=workers)
        if not is_watched():
            return
        urls = reachable_urls(self._target.kind, endpoints)
        shown = Shown(
            version=prefork.__version__,
            what=name,
            how=how_of(self._target.handler),
            urls=urls,
            workers=workers,
            code_url=code_url(urls) if self._has_code and _is_unicode() else None,
        )
        screen = Screen(*_size(), has_colour=not os.environ.get("NO_COLOR"))
        sys.stdout.write(greeting(shown, screen))
        sys.stdout.flush()

    def farewell(self, pools: Sequence[Pool]) -> list[str]:
        """Return lines on what was done, for a person; none where nobody wants to know.

        pools: those that there were, all of whose workers have ended.
        """
        if self._visitors is None or not pools:
            return []
        requests = count_text(sum(pool.past_requests for pool in pools), "request")
        number, is_all = self._visitors.count()
        addresses = count_text(number, "address", "addresses")
        whom = f" from {'' if is_all else 'more than '}{addresses}" if number else ""
        sent = size_text(sum(pool.past_sent_bytes for pool in pools))
        took = time_text(time.monotonic() - self._begun_s)
        return [f"Served {requests}{whom} in {took}; sent {sent}."]


def is_watched() -> bool:
    """Tell whether a person is at the terminal."""
    return sys.stdout.isatty()


def access_format() -> str:
    """Return the format of the access log, where none was asked for."""
    return "short" if is_watched() and sys.stderr.isatty() else "common"


def how_of(handler: Any) -> str:
    """Return how a share is shared; "" for what is none."""
    cls = getattr(handler, "func", handler)  # of a functools.partial
    links = _LINKS.get(getattr(cls, "symlinks", ""))
    if links is None:
        return ""
    hidden = "hidden files too" if cls.hidden else "no hidden files"
    trusted = ", trusted" if cls.trusted or cls.spa else ""
    return f"read-only{trusted}, {hidden}, {links}"


def _counting(visitors: Visitors) -> Callable[[Any, Any, Any], bool]:
    def verify_request(server: Any, _request: Any, client_address: Any) -> bool:
        """Let every client in, and count it: the hook that knows addresses, of TCP and UDP."""
        worker = server._prefork_worker
        if worker is not None:
            visitors.note(worker.place.line, host_of(client_address))
        return True

    return verify_request


def _size() -> tuple[int, int]:
    """Return the columns and rows that there are; an exported COLUMNS may be another terminal's."""
    try:
        return os.get_terminal_size(sys.stdout.fileno())
    except OSError:  # it has gone
        return 0, 0


def _is_unicode() -> bool:
    return (sys.stdout.encoding or "").lower() in ("utf-8", "utf8")
