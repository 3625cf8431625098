"""Real frameworks, each on four workers, inline and with threads, beside the servers they know.

One daemon serves all of them, and another process the same sites under wsgiref, WsgiDAV under
cheroot: where no other word is said, an answer is right if it is the same there.
"""

import hashlib
import importlib.util
import io
import itertools
import json
import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from daemon_kit import Site, fetch, table
from harness import DEADLINE_S, Crowd, Daemon, converse, read_all
from http_kit import answers

from prefork.http.file_wrapper import FileWrapper

SITES = {
    "flask": "flask_site:application",
    "django": "django_site:create_application()",
    "bottle": "bottle_site:application",
    "falcon": "falcon_site:application",
}
DAV = "dav_site:create_application()"
MODES = {"inline": 0, "threads": 8}
PLACES = [f"{site}-{mode}" for site in SITES for mode in MODES]
FOLDER = Path(__file__).parent / "apps" / "sites"

#: Shared by all clients, whose start is slow otherwise.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

#: Behind a proxy that has TLS.
FORWARDED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "site.example",
}


def is_here(site: str) -> bool:
    return importlib.util.find_spec("wsgidav" if site == "dav" else site) is not None


class Served:
    """The daemon, the other servers, and where each site is."""

    def __init__(self, site: Site, daemon, peers):
        self.folder, self.daemon = site.folder, daemon
        self.site = site
        places = [f"{name}-{mode}" for name in (*SITES, "dav") if is_here(name) for mode in MODES]
        at = daemon.log.wait_for(r"master\.listening .*\bat=(\S+)")[1].strip('"').split(",")
        self.ports = dict(zip(places, (int(a.rpartition(":")[2]) for a in at), strict=True))
        told = json.loads(peers.out.wait_for(r"^PORTS (.*)$")[1])
        self.peers = {name.partition("_")[0]: port for name, port in told.items()}

    def client(self, place: str) -> httpx.Client:
        port = self.ports[place] if "-" in place else self.peers[place]
        return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_S, verify=NO_TLS)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sites")
    film = secrets.token_bytes(3_000_000)
    (folder / "film.bin").write_bytes(film)
    site = Site(folder)
    parts = [table("master", {"control": "./control.sock"})]
    names = [name for name in (*SITES, "dav") if is_here(name)]
    for name, mode in itertools.product(names, MODES):
        keys = {
            "bind": ["127.0.0.1:0"],
            "handler": SITES.get(name, DAV),
            "path": [FOLDER],
            "workers": 4,
            "threads": MODES[mode],
            "forwarders": ["127.0.0.1"],
            "access_log": "off",
            # A client that is slow to come back may: on a busy machine none shall be lost for that.
            "linger_timeout": "20s",
        }
        if name == "dav":
            # Each request is a connection of its own, and any worker's.
            keys["limits"] = {"keep_alive_requests": 1}
        parts.append(table(f"server.{name}-{mode}", keys))
    site.config.write_text("\n".join(parts))
    wanted = [SITES.get(name, DAV) for name in names]
    if importlib.util.find_spec("cheroot") is None:
        wanted.remove(DAV)
    beside = [sys.executable, FOLDER / "peers.py", *wanted]
    (folder / "beside").mkdir()
    (folder / "beside" / "film.bin").symlink_to(folder / "film.bin")
    with (
        Daemon(beside, cwd=folder, SITES=str(folder / "beside")) as peers,
        site.start(SITES=str(folder)) as daemon,
    ):
        yield Served(site, daemon, peers)


@pytest.fixture(params=PLACES)
def place(request):
    if not is_here(request.param.partition("-")[0]):
        pytest.skip("not installed")
    return request.param


def told(answer: httpx.Response):
    """Return what an answer says, but for what is the server's, or of this moment."""
    mine = ("date", "server", "connection", "transfer-encoding")
    port = str(answer.url.port)
    fields = []
    for name, value in answer.headers.multi_items():
        if name == "set-cookie":
            fields.append((name, value.partition("=")[0]))  # signed, with the time
        elif name == "allow":
            fields.append((name, sorted(value.split(", "))))
        elif name == "content-length" and value == "0" and answer.request.method == "HEAD":
            continue  # wsgiref's own guess, which is wrong
        elif name not in mine:
            fields.append((name, value.replace(f":{port}", ":PORT")))
    body = answer.content.replace(b":" + port.encode(), b":PORT")
    return answer.status_code, answer.reason_phrase, fields, body


