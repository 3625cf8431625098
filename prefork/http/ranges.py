"""Range (RFC 9110 §14): which bytes of a representation a request wants.

A worker. Text in, numbers out. It never sends anything.

A server may ignore ranges (§14.2), and this one does where a client could make it
send more than the whole: more than `PARTS_MOST` of them, whether they can be had or
not, together longer than the representation, or overlapping more than once (§17.15).
Two that overlap become one (§15.3.7.2). Others stay in the order they were asked for,
also where little lies between them: who asks for two parts may count on two.

A Range that came twice arrives as one whose second element begins with `bytes=`:
malformed, so ignored. Of an empty file, what begins at its beginning is all of it, by
200: players and downloaders begin so with any file, and 416 would be an error to them.
"""

import re
from typing import Final, NamedTuple

#: As many as parallel downloaders use connections (aria2: 16); PDF viewers ask for 2 to 10.
PARTS_MOST: Final = 16

# Blanks only around elements, and empty elements anywhere (RFC 9110 §5.6.1.2, §14.1.1).
_SPEC: Final = r"(?:[0-9]++-[0-9]*+|-[0-9]++)"
_SET: Final = re.compile(
    rf"bytes=[ \t,]*+({_SPEC}(?:[ \t]*+,[ \t,]*+{_SPEC})*+)[ \t,]*+", re.IGNORECASE
)
_ENDS: Final = re.compile(r"([0-9]*+)-([0-9]*+)")
#: No file is as long as numbers of more digits (2**63 has 19); reading them costs time.
_DIGITS_MOST: Final = 19


class Span(NamedTuple):
    """Bytes from `start` on, without that at `stop`."""

    start: int
    stop: int


def parse_range(value: str, size: int) -> tuple[Span, ...] | None:
    """Return what to send: spans in their order; () if none can be had: 416; None: all of it.

    value: of the field. size: of the representation, in bytes. Time grows with the
    length of value alone, whatever the numbers.
    """
    found = _SET.fullmatch(value)
    asked = _ENDS.findall(found[1]) if found else ()
    if not 0 < len(asked) <= PARTS_MOST:
        return None
    spans: list[Span] = []
    for first, last in asked:
        if first and last and _is_less(last, first):
            return None  # §14.1.1: invalid, all of it
        span = _suffix(last, size) if not first else _between(first, last, size)
        if span is not None:
            spans.append(span)
    if not spans:
        return ()
    # Of nothing, all can be had, but no Content-Range can say which bytes these are.
    if size == 0 or sum(span.stop - span.start for span in spans) > size:
        return None
    return _joined(spans)


def _suffix(count: str, size: int) -> Span | None:
    number = _number(count)
    return Span(max(0, size - number), size) if number else None


def _between(first: str, last: str, size: int) -> Span | None:
    start = _number(first)
    stop = min(_number(last) + 1, size) if last else size
    return Span(start, stop) if start < size or start == size == 0 else None


def _joined(spans: list[Span]) -> tuple[Span, ...] | None:
    """Return spans with the two that overlap as one, in the first one's place; None: more do."""
    furthest, *others = sorted(spans)
    overlapping: list[Span] = []
    for span in others:
        if span.start < furthest.stop:
            overlapping += (furthest, span)
        if span.stop > furthest.stop:
            furthest = span
    if not overlapping:
        return tuple(spans)
    if len(overlapping) > 2:
        return None
    whole = Span(overlapping[0].start, max(span.stop for span in overlapping))
    return tuple(dict.fromkeys(whole if span in overlapping else span for span in spans))


def _number(digits: str) -> int:
    """Return a number, or one that is greater than any file is long."""
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= _DIGITS_MOST else 10**_DIGITS_MOST


def _is_less(one: str, other: str) -> bool:
    one, other = one.lstrip("0"), other.lstrip("0")
    return (len(one), one) < (len(other), other)
