"""Nobody leaves a share: by no spelling of a path, by no link, and not while links are swapped."""

import os
import re
import tempfile
import urllib.parse
from collections import Counter
from pathlib import Path

import hostile
import pytest
from http_kit import OURS, serving
from http_rig import Client

from prefork.share import ShareRequestHandler

#: Ways to write "..", or what somebody, some time, took for it.
UPS = (
    "..",
    "%2e%2e",
    "%2E%2e",
    ".%2e",
    "%2E.",
    "%252e%252e",
    "%25252e%25252e",
    "%25%32%65%25%32%65",
    "%c0%ae%c0%ae",
    "%e0%80%ae%e0%80%ae",
    "%f0%80%80%ae%f0%80%80%ae",
    "%c0.%c0.",
    "\xc0\xae\xc0\xae",
    "%u002e%u002e",
    "%%32%65%%32%65",
    "..;",
    "..;a=b",
    "..%00",
    "..%20",
    "..%09",
    "..%0a",
    "..%0d%0a",
    "..%01",
    "..%ff",
    "%20..",
    "...",
    "....",
    ".%00.",
    "%uff0e%uff0e",
    "%ef%bc%8e%ef%bc%8e",  # full-width
    "\xef\xbc\x8e\xef\xbc\x8e",
    "%e2%80%a5",  # two dot leader
    "%e2%80%a4%e2%80%a4",  # one dot leaders
    ".%e2%80%8b.",  # with a space of no width
    "folder/..",
    "folder/../..",
    "link%20to%20folder/..",
    "out%20to%20parent",
    "out%20folder",
)
#: The same of "/".
SLASHES = (
    "/",
    "%2f",
    "%2F",
    "%252f",
    "%25%32%66",
    "\\",
    "%5c",
    "%5C",
    "%255c",
    "//",
    "/./",
    "/%2e/",
    "/%2f",
    "\\/",
    "%5c/",
    ";/",
    "%00/",
    "%c0%af",
    "%c1%9c",
    "%e0%80%af",
    "%uff0f",
    "%u2215",
    "%ef%bc%8f",  # full-width
    "%e2%88%95",  # division
    "%e2%81%84",  # fraction
)
#: The same of a whole path to a file outside; {} is the file's name.
WHOLE = (
    "{outside}/{}",
    "/{outside}/{}",
    "//{outside}/{}",
    "%2f{outside}/{}",
    "file://{outside}/{}",
    "/file://{outside}/{}",
    "http://test{outside}/{}",
    "http://test/../outside/{}",
    "http://test/%2e%2e/outside/{}",
    "http://test/..%2foutside/{}",
    "http://test/..%5coutside%5c{}",
    "http://test\\..\\outside\\{}",
    "http://../outside/{}",
    "HTTP://test/..;/outside/{}",
    "//test/../outside/{}",
    "///../outside/{}",
    "/./../outside/{}",
    "../outside/{}",
    "./../outside/{}",
    "..\\outside\\{}",
    "?/../outside/{}",
    "/?/../../outside/{}",
    "/#/../../outside/{}",
    "/folder/?x=../../outside/{}",
    "/folder/;/../../outside/{}",
    "/folder/..%00/../outside/{}",
    "/out%20folder/{}",
    "/out%20folder//{}",
    "/out%20folder/./{}",
    "/out%20folder/folder/../{}",
    "/%6fut%20folder/{}",
    "/out%20absolute%20folder/{}",
    "/out%20to%20top{outside}/{}",
    "/out%20to%20parent/outside/{}",
    "/folder/link%20to%20parent/out%20folder/{}",
    "/link%20to%20root/../outside/{}",
    "/link%20to%20root/out%20folder/{}",
    "/lost%20magic%20root{outside}/{}",
    "/lost%20magic%20folder/../outside/{}",
    "/proc/self/root{outside}/{}",
    "/proc/self/cwd/../outside/{}",
    "/C:{outside}/{}",
    "/C:\\outside\\{}",
    "/c|/outside/{}",
    "\\\\test\\outside\\{}",
    "//./..//outside/{}",
    "/~root/../outside/{}",
    "/~/../outside/{}",
    "/.git/../../outside/{}",
    "/plain.txt/../../outside/{}",
    "/plain.txt/%2e%2e/%2e%2e/outside/{}",
    "/no%20such/../../outside/{}",
    "/" + "../" * 1000 + "{outside}/{}",
    "/" + "%2e%2e/" * 100 + "outside/{}",
    "/" + "./" * 500 + "../outside/{}",
    "/" + "/" * 500 + "../outside/{}",
    "/" + "..;/" * 20 + "outside/{}",
    "/outside/{}",
    "/root/../../outside/{}",
    "/../root/../outside/{}",
    "/../outside/{}?download",
    "/../outside/{}?view",
    "/../outside/?zip&{}",
    "/out%20folder/?zip&{}",
    "/out%20folder/?json&{}",
    "/out%20folder/{}?download",
    "/out%20folder/{}?view",
    "/folder/%2e%2e/..%2foutside%2f{}",
)


