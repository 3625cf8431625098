"""Archives of folders: their bytes by any way, what other programs make of them, and changes."""

import contextlib
import errno
import io
import itertools
import os
import random
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import hostile
import pytest
from archive_kit import OLD_S, archives, bytes_of, remembering, run, tarred, zipped

from prefork.share.archive import stream
from prefork.share.archive.crcfile import CrcFile, Known
from prefork.share.archive.crcs import Crcs
from prefork.share.archive.identity import Identity, identity_of
from prefork.share.archive.stream import ChangedError
from prefork.share.archive.walk import TooManyError

LARGE = 3_000_000


@pytest.fixture
def folder(tmp_path):
    """A folder with files of every size that matters, empty folders and links."""
    root = tmp_path / "root"
    (root / "empty").mkdir(parents=True)
    (root / "sub" / "deeper").mkdir(parents=True)
    some = random.Random(6)
    for name, size in {
        "a.txt": 5,
        "none": 0,
        "steps.bin": 262_144,
        "sub/small.bin": 65_536,
        "sub/medium.bin": 65_537,
        "sub/deeper/large.bin": LARGE,
        "sub/deeper/ü €.txt": 700,
    }.items():
        (root / name).write_bytes(some.randbytes(size))
    (root / "link").symlink_to("a.txt")
    (root / "shortcut").symlink_to("sub/deeper")
    for path in root.rglob("*"):
        os.utime(path, (OLD_S, OLD_S), follow_symlinks=False)
    return root


def contents(root):
    """Return what is to be in an archive: paths below its top → content, None for folders."""
    found = {}
    for place, folders, files in os.walk(root, followlinks=True):
        below = Path(place).relative_to(root)
        found |= {f"top/{(below / name).as_posix()}/": None for name in folders}
        found |= {f"top/{(below / name).as_posix()}": (root / below / name) for name in files}
    return {"top/": None} | {
        name: None if path is None else path.read_bytes() for name, path in found.items()
    }


def all_of(archive):
    data = bytes_of(archive.pieces(0, archive.size))
    assert len(data) == archive.size
    return data


@pytest.fixture
def stored(folder, tmp_path):
    """The folder as a zip and as a tar, in files."""
    paths = tmp_path / "x.zip", tmp_path / "x.tar"
    paths[0].write_bytes(all_of(zipped(folder)))
    paths[1].write_bytes(all_of(tarred(folder)))
    return paths


def test_a_zip_has_what_the_folder_has(folder):
    with zipfile.ZipFile(io.BytesIO(all_of(zipped(folder)))) as archive:
        assert archive.testzip() is None
        found = {
            info.filename: None if info.is_dir() else archive.read(info)
            for info in archive.infolist()
        }
        assert archive.getinfo("top/a.txt").date_time == time.localtime(OLD_S)[:6]
    assert found == contents(folder)
    assert "top/empty/" in found
    assert "top/shortcut/large.bin" in found


def test_a_tar_has_what_the_folder_has(folder):
    with tarfile.open(fileobj=io.BytesIO(all_of(tarred(folder)))) as archive:
        found = {
            f"{member.name}/" if member.isdir() else member.name: None
            if member.isdir()
            else archive.extractfile(member).read()
            for member in archive
        }
        assert {member.mtime for member in archive} >= {OLD_S}
    assert found == contents(folder)


@pytest.mark.parametrize(
    "command",
    [
        ("unzip", "-tq"),
        ("zipinfo", "-v"),
        ("7z", "t"),
        ("bsdtar", "-tvf"),
        (sys.executable, "-m", "zipfile", "-t"),
    ],
    ids=lambda command: Path(command[0]).name,
)
def test_other_programs_take_the_zip(stored, command):
    said = run(*command, stored[0])
    assert "warning" not in said.lower()


