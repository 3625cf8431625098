"""What a folder's listing says, to programs and by columns; when it is read again."""

import json
import os
import stat
import threading
import time
import urllib.parse

import hostile
import pytest

from prefork.share import listing as module
from prefork.share.etags import etag_of
from prefork.share.feeds import json_of, plain_of
from prefork.share.jail import Jail
from prefork.share.listing import Listings, read_listing
from prefork.share.looks import time_machine, time_text, viewed_as, visible
from prefork.share.query import Query

ENTRIES = ("file10.txt", "file9.txt", "Apple", "banana.TXT", "caf\u00e9.md", "z.tar.gz")


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    for size, name in enumerate(ENTRIES):
        (root / name).write_bytes(b"x" * size * 100)
        os.utime(root / name, ns=(0, 10**18 - size * 10**9))
    for name in ("folder 10", "folder 9"):
        (root / name).mkdir()
        (root / name / "inside").touch()
        os.utime(root / name, ns=(0, 10**18))
    os.utime(root, ns=(0, 10**18))  # what has changed just now is not kept
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return hostile.build(tmp_path_factory.mktemp("hostile"))


def read(root, **policy):
    jail = Jail(str(root), **policy)
    return read_listing(jail, jail.open(()))


def chosen(listing, query=""):
    return [listing.names[at] for at in listing.chosen(Query.read(f"/?{query}"))]


def body(made):
    return b"".join(made.pieces(0, 1 << 60))


def told(root, query=""):
    return json.loads(body(json_of(read(root), Query.read(f"/?json&{query}"))))


# -- order and filter ------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", "Apple banana.TXT café.md file9.txt file10.txt z.tar.gz"),
        ("order=desc", "z.tar.gz file10.txt file9.txt café.md banana.TXT Apple"),
        ("sort=size", "file10.txt file9.txt Apple banana.TXT café.md z.tar.gz"),
        ("sort=size&order=desc", "z.tar.gz café.md banana.TXT Apple file9.txt file10.txt"),
        ("sort=mtime", "z.tar.gz café.md banana.TXT Apple file9.txt file10.txt"),
        ("sort=type", "Apple z.tar.gz café.md banana.TXT file9.txt file10.txt"),
        ("sort=nonsense&order=up", "Apple banana.TXT café.md file9.txt file10.txt z.tar.gz"),
        ("filter=FILE", "file9.txt file10.txt"),
        ("filter=cafe%CC%81", "café.md"),  # decomposed
        ("filter=CAF%C3%89", "café.md"),
        ("filter=.t&sort=size&order=desc", "z.tar.gz banana.TXT file9.txt file10.txt"),
        ("filter=%2B", ""),
    ],
)
def test_entries_come_in_the_order_that_is_asked_for_folders_first(folder, query, names):
    found = chosen(read(folder), query)
    folders = [name for name in found if name.startswith("folder")]
    turned = query == "order=desc"
    expected = ["folder 10", "folder 9"] if turned else ["folder 9", "folder 10"]
    if query.startswith("sort=mtime"):
        folders.sort(key=len)  # they are of now
    assert folders == ([] if "filter" in query else expected)
    assert found == folders + names.split() or found[2:] == names.split()


def test_a_large_folder_is_sorted_like_a_small_one(monkeypatch, folder):
    for number in range(500):
        (folder / f"{number * 7919 % 500}.txt").touch()
    small = read(folder)
    monkeypatch.setattr(module, "_SORTED_AT_ONCE", 10)
    large = read(folder)
    assert large.names == small.names
    assert large.etag == small.etag
    assert small.names[2:502] == [f"{number}.txt" for number in range(500)]


# -- what is shown ---------------------------------------------------------------


def test_a_hostile_folder_shows_files_folders_and_links_that_stay_inside(tree):
    def shown(parts):
        return len(parts) == 1 and parts not in tree.hidden

    found = read(tree.root)
    files = {parts[0] for parts in tree.files if shown(parts)}
    folders = {parts[0] for parts in tree.folders if shown(parts)}
    for parts, to in tree.linked.items():
        if shown(parts):
            (folders if to in tree.folders else files).add(parts[0])
    closed = {parts[0] for parts in tree.closed}
    assert set(found.names[: found.folders]) - closed == folders
    assert set(found.names[found.folders :]) - closed == files
    assert closed <= set(found.names)  # they are there; opening them is what is forbidden


def test_links_show_what_they_lead_to_and_none_do_by_never(tree):
    found = read(tree.root)
    linked = found.names.index("link 1")
    target = (tree.root / "plain.txt").stat()
    assert found.sizes[linked] == target.st_size
    assert found.etag_at(linked) == etag_of(target)
    links = {entry.name for entry in os.scandir(tree.root) if entry.is_symlink()}
    assert links.isdisjoint(read(tree.root, symlinks="never").names)


def test_hidden_ones_are_shown_on_request(tree):
    assert not any(name.startswith(".") for name in read(tree.root).names if name != "...")
    assert {".hidden", ".git", ".htpasswd"} <= set(read(tree.root, hidden=True).names)