def targets(outside, name):
    """Yield all spellings of a file's path, one that exists or not."""
    for up in UPS:
        for slash in SLASHES:
            yield f"/{up}{slash}outside{slash}{name}"
            yield f"/folder{slash}{up}{slash}{up}{slash}outside{slash}{name}"
    for whole in WHOLE:
        yield whole.format(name, outside=outside)
    yield "/out%20absolute" if name == "canary.txt" else "/lost%20dangling"
    yield "/out%20by%20a%20folder" if name == "canary.txt" else "/lost%20dangling"
    yield "/folder/out" if name == "canary.txt" else "/folder/none"


@pytest.fixture(scope="module")
def tree():
    with tempfile.TemporaryDirectory() as place:
        yield hostile.build(Path(place))


def sharing(root, **options):
    """Serve a folder, in a thread of this process."""

    class Share(ShareRequestHandler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=str(root), **kwargs)

        def log_message(self, *args):
            pass

    for name, value in options.items():
        setattr(Share, name, value)
    return serving(OURS.ThreadingHTTPServer, Share)


@pytest.fixture(scope="module")
def server(tree):
    with sharing(tree.root) as server:
        yield server


class Asker:
    """Asks one thing after another, over one connection as long as the server keeps it."""

    def __init__(self, address):
        self.address = address
        self.client = Client(address)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()

    def ask(self, target, **options):
        answer = self.client.ask(target, **options)
        if answer["Connection"] == "close":
            self.client.close()
            self.client = Client(self.address)
        return answer


def told(answer):
    """Return all that a client learns, whenever it asks."""
    fields = [field for field in answer.fields if field[0] not in ("Date", "Connection")]
    text = repr((answer.status, fields, answer.body))
    return re.sub('nonce(-|=")[A-Za-z0-9_-]+', "nonce", text)


# -- spellings ----------------------------------------------------------------------------


def test_no_spelling_of_a_path_leaves_the_root_or_tells_what_is_outside(tree, server):
    """What is outside is answered as what is not there at all."""
    there = list(targets(tree.outside, "canary.txt"))
    nowhere = list(targets(tree.outside, "nobody.txt"))
    assert len(set(there)) >= 1500
    statuses = Counter()
    with Asker(server.server_address) as asker:
        for target, missing in zip(there, nowhere, strict=True):
            answer = asker.ask(target)
            assert hostile.CANARY not in answer.body, target
            assert told(answer) == told(asker.ask(missing)), target
            statuses[answer.status] += 1
    # 200: of what follows "?" or "#" nothing is a path; and folders of the root itself.
    assert set(statuses) <= {200, 301, 400, 404}, statuses
    assert statuses[404] + statuses[400] > 0.97 * len(there), statuses


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_no_other_method_tells_it_either(tree, server, method):
    with Asker(server.server_address) as asker:
        for whole in WHOLE:
            there, missing = (
                asker.ask(whole.format(name, outside=tree.outside), method=method)
                for name in ("canary.txt", "nobody.txt")
            )
            assert told(there) == told(missing), whole


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/proc/self/environ", "/proc/self/fd/0", "/dev/zero", "/dev/stdin"]
)
def test_files_of_the_system_are_not_there(server, path):
    with Asker(server.server_address) as asker:
        for start in (
            "",
            "/",
            "/..",
            "/%2e%2e",
            "/" + "../" * 30,
            "http://test",
            "/out%20to%20top",
        ):
            answer = asker.ask(start + path)
            assert answer.status in (400, 404), start
            assert b"root:" not in answer.body


