"""Archives without a server: plans of files that need not be there, and what pieces are made of."""

import os
import shutil
import stat
import subprocess
from types import SimpleNamespace

import pytest

from prefork.share.archive.archives import Archives
from prefork.share.archive.crcs import Crcs
from prefork.share.archive.plan import Plan
from prefork.share.jail import Jail

OLD_S = 1_700_000_000
MTIME_S = 1_600_000_000  # 2020-09-13 12:26:40 UTC


def status(size=0, mtime_s=MTIME_S, *, folder=False, ino=1, mode=0o644):
    kind = stat.S_IFDIR if folder else stat.S_IFREG
    return SimpleNamespace(
        st_mode=kind | mode,
        st_size=size,
        st_mtime_ns=int(mtime_s * 10**9),
        st_ctime_ns=MTIME_S * 10**9,
        st_dev=1,
        st_ino=ino,
    )


def plan(*entries, name="top"):
    """Return a plan: paths that end in "/" are folders, others have a size."""
    made = Plan(name)
    made.add(b"", None, status(folder=True, mode=0o755))
    for path, size in entries:
        is_folder = path.endswith("/")
        made.add(os.fsencode(path.rstrip("/")), None, status(size, folder=is_folder))
    return made


def write(path, layout, crcs):
    """Write an archive of zeros as a sparse file. crcs: of each entry."""
    with path.open("wb") as file:
        file.truncate(layout.size)
        for number, start in enumerate(layout.starts[:-1]):
            os.pwrite(file.fileno(), layout.head(number), start)
            foot = layout.foot(number, crcs[number])
            os.pwrite(file.fileno(), foot, layout.starts[number + 1] - len(foot))
        for number, start in enumerate(layout.records[:-1]):
            os.pwrite(file.fileno(), layout.record(number, crcs[number]), start)
        os.pwrite(file.fileno(), layout.end(), layout.records[-1])


def bytes_of(pieces) -> bytes:
    """Take pieces as a connection does: one when the last has gone."""
    out = bytearray()
    for piece in pieces:
        # Of a file itself, what is on its way could still be changed.
        assert isinstance(piece, bytes)
        assert len(piece) <= 1 << 18
        out += piece
    return bytes(out)


def archives(root, crcs=None, **options):
    """Return archives of a folder, and the folder open."""
    jail = Jail(str(root), **options)
    return Archives(jail, crcs or remembering()), jail.open(())


def remembering(directory=None, limit_bytes=1 << 20):
    """Return checksums that are remembered though their files were made this moment."""
    return Crcs(directory, limit_bytes, settled_s=0)


def zipped(root, name="top", crcs=None):
    made, folder = archives(root, crcs)
    return made.zip_of(folder, name)


def tarred(root, name="top"):
    made, folder = archives(root)
    return made.tar_of(folder, name)


def run(*command, stdin=None, fails=False):
    """Run a program that understands archives; return what it says."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]}")
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"},
    )
    if not fails:
        assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
    return os.fsdecode(done.stdout + done.stderr)
