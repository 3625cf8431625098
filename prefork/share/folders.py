"""A folder as it is sent: a page of its names.

A worker, in a thread. It answers nobody.
"""

import html
import os
from typing import TYPE_CHECKING

from prefork.http.representation import Representation
from prefork.share.etags import etag_of
from prefork.share.files import NOSNIFF
from prefork.share.jail import Opened
from prefork.share.names import href
from prefork.share.query import Query

if TYPE_CHECKING:
    from prefork.share.share import Share


def represent_folder(share: "Share", folder: Opened, asked: Query, *, json: bool) -> Representation:  # noqa: ARG001 # for programs, when there are listings
    """Return a page of links."""
    lines = ["<!DOCTYPE html>", '<meta charset="utf-8">', "<ul>"]
    with os.scandir(folder.file.fd) as entries:
        found = sorted((e.name, e.is_dir()) for e in entries if share.jail.is_shown(e.name))
    for name, is_folder in found:
        shown = html.escape(os.fsencode(name).decode("utf-8", "replace"))
        lines.append(f'<li><a href="{href(name, is_folder=is_folder)}">{shown}</a>')
    data = "\n".join([*lines, "</ul>", ""]).encode()
    headers = (("Content-Type", "text/html; charset=utf-8"), NOSNIFF)
    tag = f"W/{etag_of(folder.status)}"
    return Representation(headers, len(data), tag, None, lambda _start, _stop: iter((data,)), False)


def represent_view(share: "Share", target: str, opened: Opened) -> Representation:  # noqa: ARG001 # for browsers, when there are pages
    """Return the page of the folder that a file is in."""
    return represent_folder(share, share.jail.open(opened.parts[:-1]), Query(), json=False)
