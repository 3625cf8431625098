"""Each config in etc/, as it is: checked, shown, started, and used by a client."""

import contextlib
import json
import os
import re
import shutil
import socket
import struct

import httpx
import pytest
from cgi_kit import scripts_for_everybody
from conftest import CHECKOUT
from daemon_kit import Site, fetch
from harness import DEADLINE_S, Daemon, Prefork, converse

ETC = CHECKOUT / "etc"
EXAMPLES = sorted(path.name for path in ETC.glob("*.toml"))


@pytest.fixture
def share(tmp_path):
    folder = tmp_path / "share"
    folder.mkdir()
    (folder / "notes.md").write_text("# Notes\n")
    (folder / "README").write_text("Read me\n")
    (folder / "film").mkdir()
    (folder / "film" / "one.mp4").write_bytes(bytes(range(256)) * 4096)
    return folder


@contextlib.contextmanager
def started(tmp_path, name: str, **variables: object):
    """Start an example; a config around it names a control socket that is nobody else's."""
    config = tmp_path / "around.toml"
    control = '[master]\ncontrol = "./control.sock"\n'
    config.write_text(f"include = [{json.dumps(str(ETC / name))}]\n{control}")
    with Prefork(config, cwd=tmp_path, **{k: str(v) for k, v in variables.items()}) as daemon:
        yield daemon
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log.text()


def listening(daemon) -> list[str]:
    return daemon.log.wait_for(r"master\.listening .*\bat=(\S+)")[1].strip('"').split(",")


def test_no_example_is_without_its_test():
    assert EXAMPLES == [
        "behind-proxy.toml",
        "cgi.toml",
        "handler.toml",
        "pools.toml",
        "share.toml",
        "wsgi.toml",
    ]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_good_and_so_is_what_is_shown_of_it(tmp_path, share, name):
    site = Site(tmp_path)
    environ = {
        **os.environ,
        "SHARE": str(share),
        "SOCKET": str(tmp_path / "http.sock"),
        "BOOK": str(tmp_path / "book"),
    }
    checked = site.run("check", ETC / name, env=environ)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.startswith(f"{ETC / name}: good\n")
    shown = site.run("show", ETC / name, env=environ)
    assert (shown.returncode, shown.stderr) == (0, "")
    site.config.write_text(shown.stdout)
    again = site.run("check", site.config, env=environ)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.splitlines()[1:] == checked.stdout.splitlines()[1:]


def test_share_shares_a_folder(tmp_path, share):
    with started(tmp_path, "share.toml", SHARE=share, PORT=0) as daemon:
        base = f"http://127.0.0.1:{daemon.port}"
        with httpx.Client(base_url=base, timeout=DEADLINE_S) as client:
            listing = client.get("/")
            assert listing.status_code == 200
            assert "notes.md" in listing.text
            assert "film/" in listing.text
            notes = client.get("/notes.md")
            assert notes.text == "# Notes\n"
            assert notes.headers["Content-Type"] == "text/markdown; charset=utf-8"
            assert notes.headers["Cache-Control"] == "no-cache"
            readme = client.get("/README")
            assert readme.headers["Content-Type"] == "text/plain; charset=utf-8"
            since = {"If-Modified-Since": notes.headers["Last-Modified"]}
            seen = client.get("/notes.md", headers=since)
            assert seen.status_code == 304
            assert client.get("/film/one.mp4").content == (share / "film/one.mp4").read_bytes()
            assert client.get("/../../etc/passwd").status_code == 404
        assert fetch(("::1", daemon.port), "/notes.md")[2] == b"# Notes\n"


def test_handler_serves_its_class_with_its_option(tmp_path):
    with started(tmp_path, "handler.toml", PORT=0) as daemon:
        status, headers, body = fetch(daemon.port)
        assert (status, body) == (200, b"Good day, 127.0.0.1!\n")
        assert headers["Content-Type"] == "text/plain; charset=utf-8"
        line = json.loads(daemon.log.wait_for(r"^\{.*\}$")[0])
        assert (line["status"], line["method"]) == (200, "GET")
        assert len(daemon.workers()) == 2


def test_pools_serves_each_in_its_way(tmp_path, share):
    ports = dict.fromkeys(("FILES_PORT", "APPLICATION_PORT", "SHOUT_PORT", "ECHO_PORT"), 0)
    with started(tmp_path, "pools.toml", SHARE=share, **ports) as daemon:
        files, application, shout, echo = (int(a.rpartition(":")[2]) for a in listening(daemon))
        assert fetch(files, "/notes.md")[2] == b"# Notes\n"
        assert fetch(application)[2] == b"Hello, 127.0.0.1!\n"
        assert converse(("127.0.0.1", shout), b"hello\nworld\n") == b"HELLO\nWORLD\n"
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(DEADLINE_S)
            client.sendto(b"hello", ("127.0.0.1", echo))
            assert client.recv(100) == b"hello"
        assert len(daemon.workers()) == 2 + 4 + 1 + 1


