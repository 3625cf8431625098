"""One script at work: what it reads, says and cries, and its client, watched in one loop.

A worker, in the thread of the handler. It gives the script its input as it
takes it, hands on its output as it comes, and keeps its time. It never waits
for one of them alone, and never decides what is answered.
"""

import math
import operator
import os
import select
import time
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from prefork.http.cgi.feed import Feed
from prefork.http.cgi.process import Process
from prefork.http.cgi.words import Words

if TYPE_CHECKING:
    from prefork.desk import Desk

_PIECE_BYTES: Final = 1 << 16
#: How long the beginning of an answer waits for its end: most are short, and then leave in one
#: piece, with their length.
_WHOLE_S: Final = 0.002
#: How long what a script has started and left may be silent, when it has ended, before its output
#: counts as complete: a pipeline's last words come at once, a daemon keeps the pipe for ever.
_LEFT_S: Final = 0.5
#: How long an answer may be waited for by a client that has closed its side, before it is asked
#: whether it has gone: many that send one request do close it.
_DOUBT_S: Final = 1.0

_IN: Final = select.POLLIN
_LOST: Final = select.POLLERR | select.POLLHUP | select.POLLNVAL


class End(Enum):
    """How it ended. The script may still run."""

    DONE = "its output is complete"
    SILENT = "it neither read nor wrote for too long"
    LATE = "it took too long"
    GONE = "its client has gone"


class Patience(NamedTuple):
    """In seconds; None: for ever.

    silent_s: a script may neither read nor write. late_s: it may take in all.
    body_s: its client may send nothing of the body.
    """

    silent_s: float | None
    late_s: float | None
    body_s: float | None


class Client(NamedTuple):
    """fd: its socket. doubt: asks it whether it is still there, so that POLLERR tells if not."""

    fd: int
    doubt: Callable[[], None]
    desk: "Desk | None"


