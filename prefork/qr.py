"""A URL as a QR code in a terminal, for a phone's camera.

The master, before serving. It only makes text.
"""

import io
from typing import Final

# Of the cube of 256 colours, which themes leave alone: white and black on light terminals, too.
_ON: Final = "\x1b[38;5;231;48;5;16m"
_OFF: Final = "\x1b[0m"


def code_of(url: str) -> list[str]:
    """Return the lines of the code, all of one width, each two modules high, with its quiet zone.

    Light modules have the colour of text: right on a dark terminal. On a light
    one it is inverted, which most cameras read, unless it is `painted()`.
    """
    # Not at the top: it takes 40 ms, and only a greeting has a code.
    from segno import make  # noqa: PLC0415 # as above

    text = io.StringIO()
    # Level L, or better where that takes no more room. ISO/IEC 18004: a quiet zone of 4 modules.
    make(url, error="l", micro=False).terminal(text, border=4, compact=True)
    return text.getvalue().splitlines()


def painted(line: str) -> str:
    """Return a line in black and white, whatever the terminal's colours are."""
    return f"{_ON}{line}{_OFF}"