@pytest.mark.parametrize("program", ["tar", "bsdtar", "7z"])
def test_other_programs_take_the_tar(stored, program):
    run(program, *(("t",) if program == "7z" else ("-tf",)), stored[1])


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_bsdtar_unpacks_either_from_a_pipe(stored, folder, tmp_path, kind):
    out = tmp_path / "out"
    out.mkdir()
    with stored[kind == "tar"].open("rb") as file:
        feeder = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE)
        run("bsdtar", "-xf", "-", "-C", str(out), stdin=feeder.stdout)
        feeder.stdout.close()
        assert feeder.wait(10) == 0
    assert contents(out / "top") == contents(folder)
    assert (out / "top" / "a.txt").stat().st_mtime == OLD_S


@pytest.mark.parametrize("make", [zipped, tarred])
def test_parts_joined_are_the_whole(folder, make):
    archive = make(folder)
    whole = all_of(archive)
    some = random.Random(66)
    for _ in range(40):
        cuts = sorted(some.sample(range(1, archive.size), 4))
        bounds = [0, *cuts, archive.size]
        fresh = make(folder)  # with no checksums known
        parts = [bytes_of(fresh.pieces(*pair)) for pair in itertools.pairwise(bounds)]
        assert b"".join(parts) == whole


def test_each_byte_can_be_had_alone(folder):
    archive = zipped(folder)
    whole = all_of(archive)
    # Where heads, sums and records stand: all but the bytes of large files.
    for start in [*range(3000), *range(archive.size - 3000, archive.size)]:
        assert bytes_of(archive.pieces(start, start + 1)) == whole[start : start + 1]


