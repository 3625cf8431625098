"""What is to be sent, whatever it is made from, and the answer to a request for it.

A worker, in the thread of the handler. It joins preconditions and ranges (RFC 9110
§13.2.2) into status, headers and pieces. It never sends anything, reads no file
and no clock.

An answer without content (304, 412, 416) has of the representation's headers those
that are not about content: Vary, Cache-Control, Content-Location (§15.4.5) and what
is none of HTTP's own, such as CORS'. 412 and 416 have no text: who resumes a download
has often put it at the end of the file. A 206 has all that the 200 has, also after
If-Range, though some could be left out (§15.3.7): browsers look at the type of each.
Several ranges of what has a Content-Encoding are not sent, but all of it: the coding
would be said of the multipart, and who decodes by the header would decode that.
"""

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from prefork.http.byteranges import ByteRanges, content_range
from prefork.http.conditions import is_of_same, judge
from prefork.http.outbox import Piece
from prefork.http.ranges import Span, parse_range

#: start, stop: bytes of it, stop exclusive. Where its size is not known: 0 and `sys.maxsize`.
Pieces = Callable[[int, int], Iterator[Piece]]

_Headers = tuple[tuple[str, str], ...]

#: Without any of these in the request, the answer is the whole.
_ASKING: Final = frozenset(
    {"if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "range"}
)
_RANGES: Final = (("Accept-Ranges", "bytes"),)
_EMPTY: Final = (("Content-Length", "0"),)


@dataclass(frozen=True, slots=True)
class Representation:
    """One form of one resource, as it is now.

    headers: all but Content-Length, Content-Range, ETag, Last-Modified, Accept-Ranges,
    Date and Server. size: in bytes; None: not known before its end, so without ranges.
    etag: with its quotes, weak ones begin with W/; None: it has none. modified_s: of
    the file, seconds since the epoch. pieces: called by `answer()`, or for several ranges
    once for each, when it is due, in the loop. has_ranges: parts of it may be sent.
    """

    headers: _Headers
    size: int | None
    etag: str | None
    modified_s: float | None
    pieces: Pieces
    has_ranges: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """headers: all but Date and Server, Content-Length where it is known.

    size: of the body in bytes, None if only its end tells; to HEAD: what GET would
    have. pieces: the body; None: there is none.
    """

    status: HTTPStatus
    headers: _Headers
    size: int | None
    pieces: Iterator[Piece] | None


def answer(chosen: Representation, method: str, fields: Mapping[str, str], now_s: float) -> Answer:
    """Return the answer to a request for what has been chosen.

    fields: names in lower case, values without blanks around them, those of repeated
    names joined by ", ". now_s: seconds since the epoch.
    Source: RFC 9110 §13.2.2, §14.2.
    """
    modified_s = chosen.modified_s
    if modified_s is not None and modified_s > now_s:
        modified_s = now_s  # §8.8.2.1: never later than Date
    if not _ASKING.isdisjoint(fields):
        second = None if modified_s is None else int(modified_s // 1)
        status = judge(method, fields, chosen.etag, second, now_s)
        if status is not None:
            return _without_content(chosen, status, modified_s)
        spans = _spans(chosen, method, fields, second, now_s)
        if spans is not None:
            return _partial(chosen, spans, modified_s)
    size = chosen.size
    headers = chosen.headers + _validators(chosen, modified_s)
    if size is not None:
        headers += (("Content-Length", str(size)),)
        if chosen.has_ranges:
            headers += _RANGES
    if method == "HEAD":
        return Answer(HTTPStatus.OK, headers, size, None)
    stop = sys.maxsize if size is None else size
    return Answer(HTTPStatus.OK, headers, size, chosen.pieces(0, stop))


def _spans(
    chosen: Representation,
    method: str,
    fields: Mapping[str, str],
    modified_s: int | None,
    now_s: float,
) -> tuple[Span, ...] | None:
    """Return the ranges to send, () if there are none of them, None to send all."""
    # Range is defined for GET alone (§14.2).
    if method != "GET" or "range" not in fields or chosen.size is None or not chosen.has_ranges:
        return None
    same = fields.get("if-range")
    if same is not None and not is_of_same(same, chosen.etag, modified_s, now_s):
        return None
    spans = parse_range(fields["range"], chosen.size)
    if spans and len(spans) > 1 and _value(chosen.headers, "content-encoding") is not None:
        return None
    return spans


def _partial(chosen: Representation, spans: tuple[Span, ...], modified_s: float | None) -> Answer:
    """Return 206, or 416 without spans. Its size is known."""
    size = chosen.size or 0
    if not spans:
        unsatisfied = (("Content-Range", f"bytes */{size}"), *_RANGES)
        return _without_content(
            chosen, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, None, unsatisfied
        )
    headers = chosen.headers + _validators(chosen, modified_s) + _RANGES
    if len(spans) == 1:
        (span,) = spans
        length = span.stop - span.start
        headers += (
            ("Content-Range", content_range(span, size)),
            ("Content-Length", str(length)),
        )
        return Answer(HTTPStatus.PARTIAL_CONTENT, headers, length, chosen.pieces(*span))
    body = ByteRanges(spans, size, _value(headers, "content-type"))
    others = tuple(pair for pair in headers if pair[0].lower() != "content-type")
    headers = (
        ("Content-Type", body.content_type),
        *others,
        ("Content-Length", str(body.length)),
    )
    return Answer(HTTPStatus.PARTIAL_CONTENT, headers, body.length, body.pieces(chosen.pieces))


def _without_content(
    chosen: Representation, status: HTTPStatus, modified_s: float | None, more: _Headers = ()
) -> Answer:
    headers = tuple(
        pair
        for pair in chosen.headers
        if not (name := pair[0].lower()).startswith("content-") or name == "content-location"
    )
    if status != HTTPStatus.NOT_MODIFIED:
        return Answer(status, headers + more + _EMPTY, 0, None)
    if chosen.etag is not None:
        modified_s = None  # of use only where there is no ETag (§15.4.5)
    return Answer(status, headers + _validators(chosen, modified_s), 0, None)


def _validators(chosen: Representation, modified_s: float | None) -> _Headers:
    date = None if modified_s is None else _date(int(modified_s // 1))
    if date is None:
        return () if chosen.etag is None else (("ETag", chosen.etag),)
    if chosen.etag is None:
        return (("Last-Modified", date),)
    return ("Last-Modified", date), ("ETag", chosen.etag)


def _value(headers: _Headers, name: str) -> str | None:
    return next((value for key, value in headers if key.lower() == name), None)


@functools.lru_cache(1024)
def _date(second: int) -> str | None:
    """Return the HTTP-date of a second; None for one that no date can name."""
    try:
        return formatdate(second, usegmt=True)
    except (ValueError, OverflowError):  # file systems have years before 1
        return None
