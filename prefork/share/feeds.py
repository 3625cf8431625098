"""A folder for programs: as JSON, and as plain lines.

A worker: what is asked is worked out in a thread, the pieces are made in its
loop, each in a millisecond or two. What is in them is documented and stays as
it is (README, "Listings for programs").
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

import msgspec

from prefork.http.representation import Representation
from prefork.share.etags import derived
from prefork.share.listing import Listing
from prefork.share.looks import text_of
from prefork.share.names import href
from prefork.share.query import Query

#: Of a piece: of the longest names that there are, each of a byte that is escaped, 256 KiB.
_JSON_ENTRIES: Final = 96
_PLAIN_NAMES: Final = 320
_ESCAPED: Final = re.compile(rb"[\x00-\x1f\x7f%]")

_encode: Final = msgspec.json.Encoder().encode


class _Entry(msgspec.Struct, gc=False):
    name: str
    href: str
    type: Literal["file", "folder"]
    size: int | None
    mtime: float
    etag: str


class _Head(msgspec.Struct):
    path: str
    etag: str
    total: int
    folders: int
    files: int
    bytes: int
    offset: int


def json_of(listing: Listing, asked: Query) -> Representation:
    """Return a listing as JSON; total, folders, files, bytes: of what the filter leaves."""
    chosen = listing.chosen(asked)
    folders = sum(1 for at in chosen if at < listing.folders) if asked.filter else listing.folders
    size = sum(map(listing.sizes.__getitem__, chosen)) if asked.filter else sum(listing.sizes)
    head = _Head(
        "/" + "".join(f"{text_of(part)}/" for part in listing.parts),
        listing.etag,
        len(chosen),
        folders,
        len(chosen) - folders,
        size,
        min(asked.offset, len(chosen)),
    )
    positions = _cut(chosen, asked)
    return _representation(
        "application/json", listing, asked, lambda: _json_pieces(listing, positions, head)
    )


def plain_of(listing: Listing, asked: Query) -> Representation:
    """Return a listing as lines of names."""
    positions = _cut(listing.chosen(asked), asked)
    return _representation(
        "text/plain; charset=utf-8", listing, asked, lambda: _plain_pieces(listing, positions)
    )


def _cut(chosen: Sequence[int], asked: Query) -> Sequence[int]:
    if asked.limit is None:
        return chosen[asked.offset :] if asked.offset else chosen
    return chosen[asked.offset : asked.offset + asked.limit]


def _representation(
    content_type: str, listing: Listing, asked: Query, pieces: Callable[[], Iterator[bytes]]
) -> Representation:
    return Representation(
        headers=(("Content-Type", content_type), ("Vary", "Accept")),
        size=None,
        etag=derived(listing.etag, content_type, listing.parts, asked.told),
        modified_s=None,
        pieces=lambda _start, _stop: pieces(),
        has_ranges=False,
    )


def _json_pieces(listing: Listing, positions: Sequence[int], head: _Head) -> Iterator[bytes]:
    yield _encode(head)[:-1] + b',"entries":['
    for start in range(0, len(positions), _JSON_ENTRIES):
        batch = [_entry(listing, at) for at in positions[start : start + _JSON_ENTRIES]]
        # Without its brackets, and with a comma between two.
        yield (b"," if start else b"") + _encode(batch)[1:-1]
    yield b"]}\n"


def _entry(listing: Listing, at: int) -> _Entry:
    name = listing.names[at]
    is_folder = listing.is_folder(at)
    return _Entry(
        text_of(name),
        href(name, is_folder=is_folder),
        "folder" if is_folder else "file",
        None if is_folder else listing.sizes[at],
        listing.times_ns[at] / 1e9,
        listing.etag_at(at),
    )


def _plain_pieces(listing: Listing, positions: Sequence[int]) -> Iterator[bytes]:
    for start in range(0, len(positions), _PLAIN_NAMES):
        yield b"".join([_line(listing, at) for at in positions[start : start + _PLAIN_NAMES]])


def _line(listing: Listing, at: int) -> bytes:
    name = _ESCAPED.sub(lambda match: b"%%%02X" % ord(match[0]), os.fsencode(listing.names[at]))
    return name + (b"/\n" if listing.is_folder(at) else b"\n")
