"""SimpleHTTPRequestHandler: a folder's files, as the stdlib sends them and as its newest does."""

# ruff: noqa: N802, ARG001 # http.server and http_kit name what they call, and its arguments

import email.utils
import io
import os
import re
import socketserver
import sys

import pytest
from http_kit import (
    OUR_SERVERS,
    OURS,
    PLACES,
    SERVERS,
    STDLIB,
    answers,
    ask,
    comparison,
    get,
    in_folder,
    plain,
)

MODIFIED_S = 1_000_000_000
MODIFIED = "Sun, 09 Sep 2001 01:46:40 GMT"


@pytest.fixture(params=SERVERS)
def server_class(request):
    return SERVERS[request.param]


@pytest.fixture(params=OUR_SERVERS)
def our_server_class(request):
    return OUR_SERVERS[request.param]


@pytest.fixture(params=PLACES)
def same(request):
    return comparison(request.param)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "root"
    (root / "listed").mkdir(parents=True)
    for name in ("b.txt", "A.txt", "c<d>&.css", "ü.html", "é\udcff.bin"):
        (root / "listed" / name).write_text(name, errors="surrogateescape")
    (root / "listed" / "Folder").mkdir()
    (root / "listed" / "link").symlink_to("b.txt")
    (root / "listed" / "folderlink").symlink_to("Folder")
    (root / "both").mkdir()
    (root / "both" / "index.html").write_text("html")
    (root / "both" / "index.htm").write_text("htm")
    (root / "htm").mkdir()
    (root / "htm" / "index.htm").write_text("htm")
    (root / "tricky" / "index.html").mkdir(parents=True)
    (root / "large.bin").write_bytes(bytes(range(256)) * 4096)
    (root / "empty").touch()
    (root / "file.txt").write_text("text")
    os.utime(root / "file.txt", (MODIFIED_S, MODIFIED_S + 0.7))
    (tmp_path / "outside.txt").write_text("outside")
    (root / "out").symlink_to("../outside.txt")
    return root


def fetch(server_class, module, folder, path, *lines, method="GET", **variables):
    kind = type("Files", (in_folder(module, folder),), variables)
    (answer,) = answers(ask(server_class, kind, get(path, *lines, method=method)), method)
    return answer


# -- as the stdlib has it --------------------------------------------------------


@pytest.mark.parametrize("path", ["/file.txt", "/large.bin", "/empty", "/file.txt?q#f", "/out"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_file_is_sent_with_the_stdlibs_headers_in_its_order(same, folder, path, method):
    here = same(
        lambda module, _: in_folder(module, folder), get(path, method=method) * 3, *[method] * 3
    )
    content = (folder / re.split(r"\W", path[1:], maxsplit=1)[0]).name
    assert len(here.answers) == 3, content
    answer = here.answers[2]
    assert [name for name, _ in answer.fields][2:] == [
        b"Content-type",
        b"Content-Length",
        b"Last-Modified",
    ]


@pytest.mark.parametrize(
    ("path", "body"),
    [("/file.txt", b"text"), ("/out", b"outside"), ("/both/", b"html"), ("/htm/", b"htm")],
)
def test_a_file_a_symlink_and_an_index_page_are_found(server_class, folder, path, body):
    answer = fetch(server_class, STDLIB, folder, path)
    assert (answer.status, answer.body) == (200, body)
    assert answer["Content-Length"] == str(len(body))


def test_last_modified_is_the_files_and_304_says_nothing_more(server_class, folder):
    for module in (STDLIB, OURS):
        assert fetch(server_class, module, folder, "/file.txt")["Last-Modified"] == MODIFIED
        answer = fetch(server_class, module, folder, "/file.txt", f"If-Modified-Since: {MODIFIED}")
        assert answer.status == 304
        names = {name.lower() for name, _ in answer.fields}
        assert names <= {b"server", b"date", b"connection"}


BEFORE = email.utils.formatdate(MODIFIED_S - 1, usegmt=True)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([f"If-Modified-Since: {MODIFIED}"], 304),
        ([f"If-Modified-Since: {BEFORE}"], 200),
        (["If-Modified-Since: Sun Sep  9 01:46:40 2001"], 304),
        (["If-Modified-Since: Sunday, 09-Sep-01 01:46:40 GMT"], 304),
        (["If-Modified-Since: Sun, 09 Sep 2001 01:46:40 -0000"], 304),
        (["If-Modified-Since: Sun, 09 Sep 2001 03:46:40 +0200"], 200),
        (["If-Modified-Since: nonsense"], 200),
        (["If-Modified-Since: Sun, 99 Sep 2001 01:46:40 GMT"], 200),
        (["If-Modified-Since: Sun, 09 Sep 99999 01:46:40 GMT"], 200),
        (["If-Modified-Since: "], 200),
        ([f"If-Modified-Since: {MODIFIED}", 'If-None-Match: "x"'], 200),
    ],
)
def test_if_modified_since_is_heeded_when_it_is_a_date_in_utc(same, folder, lines, status):
    data = get("/file.txt", *lines)
    here = same(lambda module, _: in_folder(module, folder), data)
    assert here.answers[0].status == status


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/none", 404),
        ("/file.txt/", 404),
        ("/file.txt/x", 404),
        ("/both", 301),
        ("/both?a=b&c", 301),
        ("/tricky", 301),
        ("/../outside.txt", 404),
        ("/%2e%2e/outside.txt", 404),
        ("/both/../file.txt", 200),
        ("/both/%2e%2e/file.txt", 200),
        ("/./file.txt", 200),
        ("//file.txt", 200),
        ("/%66ile%2Etxt", 200),
        ("/%", 404),
        ("/%ff", 404),
    ],
)
def test_paths_lead_where_the_stdlibs_lead(same, folder, path, status):
    here = same(lambda module, _: in_folder(module, folder), get(path))
    assert here.answers[0].status == status


