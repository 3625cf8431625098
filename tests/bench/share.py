"""What is asked of a share: lists, files that are known or taken in pieces, folders as archives.

Files are made when a workload is chosen; their names are as people's are, with spaces.
"""

import itertools
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import commands as run
from workloads import CONNECTIONS, SIZES, Workload, no_text

LIST_CONNECTIONS = 4
LISTS = {"1k": 1_000, "100k": 100_000}
SUFFIXES = ("pdf", "jpg", "flac", "txt")
BIG_BYTES = 1 << 30
RANGES = 16
SLOW_READERS = 500
PIECE_BYTES = 1 << 20
SMALL_FILES, SMALL_BYTES = 10_000, 10_000
BIG_FILES = 8
#: Later by one for each time that files are to look changed; long ago, for what is of this very
#: second is believed by nobody.
TOUCHED_S = 1_000_000_000

#: Most servers compress no list, and one that does would be measured by its zlib.
PLAIN = {"Accept-Encoding": None}
LISTERS = (run.SHARE, run.SHARE_JSON, run.NGINX, run.NGINX_JSON, run.CADDY, run.COPYPARTY)
OTHERS = (run.STDLIB_FILES, run.WSGIDAV, run.SERVE, run.HTTP_SERVER)
#: For a list of 100,000 the others take up to 14 seconds.
QUICK = (*LISTERS, run.STDLIB_FILES)
SERVERS = (run.SHARE, run.NGINX, run.CADDY)


def workloads(site: Path) -> list[Workload]:
    """Return them; nothing is written yet."""
    tick = itertools.count(TOUCHED_S)
    known = Workload(
        "share-304",
        "a file that the client has, 304",
        SERVERS,
        answer=None,
        path="/100k.bin",
        connections=CONNECTIONS,
        is_conditional=True,
        group="share",
    )
    return [
        *_lists(site, tick),
        known,
        replace(
            known,
            name="share-304-text",
            title="a text that the client has, 304",
            peers=(run.SHARE, run.NGINX),
            path="/texts/notes.txt",
            make=partial(_make_text, site / "texts" / "notes.txt"),
        ),
        _ranges(site),
        Workload(
            "share-slow",
            f"a file of 100,000 bytes on one connection beside {SLOW_READERS} slow readers",
            (run.SHARE, run.NGINX),
            no_text(SIZES["100k"]),
            "/100k.bin",
            1,
            idle=(0, SLOW_READERS),
            slow_path="/100m.bin",
            group="share",
        ),
        *_archives(site, tick),
    ]


# -- lists ---------------------------------------------------------------------


def _lists(site: Path, tick: "itertools.count[int]") -> list[Workload]:
    made = []
    for name, count in LISTS.items():
        folder = site / "lists" / name
        usual = Workload(
            f"share-list-{name}",
            f"the list of a folder of {count:,} files",
            (*LISTERS, *OTHERS),
            answer=None,
            path=f"/lists/{name}/",
            connections=LIST_CONNECTIONS,
            make=partial(_make_list, folder, count),
            entries=count,
            also=PLAIN,
            group="share",
        )
        made.append(usual)
    few, many = made
    changed = replace(
        many,
        name=many.name + "-changed",
        title=many.title + ", which has changed",
        peers=QUICK,
        connections=1,
        before=partial(_touch, site / many.path.strip("/"), tick),
    )
    again = replace(many, peers=LISTERS[:3], connections=1)
    return [few, changed, again]


def _make_list(folder: Path, count: int) -> None:
    if folder.exists():
        return
    folder.mkdir(parents=True)
    for number in range(count):
        name = f"Summer & winter {number:06}.{SUFFIXES[number % len(SUFFIXES)]}"
        with (folder / name).open("wb") as file:
            file.truncate(number * 997)  # without a block on the disk


# -- one large file ------------------------------------------------------------


def _ranges(site: Path) -> Workload:
    length = BIG_BYTES // RANGES
    return Workload(
        "share-ranges",
        f"a file of 1 GiB in {RANGES} ranges at a time; a request is for one",
        SERVERS,
        answer=None,
        path="/big/1g.bin",
        connections=RANGES,
        make=partial(_make_big, site / "big" / "1g.bin", BIG_BYTES),
        file=site / "big" / "1g.bin",
        ranges=tuple(f"bytes={at}-{at + length - 1}" for at in range(0, BIG_BYTES, length)),
        length=length,
        group="share",
    )


def _make_big(path: Path, size: int) -> None:
    """Write a file of which no two kilobytes are the same."""
    if path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        for at in range(0, size, PIECE_BYTES):
            file.write(b"".join(b"%01024d" % (at + k) for k in range(0, PIECE_BYTES, 1024)))


def _make_text(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("It was a dark and stormy night. " * 3_000)


# -- archives ------------------------------------------------------------------


def _archives(site: Path, tick: "itertools.count[int]") -> list[Workload]:
    made = []
    for name, count, size in (
        ("1g", BIG_FILES, BIG_BYTES // BIG_FILES),
        ("10k-files", SMALL_FILES, SMALL_BYTES),
    ):
        folder = site / "archives" / name
        known = Workload(
            f"share-zip-{name}",
            f"a folder of {count:,} files, {count * size:,} bytes, as a zip",
            (run.SHARE_ZIP, run.COPYPARTY_ZIP),
            answer=None,
            path=f"/archives/{name}/",
            connections=1,
            make=partial(_make_files, folder, count, size),
            least_bytes=count * size,
            group="share",
        )
        changed = replace(
            known,
            name=known.name + "-changed",
            title=known.title + ", of files that have changed",
            before=partial(_touch_all, folder, tick),
        )
        made += [changed, replace(known, peers=(run.SHARE_ZIP,))]
    return made


def _make_files(folder: Path, count: int, size: int) -> None:
    if folder.exists():
        return
    folder.mkdir(parents=True)
    data = os.urandom(min(size, PIECE_BYTES))
    for number in range(count):
        with (folder / f"Photo {number:06}.jpg").open("wb") as file:
            for _ in range(size // len(data)):
                file.write(data)


def _touch(path: Path, tick: "itertools.count[int]") -> None:
    now_s = next(tick)
    os.utime(path, (now_s, now_s))


def _touch_all(folder: Path, tick: "itertools.count[int]") -> None:
    now_s = next(tick)
    for path in (folder, *folder.iterdir()):
        os.utime(path, (now_s, now_s))
