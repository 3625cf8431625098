"""Accept-Encoding (RFC 9110 §12.5.3): which of the codings at hand a client likes best.

A worker. It never codes anything.
"""

import re
from collections.abc import Sequence
from typing import Final

from prefork.http.grammar import TOKEN

# §12.4.2, with any number of digits.
_MEMBER: Final = re.compile(
    rf"[ \t]*+({TOKEN})[ \t]*+(?:;[ \t]*+[Qq]=(0(?:\.[0-9]*+)?|1(?:\.0*+)?)[ \t]*+)?"
)
#: What is best on equal terms; others follow, in the order they are offered.
_BEST: Final = ("br", "zstd", "gzip")


def acceptable(value: str | None, offered: Sequence[str]) -> str | None:
    """Return the coding to send, None for none (identity).

    value: of the field; None: there was none, and though any coding would do then, who
    does not ask may not know one. offered: in lower case, without identity.

    A member that is malformed is as if it were not there. Where a client refuses
    identity and all that is offered, it gets identity, as §12.5.3 allows.
    """
    if not value or not offered:
        return None
    weights = _weights(value)
    others = weights.get("*", 0.0)
    best, most = None, 0.0
    for coding in sorted(offered, key=_place):
        weight = weights.get(coding, others)
        if weight > most:
            best, most = coding, weight
    return best if most >= weights.get("identity", 0.0) else None


def _weights(value: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for member in value.split(","):
        if found := _MEMBER.fullmatch(member):
            coding = found[1].lower()
            # §8.4.1.3: an old name of the same.
            coding = "gzip" if coding == "x-gzip" else coding
            weights.setdefault(coding, float(found[2] or 1))
    return weights


def _place(coding: str) -> int:
    return _BEST.index(coding) if coding in _BEST else len(_BEST)