def test_an_entrys_tag_is_the_one_that_its_file_is_served_with(folder):
    far = folder / "far.txt"
    far.touch()
    os.utime(far, ns=(0, 10**19))  # after 2262; a file system may take it as an earlier one
    found = read(folder)
    for at, name in enumerate(found.names):
        status = (folder / name).stat()
        if stat.S_ISREG(status.st_mode):
            assert found.etag_at(at) == etag_of(status)


# -- tags ------------------------------------------------------------------------


def test_a_listings_tag_changes_with_each_name_size_and_time(folder):
    def grow():
        with (folder / "Apple").open("ab") as file:
            file.write(b"more")
        os.utime(folder / "Apple", ns=(0, 10**18 - 2 * 10**9))

    changes = [
        (folder / "new").touch,
        lambda: (folder / "new").rename(folder / "newer"),
        lambda: os.utime(folder / "newer", ns=(0, 1)),
        grow,
        (folder / "newer").unlink,
        (folder / "newer").mkdir,
    ]
    tags = [read(folder).etag]
    assert read(folder).etag == tags[0]
    for change in changes:
        change()
        tags.append(read(folder).etag)
    assert len(set(tags)) == len(changes) + 1


def test_feeds_have_tags_of_their_own_for_each_form_of_them(folder):
    listing = read(folder)
    tags = [
        make(listing, Query.read(query)).etag
        for make in (json_of, plain_of)
        for query in ("", "?sort=size", "?order=desc", "?filter=x", "?offset=1", "?limit=1")
    ]
    assert len(set(tags)) == 12
    assert not any(tag.startswith("W/") for tag in tags)  # the bytes are the same each time


# -- feeds -----------------------------------------------------------------------


def test_json_tells_all_of_an_entry(folder):
    found = told(folder, "filter=file1")
    status = (folder / "file10.txt").stat()
    assert found == {
        "path": "/",
        "etag": read(folder).etag,
        "total": 1,
        "folders": 0,
        "files": 1,
        "bytes": 0,
        "offset": 0,
        "entries": [
            {
                "name": "file10.txt",
                "href": "file10.txt",
                "type": "file",
                "size": 0,
                "mtime": 10.0**9,
                "etag": etag_of(status),
            }
        ],
    }
    folders = told(folder, "limit=1")
    assert (folders["total"], folders["folders"], folders["files"]) == (8, 2, 6)
    assert folders["bytes"] == 1500
    assert folders["entries"][0]["type"] == "folder"
    assert folders["entries"][0]["size"] is None
    assert folders["entries"][0]["href"] == "folder%209/"


@pytest.mark.parametrize("size", [1, 3, 5, 100])
def test_pages_of_json_are_the_whole(folder, size):
    whole = told(folder, "sort=size&order=desc")["entries"]
    parts = []
    for offset in range(0, 12, size):
        part = told(folder, f"sort=size&order=desc&offset={offset}&limit={size}")
        assert part["total"] == 8
        assert part["offset"] == min(offset, 8)
        parts += part["entries"]
    assert parts == whole


def test_pieces_are_small(tmp_path):
    for number in range(3000):
        (tmp_path / f"{number:ü>120}").touch()
    listing = read(tmp_path)
    for make in (json_of, plain_of):
        pieces = list(make(listing, Query()).pieces(0, 1 << 60))
        assert max(map(len, pieces)) <= 256 * 1024
        assert len(pieces) > 1
    assert len(json.loads(body(json_of(listing, Query())))["entries"]) == 3000


def test_hrefs_lead_to_hostile_names_and_lines_can_be_read_back(tree):
    listing = read(tree.root)
    entries = json.loads(body(json_of(listing, Query())))["entries"]
    found = [os.fsdecode(urllib.parse.unquote_to_bytes(entry["href"])) for entry in entries]
    slashed = [
        name + "/" if listing.is_folder(at) else name for at, name in enumerate(listing.names)
    ]
    # "./" stands before what could be read as a scheme; a name never begins so.
    assert [name.removeprefix("./") for name in found] == slashed
    assert "latin-1 \ufffd\ufffd.txt" in {entry["name"] for entry in entries}
    lines = body(plain_of(listing, Query())).split(b"\n")
    assert lines.pop() == b""
    assert [os.fsdecode(urllib.parse.unquote_to_bytes(line)) for line in lines] == slashed
    assert b"new%0Aline.txt" in lines
    assert b"100%25.txt" in lines


# -- queries ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "page=0&offset=-1&limit=x&sort=&order=",
        "page=99999999999999999999",
        "offset=%31%EF%BC%91",
        "a=" + "&a=" * 100,
        "&&;;=&=%",
        "%ff=%fe&filter=%ff",
        "page=\xb9",
    ],
)
def test_what_is_not_understood_counts_as_not_said(query):
    asked = Query.read(f"/?{query}")
    assert (asked.sort, asked.is_descending, asked.offset, asked.limit) == ("name", False, 0, None)
    assert asked.page == 1