@pytest.fixture
def client(served, place):
    with served.client(place) as client:
        yield client


def film(served) -> bytes:
    return (served.folder / "film.bin").read_bytes()


def measured(data: bytes) -> dict:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def chunks(data: bytes, size: int = 70_000):
    """Yield a body in pieces, which httpx sends as chunks."""
    return (data[at : at + size] for at in range(0, len(data), size))


STREAM = b"".join(f"piece {number}\n".encode() * 200 for number in range(50))

#: What is asked for of each site and of the same site beside it.
REQUESTS = {
    "a page": ("GET", "/hello/world", {}),
    "a name to be escaped": ("GET", "/hello/%3Cb%3E%26", {}),
    "a name that is not ASCII": ("GET", "/hello/Zo%C3%AB%E2%82%AC", {}),
    "a name that is not UTF-8": ("GET", "/hello/%FF", {}),
    "a query": ("GET", "/who?q=%E2%82%AC&q=2;3", {"headers": {"Host": "site.example"}}),
    "a form": ("POST", "/form", {"data": {"name": "Zo\u00eb & co", "tag": ["a", "b"]}}),
    "a form without a field": ("POST", "/form", {"data": {"other": "x"}}),
    "cookies": ("GET", "/cookies", {"headers": {"Cookie": "a=1; b=two"}}),
    "a session": ("GET", "/visits", {}),
    "a stream": ("GET", "/stream", {}),
    "a redirect": ("GET", "/old", {}),
    "a file": ("GET", "/download", {}),
    "a part of a file": ("GET", "/download", {"headers": {"Range": "bytes=2000000-2999999"}}),
    "the end of a file": ("GET", "/download", {"headers": {"Range": "bytes=-1000"}}),
    "no part of a file": ("GET", "/download", {"headers": {"Range": "bytes=9999999-"}}),
    "no page": ("GET", "/missing", {}),
    "a fault": ("GET", "/fail", {}),
    "the head of a page": ("HEAD", "/hello/world", {}),
    "the head of a file": ("HEAD", "/download", {}),
    "the head of a stream": ("HEAD", "/stream", {}),
    "a method that the page has not": ("DELETE", "/hello/world", {}),
    "the options": ("OPTIONS", "/hello/world", {}),
}


@pytest.mark.parametrize("what", REQUESTS)
def test_an_answer_is_the_same_as_under_wsgiref(served, place, what):
    method, path, more = REQUESTS[what]
    with served.client(place) as here, served.client(place.partition("-")[0]) as there:
        theirs = told(there.request(method, path, **more))
        assert told(here.request(method, path, **more)) == theirs
        here.cookies.clear()
        assert told(here.request(method, path, **more)) == theirs  # from what was kept of the first


# -- bodies --------------------------------------------------------------------


def test_a_file_is_uploaded_by_a_form_sized_or_in_chunks(served, client):
    data = film(served)
    form = {"data": {"title": "Zo\u00eb"}, "files": {"film": ("a film.bin", data)}}
    wanted = {"title": "Zo\u00eb", "name": "a film.bin", **measured(data)}
    assert client.post("/upload", **form).json() == wanted
    sized = client.build_request("POST", "/upload", **form)
    body = sized.read()
    kind = {"Content-Type": sized.headers["Content-Type"]}
    answer = client.post("/upload", content=chunks(body), headers=kind)
    assert answer.request.headers["Transfer-Encoding"] == "chunked"
    assert answer.json() == wanted


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 1_000_000])
def test_a_body_in_chunks_of_any_length_is_whole(served, client, size):
    data = film(served)[:size]
    assert client.put("/raw", content=data).json() == measured(data)
    assert client.put("/raw", content=chunks(data)).json() == measured(data)


def test_a_form_in_chunks_is_a_form(client):
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = client.post("/form", content=chunks(b"name=ada&tag=x&tag=y", 3), headers=kind)
    assert answer.json() == {"name": "ada", "tags": ["x", "y"]}


def test_a_client_that_waits_is_invited_to_send_chunks(served, place):
    head = b"PUT /raw HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\n"
    with socket.create_connection(("127.0.0.1", served.ports[place]), DEADLINE_S) as sock:
        sock.sendall(head + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"5\r\nhello\r\n0\r\n\r\n")
        assert json.loads(read_all(sock).partition(b"\r\n\r\n")[2]) == measured(b"hello")


