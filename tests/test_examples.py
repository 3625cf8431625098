"""Each config in etc/, as it is: checked, shown, started, and used by a client."""

import contextlib
import json
import logging
import logging.handlers
import os
import re
import shutil
import socket
import struct
import subprocess
import threading
import xmlrpc.client

import httpx
import pytest
from cgi_kit import scripts_for_everybody
from conftest import CHECKOUT
from daemon_kit import Site, fetch
from harness import DEADLINE_S, Daemon, Prefork, converse, wait_until

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
    names = "behind-proxy cgi echo handler pools share syslog whois wsgi xmlrpc"
    assert [f"{name}.toml" for name in names.split()] == EXAMPLES


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


def test_echo_sends_back_what_comes_over_tcp_and_udp(tmp_path):
    with started(tmp_path, "echo.toml", PORT=0) as daemon:
        tcp, udp = (int(at.rpartition(":")[2]) for at in listening(daemon))
        data = os.urandom(100_000)
        assert converse(("127.0.0.1", tcp), data) == data
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(DEADLINE_S)
            for data in b"hello", b"", os.urandom(60_000):
                client.sendto(data, ("127.0.0.1", udp))
                assert client.recv(65536) == data


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has ports below 1024")
def test_echo_does_not_answer_a_service(tmp_path):
    with (
        started(tmp_path, "echo.toml", PORT=0) as daemon,
        socket.socket(type=socket.SOCK_DGRAM) as service,
        socket.socket(type=socket.SOCK_DGRAM) as client,
    ):
        udp = ("127.0.0.1", int(listening(daemon)[1].rpartition(":")[2]))
        service.bind(("127.0.0.1", 1023))
        for sock in service, client, client:  # two workers: one of them may be slower
            sock.settimeout(DEADLINE_S)
            sock.sendto(b"hello", udp)
        assert [client.recv(9), client.recv(9)] == [b"hello", b"hello"]
        service.setblocking(False)
        with pytest.raises(BlockingIOError):
            service.recv(9)


def test_echo_does_not_answer_another_echo(tmp_path):
    with (
        started(tmp_path, "echo.toml", PORT=0) as daemon,
        socket.socket(type=socket.SOCK_DGRAM) as other,
        socket.socket(type=socket.SOCK_DGRAM) as client,
    ):
        udp = ("127.0.0.1", int(listening(daemon)[1].rpartition(":")[2]))
        other.bind(("127.0.0.2", udp[1]))
        for sock in other, client, client:  # two workers: one of them may be slower
            sock.settimeout(DEADLINE_S)
            sock.sendto(b"hello", udp)
        assert [client.recv(9), client.recv(9)] == [b"hello", b"hello"]
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.recv(9)


def test_whois_tells_what_its_folder_has(tmp_path):
    records = tmp_path / "records"
    records.mkdir()
    (records / "example.org.txt").write_text("domain: example.org\nowner: Ada, Zürich\n")
    (records / "jd-1.txt").write_text("person: John Doe\n")
    (tmp_path / "secret.txt").write_text("secret\n")
    known = "domain: example.org\r\nowner: Ada, Zürich\r\n".encode()
    with started(tmp_path, "whois.toml", PORT=0, RECORDS=records) as daemon:
        at = ("127.0.0.1", daemon.port)
        assert converse(at, b"example.org\r\n") == known
        assert converse(at, b"WWW.Example.ORG\n") == known
        assert converse(at, b"JD-1\r\n") == b"person: John Doe\r\n"
        for name in b"example.com", b"../secret", b"..", b"", b"a/b", b"\xff", b"x" * 190, b".org":
            assert converse(at, name + b"\r\n") == b"No match.\r\n", name
        assert converse(at, b"x" * 200 + b"\r\n") == b""
        assert converse(at, b"example.org") == b""  # no end of line: it was cut off


def test_whois_waits_no_longer_for_who_says_a_byte_now_and_then(tmp_path):
    def dawdle(client):
        for _ in range(190):
            client.sendall(b"a")
            threading.Event().wait(0.1)  # such a client is what is tested

    site = Site(tmp_path)
    options = {"records": str(tmp_path), "timeout": 0.5}
    site.write(handler="whois:Whois", path=[str(ETC)], handler_options=options)
    with site.start() as daemon, socket.create_connection(("127.0.0.1", daemon.port)) as client:
        with pytest.raises(ConnectionError):  # it is hung up on
            dawdle(client)
        assert converse(("127.0.0.1", daemon.port), b"example.org\n") == b"No match.\r\n"


@pytest.mark.skipif(shutil.which("whois") is None, reason="whois is not installed")
def test_a_real_whois_client_is_answered(tmp_path):
    (tmp_path / "example.org.txt").write_text("domain: example.org\n")
    with started(tmp_path, "whois.toml", PORT=0, RECORDS=tmp_path) as daemon:
        command = ["whois", "-h", "127.0.0.1", "-p", str(daemon.port), "www.example.org"]
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        assert "domain: example.org" in answer.stdout


