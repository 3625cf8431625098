"""What one share needs in one worker: its jail, and what is kept of listings and archives.

A worker, made at the first request; any thread. It answers nobody.
"""

import functools
import stat
import threading
from pathlib import Path
from typing import Any, Final

from prefork import log
from prefork.share.archive.archives import Archives
from prefork.share.archive.crcs import Crcs
from prefork.share.cachedir import cache_directory
from prefork.share.compression import Compression
from prefork.share.hosts import Hosts
from prefork.share.jail import Jail, Opened
from prefork.share.listing import Listings
from prefork.share.trail import Look

#: Where a server keeps the shares of its handlers.
_SHARES: Final = "_prefork_shares"
_MAKING: Final = threading.Lock()


class Share:
    """Made of a handler's class variables and its directory.

    Raises: ValueError for an option that is none of those there are.
    """

    def __init__(self, handler: Any) -> None:
        said = handler.symlinks
        if said not in ("inside", "follow", "never"):
            raise ValueError(f'symlinks must be "inside", "follow" or "never", not {said!r}')
        self.directory = str(handler.directory)
        self.jail = Jail(self.directory, symlinks=said, hidden=handler.hidden)
        try:
            self.jail.open(())
        except OSError as error:  # clients are told no more than 403 or 404
            log.warning("share.unreadable", path=self.directory, reason=error.strerror)
        self.spa = bool(handler.spa)
        self.trusted = bool(handler.trusted or self.spa)
        self.compression = bool(handler.compression)
        self.has_archives = bool(handler.archives)
        self._cache = str(handler.cache_directory), int(handler.cache_bytes)
        self.not_found_page = str(handler.not_found_page)
        self.cors_origins: tuple[str, ...] = tuple(handler.cors_origins)
        self.hosts = Hosts(tuple(handler.allowed_hosts))
        self.compressor = Compression()
        self.name = Path(self.directory).resolve().name or "files"
        self.listings = Listings(self.jail)
        self.look = Look(self.name, self.has_archives)

    @functools.cached_property
    def archives(self) -> Archives:
        """The folders as archives; made for the first who asks, and so is the cache directory."""
        directory, limit_bytes = self._cache
        return Archives(self.jail, Crcs(cache_directory(directory), limit_bytes))

    @staticmethod
    def is_file(opened: Opened) -> bool:
        """Tell whether it is a regular file; else it is a folder."""
        return stat.S_ISREG(opened.status.st_mode)


def share_of(handler: Any) -> Share:
    """Return the share that a handler serves: one for each class and directory of its server."""
    shares: dict[object, Share] = handler.server.__dict__.setdefault(_SHARES, {})
    key = type(handler), handler.directory
    found = shares.get(key)
    if found is None:
        with _MAKING:
            found = shares.get(key)
            if found is None:
                found = shares[key] = Share(handler)
    return found
