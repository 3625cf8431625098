"""Samples become medians, and medians a table."""

import statistics
from dataclasses import asdict, dataclass, field

HEADINGS = ("", "req/s", "x", "CPU us/req", "x", "server", "client", "errors")


@dataclass(frozen=True)
class Sample:
    """One server under load once. cpu_s, client_cpu_s: of the two sides' processes."""

    requests: int
    errors: int
    seconds: float
    cpu_s: float
    client_cpu_s: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    @property
    def cost_us(self) -> float:
        return self.cpu_s / self.requests * 1e6

    @property
    def server(self) -> float:
        """Return how many processors the server kept busy."""
        return self.cpu_s / self.seconds

    @property
    def client(self) -> float:
        """Return how many processors the client kept busy."""
        return self.client_cpu_s / self.seconds


@dataclass
class Row:
    """One server's samples; failure: why there are no more of them."""

    name: str
    samples: list[Sample] = field(default_factory=list)
    failure: str | None = None

    def median(self, what: str) -> float:
        return statistics.median(getattr(sample, what) for sample in self.samples)

    def as_json(self) -> dict:
        figures = ("rate", "cost_us", "server", "client")
        median = {what: self.median(what) for what in figures} if self.samples else None
        samples = [
            asdict(sample) | {what: getattr(sample, what) for what in figures}
            for sample in self.samples
        ]
        return {"name": self.name, "failure": self.failure, "median": median, "samples": samples}


def table(rows: list[Row]) -> str:
    """Return a table of medians, with ratios to the first row."""
    lines = [HEADINGS, *(_line(row, rows[0]) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = []
    for row, line in zip([None, *rows], lines, strict=True):
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        text.append("  ".join(cells).rstrip())
        if row is not None and row.failure:
            text.append(f"    FAILED: {row.failure}")
    return "\n".join(text)


def _line(row: Row, first: Row) -> tuple[str, ...]:
    if not row.samples:
        return (row.name, *[""] * (len(HEADINGS) - 1))

    def ratio(what: str) -> str:
        base = first.median(what) if first.samples else 0.0
        return f"{row.median(what) / base:.2f}" if base else ""

    return (
        row.name,
        f"{row.median('rate'):.0f}",
        ratio("rate"),
        f"{row.median('cost_us'):.1f}",
        ratio("cost_us"),
        f"{row.median('server'):.0%}",
        f"{row.median('client'):.0%}",
        str(sum(sample.errors for sample in row.samples)),
    )
