"""Layouts of archives: each byte's place, and what the programs of others make of it."""

import io
import tarfile
import time
import zipfile
import zlib
from types import SimpleNamespace

import pytest
from archive_kit import MTIME_S, plan, run, status, write

from prefork.share.archive.arcnames import arc_name, is_fit, top_name, unique
from prefork.share.archive.plan import Plan
from prefork.share.archive.tar import Tar
from prefork.share.archive.zip import Zip, dos_time

FULL = 0xFFFFFFFF
MEMBERS = (("a.txt", 5), ("empty.txt", 0), ("folder/", 0), ("folder/b.bin", 70_000))


def made(layout, crcs) -> bytes:
    """Return a layout's bytes, with zeros for the files'."""
    out = bytearray(layout.size)
    for number, start in enumerate(layout.starts[:-1]):
        head, foot = layout.head(number), layout.foot(number, crcs[number])
        out[start : start + len(head)] = head
        stop = layout.starts[number + 1]
        out[stop - len(foot) : stop] = foot
    for number, start in enumerate(layout.records[:-1]):
        record = layout.record(number, crcs[number])
        assert len(record) == layout.records[number + 1] - start
        out[start : start + len(record)] = record
    end = layout.end()
    assert layout.records[-1] + len(end) == layout.size
    out[-len(end) :] = end
    return bytes(out)


def crcs_of(planned):
    return [zlib.crc32(bytes(size)) for size in planned.sizes]


