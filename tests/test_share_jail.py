"""What the jail of a share opens, by openat2 and by the walk, and how names are written."""

# ruff: noqa: PTH102, PTH116 # names that no Path would keep as they are

import ctypes
import gc
import os
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import urllib.parse
from email.message import Message
from pathlib import Path

import hostile
import pytest
from harness import DEADLINE_S, wait_until

from prefork.share import jail as module
from prefork.share.jail import ForbiddenError, Jail, MissingError
from prefork.share.names import (
    asks_folder,
    candidates,
    disposition,
    href,
    natural_key,
    parts_of,
)
from prefork.share.openat2 import is_available
from prefork.share.ways import Kernel, Walk

POLICIES = ["inside", "follow", "never"]


@pytest.fixture(scope="module")
def tree():
    with tempfile.TemporaryDirectory() as place:  # pytest's own may not be passed by others
        Path(place).chmod(0o755)
        yield hostile.build(Path(place))


@pytest.fixture(params=[Kernel, Walk])
def way(request):
    if request.param is Kernel and not is_available():
        pytest.skip("no openat2 here")
    return request.param


@pytest.fixture
def inside(tree, way):
    return Jail(str(tree.root), way=way)


def content(opened) -> bytes:
    assert stat.S_ISREG(opened.status.st_mode)
    return os.pread(opened.file.fd, 1 << 16, 0)


def identity(status):
    return status.st_dev, status.st_ino


def outcome(function, *args):
    """Return what is opened, or the error's type."""
    try:
        opened = function(*args)
    except (MissingError, ForbiddenError) as error:
        return type(error)
    return identity(opened.status)


def descriptors() -> int:
    gc.collect()  # those of other tests would go meanwhile
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 # no Path needed


# -- what is opened -----------------------------------------------------------------------


def test_every_file_is_opened_by_its_name(tree, inside):
    for parts, data in tree.files.items():
        opened = inside.open(parts)
        assert (content(opened), opened.parts) == (data, parts)
        assert opened.status.st_size == len(data)


def test_every_folder_can_be_read(tree, inside):
    for parts in tree.folders:
        opened = inside.open(list(parts))
        known = {p[-1] for p in [*tree.files, *tree.folders] if p and p[:-1] == parts}
        assert known <= set(os.listdir(opened.file.fd))  # noqa: PTH208 # no Path of it


def test_links_that_stay_inside_lead_where_the_system_leads(tree, inside):
    for parts, target in tree.linked.items():
        opened = inside.open(parts)
        there = inside.open(target) if not hostile.is_hidden(target) else os.stat(tree.path(target))
        assert identity(opened.status) == identity(getattr(there, "status", there)), parts
        assert opened.parts == parts


def test_links_that_leave_lead_nowhere(tree, inside):
    for parts in tree.out:
        assert outcome(inside.open, parts) is MissingError, parts
        assert outcome(inside.open, (*parts, "canary.txt")) is MissingError, parts


@pytest.mark.parametrize("symlinks", POLICIES)
def test_dangling_looping_and_magic_links_lead_nowhere(tree, way, symlinks):
    jail = Jail(str(tree.root), symlinks=symlinks, way=way)
    for parts in tree.lost:
        assert outcome(jail.open, parts) is MissingError, parts
        assert outcome(jail.open, (*parts, "x")) is MissingError, parts


def test_links_may_be_followed_anywhere(tree, way):
    jail = Jail(str(tree.root), symlinks="follow", way=way)
    for parts in tree.out:
        expected = os.stat(tree.path(parts))
        is_shown = stat.S_ISREG(expected.st_mode) or stat.S_ISDIR(expected.st_mode)
        assert outcome(jail.open, parts) == (identity(expected) if is_shown else MissingError)
    assert content(jail.open(("out folder", "canary.txt"))) == hostile.CANARY


def test_links_may_be_followed_never(tree, way):
    jail = Jail(str(tree.root), symlinks="never", way=way)
    for parts in [*tree.linked, *tree.out]:
        assert outcome(jail.open, parts) is MissingError, parts
    for parts, data in tree.files.items():
        assert content(jail.open(parts)) == data


def test_what_begins_with_a_dot_is_shown_only_if_wanted(tree, inside, way):
    open_jail = Jail(str(tree.root), hidden=True, way=way)
    for parts, data in tree.hidden.items():
        assert outcome(inside.open, parts) is MissingError
        assert inside.is_shown(parts[-1]) is not parts[-1].startswith(".")
        opened = open_jail.open(parts)
        assert (content(opened) if data is not None else None) == data
        assert open_jail.is_shown(parts[-1])


