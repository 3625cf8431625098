"""Files of a share under preconditions and ranges, over the wire: ours beside nginx's.

The table is in `share_cases`. Each request goes to us twice: for a file that is kept open, and
with a query, past what is kept. Where nginx answers something else, the table says what, and why
the RFC has it otherwise.
"""

import gzip
import os
import shutil
import socket

import pytest
from harness import Daemon, Prefork
from http_rig import Client
from share_cases import CASES, DATES, FILES, MODIFIED_S, Case, Expected, fill

NGINX = """
daemon off; worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr crit;
{user}
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 100000;
    types {{ text/plain txt; }}
    default_type application/octet-stream;
    server {{ listen 127.0.0.1:{port}; root {site}; }}
}}
"""

TEXT = b"a line of text, which is one of many\n" * 100
#: A text with siblings, and one that is compressed while it is sent.
CODED = {
    "coded.txt": TEXT,
    "coded.txt.gz": gzip.compress(TEXT),
    "coded.txt.br": b"not looked at: whoever has put it there says that this is Brotli",
    "soft.txt": TEXT,
}
CODINGS = {"gzip": ".gz", "br": ".br", None: ""}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    folder.chmod(0o755)
    fill(folder)
    for name, content in CODED.items():
        (folder / name).write_bytes(content)
        os.utime(folder / name, (MODIFIED_S, MODIFIED_S))
    return folder


@pytest.fixture(scope="module")
def our_address(site):
    """Yield where a share listens."""
    with Prefork(site, "0", "-b", "127.0.0.1", "-w", "1", "--access-log", "off") as daemon:
        yield "127.0.0.1", daemon.port


@pytest.fixture(scope="module")
def nginx_address(site, tmp_path_factory):
    """Yield where an nginx with the same files listens."""
    program = shutil.which("nginx")
    if program is None:
        pytest.skip("nginx is not installed")
    folder = tmp_path_factory.mktemp("nginx")
    config = folder / "nginx.conf"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(NGINX.format(folder=folder, user=user, port=address[1], site=site))
        command = [program, "-p", folder, "-e", "stderr", "-c", config]
        # NGINX names the sockets it inherits, as at its own upgrade: nobody else gets the port.
        with Daemon(command, folder, [listener.fileno()], NGINX=f"{listener.fileno()};") as front:
            yield address
            assert front.stop() == 0


@pytest.fixture
def ours(our_address):
    with Client(our_address) as client:
        yield client


@pytest.fixture
def nginx(nginx_address):
    with Client(nginx_address) as client:
        yield client


def test_the_table_is_as_long_as_was_promised():
    assert len(CASES) >= 120
    assert len({(case.path, case.fields) for case in CASES}) == len(CASES)


def fields_for(client, case: Case):
    """Return the request's fields, with the validators that the server tells."""
    path = case.path if case.path[1:] in FILES else "/ten.txt"
    etag = client.ask(path)["ETag"]
    return [field.format(etag=etag, opaque=etag.strip('"'), **DATES) for field in case.fields], etag


def spans_of(answer, content: bytes):
    """Return the spans of a 206, whose bodies are those parts of the content."""
    size = len(content)
    if answer["Content-Range"] is not None:
        parts = [(answer["Content-Range"], answer.body)]
    else:
        kind, _, boundary = answer["Content-Type"].partition("; boundary=")
        assert kind == "multipart/byteranges"
        first, *parts, last = (b"\r\n" + answer.body.removeprefix(b"\r\n")).split(
            f"\r\n--{boundary}".encode()
        )
        assert (first, last) == (b"", b"--\r\n")
        parts = [part.split(b"\r\n\r\n", 1) for part in parts]
        heads = [head.decode().split("\r\n")[1:] for head, _ in parts]
        fields = [dict(line.split(": ", 1) for line in lines) for lines in heads]
        assert all(set(one) == {"Content-Type", "Content-Range"} for one in fields)
        parts = [(one["Content-Range"], part[1]) for one, part in zip(fields, parts, strict=True)]
    spans = []
    for told, body in parts:
        unit, _, rest = told.partition(" ")
        bounds, _, whole = rest.partition("/")
        first, last = map(int, bounds.split("-"))
        assert (unit, int(whole)) == ("bytes", size)
        assert body == content[first : last + 1]
        spans.append((first, last))
    return tuple(spans)