def test_what_follows_chunks_is_the_next_request(served, place):
    put = b"PUT /raw HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"5\r\nhello\r\n0\r\n\r\n"
    get = b"GET /cookies HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    raw = converse(("127.0.0.1", served.ports[place]), (put + body) * 2 + get)
    first, second, third = answers(raw)
    assert first.status == second.status == third.status == 200
    assert json.loads(first.body) == json.loads(second.body) == measured(b"hello")
    assert json.loads(third.body) == {}


def test_chunks_that_are_none_are_refused_before_the_application_is_asked(served, place):
    head = b"PUT /raw HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    (answer,) = answers(converse(("127.0.0.1", served.ports[place]), head + b"xyz\r\n"))
    assert (answer.status, answer["Connection"]) == (400, "close")


# -- clients -------------------------------------------------------------------


def test_a_session_is_known_to_each_worker(served, place):
    with served.client(place) as client:
        for count in range(1, 9):
            answer = client.get("/visits", headers={"Connection": "close"})
            assert answer.json() == {"visits": count}


def test_cookies_that_are_set_come_back(client):
    answer = client.post("/form", data={"name": "ada"})
    assert len(answer.headers.get_list("Set-Cookie")) == 2
    assert client.get("/cookies").json() == {"seen": "yes", "last": "ada"}


def test_a_trusted_proxy_tells_address_scheme_and_host(client):
    own = {"secure": False, "host": client.base_url.netloc.decode(), "address": "127.0.0.1"}
    assert client.get("/who").json() == own | {"url": str(client.base_url.join("/who"))}
    behind = client.get("/who?a=b", headers=FORWARDED).json()
    assert behind == {
        "address": "203.0.113.9",
        "secure": True,
        "host": "site.example",
        "url": "https://site.example/who?a=b",
    }


def test_a_header_that_could_be_taken_for_the_proxys_is_refused(served, place):
    head = b"GET /who HTTP/1.1\r\nHost: 127.0.0.1\r\nX_Forwarded_For: 203.0.113.9\r\n\r\n"
    (answer,) = answers(converse(("127.0.0.1", served.ports[place]), head))
    assert answer.status == 400


def test_each_worker_answers_in_the_way_that_was_configured(served, place):
    found = [fetch(served.ports[place], "/any") for _ in range(64)]
    seen = [json.loads(body) for _, _, body in found]
    pool = next(p for p in served.site.status()["pools"] if p["name"] == place)
    assert {a["pid"] for a in seen} <= {w["pid"] for w in pool["workers"]}
    assert len({a["pid"] for a in seen}) > 1
    assert {a["thread"] for a in seen} == {place.endswith("threads")}


# -- files ---------------------------------------------------------------------


def test_a_file_is_sent_by_the_kernel_and_right(served, place):
    with served.client(place) as client:
        answer = client.get("/download", headers={"User-Agent": place})
        assert answer.content == film(served)
        assert answer.headers["Content-Length"] == "3000000"
    served.daemon.log.wait_for(rf"^{place} has read 0$")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("site", ["flask", "bottle"])  # the others' files have no ETag
