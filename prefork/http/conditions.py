"""Preconditions of a request (RFC 9110 §13): go on, answer 304, or answer 412.

A worker. What is known of the representation comes in, a verdict goes out. It
never looks at a file or a clock.

Who asks makes sure that without conditions the answer would be 2xx: else they do
not count (§13.2.1).

Where the RFC leaves it open, the client gets more rather than something wrong.
Entity tags count up to the first that is malformed: what comes after it, and a
list that begins so, matches nothing, so that If-Match fails and If-None-Match does
not. `*` is one only alone. Dates that are none, or in another form than the three of
§5.6.7, are ignored, as they must be; that a date falls on the day of the week it
names is not looked at, for no server does, and clients have sent wrong ones.
"""

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Final

_READING: Final = ("GET", "HEAD")

# RFC 9110 §8.8.3, as a member of a list, whose empty members do not count (§5.6.1.2).
_MEMBER: Final = re.compile(r'[ \t,]*+((?:W/)?"[\x21\x23-\x7e\x80-\xff]*+")[ \t]*+(?:,|\Z)')

# RFC 9110 §5.6.7. The 60th second is there for leap seconds.
_MONTHS: Final = "JanFebMarAprMayJunJulAugSepOctNovDec"
_MONTH: Final = "(?P<month>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_TIME: Final = r"(?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d):(?P<second>[0-5]\d|60)"
_SHORT: Final = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG: Final = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_FORMS: Final = tuple(
    re.compile(form, re.ASCII)
    for form in (
        rf"{_SHORT}, (?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_TIME} GMT",
        rf"{_LONG}, (?P<day>\d\d)-{_MONTH}-(?P<year>\d\d) {_TIME} GMT",
        rf"{_SHORT} {_MONTH} (?P<day>\d\d| \d) {_TIME} (?P<year>\d{{4}})",
    )
)
_EPOCH_DAY: Final = dt.date(1970, 1, 1).toordinal()


def judge(
    method: str,
    fields: Mapping[str, str],
    etag: str | None,
    modified_s: int | None,
    now_s: float,
) -> HTTPStatus | None:
    """Return 304 or 412 if that is the answer; None: go on, next to Range.

    fields: names in lower case. etag: of the representation, with its quotes.
    modified_s: as Last-Modified tells it. Source: RFC 9110 §13.2.2.
    """
    wanted = fields.get("if-match")
    if wanted is not None:
        if wanted != "*" and not _is_strongly_among(etag, wanted):
            return HTTPStatus.PRECONDITION_FAILED
    elif modified_s is not None and "if-unmodified-since" in fields:
        date_s = parse_date(fields["if-unmodified-since"], now_s)
        if date_s is not None and modified_s > date_s:
            return HTTPStatus.PRECONDITION_FAILED
    known = fields.get("if-none-match")
    if known is not None:
        if known == "*" or _is_weakly_among(etag, known):
            reads = method in _READING
            return HTTPStatus.NOT_MODIFIED if reads else HTTPStatus.PRECONDITION_FAILED
    elif modified_s is not None and method in _READING and "if-modified-since" in fields:
        date_s = parse_date(fields["if-modified-since"], now_s)
        if date_s is not None and modified_s <= date_s:
            return HTTPStatus.NOT_MODIFIED
    return None


def is_of_same(value: str, etag: str | None, modified_s: int | None, now_s: float) -> bool:
    """Tell whether an If-Range names this very representation, so that Range counts.

    Anything but one strong entity tag or one date does not (RFC 9110 §13.1.5). Nor does
    a date of this second, in which the file may have had other content (§8.8.2.2).
    """
    if value == etag:
        return not value.startswith("W/")
    date_s = parse_date(value, now_s)
    return date_s is not None and date_s == modified_s and date_s < int(now_s)


def parse_date(value: str, now_s: float) -> int | None:
    """Return the seconds since the epoch of an HTTP-date, None for what is none.

    now_s: likewise; two digits of a year mean one that is at most 50 years ahead.
    Source: RFC 9110 §5.6.7. `email.utils` reads other years, zones, and much that is no date.
    """
    for form in _FORMS:
        if found := form.fullmatch(value):
            break
    else:
        return None
    month = _MONTHS.index(found["month"]) // 3 + 1
    year, day, hour, minute, second = map(
        int, found.group("year", "day", "hour", "minute", "second")
    )
    if len(found["year"]) == 2:
        now = dt.datetime.fromtimestamp(now_s, dt.UTC).timetuple()
        year += now.tm_year - now.tm_year % 100
        if (year - 50, month, day, hour, minute, second) > now[:6]:
            year -= 100
    try:
        days = dt.date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError:  # the 31st of June, or the year 0
        return None
    return ((days * 24 + hour) * 60 + minute) * 60 + second


def _is_strongly_among(etag: str | None, value: str) -> bool:
    """Compare strongly (RFC 9110 §8.8.3.2): nothing weak is like anything."""
    if etag is None or etag.startswith("W/"):
        return False
    return value == etag or etag in _members(value)


def _is_weakly_among(etag: str | None, value: str) -> bool:
    if etag is None:
        return False
    opaque = etag.removeprefix("W/")
    return value == etag or any(opaque == one.removeprefix("W/") for one in _members(value))


def _members(value: str) -> Iterator[str]:
    """Yield the entity tags of a list, up to what is none."""
    end = 0
    while found := _MEMBER.match(value, end):
        yield found[1]
        end = found.end()