@pytest.mark.parametrize("hidden", [False, True])
def test_what_is_no_name_of_one_thing_is_missing(tree, way, hidden):
    jail = Jail(str(tree.root), hidden=hidden, way=way)
    folder = jail.open(("folder",))
    for name in ("", ".", "..", "/", "../outside", "folder/inside.txt", "/etc", "a\0", "\0", "x/"):
        assert outcome(jail.open, (name,)) is MissingError, name
        assert outcome(jail.open, ("folder", name)) is MissingError, name
        assert outcome(jail.open, (name, "plain.txt")) is MissingError, name
        assert outcome(jail.open_child, folder, name) is MissingError, name
        assert jail.stat_child(folder, name) is None
    for name in ("n" * 256, "\ud800", "\udcff\udfff", "no such file"):
        assert outcome(jail.open, (name,)) is MissingError
        assert outcome(jail.open_child, folder, name) is MissingError
        assert jail.stat_child(folder, name) is None
    assert outcome(jail.open, ("plain.txt", "x")) is MissingError
    assert outcome(jail.open, ("x",) * 3000) is MissingError


def test_a_policy_that_there_is_not_is_refused(tmp_path, way):
    with pytest.raises(ValueError, match="outside"):
        Jail(str(tmp_path), symlinks="outside", way=way)


# -- what is never opened -----------------------------------------------------------------


class Watch:
    """inotify(7): which names of a folder were opened; a handle (O_PATH) opens nothing."""

    def __init__(self, folder):
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert libc.inotify_add_watch(self.fd, os.fsencode(folder), 0x20) >= 0  # IN_OPEN

    def opened(self):
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return []
        names = []
        while data:
            length = struct.unpack_from("iIII", data)[3]
            names.append(os.fsdecode(data[16 : 16 + length].rstrip(b"\0")))
            data = data[16 + length :]
        return [name for name in names if name]  # "" is the folder itself


@pytest.mark.parametrize("symlinks", POLICIES)
@pytest.mark.parametrize("has_proc", [True, False])
def test_fifos_sockets_and_devices_are_not_opened_even_for_a_moment(
    tree, way, symlinks, has_proc, monkeypatch
):
    if not has_proc:
        monkeypatch.setattr(module, "_HANDLES", "/nowhere")
    jail = Jail(str(tree.root), symlinks=symlinks, way=way)
    root = jail.open(())
    watch = Watch(tree.root)
    try:
        for parts in tree.special:
            assert outcome(jail.open, parts) is MissingError
            assert outcome(jail.open_child, root, parts[-1]) is MissingError
            assert jail.stat_child(root, parts[-1]) is None
        assert jail.stat_child(root, "plain.txt").st_size == len("plain.txt")
        assert watch.opened() == []
        jail.open(("plain.txt",))
        assert watch.opened() == ["plain.txt"]
    finally:
        os.close(watch.fd)


def test_what_permissions_forbid_is_forbidden(tree, inside):
    with hostile.unprivileged():
        for parts in tree.closed:
            assert outcome(inside.open, parts) is ForbiddenError, parts
        root = inside.open(())
        assert outcome(inside.open_child, root, "closed") is ForbiddenError
        assert outcome(inside.open_child, root, "closed.txt") is ForbiddenError
        assert stat.S_ISDIR(inside.stat_child(root, "closed").st_mode)
        assert content(inside.open(("plain.txt",))) == b"plain.txt"


# -- how names are found ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (("cafe\u0301.txt",), ("caf\u00e9.txt",)),
        (("r\u00e9sum\u00e9.txt",), ("re\u0301sume\u0301.txt",)),
        (("\u00c9l\u00e9ments", "\u00e9t\u00e9.txt"), None),
        (("El\u00e9ments", "e\u0301te\u0301.txt"), ("Ele\u0301ments", "\u00e9t\u00e9.txt")),
        (("El\u00e9ments", "\u00e9t\u00e9.txt"), ("Ele\u0301ments", "\u00e9t\u00e9.txt")),
        (("El\u00e9ments", "inside.txt"), ("Ele\u0301ments", "inside.txt")),
        (("El\u00e9ments",), ("Ele\u0301ments",)),
        (("El\u00e9ments", "none"), None),
        (("folder", "\u00e9"), None),
        (("\u00e9",) * 30, None),
    ],
)
def test_a_name_is_found_in_its_other_unicode_form(inside, asked, found):
    if found is None:
        assert outcome(inside.open, asked) is MissingError
    else:
        assert inside.open(asked).parts == found


