"""What is in a folder: read once, kept in columns, in the order in which people count.

A worker, any of its threads. Each entry is looked at by itself, never what is in
it. Never opens an entry, but for the README.

Columns, because an object for each entry would cost ten times as much: 100,000
entries take some 12 MB. Folders come first, so that a position says what is one.
"""

import bisect
import os
import stat
import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from typing import Final
from unicodedata import normalize

from prefork.share.etags import clamped_ns, etag
from prefork.share.jail import Jail, Opened, is_passing
from prefork.share.looks import suffix_of
from prefork.share.names import natural_key
from prefork.share.query import Query
from prefork.share.readme import Readme, best_of, read_readme

#: How long a listing is taken at its word, in seconds, unless the folder itself has changed; and
#: how much longer, in times that it took to read: a worker is busy reading a fifth of its time.
_VALID_S: Final = 2.0
_VALID_TIMES: Final = 4
#: How long a change may leave a folder's time as it was: their clocks tick every 10 ms at most.
_TICK_NS: Final = 20_000_000
#: Of all listings that are kept; a single one may have more.
_MOST_KEPT: Final = 250_000
#: Sorting holds the interpreter, and with it the worker's loop: more are sorted in parts.
_SORTED_AT_ONCE: Final = 100_000
_MOST_ORDERS: Final = 8

_Columns = tuple[list[str], "array[int]", "array[int]", "array[int]"]


