"""Text compressed while it is sent, and kept for the next who asks.

A worker: its loop, step by step. Large text is not compressed: it would take
more of the processor than of the network.
"""

import importlib
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from prefork.http.codings import acceptable
from prefork.http.filecache import Identity
from prefork.http.outbox import Descriptor, Piece
from prefork.http.representation import Representation
from prefork.share.content import require_same

#: Below, a head and a packet cost as much; above, a LAN is faster than the compressor.
LEAST_BYTES: Final = 1 << 10
MOST_BYTES: Final = 1 << 24
_STEP_BYTES: Final = 1 << 15
_GZIP: Final = 16 + zlib.MAX_WBITS
_LEVEL: Final = 5
_ZSTD_LEVEL: Final = 3
_KEPT_BYTES: Final = 1 << 24  # of all together
_LARGE_BYTES: Final = 1 << 20  # of one


class Compression:
    """codings: those at hand, the best first. It keeps what it has made of small files."""

    def __init__(self) -> None:
        makers: dict[str, Callable[..., Any]] = {"gzip": _gzip}
        zstd = _zstd()
        if zstd is not None:
            makers = {"zstd": zstd, **makers}
        self.codings = tuple(makers)
        self._makers = makers
        self._kept: dict[tuple[Identity, str], bytes] = {}
        self._kept_bytes = 0

    def kept(self, identity: Identity, coding: str) -> bytes | None:
        """Return the whole content of a file as it has been sent before."""
        return self._kept.get((identity, coding))

    def pieces(
        self, file: Descriptor, identity: Identity, size: int, coding: str
    ) -> Iterator[bytes]:
        """Yield the content of a file, compressed.

        Raises: OSError if the file changes meanwhile.
        """
        maker = self._makers[coding]()
        made: list[bytes] = []
        made_bytes = 0
        for offset in range(0, size, _STEP_BYTES):
            data = maker.compress(os.pread(file.fd, min(_STEP_BYTES, size - offset), offset))
            made_bytes += len(data)
            if made_bytes <= _LARGE_BYTES:
                made.append(data)
            else:  # it will not be kept, and a slow client would hold it
                made.clear()
            yield data
        require_same(file, identity)
        data = maker.flush()
        made_bytes += len(data)
        yield data
        if made_bytes <= _LARGE_BYTES:
            self._keep((identity, coding), b"".join([*made, data]))

    def coded(self, made: Representation, accepted: str | None) -> Representation:
        """Return what is made while it is sent, such as a page, in a coding that the client takes.

        accepted: the field Accept-Encoding.
        """
        coding = acceptable(accepted, self.codings)
        headers = (*made.headers, ("Vary", "Accept-Encoding"))
        if coding is None or (made.size or LEAST_BYTES) < LEAST_BYTES:
            return replace(made, headers=headers)
        plain = made.pieces

        def pieces(start: int, stop: int) -> Iterator[Piece]:
            maker = self._makers[coding](quick=True)
            for piece in plain(start, stop):
                yield maker.compress(piece)
            yield maker.flush()

        return replace(
            made,
            headers=(*headers, ("Content-Encoding", coding)),
            size=None,
            etag=weak(made.etag, coding),
            pieces=pieces,
            has_ranges=False,
        )

    def _keep(self, key: tuple[Identity, str], data: bytes) -> None:
        if key in self._kept:
            return
        self._kept_bytes += len(data)
        if self._kept_bytes > _KEPT_BYTES:
            self._kept, self._kept_bytes = {}, len(data)
        self._kept[key] = data


def weak(etag: str | None, coding: str) -> str | None:
    """Return the tag of a representation that is coded anew each time (RFC 9110 §8.8.1)."""
    return None if etag is None else f'W/"{etag.removeprefix("W/")[1:-1]}-{coding}"'


def _gzip(*, quick: bool = False) -> Any:
    return zlib.compressobj(1 if quick else _LEVEL, zlib.DEFLATED, _GZIP)


def _zstd() -> Callable[..., Any] | None:
    """Return what makes a compressor: of Python 3.14, or of the package; None: neither is there."""
    for name, make in (
        ("compression.zstd", lambda module: module.ZstdCompressor(level=_ZSTD_LEVEL)),
        ("zstandard", lambda module: module.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()),
    ):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        return lambda quick=False, make=make, module=module: make(module)  # noqa: ARG005 # as gzip's; it is quick
    return None
