"""The rows of a folder's page: a form that the template makes once, filled in for each entry.

A worker, in its loop. Jinja escapes each value of each row, which takes three quarters
of a page's time. Of a row a stranger chooses the name alone, and what is shown of it is
escaped here; all else can hold nothing to be escaped: numbers, times, our own words,
suffixes of letters and digits, and URLs, which are percent-encoded.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from markupsafe import Markup, escape

from prefork.amounts import count_text, size_text
from prefork.share.listing import Listing
from prefork.share.looks import (
    kind_of,
    time_machine,
    time_text,
    type_text,
    viewed_as,
    visible,
)
from prefork.share.names import href
from prefork.share.render import macro

_JOINED: Final = 24  # rows of a piece


class Row(NamedTuple):
    """An entry, as the template shows it. at: its position in the order of names."""

    at: object
    href: str
    kind: str
    shown: str
    type: str
    size: object
    exact: str
    size_text: str
    machine: str
    time_text: str
    get: str


#: Of what a script makes rows.
BLANK: Final = Row(None, "", "other", "", "", 0, "", "", "", "", "?download")

_FIELDS: Final = Row(*(f"{{{place}}}" for place in range(len(Row._fields))))
_FILE: Final = macro("row.html", "row", _FIELDS)
_FOLDER: Final = macro("row.html", "row", _FIELDS._replace(size=None))
_FOLDER_ALONE: Final = macro("row.html", "row", _FIELDS._replace(size=None, get=""))


def rows_of(
    listing: Listing, positions: Sequence[int], viewing: str, *, archives: bool
) -> Iterator[Markup]:
    """Yield the rows of some entries, several at a time.

    viewing: the query of links to files' pages. archives: folders can be taken.
    """
    viewing = escape(viewing)
    for start in range(0, len(positions), _JOINED):
        some = positions[start : start + _JOINED]
        rows = [
            _folder_row(listing, at, archives=archives)
            if listing.is_folder(at)
            else _file_row(listing, at, viewing)
            for at in some
        ]
        yield Markup("".join(rows))  # noqa: S704 # escaped, as is said above


def _folder_row(listing: Listing, at: int, *, archives: bool) -> str:
    name, time_ns = listing.names[at], listing.times_ns[at]
    url = href(name, is_folder=True)
    when = time_machine(time_ns), time_text(time_ns)
    form = _FOLDER if archives else _FOLDER_ALONE
    shown = escape(visible(name))
    return form.format(at, url, "folder", shown, "Folder", "", "", "", *when, f"{url}?zip")


def _file_row(listing: Listing, at: int, viewing: str) -> str:
    name, time_ns, size = listing.names[at], listing.times_ns[at], listing.sizes[at]
    url = href(name, is_folder=False)
    return _FILE.format(
        at,
        url + viewing if viewed_as(name) else url,
        kind_of(name),
        escape(visible(name)),
        type_text(name),
        size,
        count_text(size, "byte"),
        size_text(size),
        time_machine(time_ns),
        time_text(time_ns),
        f"{url}?download",
    )
