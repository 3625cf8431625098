"""Times and sizes as people write them: "5m", "512M".

Any process. Pure: text to number and back.
"""

import re
from typing import Final

from prefork.config.problems import WrongValueError

_TIMES: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_NUMBER_AND_UNIT: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)[ ]?([A-Za-z]*)")

#: What people write for "never" and "no limit" where a config says "off".
OFF: Final = "off"
OFF_MEANT: Final = frozenset(
    [
        "never",
        "none",
        "no",
        "null",
        "nil",
        "false",
        "disable",
        "disabled",
        "inf",
        "infinity",
        "infinite",
        "unlimited",
        "0",
        "-1",
    ]
)


def parse_duration(text: str) -> float:
    """Return seconds: "250ms", "30s", "5m", "1h" or "7d".

    Raises: WrongValueError, with what was probably meant.
    """
    number, unit = _split(text)
    if unit in _TIMES:
        return float(number) * _TIMES[unit]
    if not unit:
        raise WrongValueError("it has no unit", f'"{number}s"')
    # "5min", "2 hours", "30S": the first letter tells, but "ms" and months do not begin so.
    word = unit.lower()
    near = "ms" if word.startswith(("ms", "mil")) else word[0]
    known = near in _TIMES and not word.startswith("mo")
    raise WrongValueError(f"no unit {unit!r}", f'"{number}{near}"' if known else None)


def parse_size(text: str) -> int:
    """Return bytes: "512K", "512M", "1G" or "2T", in powers of 1024.

    Raises: WrongValueError, with what was probably meant.
    """
    number, unit = _split(text)
    if unit in _SIZES:
        return int(float(number) * _SIZES[unit])
    if not unit or unit.lower() in ("b", "byte", "bytes"):
        raise WrongValueError("bytes are a plain number", number.partition(".")[0])
    near = unit[0].upper()
    raise WrongValueError(f"no unit {unit!r}", f'"{number}{near}"' if near in _SIZES else None)


def written_duration(seconds: float) -> str:
    """Return seconds as a person would say them."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def written_size(size_bytes: int) -> str:
    """Return bytes as a person would say them."""
    for unit in reversed(_SIZES):
        if size_bytes and size_bytes % _SIZES[unit] == 0:
            return f"{size_bytes // _SIZES[unit]}{unit}"
    return str(size_bytes)


def _split(text: str) -> tuple[str, str]:
    found = _NUMBER_AND_UNIT.fullmatch(text.strip())
    if found is None:
        raise WrongValueError
    return found[1], found[2]