def test_the_form_that_was_asked_for_comes_first_and_each_folder_of_both_is_tried(tmp_path, way):
    for folder, name in (("\u00e9", "\u00e9.txt"), ("e\u0301", "e\u0301.txt")):
        os.mkdir(tmp_path / folder)
        (tmp_path / folder / name).write_bytes(b"")
    (tmp_path / "e\u0301" / "only").write_bytes(b"")
    jail = Jail(str(tmp_path), way=way)
    assert jail.open(("\u00e9",)).parts == ("\u00e9",)
    assert jail.open(("e\u0301",)).parts == ("e\u0301",)
    assert jail.open(("\u00e9", "only")).parts == ("e\u0301", "only")
    assert jail.open(("e\u0301", "\u00e9.txt")).parts == ("e\u0301", "e\u0301.txt")


# -- children -----------------------------------------------------------------------------


@pytest.mark.parametrize("symlinks", POLICIES)
def test_a_folders_child_is_what_its_path_leads_to(tree, way, symlinks):
    jail = Jail(str(tree.root), symlinks=symlinks, way=way)
    for path in ((), ("folder",), hostile.DEEP, ("link to folder",)):
        if path == ("link to folder",) and symlinks == "never":
            continue
        folder = jail.open(path)
        for name in os.listdir(folder.file.fd):  # noqa: PTH208 # no Path of it
            by_path = outcome(jail.open, (*path, name))
            assert outcome(jail.open_child, folder, name) == by_path
            status = jail.stat_child(folder, name)
            assert (status is None) is (by_path is MissingError)
            if isinstance(by_path, tuple):
                assert identity(status) == by_path
                assert jail.open_child(folder, name).parts == (*path, name)


# -- the root -----------------------------------------------------------------------------


def test_a_root_may_be_a_link_and_may_go_and_come_back(tmp_path, way):
    place, root = tmp_path / "place", tmp_path / "root"
    root.symlink_to("place")
    jail = Jail(str(root), way=way)
    assert outcome(jail.open, ("file",)) is MissingError
    place.mkdir()
    (place / "file").write_bytes(b"first")
    (place / "absolute").symlink_to(root / "file")
    (place / "resolved").symlink_to(place / "file")
    for name in ("file", "absolute", "resolved"):
        assert content(jail.open((name,))) == b"first"
    place.rename(tmp_path / "gone")
    wait_until(lambda: outcome(jail.open, ("file",)) is MissingError)
    place.mkdir()
    (place / "file").write_bytes(b"second")
    assert content(jail.open(("file",))) == b"second"


def test_the_top_of_all_may_be_shared(way):
    jail = Jail("/", way=way)
    assert identity(jail.open(("etc", "passwd")).status) == identity(os.stat("/etc/passwd"))
    assert outcome(jail.open, ("proc", "self", "root")) is MissingError
    assert outcome(jail.open, ("proc", "self", "cwd")) is MissingError
    assert outcome(jail.open, ("dev", "null")) is MissingError


# -- together -----------------------------------------------------------------------------


