"""Archives over the wire: resumed, in pieces, by several workers, and when the folder changes."""

import functools
import hashlib
import io
import os
import resource
import select
import socket
import tarfile
import zipfile

import pytest
from archive_kit import OLD_S, run
from harness import Prefork, wait_until
from http_kit import serving
from http_rig import Client

from prefork.http import HTTPServer
from prefork.share import ShareRequestHandler

SIZE = 6_000_001
NAMES = ("a.txt", "sub/b.txt", "sub/größer.txt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("share") / "my files"
    (root / "sub" / "empty").mkdir(parents=True)
    for name in NAMES:
        (root / name).write_text(name * 1000)
    for number in range(4):
        data = hashlib.shake_128(bytes([number])).digest(SIZE + number)
        (root / "sub" / f"{number}.bin").write_bytes(data)
    for path in root.rglob("*"):
        os.utime(path, (OLD_S, OLD_S))
    return root


@pytest.fixture(scope="module")
def daemon(folder, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    options = ("-b", "127.0.0.1", "-w", "2")
    with Prefork(folder, "0", *options, XDG_CACHE_HOME=str(cache)) as daemon:
        yield daemon


@pytest.fixture(scope="module", params=["zip", "tar"])
def kind(request):
    return request.param


@pytest.fixture
def url(daemon, kind):
    return f"{daemon.url}/?{kind}"


def ask(daemon, path, *fields, **options):
    with Client(("127.0.0.1", daemon.port)) as client:
        return client.ask(path, fields=fields, **options)


@pytest.fixture(scope="module")
def whole(daemon, kind):
    answer = ask(daemon, f"/?{kind}")
    assert answer.status == 200
    return answer


def test_an_archive_has_what_the_folder_has_and_is_named_like_it(whole, kind):
    assert whole.is_whole
    assert whole["Content-Disposition"] == f'attachment; filename="my files.{kind}"'
    assert whole["Accept-Ranges"] == "bytes"
    if kind == "zip":
        assert whole["Content-Type"] == "application/zip"
        with zipfile.ZipFile(io.BytesIO(whole.body)) as archive:
            assert archive.testzip() is None
            names = archive.namelist()
            assert archive.read("my files/sub/b.txt") == b"sub/b.txt" * 1000
    else:
        assert whole["Content-Type"] == "application/x-tar"
        with tarfile.open(fileobj=io.BytesIO(whole.body)) as archive:
            names = [info.name + "/" * info.isdir() for info in archive]
            assert archive.extractfile("my files/sub/b.txt").read() == b"sub/b.txt" * 1000
    assert {"my files/", "my files/sub/empty/"} <= set(names)
    assert {f"my files/{name}" for name in NAMES} <= set(names)


def test_head_tells_the_length_and_the_etag_that_get_has(daemon, whole, kind):
    head = ask(daemon, f"/?{kind}", method="HEAD")
    assert head["Content-Length"] == str(len(whole.body))
    assert head["ETag"] == whole["ETag"]
    assert head["ETag"].startswith('"')


def test_an_archive_that_is_there_already_is_not_sent_again(daemon, whole, kind):
    assert ask(daemon, f"/?{kind}", f"If-None-Match: {whole['ETag']}").status == 304


def test_ranges_of_an_archive_are_those_of_the_whole(daemon, whole, kind):
    body = whole.body
    for span, part in (
        ("0-0", body[:1]),
        ("-22", body[-22:]),
        ("7000000-7000999", body[7_000_000:7_001_000]),
        ("5999000-6001000", body[5_999_000:6_001_001]),
    ):
        answer = ask(daemon, f"/?{kind}", f"Range: bytes={span}")
        assert (answer.status, answer.body) == (206, part)
    several = ask(daemon, f"/?{kind}", "Range: bytes=0-99,13000000-13000099,-100")
    assert several.status == 206
    assert several["Content-Type"].startswith("multipart/byteranges")
    for part in (body[:100], body[13_000_000:13_000_100], body[-100:]):
        assert part in several.body
    assert ask(daemon, f"/?{kind}", f"Range: bytes={len(body)}-").status == 416


def test_curl_goes_on_where_it_was_broken_off(url, whole, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(whole.body[:9_000_000])
    said = run("curl", "-sS", "-f", "-C", "-", "-o", path, "-w", "%{http_code}", url)
    assert said == "206"
    assert path.read_bytes() == whole.body


def test_aria2_takes_an_archive_in_pieces_from_two_workers_that_know_no_sums(
    folder, whole, kind, tmp_path
):
    command = ["aria2c", "-x8", "-s8", "-k1M", "--no-conf=true", "--disable-ipv6=true", "-o", "x"]
    command += ["--file-allocation=none", "--max-tries=1", "-d", tmp_path]
    options = ("-b", "127.0.0.1", "-w", "2")
    with Prefork(folder, "0", *options, XDG_CACHE_HOME=str(tmp_path)) as fresh:
        run(*command, f"{fresh.url}/?{kind}")
        fresh.log.wait_for(r'"GET /\?... HTTP/1\.1" 206 .*', count=8)
    assert (tmp_path / "x").read_bytes() == whole.body


@pytest.fixture
def changing(tmp_path):
    """A folder with a file of more than both sides' buffers hold, and its server."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "large.bin").touch()
    os.truncate(root / "large.bin", 40 << 20)
    options = ("-b", "127.0.0.1", "-w", "1")
    with Prefork(root, "0", *options, XDG_CACHE_HOME=str(tmp_path)) as daemon:
        yield root, daemon


def test_a_changed_folder_is_another_archive_for_who_goes_on(changing, kind):
    root, daemon = changing
    first = ask(daemon, f"/?{kind}", method="HEAD")
    going_on = ("Range: bytes=40000000-", f"If-Range: {first['ETag']}")
    assert ask(daemon, f"/?{kind}", *going_on).status == 206
    (root / "new.txt").write_text("the new one")
    answer = ask(daemon, f"/?{kind}", *going_on)
    assert answer.status == 200
    assert answer["ETag"] != first["ETag"]
    assert b"the new one" in answer.body


def test_a_file_that_changes_on_the_way_breaks_the_connection(changing, kind):
    root, daemon = changing
    with Client(("127.0.0.1", daemon.port), receive_bytes=1 << 16) as client:
        client.request(f"/?{kind}")
        assert client.sock.recv(1000).startswith(b"HTTP/1.1 200 ")
        with (root / "large.bin").open("r+b") as file:
            file.write(b"other")
        assert len(client.at_end()) < 40 << 20
    again = ask(daemon, f"/?{kind}")
    assert again.is_whole
    assert b"other" in again.body


def test_an_archive_that_fails_before_its_first_byte_is_planned_anew(tmp_path):
    (tmp_path / "sub" / "below").mkdir(parents=True)
    victim = tmp_path / "sub" / "below" / "a.txt"
    victim.write_text("small")
    made = functools.partial(ShareRequestHandler, directory=str(tmp_path))
    with serving(HTTPServer, made) as server:
        with Client(server.server_address) as client:
            assert client.ask("/?zip").is_whole
        victim.unlink()  # the plan, of this moment, still has it
        with Client(server.server_address) as client:
            answer = client.ask("/?zip", fields=["Connection: close"])
            assert client.has_ended()
        assert answer.is_whole
        with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
            assert f"{tmp_path.name}/sub/below/a.txt" not in archive.namelist()


def test_who_finds_too_many_files_open_is_told_to_try_again(tmp_path):
    (tmp_path / "file").write_text("here")
    made = functools.partial(ShareRequestHandler, directory=str(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving(HTTPServer, made) as server, Client(server.server_address) as client:
        assert client.ask("/").status == 200
        free = os.open("/dev/null", os.O_RDONLY)
        os.close(free)
        for path in ("/file", "/?zip", "/?json"):
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
            try:
                assert client.ask(path).status == 503
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert client.ask(path).status == 200


def test_a_share_that_cannot_be_read_is_said_in_the_log(tmp_path, caplog):
    made = functools.partial(ShareRequestHandler, directory=str(tmp_path / "none"))
    with serving(HTTPServer, made) as server, Client(server.server_address) as client:
        assert client.ask("/").status == 404
    assert "share.unreadable" in caplog.text


def test_what_the_kernel_has_taken_changes_no_more(tmp_path):
    (tmp_path / "b.bin").write_bytes(b"a" * 120_000)
    os.utime(tmp_path / "b.bin", (OLD_S, OLD_S))
    made = functools.partial(ShareRequestHandler, directory=str(tmp_path))
    with (
        serving(HTTPServer, made) as server,
        Client(server.server_address, receive_bytes=1 << 20) as client,
    ):
        client.request("/?tar")
        wait_until(lambda: len(client.sock.recv(1 << 18, socket.MSG_PEEK)) > 120_000)
        with (tmp_path / "b.bin").open("r+b") as file:
            file.write(b"b" * 120_000)
        with tarfile.open(fileobj=io.BytesIO(client.answer().body)) as archive:
            content = archive.extractfile(archive.getmembers()[1]).read()
        assert content == b"a" * 120_000


def test_others_are_answered_while_sums_are_made_for_a_few_bytes(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "quick.txt").write_text("quick")
    (root / "zeros.bin").touch()
    os.truncate(root / "zeros.bin", 512 << 20)

    class Handler(ShareRequestHandler):
        cache_directory = str(tmp_path)

    made = functools.partial(Handler, directory=str(root))
    with (
        serving(HTTPServer, made) as server,  # all in one thread
        Client(server.server_address) as first,
        Client(server.server_address) as second,
    ):
        first.request("/?zip", fields=["Range: bytes=-400"])
        assert second.ask("/quick.txt").body == b"quick"
        assert not select.select([first.sock], [], [], 0)[0] or first.sock.recv(
            1 << 16, socket.MSG_PEEK
        ).endswith(b"\r\n\r\n")
        answer = first.answer()
    assert (answer.status, len(answer.body)) == (206, 400)


def test_a_folder_below_is_an_archive_of_its_own(daemon, kind):
    answer = ask(daemon, f"/sub/?{kind}")
    assert answer["Content-Disposition"] == f'attachment; filename="sub.{kind}"'
    assert b"my files" not in answer.body
    assert ask(daemon, f"/sub/nothing/?{kind}").status == 404


def test_without_archives_the_query_means_nothing(folder, tmp_path):
    config = tmp_path / "share.toml"
    config.write_text(
        f"""
[server.share]
bind = ["127.0.0.1:0"]
handler = "prefork.share:ShareRequestHandler"
handler_options = {{ directory = "{folder}", archives = false }}
"""
    )
    with Prefork(config) as daemon:
        for kind in ("zip", "tar"):
            answer = ask(daemon, f"/?{kind}", "Accept: text/html")
            assert answer["Content-Type"] == "text/html; charset=utf-8"
            assert b"data-archives" not in answer.body
