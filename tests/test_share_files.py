"""Files of the folder share: their types, what browsers may do with them, how they come."""

import contextlib
import fcntl
import functools
import gzip
import hashlib
import os
import random
import signal
import socket
import threading
import tracemalloc
import zlib

import pytest
from harness import DEADLINE_S
from http_rig import Client

from prefork.http import HTTPServer
from prefork.http.filecache import identity_of
from prefork.http.limits import Limits
from prefork.http.outbox import Descriptor
from prefork.http.wire import Parser
from prefork.share import ShareRequestHandler
from prefork.share.compression import Compression

LARGE = 3_000_000  # more than the buffers of both sides hold


class Server(HTTPServer):
    access_log = "off"


@contextlib.contextmanager
def sharing(folder, handler=ShareRequestHandler, threads=0, **options):
    """Yield the address of a server of the folder; options: the handler's class variables."""
    cls = type("Handler", (handler,), options) if options else handler
    made = functools.partial(cls, directory=str(folder))
    server_class = type("Threaded", (Server,), {"threads": threads})
    with server_class(("127.0.0.1", 0), made) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address
        finally:
            server.shutdown()
            thread.join(DEADLINE_S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("share")


@pytest.fixture(scope="module", params=[0, 4], ids=["inline", "threads"])
def address(folder, request):
    with sharing(folder, threads=request.param) as address:
        yield address


def ask(address, path, *fields, **options):
    with Client(address) as client:
        return client.ask(path, fields=fields, **options)


def put(folder, name, data):
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


# -- types -----------------------------------------------------------------------


TYPES = [
    ("plain.txt", b"hello\n", "text/plain; charset=utf-8"),
    ("utf8.txt", "größer\n".encode(), "text/plain; charset=utf-8"),
    ("latin1.txt", b"gr\xf6\xdfer\n", "text/plain"),
    ("late.txt", b"a" * 200_000 + b"\xff\xff", "text/plain"),
    ("tail.txt", b"a" * 70_000 + b"\x80" * 70_000, "text/plain"),
    ("within.txt", "€".encode() * 50_000, "text/plain; charset=utf-8"),
    ("cut.txt", b"a" * 65_535 + "ö".encode() + b"z" * 10, "text/plain; charset=utf-8"),
    ("nul.txt", b"a\0b", "text/plain"),
    ("page.html", b"<p>hello", "text/html; charset=utf-8"),
    ("own.xml", b"<?xml version='1.0' encoding='latin-1'?><a/>", "text/xml"),
    ("data.json", b"{}", "application/json"),
    ("picture.png", b"\x89PNG\r\n", "image/png"),
    ("README", "größer\n".encode(), "text/plain; charset=utf-8"),
    ("Makefile", b"all:\n\ttrue\n", "text/plain; charset=utf-8"),
    ("program", b"\x7fELF\x01\0\0", "application/octet-stream"),
    ("empty", b"", "application/octet-stream"),
    ("letters", b"gr\xf6\xdfer", "application/octet-stream"),
    ("pack.tar.gz", b"\x1f\x8b", "application/gzip"),
]


@pytest.mark.parametrize(("name", "data", "wanted"), TYPES, ids=[name for name, _, _ in TYPES])
def test_a_files_type_is_its_names_and_its_charset_its_contents(
    address, folder, name, data, wanted
):
    put(folder, name, data)
    for _ in range(2):  # the second from what is kept
        answer = ask(address, f"/{name}")
        found = answer["Content-Type"]
        if name == "own.xml":
            assert found in ("text/xml", "application/xml")
        else:
            assert found == wanted
        assert answer["X-Content-Type-Options"] == "nosniff"
        assert answer.body == data


def test_an_extensions_map_and_a_default_type_of_the_class_count(folder):
    put(folder, "a.mine", b"\x00")
    put(folder, "b", b"text")
    mapped = {"extensions_map": {".mine": "application/x-mine"}, "default_content_type": "a/b"}
    with sharing(folder, **mapped) as address:
        assert ask(address, "/a.mine")["Content-Type"] == "application/x-mine"
        assert ask(address, "/b")["Content-Type"] == "a/b"


# -- what browsers may do ------------------------------------------------------------


@pytest.mark.parametrize("name", ["evil.html", "evil.svg", "evil.xhtml", "evil.xml"])
def test_a_strangers_page_is_sandboxed_and_a_trusted_sites_is_not(address, folder, name):
    put(folder, name, "<script>fetch('/')</script>")
    assert ask(address, f"/{name}")["Content-Security-Policy"] == "sandbox"
    assert ask(address, f"/{name}?download")["Content-Security-Policy"] == "sandbox"
    with sharing(folder, trusted=True) as trusted:
        assert ask(trusted, f"/{name}")["Content-Security-Policy"] is None


def test_text_and_pictures_are_not_sandboxed(address, folder):
    put(folder, "quiet.txt", "hello")
    assert ask(address, "/quiet.txt")["Content-Security-Policy"] is None


def test_a_download_is_saved_under_its_whole_name(address, folder):
    put(folder, 'na"me ö.txt', "hello")
    answer = ask(address, "/na%22me%20%C3%B6.txt?download")
    assert answer["Content-Disposition"] == (
        "attachment; filename=\"na_me _.txt\"; filename*=UTF-8''na%22me%20%C3%B6.txt"
    )
    assert answer.body == b"hello"
    assert ask(address, "/na%22me%20%C3%B6.txt")["Content-Disposition"] is None


def test_an_unknown_name_of_the_server_is_refused_with_the_options_name(folder):
    put(folder, "a.txt", "hello")
    with sharing(folder) as address, Client(address) as client:
        assert client.ask("/a.txt").body == b"hello"  # kept: must not be a way round
        client.send(b"GET /a.txt HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        answer = client.answer()
        assert answer.status == 421
        assert b"allowed_hosts" in answer.body
        client.send(b"GET / HTTP/1.1\r\nHost: evil.example:80\r\n\r\n")
        assert client.answer().status == 421
    with sharing(folder, allowed_hosts=("evil.example",)) as address, Client(address) as client:
        client.send(b"GET /a.txt HTTP/1.1\r\nHost: EVIL.example:8000\r\n\r\n")
        assert client.answer().status == 200


def test_scripts_of_allowed_origins_alone_may_read(folder):
    put(folder, "a.txt", "hello")
    origin = "https://app.example"
    with sharing(folder, cors_origins=(origin,)) as address:
        for _ in range(2):
            answer = ask(address, "/a.txt", f"Origin: {origin}")
            assert answer["Access-Control-Allow-Origin"] == origin
            assert "Origin" in ", ".join(answer.all_of("Vary"))
            answer = ask(address, "/a.txt", "Origin: https://evil.example")
            assert answer["Access-Control-Allow-Origin"] is None
            assert "Origin" in ", ".join(answer.all_of("Vary"))
        asked = f"Origin: {origin}", "Access-Control-Request-Method: GET"
        answer = ask(address, "/a.txt", *asked, method="OPTIONS")
        assert answer.status == 204
        assert answer["Access-Control-Allow-Methods"] == "GET, HEAD, OPTIONS"
    with sharing(folder, cors_origins=("*",)) as address:
        answer = ask(address, "/a.txt")
        assert answer["Access-Control-Allow-Origin"] == "*"
        assert "Content-Range" in answer["Access-Control-Expose-Headers"]
    with sharing(folder) as address:
        assert ask(address, "/a.txt", f"Origin: {origin}")["Access-Control-Allow-Origin"] is None


@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/cors", 301), ("/cors/", 200)])
def test_scripts_of_allowed_origins_may_read_every_answer(folder, path, status):
    (folder / "cors").mkdir(exist_ok=True)
    with sharing(folder, cors_origins=("https://app.example",)) as address:
        answer = ask(address, path, "Origin: https://app.example")
        assert answer.status == status
        assert answer["Access-Control-Allow-Origin"] == "https://app.example"
        assert "Origin" in answer.all_of("Vary")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "PROPFIND"])