def test_parts_without_the_bytes_before_them_have_the_right_sums(folder):
    whole = all_of(zipped(folder))
    for start in (1, len(whole) // 2, len(whole) - 1000, len(whole) - 22):
        assert bytes_of(zipped(folder).pieces(start, len(whole))) == whole[start:]


def test_a_zip_is_the_same_with_sums_that_are_known_already(folder):
    crcs = remembering()
    first = all_of(zipped(folder, crcs=crcs))
    large = folder / "sub/deeper/large.bin"
    assert crcs.begun(identity_of(large.stat())) == (LARGE, zlib.crc32(large.read_bytes()))
    assert all_of(zipped(folder, crcs=crcs)) == first


def test_what_was_summed_up_before_the_client_went_is_remembered(folder):
    crcs = remembering()
    archive = zipped(folder, crcs=crcs)
    pieces = archive.pieces(0, archive.size)
    taken = 0
    while taken < LARGE:
        taken += len(next(pieces))
    pieces.close()
    large = identity_of((folder / "sub/deeper/large.bin").stat())
    done, crc = crcs.begun(large)
    assert 0 < done < LARGE
    assert crc == zlib.crc32((folder / "sub/deeper/large.bin").read_bytes()[:done])
    assert bytes_of(archive.pieces(taken, archive.size)) == all_of(zipped(folder))[taken:]


def test_what_changed_a_moment_ago_is_not_remembered(folder):
    crcs = Crcs(None, 1 << 20)
    archive = zipped(folder, crcs=crcs)
    assert all_of(archive) == all_of(zipped(folder))
    assert crcs.begun(identity_of((folder / "a.txt").stat())) == (0, 0)


def test_steps_are_short(folder):
    (folder / "zeros.bin").touch()
    os.truncate(folder / "zeros.bin", 64 << 20)
    archive = zipped(folder)
    tail = list(archive.pieces(archive.size - 22, archive.size))
    assert next(piece for piece in tail if piece)[:4] == b"PK\5\6"
    # The whole's sums are needed for the directory: it is made between others' turns.
    archive = zipped(folder)
    pieces = list(archive.pieces(archive.size - 2000, archive.size))
    assert b"" in pieces


# -- the name for it all, and what is in it -----------------------------------------


def test_an_etag_is_strong_and_tells_any_change(folder):
    def tag(name="top", make=zipped):
        return make(folder, name=name).etag

    first = tag()
    assert first == tag()
    assert first[0] == first[-1] == '"'
    tags = {first, tag("other"), tag(make=tarred)}
    (folder / "new").touch()
    tags.add(tag())
    os.utime(folder / "a.txt", (OLD_S + 1, OLD_S + 1))
    tags.add(tag())
    (folder / "sub" / "small.bin").rename(folder / "sub" / "other.bin")
    tags.add(tag())
    (folder / "sub" / "other.bin").chmod(0o600)
    tags.add(tag())
    assert len(tags) == 7


def test_a_plan_is_kept_for_a_moment_and_made_anew_when_it_proves_wrong(folder):
    made, opened = archives(folder)
    first = made.zip_of(opened, "top")
    os.utime(folder / "sub/deeper/large.bin", (OLD_S, OLD_S + 5))
    again = made.zip_of(opened, "top")
    assert again.etag == first.etag
    with pytest.raises(ChangedError):
        all_of(again)
    new = made.zip_of(opened, "top")
    assert new.etag != first.etag
    assert zipfile.ZipFile(io.BytesIO(all_of(new))).testzip() is None


def test_who_asks_for_all_of_it_gets_a_newer_plan_than_who_asks_for_parts(folder):
    made, opened = archives(folder)
    first = made.zip_of(opened, "top").etag
    (folder / "sub" / "deeper" / "new").touch()
    for slot in made._slots.values():
        slot.fresh_until_s = 0.0  # some seconds later
    assert made.zip_of(opened, "top", is_part=True).etag == first
    new = made.zip_of(opened, "top")
    assert new.etag != first
    assert "top/sub/deeper/new" in zipfile.ZipFile(io.BytesIO(all_of(new))).namelist()
    assert made.zip_of(opened, "top", is_part=True).etag == new.etag


def test_a_change_of_the_folder_itself_is_seen_at_once(folder):
    made, opened = archives(folder)
    first = made.zip_of(opened, "top").etag
    (folder / "new").touch()
    made2, opened = archives(folder)
    assert made.zip_of(opened, "top").etag == made2.zip_of(opened, "top").etag != first


def test_many_folders_do_not_pile_up(tmp_path):
    made, _ = archives(tmp_path)
    for number in range(20):
        (tmp_path / str(number)).mkdir()
        made.zip_of(made._jail.open((str(number),)), "top")
    assert len(made._slots) <= 8


def test_a_hostile_folder_becomes_an_archive_that_unpacks_below_one_folder(tmp_path):
    tree = hostile.build(tmp_path)
    data = all_of(zipped(tree.root))
    assert hostile.CANARY not in data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    assert len(set(names)) == len(names)
    for name in names:
        assert name.startswith("top/")
        assert ".." not in name.split("/")
        assert not set(name) & {"\\", "\n", "\r", "\0"}
    files = [name for name in names if not name.endswith("/")]
    assert len(files) >= len(tree.files)
    (tmp_path / "x.zip").write_bytes(data)
    for program in (("7z", "t"), ("bsdtar", "-tf"), (sys.executable, "-m", "zipfile", "-t")):
        run(*program, tmp_path / "x.zip")
    # It warns of paths that are too long for it.
    assert "At least one warning" in run("unzip", "-tq", tmp_path / "x.zip", fails=True)


def test_a_hostile_folder_keeps_its_names_in_a_tar(tmp_path):
    tree = hostile.build(tmp_path)
    data = all_of(tarred(tree.root))
    assert hostile.CANARY not in data
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        found = {
            tuple(member.name.split("/")[1:]): archive.extractfile(member).read()
            for member in archive
            if member.isreg()
        }
    found.pop(("NOT INCLUDED.txt",))
    assert tree.files.items() <= found.items()
    (tmp_path / "x.tar").write_bytes(data)
    for program in (("7z", "t"), ("bsdtar", "-tf"), ("tar", "-tf")):
        run(*program, tmp_path / "x.tar")


def test_what_cannot_be_read_is_named_in_the_archive():
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place.chmod(0o755)  # pytest's own folder may not be passed by others
        tree = hostile.build(place)
        stack.enter_context(hostile.unprivileged())
        archive = zipped(tree.root)
        with zipfile.ZipFile(io.BytesIO(all_of(archive))) as found:
            assert found.namelist()[-1] == "top/NOT INCLUDED.txt"
            lines = found.read("top/NOT INCLUDED.txt").decode().splitlines()
            assert not [name for name in found.namelist() if name.startswith("top/closed")]
        assert zipped(tree.root).etag == archive.etag
    assert "closed (no permission)" in lines
    assert "closed.txt (no permission)" in lines
    assert "folder/link to parent (a link in a circle)" in lines
    assert not [line for line in lines if "fifo" in line or ".git" in line]


def test_a_note_takes_no_files_name(tmp_path):
    (tmp_path / "NOT INCLUDED.txt").write_text("a file")
    (tmp_path / "round").symlink_to(".")
    with zipfile.ZipFile(io.BytesIO(all_of(zipped(tmp_path)))) as archive:
        assert archive.read("top/NOT INCLUDED.txt") == b"a file"
        assert b"round (a link in a circle)" in archive.read("top/NOT INCLUDED~2.txt")


def test_names_that_become_the_same_stay_two_files(tmp_path):
    (tmp_path / "a\\b").mkdir()
    (tmp_path / "a\\b" / "x\ny").write_text("1")
    (tmp_path / "a%5Cb").mkdir()
    (tmp_path / "a%5Cb" / "x").write_text("2")
    with zipfile.ZipFile(io.BytesIO(all_of(zipped(tmp_path)))) as archive:
        found = {name: archive.read(name) for name in archive.namelist() if name[-1] != "/"}
    assert found == {"top/a%5Cb/x": b"2", "top/a%5Cb~2/x%0Ay": b"1"}


def test_folders_full_of_links_to_each_other_end(tmp_path):
    names = [f"{number:02}" for number in range(12)]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
        for other in names:
            (tmp_path / name / f"to {other}").symlink_to(f"../{other}")
    with zipfile.ZipFile(io.BytesIO(all_of(zipped(tmp_path)))) as archive:
        found = archive.namelist()
        assert {f"top/{name}/file" for name in names} <= set(found)
        assert {f"top/00/to {name}/file" for name in names[1:]} <= set(found)
        assert b"a link in a circle" in archive.read("top/NOT INCLUDED.txt")
    assert len(found) < 1000


def test_a_folder_of_more_than_an_archive_may_have_is_refused(folder, monkeypatch):
    monkeypatch.setattr("prefork.share.archive.walk._MOST_ENTRIES", 10)
    with pytest.raises(TooManyError, match="more than 10 files"):
        zipped(folder)


def test_more_files_in_one_folder_than_an_archive_may_have_are_not_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("prefork.share.archive.walk._MOST_ENTRIES", 10)
    for number in range(12):
        (tmp_path / f"{number}").touch()
    with pytest.raises(TooManyError, match="more than 10 files"):
        zipped(tmp_path)


def test_no_file_is_left_out_because_the_system_is_short_of_something(folder):
    other = folder.parent / "other"
    other.mkdir()
    (other / "file").touch()
    (folder / "sub" / "elsewhere").symlink_to(other / "file")
    made, opened = archives(folder, symlinks="follow")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/dev/null", os.O_RDONLY)
    os.close(free)
    found, room = None, 0
    while found is None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + room, hard))
        try:
            found = made.zip_of(opened, "top")
        except OSError as error:
            assert error.errno == errno.EMFILE  # noqa: PT017 # or it has all of it
            room += 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert room
    with zipfile.ZipFile(io.BytesIO(all_of(found))) as archive:
        assert "top/NOT INCLUDED.txt" not in archive.namelist()
        assert "top/sub/elsewhere" in archive.namelist()


