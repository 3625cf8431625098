"""A master's status as lines of text that fit a terminal.

The calling process of `status` and `top`. Pure: no clock, no terminal. What
comes from clients is shown so that it cannot steer one.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prefork.control.protocol import MasterStatus, WorkerStatus

_GAP: Final = "  "

# A request narrower than this tells nothing; other columns make room for it.
_LEAST_REQUEST: Final = 16


@dataclass(frozen=True)
class _Column:
    """One column. keep: those with the lowest go first where there is no room."""

    title: str
    keep: int
    right: bool = True


_RATE: Final = _Column("REQ/S", 6)
_POOLS: Final = (
    _Column("POOL", 9, right=False),
    _Column("WORKERS", 8),
    _Column("BUSY", 7),
    _RATE,
    _Column("AT", 5, right=False),
)
_WORKERS: Final = (
    _Column("POOL", 5, right=False),
    _Column("SLOT", 10),
    _Column("PID", 6),
    _Column("GEN", 1),
    _Column("STATE", 8, right=False),
    _Column("AGE", 3),
    _Column("REQUESTS", 2),
    _Column("BYTES", 0),
    _Column("MEMORY", 4),
    _Column("BUSY", 5),
    _Column("FOR", 7),
    _Column("REQUEST", 9, right=False),
)


def rates_between(before: MasterStatus, after: MasterStatus, elapsed_s: float) -> dict[str, float]:
    """Return the requests per second of each pool, from one status to a later one.

    elapsed_s: the time between them, more than 0.
    """
    known = {
        (worker["slot"], worker["pid"]): worker["requests"]
        for pool in before["pools"]
        for worker in pool["workers"]
    }
    return {
        pool["name"]: sum(
            max(0, worker["requests"] - known.get((worker["slot"], worker["pid"]), 0))
            for worker in pool["workers"]
        )
        / elapsed_s
        for pool in after["pools"]
    }


def render(
    status: MasterStatus,
    now_s: float,
    columns: int | None = None,
    rows: int | None = None,
    rates: Mapping[str, float] | None = None,
) -> list[str]:
    """Return the status as lines.

    now_s: Unix time. columns, rows: none is wider, there are not more; None: as
    wide, as many as there are. Where not all workers fit, those with the
    oldest requests are shown.
    """
    lines = _head(status, now_s)
    if rows is not None:
        lines = _shortened(lines, max(2, rows // 4))  # a reason may be long
    lines += ["", *_pools(status, rates, columns)]
    workers = [(pool["name"], worker) for pool in status["pools"] for worker in pool["workers"]]
    left = None if rows is None else rows - len(lines) - 2  # an empty line and the titles
    if workers and (left is None or left > 0):
        lines += ["", *_workers(workers, columns, left, several=len(status["pools"]) > 1)]
    if rows is not None:
        lines = _shortened(lines, rows)
    return lines if columns is None else [cut(line, columns) for line in lines]


def _head(status: MasterStatus, now_s: float) -> list[str]:
    parts = [
        f"prefork {status['version']}",
        f"pid {status['pid']}",
        f"generation {status['generation']}",
        status["state"],
        f"up {_age(now_s - status['started_s'])}",
        status["config"],
    ]
    lines = [_GAP.join(map(clean, parts))]
    if status["reason"] is not None:
        first, *more = status["reason"].split("\n")
        lines += [clean(first), *(f"    {clean(line)}" for line in more)]
    return lines


def _shortened(lines: list[str], most: int) -> list[str]:
    if len(lines) <= most:
        return lines
    return [*lines[: most - 1], f"and {len(lines) - most + 1} more lines"][:most]


def _pools(
    status: MasterStatus, rates: Mapping[str, float] | None, columns: int | None
) -> list[str]:
    rows = []
    for pool in status["pools"]:
        serving = sum(worker["state"] == "serving" for worker in pool["workers"])
        rate = [] if rates is None else [f"{rates.get(pool['name'], 0.0):.0f}"]
        rows.append(
            [
                clean(pool["name"]),
                f"{serving}/{pool['wanted']}",
                str(sum(worker["busy"] > 0 for worker in pool["workers"])),
                *rate,
                clean(", ".join(pool["at"])),
            ]
        )
    titles = [column for column in _POOLS if rates is not None or column is not _RATE]
    return _table(titles, rows, columns)


def _workers(
    workers: Sequence[tuple[str, WorkerStatus]],
    columns: int | None,
    limit: int | None,
    *,
    several: bool,
) -> list[str]:
    shown = list(workers)
    more: list[str] = []
    if limit is not None and len(shown) > limit:
        shown.sort(key=_interest)
        shown = shown[: limit - 1]
        more = [f"and {len(workers) - len(shown)} more"]
    rows = [_row(pool, worker) for pool, worker in shown]
    skip = 0 if several else 1  # whose worker it is goes without saying
    return _table(_WORKERS[skip:], [row[skip:] for row in rows], columns) + more


def _interest(entry: tuple[str, WorkerStatus]) -> tuple[float, bool, int]:
    """Sort the oldest requests first, then workers that come or go, then by slot."""
    worker = entry[1]
    return -(worker["request_age_s"] or 0.0), worker["state"] == "serving", worker["slot"]


def _row(pool: str, worker: WorkerStatus) -> list[str]:
    age_s = worker["request_age_s"]
    return [
        clean(pool),
        str(worker["slot"]),
        str(worker["pid"]),
        str(worker["generation"]),
        clean(worker["state"]),
        _age(worker["age_s"]),
        str(worker["requests"]),
        _size(worker["bytes"]),
        _size(worker["memory_bytes"]),
        str(int(worker["busy"])),
        "" if age_s is None else _age(age_s),
        clean(worker["request"] or ""),
    ]


def _table(
    titles: Sequence[_Column], rows: Sequence[Sequence[str]], columns: int | None
) -> list[str]:
    """Return titles and rows, aligned, without the least columns where there is no room.

    Of the last one, some may have to be cut off.
    """
    widths = [
        max(cells(column.title), *(cells(row[n]) for row in rows), 0)
        for n, column in enumerate(titles)
    ]
    least = [*widths[:-1], min(widths[-1], _LEAST_REQUEST)]
    kept = list(range(len(titles)))
    while columns is not None and len(kept) > 2:
        if sum(least[n] for n in kept) + len(_GAP) * (len(kept) - 1) <= columns:
            break
        kept.remove(min(kept, key=lambda n: titles[n].keep))
    heads = [column.title for column in titles]
    return [
        _GAP.join(_pad(row[n], widths[n], right=titles[n].right) for n in kept).rstrip()
        for row in [heads, *rows]
    ]


def _pad(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - cells(text))
    return space + text if right else text + space


def clean(text: str) -> str:
    """Return text as one line without what steers a terminal; that is shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def cells(text: str) -> int:
    """Return how many columns of a terminal a clean text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def cut(text: str, columns: int) -> str:
    """Return text, or so much of it as fits, a + at its end then."""
    if cells(text) <= columns:
        return text
    end = min(len(text), columns)
    while end and cells(text[:end]) > columns - 1:
        end -= 1
    return (text[:end] + "+")[:columns]


def _age(age_s: float) -> str:
    age_s = max(0.0, age_s)
    if age_s < 9.95:
        return f"{age_s:.1f}s"
    whole = round(age_s)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def _size(size_bytes: float) -> str:
    """Return a size in four or five characters: binary units."""
    if size_bytes < 1000:
        return f"{size_bytes:.0f}B"
    for unit in "KMGT":
        size_bytes /= 1024
        if size_bytes < 9.95:
            return f"{size_bytes:.1f}{unit}"
        if size_bytes < 999.5:
            return f"{size_bytes:.0f}{unit}"
    return f"{size_bytes / 1024:.1f}P"