def test_other_methods_are_refused_and_told_which_there_are(address, method):
    answer = ask(address, "/", method=method)
    assert (answer.status, answer["Allow"]) == (405, "GET, HEAD, OPTIONS")


def test_options_tells_which_methods_there_are(address):
    answer = ask(address, "/", method="OPTIONS")
    assert (answer.status, answer["Allow"], answer.body) == (204, "GET, HEAD, OPTIONS", b"")


# -- encodings --------------------------------------------------------------------------


TEXT = "".join(f"line {n}\n" for n in range(20_000)).encode()


def test_text_is_compressed_for_who_takes_that_under_a_weak_tag(address, folder):
    put(folder, "long.txt", TEXT)
    plain = ask(address, "/long.txt")
    assert (plain.body, plain["Vary"]) == (TEXT, "Accept-Encoding")
    for _ in range(3):  # made, and kept
        answer = ask(address, "/long.txt", "Accept-Encoding: gzip")
        assert (answer["Content-Encoding"], answer["Vary"]) == ("gzip", "Accept-Encoding")
        assert gzip.decompress(answer.body) == TEXT
        assert answer["ETag"].startswith('W/"')
        assert answer["ETag"] != plain["ETag"]
        assert answer["Accept-Ranges"] is None
    again = ask(address, "/long.txt", "Accept-Encoding: gzip", f"If-None-Match: {answer['ETag']}")
    assert (again.status, again.body) == (304, b"")


