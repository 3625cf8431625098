"""A folder as it is sent: a page for people, a feed for programs, or all of it as an archive.

A worker, in a thread. It answers nobody.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from prefork.http.representation import Representation
from prefork.share.feeds import json_of, plain_of
from prefork.share.jail import MissingError, Opened
from prefork.share.names import disposition
from prefork.share.page import page, view_page
from prefork.share.query import Query
from prefork.share.request import prefers

if TYPE_CHECKING:
    from prefork.share.share import Share


def represent_folder(
    share: "Share", folder: Opened, asked: Query, fields: Mapping[str, str]
) -> Representation:
    """Return what is asked of a folder.

    fields: of the request.

    Raises: OSError; TooManyError for an archive.
    """
    if share.has_archives and not asked.words.isdisjoint(("zip", "tar")):
        return _archive(share, folder, is_zip="zip" in asked.words, is_part="range" in fields)
    listing = share.listings.of(folder)
    if "plain" in asked.words:
        made = plain_of(listing, asked)
    elif "json" in asked.words or prefers(fields, "application/json"):
        made = json_of(listing, asked)
    else:
        made = page(listing, asked, share.look)
    if not share.compression:
        return made
    return share.compressor.coded(made, fields.get("accept-encoding"))


def represent_view(share: "Share", target: str, opened: Opened) -> Representation:
    """Return the page of a file: the file itself, and the way to its neighbours.

    Raises: MissingError, OSError.
    """
    listing = share.listings.of(share.jail.open(opened.parts[:-1]))
    try:
        return view_page(listing, opened.parts[-1], Query.read(target), share.look)
    except KeyError:  # gone since, or never listed
        raise MissingError(target) from None


def _archive(share: "Share", folder: Opened, *, is_zip: bool, is_part: bool) -> Representation:
    name, archives = folder.parts[-1] if folder.parts else share.name, share.archives
    make = archives.zip_of if is_zip else archives.tar_of
    made = make(folder, name, is_part=is_part)
    file_name = f"{name}.zip" if is_zip else f"{name}.tar"
    return replace(made, headers=(*made.headers, ("Content-Disposition", disposition(file_name))))