@pytest.mark.parametrize("query", ["", "?", "?a=b&c=d", "?a=%0d%0aX:1"])
def test_a_folder_without_its_slash_is_redirected_to(same, folder, query):
    here = same(lambda module, _: in_folder(module, folder), get(f"/both{query}"))
    (answer,) = here.answers
    assert answer.status == 301
    assert answer["Location"] == "/both/" + (query if query != "?" else "")
    assert answer["Content-Length"] == "0"


@pytest.mark.parametrize("module", [STDLIB, OURS], ids=["stdlib", "ours"])
def test_a_listing_is_sorted_without_regard_to_case_and_marks_folders_and_links(
    server_class, module, folder
):
    answer = fetch(server_class, module, folder, "/listed/")
    assert answer["Content-type"] == f"text/html; charset={sys.getfilesystemencoding()}"
    items = re.findall(rb'<li><a href="(.*)">(.*)</a></li>', answer.body)
    assert items == [
        (b"A.txt", b"A.txt"),
        (b"b.txt", b"b.txt"),
        (b"c%3Cd%3E%26.css", b"c&lt;d&gt;&amp;.css"),
        (b"Folder/", b"Folder/"),
        (b"folderlink/", b"folderlink@"),
        (b"link", b"link@"),
        (b"%C3%A9%ED%B3%BF.bin", b"\xc3\xa9\xff.bin"),
        (b"%C3%BC.html", b"\xc3\xbc.html"),
    ]


@pytest.mark.parametrize("module", [STDLIB, OURS], ids=["stdlib", "ours"])
def test_each_name_in_a_listing_leads_to_its_file(server_class, module, folder):
    listing = fetch(server_class, module, folder, "/listed/").body
    for link in re.findall(rb'href="([^"]*[^/])"', listing):
        answer = fetch(server_class, module, folder, f"/listed/{link.decode()}")
        assert answer.status == 200
        assert answer.body


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_not_found(same, folder):
    (folder / "listed").chmod(0o311)
    here = same(lambda module, _: in_folder(module, folder), get("/listed/"))
    assert here.answers[0].body == b"error 404: No permission to list directory"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x.html", "text/html"),
        ("x.TXT", "text/plain"),
        ("x.css", "text/css"),
        ("x.tar.gz", "application/gzip"),
        ("x.Z", "application/octet-stream"),
        ("x.bz2", "application/x-bzip2"),
        ("x.XZ", "application/x-xz"),
        ("x", "application/octet-stream"),
        ("x.unknown-to-all", "application/octet-stream"),
    ],
)
def test_the_type_is_guessed_by_the_suffix(same, folder, name, kind):
    (folder / name).touch()
    here = same(lambda module, _: in_folder(module, folder), get(f"/{name}"))
    assert here.answers[0]["Content-type"] == kind


def test_extensions_map_goes_first_and_the_exact_case_before_the_lower(same, folder):
    for name in ("a.txt", "b.TXT", "c.Txt", "d"):
        (folder / name).touch()

    def make(module, seen):
        class Files(in_folder(module, folder)):
            extensions_map = {".txt": "a/lower", ".TXT": "a/upper", "": "a/none"}  # noqa: RUF012 # as users write it

        return Files

    here = same(make, b"".join(get(f"/{name}") for name in ("a.txt", "b.TXT", "c.Txt", "d")))
    kinds = [answer["Content-type"] for answer in here.answers]
    assert kinds == ["a/lower", "a/upper", "a/lower", "a/none"]