def test_compressed_text_that_is_kept_is_as_long_to_head_and_never_older_than_its_file(
    address, folder
):
    tags = []
    for text in (TEXT, TEXT[:-1000]):
        put(folder, "news.txt", text)
        with Client(address) as client:
            for method in ("GET", "GET", "GET", "HEAD"):  # made, known, kept, kept
                fields = ("Accept-Encoding: gzip", *(f"If-None-Match: {tag}" for tag in tags))
                answer = client.ask("/news.txt", fields=fields, method=method)
                assert answer.status == 200
                if method == "GET":
                    body = answer.body
                    assert gzip.decompress(body) == text
        assert answer["Content-Length"] == str(len(body))
        tags.append(answer["ETag"])
    assert tags[0] != tags[1]
    for tag in (tags[1], f"{tags[0]}, {tags[1]}"):
        again = ask(address, "/news.txt", "Accept-Encoding: gzip", f"If-None-Match: {tag}")
        assert (again.status, again["ETag"], again.body) == (304, tags[1], b"")


@pytest.mark.parametrize(
    ("accepted", "wanted"),
    [
        ("gzip;q=0", None),
        ("identity, gzip;q=0.5", None),
        ("gzip;q=0.5, identity;q=0.1", "gzip"),
        ("deflate", None),
        ("*", "any"),
        ("x-gzip", "gzip"),
    ],
)
def test_a_clients_weights_of_encodings_count(address, folder, accepted, wanted):
    put(folder, "weights.txt", TEXT)
    answer = ask(address, "/weights.txt", f"Accept-Encoding: {accepted}")
    if wanted == "any":
        assert answer["Content-Encoding"] in ("gzip", "zstd")
    else:
        assert answer["Content-Encoding"] == wanted


def test_a_range_of_text_is_of_the_text_itself(address, folder):
    put(folder, "ranged.txt", TEXT)
    for path in ("/ranged.txt", "/ranged.txt"):
        answer = ask(address, path, "Accept-Encoding: gzip", "Range: bytes=10-19")
        assert (answer.status, answer["Content-Encoding"]) == (206, None)
        assert answer.body == TEXT[10:20]
        assert gzip.decompress(ask(address, path, "Accept-Encoding: gzip").body) == TEXT


@pytest.mark.parametrize(
    ("name", "data"),
    [("short.txt", b"x" * 1024), ("noise.bin", os.urandom(5000)), ("empty.txt", b"")],
)
def test_what_does_not_pay_is_not_compressed(address, folder, name, data):
    put(folder, name, data)
    answer = ask(address, f"/{name}", "Accept-Encoding: gzip")
    assert (answer["Content-Encoding"], answer.body) == (None, data)


