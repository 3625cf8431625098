"""A file as it is sent: its type, its encoding, its validators.

A worker. Of a file there may be several representations (RFC 9110 §12): as it
is, as a sibling that was compressed before (`name.br`, `name.zst`, `name.gz`),
or compressed while it is sent. Each has an ETag of its own. It answers nobody.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from prefork.http.codings import acceptable
from prefork.http.filecache import Identity, identity_of
from prefork.http.outbox import Descriptor, Piece
from prefork.http.representation import Representation
from prefork.share import types
from prefork.share.compression import LEAST_BYTES, MOST_BYTES, weak
from prefork.share.content import pieces_of
from prefork.share.etags import etag_of
from prefork.share.jail import ForbiddenError, MissingError, Opened
from prefork.share.names import disposition

if TYPE_CHECKING:
    from prefork.share.share import Share

#: The best first.
_SIBLINGS: Final = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}

#: What a stranger's page may do here: nothing in the name of this site.
SANDBOX: Final = ("Content-Security-Policy", "sandbox")
NOSNIFF: Final = ("X-Content-Type-Options", "nosniff")
#: Files on a share change; browsers ask, and get 304 (RFC 9111 §5.2.2.4).
NO_CACHE: Final = ("Cache-Control", "no-cache")
VARY: Final = ("Vary", "Accept-Encoding")


@dataclass(frozen=True, slots=True)
class Served:
    """A file, and the representation of it that was chosen.

    file: whose bytes these are, for as long as nothing changes; None: they are made, or
    the next request may get others. identity: of the file. coding: in which its bytes are
    made; None: they are as they stand.
    """

    representation: Representation
    file: Descriptor | None
    identity: Identity
    coding: str | None = None


def represent(
    share: "Share", handler: Any, opened: Opened, fields: Mapping[str, str], *, download: bool
) -> Served:
    """Choose a representation of a regular file.

    handler: whose `guess_type()` is asked. download: it shall be saved, not shown.
    """
    name = opened.parts[-1]
    named = handler.guess_type("/" + "/".join(opened.parts))
    size = opened.status.st_size
    content_type = types.describe(named, opened.file.fd, size)
    headers = [("Content-Type", content_type), *usual(handler)]
    if types.is_active(content_type) and not share.trusted:
        headers.append(SANDBOX)
    if download:
        headers.append(("Content-Disposition", disposition(name)))
    is_text = types.is_text(content_type)
    if not share.compression or download:
        return _plain(opened, headers)
    if is_text:
        headers.append(VARY)
    coded = fields.get("accept-encoding")
    if coded:
        found = _sibling(share, opened, coded)
        if found is not None:
            coding, sibling = found
            extra = [] if is_text else [VARY]
            return _plain(sibling, [*headers, *extra, ("Content-Encoding", coding)])
        fits = is_text and LEAST_BYTES < size <= MOST_BYTES
        if fits and (coding_now := acceptable(coded, share.compressor.codings)):
            if "range" in fields:  # nothing to keep: who asks for all of it gets it compressed
                return replace(_plain(opened, headers), file=None)
            return _compressed(share, opened, headers, coding_now)
    return _plain(opened, headers)


def usual(handler: Any) -> list[tuple[str, str]]:
    """Return the headers that every answer has, unless the handler's options say otherwise."""
    said = {str(name).lower() for name, _ in handler.extra_response_headers or ()}
    return [NOSNIFF] if "cache-control" in said else [NOSNIFF, NO_CACHE]


def _plain(opened: Opened, headers: list[tuple[str, str]]) -> Served:
    status, identity = opened.status, identity_of(opened.status)
    representation = Representation(
        tuple(headers),
        status.st_size,
        etag_of(status),
        status.st_mtime,
        partial(pieces_of, opened.file, identity),
    )
    return Served(representation, opened.file, identity)


def _sibling(share: "Share", opened: Opened, accepted: str) -> tuple[str, Opened] | None:
    """Return the best sibling that the client takes, and that is no older than the file itself."""
    *folders, name = opened.parts
    if name.endswith(tuple(_SIBLINGS.values())):
        return None
    found: dict[str, Opened] = {}
    for coding, suffix in _SIBLINGS.items():
        if acceptable(accepted, (coding,)):
            try:
                sibling = share.jail.open((*folders, name + suffix))
            except (MissingError, ForbiddenError):
                continue
            if share.is_file(sibling) and sibling.status.st_mtime >= opened.status.st_mtime:
                found[coding] = sibling
    best = acceptable(accepted, tuple(found)) if found else None
    return None if best is None else (best, found[best])


def _compressed(
    share: "Share", opened: Opened, headers: list[tuple[str, str]], coding: str
) -> Served:
    status, identity = opened.status, identity_of(opened.status)
    headers = [*headers, ("Content-Encoding", coding)]
    etag = weak(etag_of(status), coding)
    data = share.compressor.kept(identity, coding)
    size = None if data is None else len(data)

    def pieces(_start: int, _stop: int) -> Iterator[Piece]:
        # Asked again: this may be kept for longer than the data. Made anew they are as long.
        kept = share.compressor.kept(identity, coding)
        if kept is not None:
            return iter((kept,))
        return share.compressor.pieces(opened.file, identity, status.st_size, coding)

    made = Representation(tuple(headers), size, etag, status.st_mtime, pieces, has_ranges=False)
    return Served(made, opened.file, identity, coding)