def test_guess_type_gets_the_local_path_and_decides(same, folder):
    def make(module, seen):
        class Files(in_folder(module, folder)):
            def guess_type(self, path):
                seen.append(path)
                return "a/b"

        return Files

    here = same(make, get("/both/"))
    assert here.seen == [f"{folder}/both/index.html"]
    assert here.answers[0]["Content-type"] == "a/b"


def test_index_pages_of_the_class_are_tried_in_their_order(our_server_class, folder):
    for module in (STDLIB, OURS) if sys.version_info >= (3, 12) else (OURS,):
        pages = {"index_pages": ("none", "index.htm")}
        assert fetch(our_server_class, module, folder, "/both/", **pages).body == b"htm"
        assert (
            fetch(our_server_class, module, folder, "/both/", index_pages=()).body[:5] == b"<!DOC"
        )


def test_copyfile_copies_the_file_to_wfile_and_may_change_it(same, folder):
    def make(module, seen):
        class Files(in_folder(module, folder)):
            def copyfile(self, source, outputfile):
                seen.append((outputfile is self.wfile, source.read(2)))
                outputfile.write(b"to")
                super().copyfile(source, outputfile)

        return Files

    here = same(make, get("/file.txt"))
    assert here.seen == [(True, b"te")]
    assert here.answers[0].body == b"toxt"


def test_translate_path_may_lead_elsewhere(same, folder):
    def make(module, seen):
        class Files(in_folder(module, folder)):
            def translate_path(self, path):
                seen.append(path)
                return str(folder.parent / "outside.txt")

        return Files

    here = same(make, get("/any?thing"))
    assert here.seen == ["/any?thing"]
    assert here.answers[0].body == b"outside"


def test_send_head_may_return_any_file_object(same, folder):
    def make(module, seen):
        class Files(in_folder(module, folder)):
            def send_head(self):
                self.send_response(200)
                self.send_header("Content-Length", "4")
                self.end_headers()
                return (folder / "file.txt").open("rb")

        return Files

    assert same(make, get("/x")).answers[0].body == b"text"


def test_headers_added_in_end_headers_are_in_every_answer(same, folder):
    def make(module, seen):
        class Files(in_folder(module, folder)):
            def end_headers(self):
                self.send_header("Access-Control-Allow-Origin", "*")
                super().end_headers()

        return Files

    data = b"".join(map(get, ["/file.txt", "/both", "/file.txt", "/none"]))
    here = same(make, data)
    assert [answer.status for answer in here.answers] == [200, 301, 200, 404]
    assert all(answer["Access-Control-Allow-Origin"] == "*" for answer in here.answers)


def test_directory_is_looked_at_for_each_request(same, folder):
    def make(module, seen):
        class Files(in_folder(module, folder)):
            def do_MOVE(self):
                self.directory = str(folder / "htm")
                self.do_GET()

        return Files

    here = same(make, get("/file.txt") + get("/index.htm", method="MOVE") + get("/index.htm"))
    assert [answer.body for answer in here.answers] == [b"text", b"htm", b"htm"]


def test_without_directory_it_is_the_current_one_of_each_connection(
    server_class, folder, monkeypatch
):
    kind = plain(STDLIB, "SimpleHTTPRequestHandler")
    for place, path, body in (("htm", "/index.htm", b"htm"), ("both", "/index.html", b"html")):
        monkeypatch.chdir(folder / place)
        assert answers(ask(server_class, kind, get(path)))[0].body == body


@pytest.mark.parametrize("module", [STDLIB, OURS], ids=["stdlib", "ours"])
def test_files_are_served_without_an_http_server(module, folder):
    class Files(in_folder(module, folder)):
        protocol_version = "HTTP/1.0"

    (answer,) = answers(ask(socketserver.TCPServer, Files, get("/file.txt")))
    assert answer.body == b"text"


# -- as the newest stdlib has it, on every Python --------------------------------