def test_a_folder_named_like_a_host_is_redirected_to_on_this_one(tmp_path):
    """`//host` is a path here; and a URL of another host, where a browser is sent to it."""
    for name in ("evil.example", "\\evil.example", "http:", "javascript:alert(1)", "a\r\nb: c"):
        (tmp_path / name).mkdir()
    with sharing(tmp_path) as server, Asker(server.server_address) as asker:
        for target, location in [
            ("/evil.example", "evil.example/"),
            ("//evil.example", "evil.example/"),
            ("///evil.example?a=//b", "evil.example/?a=//b"),
            ("http://test//evil.example", "evil.example/"),
            ("/%5Cevil.example", "%5Cevil.example/"),
            ("/http:", "./http:/"),
            ("/javascript:alert(1)", "./javascript:alert(1)/"),
            ("/a%0d%0ab:%20c", "./a%0D%0Ab:%20c/"),
        ]:
            answer = asker.ask(target)
            assert (answer.status, answer["Location"]) == (301, location)
        for target in ("/\\evil.example", "/%2fevil.example", "/%2f%2fevil.example"):
            assert asker.ask(target).status in (400, 404)


# -- the hostile tree ---------------------------------------------------------------------


def shown(asker, url):
    """Return the names in a folder, each with its URL as a browser would make it of its href."""
    base = f"http://test{url}"
    return {
        names_of(joined)[-1]: joined.removeprefix("http://test")
        for entry in asker.ask(f"{url}?json").json()["entries"]
        if (joined := urllib.parse.urljoin(base, entry["href"])).startswith(base)
    }


def names_of(url):
    return tuple(os.fsdecode(urllib.parse.unquote_to_bytes(url)).strip("/").split("/"))


def test_every_entry_that_is_shown_can_be_fetched_and_nothing_else_is_shown(tree, server):
    known = {*tree.files, *tree.folders, *tree.linked, *tree.closed} - {()}
    fetched = {}
    with Asker(server.server_address) as asker:
        ahead = ["/"]
        while ahead:
            folder = ahead.pop()
            for url in shown(asker, folder).values():
                parts = names_of(url)
                answer = fetched[parts] = asker.ask(url)
                if url.endswith("/") and parts not in tree.linked and answer.status == 200:
                    ahead.append(url)
    assert set(fetched) | {("closed", "inside.txt")} == known
    for parts, answer in fetched.items():
        if parts in tree.closed:
            assert answer.status == (200 if os.geteuid() == 0 else 403), parts
        else:
            assert (parts, answer.status) == (parts, 200)
        if parts in tree.files:
            assert answer.body == tree.files[parts]


# -- races --------------------------------------------------------------------------------

REQUESTS = 20_000
_BATCH = 50
_CONNECTION = 1000  # requests: the server's own limit


def pipelined(address, paths, count):
    """Yield path and answer of so many requests, which go round the paths, many at a time."""
    for first in range(0, count, _CONNECTION):
        with Client(address) as client:
            for start in range(first, first + _CONNECTION, _BATCH):
                asked = [(n, paths[n % len(paths)]) for n in range(start, start + _BATCH)]
                lines = [
                    f"GET {path.format(n)} HTTP/1.1\r\nHost: test\r\n\r\n" for n, path in asked
                ]
                client.send("".join(lines).encode())
                for _, path in asked:
                    yield path, client.answer()


def test_who_swaps_links_under_twenty_thousand_requests_gains_nothing(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root, root / "folder", outside):
        folder.mkdir()
    (root / "file").write_bytes(b"inside")
    (root / "folder" / "file").write_bytes(b"inside")
    (outside / "file").write_bytes(hostile.CANARY)
    (root / "link").symlink_to("../outside/file")
    (root / "other").symlink_to(outside)
    # With a query, each is looked up; without, what is kept of it is looked at again.
    paths = ["/file?{}", "/folder/file?{}", "/link?{}", "/other/file?{}", "/file", "/folder/file"]
    seen = {path: Counter() for path in paths}
    swaps = [(root / "file", root / "link"), (root / "folder", root / "other")]
    with sharing(root) as server, hostile.swapping(*swaps):
        for path, answer in pipelined(server.server_address, paths, REQUESTS):
            assert hostile.CANARY not in answer.body
            seen[path][answer.status, answer.body if answer.status == 200 else b""] += 1
    assert sum(map(Counter.total, seen.values())) == REQUESTS
    for path, outcomes in seen.items():
        assert set(outcomes) <= {(200, b"inside"), (404, b"")}, path
        assert outcomes[200, b"inside"] > 0, path
        assert outcomes[404, b""] > 0, path
