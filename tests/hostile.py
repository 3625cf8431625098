"""A folder as nobody would wish it: names, links and nodes of every kind, and a canary outside it.

`build(tmp_path)` makes it in a second's fraction; a `Tree` says what is where. Names are text as
`os.fsdecode()` gives it, paths are tuples of names below the root.
"""

# ruff: noqa: PTH101, PTH102, PTH118, PTH211, RUF001 # names that look like others, and no Path

import contextlib
import os
import pwd
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

#: In no answer, ever: what stands outside the root.
CANARY = b"canary 6d1f0c5e outside of the root"

#: Of regular files in the root. The content of each is its name.
NAMES = (
    "plain.txt",
    "README.md",
    "two words.txt",
    " leading space",
    "trailing space ",
    "trailing dot.",
    "new\nline.txt",
    "carriage\rreturn.txt",
    "tab\tin it.txt",
    "controls \x01\x1b[31m\x7f.txt",
    "party 🎉🏳️‍🌈.txt",
    "日本語.txt",
    "עברית.txt",
    "right to left \u202etxt.exe",
    "zero\u200bwidth.txt",
    "line\u2028separator.txt",
    "\ufeffmark.txt",
    "<script>alert(1)",
    "<img src=x onerror=alert(2)>.html",
    "a\"b'c.txt",
    "\"><svg onload=alert(3)>'",
    "&amp;.txt",
    "{{7*7}}.txt",
    "{% include x %}",
    "${HOME} `id` $(id);",
    "%2e%2e",
    "%2e%2e%2f%2e%2e%2fcanary.txt",
    "%00",
    "%zz%",
    "100%.txt",
    "..\\",
    "..\\..\\canary.txt",
    "back\\slash.txt",
    "a\\..\\..\\canary.txt",
    "...",
    "hash#tag.txt",
    "what?.txt",
    "?zip",
    "a&b=c;d+e.txt",
    "first:segment.txt",
    "javascript:alert(4)",
    "http:",
    "C:",
    "NUL",
    "~",
    "-rf",
    "*",
    "[brackets].txt",
    "file2.txt",
    "file10.txt",
    "FILE3.TXT",
    "full．．width／slash.txt",
    "ﬁle ſ İ ß.txt",
    "caf\u00e9.txt",  # NFC
    "re\u0301sume\u0301.txt",  # NFD
    os.fsdecode(b"latin-1 \xe9\xff.txt"),
    os.fsdecode(b"overlong \xc0\xaf\xc0\xae.txt"),
    os.fsdecode(b"surrogates \xed\xa0\xbd\xed\xb8\x80.txt"),
    "n" * 251 + ".txt",  # 255 bytes
    "é" * 127 + "x",  # likewise
    "🎉" * 63,
)

#: Of folders in the root, each with a file "inside.txt".
FOLDERS = (
    "folder",
    "folder with spaces ",
    "new\nline",
    "<b>bold",
    "..\\up",
    "%2e%2e%2f",
    "colon:folder",
    "dots..",
    "Ele\u0301ments",  # NFD, with a file in NFC
    os.fsdecode(b"latin-1 \xfc"),
    "f" * 255,
)

#: Links: where they are, what they say ({root}, {outside}: their paths), what they lead to.
LINKS_INSIDE = (
    (("link to file",), "plain.txt", ("plain.txt",)),
    (("link to folder",), "folder", ("folder",)),
    (("link by ..",), "folder/../plain.txt", ("plain.txt",)),
    (("link with dots",), ".//folder/./inside.txt", ("folder", "inside.txt")),
    (("link with slash",), "folder/", ("folder",)),
    (("link absolute",), "{root}/plain.txt", ("plain.txt",)),
    (("link absolute folder",), "{root}/folder", ("folder",)),
    (("link to root",), ".", ()),
    (("link absolute to root",), "{root}", ()),
    (("link 1",), "link 2", ("plain.txt",)),
    (("link 2",), "{root}/link 3", ("plain.txt",)),
    (("link 3",), "folder/../link to file", ("plain.txt",)),
    (("folder", "link up"), "../plain.txt", ("plain.txt",)),
    (("folder", "link to parent"), "..", ()),
    (("folder", "link to itself"), ".", ("folder",)),
    (("link to hidden",), ".hidden", (".hidden",)),
)