def test_threads_share_a_jail_and_no_descriptor_is_left(tree, inside):
    before = descriptors()
    inside.open(())  # the root stays open
    wrong = []

    def open_all():
        for parts, data in tree.files.items():
            if content(inside.open(parts)) != data:
                wrong.append(parts)
        for parts in [*tree.lost, *tree.out, *tree.special, ("El\u00e9ments", "\u00e9")]:
            found = outcome(inside.open, parts)
            if found is not MissingError:
                wrong.append((parts, found))

    threads = [threading.Thread(target=open_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert descriptors() == before + 1


_FORKED = """
import os, sys
from prefork.share.jail import Jail

jail = Jail(sys.argv[1])
names = ("plain.txt",)
before = jail.open(names)
pid = os.fork()
if pid == 0:
    same = os.path.samestat(jail.open(names).status, before.status)
    os._exit(77 if same and os.pread(before.file.fd, 100, 0) == b"plain.txt" else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(jail.open(names).status.st_size)
"""


def test_a_jail_may_be_inherited_by_a_fork(tree):
    command = [sys.executable, "-c", _FORKED, tree.root]
    said = subprocess.run(command, check=True, capture_output=True, timeout=DEADLINE_S).stdout
    assert said == b"77\n9\n"


@pytest.mark.parametrize("has_proc", [True, False])
def test_who_swaps_a_link_into_the_way_gains_nothing(tmp_path, way, has_proc, monkeypatch):
    if not has_proc:
        monkeypatch.setattr(module, "_HANDLES", "/nowhere")
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root, root / "folder", outside):
        folder.mkdir()
    (root / "file").write_bytes(b"inside")
    (root / "folder" / "file").write_bytes(b"inside")
    (outside / "file").write_bytes(hostile.CANARY)
    (root / "link").symlink_to("../outside/file")
    (root / "other").symlink_to(outside)
    jail = Jail(str(root), way=way)
    seen = {("file",): set(), ("folder", "file"): set()}
    swaps = [(root / "file", root / "link"), (root / "folder", root / "other")]
    with hostile.swapping(*swaps):
        for _ in range(3000):
            for parts, found in seen.items():
                try:
                    found.add(content(jail.open(parts)))
                except MissingError:
                    found.add(None)
    for found in seen.values():
        assert found == {b"inside", None}


#: A filter that answers openat2 with EPERM, as container engines do with calls they do not know.
_FILTERED = """
import ctypes, struct, sys
from prefork.share import openat2
from prefork.share.jail import Jail, MissingError

libc = ctypes.CDLL(None, use_errno=True)
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 437), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
fprog = ctypes.create_string_buffer(struct.pack("HP", len(code), ctypes.addressof(program)))
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
if libc.prctl(22, 2, fprog, 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
    sys.exit(77)
assert not openat2.is_available()
jail = Jail(sys.argv[1])
print(jail.open(("link to file",)).status.st_size)
try:
    jail.open(("out absolute",))
except MissingError:
    print("missing")
"""


def test_where_a_filter_forbids_openat2_the_walk_does_it(tree):
    done = subprocess.run(
        [sys.executable, "-c", _FILTERED, tree.root],
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    if done.returncode == 77:
        pytest.skip("this system takes no filters")
    assert (done.stdout, done.stderr) == ("9\nmissing\n", "")


# -- names --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("/", ()),
        ("/a/b.txt", ("a", "b.txt")),
        ("/a/b/", ("a", "b")),
        ("/a?b/c", ("a",)),
        ("/a?../..", ("a",)),
        ("/a#b", ("a",)),
        ("//a///b//", ("a", "b")),
        ("/./a/./b/.", ("a", "b")),
        ("/%2e/a/%2E", ("a",)),
        ("/a%20b", ("a b",)),
        ("/a+b", ("a+b",)),
        ("/a;b=c", ("a;b=c",)),
        ("/%C3%A9", ("é",)),
        ("/\xc3\xa9", ("é",)),
        ("/\xe9%FF", (os.fsdecode(b"\xe9\xff"),)),
        ("/%c0%af", (os.fsdecode(b"\xc0\xaf"),)),
        ("/%5C", ("\\",)),
        ("/..%5c..%5Cx", ("..\\..\\x",)),
        ("/%252e%252e", ("%2e%2e",)),
        ("/%252f", ("%2f",)),
        ("/%zz%", ("%zz%",)),
        ("/...", ("...",)),
        ("/a:b", ("a:b",)),
        ("/%0a%0d", ("\n\r",)),
        ("http://host/a", ("a",)),
        ("HTTPS://host:8000/a//b?c", ("a", "b")),
        ("http://host", ()),
        ("http://host?a", ()),
        ("http://user@[::1]:80/a", ("a",)),
        ("/http://host/a", ("http:", "host", "a")),
        ("/\u20ac", ("€",)),  # a program's own text
        ("", None),
        ("*", None),
        ("host:80", None),
        ("a/b", None),
        ("file:///etc/passwd", None),
        ("..", None),
        ("/..", None),
        ("/a/../b", None),
        ("/%2e%2e/a", None),
        ("/.%2E/", None),
        ("/a%2fb", None),
        ("/a%2Fb", None),
        ("/%2f..", None),
        ("/a\\b", None),
        ("/\\host", None),
        ("/a%00", None),
        ("/\0", None),
        ("http://host/..", None),
        ("http://host/a\\b", None),
        ("http://host\\..\\a", None),
    ],
)
def test_a_target_is_decoded_once_and_never_climbs(target, parts):
    assert parts_of(target) == parts


