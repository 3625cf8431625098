"""Programs that people take files with: what was broken off goes on, and arrives as it is here."""

import hashlib
import os
import shutil
import subprocess

import pytest
from harness import DEADLINE_S, Prefork
from share_cases import MODIFIED_S

#: Larger than what sockets hold, and no multiple of anything that programs read at once.
SIZE = (24 << 20) + 12_345
PART = 5_000_001
NAMES = ("plain.bin", "größer & more #1?.bin", "100%.txt")


def program(name):
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run(*command, cwd, ok=0):
    """Run a program; return what it says, standard error included."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if "proxy" not in k.lower()} | {"HOME": str(cwd)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=DEADLINE_S,
        check=False,
    )
    said = done.stdout.decode(errors="surrogateescape")
    assert done.returncode == ok, said
    return said


@pytest.fixture(scope="module")
def content():
    return hashlib.shake_128(b"prefork").digest(SIZE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, content):
    root = tmp_path_factory.mktemp("share")
    (root / "large.bin").write_bytes(content)
    (root / "inner" / "deeper").mkdir(parents=True)
    (root / "inner" / "empty").touch()
    for name in NAMES:
        (root / "inner" / "deeper" / name).write_text(f"{name}\n" * 3000)
    for path in root.rglob("*"):
        os.utime(path, (MODIFIED_S, MODIFIED_S))
    return root


@pytest.fixture(scope="module")
def daemon(folder):
    with Prefork(folder, "0", "-b", "127.0.0.1", "-w", "2") as daemon:
        yield daemon


@pytest.fixture
def part(tmp_path, content):
    """Make what a download that was broken off has left."""
    path = tmp_path / "large.bin"
    path.write_bytes(content[:PART])
    return path


def test_curl_goes_on_where_it_was_broken_off(daemon, tmp_path, part, content):
    curl = program("curl")
    command = [curl, "-sS", "-f", "-C", "-", "-o", part, "-w", "%{http_code} %{size_download}"]
    said = run(*command, f"{daemon.url}/large.bin", cwd=tmp_path)
    assert said == f"206 {SIZE - PART}"
    assert part.read_bytes() == content


def test_curl_adds_nothing_to_what_is_complete(daemon, tmp_path, part, content):
    """The answer is 416, and has no text that it could add."""
    part.write_bytes(content)
    run(program("curl"), "-sS", "-C", "-", "-o", part, f"{daemon.url}/large.bin", cwd=tmp_path)
    assert part.read_bytes() == content


def test_curl_asks_by_its_etag_file_and_keeps_what_is_unchanged(daemon, tmp_path, content):
    path, etag = tmp_path / "large.bin", tmp_path / "etag"
    command = [program("curl"), "-sS", "-f", "-o", path, "-w", "%{http_code} %{size_download}"]
    command += ["--etag-save", etag, "--etag-compare", etag, f"{daemon.url}/large.bin"]
    etag.touch()
    assert run(*command, cwd=tmp_path) == f"200 {SIZE}"
    assert run(*command, cwd=tmp_path) == "304 0"
    assert path.read_bytes() == content


def test_curl_gets_several_ranges_as_one_multipart(daemon, tmp_path, content):
    command = [program("curl"), "-sS", "-f", "-r", "5-9,-70000,1000000-1999999"]
    run(*command, "-o", "parts", f"{daemon.url}/large.bin", cwd=tmp_path)
    body = (tmp_path / "parts").read_bytes()
    places = [
        body.find(content[a:b]) for a, b in ((5, 10), (SIZE - 70000, SIZE), (10**6, 2 * 10**6))
    ]
    assert -1 not in places
    assert places == sorted(places)


def test_wget_goes_on_where_it_was_broken_off_and_sees_when_all_is_there(
    daemon, tmp_path, part, content
):
    wget = program("wget")
    said = run(wget, "-S", "-c", f"{daemon.url}/large.bin", cwd=tmp_path)
    assert f"Content-Range: bytes {PART}-{SIZE - 1}/{SIZE}" in said
    assert part.read_bytes() == content
    run(wget, "-c", f"{daemon.url}/large.bin", cwd=tmp_path)
    assert part.read_bytes() == content


def test_wget_does_not_take_again_what_has_not_changed(daemon, tmp_path):
    wget = program("wget")
    first = run(wget, "-S", "-N", f"{daemon.url}/large.bin", cwd=tmp_path)
    assert "200 OK" in first
    assert (tmp_path / "large.bin").stat().st_mtime == MODIFIED_S
    again = run(wget, "-S", "-N", f"{daemon.url}/large.bin", cwd=tmp_path)
    assert "304 Not Modified" in again
    assert "200 OK" not in again


@pytest.mark.parametrize("connections", [1, 16])
def test_aria2_takes_a_file_in_pieces_and_its_checksum_is_right(
    daemon, tmp_path, content, connections
):
    checksum = hashlib.sha256(content).hexdigest()
    command = [program("aria2c"), f"-x{connections}", f"-s{connections}", "-k1M", "-j1"]
    command += [f"--checksum=sha-256={checksum}", "--no-conf=true", "--disable-ipv6=true"]
    run(*command, "--file-allocation=none", f"{daemon.url}/large.bin", cwd=tmp_path)
    assert (tmp_path / "large.bin").read_bytes() == content
    if connections > 1:
        daemon.log.wait_for(r'"GET /large\.bin HTTP/1\.1" 206 .*', count=16)


def test_aria2_is_stopped_in_the_middle_of_sixteen_pieces_and_goes_on(daemon, tmp_path, content):
    checksum = hashlib.sha256(content).hexdigest()
    command = [program("aria2c"), "-c", "-x16", "-s16", "-k1M", "--no-conf=true"]
    command += [f"--checksum=sha-256={checksum}", "--file-allocation=none"]
    command.append(f"{daemon.url}/large.bin")
    slow = ("--stop=1", "--max-download-limit=8M")
    run(*command, *slow, cwd=tmp_path, ok=7)  # its status for unfinished downloads
    assert (tmp_path / "large.bin.aria2").exists()
    run(*command, cwd=tmp_path)
    assert not (tmp_path / "large.bin.aria2").exists()
    assert (tmp_path / "large.bin").read_bytes() == content


def tree(root):
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


def test_rclone_copies_a_whole_folder_and_then_finds_nothing_to_copy(daemon, folder, tmp_path):
    copied = tmp_path / "copied"
    command = [program("rclone"), "--config", os.devnull, "-v", "--http-url", daemon.url]
    said = run(*command, "copy", ":http:", copied, "--stats-one-line", cwd=tmp_path)
    assert tree(copied) == tree(folder)
    assert {path.stat().st_mtime for path in copied.rglob("*") if path.is_file()} == {MODIFIED_S}
    assert "Copied" in said
    assert "Copied" not in run(*command, "copy", ":http:", copied, cwd=tmp_path)


def test_rclone_reads_from_the_middle_of_a_file(daemon, tmp_path, content):
    command = [program("rclone"), "--config", os.devnull, "--http-url", daemon.url]
    command += ["cat", ":http:large.bin", "--offset", 70_001, "--count", 99_999]
    said = run(*command, cwd=tmp_path)
    assert said.encode(errors="surrogateescape") == content[70_001:170_000]