#: Those that lead out.
LINKS_OUT = (
    (("out relative",), "../outside/canary.txt"),
    (("out absolute",), "{outside}/canary.txt"),
    (("out folder",), "../outside"),
    (("out absolute folder",), "{outside}"),
    (("out by a link",), "out absolute"),
    (("out by a folder",), "out folder/canary.txt"),
    (("out after the root",), "{root}/../outside/canary.txt"),
    (("out below",), "folder/../../outside/canary.txt"),
    (("out and back",), "../{name}/plain.txt"),
    (("out to top",), "/"),
    (("out to parent",), ".."),
    (("out many",), "../" * 40 + "etc/passwd"),
    (("out passwd",), "/etc/passwd"),
    (("out device",), "/dev/zero"),
    (("folder", "out"), "../../outside/canary.txt"),
)

#: Those that lead nowhere, or never to a file.
LINKS_LOST = (
    (("lost dangling",), "no such file"),
    (("lost dangling out",), "../outside/no such file"),
    (("lost loop a",), "lost loop b"),
    (("lost loop b",), "lost loop a"),
    (("lost itself",), "lost itself"),
    (("lost through a file",), "plain.txt/x"),
    (("lost file with slash",), "plain.txt/"),
    (("lost file with ..",), "plain.txt/../plain.txt"),
    (("lost magic root",), "/proc/self/root"),
    (("lost magic folder",), "/proc/self/cwd"),
    (("lost magic file",), "/proc/self/exe"),
    (("lost magic descriptor",), "/proc/self/fd/0"),
    (("lost fifo",), "fifo"),
    (("lost long",), "x" * 256),
)

#: Names of the deep path: 24 of 200 bytes, more than PATH_MAX (4096).
DEEP = tuple(f"deep {number:02}".ljust(200, "_") for number in range(24))


@dataclass
class Tree:
    """The root, and what is in it.

    files: content by path; folders: paths. linked: what a link inside leads to; out: links that
    leave; lost: nothing to be had, but by "follow" perhaps. hidden: what begins with a dot, or is
    below that; content by path, None for folders.
    special: nodes that are never opened. closed: not readable, but for root.
    """

    root: Path
    outside: Path
    files: dict = field(default_factory=dict)
    folders: set = field(default_factory=set)
    linked: dict = field(default_factory=dict)
    out: list = field(default_factory=list)
    lost: list = field(default_factory=list)
    hidden: dict = field(default_factory=dict)
    special: list = field(default_factory=list)
    closed: list = field(default_factory=list)

    def path(self, parts) -> str:
        return os.path.join(self.root, *parts)

    def add_file(self, *parts, content=None):
        content = os.fsencode(parts[-1]) if content is None else content
        Path(self.path(parts)).write_bytes(content)
        (self.hidden if is_hidden(parts) else self.files)[parts] = content

    def add_folder(self, *parts):
        os.mkdir(self.path(parts))
        if is_hidden(parts):
            self.hidden[parts] = None
        else:
            self.folders.add(parts)

    def add_link(self, parts, text):
        named = {"root": self.root, "outside": self.outside, "name": self.root.name}
        os.symlink(text.format(**named), self.path(parts))


def is_hidden(parts) -> bool:
    return any(name.startswith(".") for name in parts)


