"""The kinds of values that settings have: types with their range and the form people write them in.

Any process. Declarations only; `values` reads by them.
"""

from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import Meta

from prefork.scoreboard import CAPACITY

_YEAR_S: Final = 365 * 86400.0  # no clock or poll overflows below
#: What the kernel takes as an int.
MOST: Final = 2**31 - 1
_WORD: Final = r"[^\W\d]\w*"

Seconds = Annotated[float, Meta(ge=0, le=_YEAR_S, extra={"form": "duration"})]
SomeSeconds = Annotated[float, Meta(gt=0, le=_YEAR_S, extra={"form": "duration"})]
Bytes = Annotated[int, Meta(ge=0, le=2**63 - 1, extra={"form": "size"})]
Amount = Annotated[int, Meta(ge=0, le=2**63 - 1, extra={"form": "amount"})]
SomeBytes = Annotated[int, Meta(ge=1, le=2**63 - 1, extra={"form": "size"})]
FileMode = Annotated[int, Meta(ge=0, le=0o777, extra={"form": "mode"})]
FilePath = Annotated[str, Meta(min_length=1, extra={"form": "path"})]
_OBJECT: Final = rf"^{_WORD}(\.{_WORD})*:{_WORD}(\.{_WORD})*"
ObjectName = Annotated[str, Meta(pattern=rf"{_OBJECT}\Z", extra={"form": "object"})]
#: () after it: what it returns when it is called.
ObjectOrCall = Annotated[str, Meta(pattern=rf"{_OBJECT}(\(\))?\Z", extra={"form": "object"})]
Name = Annotated[str, Meta(min_length=1)]
Network = Annotated[str, Meta(extra={"form": "network"})]
Address = Annotated[str, Meta(extra={"form": "address"})]
Workers = Annotated[int, Meta(ge=1, le=CAPACITY)]
QueueSize = Annotated[int, Meta(ge=1, le=MOST)]


def about(  # noqa: PLR0913 # each says something else, by name
    meaning: str,
    *,
    unset: str | None = None,
    also: Sequence[str] = (),
    off: int | None = None,
    words: Sequence[str] = (),
    path_key: str | None = None,
) -> Meta:
    """Return a field's documentation.

    unset: what it means to leave the key out, where that is None. also: what
    other programs call it. off: the number that "off" stands for. words: what
    may stand in a path's place. path_key: the key that a path belongs to which
    people write here.
    """
    extra = {
        "unset": unset,
        "also": tuple(also),
        "off": off,
        "words": tuple(words),
        "path_key": path_key,
    }
    return Meta(description=meaning, extra=extra)
