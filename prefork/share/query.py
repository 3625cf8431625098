"""What a request's query asks of a listing.

A worker, any thread. Pure. It refuses nothing: what it does not understand
counts as not said, for a query may be anybody's, and a page is better than none.
"""

import urllib.parse
from dataclasses import dataclass, replace
from typing import Final, Self

SORTS: Final = ("name", "size", "mtime", "type")
_MOST_FIELDS: Final = 32
_MOST_FILTER: Final = 255  # no name is longer
_MOST_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class Query:
    """sort: one of SORTS. filter: what names must have in them, whatever its case.

    offset, limit: entries, of those that are left; limit None: all. page: from 1, of the page
    in HTML. words: all names of the query, such as "json" in `?json&sort=size`.
    """

    sort: str = "name"
    is_descending: bool = False
    filter: str = ""
    offset: int = 0
    limit: int | None = None
    page: int = 1
    words: frozenset[str] = frozenset()

    @classmethod
    def read(cls, target: str) -> Self:
        """Read the query of a request's target.

        target: of the request line, as latin-1 text; its path may be missing.
        """
        query = _text(target.partition("?")[2].partition("#")[0].encode("latin-1", "replace"))
        try:
            pairs = urllib.parse.parse_qsl(
                query,
                keep_blank_values=True,
                errors="surrogateescape",
                max_num_fields=_MOST_FIELDS,
            )
        except ValueError:  # more fields
            return cls()
        said = dict(reversed(pairs))  # the first one of a name counts
        sort = said.get("sort", "")
        return cls(
            sort=sort if sort in SORTS else "name",
            is_descending=said.get("order") == "desc",
            filter=said.get("filter", "").strip()[:_MOST_FILTER],
            offset=_number(said.get("offset"), 0) or 0,
            limit=_number(said.get("limit"), None),
            page=max(1, _number(said.get("page"), 1) or 1),
            words=frozenset(said),
        )

    @property
    def told(self) -> tuple[object, ...]:
        """All that entries and their order depend on."""
        return (self.sort, self.is_descending, self.filter, self.offset, self.limit, self.page)

    def link(self, **changed: object) -> str:
        """Return the query, with its question mark, for a page that differs so; "?" for none.

        Never with what is meant anyway; no offset and no limit, which pages do not have.
        """
        asked = replace(self, **changed)  # type: ignore[arg-type] # of its own fields
        said = {
            "sort": asked.sort if asked.sort != "name" or asked.is_descending else "",
            "order": "desc" if asked.is_descending else "",
            "filter": asked.filter,
            "page": str(asked.page) if asked.page > 1 else "",
        }
        pairs = [(name, value) for name, value in said.items() if value]
        return "?" + urllib.parse.urlencode(pairs, errors="surrogateescape")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")  # as names are


def _number(text: str | None, default: int | None) -> int | None:
    if text and text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS:
        return int(text)
    return default