@pytest.mark.parametrize(("symlinks", "there"), [("inside", 1), ("follow", 2), ("never", 0)])
def test_links_are_followed_as_the_share_does(tmp_path, symlinks, there):
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").write_text("o")
    (tmp_path / "root" / "file").write_text("f")
    (tmp_path / "root" / "in").symlink_to("file")
    (tmp_path / "root" / "out").symlink_to(tmp_path / "outside")
    made, opened = archives(tmp_path / "root", symlinks=symlinks)
    with zipfile.ZipFile(io.BytesIO(all_of(made.zip_of(opened, "top")))) as archive:
        assert archive.namelist() == ["top/", "top/file", "top/in", "top/out"][: 2 + there]


# -- changes on the way ---------------------------------------------------------------


def wait_for_tick(path):
    """Wait until a change would get another time than the last one of a file."""
    other = path.with_name("tick")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        other.write_bytes(b"")
        if other.stat().st_ctime_ns > path.stat().st_ctime_ns:
            other.unlink()
            return
    raise AssertionError("the clock of the file system stands still")


def rewrite(path):
    """Write other bytes of the same number, and put the time back."""
    with path.open("r+b") as file:
        file.seek(LARGE - 5)
        file.write(b"other")
    os.utime(path, (OLD_S, OLD_S))