def seen(answer, method: str, content: bytes) -> Expected:
    """Return what an answer is in the table's words; its body is what its head says."""
    if answer.status == 416:
        assert answer["Content-Range"] == f"bytes */{len(content)}"
    if method == "HEAD":
        return Expected(answer.status)
    if answer.status == 200:
        assert answer.body == content
    return Expected(answer.status, spans_of(answer, content) if answer.status == 206 else ())


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_answer_is_the_rfcs(ours, case, method):
    content = FILES.get(case.path[1:], b"")
    fields, etag = fields_for(ours, case)
    expected = case.get if method == "GET" else case.head
    kept, fresh = (
        ours.ask(path, method, fields=fields)
        for path in (case.path, f"{case.path}?past=what&is=kept")
    )
    for answer in (kept, fresh):
        assert seen(answer, method, content) == expected
        check_head(answer, method, etag, content)
    assert stable(kept) == stable(fresh)


def stable(answer) -> list[tuple[str, str]]:
    """Return the fields that are the same in each answer to the same request."""
    return sorted(
        (name, value.partition("boundary=")[0]) for name, value in answer.fields if name != "Date"
    )


def check_head(answer, method: str, etag: str, content: bytes):
    """Assert that an answer of ours has the fields that the RFC wants of its status."""
    status = answer.status
    names = [name.lower() for name, _ in answer.fields]
    assert len(set(names)) == len(names)
    assert ("content-range" in names) == (
        status == 416 or (status == 206 and not is_multipart(answer))
    )
    if status == 404:
        return
    if status in (200, 206):
        assert answer["ETag"] == etag
        assert answer["Last-Modified"] == DATES["modified"]
        assert answer["Accept-Ranges"] == "bytes"
        assert answer["Cache-Control"] == "no-cache"
        assert answer["X-Content-Type-Options"] == "nosniff"
        length = len(content) if method == "HEAD" or status == 200 else len(answer.body)
        assert answer["Content-Length"] == str(length)
    elif status == 304:  # §15.4.5
        assert answer["ETag"] == etag
        assert answer["Cache-Control"] == "no-cache"
        assert not [name for name in names if name.startswith("content-")]
        assert "last-modified" not in names
    else:
        assert answer["Content-Length"] == "0"
        assert "etag" not in names
        assert "content-type" not in names


def is_multipart(answer) -> bool:
    return answer["Content-Type"].startswith("multipart/byteranges; boundary=")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_nginx_differs_only_where_the_table_says_so(nginx, case, method):
    """And in that it has ranges for HEAD, too: §14.2 defines them for GET alone."""
    content = FILES.get(case.path[1:], b"")
    fields, _ = fields_for(nginx, case)
    answer = nginx.ask(case.path, method, fields=fields)
    expected = case.nginx[0] if case.nginx else case.get
    if method == "HEAD":
        expected = Expected(expected.status)
    assert seen(answer, method, content) == expected


# -- of encodings -----------------------------------------------------------------

GZIP, BR = "Accept-Encoding: gzip", "Accept-Encoding: br"
SIZE = len(CODED["coded.txt.gz"])

#: Fields, status, coding and span, of a text with siblings. {gzip}: the entity tag of that sibling.
SIBLINGS = [
    ((), 200, None, None),
    ((GZIP,), 200, "gzip", None),
    ((BR,), 200, "br", None),
    ((GZIP, "If-None-Match: {gzip}"), 304, None, None),
    ((GZIP, "If-None-Match: {plain}"), 200, "gzip", None),
    ((GZIP, "If-None-Match: {br}, {plain}"), 200, "gzip", None),
    ((BR, "If-None-Match: {gzip}"), 200, "br", None),
    (("If-None-Match: {gzip}",), 200, None, None),
    (("If-None-Match: {plain}",), 304, None, None),
    ((GZIP, "If-Match: {plain}"), 412, None, None),
    ((GZIP, "If-Match: {gzip}"), 200, "gzip", None),
    ((GZIP, "If-Modified-Since: {modified}"), 304, None, None),
    ((GZIP, "Range: bytes=2-9"), 206, "gzip", (2, 9)),
    ((BR, "Range: bytes=-5"), 206, "br", (len(CODED["coded.txt.br"]) - 5, 10**9)),
    ((GZIP, "Range: bytes=2-9", "If-Range: {gzip}"), 206, "gzip", (2, 9)),
    ((GZIP, "Range: bytes=2-9", "If-Range: {plain}"), 200, "gzip", None),
    (("Range: bytes=2-9", "If-Range: {gzip}"), 200, None, None),
    # One Content-Encoding for a multipart would be said of what is not encoded.
    ((GZIP, "Range: bytes=0-0,2-2"), 200, "gzip", None),
    ((GZIP, f"Range: bytes={SIZE}-"), 416, None, None),
    ((f"Range: bytes={SIZE}-{SIZE}",), 206, None, (SIZE, SIZE)),
]


