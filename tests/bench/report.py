"""Samples become medians, and medians tables."""

import statistics
from dataclasses import asdict, dataclass, field

from workloads import Workload

HEADINGS = (
    "",
    "req/s",
    "x",
    "CPU us/req",
    "x",
    "MB/s",
    "first ms",
    "p50 ms",
    "p99 ms",
    "MB",
    "server",
    "client",
    "errors",
)
LONG_BYTES = 100_000  # of a body: below, the requests are what takes time
EXPLANATION = """\
x: how many times better the first line is. first: until the first byte. MB: memory of all its
processes (PSS), under load. server, client: how much of a processor each side used; the one near
100% sets req/s (if none is, somebody waited, or other programs took part)."""


@dataclass(frozen=True)
class Sample:
    """One server under load once. cpu_s, client_cpu_s: of the two sides' processes."""

    requests: int
    errors: int
    seconds: float
    cpu_s: float
    client_cpu_s: float
    memory_mb: float
    body_bytes: int
    ttfb_us: int | None
    p50_us: int | None
    p99_us: int | None

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    @property
    def cost_us(self) -> float:
        return self.cpu_s / self.requests * 1e6

    @property
    def mb_s(self) -> float | None:
        """Return how many megabytes of bodies came in a second, where bodies are long."""
        return self.rate * self.body_bytes / 1e6 if self.body_bytes >= LONG_BYTES else None

    @property
    def server(self) -> float:
        """Return how many processors the server kept busy."""
        return self.cpu_s / self.seconds

    @property
    def client(self) -> float:
        """Return how many processors the client kept busy."""
        return self.client_cpu_s / self.seconds


FIGURES = (
    "rate",
    "cost_us",
    "mb_s",
    "ttfb_us",
    "p50_us",
    "p99_us",
    "memory_mb",
    "server",
    "client",
)


@dataclass
class Row:
    """One server's samples; failure: why there are no more of them.

    idle: connections open beside, or `beside` says what they do; lost: the most of them that the
    server did not keep. note: what its first answer told.
    """

    name: str
    workers: int = 1
    idle: int = 0
    beside: str = "idle"
    note: str = ""
    lost: int = 0
    samples: list[Sample] = field(default_factory=list)
    failure: str | None = None

    @property
    def title(self) -> str:
        return f"{self.name} beside {self.idle:,} {self.beside}" if self.idle else self.name

    def median(self, what: str) -> float | None:
        values = [getattr(sample, what) for sample in self.samples]
        return statistics.median(values) if values and None not in values else None

    def as_json(self) -> dict:
        return {
            "name": self.name,
            "workers": self.workers,
            "idle": self.idle,
            "beside": self.beside,
            "note": self.note,
            "lost": self.lost,
            "failure": self.failure,
            "median": {what: self.median(what) for what in FIGURES} if self.samples else None,
            "samples": [asdict(sample) for sample in self.samples],
        }


def as_json(workload: Workload, rows: list[Row]) -> dict:
    return {
        "workload": workload.name,
        "group": workload.group,
        "title": workload.title,
        "connections": workload.connections,
        "keep_alive": workload.keep_alive,
        "access_log": workload.log,
        "servers": [row.as_json() for row in rows],
    }


def table(rows: list[Row]) -> str:
    """Return a table of medians, with ratios to the first row."""
    lines = [HEADINGS, *(_line(row, rows[0]) for row in rows)]
    told = [at for at in range(len(HEADINGS)) if at == 0 or any(line[at] for line in lines[1:])]
    lines = [tuple(line[at] for at in told) for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = []
    for row, line in zip([None, *rows], lines, strict=True):
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        text.append("  ".join(cells).rstrip())
        text += [f"    {note}" for note in _notes(row, rows)] if row else []
    return "\n".join(text)


def _notes(row: Row, rows: list[Row]) -> list[str]:
    notes = [f"MISSING: {row.failure}"] if row.failure else []
    if row.note and not row.idle:
        notes.append(row.note)
    if row.lost:
        notes.append(f"did not keep {row.lost:,} of those")
    alone = next(other for other in rows if other.name == row.name)
    if row.idle and row.samples and alone.samples:
        more_mb = row.median("memory_mb") - alone.median("memory_mb")
        slower = row.median("p99_us") / alone.median("p99_us")
        notes.append(f"than alone: {more_mb:.1f} MB more, p99 {slower:.2f} times as long")
    if (more := row.workers - rows[0].workers) and row.samples and rows[0].samples:
        each_mb = (row.median("memory_mb") - rows[0].median("memory_mb")) / more
        notes.append(f"an additional worker: {each_mb:.1f} MB")
    return notes


def _line(row: Row, first: Row) -> tuple[str, ...]:
    if not row.samples:
        return (row.title, *[""] * (len(HEADINGS) - 1))

    def text(what: str, form: str, unit: float = 1) -> str:
        value = row.median(what)
        return "" if value is None else format(value / unit, form)

    def times(above: float | None, below: float | None) -> str:
        return f"{above / below:.2f}" if above and below else ""

    return (
        row.title,
        text("rate", ",.0f"),
        times(first.median("rate"), row.median("rate")),
        text("cost_us", ",.1f"),
        times(row.median("cost_us"), first.median("cost_us")),
        text("mb_s", ",.0f"),
        text("ttfb_us", ",.2f", 1000),
        text("p50_us", ".2f", 1000),
        text("p99_us", ".2f", 1000),
        text("memory_mb", ".1f"),
        text("server", ".0%"),
        text("client", ".0%"),
        str(sum(sample.errors for sample in row.samples)),
    )