def grow(path):
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path):
    os.truncate(path, LARGE - 1)


def replace(path):
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, (OLD_S, OLD_S))
    other.replace(path)


CHANGES = [rewrite, grow, shrink, replace, Path.unlink]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("known", [False, True], ids=["summing", "known"])
@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_a_file_that_changes_on_the_way_breaks_the_transfer(tmp_path, change, known, moment):
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").write_bytes(bytes(200_000))
    victim = root / "b"
    victim.write_bytes(os.urandom(LARGE))
    os.utime(victim, (OLD_S, OLD_S))
    crcs = remembering()
    if known:
        all_of(zipped(root, crcs=crcs))
    archive = zipped(root, crcs=crcs)
    wait_for_tick(tmp_path / "root")
    pieces = archive.pieces(0, archive.size)
    taken = 0
    while taken < (100_000 if moment == "before" else 500_000):
        taken += len(next(pieces))
    change(victim)
    with pytest.raises(OSError):  # noqa: PT011 # gone is another error than changed
        bytes_of(pieces)


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_part_of_a_file_is_not_completed_when_that_changes(tmp_path, make):
    victim = tmp_path / "b"
    victim.write_bytes(bytes(LARGE))
    os.utime(victim, (OLD_S, OLD_S))
    archive = make(tmp_path)
    pieces = archive.pieces(2_000, 2_000_000)
    assert len(next(pieces)) < 500_000
    os.utime(victim, (OLD_S, OLD_S + 1))
    with pytest.raises(ChangedError):
        bytes_of(pieces)


def test_something_is_sent_while_a_long_sum_is_made(folder, monkeypatch):
    monkeypatch.setattr(stream, "_SILENT_S", 0.0)
    monkeypatch.setattr(stream, "_STEP_S", 0.0)
    whole = all_of(zipped(folder))
    archive = zipped(folder)
    start = whole.index((folder / "sub/deeper/large.bin").read_bytes()) + LARGE - 100_000
    pieces = list(archive.pieces(start, archive.size))
    assert b"".join(pieces) == whole[start:]
    assert len(next(filter(None, pieces))) == 1024