@pytest.mark.parametrize(
    ("target", "is_folder"),
    [
        ("/", True),
        ("/a", False),
        ("/a/", True),
        ("/a/?b", True),
        ("/a?b/", False),
        ("/a#/", False),
        ("/a/.", True),
        ("/a/%2E", True),
        ("/a.", False),
        ("http://host", True),
        ("http://host/a", False),
        ("http://host/a/", True),
    ],
)
def test_a_target_asks_for_a_folder_by_its_last_slash(target, is_folder):
    assert asks_folder(target) is is_folder


@pytest.mark.parametrize("name", [*hostile.NAMES, *hostile.FOLDERS])
def test_the_url_of_a_name_leads_to_it_and_nowhere_else(name):
    url = href(name, is_folder=False)
    joined = urllib.parse.urljoin("http://host/folder/", url)
    assert joined.startswith("http://host/folder/")
    assert parts_of(joined) == ("folder", name)
    assert not asks_folder(joined)
    assert not set(url) & set("\"'<>& \\?#\r\n\t`{}")
    assert url.isascii()
    assert href(name, is_folder=True) == f"{url}/"
    assert asks_folder(joined + "/")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("plain.txt", 'attachment; filename="plain.txt"'),
        ("two words;.txt", 'attachment; filename="two words;.txt"'),
        ("é.txt", "attachment; filename=\"_.txt\"; filename*=UTF-8''%C3%A9.txt"),
        ('a"b\\c', "attachment; filename=\"a_b_c\"; filename*=UTF-8''a%22b%5Cc"),
        ("100%41", "attachment; filename=\"100_41\"; filename*=UTF-8''100%2541"),
        ("a\r\nb", 'attachment; filename="a__b"'),
        ("a'(b)*", 'attachment; filename="a\'(b)*"'),
        ("é'(*)", "attachment; filename=\"_'(*)\"; filename*=UTF-8''%C3%A9%27%28%2A%29"),
        ("\u202etxt.exe", 'attachment; filename="_txt.exe"'),
        (os.fsdecode(b"\xff"), "attachment; filename=\"_\"; filename*=UTF-8''%EF%BF%BD"),
    ],
)
def test_a_download_is_named_in_both_ways_where_ascii_is_not_enough(name, value):
    assert disposition(name) == value


def test_what_is_shown_in_place_is_named_too():
    assert disposition("a.txt", "inline") == 'inline; filename="a.txt"'


@pytest.mark.parametrize("name", [*hostile.NAMES, *hostile.FOLDERS])
def test_no_name_breaks_out_of_its_header(name):
    value = disposition(name)
    assert value.isascii()
    assert value.isprintable()
    message = Message()
    message["Content-Disposition"] = value
    assert message.get_content_disposition() == "attachment"
    read = message.get_filename()
    assert "/" not in read
    shown = os.fsencode(name).decode("utf-8", "replace")
    assert len(read) == len(shown.strip(" "))  # the parser strips


def test_names_sort_as_people_count():
    names = [
        "1",
        "01",
        "2 beside",
        "10",
        "100000000000000000000000000000",
        "A",
        "a.txt",
        "file",
        "File1",
        "file2",
        "file02b",
        "file10",
        "file10a2",
        "file10a10",
        "files",
        "résumé 2",
        "resume 10",
        "v1.9.2",
        "v1.10.1",
        "日本2",
        "日本10",
    ]
    for order in (names, names[::-1], names[1::2] + names[::2]):
        assert sorted(order, key=lambda name: (natural_key(name), names.index(name))) == names
    assert natural_key("File007") == natural_key("file7")
    assert natural_key("E\u0301t\u00e9") == natural_key("ete") == natural_key("\u00c9TE\u0301")
    assert natural_key("") == ""
    for name in hostile.NAMES:
        assert isinstance(natural_key(name), str)


def test_a_name_has_up_to_three_forms():
    assert candidates("plain") == ("plain",)
    assert candidates("\u00e9") == ("\u00e9", "e\u0301")
    assert candidates("e\u0301") == ("e\u0301", "\u00e9")
    assert candidates("\u00e9e\u0301") == ("\u00e9e\u0301", "\u00e9\u00e9", "e\u0301e\u0301")
    assert candidates("\udcff\u00e9") == ("\udcff\u00e9", "\udcffe\u0301")
