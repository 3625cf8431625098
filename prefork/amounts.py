"""Amounts as people say them: "3.4 MB", "2,000 requests", "1 min 5 s".

Any process. Pure.
"""

from typing import Final

_UNITS: Final = ("kB", "MB", "GB", "TB", "PB", "EB")


def size_text(size_bytes: int) -> str:
    """Return a size in two or three digits: powers of 1,000, as most desktops show them."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in _UNITS:
        value /= 1000
        if value < 9.95:
            return f"{value:.1f} {unit}"
        if value < 999.5 or unit == _UNITS[-1]:
            break
    return f"{value:.0f} {unit}"


def count_text(count: int, what: str, several: str = "") -> str:
    """Return "1 request", "2,000 requests"; several: where an s does not make the plural."""
    return f"{count:,} {what if count == 1 else several or f'{what}s'}"


def time_text(seconds: float) -> str:
    """Return a time in at most two units: "4 s", "1 min 5 s", "2 h 3 min", "3 d 4 h"."""
    whole = round(seconds)
    parts = []
    for unit, size_s in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, whole = divmod(whole, size_s)
        parts.append((count, unit))
    first = next((n for n, (count, _) in enumerate(parts) if count), len(parts) - 1)
    said = [f"{count} {unit}" for count, unit in parts[first : first + 2] if count]
    return " ".join(said) or "0 s"
