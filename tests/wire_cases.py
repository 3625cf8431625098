r"""Reads the corpus `wire/*.http`: what a client sends, and what must come of it.

A file begins with lines of `#`: prose (an advisory's id, what it shows) and

    # want: GET /path HTTP/1.1        a request is accepted; its body may follow the version
    # want: 400                       refused with this status, and nothing after it is read
    # want: incomplete                the client's bytes end inside a head or a body
    # field: Name=value               the last wanted request has this field
    # close, # continue, # upgrade    what else it says of itself

`want` once for each request that the server may see, in order. After them come
the bytes. Ends of lines are not data: each byte that matters is spelled, \r \n
\t \\ \xHH, and \*2000(text) repeats text, so that no editor can repair a case.
A request that wants `close` is the last: what follows it is nobody's.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

CORPUS = Path(__file__).parent / "wire"

_ESCAPE = re.compile(r"\\(?:\*(\d+)\(((?:[^()\\]|\\.)*)\)|x([0-9a-f]{2})|([rnt\\()]))")
_PLAIN = {"r": "\r", "n": "\n", "t": "\t"}


@dataclass(frozen=True)
class Outcome:
    """What one request comes to. status: of a refusal, else None and the handler's affair."""

    status: int | None = None
    incomplete: bool = False
    method: str = ""
    target: str = ""
    version: str = ""
    body: bytes = b""
    fields: tuple[tuple[str, str], ...] = ()
    closes: bool = False
    continues: bool = False
    upgrades: bool = False

    @property
    def accepted(self):
        return self.status is None and not self.incomplete


@dataclass(frozen=True)
class Case:
    """name: of the file. data: all that the client sends. wants: in order."""

    name: str
    data: bytes
    wants: tuple[Outcome, ...]


def unescape(text):
    def plain(match):
        count, repeated, code, letter = match.groups()
        if count:
            return _ESCAPE.sub(plain, repeated) * int(count)
        return chr(int(code, 16)) if code else _PLAIN.get(letter, letter)

    if "\\" in _ESCAPE.sub("", text):
        raise ValueError(f"unknown escape in {text!r}")
    return _ESCAPE.sub(plain, text)


def load_case(path):
    wants = []
    lines = path.read_text("ascii").split("\n")
    while lines and lines[0].startswith("#"):
        word, _, rest = lines.pop(0)[1:].strip().partition(":")
        rest = rest.strip()
        match word:
            case "want" if rest == "incomplete":
                wants.append(Outcome(incomplete=True))
            case "want" if rest.isdigit():
                wants.append(Outcome(status=int(rest)))
            case "want":
                method, target, version, *body = unescape(rest).split(" ", 3)
                text = "".join(body).encode("latin-1")
                wants.append(Outcome(None, False, method, target, version, text))
            case "field":
                name, _, value = unescape(rest).partition("=")
                wants[-1] = replace(wants[-1], fields=(*wants[-1].fields, (name, value)))
            case "close" | "continue" | "upgrade":
                wants[-1] = replace(wants[-1], **{word + "s": True})
    if not wants:
        raise ValueError(f"{path} wants nothing")
    return Case(path.stem, unescape("".join(lines)).encode("latin-1"), tuple(wants))


def all_cases():
    return [load_case(path) for path in sorted(CORPUS.glob("*.http"))]