def test_a_file_that_was_seen_is_not_sent_again(served, site, mode):
    pytest.importorskip(site)
    with served.client(f"{site}-{mode}") as client:
        first = client.get("/download")
        again = client.get("/download", headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("mode", MODES)
def test_falcons_static_route_gives_parts_of_files(served, mode):
    pytest.importorskip("falcon")
    with served.client(f"falcon-{mode}") as client:
        part = client.get("/files/film.bin", headers={"Range": "bytes=1000000-1999999"})
        assert part.status_code == 206
        assert part.headers["Content-Range"] == "bytes 1000000-1999999/3000000"
        assert part.content == film(served)[1_000_000:2_000_000]


def test_werkzeug_reads_of_a_file_only_the_part_that_is_asked_for():
    utils = pytest.importorskip("werkzeug.utils")

    class Counted(io.BytesIO):
        count = 0

        def read(self, size=-1, /):
            data = super().read(size)
            self.count += len(data)
            return data

    file = Counted(bytes(1_000_000))
    environ = {"wsgi.file_wrapper": FileWrapper, "HTTP_RANGE": "bytes=900000-900009"}
    environ["REQUEST_METHOD"] = "GET"
    size = len(file.getvalue())
    answer = utils.send_file(file, environ, "text/plain", conditional=True, max_age=0)
    assert b"".join(answer.response) == bytes(10)
    assert (answer.status_code, size) == (206, 1_000_000)
    assert file.count < 100_000


# -- what goes wrong -----------------------------------------------------------


def test_a_fault_is_a_page_without_the_reason_and_a_traceback_in_the_log(served, place):
    with served.client(place) as client:
        answer = client.get(f"/fail?{place}")
        assert answer.status_code == 500
        assert "fault" not in answer.text
        assert client.get("/hello/you").status_code == 200
    site = place.partition("-")[0].capitalize()
    served.daemon.log.wait_for(f"^LookupError: a fault of {site}'s site: {place}$")


def test_a_fault_outside_of_the_framework_is_prefork_s_own_page(served, place):
    with served.client(place) as client:
        answer = client.get(f"/broken?{place}")
        assert (answer.status_code, answer.headers["Content-Type"]) == (
            500,
            "text/html;charset=utf-8",
        )
        assert "outside" not in answer.text
        assert client.get("/hello/you").status_code == 200
    served.daemon.log.wait_for(rf'handler\.failed .*request="GET /broken\?{place} ')
    served.daemon.log.wait_for("^RuntimeError: broken outside of the framework$")


@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_an_upload_that_is_cut_short_harms_nobody(served, place, framing):
    head = f"PUT /raw HTTP/1.1\r\nHost: 127.0.0.1\r\n{framing}\r\n\r\n".encode()
    raw = converse(("127.0.0.1", served.ports[place]), head + b"ff\r\nonly the beginning")
    assert re.match(rb"HTTP/1\.1 [45]", raw)
    with served.client(place) as client:
        assert client.get("/hello/you").status_code == 200


@pytest.mark.parametrize("path", ["/stream", "/download"])
def test_a_client_that_leaves_within_an_answer_harms_nobody(served, place, path):
    for _ in range(8):
        with socket.create_connection(("127.0.0.1", served.ports[place]), DEADLINE_S) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            assert sock.recv(12) == b"HTTP/1.1 200"
    with served.client(place) as client:
        assert client.get("/hello/you").status_code == 200


def test_a_client_of_http_1_0_gets_a_stream_until_the_end_of_the_connection(served, place):
    raw = converse(("127.0.0.1", served.ports[place]), b"GET /stream HTTP/1.0\r\n\r\n")
    (answer,) = answers(raw)
    assert answer.status == 200
    assert answer.body == STREAM
    assert answer.all("Transfer-Encoding") == []


# -- Django's own --------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_django_believes_a_proxy_about_what_forms_come_from(served, mode):
    pytest.importorskip("django")
    with served.client(f"django-{mode}") as client:
        token = client.get("/notes", headers=FORWARDED).json()["token"]
        cookie = {"Cookie": f"csrftoken={client.cookies['csrftoken']}"}
        note = {"text": "a note", "csrfmiddlewaretoken": token}
        own = FORWARDED | cookie | {"Origin": "https://site.example"}
        assert client.post("/notes", data=note, headers=own).status_code == 200
        other = own | {"Origin": "http://site.example"}
        assert client.post("/notes", data=note, headers=other).status_code == 403
        del own["X-Forwarded-Proto"]
        assert client.post("/notes", data=note, headers=own).status_code == 403


# -- all at once ---------------------------------------------------------------


class Visitors(Crowd):
    """Each asks the places in turn, several things on one connection, and checks each answer."""

    def __init__(self, served, size: int):
        super().__init__(size)
        self.served = served
        self.notes = itertools.count()
        self.turns = itertools.count()
        self.places = [place for place in served.ports if not place.startswith("dav")]

    def ask(self, kept: dict) -> None:  # noqa: ARG002 # each turn is a connection of its own
        turn = next(self.turns)
        place = self.places[turn % len(self.places)]
        with self.served.client(place) as client:
            self.look_around(client)
            self.send(client, secrets.token_bytes(turn % 200_000))
            if place.startswith("django"):
                token = client.get("/notes").json()["token"]
                note = {"text": str(turn), "csrfmiddlewaretoken": token}
                assert client.post("/notes", data=note).status_code == 200
                next(self.notes)

    def look_around(self, client: httpx.Client) -> None:
        assert "Hello, you!" in client.get("/hello/you").text
        assert client.get("/stream").content == STREAM
        part = client.get("/download", headers={"Range": "bytes=0-99999"})
        assert len(part.content) == int(part.headers["Content-Length"])
        assert client.head("/download").status_code in (200, 405)
        assert client.get("/fail").status_code == 500
        assert client.get("/missing").status_code == 404

    def send(self, client: httpx.Client, data: bytes) -> None:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            assert client.request(method, "/any").json()["method"] == method
        assert client.put("/raw", content=data).json() == measured(data)
        assert client.put("/raw", content=chunks(data, 20_000)).json() == measured(data)
        form = {"data": {"title": "t"}, "files": {"film": ("f", data)}}
        assert client.post("/upload", **form).json() == {
            "title": "t",
            "name": "f",
            **measured(data),
        }


def test_a_reload_loses_nothing_under_all_of_this(served):
    def count_notes() -> int:
        if not is_here("django"):
            return 0
        with served.client("django-inline") as client:
            return client.get("/notes").json()["notes"]

    before, old = count_notes(), set(served.daemon.workers())
    with Visitors(served, 2) as visitors:
        served.site.order("reload")
    assert visitors.faults == []
    assert next(visitors.turns) > len(visitors.places)
    assert count_notes() == before + next(visitors.notes)
    pools = served.site.status()["pools"]
    now = {worker["pid"] for pool in pools for worker in pool["workers"]}
    assert not now & old


# -- WebDAV --------------------------------------------------------------------


def litmus(folder, port: int, where: str) -> list[str]:
    """Return what each test of Debian's litmus came to."""
    folder.mkdir()
    done = subprocess.run(
        ["litmus", f"http://127.0.0.1:{port}/{where}/", "ada", "secret"],
        cwd=folder,  # it leaves logs there
        env=os.environ | {"TESTS": "basic copymove props locks http"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    suite, found = "", []
    for line in done.stdout.replace("\r", "\n").splitlines():
        if begun := re.match(r"-> running `(\w+)'", line):
            suite = begun[1]
        elif came := re.match(r" *\d+\. (\w+)\.* +(\w.*)$", line):
            found.append(f"{suite} {came[1]}: {came[2]}")
    return found


@pytest.mark.skipif(shutil.which("litmus") is None, reason="litmus is not installed")
@pytest.mark.parametrize("mode", MODES)
def test_litmus_finds_wsgidav_as_good_as_under_cheroot(served, tmp_path, mode):
    pytest.importorskip("wsgidav")
    pytest.importorskip("cheroot")
    here = litmus(tmp_path / "here", served.ports[f"dav-{mode}"], mode)
    assert here == litmus(tmp_path / "there", served.peers["dav"], "peer")
    passed = [line for line in here if line.endswith(": pass")]
    assert {line.split()[0] for line in passed} == {"basic", "copymove", "props", "locks", "http"}
    assert len(passed) > 90  # of 104; a newer litmus may know more of WsgiDAV's own faults


LOCK = """<?xml version="1.0"?><lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope>
<locktype><write/></locktype><owner>ada</owner></lockinfo>"""
WANTED = """<?xml version="1.0"?><propfind xmlns="DAV:">
<prop><getcontentlength/></prop></propfind>"""


@pytest.mark.parametrize("mode", MODES)
def test_webdav_knows_its_locks_in_each_worker_and_takes_chunks(served, mode):
    pytest.importorskip("wsgidav")
    data = film(served)
    name = f"/{mode}/film.bin"
    with served.client(f"dav-{mode}") as client:
        client.auth = ("ada", "secret")
        assert client.put(name, content=chunks(data)).status_code == 201  # as Finder does
        found = client.request("PROPFIND", name, content=chunks(WANTED.encode(), 20))
        assert found.status_code == 207
        assert "getcontentlength>3000000</" in found.text
        assert "getlastmodified" not in found.text  # nothing but what the body asks for
        locked = client.request("LOCK", name, content=LOCK)
        assert locked.status_code == 200
        for _ in range(16):  # each by whichever worker it comes to
            assert client.put(name, content=b"other").status_code == 423
        token = {"Lock-Token": locked.headers["Lock-Token"]}
        assert client.request("UNLOCK", name, headers=token).status_code == 204
        part = client.get(name, headers={"Range": "bytes=1000000-1999999"})
        assert (part.status_code, part.content) == (206, data[1_000_000:2_000_000])
        assert client.delete(name).status_code == 204
