"""Requests for files, and what RFC 9110 wants of the answer: the table of `test_share_conditions`.

In the fields, {etag} is the file's entity tag, as the server itself has told it, and {opaque} the
same without quotes; {modified} its Last-Modified, {before} and {after} one second off, {obsolete}
and {asctime} the same moment in the other forms of §5.6.7.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODIFIED_S: Final = 1_000_000_000
DATES: Final = {
    "modified": "Sun, 09 Sep 2001 01:46:40 GMT",
    "before": "Sun, 09 Sep 2001 01:46:39 GMT",
    "after": "Sun, 09 Sep 2001 01:46:41 GMT",
    "obsolete": "Sunday, 09-Sep-01 01:46:40 GMT",
    "asctime": "Sun Sep  9 01:46:40 2001",
}

TEN: Final = b"0123456789"
LARGE: Final = bytes((n * n >> 8) & 255 for n in range(1 << 20))
FILES: Final = {"ten.txt": TEN, "large.bin": LARGE, "empty.txt": b""}

Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Expected:
    """spans: first and last byte of each part of a 206."""

    status: int
    spans: Spans = ()


@dataclass(frozen=True)
class Case:
    """nginx: what it answers instead, and why that is not what the RFC wants; None: the same.

    head: what HEAD is answered; like GET, but that it knows no ranges (§14.2).
    """

    path: str
    fields: tuple[str, ...]
    get: Expected
    nginx: tuple[Expected, str] | None = None

    @property
    def head(self) -> Expected:
        return Expected(200) if self.get.status in (206, 416) else self.get

    def __str__(self) -> str:
        return f"{self.path} {' | '.join(self.fields)[:60]}"


def case(
    fields: str | tuple[str, ...],
    status: int,
    *spans: tuple[int, int],
    path: str = "/ten.txt",
    nginx: int | tuple[int, Spans] | None = None,
    why: str = "",
) -> Case:
    """fields: one, or several lines. nginx: its status, with spans if there are any, and why."""
    lines = (fields,) if isinstance(fields, str) else fields
    theirs = None
    if nginx is not None:
        assert why, fields
        found, parts = (nginx, ()) if isinstance(nginx, int) else nginx
        theirs = Expected(found, parts), why
    return Case(path, lines, Expected(status, spans), theirs)


def fill(folder: Path) -> None:
    """Make the files."""
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
        os.utime(folder / name, (MODIFIED_S, MODIFIED_S + 0.7))


def _large(value: str, status: int, *spans: tuple[int, int], **more) -> Case:
    return case(f"Range: {value}", status, *spans, path="/large.bin", **more)


def _empty(fields, status: int, **more) -> Case:
    return case(fields, status, path="/empty.txt", **more)


def _ten(value: str, status: int, *spans: tuple[int, int], **more) -> Case:
    return case(f"Range: {value}", status, *spans, **more)


HUGE: Final = "9" * 2000
LAST: Final = len(LARGE) - 1

# Why nginx differs (1.22, with its defaults).
ONE_LIST: Final = "§5.3: the lines of a list are one; nginx takes no line twice"
NO_DATE: Final = "§13.1.3, §13.1.4: what is no single date is ignored"
BESIDE: Final = "§13.2.2: a date does not count beside an entity tag; to nginx, both do"
EXACT: Final = "§13.1.3: earlier or equal; to nginx only equal (if_modified_since exact)"
CLAMP: Final = "§14.1.2: more than there is means all there is; nginx counts to 2**63"
REJECTED: Final = "§14.2: a malformed Range may be ignored or rejected; nginx rejects it"
BLANKS: Final = "§14.1.1 has no blanks there; nginx reads over them"
WHOLE: Final = "§14.1.1: one invalid range makes all of them invalid; nginx takes the others"
TWICE: Final = "§5.3: undefined, for Range is no list; nginx takes the first line"
EMPTY: Final = "§5.6.1.2: a recipient must take empty elements"
OVERLAP: Final = "§15.3.7.2: overlapping ranges may be coalesced; nginx does not"
MANY: Final = (
    "§17.15: many small or overlapping ranges ought to be ignored; nginx's limit is the size"
)
NOTHING: Final = "§14.1.2: the last zero bytes can never be had"

PRECONDITIONS: Final = [
    case((), 200),
    # If-Match, §13.1.1
    case("If-Match: {etag}", 200),
    case("if-match: {etag}", 200),
    case("If-Match: *", 200),
    case('If-Match: "other"', 412),
    case('If-Match: "other", {etag}', 200),
    case('If-Match: "other",{etag},"third"', 200),
    case(('If-Match: "other"', "If-Match: {etag}"), 200, nginx=400, why=ONE_LIST),
    case("If-Match: , {etag},", 200),
    case("If-Match: W/{etag}", 412),
    case("If-Match: {opaque}", 412),
    case("If-Match:", 412),
    case('If-Match: "{opaque}', 412),
    case('If-Match: "{opaque},"', 412),
    # If-Unmodified-Since, §13.1.4
    case("If-Unmodified-Since: {modified}", 200),
    case("If-Unmodified-Since: {after}", 200),
    case("If-Unmodified-Since: {before}", 412),
    case("If-Unmodified-Since: {obsolete}", 200),
    case("If-Unmodified-Since: {asctime}", 200),
    case("If-Unmodified-Since: Saturday, 08-Sep-01 01:46:40 GMT", 412),
    case("If-Unmodified-Since: Sat Sep  8 01:46:40 2001", 412),
    case("If-Unmodified-Since: Fri, 09 Sep 2101 01:46:40 GMT", 200),
    case("If-Unmodified-Since: yesterday", 200, nginx=412, why=NO_DATE),
    case("If-Unmodified-Since: 0", 200, nginx=412, why=NO_DATE),
    case("If-Unmodified-Since: Sat, 31 Feb 2001 01:46:40 GMT", 200, nginx=412, why=NO_DATE),
    case(
        ("If-Unmodified-Since: {modified}", "If-Unmodified-Since: {before}"),
        200,
        nginx=400,
        why=NO_DATE,
    ),
    # ... which counts only without If-Match, §13.2.2
    case(("If-Match: {etag}", "If-Unmodified-Since: {before}"), 200, nginx=412, why=BESIDE),
    case(("If-Match: *", "If-Unmodified-Since: {before}"), 200, nginx=412, why=BESIDE),
    case(('If-Match: "other"', "If-Unmodified-Since: {after}"), 412),
    # If-None-Match, §13.1.2
    case("If-None-Match: {etag}", 304),
    case("IF-NONE-MATCH: {etag}", 304),
    case("If-None-Match: *", 304),
    case("If-None-Match: W/{etag}", 304),
    case("If-None-Match: w/{etag}", 200),
    case('If-None-Match: "other"', 200),
    case('If-None-Match: "other", {etag}', 304),
    case('If-None-Match: "other" ,W/{etag}', 304),
    case(('If-None-Match: "other"', "If-None-Match: {etag}"), 304, nginx=400, why=ONE_LIST),
    case('If-None-Match: "a,b", {etag}', 304),
    case('If-None-Match: "{opaque},b"', 200),
    case("If-None-Match: {opaque}", 200),
    case("If-None-Match:", 200),
    case('If-None-Match: "{opaque}', 200),
    case('If-None-Match: " {opaque} "', 200),
    case('If-None-Match: "other" {etag}', 200),
    # If-Modified-Since, §13.1.3
    case("If-Modified-Since: {modified}", 304),
    case("If-Modified-Since: {after}", 304, nginx=200, why=EXACT),
    case("If-Modified-Since: {before}", 200),
    case("If-Modified-Since: {obsolete}", 304),
    case("If-Modified-Since: {asctime}", 304),
    case("If-Modified-Since: Fri, 09 Sep 2101 01:46:40 GMT", 304, nginx=200, why=EXACT),
    case("If-Modified-Since: Mon, 09 Sep 2001 01:46:40 GMT", 304),
    case("If-Modified-Since: Sunday, 09-Sep-99 01:46:40 GMT", 200),
    case("If-Modified-Since: {modified}; length=10", 200, nginx=304, why=NO_DATE),
    case("If-Modified-Since: Sun, 09 Sep 2001 03:46:40 +0200", 200),
    case("If-Modified-Since: Sun, 09 Sep 2001 25:46:40 GMT", 200),
    case("If-Modified-Since: 1000000000", 200),
    case("If-Modified-Since:", 200),
    case(
        ("If-Modified-Since: {modified}", "If-Modified-Since: {modified}"),
        200,
        nginx=400,
        why=NO_DATE,
    ),
    # ... which counts only without If-None-Match, §13.1.3
    case(('If-None-Match: "other"', "If-Modified-Since: {modified}"), 200),
    case(("If-None-Match: nonsense", "If-Modified-Since: {after}"), 200),
    case(("If-None-Match: {etag}", "If-Modified-Since: {before}"), 304, nginx=200, why=BESIDE),
    case(("If-None-Match: {etag}", "If-Modified-Since: nonsense"), 304, nginx=200, why=BESIDE),
    # and in their order, §13.2.2
    case(('If-Match: "other"', "If-None-Match: {etag}"), 412),
    case(("If-Match: {etag}", "If-None-Match: {etag}"), 304),
    case(("If-None-Match: {etag}", 'If-Match: "other"'), 412),
    case(("If-Match: *", "If-None-Match: *"), 304),
    case(("If-Unmodified-Since: {before}", "If-None-Match: {etag}"), 412),
    case(("If-Unmodified-Since: {before}", "If-Modified-Since: {modified}"), 412),
    case(("If-Unmodified-Since: {modified}", "If-Modified-Since: {modified}"), 304),
    # of what is not there they do not count, §13.2.1
    case("If-Match: *", 404, path="/none"),
    case("If-Match: {etag}", 404, path="/none"),
    case("If-None-Match: *", 404, path="/none"),
    case("Range: bytes=0-0", 404, path="/none"),
]

RANGES: Final = [
    # one, §14.1.2
    _ten("bytes=0-0", 206, (0, 0)),
    _ten("bytes=0-9", 206, (0, 9)),
    _ten("bytes=3-5", 206, (3, 5)),
    _ten("bytes=9-9", 206, (9, 9)),
    _ten("bytes=5-", 206, (5, 9)),
    _ten("bytes=0-", 206, (0, 9)),
    _ten("Bytes=3-5", 206, (3, 5)),
    _ten("bytes=003-0005", 206, (3, 5)),
    case("rAnGe: bytes=3-5", 206, (3, 5)),
    # clamped
    _ten("bytes=0-10", 206, (0, 9)),
    _ten("bytes=0-999999", 206, (0, 9)),
    _ten(f"bytes=5-{HUGE}", 206, (5, 9), nginx=416, why=CLAMP),
    _ten("bytes=0-18446744073709551616", 206, (0, 9), nginx=416, why=CLAMP),
    # suffixes
    _ten("bytes=-1", 206, (9, 9)),
    _ten("bytes=-10", 206, (0, 9)),
    _ten("bytes=-11", 206, (0, 9)),
    _ten(f"bytes=-{HUGE}", 206, (0, 9), nginx=416, why=CLAMP),
    # none that can be had, §15.5.17
    _ten("bytes=10-", 416),
    _ten("bytes=10-20", 416),
    _ten("bytes=-0", 416),
    _ten(f"bytes={HUGE}-", 416),
    _ten("bytes=10-20,30-40", 416),
    # malformed, of another unit, or twice: ignored, §14.2
    _ten("", 200),
    _ten("bytes", 200),
    _ten("bytes=", 200),
    _ten("bytes=-", 200, nginx=416, why=REJECTED),
    _ten("bytes=,", 200, nginx=416, why=REJECTED),
    _ten("bytes=x-y", 200, nginx=416, why=REJECTED),
    _ten("bytes=0", 200, nginx=416, why=REJECTED),
    _ten("bytes=0-x", 200, nginx=416, why=REJECTED),
    _ten("bytes=0--1", 200, nginx=416, why=REJECTED),
    _ten("bytes=0x0-0x5", 200, nginx=416, why=REJECTED),
    _ten("bytes=0 - 1", 200, nginx=(206, ((0, 1),)), why=BLANKS),
    _ten("bytes =0-1", 200),
    _ten("bytes 0-1", 200),
    _ten("bytes=0-1;2-3", 200, nginx=416, why=REJECTED),
    _ten("bytes=5-3", 200, nginx=416, why=REJECTED),
    _ten("bytes=0-1,5-3", 200, nginx=(206, ((0, 1),)), why=WHOLE),
    _ten("bytes=0-1,x", 200, nginx=416, why=REJECTED),
    _ten("items=0-1", 200),
    _ten("seconds=0-1", 200),
    _ten("none", 200),
    case(("Range: bytes=0-1", "Range: bytes=3-4"), 200, nginx=(206, ((0, 1),)), why=TWICE),
    case(
        ("Range: bytes=0-1", "Range: 3-4"), 206, (0, 1), (3, 4), nginx=(206, ((0, 1),)), why=TWICE
    ),
    # several, §15.3.7.2
    _ten("bytes=0-0,-1", 206, (0, 0), (9, 9)),
    _ten("bytes=-1,0-0", 206, (9, 9), (0, 0)),
    _ten("bytes=0-1, 3-4 ,6-7", 206, (0, 1), (3, 4), (6, 7)),
    _ten("bytes=,0-1,,3-4,", 206, (0, 1), (3, 4), nginx=416, why=EMPTY),
    _ten("bytes=0-4,5-9", 206, (0, 4), (5, 9)),
    _ten("bytes=6-,0-1", 206, (6, 9), (0, 1)),
    _ten("bytes=0-1,20-30", 206, (0, 1)),
    _ten("bytes=0-1,20-30,4-99", 206, (0, 1), (4, 9)),
    # ... which overlap, or are too many, §17.15
    _ten("bytes=0-3,2-5", 206, (0, 5), nginx=(206, ((0, 3), (2, 5))), why=OVERLAP),
    _ten("bytes=2-5,0-3", 206, (0, 5), nginx=(206, ((2, 5), (0, 3))), why=OVERLAP),
    _ten(
        "bytes=0-0,4-6,5-7", 206, (0, 0), (4, 7), nginx=(206, ((0, 0), (4, 6), (5, 7))), why=OVERLAP
    ),
    _ten("bytes=0-,0-", 200),
    _ten("bytes=0-9,0-0", 200),
    _ten("bytes=0-2,1-3,2-4", 200, nginx=(206, ((0, 2), (1, 3), (2, 4))), why=MANY),
    _ten("bytes=" + ",".join(["0-"] * 500), 200),
    _large("bytes=" + ",".join(f"{n}-{n}" for n in range(16)), 206, *((n, n) for n in range(16))),
    _large(
        "bytes=" + ",".join(f"{n}-{n}" for n in range(17)),
        200,
        nginx=(206, tuple((n, n) for n in range(17))),
        why=MANY,
    ),
    _large("bytes=" + ",".join(["5-9"] * 16), 200, nginx=(206, ((5, 9),) * 16), why=MANY),
    # of a large file
    _large("bytes=0-0", 206, (0, 0)),
    _large("bytes=1000-900000", 206, (1000, 900000)),
    _large("bytes=524288-", 206, (524288, LAST)),
    _large("bytes=-65536", 206, (LAST - 65535, LAST)),
    _large(f"bytes={LAST}-", 206, (LAST, LAST)),
    _large(f"bytes={LAST + 1}-", 416),
    _large(
        "bytes=100000-499999,0-99,-300000", 206, (100000, 499999), (0, 99), (LAST - 299999, LAST)
    ),
    # of an empty one
    _empty((), 200),
    _empty("Range: bytes=0-", 200),
    _empty("Range: bytes=0-0", 200),
    _empty("Range: bytes=5-", 416),
    _empty("Range: bytes=-0", 416, nginx=200, why=NOTHING),
    _empty("Range: bytes=-5", 200),
    _empty("Range: nonsense", 200),
    _empty("If-None-Match: {etag}", 304),
]

FIRST: Final = "Range: bytes=0-0"
JOINED: Final = [
    # If-Range, §13.1.5
    case((FIRST, "If-Range: {etag}"), 206, (0, 0)),
    case((FIRST, "If-Range: {modified}"), 206, (0, 0)),
    case((FIRST, "If-Range: {obsolete}"), 206, (0, 0)),
    case((FIRST, "If-Range: {asctime}"), 206, (0, 0)),
    case((FIRST, 'If-Range: "other"'), 200),
    case((FIRST, "If-Range: W/{etag}"), 200),
    case((FIRST, "If-Range: {opaque}"), 200),
    case((FIRST, "If-Range: *"), 200),
    case((FIRST, "If-Range:"), 200),
    case((FIRST, 'If-Range: {etag}, "other"'), 200),
    case((FIRST, "If-Range: {before}"), 200),
    case((FIRST, "If-Range: {after}"), 200),
    case((FIRST, "If-Range: yesterday"), 200),
    case("If-Range: {etag}", 200),
    case('If-Range: "other"', 200),
    case(("Range: bytes=10-", "If-Range: {etag}"), 416),
    case(("Range: bytes=10-", 'If-Range: "other"'), 200),
    case(("Range: nonsense", "If-Range: {etag}"), 200),
    case(("Range: bytes=0-0,2-2", "If-Range: {etag}"), 206, (0, 0), (2, 2)),
    case(("Range: bytes=0-0,2-2", 'If-Range: "other"'), 200),
    # ranges come last, §13.2.2
    case((FIRST, "If-Match: {etag}"), 206, (0, 0)),
    case((FIRST, 'If-Match: "other"'), 412),
    case((FIRST, "If-Unmodified-Since: {modified}"), 206, (0, 0)),
    case((FIRST, "If-Unmodified-Since: {before}"), 412),
    case((FIRST, "If-None-Match: {etag}"), 304),
    case((FIRST, 'If-None-Match: "other"'), 206, (0, 0)),
    case((FIRST, "If-Modified-Since: {modified}"), 304),
    case((FIRST, "If-Modified-Since: {before}"), 206, (0, 0)),
    case((FIRST, "If-None-Match: {etag}", "If-Range: {etag}"), 304),
    case((FIRST, 'If-Match: "other"', "If-Range: {etag}"), 412),
    case((FIRST, "If-Match: {etag}", 'If-Range: "other"'), 200),
    case(("Range: bytes=10-", 'If-Match: "other"'), 412),
    case(("Range: bytes=10-", "If-None-Match: {etag}"), 304),
]

CASES: Final = [*PRECONDITIONS, *RANGES, *JOINED]
