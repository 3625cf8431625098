"""Files that are kept open: each client gets what the first got who asked so, and nobody else's."""

# Servers that serve alone keep nothing; these are workers'.

import gzip
import itertools
import os

import pytest
from harness import Prefork
from http_rig import Client

from prefork.share.etags import etag_of

TEXT = b"a line of text, which is one of many\n" * 100
LONG = b"".join(b"%d lines\n" % number for number in range(100_000))
FILES = {
    "a.bin": b"\0" * 1000,
    "big.bin": bytes(range(256)) * 1000,
    "text.txt": TEXT,
    "long.txt": LONG,
    "page.html": b"<p>" + TEXT,
    "coded.css": TEXT,
    "coded.css.gz": gzip.compress(TEXT),
}
EXTRA = ("-H", "Accept-Ranges", "none", "-H", "Last-Modified", "never", "-H", "Server", "mine")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module", params=["0", "4"], ids=["inline", "threads"])
def address(site, request):
    log = ("-w", "1", "-t", request.param, "--access-log", "off", "-H", "X-Own", "yes")
    with Prefork(site, "0", "-b", "127.0.0.1", *log, *EXTRA) as daemon:
        yield "127.0.0.1", daemon.port


def told(answer):
    """Return what an answer says but for the time, and the length that only the second can know."""
    late = ("date", "content-length", "transfer-encoding")
    return answer.status, sorted((n.lower(), v) for n, v in answer.fields if n.lower() not in late)


ASKED = [
    (),
    ("Accept-Encoding: gzip",),
    ("Accept-Encoding: gzip;q=0",),
    ("Range: bytes=2-5",),
    ("If-None-Match: *",),
    ("Accept-Encoding: gzip", "If-None-Match: *"),
    ("Accept-Encoding: gzip", "Range: bytes=2-5"),
    ("Host: evil.example",),
]


@pytest.mark.parametrize("name", [*FILES])
def test_asked_again_in_any_order_each_gets_what_the_first_got(address, site, name):
    (site / name).touch()  # nothing is kept of it
    with Client(address) as client:

        def ask(fields, method="GET"):
            host = () if "Host: evil.example" in fields else ("Host: test",)
            lines = "".join(f"{line}\r\n" for line in (*host, *fields))
            client.send(f"{method} /{name} HTTP/1.1\r\n{lines}\r\n".encode())
            return client.answer(method)

        first = {}
        for fields in ASKED:
            with Client(address) as fresh:
                fresh.request(f"/{name}?fresh", fields=fields if "Host" not in str(fields) else ())
                first[fields] = fresh.answer()
        for fields in itertools.chain(ASKED, reversed(ASKED), ASKED):
            answer, head = ask(fields), ask(fields, "HEAD")
            if "Host: evil.example" in fields:
                assert (answer.status, head.status) == (421, 421)
                continue
            assert told(answer) == told(first[fields])
            assert len({n.lower() for n, _ in answer.fields}) == len(answer.fields)
            body = answer.body
            if answer["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
                assert "Accept-Encoding: gzip" in fields
            wanted = {200: FILES[name], 206: FILES[name][2:6], 304: b""}[answer.status]
            if answer.status != 206 or "Content-Encoding" not in dict(answer.fields):
                assert body == wanted
            if answer.status == 200 and answer["Content-Length"] == head["Content-Length"]:
                assert told(head) == told(answer)


def test_compressed_text_that_was_rewritten_is_never_sent_as_it_was(address, site):
    path = site / "fresh.txt"
    with Client(address) as client:
        for number in range(4):
            text = b"%d: " % number + TEXT
            path.write_bytes(text)
            os.utime(path, (number, number))
            for _ in range(4):
                answer = client.ask("/fresh.txt", fields=("Accept-Encoding: gzip",))
                assert gzip.decompress(answer.body) == text
            tag = f'W/{etag_of(path.stat())[:-1]}-gzip"'
            fields = ("Accept-Encoding: gzip", f"If-None-Match: {tag}")
            assert [client.ask("/fresh.txt", fields=fields).status for _ in range(3)] == [304] * 3
            plain = client.ask("/fresh.txt", fields=(f"If-None-Match: {tag}",))
            assert (plain.status, plain.body) == (200, text)