def test_a_zip_has_its_entries_in_their_order_with_times_and_modes():
    planned = plan(*MEMBERS)
    with zipfile.ZipFile(io.BytesIO(made(Zip(planned), crcs_of(planned)))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["top/", *(f"top/{path}" for path, _ in MEMBERS)]
        for info in archive.infolist():
            assert info.date_time == time.localtime(MTIME_S)[:6]
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.flag_bits == (0x808 if info.file_size else 0x800)
        assert archive.getinfo("top/a.txt").external_attr >> 16 == 0o100644
        assert archive.getinfo("top/").external_attr == 0o40755 << 16 | 0x10


def test_a_local_header_tells_sizes_for_who_reads_a_pipe_and_leaves_the_sum_to_what_follows():
    planned = plan(("a.txt", 5))
    layout = Zip(planned)
    head = layout.head(1)
    assert head[14:18] == bytes(4)
    assert head[18:26] == b"\5\0\0\0" * 2
    assert layout.foot(1, 0x01020304) == b"PK\7\x08\4\3\2\1" + b"\5\0\0\0" * 2


@pytest.mark.parametrize("size", [FULL - 1, FULL, FULL + 1, 20 << 30])
def test_sizes_that_do_not_fit_32_bits_and_they_alone_stand_in_zip64_fields(size, tmp_path):
    planned = plan(("big", size), ("after", 3))
    layout = Zip(planned)
    is_big = size >= FULL
    assert (b"\1\0\x10\0" in layout.head(1)) == is_big
    assert len(layout.foot(1, 0)) == (24 if is_big else 16)
    write(tmp_path / "x.zip", layout, [0, 0, zlib.crc32(bytes(3))])
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert [info.file_size for info in archive.infolist()] == [0, size, 3]
        assert archive.infolist()[1].extract_version == (45 if is_big else 20)


def test_offsets_that_do_not_fit_32_bits_and_they_alone_stand_in_zip64_fields(tmp_path):
    # One more byte, and "b" begins where 32 bits end.
    least = Zip(plan(("a", 0), ("b", 3))).starts[2] + 16  # what follows the bytes of "a"
    for start, needs in ((FULL - 1, False), (FULL, True)):
        planned = plan(("a", start - least), ("b", 3))
        layout = Zip(planned)
        assert layout.starts[2] == start
        assert (b"\1\0\x08\0" in layout.record(2, 0)) == needs
        assert b"PK\6\6" in layout.end()  # where the directory begins is above in any case
        write(tmp_path / "x.zip", layout, crcs_of(plan(("a", 0), ("b", 3))))
        with zipfile.ZipFile(tmp_path / "x.zip") as archive:
            assert archive.read("top/b") == bytes(3)


def test_an_end_in_32_bits_is_left_alone():
    assert Zip(plan(*MEMBERS)).end()[:4] == b"PK\5\6"
    assert len(Zip(plan(*MEMBERS)).end()) == 22


@pytest.mark.parametrize("count", [65_534, 65_535, 70_000])
def test_more_entries_than_16_bits_can_count_are_counted(count, tmp_path):
    planned = plan(*((f"{number:05}", 0) for number in range(count - 1)))
    layout = Zip(planned)
    assert (b"PK\6\6" in layout.end()) == (count >= 65_535)
    path = tmp_path / "x.zip"
    path.write_bytes(made(layout, bytes(count)))
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == count
    if count == 70_000:
        assert f"{count} files" in run("zipinfo", "-t", path)
        assert f"{count - 1} files, 1 folders" in run("7z", "l", path)
        assert run("bsdtar", "-tf", path).count("\n") == count
        run("unzip", "-tqq", path)


def test_files_above_4_gb_and_what_follows_them_are_found_by_other_programs(tmp_path):
    planned = plan(("first", 5 << 30), ("folder/", 0), ("folder/second", 9))
    layout = Zip(planned)
    path = tmp_path / "x.zip"
    write(path, layout, [0, 0xDEADBEEF, 0, zlib.crc32(bytes(9))])
    assert "4 files" in run("zipinfo", "-t", path)
    assert str(5 << 30) in run("zipinfo", "-l", path)
    assert str(5 << 30) in run("7z", "l", path)
    assert "Warnings" not in run("7z", "l", path)
    run("unzip", "-tq", path, "top/folder/second")
    run("7z", "t", path, "top/folder/second")
    assert run("bsdtar", "-tf", path).split() == [
        "top/",
        "top/first",
        "top/folder/",
        "top/folder/second",
    ]


@pytest.mark.parametrize(
    ("time_s", "expected"),
    [
        (MTIME_S, time.localtime(MTIME_S)[:5]),
        (-5, (1980, 1, 1, 0, 0)),
        (10**10, (2107, 12, 31, 23, 59)),
        (10**18, (2107, 12, 31, 23, 59)),
        (-(10**18), (1980, 1, 1, 0, 0)),
    ],
)
def test_times_are_those_of_dos_or_the_nearest(time_s, expected):
    said = dos_time(time_s * 10**9)
    date, clock = said >> 16, said & 0xFFFF
    found = (date >> 9) + 1980, date >> 5 & 15, date & 31, clock >> 11, clock >> 5 & 63
    assert found == expected


@pytest.mark.parametrize("mtime_s", [-1, 0, (1 << 31) - 1, 1 << 31])
def test_the_utc_time_is_there_where_its_31_bits_can_tell_it(mtime_s):
    planned = Plan("top")
    planned.add(b"", None, status(folder=True, mtime_s=mtime_s))
    layout = Zip(planned)
    has = b"UT\5\0\1" + mtime_s.to_bytes(4, "little", signed=True) if mtime_s < 1 << 31 else b"?"
    assert (has in layout.head(0)) == (0 <= mtime_s < 1 << 31)
    assert made(layout, [0])  # and lengths are right either way


def test_a_tar_has_its_entries_whatever_their_names_sizes_and_times():
    planned = Plan("top")
    planned.add(b"", None, status(folder=True, mode=0o755))
    names = [b"a.txt", b"n" * 95, b"n" * 96, b"n" * 97, b"x" * 255, "ü.txt".encode(), b"\xff\xfe"]
    for name in names:
        planned.add(name, None, status(600))
    planned.add(b"early", None, status(0, -5))
    planned.add(b"late", None, status(0, 1 << 34))
    layout = Tar(planned)
    data = made(layout, bytes(len(planned)))
    assert len(data) % 10_240 == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = archive.getmembers()
    assert [member.name.encode("utf-8", "surrogateescape") for member in found] == [
        b"top",
        *(b"top/" + name for name in [*names, b"early", b"late"]),
    ]
    assert [member.mtime for member in found[-2:]] == [-5, (1 << 63) // 10**9]  # the plan's last
    assert {member.size for member in found[1:-2]} == {600}


def test_a_tar_has_files_above_8_gib(tmp_path):
    layout = Tar(plan(("big", 9 << 30), ("after", 3)))
    path = tmp_path / "x.tar"
    write(path, layout, bytes(3))
    with tarfile.open(path) as archive:
        assert [member.size for member in archive.getmembers()] == [0, 9 << 30, 3]
    for program in (("tar", "-tvf"), ("bsdtar", "-tvf"), ("7z", "l")):
        assert str(9 << 30) in run(*program, path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain.txt", "plain.txt"),
        ("üñ.txt", "üñ.txt"),
        ("a\\b", "a%5Cb"),
        ("..\\..\\x", "..%5C..%5Cx"),
        ("new\nline", "new%0Aline"),
        ("\x7f\x85", "%7F%85"),
        ("latin \udce9", "latin %E9"),
        ("C:", "C%3A"),
        ("c:x", "c%3Ax"),
        ("12:30", "12:30"),
        ("%0A", "%0A"),
    ],
)
def test_names_become_what_every_program_can_unpack(name, expected):
    assert arc_name(name) == expected
    assert is_fit(name) == (name == expected)
    assert is_fit(expected)


def test_names_that_would_be_the_same_get_a_number_before_their_extension():
    assert unique("a.txt", {"b"}) == "a.txt"
    assert unique("a.txt", {"a.txt"}) == "a~2.txt"
    assert unique("a.txt", {"a.txt", "a~2.txt"}) == "a~3.txt"
    assert unique(".profile", {".profile"}) == ".profile~2"


@pytest.mark.parametrize("name", ["", ".", "..", "...", " "])
def test_the_folder_that_all_stands_in_has_a_name(name):
    assert top_name(name) == "files"
    assert top_name("my photos") == "my photos"


@pytest.mark.parametrize("changed", ["st_size", "st_mtime_ns", "st_ctime_ns", "st_ino", "st_mode"])
def test_a_digest_tells_plans_apart(changed):
    def digest(path=b"a", name="top", more=b"", **said):
        planned = Plan(name)
        planned.add(path, None, SimpleNamespace(**{**vars(status(5)), **said}))
        return planned.digest(more)

    plain = digest()
    assert digest() == plain
    assert len({plain, digest(b"b"), digest(name="b"), digest(more=b"x")}) == 4
    assert digest(**{changed: vars(status(5))[changed] ^ 1}) != plain


def test_a_plan_of_many_entries_is_small():
    planned = plan(*((f"folder {number:05}/file.txt", number) for number in range(20_000)))
    columns = sum(
        column.itemsize * len(column)
        for name in planned.__slots__
        if hasattr(column := getattr(planned, name), "itemsize")
    )
    assert (columns + len(planned._paths)) / len(planned) < 100