def test_a_file_in_a_fifos_place_is_not_waited_for(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    archive = zipped(tmp_path)
    (tmp_path / "a").unlink()
    os.mkfifo(tmp_path / "a")
    with pytest.raises(OSError):  # noqa: PT011 # of the jail
        all_of(archive)


# -- above 4 GB --------------------------------------------------------------------------


def test_a_file_above_4_gb_is_sent_in_parts_and_found_by_other_programs(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "big").touch()
    os.truncate(root / "big", (4 << 30) + 5)
    (root / "small").write_bytes(b"behind it")
    # Known: to sum up 4 GB takes seconds, which the other tests do with less.
    crcs = remembering()
    crcs.note(identity_of((root / "big").stat()), (4 << 30) + 5, 0xB1C2A1A3, time.time_ns())
    archive = zipped(root, crcs=crcs)
    path = tmp_path / "x.zip"
    with path.open("wb") as file:
        file.truncate(archive.size)
        # What is between is zeros, which a sparse file has.
        for start, stop in [(0, 1 << 20), (4 << 30, archive.size)]:
            assert os.pwrite(file.fileno(), bytes_of(archive.pieces(start, stop)), start) == (
                stop - start
            )
    with zipfile.ZipFile(path) as found:
        assert found.getinfo("top/big").file_size == (4 << 30) + 5
        assert found.getinfo("top/big").CRC == 0xB1C2A1A3
        assert found.read("top/small") == b"behind it"
    assert "3 files" in run("zipinfo", "-t", path)
    assert "Warnings" not in run("7z", "l", path)
    run("unzip", "-tq", path, "top/small")
    assert run("bsdtar", "-tf", path).split() == ["top/", "top/big", "top/small"]
    assert run("bsdtar", "-xOf", path, "top/small") == "behind it"


# -- checksums that are kept ----------------------------------------------------------------

#: Of files long ago, so that they are remembered.
WRITER = """
import sys, time
from prefork.share.archive.crcs import Crcs
from prefork.share.archive.identity import Identity
crcs = Crcs(sys.argv[1], 1 << 20)
print("ready", flush=True)
sys.stdin.readline()
for ino in range(int(sys.argv[2]), int(sys.argv[3])):
    crcs.note(Identity(1, ino, 5, 6, 7), 5, ino, time.time_ns())
    if ino % 100 == 0:
        thread = crcs.flush()
        if thread: thread.join()
thread = crcs.flush()
while crcs._fresh:
    thread = crcs.flush() or thread
    if thread: thread.join()
"""


def row(ino, *, size=5, done=None, crc=None):
    return Known(Identity(1, ino, size, 6, 7), size if done is None else done, crc or ino)


def test_two_processes_write_sums_at_once_and_a_third_reads_all(tmp_path):
    bounds = (0, 1500, 3000)
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", WRITER, tmp_path, str(first), str(last)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            for first, last in itertools.pairwise(bounds)
        ]
        for writer in writers:
            assert writer.stdout.readline() == b"ready\n"
        for writer in writers:
            writer.stdin.write(b"go\n")
            writer.stdin.flush()
        for writer in writers:
            assert writer.wait(30) == 0
    crcs = Crcs(str(tmp_path), 1 << 20)
    crcs.open()
    assert [crcs.begun(row(ino).identity) for ino in range(3000)] == [
        (5, ino) for ino in range(3000)
    ]
    assert crcs.begun(Identity(1, 5, 5, 6, 8)) == (0, 0)  # touched since


def test_the_file_of_sums_is_bounded_and_the_oldest_go(tmp_path):
    limit = 1 << 20
    file = CrcFile(str(tmp_path), limit)
    for first in range(0, 30_000, 500):
        assert file.write([row(ino) for ino in range(first, first + 500)])
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) < limit * 3 // 2
    assert file.read(1, 29_999) == row(29_999)
    assert file.read(1, 0) is None
    file.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= limit


def test_memory_for_sums_is_bounded():
    crcs = Crcs(None, 45_000)
    for ino in range(1000):
        crcs.note(row(ino).identity, 5, ino, time.time_ns())
    assert crcs.begun(row(0).identity) == (0, 0)
    assert crcs.begun(row(999).identity) == (5, 999)
    assert len(crcs._fresh) <= 100