def test_the_filter_finds_raw_bytes(tree):
    assert chosen(read(tree.root), "filter=%e9%ff") == [os.fsdecode(b"latin-1 \xe9\xff.txt")]
    assert chosen(read(tree.root), "filter=\xe9\xff") == [os.fsdecode(b"latin-1 \xe9\xff.txt")]


def test_links_say_no_more_than_they_must():
    asked = Query.read("/?json&sort=size&order=desc&filter=%26%22%ff&page=3&limit=4")
    assert asked.link() == "?sort=size&order=desc&filter=%26%22%FF&page=3"
    assert asked.link(sort="name", is_descending=False, filter="", page=1) == "?"


# -- the cache -------------------------------------------------------------------


def test_a_listing_is_kept_until_a_name_comes_or_goes(folder):
    jail = Jail(str(folder))
    listings = Listings(jail)
    first = listings.of(jail.open(()))
    assert listings.of(jail.open(())) is first
    os.utime(folder, ns=(0, 1))  # as if time had gone by
    second = listings.of(jail.open(()))
    assert second is not first
    (folder / "new").touch()
    assert "new" in listings.of(jail.open(())).names
    (folder / "new").unlink()
    assert "new" not in listings.of(jail.open(())).names


def test_what_comes_in_the_same_tick_of_the_clock_is_seen(folder, monkeypatch):
    monkeypatch.setattr(module.time, "time_ns", lambda: 10**18 + 9_000_000)
    jail = Jail(str(folder))
    listings = Listings(jail)
    listings.of(jail.open(()))
    (folder / "new").touch()
    os.utime(folder, ns=(0, 10**18))
    assert "new" in listings.of(jail.open(())).names


def test_a_listing_is_read_again_when_it_is_old(folder, monkeypatch):
    jail = Jail(str(folder))
    listings = Listings(jail)
    first = listings.of(jail.open(()))
    now = time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 60)
    assert listings.of(jail.open(())) is not first


def test_a_folder_by_another_name_is_listed_by_that(folder):
    (folder / "link").symlink_to("folder 9")
    jail = Jail(str(folder))
    listings = Listings(jail)
    assert listings.of(jail.open(("folder 9",))).parts == ("folder 9",)
    assert listings.of(jail.open(("link",))).parts == ("link",)


def test_listings_that_are_kept_are_bounded(folder, monkeypatch):
    monkeypatch.setattr(module, "_MOST_KEPT", 2500)  # two small ones
    jail = Jail(str(folder))
    listings = Listings(jail)
    folders = [(), ("folder 9",), ("folder 10",)]
    first = [listings.of(jail.open(parts)) for parts in folders]
    again = [listings.of(jail.open(parts)) for parts in reversed(folders)]
    assert again[0] is first[2]
    assert again[1] is first[1]
    assert again[2] is not first[0]


def test_one_thread_reads_a_folder_and_the_others_wait_for_it(folder, monkeypatch):
    jail = Jail(str(folder))
    listings = Listings(jail)
    reads, go_on, begun = [], threading.Event(), threading.Event()

    def slow(*arguments):
        reads.append(arguments)
        begun.set()
        assert go_on.wait(20)
        return read_listing(*arguments)

    monkeypatch.setattr(module, "read_listing", slow)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(listings.of(jail.open(())))) for _ in range(5)
    ]
    threads[0].start()
    assert begun.wait(20)
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert len(reads) == 1
    assert len(found) == 5
    assert all(one is found[0] for one in found)


def test_a_folder_that_cannot_be_read_fails_each_who_asks(folder, monkeypatch):
    jail = Jail(str(folder))
    listings = Listings(jail)
    monkeypatch.setattr(module.os, "scandir", lambda _fd: (_ for _ in ()).throw(OSError(5, "I/O")))
    for _ in range(2):
        with pytest.raises(OSError, match="I/O"):
            listings.of(jail.open(()))
    monkeypatch.undo()
    assert len(listings.of(jail.open(()))) == 8


# -- looks -----------------------------------------------------------------------


def test_unseen_characters_are_seen():
    assert visible("a\nb\x7fc\u202ed\x85e\udcff\u200b") == "a␊b␡c�d�e��"
    # A soft hyphen, marks of direction, an invisible separator.
    assert visible("a\xadb\u200f.\u061c\u2063") == "a\ufffdb\ufffd.\ufffd\ufffd"
    assert visible("עברית 🏳️‍🌈") == "עברית 🏳️‍🌈"


@pytest.mark.parametrize("time_ns", [0, -1, 10**18, (1 << 63) - 1, -(1 << 63) + 1])
def test_any_time_has_a_text(time_ns):
    assert time_text(time_ns)
    assert time_machine(time_ns).endswith("Z")


def test_times_for_machines_have_milliseconds():
    assert time_machine(1_750_000_000_987_654_321) == "2025-06-15T15:06:40.987Z"
    assert time_machine(-1) == "1969-12-31T23:59:59.999Z"


def test_a_name_that_only_begins_with_a_dot_has_no_type():
    assert viewed_as(".png") == ""
    assert viewed_as("a.PNG") == "image"
