"""A folder as a page for people.

A worker: what is asked is worked out in a thread, the rows are made in its loop,
a few dozen at a time. Complete without JavaScript; with it, the same rows are
sorted and filtered where they are (static/share.js).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from prefork.amounts import count_text, size_text
from prefork.http.representation import Representation
from prefork.share.etags import derived
from prefork.share.listing import Listing
from prefork.share.looks import (
    KINDS,
    VIEWED,
    text_of,
    visible,
)
from prefork.share.names import href
from prefork.share.query import Query
from prefork.share.render import HTML, LOOKS, error_page, new_nonce, policy, rendered
from prefork.share.rows import BLANK, rows_of
from prefork.share.trail import Look, crumbs_of
from prefork.share.view import view_page, view_query

__all__ = ["Look", "error_page", "page", "view_page"]

#: Rows of a page. A browser lays out as many in a tenth of a second.
PAGE_ROWS: Final = 1000
_LABELS: Final = {"name": "Name", "size": "Size", "mtime": "Changed", "type": "Type"}
#: What is wanted first of a column: the largest, the newest.
_DESCENDING_FIRST: Final = ("size", "mtime")


class _Column(NamedTuple):
    key: str
    label: str
    css: str
    aria: str
    href: str


class _Link(NamedTuple):
    label: str
    href: str
    rel: str


class _Pager(NamedTuple):
    where: str
    links: list[_Link]


class _Text(NamedTuple):
    name: str
    href: str
    text: str
    is_whole: bool


def page(listing: Listing, asked: Query, look: Look) -> Representation:
    """Return a folder's page. A page number after the last one is the last."""
    chosen = listing.chosen(asked)
    last = max(1, -(-len(chosen) // PAGE_ROWS))
    asked = replace(asked, page=min(asked.page, last))
    tag = derived(listing.etag, LOOKS, listing.parts, asked.told, look)

    def pieces(_start: int, _stop: int) -> Iterator[bytes]:
        return _pieces(listing, asked, look, chosen, nonce)

    nonce = new_nonce()
    headers = (("Content-Type", HTML), policy(nonce), ("Vary", "Accept"))
    return Representation(headers, None, f"W/{tag}", None, pieces, has_ranges=False)


def _pieces(
    listing: Listing, asked: Query, look: Look, chosen: Sequence[int], nonce: str
) -> Iterator[bytes]:
    first = (asked.page - 1) * PAGE_ROWS
    positions = chosen[first : first + PAGE_ROWS]
    crumbs = crumbs_of(listing.parts, look)
    viewing = view_query(asked)
    readme = listing.readme
    return rendered(
        "folder.html",
        nonce,
        crumbs=crumbs,
        name=crumbs[-1].name,
        has_parent=bool(listing.parts),
        summary=_summary(listing),
        archives=look.archives,
        total=len(listing),
        matching=len(chosen),
        is_whole="yes" if len(positions) == len(listing) else "no",
        is_long=len(listing) > PAGE_ROWS,
        first=first,
        kinds=json.dumps(KINDS),
        viewed=" ".join(VIEWED),
        asked=asked,
        order="desc" if asked.is_descending else "asc",
        filter=text_of(asked.filter),
        unfiltered=asked.link(filter="", page=1),
        count=_count(listing, asked, len(chosen)),
        columns=_columns(asked),
        rows=rows_of(listing, positions, viewing, archives=look.archives),
        blank=BLANK,
        pager=_pager(asked, len(chosen)),
        readme=readme
        and _Text(
            visible(readme.name),
            href(readme.name, is_folder=False),
            readme.text,
            readme.is_whole,
        ),
    )


def _summary(listing: Listing) -> str:
    counts = [
        count_text(count, what)
        for count, what in (
            (listing.folders, "folder"),
            (len(listing) - listing.folders, "file"),
        )
        if count
    ]
    if len(listing) > listing.folders:
        counts.append(size_text(sum(listing.sizes)))
    return ", ".join(counts) or "Nothing in it"


def _count(listing: Listing, asked: Query, found: int) -> str:
    return f"{found:,} of {len(listing):,}" if asked.filter else ""


def _columns(asked: Query) -> list[_Column]:
    columns = []
    for key, css in (("name", "name"), ("type", "type"), ("size", "size"), ("mtime", "time")):
        is_mine = asked.sort == key
        turned = not asked.is_descending if is_mine else key in _DESCENDING_FIRST
        aria = ("descending" if asked.is_descending else "ascending") if is_mine else "none"
        link = asked.link(sort=key, is_descending=turned, page=1)
        columns.append(_Column(key, _LABELS[key], css, aria, link))
    return columns


def _pager(asked: Query, found: int) -> _Pager | None:
    if found <= PAGE_ROWS:
        return None
    last = -(-found // PAGE_ROWS)
    now = asked.page
    first_row = (now - 1) * PAGE_ROWS + 1
    where = f"rows {first_row:,} – {min(now * PAGE_ROWS, found):,} of {found:,}"  # noqa: RUF001 # a span
    wanted = (
        ("First", 1, "", now > 1),
        ("Previous", now - 1, "prev", now > 1),
        ("Next", now + 1, "next", now < last),
        ("Last", last, "", now < last),
    )
    links = [
        _Link(label, asked.link(page=number) if is_there else "", rel)
        for label, number, rel, is_there in wanted
    ]
    return _Pager(where, links)