def test_very_large_text_is_sent_as_it_is(address, folder):
    with (folder / "huge.txt").open("wb") as file:
        file.truncate((1 << 24) + 1)
    answer = ask(address, "/huge.txt", "Accept-Encoding: gzip", method="HEAD")
    assert (answer["Content-Encoding"], answer["Content-Length"]) == (None, str((1 << 24) + 1))


def test_siblings_that_were_compressed_before_are_sent_by_what_the_client_likes(address, folder):
    put(folder, "site.js", TEXT)
    for suffix in (".br", ".zst", ".gz"):
        put(folder, f"site.js{suffix}", f"as {suffix}" + "-" * 50)
    tags = set()
    for accepted, coding, suffix in [
        ("gzip, br, zstd", "br", ".br"),
        ("gzip, zstd", "zstd", ".zst"),
        ("gzip", "gzip", ".gz"),
        ("br;q=0.1, gzip", "gzip", ".gz"),
    ]:
        answer = ask(address, "/site.js", f"Accept-Encoding: {accepted}")
        assert (answer["Content-Encoding"], answer["Vary"]) == (coding, "Accept-Encoding")
        assert answer.body.startswith(f"as {suffix}".encode())
        assert "javascript" in answer["Content-Type"]
        assert answer["ETag"].startswith('"')
        tags.add(answer["ETag"])
    tags.add(ask(address, "/site.js")["ETag"])
    assert len(tags) == 4
    part = ask(address, "/site.js", "Accept-Encoding: br", "Range: bytes=0-4")
    assert (part.status, part["Content-Encoding"], part.body) == (206, "br", b"as .b")


def test_a_sibling_older_than_its_file_is_not_believed(address, folder):
    put(folder, "fresh.css", TEXT)
    put(folder, "fresh.css.gz", gzip.compress(b"old"))
    os.utime(folder / "fresh.css.gz", (1_000_000_000, 1_000_000_000))
    answer = ask(address, "/fresh.css", "Accept-Encoding: gzip")
    assert gzip.decompress(answer.body) == TEXT


def test_compression_can_be_switched_off(folder):
    put(folder, "off.txt", TEXT)
    put(folder, "off.txt.gz", gzip.compress(TEXT))
    with sharing(folder, compression=False) as address:
        answer = ask(address, "/off.txt", "Accept-Encoding: gzip")
        assert (answer["Content-Encoding"], answer["Vary"], answer.body) == (None, None, TEXT)


def test_a_client_of_http_1_0_gets_compressed_text_until_the_connections_end(address, folder):
    put(folder, "old.txt", TEXT)
    with Client(address) as client:
        client.send(b"GET /old.txt HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")
        raw = client.at_end()
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert zlib.decompress(body, 31) == TEXT


# -- files that change ---------------------------------------------------------------------


def slow(address):
    return Client(address, receive_bytes=4096)


@pytest.mark.parametrize("change", ["shrunk", "rewritten"])
def test_a_file_that_changes_while_it_is_sent_breaks_the_connection(address, folder, change):
    name = f"{change}.bin"
    put(folder, name, os.urandom(5 * LARGE))
    with slow(address) as client:
        client.request(f"/{name}")
        assert client.file.read(10_000).startswith(b"HTTP/1.1 200")
        if change == "shrunk":
            os.truncate(folder / name, LARGE)
        else:
            with (folder / name).open("r+b") as file:
                file.write(b"new")
        rest = client.at_end()
    assert len(rest) < 5 * LARGE - 10_000


@pytest.mark.parametrize("size", [10_000, 5 * LARGE])
def test_a_file_that_only_grows_while_it_is_sent_arrives_as_it_was(address, folder, size):
    data = os.urandom(size)
    put(folder, "growing.log", data)
    with slow(address) as client:
        client.request("/growing.log")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.file.readline()
        with (folder / "growing.log").open("ab") as file:
            file.write(b"one line more\n")
        assert client.file.read(size) == data
        assert client.ask("/growing.log", method="HEAD")["Content-Length"] == str(size + 14)


