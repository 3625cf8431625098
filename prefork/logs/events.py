"""The log of the daemon: its target, its form, and repetitions that are counted.

Master and workers; the master configures, workers inherit. It configures
prefork's own logger only: what a program's own loggers say goes the same way
for as long as that program has not configured any handler (`logging.lastResort`).
"""

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from prefork import log
from prefork.errors import StartError
from prefork.logs.files import LogFiles
from prefork.logs.records import Json, Text, event_of, new_record
from prefork.logs.sinks import (
    DescriptorSink,
    JournalSink,
    Sink,
    SyslogSink,
    journal_is_stderr,
)
from prefork.privileges import Identity

_STDERR: Final = 2
_MOST_KINDS: Final = 1024  # of repeated events that are counted at a time


@dataclass(frozen=True, slots=True)
class Wanted:
    """How the daemon logs.

    target: "stderr", "journald", "syslog", or the path of a file. format:
    "text" or "json"; the journal has fields instead. level: "debug" to
    "error". mode, owner: of a file that is made. repeat_burst: of one kind of
    event (its name, and its slot) each process logs this many within
    repeat_window_s seconds, and the number of the others after that.
    """

    target: str = "stderr"
    format: str = "text"
    level: str = "info"
    mode: int = 0o640
    owner: Identity | None = None
    repeat_window_s: float = 10.0
    repeat_burst: int = 10


def configure(
    wanted: Wanted, files: LogFiles, environ: Mapping[str, str] = os.environ
) -> "Limited":
    """Send prefork's events where they are wanted, instead of where they went before.

    files: opens the target that is a file, and reopens it later. environ: with
    JOURNAL_STREAM, stderr as text becomes native records where it leads to the
    journal.
    Raises: StartError if the target cannot be opened; nothing has changed then.
    """
    handler = Limited(_sink(wanted, files, environ), wanted.repeat_window_s, wanted.repeat_burst)
    for former in list(log.LOGGER.handlers):
        log.LOGGER.removeHandler(former)
        former.close()
    log.LOGGER.addHandler(handler)
    log.LOGGER.setLevel(wanted.level.upper())
    log.LOGGER.propagate = False
    logging.lastResort = handler
    return handler


def _sink(wanted: Wanted, files: LogFiles, environ: Mapping[str, str]) -> Sink:
    formatter = Json() if wanted.format == "json" else Text()
    match wanted.target:
        case "journald":
            return JournalSink()
        case "syslog":
            return SyslogSink(formatter if wanted.format == "json" else Text(stamped=False))
        case "stderr":
            if wanted.format == "text" and journal_is_stderr(environ):
                try:
                    return JournalSink()
                except StartError:
                    pass  # a container with the journal's stream and without its socket
            return DescriptorSink(_STDERR, formatter)
        case path:
            return DescriptorSink(files.open(path, wanted.mode, wanted.owner).fd, formatter)


class Limited(logging.Handler):
    """Passes records on, but of those that repeat themselves only the first, and their number."""

    def __init__(self, sink: logging.Handler, window_s: float, burst: int) -> None:
        super().__init__()
        self._sink = sink
        self._window_s = window_s
        self._burst = burst
        self._repeats = Repeats(window_s, burst)
        self._pid = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on, or count it; logging's lock is held."""
        if self._pid != os.getpid():  # what the master has counted, the master will log
            self._pid = os.getpid()
            self._repeats = Repeats(self._window_s, self._burst)
        now_s = time.monotonic()
        self._report(now_s)
        if self._repeats.admits(record, now_s):
            self._sink.emit(record)

    def tick(self) -> None:
        """Log how often events were repeated, once their time is over; call it now and then."""
        self._report_locked(time.monotonic())

    def flush(self) -> None:
        """Log how often events were repeated; at the end of a process."""
        self._report_locked(float("inf"))

    def close(self) -> None:
        """Close what leads to syslog or the journal; files belong to others."""
        self._sink.close()
        super().close()

    def _report_locked(self, now_s: float) -> None:
        if self._pid != os.getpid():
            return
        self.acquire()
        try:
            self._report(now_s)
        finally:
            self.release()

    def _report(self, now_s: float) -> None:
        for record in self._repeats.take_over(now_s):
            self._sink.emit(record)


@dataclass(slots=True)
class _Kind:
    """One kind of event in its window. since_s: monotonic."""

    since_s: float
    level: int
    fields: Mapping[str, object]
    count: int = 0


class Repeats:
    """Counts events by kind: what prefork calls them and whose they are, or their format string.

    Times are monotonic seconds and never go back.
    """

    def __init__(self, window_s: float, burst: int) -> None:
        self._window_s = window_s
        self._burst = burst
        self._kinds: dict[object, _Kind] = {}  # in the order of their beginning

    def admits(self, record: logging.LogRecord, now_s: float) -> bool:
        """Count a record, and tell whether it is one of the first."""
        name, fields = event_of(record)
        mine = {"slot": fields["slot"]} if "slot" in fields else {}
        of = str(record.msg) if name is None else name
        key = record.name, of, *mine.values()
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= _MOST_KINDS:
                return True
            kind = self._kinds[key] = _Kind(now_s, record.levelno, {"of": of, **mine})
        kind.count += 1
        return kind.count <= self._burst

    def take_over(self, now_s: float) -> list[logging.LogRecord]:
        """Forget the kinds whose window has passed; return what is to be logged of them."""
        told = []
        while self._kinds:
            key, kind = next(iter(self._kinds.items()))
            if kind.since_s + self._window_s > now_s:
                break
            del self._kinds[key]
            if kind.count > self._burst:
                more = {"more": kind.count - self._burst, "window_s": self._window_s}
                told.append(new_record(kind.level, "log.repeated", {**kind.fields, **more}))
        return told