@dataclass(slots=True)
class Listing:
    """The entries of one folder. names, sizes, times_ns, inodes: columns, in order of names.

    parts: the folder's own names, from the root. folders: how many of the entries, at the
    beginning, are folders, whose size is 0. etag: over all entries, quotes included.
    """

    parts: tuple[str, ...]
    names: list[str]
    sizes: "array[int]"
    times_ns: "array[int]"
    inodes: "array[int]"
    folders: int
    readme: Readme | None
    etag: str = ""
    _orders: dict[tuple[str, bool], Sequence[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        told = blake2b(digest_size=12)
        told.update(os.fsencode("/".join(self.names)))
        for column in (self.sizes, self.times_ns, self.inodes, array("q", [self.folders])):
            told.update(column)
        self.etag = f'"{told.hexdigest()}"'

    def __len__(self) -> int:
        return len(self.names)

    def is_folder(self, position: int) -> bool:
        """Tell whether an entry is a folder, else it is a file."""
        return position < self.folders

    def etag_at(self, position: int) -> str:
        """Return an entry's own tag: of a file, the one that it is served with."""
        return etag(self.times_ns[position], self.sizes[position], self.inodes[position])

    def chosen(self, asked: Query) -> Sequence[int]:
        """Return the positions of those entries that the query's filter leaves, in its order."""
        order = self._order(asked.sort, asked.is_descending)
        if not asked.filter:
            return order
        wanted, names = _folded(asked.filter), self.names
        return array("I", [at for at in order if wanted in _folded(names[at])])

    def _order(self, sort: str, is_descending: bool) -> Sequence[int]:
        kept = self._orders.get((sort, is_descending))
        if kept is None:
            if len(self._orders) >= _MOST_ORDERS:
                self._orders.clear()
            kept = self._orders[sort, is_descending] = self._sorted(sort, is_descending)
        return kept

    def _sorted(self, sort: str, is_descending: bool) -> Sequence[int]:
        """Return all positions, folders first; those that are equal in order of names."""
        folders, files = range(self.folders), range(self.folders, len(self))
        if sort == "name":
            if not is_descending:
                return range(len(self))
            return array("I", chain(reversed(folders), reversed(files)))
        if sort == "mtime":
            folders_found = sorted(folders, key=self.times_ns.__getitem__, reverse=is_descending)
            found = sorted(files, key=self.times_ns.__getitem__, reverse=is_descending)
            return array("I", chain(folders_found, found))
        if sort == "size":
            found = sorted(files, key=self.sizes.__getitem__, reverse=is_descending)
        else:
            suffixes = [suffix_of(name) for name in self.names]
            found = sorted(files, key=suffixes.__getitem__, reverse=is_descending)
        return array("I", chain(folders, found))


class Listings:
    """The listings of a worker that were asked for lately. One thread at a time reads a folder."""

    def __init__(self, jail: Jail) -> None:
        self._jail = jail
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[object, ...], _Kept] = OrderedDict()
        self._awaited: dict[tuple[object, ...], Future[_Kept]] = {}

    def of(self, folder: Opened) -> Listing:
        """Return a folder's listing.

        Raises: OSError.
        """
        # By its parts as well: one folder may have several names, and links lead elsewhere by them.
        key = (folder.status.st_dev, folder.status.st_ino, folder.parts)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and kept.is_valid(folder.status):
                self._kept.move_to_end(key)
                return kept.listing
            awaited = self._awaited.get(key)
            mine = self._awaited[key] = Future() if awaited is None else awaited
        return (self._read(key, folder, mine) if awaited is None else awaited.result()).listing

    def _read(self, key: tuple[object, ...], folder: Opened, mine: "Future[_Kept]") -> "_Kept":
        try:
            began_s, began_ns = time.monotonic(), time.time_ns()
            listing = read_listing(self._jail, folder)
            took_s = time.monotonic() - began_s
            valid_s = _VALID_S + _VALID_TIMES * took_s
            changed_ns = folder.status.st_mtime_ns
            if 0 <= began_ns - changed_ns < _TICK_NS:  # what comes in the same tick would not show
                valid_s = 0
            kept = _Kept(listing, changed_ns, began_s + took_s + valid_s)
        except BaseException as error:
            with self._lock:
                del self._awaited[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._awaited[key]
            self._keep(key, kept)
        mine.set_result(kept)
        return kept

    def _keep(self, key: tuple[object, ...], kept: "_Kept") -> None:
        self._kept.pop(key, None)
        self._kept[key] = kept
        now_s = time.monotonic()
        for other in [other for other, old in self._kept.items() if old.until_s < now_s]:
            del self._kept[other]
        while len(self._kept) > 1 and sum(k.cost for k in self._kept.values()) > _MOST_KEPT:
            self._kept.popitem(last=False)


class _Kept:
    """changed_ns: the folder's own time, of when an entry last came or went."""

    __slots__ = ("changed_ns", "cost", "listing", "until_s")

    def __init__(self, listing: Listing, changed_ns: int, until_s: float) -> None:
        self.listing = listing
        self.changed_ns = changed_ns
        self.until_s = until_s
        self.cost = len(listing) + 1000  # in entries; even an empty one takes memory

    def is_valid(self, status: os.stat_result) -> bool:
        return self.changed_ns == status.st_mtime_ns and time.monotonic() < self.until_s


def read_listing(jail: Jail, folder: Opened) -> Listing:
    """Read a folder: its files and folders, without what is hidden and what links may not show.

    Raises: OSError.
    """
    keys: list[str] = []
    names: list[str] = []
    sizes, times_ns, inodes = array("q"), array("q"), array("Q")
    is_shown, format_of = jail.is_shown, stat.S_IFMT
    with os.scandir(folder.file.fd) as entries:
        for entry in entries:  # the loop that a large folder's page waits for
            name = entry.name
            if not is_shown(name):
                continue
            try:
                if entry.is_symlink():
                    status = jail.stat_child(folder, name)
                    if status is None:
                        continue
                else:
                    status = entry.stat(follow_symlinks=False)
            except OSError as error:
                if is_passing(error):
                    raise  # nothing is cut in silence
                continue  # gone since
            format_ = format_of(status.st_mode)
            if format_ == stat.S_IFREG:
                keys.append(f"1{natural_key(name)}\0{name}")
                sizes.append(status.st_size)
            elif format_ == stat.S_IFDIR:
                keys.append(f"0{natural_key(name)}\0{name}")
                sizes.append(0)
            else:
                continue
            names.append(name)
            inodes.append(status.st_ino)
            times_ns.append(clamped_ns(status.st_mtime_ns))
    return _in_order(jail, folder, keys, (names, sizes, times_ns, inodes))


def _in_order(jail: Jail, folder: Opened, keys: list[str], columns: _Columns) -> Listing:
    """Return a listing of columns that are in the order of the file system. keys: to sort by."""
    names, sizes, times_ns, inodes = columns
    order = _positions(keys)
    names = [names[at] for at in order]
    folders = bisect.bisect_left(order, "1", key=keys.__getitem__)
    return Listing(
        folder.parts,
        names,
        array("q", map(sizes.__getitem__, order)),
        array("q", map(times_ns.__getitem__, order)),
        array("Q", map(inodes.__getitem__, order)),
        folders,
        read_readme(jail, folder, best_of(names[folders:])),
    )


def _positions(keys: list[str]) -> list[int]:
    """Return the positions of keys in their order."""
    count = len(keys)
    if count <= _SORTED_AT_ONCE:
        return sorted(range(count), key=keys.__getitem__)
    # What lies between two of a sample is a part; each sort is short, and others run between them.
    sample = sorted(keys[:: count // 64 or 1])[1:]
    parts: list[list[int]] = [[] for _ in range(len(sample) + 1)]
    for at, key in enumerate(keys):
        parts[bisect.bisect_right(sample, key)].append(at)
    return [at for part in parts for at in sorted(part, key=keys.__getitem__)]


def _folded(name: str) -> str:
    """Return a name as it is looked for: whatever its case, composed or not."""
    return name.lower() if name.isascii() else normalize("NFC", name).casefold()
