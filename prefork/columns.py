"""Text in a terminal: how many columns it takes, and how it is made to take fewer.

Any process. Pure; text without control characters.
"""

import unicodedata


def width_of(text: str) -> int:
    """Return how many columns a terminal gives the text."""
    return len(text) if text.isascii() else sum(map(_width, text))


def cut(text: str, room: int) -> str:
    """Return text of so many columns at most, without its middle: ends of paths tell most."""
    if len(text) > 4 * room:
        text = text[: 2 * room] + text[-2 * room :]
    widths = [1] * len(text) if text.isascii() else [*map(_width, text)]
    if sum(widths) <= room:
        return text
    head = tail = 0
    left = (room - 1) // 3
    while widths[head] <= left:
        left -= widths[head]
        head += 1
    left += room - 1 - (room - 1) // 3
    while widths[len(text) - 1 - tail] <= left:
        tail += 1
        left -= widths[len(text) - tail]
    return f"{text[:head]}…{text[len(text) - tail :]}"


def _width(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1  # UAX #11