MESSAGES = [
    (b"<34>1 2003-10-11T22:14:15.003Z host su - ID47 - \xef\xbb\xbf'su root' failed", "auth.crit"),
    (b"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 p 8710 - - %% ok", "local4.notice"),
    (b"<34>Oct 11 22:14:15 host su: 'su root' failed\n", "auth.crit"),
    (b"<0>all is over\0", "kern.emerg"),
    (b"<191>the last", "local7.debug"),
    (b"no priority", "user.notice"),
    (b"<192>too much", "user.notice"),
    (b"<007>leading zeros", "user.notice"),
    (b"", "user.notice"),
    (b"<13>one\nforged \x1b[2J two\xff", "user.notice"),
]
WRITTEN = [
    "2003-10-11T22:14:15.003Z host su - ID47 - 'su root' failed",
    "2003-08-24T05:14:15.000003-07:00 192.0.2.1 p 8710 - - %% ok",
    "Oct 11 22:14:15 host su: 'su root' failed",
    "all is over",
    "the last",
    "no priority",
    "<192>too much",
    "<007>leading zeros",
    "",
    r"one#012forged #033[2J two\xff",
]


def test_syslog_writes_a_line_for_each_message(tmp_path):
    log, path = tmp_path / "messages", tmp_path / "log.sock"
    with started(tmp_path, "syslog.toml", PORT=0, SOCKET=path, LOG=log) as daemon:
        udp = ("127.0.0.1", int(listening(daemon)[0].rpartition(":")[2]))
        assert path.stat().st_mode & 0o777 == 0o666
        for family, at, sender in (
            (socket.AF_INET, udp, "127.0.0.1"),
            (socket.AF_UNIX, str(path), "local"),
        ):
            with socket.socket(family, socket.SOCK_DGRAM) as client:
                for packet, _ in MESSAGES:
                    client.sendto(packet, at)
            wait_until(lambda: log.exists() and len(log.read_text().splitlines()) == len(MESSAGES))
            lines = [line.split(" ", 3) for line in log.read_text().splitlines()]
            assert [line[1:] for line in lines] == [
                [sender, priority, text]
                for (_, priority), text in zip(MESSAGES, WRITTEN, strict=True)
            ]
            assert all(re.fullmatch(r"[-\d]{10}T[:\d]{8}\.\d{3}\+00:00", line[0]) for line in lines)
            log.rename(tmp_path / f"{sender}.old")  # as logrotate does


def test_syslog_takes_what_the_stdlib_and_logger_send(tmp_path):
    path = tmp_path / "log.sock"
    with started(tmp_path, "syslog.toml", PORT=0, SOCKET=path) as daemon:
        udp = ("127.0.0.1", int(listening(daemon)[0].rpartition(":")[2]))
        for address in udp, str(path):
            facility = logging.handlers.SysLogHandler.LOG_DAEMON
            handler = logging.handlers.SysLogHandler(address, facility)
            handler.handle(logging.makeLogRecord({"msg": "from Python", "levelname": "ERROR"}))
            handler.close()
        daemon.out.wait_for(r" 127\.0\.0\.1 daemon\.err from Python$")
        daemon.out.wait_for(" local daemon.err from Python$")
        if shutil.which("logger"):
            command = ["logger", "--socket", str(path), "-p", "mail.warning", "-t", "me", "hello"]
            subprocess.run(command, check=True, timeout=20)
            daemon.out.wait_for(r" local mail\.warning .*\bme: hello$")


def test_xmlrpc_is_held_up_by_nobody_who_sends_a_long_call_slowly(tmp_path):
    head = b"POST /RPC2 HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n"
    with started(tmp_path, "xmlrpc.toml", PORT=0) as daemon, contextlib.ExitStack() as stack:
        for _ in range(8 * len(daemon.workers())):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
            slow.sendall(head + b" " * 1000)
        url = f"http://127.0.0.1:{daemon.port}/RPC2"
        for number in range(4):
            with xmlrpc.client.ServerProxy(url) as proxy:
                assert proxy.add(2, number) == 2 + number


def test_xmlrpc_answers_calls(tmp_path):
    with started(tmp_path, "xmlrpc.toml", PORT=0) as daemon:
        url = f"http://127.0.0.1:{daemon.port}"
        with xmlrpc.client.ServerProxy(f"{url}/RPC2", allow_none=True) as proxy:
            assert proxy.add(2, 3.5) == 5.5
            assert set(proxy.host()) == {"name", "time"}
            assert {"add", "host", "system.listMethods"} <= set(proxy.system.listMethods())
            assert proxy.system.methodHelp("add") == "Return the sum of two numbers."
            for call in (lambda: proxy.add(2), proxy.no_such, lambda: proxy._dispatch("add", [])):
                with pytest.raises(xmlrpc.client.Fault):
                    call()
        with pytest.raises(xmlrpc.client.ProtocolError, match="404"):
            xmlrpc.client.ServerProxy(f"{url}/other").add(2, 3)
        answer = httpx.post(f"{url}/RPC2", content=b"x" * 2_000_000, timeout=DEADLINE_S)
        assert answer.status_code == 413
        daemon.log.wait_for(r'^127\.0\.0\.1 - - .*"POST /RPC2 HTTP/1\.1" 200')


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