@contextlib.contextmanager
def unprivileged():
    """Be nobody for a moment, as far as files go, if this is root, whom no permission binds."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


def build(place: Path) -> Tree:
    """Make the tree as place/root, and place/outside beside it; who may pass may read it."""
    tree = Tree(place / "root", place / "outside")
    tree.root.mkdir()
    tree.outside.mkdir()
    (tree.outside / "canary.txt").write_bytes(CANARY)
    (tree.outside / "folder").mkdir()
    (tree.outside / "inside.txt").write_bytes(CANARY)
    tree.folders.add(())
    for name in NAMES:
        tree.add_file(name)
    for name in FOLDERS:
        tree.add_folder(name)
        tree.add_file(name, "inside.txt")
    tree.add_file("Ele\u0301ments", "\u00e9t\u00e9.txt")
    tree.add_folder("empty")
    tree.add_file("nothing in it", content=b"")
    _add_deep(tree)
    _add_links(tree)
    _add_hidden(tree)
    _add_nodes(tree)
    _add_closed(tree)
    return tree


def _add_deep(tree):
    """By descriptors: the whole path is too long for any call."""
    fd = os.open(tree.root, os.O_RDONLY)
    for depth, name in enumerate(DEEP, 1):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
        tree.folders.add(DEEP[:depth])
    file = os.open("bottom.txt", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd)
    os.write(file, b"bottom.txt")
    os.close(file)
    os.symlink("../" * len(DEEP) + "plain.txt", "link up", dir_fd=fd)
    os.close(fd)
    tree.files[(*DEEP, "bottom.txt")] = b"bottom.txt"
    tree.linked[(*DEEP, "link up")] = ("plain.txt",)


def _add_links(tree):
    for parts, text, leads_to in LINKS_INSIDE:
        tree.add_link(parts, text)
        tree.linked[parts] = leads_to
    for parts, text in LINKS_OUT:
        tree.add_link(parts, text)
        tree.out.append(parts)
    for parts, text in LINKS_LOST:
        tree.add_link(parts, text)
        tree.lost.append(parts)


def _add_hidden(tree):
    for name in (".hidden", "..hidden", ".htpasswd"):
        tree.add_file(name)
    tree.add_folder(".git")
    tree.add_file(".git", "config")


def _add_nodes(tree):
    os.mkfifo(tree.path(("fifo",)))
    os.mknod(tree.path(("socket",)), stat.S_IFSOCK | 0o600)
    tree.special += [("fifo",), ("socket",)]
    try:
        os.mknod(tree.path(("device",)), stat.S_IFCHR | 0o666, os.makedev(1, 5))  # zero
    except PermissionError:
        return  # only root makes one, and not in each container
    tree.special.append(("device",))


def _add_closed(tree):
    os.mkdir(tree.path(("closed",)))
    Path(tree.path(("closed", "inside.txt"))).write_bytes(b"closed")
    Path(tree.path(("closed.txt",))).write_bytes(b"closed")
    os.chmod(tree.path(("closed",)), 0)
    os.chmod(tree.path(("closed.txt",)), 0)
    tree.closed += [("closed",), ("closed", "inside.txt"), ("closed.txt",)]


#: Exchanges two names as fast as it can, until nobody holds its stdin any more.
_SWAP = """
import ctypes, os, select, sys

libc = ctypes.CDLL(None, use_errno=True)
one, other = map(os.fsencode, sys.argv[1:])
print("swapping", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    for _ in range(100):
        if libc.renameat2(-100, one, -100, other, 2):  # AT_FDCWD, RENAME_EXCHANGE
            sys.exit(os.strerror(ctypes.get_errno()))
"""


@contextlib.contextmanager
def swapping(*pairs):
    """Have a process for each pair of paths, which exchanges them without a pause."""
    with contextlib.ExitStack() as stack:
        for one, other in pairs:
            command = [sys.executable, "-c", _SWAP, one, other]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            swapper = stack.enter_context(subprocess.Popen(command, **pipes))
            assert swapper.stdout.readline() == b"swapping\n"
            stack.callback(_end, swapper)
        yield


def _end(swapper):
    assert swapper.poll() is None
    swapper.stdin.close()
    assert swapper.wait(20) == 0