def test_a_longer_part_of_a_file_is_not_replaced_by_a_shorter_one(tmp_path):
    file = CrcFile(str(tmp_path), 1 << 20)
    file.write([row(1, size=100, done=60)])
    file.write([row(1, size=100, done=50)])
    assert file.read(1, 1) == row(1, size=100, done=60)
    file.write([row(1, size=100)])
    file.write([row(1, size=100, done=70)])
    assert file.read(1, 1) == row(1, size=100)


@pytest.mark.parametrize("garbage", [b"", b"no database", b"SQLite format 3\0" + bytes(200)])
def test_a_file_that_is_no_database_is_made_anew(tmp_path, garbage):
    file = CrcFile(str(tmp_path), 1 << 20)
    (tmp_path / "crc32-1.sqlite").write_bytes(garbage)
    file.open()
    assert file.read(1, 1) is None
    assert file.write([row(1)])
    assert file.read(1, 1) == row(1)


def test_damaged_sums_are_not_believed(tmp_path):
    file = CrcFile(str(tmp_path), 1 << 20)
    file.write([row(ino) for ino in range(2_000)])
    file.close()
    path = tmp_path / "crc32-1.sqlite"
    data = bytearray(path.read_bytes())
    some = random.Random(666)
    for _ in range(300):
        data[some.randrange(4096, len(data))] ^= 1 << some.randrange(8)
    path.write_bytes(data)
    file = CrcFile(str(tmp_path), 1 << 20)
    file.open()
    found = [file.read(1, ino) for ino in range(2_000)]
    assert all(known is None or known == row(ino) for ino, known in enumerate(found))
    file.write([row(ino) for ino in range(2_000)])
    assert file.write([row(1)])
    assert file.read(1, 1) == row(1)


def test_one_who_finds_the_file_made_anew_by_another_goes_on_with_it(tmp_path):
    first, second = (CrcFile(str(tmp_path), 1 << 20) for _ in range(2))
    first.write([row(1)])
    second.write([row(2)])
    (tmp_path / "crc32-1.sqlite").write_bytes(b"garbage" * 1000)
    assert first.write([row(3)])
    assert second.write([row(4)])
    third = CrcFile(str(tmp_path), 1 << 20)
    third.open()
    assert third.read(1, 3) == row(3)
    assert third.read(1, 4) == row(4)


def test_sums_are_read_from_the_file_that_is_there(tmp_path):
    first, second = (CrcFile(str(tmp_path), 1 << 20) for _ in range(2))
    first.write([row(1)])
    second.open()
    for path in tmp_path.iterdir():
        path.unlink()
    assert first.write([row(2)])
    assert first.read(1, 2) == row(2)
    second.open()
    assert second.read(1, 1) is None
    assert second.read(1, 2) == row(2)


def test_without_a_place_for_it_sums_stay_in_memory(tmp_path):
    (tmp_path / "file").touch()
    crcs = Crcs(str(tmp_path / "file"), 1 << 20)
    crcs.open()
    crcs.note(row(1).identity, 5, 1, time.time_ns())
    if (thread := crcs.flush()) is not None:
        thread.join()
    assert crcs.begun(row(1).identity) == (5, 1)


def test_workers_share_sums(folder, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    crcs = remembering(str(cache))
    archive = zipped(folder, crcs=crcs)
    whole = all_of(archive)
    while crcs._fresh:
        if (thread := crcs.flush()) is not None:
            thread.join()
    others = remembering(str(cache))
    other = zipped(folder, crcs=others)
    large = folder / "sub/deeper/large.bin"
    assert others.begun(identity_of(large.stat())) == (LARGE, zlib.crc32(large.read_bytes()))
    assert bytes_of(other.pieces(0, other.size)) == whole