class Relay:
    """take: called with the script's output as it comes; what it raises ends `run()`."""

    def __init__(
        self, process: Process, feed: Feed, client: Client, patience: Patience, words: Words
    ) -> None:
        self._process = process
        self._feed = feed
        self._client = client
        self._patience = patience
        self._words = words
        self._poll = select.poll()
        self._watched: dict[int, int] = {}
        self._started_s = self._moved_s = time.monotonic()
        self._exited_s = self._doubt_s = math.inf
        self._first = b""
        self._first_s = math.inf
        self._has_begun = self._said_all = self._half_closed = False

    def run(self, take: Callable[[bytes, bool], None]) -> End:
        """Serve the script until its output is complete, or something is wrong.

        take: called with the output as it comes, and whether that is all of it.
        Raises: TimeoutError when the client stalls within its body; what `take`
        raises.
        """
        process, feed, client = self._process, self._feed, self._client
        for fd in (process.stdout, process.stderr, process.pidfd):
            self._watch(fd, _IN)
        while True:
            if feed.is_open():
                self._watch(feed.fd, 0 if feed.is_hungry() else select.POLLOUT)
            self._watch(client.fd, self._client_mask())
            ends = [self._react(fd, mask, take) for fd, mask in self._wait()]
            ends.append(self._look_at_clock(time.monotonic(), take))
            for end in ends:
                if end is not None:
                    return end
            if self._said_all and not feed.is_open():
                return End.DONE

    # -- what happens ----------------------------------------------------------

    def _react(self, fd: int, mask: int, take: Callable[[bytes, bool], None]) -> End | None:
        process = self._process
        if fd == process.stdout:
            return None if self._hand_on(take) else self._note_all_said(take)
        if fd == self._client.fd:
            return self._hear(mask)
        if fd == process.stderr:
            if not self._words.read(fd):
                self._forget(fd)
        elif fd == process.pidfd:
            self._forget(fd)
            self._exited_s = time.monotonic()
        else:
            return self._push(mask)
        return None

    def _hand_on(self, take: Callable[[bytes, bool], None]) -> bool:
        """Tell whether there may be more."""
        try:
            data = os.read(self._process.stdout, _PIECE_BYTES)
        except BlockingIOError:
            return True
        if self._has_begun:
            if data:
                take(data, False)
        else:
            self._first += data
            if not data or len(self._first) > _PIECE_BYTES:
                self._begin(take, is_all=not data)
            elif self._first_s == math.inf:
                self._first_s = time.monotonic() + _WHOLE_S
        self._moved_s = time.monotonic()  # the client may have been slow to take it
        return bool(data)

    def _note_all_said(self, take: Callable[[bytes, bool], None]) -> End | None:
        """Go on for a script that has closed its stdout first, and still takes its input."""
        self._said_all = True
        self._forget(self._process.stdout)
        if not self._feed.is_open():
            return End.DONE
        if self._has_begun:
            take(b"", True)
        return None

    def _begin(self, take: Callable[[bytes, bool], None], *, is_all: bool) -> None:
        self._has_begun, self._first_s = True, math.inf
        data, self._first = self._first, b""
        if data:
            take(data, is_all)

    def _push(self, mask: int) -> End | None:
        fd = self._feed.fd
        if mask & _LOST:
            self._feed.close_pipe()  # the script wants no more
        else:
            try:
                pushed = self._feed.push()
            except ConnectionError:
                return End.GONE
            if pushed:
                self._moved_s = time.monotonic()
        if self._feed.fd != fd:
            self._forget(fd)
        return None

    def _hear(self, mask: int) -> End | None:
        """Take what the client sends, or note that it sends no more."""
        if self._feed.is_hungry():
            return self._push(0)
        if mask & _LOST:
            return End.GONE
        if mask & select.POLLRDHUP:
            self._half_closed = True
            self._doubt_s = time.monotonic() + _DOUBT_S
        return None

    def _look_at_clock(self, now_s: float, take: Callable[[bytes, bool], None]) -> End | None:
        if now_s >= self._first_s:
            self._begin(take, is_all=False)
        if now_s >= self._doubt_s:
            self._doubt_s = math.inf
            self._client.doubt()
        self._words.tick(now_s)
        due_s, end = self._due()
        if now_s < due_s:
            return None
        if end is None:
            raise TimeoutError("timed out")
        return end

    # -- what is waited for ------------------------------------------------------

    def _due(self) -> tuple[float, End | None]:
        """Return until when something must happen, and what it is if not; None: the client's."""
        patience, moved_s = self._patience, self._moved_s
        due: list[tuple[float, End | None]] = [
            (self._started_s + (patience.late_s or math.inf), End.LATE),
            (max(self._exited_s, moved_s) + _LEFT_S, End.DONE),
        ]
        if self._feed.is_hungry():
            due.append((moved_s + (patience.body_s or math.inf), None))
        else:
            end = End.DONE if self._said_all else End.SILENT
            due.append((moved_s + (patience.silent_s or math.inf), end))
        return min(due, key=operator.itemgetter(0))

    def _wait(self) -> list[tuple[int, int]]:
        due_s = min(self._due()[0], self._first_s, self._doubt_s, self._words.due_s)
        wait_ms = None if due_s == math.inf else max(0.0, due_s - time.monotonic()) * 1000
        desk = self._client.desk
        if desk is None:
            return self._poll.poll(wait_ms)
        desk.away()
        try:
            return self._poll.poll(wait_ms)
        finally:
            desk.back()

    def _client_mask(self) -> int:
        """Return what of the client is of interest; POLLERR and POLLHUP come unasked."""
        if self._feed.is_hungry():
            return _IN
        return 0 if self._half_closed or self._feed.is_open() else select.POLLRDHUP

    def _watch(self, fd: int, mask: int) -> None:
        if self._watched.get(fd) != mask:
            self._watched[fd] = mask
            self._poll.register(fd, mask)

    def _forget(self, fd: int) -> None:
        self._poll.unregister(fd)
        del self._watched[fd]