def test_a_file_that_is_replaced_while_it_is_sent_arrives_as_it_was(address, folder):
    data = os.urandom(5 * LARGE)
    put(folder, "replaced.bin", data)
    with slow(address) as client:
        client.request("/replaced.bin")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.file.readline()
        put(folder, "new", b"new")
        (folder / "new").replace(folder / "replaced.bin")
        assert hashlib.sha256(client.file.read(len(data))).digest() == hashlib.sha256(data).digest()


def test_a_file_that_was_rewritten_has_another_tag_at_once(address, folder):
    put(folder, "tagged.txt", "one")
    with Client(address) as client:
        before = client.ask("/tagged.txt")
        put(folder, "tagged.txt", "two")
        os.utime(folder / "tagged.txt", (1_000_000_000, 1_000_000_000))
        after = client.ask("/tagged.txt")
        assert (before.body, after.body) == (b"one", b"two")
        assert before["ETag"] != after["ETag"]
        kept = client.ask("/tagged.txt", fields=[f"If-None-Match: {before['ETag']}"])
        assert (kept.status, kept.body) == (200, b"two")


# -- paths -----------------------------------------------------------------------------------


def test_a_folder_without_its_slash_leads_to_a_relative_url(address, folder):
    (folder / "sub").mkdir(exist_ok=True)
    (folder / "a:b").mkdir(exist_ok=True)
    for path, wanted in [
        ("/sub", "sub/"),
        ("/sub?json", "sub/?json"),
        ("//sub", "sub/"),
        ("/a:b", "./a:b/"),
        ("/%2e/sub", "sub/"),
    ]:
        answer = ask(address, path)
        assert (answer.status, answer["Location"]) == (301, wanted)
        assert answer["Cache-Control"] == "no-cache"  # a file may come in its place


@pytest.mark.parametrize("path", ["//evil.example/%2e%2e", "//evil.example", "/%5cevil.example"])
def test_nothing_leads_to_another_host(address, path):
    answer = ask(address, path)
    assert answer.status == 404
    assert answer["Location"] is None


def test_a_file_is_not_found_in_a_folders_place(address, folder):
    put(folder, "file.txt", "hello")
    assert ask(address, "/file.txt/").status == 404
    assert ask(address, "/file.txt/x").status == 404


def test_dotfiles_are_not_there_unless_they_are_asked_to_be(folder):
    put(folder, ".secret", "hello")
    with sharing(folder) as address:
        assert ask(address, "/.secret").status == 404
    with sharing(folder, hidden=True) as address:
        assert ask(address, "/.secret").body == b"hello"


def test_links_are_followed_as_far_as_the_policy_says(folder, tmp_path):
    put(tmp_path, "outside.txt", "outside")
    put(folder, "inside.txt", "inside")
    for name, to in [("in", folder / "inside.txt"), ("out", tmp_path / "outside.txt")]:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(to)
    for policy, wanted in [("inside", (200, 404)), ("follow", (200, 200)), ("never", (404, 404))]:
        with sharing(folder, symlinks=policy) as address:
            assert (ask(address, "/in").status, ask(address, "/out").status) == wanted


# -- sites ---------------------------------------------------------------------------------------


def test_an_index_page_stands_for_its_folder(folder):
    (folder / "site").mkdir(exist_ok=True)
    put(folder / "site", "index.html", "<p>mine")
    with sharing(folder) as address:
        assert ask(address, "/site/").body == b"<p>mine"
        assert ask(address, "/site/", "Range: bytes=0-2").body == b"<p>"
    with sharing(folder, index_pages=()) as address:
        assert b"index.html" in ask(address, "/site/").body


def test_an_application_of_one_page_has_it_for_all_paths_but_those_of_files(tmp_path):
    put(tmp_path, "index.html", "<script>app()</script>")
    with sharing(tmp_path, spa=True) as address:
        for path in ("/users/7", "/users/john.doe"):
            answer = ask(address, path, "Accept: text/html")
            assert (answer.status, answer.body) == (200, b"<script>app()</script>")
            assert answer["Content-Security-Policy"] is None
        assert ask(address, "/users/7", "Accept: */*").status == 200
        assert ask(address, "/missing.js", "Accept: */*").status == 404


