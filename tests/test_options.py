"""The options: those of `python -m http.server` with their meaning there, and prefork's own."""

import ast
import os
import re
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from apps.command import Service, get, run, talk
from harness import DEADLINE_S, free_port, title

from prefork.cpus import available_cpus

LOCAL = ("-b", "127.0.0.1")

LOG_LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} (DEBUG|INFO|WARNING|ERROR) "
    r'[a-z_]+(\.[a-z_]+)+( [a-z_]+=([^\s"=]+|"([^"\\]|\\.)*"))*'
)
ACCESS_LINE = re.compile(r'\S+ - - \[[^]]+\] "[^"]*" \d{3} \S+')


#: The stdlib's contract; a folder by itself is a share.
PLAIN = "prefork.http:SimpleHTTPRequestHandler"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return a folder with a file for each way to know, or not to know, its content type."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("README", "odd.zz_unknown", "data.bin", "a.txt", "pack.tar.gz", ".hidden"):
        (folder / name).write_text("content")
    (folder / "sub").mkdir()
    (folder / "paged").mkdir()
    (folder / "paged" / "index.html").write_text("<p>index")
    return folder


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


# -- -b, --bind and PORT -----------------------------------------------------


def test_without_bind_all_interfaces_are_served_each_family_by_its_own_socket():
    with Service("served:Hello", "0") as daemon:
        peer = ast.literal_eval(get(("127.0.0.1", daemon.port)).body.decode())
        assert (peer[0], len(peer)) == ("127.0.0.1", 2)
        assert daemon.at.split(",")[0] == f"0.0.0.0:{daemon.port}"


@needs_ipv6
def test_an_ipv6_client_is_known_by_its_address_of_four_parts():
    with Service("served:Hello", "0") as daemon:
        peer = ast.literal_eval(get(("::1", daemon.port)).body.decode())
        assert (peer[0], peer[2:]) == ("::1", (0, 0))
        assert daemon.at == f"0.0.0.0:{daemon.port},[::]:{daemon.port}"


def test_an_address_that_was_not_named_is_not_served():
    with Service("served:Hello", "0", "-b", "127.0.0.2") as daemon:
        assert get(("127.0.0.2", daemon.port)).status == 200
        with pytest.raises(ConnectionRefusedError):
            get(("127.0.0.1", daemon.port))


@needs_ipv6
@pytest.mark.parametrize("address", ["::1", "[::1]"])
def test_an_ipv6_address_may_stand_in_brackets(address):
    with Service("served:Hello", "0", "-b", address) as daemon:
        assert daemon.at == f"[::1]:{daemon.port}"
        assert get(("::1", daemon.port)).status == 200