@pytest.mark.parametrize(("fields", "status", "coding", "span"), SIBLINGS, ids=str)
def test_each_encoding_has_its_own_tag_and_ranges(ours, fields, status, coding, span):
    lines = {"gzip": [GZIP], "br": [BR], "plain": []}
    tags = {name: ours.ask("/coded.txt", fields=asked)["ETag"] for name, asked in lines.items()}
    assert len(set(tags.values())) == 3
    asked = [field.format(**tags, **DATES) for field in fields]
    content = CODED["coded.txt" + CODINGS[coding]]
    for path in ("/coded.txt", "/coded.txt?past=what&is=kept"):
        answer = ours.ask(path, fields=asked)
        assert (answer.status, answer["Content-Encoding"]) == (status, coding)
        assert answer["Vary"] == "Accept-Encoding"
        if status == 416:
            assert answer["Content-Range"] == f"bytes */{SIZE}"
        elif status in (200, 206):
            first, last = span or (0, 10**9)
            assert answer.body == content[first : last + 1]
            assert answer["ETag"] == tags[coding or "plain"]


#: Likewise of a text that is compressed while it is sent. {soft}: the tag of that.
SOFT = [
    ((GZIP,), 200, True),
    ((GZIP, "If-None-Match: {soft}"), 304, True),
    ((GZIP, "If-None-Match: {firm}"), 304, True),
    ((GZIP, "If-None-Match: {plain}"), 200, True),
    (("If-None-Match: {soft}",), 200, False),
    ((GZIP, "If-Match: {soft}"), 412, True),
    ((GZIP, "If-Modified-Since: {modified}"), 304, True),
    # Ranges are those of the text itself, and its weak tag names none of them.
    ((GZIP, "Range: bytes=2-9"), 206, False),
    ((GZIP, "Range: bytes=2-9", "If-Range: {plain}"), 206, False),
    ((GZIP, "Range: bytes=2-9", "If-Range: {soft}"), 200, False),
    ((GZIP, "Range: bytes=2-9", "If-Range: {firm}"), 200, False),
    ((GZIP, "Range: bytes=2-9", "If-None-Match: {plain}"), 304, False),
]


@pytest.mark.parametrize(("fields", "status", "is_soft"), SOFT, ids=str)
def test_what_is_compressed_on_the_way_has_a_weak_tag_and_no_ranges(ours, fields, status, is_soft):
    tags = {"plain": ours.ask("/soft.txt")["ETag"]}
    tags["soft"] = ours.ask("/soft.txt", fields=[GZIP])["ETag"]
    tags["firm"] = tags["soft"].removeprefix("W/")
    assert tags["soft"].startswith("W/")
    assert tags["firm"] != tags["plain"]
    answer = ours.ask("/soft.txt", fields=[field.format(**tags, **DATES) for field in fields])
    assert answer.status == status
    assert answer["Vary"] == "Accept-Encoding"
    if status != 412:
        assert answer["ETag"] == (tags["soft"] if is_soft else tags["plain"])
    if status in (200, 206):
        assert answer["Content-Encoding"] == ("gzip" if is_soft else None)
        assert answer["Accept-Ranges"] == (None if is_soft else "bytes")
        body = gzip.decompress(answer.body) if is_soft else answer.body
        assert body == (TEXT if status == 200 else TEXT[2:10])


def test_a_range_of_a_text_does_not_keep_it_from_being_compressed_afterwards(ours):
    for _ in range(2):
        assert ours.ask("/soft.txt", fields=[GZIP, "Range: bytes=0-0"]).status == 206
        assert ours.ask("/soft.txt", fields=[GZIP])["Content-Encoding"] == "gzip"