@pytest.mark.parametrize("server_class", SERVERS.values(), ids=SERVERS)
class TestOurs:
    """The server may be the stdlib's too: the class needs no engine."""

    def fetch(self, server_class, folder, path, *lines, **kwargs):
        return fetch(server_class, OURS, folder, path, *lines, **kwargs)

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("/both%2f", 200),
            ("/both%2F", 200),
            ("/file.txt%2f", 404),
            ("/file.txt%2F", 404),
            ("/listed%2f?x", 200),
        ],
    )
    def test_an_escaped_slash_at_the_end_is_a_slash(self, server_class, folder, path, status):
        assert self.fetch(server_class, folder, path).status == status

    def test_spaces_at_the_end_belong_to_the_name(self, server_class, folder):
        (folder / "x ").write_text("spaced")
        assert self.fetch(server_class, folder, "/x%20").body == b"spaced"
        assert self.fetch(server_class, folder, "/file.txt/%20").status == 404

    def test_the_listing_is_the_page_of_3_14(self, server_class, folder):
        page = self.fetch(server_class, folder, "/tricky/").body.decode()
        title = "Directory listing for /tricky/"
        assert page == (
            '<!DOCTYPE HTML>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<style type="text/css">\n:root {\ncolor-scheme: light dark;\n}\n</style>\n'
            f"<title>{title}</title>\n</head>\n<body>\n<h1>{title}</h1>\n<hr>\n<ul>\n"
            '<li><a href="index.html/">index.html/</a></li>\n</ul>\n<hr>\n</body>\n</html>\n'
        )

    @pytest.mark.parametrize(
        ("query", "shown"),
        [
            ("?x=1#y", "?x=1#y"),
            ("?<b>", "?&lt;b&gt;"),
            ("?x=%bb", "?x=\ufffd"),
            ("?%ed%a0%80", "??"),
        ],
    )
    def test_the_title_has_a_query_before_3_14_only(self, server_class, folder, query, shown):
        page = self.fetch(server_class, folder, f"/listed/{query}").body.decode(errors="replace")
        title = re.search(r"<title>Directory listing for (.*)</title>", page)[1]
        assert title == "/listed/" + (shown if sys.version_info < (3, 14) else "")

    @pytest.mark.parametrize("path", ["/a%00b", "/%00", "/both/%00/", "/file.txt%00", "/%ed%a0%80"])
    def test_a_name_that_no_file_can_have_is_not_found(self, server_class, folder, path):
        assert self.fetch(server_class, folder, path).status == 404

    def test_default_content_type_is_for_names_that_say_nothing(self, server_class, folder):
        kinds = {}
        for name in ("plain", "a.bin", "b.gz", "c.Z"):
            (folder / name).touch()
            answer = self.fetch(server_class, folder, f"/{name}", default_content_type="a/b")
            kinds[name] = answer["Content-type"]
        octets = "application/octet-stream"
        assert kinds == {"plain": "a/b", "a.bin": octets, "b.gz": "application/gzip", "c.Z": octets}

    @pytest.mark.parametrize(
        ("path", "lines", "extra"),
        [
            ("/file.txt", [], ["1", "2"]),
            ("/listed/", [], ["1", "2"]),
            ("/both/", [], ["1", "2"]),
            ("/both", [], []),
            ("/none", [], []),
            ("/file.txt", [f"If-Modified-Since: {MODIFIED}"], []),
        ],
    )
    def test_extra_headers_are_for_files_and_listings(
        self, server_class, folder, path, lines, extra
    ):
        class Files(plain(OURS, "SimpleHTTPRequestHandler")):
            def __init__(self, *args):
                pairs = [("X-Extra", "1"), ("X-Extra", "2"), ("content-TYPE", "not/this")]
                super().__init__(*args, directory=folder, extra_response_headers=pairs)

        (answer,) = answers(ask(server_class, Files, get(path, *lines)))
        assert answer.all("X-Extra") == extra
        assert "not/this" not in answer.all("Content-Type")

    def test_extra_headers_reach_a_send_header_with_two_arguments(self, server_class, folder):
        class Files(in_folder(OURS, folder)):
            extra_response_headers = None

            def send_head(self):
                self.extra_response_headers = (("X-Extra", "1"),)
                return super().send_head()

            def send_header(self, keyword, value):
                super().send_header(keyword, value)

        (answer,) = answers(ask(server_class, Files, get("/file.txt")))
        assert answer["X-Extra"] == "1"


def test_send_head_works_without_init_and_setup(folder):
    handler = OURS.SimpleHTTPRequestHandler.__new__(OURS.SimpleHTTPRequestHandler)
    handler.directory = str(folder)
    handler.path = "/file.txt"
    handler.headers = {}
    handler.command, handler.requestline, handler.request_version = "GET", "", "HTTP/1.1"
    handler.client_address = ("127.0.0.1", 1)
    handler.wfile = io.BytesIO()
    handler.log_message = lambda *_: None
    with handler.send_head() as file:
        assert file.read() == b"text"
    assert answers(handler.wfile.getvalue() + b"text")[0].status == 200
