"""The share's own pages, made from their templates; what is in them under a nonce.

A worker. The templates, and the style and script that stand in the pages, are read
once, when this module is imported: in the master. It knows nothing of folders.
"""

import secrets
from base64 import b64encode
from collections.abc import Iterator
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any, Final

import jinja2
from markupsafe import Markup

HTML: Final = "text/html; charset=utf-8"
_PIECE_CHARS: Final = 24_000  # some 40 rows, half a millisecond
_PART_CHARS: Final = 40_000
_HERE: Final = Path(__file__).parent
_CSS: Final = Markup((_HERE / "static" / "share.css").read_text("utf-8"))  # noqa: S704 # our own file
_JS: Final = Markup((_HERE / "static" / "share.js").read_text("utf-8"))  # noqa: S704 # our own file
_TEMPLATES: Final = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
#: Compiled here, before any fork: it takes longer than a step of the loop may.
_PAGES: Final = {name: _TEMPLATES.get_template(name) for name in _TEMPLATES.list_templates()}

#: Of all that the pages are made from: with another version of it, they are others.
LOOKS: Final = blake2b(
    b"".join(
        path.read_bytes()
        for folder in ("static", "templates")
        for path in sorted((_HERE / folder).iterdir())
    ),
    digest_size=8,
).hexdigest()

#: Of a page by `error_page()`, which has a style and nothing else.
_STYLE: Final = b64encode(sha256(_CSS.encode()).digest()).decode()
ERROR_POLICY: Final = (
    "Content-Security-Policy",
    f"default-src 'none'; style-src 'sha256-{_STYLE}'; base-uri 'none'; frame-ancestors 'self'",
)


def policy(nonce: str) -> tuple[str, str]:
    """Return the header that lets a page do what ours do (CSP 3)."""
    said = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
        "img-src 'self' data:; media-src 'self'; connect-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'self'"
    )
    return "Content-Security-Policy", said


def new_nonce() -> str:
    """Return what nobody can guess, once for each page."""
    return secrets.token_urlsafe(16)


def rendered(template: str, nonce: str, **told: Any) -> Iterator[bytes]:
    """Make a page, a piece at a time."""
    made = _PAGES[template].generate(nonce=nonce, css=_CSS, script=_JS, **told)
    parts: list[str] = []
    size = 0
    for part in made:
        for start in range(0, len(part), _PART_CHARS):  # a README is one part
            parts.append(part[start : start + _PART_CHARS])
            size += len(parts[-1])
            if size > _PIECE_CHARS:
                yield "".join(parts).encode("utf-8", "replace")
                parts.clear()
                size = 0
    yield "".join(parts).encode("utf-8", "replace")


def macro(template: str, name: str, *told: Any) -> str:
    """Return what a macro of a template makes."""
    return str(getattr(_TEMPLATES.get_template(template).module, name)(*told))


def error_page(status: int, title: str, text: str, home: str = "/") -> bytes:
    """Return a page, whole, for a person who got an error; home: where to go on, "" for nowhere.

    Its policy is ERROR_POLICY.
    """
    told = {"status": int(status), "title": title, "text": text, "home": home}
    page = _PAGES["error.html"].render(told, css=_CSS)
    return page.encode("utf-8", "replace")