def test_a_host_name_means_all_its_addresses():
    found = {info[4][0] for info in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    if not has_ipv6():
        found.discard("::1")
    with Service("served:Hello", "0", "--bind", "localhost") as daemon:
        port = daemon.port
        shown = {f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in found}
        assert set(daemon.at.split(",")) == shown
        for host in found:
            assert get((host, port)).status == 200


@needs_ipv6
def test_the_ipv6_wildcard_alone_serves_ipv4_clients_too():
    with Service("served:Hello", "0", "-b", "::") as daemon:
        assert get(("::1", daemon.port)).status == 200
        peer = ast.literal_eval(get(("127.0.0.1", daemon.port)).body.decode())
        assert peer[0] == "::ffff:127.0.0.1"


@needs_ipv6
@pytest.mark.parametrize("order", [["::", "0.0.0.0"], ["0.0.0.0", "::"]])
def test_both_wildcards_share_the_port(order):
    with Service("served:Hello", "0", "-b", order[0], "-b", order[1]) as daemon:
        peer = ast.literal_eval(get(("127.0.0.1", daemon.port)).body.decode())
        assert peer[0] == "127.0.0.1"
        assert get(("::1", daemon.port)).status == 200


@pytest.mark.parametrize("target", ["served:Hello", "served:Echo"])
@pytest.mark.parametrize("unix_at", [0, 1, 2])
def test_port_0_is_the_same_free_port_at_all_addresses(tmp_path, target, unix_at):
    hosts = ["127.0.0.1", "127.0.0.2"]
    hosts.insert(unix_at, f"unix:{tmp_path}/s")
    with Service(target, "0", *(word for host in hosts for word in ("-b", host))) as daemon:
        places = daemon.at.split(",")
        assert places.pop(unix_at) == f"unix:{tmp_path}/s"
        port = places[0].rpartition(":")[2]
        assert int(port) > 0
        assert places == [f"127.0.0.1:{port}", f"127.0.0.2:{port}"]


def test_an_address_named_often_is_served_once():
    with Service("served:Hello", "0", *LOCAL, *LOCAL, "-b", "127.1") as daemon:
        assert daemon.at == f"127.0.0.1:{daemon.port}"
        assert get(("127.0.0.1", daemon.port)).status == 200


def test_very_many_addresses_are_served():
    hosts = [f"127.0.{i // 250}.{i % 250 + 1}" for i in range(500)]
    with Service("served:Hello", "0", *(w for h in hosts for w in ("-b", h))) as daemon:
        assert daemon.at.count(",") == 499
        for host in (hosts[0], hosts[250], hosts[-1]):
            assert get((host, daemon.port)).status == 200


def test_the_port_is_8000_if_none_is_named(site):
    try:
        for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1")):
            if family == socket.AF_INET or has_ipv6():
                socket.create_server((host, 8000), family=family).close()
    except OSError:
        pytest.skip("another program has port 8000")
    with Service(site) as daemon:
        assert daemon.port == 8000
        assert get(("127.0.0.1", 8000), "/a.txt").body == b"content"


def test_a_named_port_is_that_port(site):
    port = free_port()
    with Service(site, port, *LOCAL) as daemon:
        assert daemon.at == f"127.0.0.1:{port}"
        assert get(("127.0.0.1", port), "/a.txt").body == b"content"


@pytest.mark.parametrize(("target", "refusal"), [("site", 405), ("served:Hello", 501)])
def test_http_over_a_unix_socket_answers_and_logs(tmp_path, site, target, refusal):
    path = f"{tmp_path}/s"
    with Service(site if target == "site" else target, "-b", f"unix:{path}") as daemon:
        assert stat.S_IMODE(Path(path).lstat().st_mode) == 0o660
        assert get(path, "/").status == 200
        assert get(path, "/", method="SPAM").status == refusal
        assert daemon.stop() == 0
        assert "Traceback" not in "\n".join(daemon.log.wait_closed())
        daemon.log.wait_for(r'"GET / HTTP/1\.0" 200 \d+$')
        daemon.log.wait_for(rf'"SPAM / HTTP/1\.0" {refusal} \S+$')
    assert not Path(path).exists()


def test_curl_reads_from_a_unix_socket(tmp_path, site):
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    with Service(site, "-b", f"unix:{tmp_path}/s"):
        result = subprocess.run(
            ["curl", "-sS", "--unix-socket", tmp_path / "s", "http://any/a.txt"],
            check=True,
            capture_output=True,
            timeout=DEADLINE_S,
        )
        assert result.stdout == b"content"


def test_a_name_in_the_abstract_namespace_is_served(tmp_path):
    name = f"prefork-test-{os.getpid()}"
    with Service("http.server:SimpleHTTPRequestHandler", "-b", f"unix:@{name}", cwd=tmp_path) as d:
        assert d.at == f"unix:@{name}"
        assert get(f"\0{name}").status == 200
    assert list(tmp_path.iterdir()) == []


def test_a_unix_path_may_be_relative_and_as_long_as_the_kernel_takes(tmp_path):
    (tmp_path / "site").mkdir()
    name = "x" * 107
    with Service("site", "-b", f"unix:{name}", cwd=tmp_path) as daemon:
        assert daemon.at == f"unix:{name}"
        assert stat.S_ISSOCK((tmp_path / name).lstat().st_mode)
        assert daemon.stop() == 0
    assert not (tmp_path / name).exists()


# -- -d, --directory ---------------------------------------------------------


@pytest.mark.parametrize("option", ["-d", "--directory"])
def test_directory_is_another_way_to_name_it(site, option):
    with Service(option, "paged", "0", *LOCAL, cwd=site) as daemon:
        assert get(("127.0.0.1", daemon.port)).body == b"<p>index"


def test_directory_tells_a_simple_handler_what_to_share(site):
    target = "http.server:SimpleHTTPRequestHandler"
    with Service(target, "0", "-d", "paged", *LOCAL, cwd=site) as daemon:
        assert get(("127.0.0.1", daemon.port)).body == b"<p>index"


# -- -p, --protocol ----------------------------------------------------------


def two_requests(daemon: Service, path: str) -> list[bytes]:
    """Send two requests of HTTP/1.1 on one connection; return the status lines that come."""
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    last = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    answer = talk(("127.0.0.1", daemon.port), request + last)
    return re.findall(rb"HTTP/1\.\d \d+ [^\r]*", answer)


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ([], [b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK"]),
        (["-p", "HTTP/1.0"], [b"HTTP/1.0 200 OK"]),
        (["--protocol", "HTTP/1.1"], [b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK"]),
    ],
)
def test_protocol_decides_status_line_and_keep_alive(site, options, lines):
    with Service(site, "0", *LOCAL, *options) as daemon:
        assert two_requests(daemon, "/README") == lines


def test_protocol_reaches_a_handler_class_and_leaves_the_module_alone(tmp_path):
    source = """
import http.server

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = Handler.protocol_version.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
"""
    (tmp_path / "own.py").write_text(source)
    with Service("own:Handler", "0", *LOCAL, "-p", "HTTP/1.1", cwd=tmp_path) as daemon:
        answer = get(("127.0.0.1", daemon.port))
        assert (answer.line, answer.body) == ("HTTP/1.1 200 OK", b"HTTP/1.0")


def test_a_request_of_http_0_9_is_refused(site):
    with Service(site, "0", *LOCAL, "-H", "X-A", "1") as daemon:
        answer = talk(("127.0.0.1", daemon.port), b"GET /a.txt\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"content" not in answer


# -- -H, --header ------------------------------------------------------------


@pytest.fixture(scope="module")
def with_headers(site):
    headers = [("X-A", "one, two"), ("Set-Cookie", "a"), ("Set-Cookie", "b"), ("X-Empty", "")]
    options = [word for header in headers for word in ("-H", *header)]
    options += ["--header", "content-TYPE", "x/y", "-H", "Content-Length", "1"]
    with Service(PLAIN, "0", "-d", site, *LOCAL, *options) as daemon:
        yield "127.0.0.1", daemon.port


@pytest.mark.parametrize("path", ["/a.txt", "/sub/", "/paged/", "/"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_headers_are_added_to_files_and_listings(with_headers, path, method):
    answer = get(with_headers, path, method=method)
    assert answer.status == 200
    assert answer.all("X-A") == ["one, two"]
    assert answer.all("Set-Cookie") == ["a", "b"]
    assert answer.all("X-Empty") == [""]


@pytest.mark.parametrize(
    ("path", "headers", "method", "status"),
    [
        ("/sub", [], "GET", 301),
        ("/a.txt", ["If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT"], "GET", 304),
        ("/missing", [], "GET", 404),
        ("/a.txt/", [], "GET", 404),
        ("/a.txt", [], "SPAM", 501),
    ],
)
def test_headers_are_not_added_to_other_answers(with_headers, path, headers, method, status):
    answer = get(with_headers, path, *headers, method=method)
    assert answer.status == status
    assert answer.all("X-A") == answer.all("Set-Cookie") == answer.all("X-Empty") == []


def test_a_header_that_is_there_already_is_not_added(with_headers):
    answer = get(with_headers, "/a.txt")
    assert answer.all("Content-Type") == ["text/plain"]
    assert answer.all("Content-Length") == ["7"]
    assert answer.body == b"content"


def test_headers_are_added_beside_those_of_a_simple_handler_class(site):
    options = ["-d", site, "-H", "X-A", "1", "-H", "X-Own", "no"]
    with Service("served:Folder", "0", *LOCAL, *options) as daemon:
        answer = get(("127.0.0.1", daemon.port), "/a.txt")
        assert answer.all("X-A") == ["1"]
        assert "yes" in answer.all("X-Own")


# -- --content-type ----------------------------------------------------------


@pytest.fixture(scope="module")
def with_type(site):
    options = ["-d", site, "--content-type", "text/x-mine; charset=utf-8"]
    with Service(PLAIN, "0", *LOCAL, *options) as daemon:
        yield "127.0.0.1", daemon.port


@pytest.fixture(scope="module")
def without_type(site):
    with Service(PLAIN, "0", "-d", site, *LOCAL) as daemon:
        yield "127.0.0.1", daemon.port


@pytest.mark.parametrize("name", ["README", "odd.zz_unknown", ".hidden"])
def test_content_type_is_for_names_that_say_nothing(with_type, without_type, name):
    assert get(with_type, f"/{name}").all("Content-Type") == ["text/x-mine; charset=utf-8"]
    assert get(without_type, f"/{name}").all("Content-Type") == ["application/octet-stream"]


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/data.bin", "application/octet-stream"),
        ("/pack.tar.gz", "application/gzip"),
        ("/a.txt", "text/plain"),
        ("/paged/", "text/html"),
    ],
)
def test_content_type_leaves_names_that_say_something_alone(with_type, path, content_type):
    assert get(with_type, path).all("Content-Type") == [content_type]


def test_content_type_leaves_listings_and_errors_alone(with_type):
    assert get(with_type, "/sub/").all("Content-Type") == ["text/html; charset=utf-8"]
    assert get(with_type, "/missing").all("Content-Type") == ["text/html;charset=utf-8"]


# -- -w, --workers and --request-queue-size ----------------------------------


def test_three_workers_are_three_processes_that_all_serve():
    with Service("served:Who", "0", *LOCAL, "-w", "3") as daemon:
        workers = daemon.workers()
        assert len(workers) == 3
        assert [title(pid).split(" [")[0] for pid in workers] == [
            f"prefork: worker {index}" for index in range(3)
        ]
        assert title(daemon.pid).startswith("prefork: master [served:Who 127.0.0.1:")
        pid, _ = ast.literal_eval(talk(("127.0.0.1", daemon.port), b"").decode())
        assert pid in workers


@pytest.mark.parametrize("options", [[], ["-w", "auto"], ["--workers", "auto"]])
def test_auto_is_a_worker_for_each_processor_of_this_process(options):
    if available_cpus() != len(os.sched_getaffinity(0)):
        pytest.skip("a cgroup allows this process less than its processors")
    with Service("served:Hello", "0", *LOCAL, *options) as daemon:
        assert len(daemon.workers()) == len(os.sched_getaffinity(0))


def test_auto_heeds_the_affinity_mask(tmp_path):
    one = min(os.sched_getaffinity(0))
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {one})  # inherited, as through taskset
    try:
        daemon = Service(".", "0", *LOCAL, cwd=tmp_path)
    finally:
        os.sched_setaffinity(0, mine)
    with daemon:
        assert len(daemon.workers()) == 1
        daemon.log.wait_for(r"master\.listening .* workers=1$")


def test_a_queue_longer_than_the_kernel_allows_is_warned_of(site):
    limit = int(Path("/proc/sys/net/core/somaxconn").read_text())
    with Service(site, "0", *LOCAL, "--request-queue-size", str(limit + 1)) as daemon:
        found = daemon.log.wait_for(r"socket\.queue_limited .*limit=(\d+)")
        assert int(found[1]) == limit
        assert get(("127.0.0.1", daemon.port), "/a.txt").status == 200


def test_the_default_queue_size_is_no_reason_to_warn(site):
    if int(Path("/proc/sys/net/core/somaxconn").read_text()) < 2048:
        pytest.skip("this kernel's limit is below the default")
    with Service(site, "0", *LOCAL, "--quiet") as daemon:
        assert daemon.log.lines() == []


# -- --verbose and --quiet, and what a service writes ------------------------


def test_without_a_terminal_stdout_is_empty_and_stderr_has_log_lines_only(site):
    with Service(site, "0", *LOCAL) as daemon:
        assert get(("127.0.0.1", daemon.port), "/a.txt").status == 200
        assert daemon.stop() == 0
        lines = daemon.log.wait_closed()
        assert daemon.out.wait_closed() == []
    access = [line for line in lines if ACCESS_LINE.fullmatch(line)]
    events = [line for line in lines if line not in access]
    assert [line.partition('"')[2] for line in access] == ['GET /a.txt HTTP/1.0" 200 7']
    assert all(LOG_LINE.fullmatch(line) for line in events), events
    assert [line.split()[2] for line in events] == [
        "master.listening",
        "master.ready",
        "master.signal",
        "master.stopped",
    ]


@pytest.mark.parametrize("name", [b"new\nline", b"bad\xff", b'quo"te\\', b"\x1b[31mred", b"a=b c"])
def test_a_log_line_is_one_line_of_pairs_whatever_the_names(tmp_path, name):
    folder = os.fsencode(tmp_path) + b"/" + name
    Path(os.fsdecode(folder)).mkdir()
    with Service(os.fsdecode(folder), "0", *LOCAL) as daemon:
        assert daemon.stop() == 0
        lines = daemon.log.wait_closed()
    assert all(LOG_LINE.fullmatch(line) for line in lines), lines
    assert not any("\x1b" in line for line in lines)


def test_verbose_tells_of_each_worker(site):
    with Service(site, "0", *LOCAL, "-w", "2", "--verbose") as daemon:
        for pid in daemon.workers():
            daemon.log.wait_for(rf" DEBUG worker\.started slot=\d pid={pid}$")
            daemon.log.wait_for(rf" DEBUG worker\.ready slot=\d pid={pid}$")


@pytest.mark.parametrize("target", ["site", "served:Hello", "served:here"])
def test_quiet_writes_neither_access_log_nor_milestones(site, target):
    with Service(site if target == "site" else target, f"{free_port()}", *LOCAL, "--quiet") as d:
        port = int(title(d.pid).rpartition(":")[2].rstrip("]"))
        assert get(("127.0.0.1", port)).status == 200
        assert d.stop() == 0
        assert d.log.wait_closed() == []
        assert d.out.wait_closed() == []


def test_quiet_still_tells_of_errors(tmp_path):
    source = """
import http.server

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        raise ValueError("told")

    def log_request(self, code="-", size="-"):
        self.log_message("%s", "mine")
"""
    (tmp_path / "own.py").write_text(source)
    port = free_port()
    with Service("own:Handler", port, *LOCAL, "--quiet", cwd=tmp_path) as daemon:
        answer = talk(("127.0.0.1", port), b"GET / HTTP/1.0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.0 500 Internal Server Error\r\n")
        daemon.log.wait_for("ValueError: told")


def test_options_may_stand_anywhere(site):
    with Service("-b", "127.0.0.1", "-w", "1", "0", "-d", site, "--header", "X-A", "1") as daemon:
        answer = get(("127.0.0.1", daemon.port), "/a.txt")
        assert (answer.status, answer.all("X-A")) == (200, ["1"])


def test_an_option_between_target_and_port_is_understood(site):
    with Service(site, "-b", "127.0.0.1", "0") as daemon:
        assert get(("127.0.0.1", daemon.port), "/a.txt").body == b"content"


def test_a_target_that_ends_in_toml_is_a_config(tmp_path):
    (tmp_path / "site.toml").write_text("")
    result = run("site.toml", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr == (
        "prefork: error: site.toml: server: nothing to serve,"
        " expected a table [server.NAME] for each pool\n"
    )


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["-w", "3"], "--workers"),
        (["8000"], "PORT"),
        (["-b", "::"], "--bind"),
        (["--access-log", "json"], "--access-log"),
    ],
)
def test_what_a_config_says_itself_is_refused_beside_it(tmp_path, words, named):
    result = run("site.toml", *words, cwd=tmp_path)
    assert result.returncode == 2
    expected = f"prefork: error: {named}: site.toml says that itself; write it there\n"
    assert result.stderr == expected


def test_a_folder_is_not_served_as_a_daemon_for_its_log_would_be_lost(tmp_path):
    result = run(".", "--daemon", cwd=tmp_path)
    assert result.returncode == 2
    assert "--daemon: it wants a CONFIG.toml" in result.stderr


# -- what the folder share adds ------------------------------------------------


def test_a_name_with_nul_in_it_is_not_found(site):
    with Service(site, "0", "-b", "127.0.0.1") as daemon:
        assert get(("127.0.0.1", daemon.port), "/%00").status == 404
        assert daemon.stop() == 0
    assert "Traceback" not in daemon.log.text()


def test_an_answer_in_two_parts_does_not_wait_for_the_clients_acknowledgement(tmp_path):
    (tmp_path / "nagle.py").write_text("""
import http.server, socket

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"%d" % self.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
""")
    with Service("nagle:Handler", "0", "-b", "127.0.0.1", cwd=tmp_path) as daemon:
        assert get(("127.0.0.1", daemon.port), "/").body == b"1"
        assert daemon.stop() == 0