def test_a_site_has_its_own_page_for_what_is_missing(tmp_path):
    put(tmp_path, "404.html", "<p>lost?")
    with sharing(tmp_path, not_found_page="404.html") as address:
        answer = ask(address, "/nothing", "If-None-Match: *", "Range: bytes=0-1")
        assert (answer.status, answer.body) == (404, b"<p>lost?")
        assert answer["Content-Type"].startswith("text/html")


def test_an_error_is_a_page_for_browsers_and_a_line_for_programs(address):
    answer = ask(address, "/nothing")
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.body.startswith(b"404 Not Found: ")
    assert answer.body.count(b"\n") == 1
    page = ask(address, "/nothing", "Accept: text/html")
    assert page["Content-Type"] == "text/html; charset=utf-8"
    assert b"<script>" not in page.body


def test_a_missing_file_does_not_end_the_connection(address):
    with Client(address) as client:
        assert [client.ask("/nothing").status for _ in range(3)] == [404, 404, 404]


# -- hooks of subclasses ------------------------------------------


def test_headers_of_a_subclass_and_of_the_options_reach_every_answer(folder):
    class Mine(ShareRequestHandler):
        def end_headers(self):
            self.send_header("X-Mine", "yes")
            super().end_headers()

    put(folder, "hooked.txt", "hello")
    (folder / "hooked").mkdir(exist_ok=True)
    with sharing(folder, Mine, trusted=True) as address:
        for path in ("/hooked.txt", "/hooked.txt", "/hooked/", "/nothing", "/hooked"):
            assert ask(address, path)["X-Mine"] == "yes"


def test_extra_response_headers_are_sent_unless_they_are_there(folder):
    put(folder, "extra.txt", "hello")
    made = functools.partial(
        ShareRequestHandler,
        directory=str(folder),
        extra_response_headers=[("Cache-Control", "max-age=60"), ("X-Extra", "yes")],
    )
    with Server(("127.0.0.1", 0), made) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            for fields in [(), (), ("Range: bytes=0-1",), ("If-None-Match: *",)]:
                answer = ask(server.server_address, "/extra.txt", *fields)
                assert answer["X-Extra"] == "yes"
                assert answer["Cache-Control"] == "max-age=60"
        finally:
            server.shutdown()
            thread.join(DEADLINE_S)


def test_it_works_on_the_stdlibs_own_server(folder):
    import http.server  # noqa: PLC0415 # for this test alone

    put(folder, "std.bin", os.urandom(LARGE))
    made = functools.partial(ShareRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), made) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            answer = ask(server.server_address, "/std.bin")
            assert answer.body == (folder / "std.bin").read_bytes()
            part = ask(server.server_address, "/std.bin", "Range: bytes=-10")
            assert (part.status, len(part.body)) == (206, 10)
        finally:
            server.shutdown()
            thread.join(DEADLINE_S)


def test_what_a_subclass_does_itself_runs_in_a_thread_and_files_in_the_loop(folder):
    class Mine(ShareRequestHandler):
        def do_HEAD(self):  # noqa: N802 # the stdlib's name
            self.do_POST()

        def do_POST(self):  # noqa: N802 # likewise
            self.send_response(200)
            self.send_header("X-Thread", str(threading.get_ident()))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def guess_type(self, _path):
            return f"text/{threading.get_ident()}; charset=utf-8"

    put(folder, "where.txt", "hello")
    with sharing(folder, Mine, threads=4) as address, Client(address) as client:
        loop = client.ask("/where.txt")["Content-Type"]
        thread = client.ask("/where.txt?download")["Content-Type"]
        assert loop != thread
        for method in ("POST", "HEAD"):
            own = client.ask("/where.txt", method=method)["X-Thread"]
            assert f"text/{own}; charset=utf-8" != loop