def test_wsgi_serves_an_application_from_four_workers(tmp_path):
    book = tmp_path / "book"
    with started(tmp_path, "wsgi.toml", BOOK=book, PORT=0) as daemon:
        base = f"http://127.0.0.1:{daemon.port}"
        with httpx.Client(base_url=base, timeout=DEADLINE_S) as client:
            for text in ("Ada was here", "<b>So was Z\u00eb</b>"):
                signed = client.post("/", data={"text": text})
                assert (signed.status_code, signed.headers["Location"]) == (303, "/")
            forwarded = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
            page = client.get("/", headers=forwarded).text
            assert "<li>Ada was here</li>" in page
            assert "<li>&lt;b&gt;So was Z\u00eb&lt;/b&gt;</li>" in page
            assert "You come from 203.0.113.9 by https." in page
            assert client.get("/book").content == book.read_bytes()
            assert client.get("/other").status_code == 404
        assert len(daemon.workers()) == 4


def test_cgi_runs_its_script_with_its_variables(tmp_path):
    with scripts_for_everybody() as site:
        shutil.copytree(ETC / "cgi-bin", site.cgi_bin, dirs_exist_ok=True)
        with started(tmp_path, "cgi.toml", PORT=0, SHARE=site.folder) as daemon:
            at = "/cgi-bin/hello.sh"
            assert fetch(daemon.port, at)[2] == b"Good day, 127.0.0.1!\n"
            assert fetch(daemon.port, at, "POST", b"me too")[2] == b"Good day, 127.0.0.1!\nme too"
            assert fetch(daemon.port, "/cgi-bin/")[0] == 403
            daemon.log.wait_for(r'"POST /cgi-bin/hello\.sh HTTP/1\.1" 200')


V1 = b"PROXY TCP4 198.51.100.1 198.51.100.2 1111 443\r\n"
V1_SIX = b"PROXY TCP6 2001:db8::1 2001:db8::2 1111 443\r\n"
_PAIR = socket.inet_aton("198.51.100.3") + socket.inet_aton("198.51.100.4")
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H8sHH", 12, _PAIR, 1111, 443)


@pytest.mark.parametrize(
    ("header", "address"),
    [(V1, "198.51.100.1"), (V1_SIX, "2001:db8::1"), (V2, "198.51.100.3")],
)
def test_behind_proxy_believes_haproxy_about_the_client(tmp_path, header, address):
    ask = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with started(tmp_path, "behind-proxy.toml", SOCKET=tmp_path / "s", PORT=0) as daemon:
        port = int(next(at for at in listening(daemon) if at[0] != "u").rpartition(":")[2])
        answer = converse(("127.0.0.1", port), header + ask)
        assert answer.endswith(f"Hello, {address}!\n".encode())
        daemon.log.wait_for(rf'^{re.escape(address)} - - \[.*\] "GET / HTTP/1\.1" 200')
        without = converse(("127.0.0.1", port), ask)
        assert b"Hello" not in without  # whoever comes by this port begins with PROXY


def test_behind_proxy_believes_forwarded_headers_by_its_socket(tmp_path):
    path = tmp_path / "http.sock"
    with started(tmp_path, "behind-proxy.toml", SOCKET=path, PORT=0) as daemon:
        body = fetch(str(path), X_Forwarded_For="203.0.113.9")[2]
        assert body == b"Hello, 203.0.113.9!\n"
        daemon.log.wait_for(r"^203\.0\.113\.9 - - ")
        assert path.stat().st_mode & 0o777 == 0o660


NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
{user}
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream prefork {{ server unix:{socket}; keepalive 32; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://prefork;
            {directives}
        }}
    }}
}}
"""


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_behind_a_real_nginx_the_client_is_known_and_connections_are_kept(tmp_path):
    """Nginx has the directives that the example's own comment gives."""
    path = tmp_path / "http.sock"
    comment = (ETC / "behind-proxy.toml").read_text()
    directives = re.findall(r"^#\s+(proxy_(?!pass)\w+ .*;)$", comment, re.MULTILINE)
    assert len(directives) == 5
    with (
        started(tmp_path, "behind-proxy.toml", SOCKET=path, PORT=0) as daemon,
        socket.create_server(("127.0.0.1", 0)) as ours,
    ):
        config = tmp_path / "nginx.conf"
        port = ours.getsockname()[1]
        config.write_text(
            NGINX.format(
                folder=tmp_path,
                user="user root;" if os.geteuid() == 0 else "",
                socket=path,
                port=port,
                directives="\n            ".join(directives),
            )
        )
        # NGINX names the sockets it inherits, as at its own upgrade: nobody else gets the port.
        nginx = [shutil.which("nginx"), "-p", tmp_path, "-e", "stderr", "-c", config]
        with Daemon(nginx, tmp_path, [ours.fileno()], NGINX=f"{ours.fileno()};") as front:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_S) as client:
                for _ in range(20):
                    answer = client.get("/")
                    assert (answer.status_code, answer.text) == (200, "Hello, 127.0.0.1!\n")
                    assert answer.headers["Server"].startswith("nginx")
                forged = client.get("/", headers={"X-Forwarded-For": "203.0.113.9"})
                assert forged.text == "Hello, 127.0.0.1!\n"
            daemon.log.wait_for(r"^127\.0\.0\.1 - - .*python-httpx", count=21)
            assert front.stop() == 0