@pytest.mark.parametrize(
    "target",
    ["/d/", "/d/.", "/d/%2e", "/d/%2E", "/d//", "/d/#x", "/d?x", "http://a", "http://a/d/"],
)
def test_what_may_be_a_folder_is_never_read_in_the_loop(target):
    head = Parser(Limits().wire).parse(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert ShareRequestHandler._prefork_is_quick(head) is False


@pytest.mark.parametrize("target", ["/a", "/a.", "/.e", "/..e", "/a%2e", "/some/where/file.html"])
def test_what_is_no_folders_path_is_answered_by_the_loop(target):
    head = Parser(Limits().wire).parse(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert ShareRequestHandler._prefork_is_quick(head) is True


def test_a_long_text_is_not_held_in_memory_while_it_is_compressed(tmp_path):
    text = random.Random(6).randbytes(4 << 20).hex().encode()
    put(tmp_path, "long.txt", text)
    fd = os.open(tmp_path / "long.txt", os.O_RDONLY)
    identity, made = identity_of(os.fstat(fd)), hashlib.md5()
    tracemalloc.start()
    try:
        decoder = zlib.decompressobj(31)
        for data in Compression().pieces(Descriptor(fd), identity, len(text), "gzip"):
            made.update(decoder.decompress(data))
        assert tracemalloc.get_traced_memory()[1] < 2 << 20  # of some 5 MB that were made
    finally:
        tracemalloc.stop()
    assert made.digest() == hashlib.md5(text).digest()


def test_a_class_may_have_extra_response_headers_of_its_own(folder):
    put(folder, "own.bin", b"\0hello")
    with sharing(folder, extra_response_headers=[("X-Own", "yes")]) as address:
        assert [ask(address, path)["X-Own"] for path in ("/own.bin", "/")] == ["yes", "yes"]


def test_what_the_system_will_not_open_just_now_is_503_and_the_connection_goes_on(folder):
    put(folder, "leased.bin", b"\0hello")
    with (folder / "leased.bin").open("rb+") as file, sharing(folder) as address:
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)  # who opens it gets EAGAIN
        except OSError as error:
            pytest.skip(f"no leases here: {error}")
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        try:
            with Client(address) as client:
                assert client.ask("/leased.bin").status == 503
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
                assert client.ask("/leased.bin").body == b"\0hello"
        finally:
            signal.signal(signal.SIGIO, signal.SIG_DFL)


@pytest.mark.parametrize("path", ["/", "/?json", "/?plain", "/?view"])
def test_a_folders_page_and_listings_are_compressed_for_who_takes_that(tmp_path, path):
    for number in range(300):
        put(tmp_path, f"file {number}", "hello")
    with sharing(tmp_path) as address:
        plain = ask(address, path)
        answer = ask(address, path, "Accept-Encoding: gzip")
        assert (plain["Content-Encoding"], answer["Content-Encoding"]) == (None, "gzip")
        assert {"Accept", "Accept-Encoding"} <= set(answer.all_of("Vary"))
        text = gzip.decompress(answer.body)
        assert b"file 299" in text or b"file%20299" in text
        assert len(answer.body) < len(plain.body) / 3
        again = ask(address, path, "Accept-Encoding: gzip", f"If-None-Match: {answer['ETag']}")
        assert again.status == 304


def test_a_short_file_that_changes_between_being_opened_and_read_is_looked_at_again(tmp_path):
    class Late(ShareRequestHandler):
        changes = 1

        def guess_type(self, path):  # it has been opened by now
            if type(self).changes:
                type(self).changes -= 1
                put(tmp_path, "quick.txt", f"{type(self).changes} left")
            return super().guess_type(path)

    for changes, wanted in [(1, (200, b"0 left")), (2, (503, None))]:
        put(tmp_path, "quick.txt", "at first")
        with sharing(tmp_path, Late, changes=changes) as address, Client(address) as client:
            answer = client.ask("/quick.txt")
            assert answer.status == wanted[0]
            assert wanted[1] in (None, answer.body)
            assert client.ask("/quick.txt").body == b"0 left"


def test_pieces_that_wait_behind_a_slow_client_are_chunks_all_the_same(folder):
    class Late(ShareRequestHandler):
        def do_GET(self):  # noqa: N802 # the stdlib's name
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x" * 60_000)
            self.wfile.send_source(iter((b"one", b"two")))  # taken when this has returned

    with sharing(folder, Late) as address, slow(address) as client:
        for _ in range(2):
            answer = client.ask("/")
            assert (answer.is_whole, answer.body) == (True, b"x" * 60_000 + b"onetwo")
