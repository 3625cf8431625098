"""What may be typed as TARGET and PORT, and each error: one line that says what to do."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from apps.command import APPS, Service, get, run, talk
from harness import COMMAND, DEADLINE_S, Daemon

import prefork
from prefork.errors import PlatformError
from prefork.system import require_platform

BROKEN = {
    "raises.py": "raise ValueError('first\\nsecond')\n",
    "syntax.py": "def (:\n",
    "leaves.py": "raise SystemExit(3)\n",
    "needs.py": "import what_nobody_has\n",
}

# arguments; exit status; what the line must name: the fault, then the remedy
ERRORS = [
    # TARGET
    (["missing"], 2, ["'missing'", "module:Class"]),
    (["-d", "missing"], 2, ["'missing'"]),
    (["http.server:SimpleHTTPRequestHandler", "0", "-d", "missing"], 2, ["'missing'"]),
    (["file.txt"], 2, ["'file.txt'", "directory", "ends with .toml"]),
    (["n" * 300], 2, ["n" * 300]),
    (["site/" * 1000], 2, ["site/site"]),
    ([""], 2, ["''", "directory"]),
    (["-d", ""], 2, ["''", "directory"]),
    ([], 2, ["TARGET", "prefork ."]),
    (["8000"], 2, ["TARGET", "prefork ."]),
    (["site", "-d", "site"], 2, ["site", "-d"]),
    (["site.toml"], 1, ["site.toml: cannot be read: No such file"]),
    (["relaod", "site.toml"], 2, ["'relaod'", "did you mean 'reload'"]),
    (["scael", "site.toml", "web", "3"], 2, ["'scael'", "did you mean 'scale'"]),
    (["folder.toml", "0"], 2, ["a directory, and no config", "prefork -d folder.toml"]),
    (["./folder.toml"], 2, ["a directory, and no config"]),
    (["no_such_module:Handler"], 2, ["'no_such_module'", "current directory"]),
    (["served.no_such:Handler"], 2, ["'served.no_such'"]),
    (["raises:Handler"], 1, ["raises", "ValueError: first second", "raises.py:1"]),
    (["syntax:Handler"], 1, ["syntax", "SyntaxError", "syntax.py:1"]),
    (["leaves:Handler"], 1, ["leaves", "SystemExit", "leaves.py:1"]),
    (["needs:Handler"], 1, ["needs", "'what_nobody_has'", "needs.py:1"]),
    (["served:Helo"], 2, ["'Helo'", "did you mean 'Hello'"]),
    (["served:Outer.Iner"], 2, ["'Iner'", "did you mean 'Inner'"]),
    (["served:create_aplication()"], 2, ["did you mean 'create_application'"]),
    (["served:number"], 2, ["served:number", "int", "handler class"]),
    (["served:Server"], 2, ["server class", "name its handler class"]),
    (["served:create_application"], 2, ["served:create_application()"]),
    (["served:number()"], 2, ["served:number()", "int", "cannot be called"]),
    (["served:fail()"], 1, ["served:fail() failed", "LookupError: no database", "served.py:"]),
    (["served:takes_one"], 2, ["served:takes_one", "environ and start_response"]),
    (["served:asgi"], 2, ["served:asgi", "ASGI", "WSGI"]),
    (["served:Asgi"], 2, ["served:Asgi", "ASGI"]),
    # PORT and addresses
    (["8000", "8001"], 2, ["8000", "8001", "./8000"]),
    (["site", "65536"], 2, ["PORT", "0 to 65535", "'65536'"]),
    (["site", "-1"], 2, ["PORT", "0 to 65535", "'-1'"]),
    (["site", "http"], 2, ["PORT", "0 to 65535", "'http'"]),
    (["site", "٨٠"], 2, ["PORT", "0 to 65535", "'٨٠'"]),
    (["site", "9" * 5000], 2, ["PORT", "0 to 65535"]),
    (["site", "{port}", "-b", "127.0.0.1"], 1, ["127.0.0.1:{port}", "in use", "another PORT"]),
    (["site", "{port}"], 1, ["0.0.0.0:{port}", "in use", "another PORT"]),
    (["served:Echo", "{udp}", "-b", "127.0.0.1"], 1, ["127.0.0.1:{udp}", "in use"]),
    (["site", "0", "-b", "nobody.invalid"], 1, ["'nobody.invalid'", "address"]),
    (["site", "0", "-b", "a..b"], 1, ["'a..b'", "host name"]),
    (["site", "0", "-b", "203.0.113.7"], 1, ["203.0.113.7", "no interface"]),
    (["site", "0", "-b", ""], 2, ["''", "-b"]),
    (["site", "0", "-b", "127.0.0.1:80"], 2, ["'127.0.0.1:80'", "80 -b 127.0.0.1"]),
    (["site", "0", "-b", "[::1]:80"], 2, ["'[::1]:80'", "80 -b [::1]"]),
    (["site", "0", "-b", "localhost:80"], 2, ["'localhost:80'", "80 -b localhost"]),
    (["site", "0", "-b", "unix:"], 2, ["'unix:'", "unix:/run/"]),
    (["site", "0", "-b", "unix:@"], 2, ["'unix:@'", "unix:/run/"]),
    (["site", "0", "-b", "unix:" + "x" * 108], 2, ["x" * 108, "107 bytes"]),
    (["site", "0", "-b", "unix:@" + "x" * 107], 2, ["x" * 107, "107 bytes"]),
    (["site", "0", "-b", "unix:file.txt"], 1, ["unix:file.txt", "no socket"]),
    (["site", "0", "-b", "unix:site"], 1, ["unix:site", "no socket"]),
    (["site", "0", "-b", "unix:busy.sock"], 1, ["unix:busy.sock", "in use"]),
    (["site", "0", "-b", "unix:missing/a.sock"], 1, ["unix:missing/a.sock", "no such directory"]),
    # options
    (["site", "0", "-w", "0"], 2, ["--workers", "1 to 1024", "auto", "'0'"]),
    (["site", "0", "-w", "1025"], 2, ["--workers", "1 to 1024", "auto", "'1025'"]),
    (["site", "0", "-w", "many"], 2, ["--workers", "1 to 1024", "auto", "'many'"]),
    (["site", "0", "--request-queue-size", "0"], 2, ["--request-queue-size", "from 1", "'0'"]),
    (["site", "0", "--request-queue-size", "x"], 2, ["--request-queue-size", "from 1", "'x'"]),
    (["served:Echo", "0", "--request-queue-size", "9"], 2, ["--request-queue-size", "datagrams"]),
    (["served:Echo", "0", "--access-log", "json"], 2, ["--access-log", "served:Echo", "no HTTP"]),
    (["site", "0", "-p", "1.1"], 2, ["--protocol", "HTTP/1.1", "'1.1'"]),
    (["site", "0", "-p", "HTTP/2.0"], 2, ["--protocol", "HTTP/1.1", "'HTTP/2.0'"]),
    (["site", "0", "-p", "http/1.1"], 2, ["--protocol", "HTTP/1.1", "'http/1.1'"]),
    (["site", "0", "-H", "X:", "a"], 2, ["--header", "'X:'", "name"]),
    (["site", "0", "-H", "", "a"], 2, ["--header", "''", "name"]),
    (["site", "0", "-H", "X-A", "a\r\nX-B: b"], 2, ["--header", r"'a\r\nX-B: b'", "one line"]),
    (["site", "0", "-H", "X-A", "€"], 2, ["--header", "X-A"]),
    (["site", "0", "-H", "X-A"], 2, ["--header", "2 arguments"]),
    (["site", "0", "--content-type", "a\nb"], 2, ["--content-type", r"'a\nb'"]),
    (["site", "0", "--content-type", ""], 2, ["--content-type", "''"]),
    (["served:Shout", "0", "-p", "HTTP/1.1"], 2, ["--protocol", "BaseHTTPRequestHandler"]),
    (["served:Hello", "0", "-d", "site"], 2, ["--directory", "SimpleHTTPRequestHandler"]),
    (["served:Hello", "0", "-H", "A", "b"], 2, ["--header", "SimpleHTTPRequestHandler"]),
    (["served:Hello", "0", "--content-type", "a/b"], 2, ["--content-type", "SimpleHTTP"]),
    (["site", "0", "--quiet", "--verbose"], 2, ["--quiet", "--verbose"]),
    (["site", "0", "--no-such-option"], 2, ["--no-such-option", "--help"]),
    (["site", "0", "--verb"], 2, ["--verb", "--help"]),
    (["site", "0", "more"], 2, ["more", "--help"]),
    (["served:Hello", "0", "--cgi"], 2, ["--cgi", "served:Hello"]),
    (["site", "0", "--tls-cert", "cert.pem"], 2, ["--tls-cert", "--help"]),
    (["site", "0", "-t", "4097"], 2, ["-t/--threads", "0 to 4096"]),
    (["site", "0", "--udp"], 2, ["HTTP is served over streams"]),
    (["served:Hello", "0", "--udp"], 2, ["HTTP is served over streams"]),
    (["served:Shout", "0", "--udp"], 2, ["served:Shout is a StreamRequestHandler, for streams"]),
    (["site", "0", "--concurrency", "fork"], 2, ['"fork"', "threads = 0"]),
    (["site", "0", "--concurrency", "threads", "-t", "0"], 2, ["contradict each other"]),
    (["served:Shout", "0", "--concurrency", "none", "-t", "4"], 2, ["contradict each other"]),
    (["site", "0", "--threads", "x"], 2, ["-t/--threads", "0 to 4096", "'x'"]),
]


def told(result: subprocess.CompletedProcess) -> str:
    """Return the one line that the command has written before it gave up."""
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("prefork: error: ")
    assert result.stdout == ""
    return result.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with something of each kind that can be named wrongly."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "site").mkdir()
    (folder / "folder.toml").mkdir()
    (folder / "file.txt").write_text("text")
    shutil.copy(APPS / "served.py", folder)
    for name, source in BROKEN.items():
        (folder / name).write_text(source)
    return folder


@pytest.fixture(scope="module")
def taken(place):
    """Occupy a port of each protocol and a Unix path; return the ports by name."""
    before = Path.cwd()
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        udp.bind(("127.0.0.1", 0))
        os.chdir(place)  # a relative path: the temporary folder's may be too long for a socket
        try:
            unix.bind("busy.sock")
        finally:
            os.chdir(before)
        unix.listen()
        yield {"port": tcp.getsockname()[1], "udp": udp.getsockname()[1]}


@pytest.mark.parametrize(
    ("arguments", "status", "names"),
    ERRORS,
    ids=[" ".join(row[0]).replace("\r\n", " ").replace("\n", " ")[:40] or "-" for row in ERRORS],
)
def test_an_error_is_one_line_that_says_what_to_do(place, taken, arguments, status, names):
    result = run(*(word.format(**taken) for word in arguments), cwd=place)
    line = told(result)
    assert result.returncode == status
    for name in names:
        assert name.format(**taken) in line


def test_verbose_shows_where_a_module_failed(place):
    result = run("raises:Handler", "0", "--verbose", cwd=place)
    assert result.returncode == 1
    assert "ValueError: first" in result.stderr
    assert "Traceback (most recent call last):" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("prefork: error: cannot import raises")


@pytest.fixture
def without_override():
    """Return what starts a program that permissions bind, even for root."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may read everything, and there is no setpriv to change that")
    caps = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}"]


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
def test_an_unreadable_directory_is_refused(tmp_path, without_override, mode):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(mode)
    result = run("locked", "0", cwd=tmp_path, prefix=without_override)
    folder.chmod(0o700)
    assert "'locked'" in told(result)
    assert "permission denied" in result.stderr.lower()
    assert result.returncode == 2


def test_a_directory_inside_an_unreadable_one_is_refused(tmp_path, without_override):
    folder = tmp_path / "locked"
    (folder / "inner").mkdir(parents=True)
    folder.chmod(0o000)
    result = run("locked/inner", "0", cwd=tmp_path, prefix=without_override)
    folder.chmod(0o700)
    assert "'locked/inner'" in told(result)
    assert "permission denied" in result.stderr.lower()
    assert result.returncode == 2


def test_a_handler_is_refused_in_an_unreadable_current_directory(tmp_path, without_override):
    script = 'chmod 000 . && exec "$@"'
    prefix = [*without_override, "sh", "-c", script, "sh"]
    result = run("served:Hello", "0", cwd=tmp_path, prefix=prefix)
    tmp_path.chmod(0o700)
    assert "served" in told(result)


@pytest.mark.parametrize("target", [".", "served:Hello", "-d."])
def test_a_deleted_current_directory_is_an_error_of_one_line(tmp_path, target):
    folder = tmp_path / "gone"
    folder.mkdir()
    script = 'rmdir "$PWD" && exec "$@"'
    result = run(target, "0", cwd=folder, prefix=["sh", "-c", script, "sh"])
    told(result)
    assert result.returncode in (1, 2)


def test_a_directory_is_shared_from_a_deleted_current_directory(tmp_path):
    folder, site = tmp_path / "gone", tmp_path / "site"
    folder.mkdir()
    site.mkdir()
    (site / "a.txt").write_text("here")
    script = 'rmdir "$PWD" && exec "$@"'
    command = ["sh", "-c", script, "sh", COMMAND, site, "0"]
    with Daemon(command, cwd=folder) as daemon:
        daemon.wait_notified("READY=1")
        port = int(daemon.log.wait_for(r"at=0\.0\.0\.0:(\d+)")[1])
        assert get(("127.0.0.1", port), "/a.txt").body == b"here"


def test_a_config_is_good_in_a_deleted_current_directory(tmp_path):
    folder, config = tmp_path / "gone", tmp_path / "site.toml"
    folder.mkdir()
    handler = "prefork.http:SimpleHTTPRequestHandler"
    options = '{ directory = ".", server_version = "x" }'
    config.write_text(
        f'[server.a]\nbind = ["127.0.0.1:0"]\nhandler = "{handler}"\nhandler_options = {options}\n'
    )
    script = 'rmdir "$PWD" && exec "$@"'
    result = run("check", config, cwd=folder, prefix=["sh", "-c", script, "sh"])
    assert (result.returncode, result.stderr) == (0, "")


def test_too_few_descriptors_are_an_error_of_one_line(tmp_path):
    prefix = ["sh", "-c", 'ulimit -n 12 && exec "$@"', "sh"]
    result = run(".", "0", "--quiet", cwd=tmp_path, prefix=prefix)
    assert "open files" in told(result)
    assert result.returncode == 1


def test_a_privileged_port_is_refused_with_a_way_out(tmp_path):
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 1:
        pytest.skip("this kernel gives every port to everybody")
    prefix = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may bind every port, and there is no setpriv to change that")
        caps = "-net_bind_service"
        prefix = ["setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}"]
    result = run(".", "1", cwd=tmp_path, prefix=prefix)
    line = told(result)
    assert "0.0.0.0:1" in line
    assert "1024" in line
    assert result.returncode == 1


# -- what TARGET may be ------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        *("sp ace", "new\nline", "emoji \N{GRINNING FACE}", "json:x", "json:x/", "./8000", "8000/"),
        *("./x.toml/", "%s", "./-dash", "./--help", "a\\b", "'\""),
    ],
)
def test_a_directory_of_any_name_is_shared(tmp_path, text):
    (tmp_path / text).mkdir()
    (tmp_path / text / "a.txt").write_text("here")
    with Service(text, "0", cwd=tmp_path) as daemon:
        assert get(("127.0.0.1", daemon.port), "/a.txt").body == b"here"


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
@pytest.mark.parametrize("name", [b"bad\xff\xfe", "\N{GRINNING FACE}".encode()])
def test_a_directory_of_any_bytes_is_shared_in_any_locale(tmp_path, name, locale):
    folder = os.fsencode(tmp_path) + b"/" + name
    Path(os.fsdecode(folder)).mkdir()
    Path(os.fsdecode(folder + b"/a.txt")).write_text("here")
    plain = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    with Service(os.fsdecode(folder), "0", **plain) as daemon:
        assert get(("127.0.0.1", daemon.port), "/a.txt").body == b"here"
        assert daemon.stop() == 0


def test_after_two_dashes_a_name_may_begin_with_one(tmp_path):
    (tmp_path / "-dash").mkdir()
    (tmp_path / "-dash" / "a.txt").write_text("here")
    with Service("-b", "127.0.0.1", "--", "-dash", "0", cwd=tmp_path) as daemon:
        assert get(("127.0.0.1", daemon.port), "/a.txt").body == b"here"


def test_the_shared_directory_is_that_of_the_start(tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "a.txt").write_text("here")
    (tmp_path / "link").symlink_to("site")
    with Service("link", "0", cwd=tmp_path) as daemon:
        assert f"what={site} " in daemon.log.text()
        assert get(("127.0.0.1", daemon.port), "/a.txt").body == b"here"


@pytest.mark.parametrize("target", ["served:Hello", "served:Outer.Inner"])
def test_an_http_handler_is_served_by_http(target):
    with Service(target, "0") as daemon:
        answer = get(("127.0.0.1", daemon.port))
        assert answer.status == 200
        assert answer.body.startswith(b"('127.0.0.1', ")


def test_a_partial_of_a_handler_is_served_with_its_arguments():
    with Service("served:here", "0") as daemon:
        answer = get(("127.0.0.1", daemon.port), "/served.py")
        assert answer.body == (APPS / "served.py").read_bytes()


def test_options_of_the_command_line_win_over_those_of_a_partial(tmp_path):
    (tmp_path / "a.txt").write_text("here")
    options = ["-d", tmp_path, "-H", "X-A", "1", "-p", "HTTP/1.1"]
    with Service("served:here", "0", *options) as daemon:
        answer = get(("127.0.0.1", daemon.port), "/a.txt")
        assert answer.line == "HTTP/1.1 200 OK"
        assert answer.all("X-A") == ["1"]
        assert answer.body == b"here"


def test_a_module_in_a_package_is_served(tmp_path):
    (tmp_path / "pack" / "deep").mkdir(parents=True)
    (tmp_path / "pack" / "__init__.py").touch()
    (tmp_path / "pack" / "deep" / "__init__.py").touch()
    shutil.copy(APPS / "served.py", tmp_path / "pack" / "deep" / "module.py")
    with Service("pack.deep.module:Shout", "0", cwd=tmp_path) as daemon:
        assert talk(("127.0.0.1", daemon.port), b"hello\n") == b"HELLO\n"


def test_a_class_of_the_standard_library_is_served(tmp_path):
    (tmp_path / "a.txt").write_text("here")
    with Service("http.server:SimpleHTTPRequestHandler", "0", cwd=tmp_path) as daemon:
        assert get(("127.0.0.1", daemon.port), "/a.txt").body == b"here"


def test_a_stream_handler_is_served_by_tcp():
    with Service("served:Shout", "0") as daemon:
        assert talk(("127.0.0.1", daemon.port), b"hello\n") == b"HELLO\n"


def test_a_base_handler_is_served_by_tcp():
    with Service("served:Who", "0", "-w", "1") as daemon:
        answer = talk(("127.0.0.1", daemon.port), b"")
        assert answer.startswith(f"({daemon.workers()[0]}, ('127.0.0.1', ".encode())


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_datagram_handler_is_served_by_udp(family):
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with (
        Service("served:Echo", "0", "-b", host) as daemon,
        socket.socket(family, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(DEADLINE_S)
        client.connect((host, daemon.port))
        for word in (b"first", b"second"):
            client.send(word)
            assert client.recv(100) == word.upper()


def test_a_datagram_handler_is_served_by_a_unix_socket(tmp_path):
    with (
        Service("served:Echo", "-b", f"unix:{tmp_path}/s") as daemon,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(DEADLINE_S)
        client.bind(f"{tmp_path}/client")
        client.connect(f"{tmp_path}/s")
        client.send(b"hello")
        assert client.recv(100) == b"HELLO"
        assert daemon.stop() == 0
        assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("command", [[COMMAND], [sys.executable, "-m", "prefork"]])
def test_the_current_directory_is_importable(tmp_path, command):
    shutil.copy(APPS / "served.py", tmp_path / "only_here.py")
    with Daemon([*command, "only_here:Shout", "0"], cwd=tmp_path) as daemon:
        daemon.wait_notified("READY=1")
        port = int(daemon.log.wait_for(r"at=0\.0\.0\.0:(\d+)")[1])
        assert talk(("127.0.0.1", port), b"hello\n") == b"HELLO\n"
        assert daemon.stop() == 0


def test_the_module_imports_from_the_current_directory_of_safe_path_too(tmp_path):
    shutil.copy(APPS / "served.py", tmp_path / "only_here.py")
    with Service("only_here:Shout", "0", cwd=tmp_path, PYTHONSAFEPATH="1") as daemon:
        assert talk(("127.0.0.1", daemon.port), b"hello\n") == b"HELLO\n"


def test_a_read_only_current_directory_serves(tmp_path, without_override):
    shutil.copy(APPS / "served.py", tmp_path)
    tmp_path.chmod(0o500)
    command = [*without_override, COMMAND, "served:Shout", "0"]
    with Daemon(command, cwd=tmp_path) as daemon:
        daemon.wait_notified("READY=1")
        port = int(daemon.log.wait_for(r"at=0\.0\.0\.0:(\d+)")[1])
        assert talk(("127.0.0.1", port), b"hello\n") == b"HELLO\n"
    tmp_path.chmod(0o700)


# -- odd surroundings --------------------------------------------------------

SURROUNDINGS = {
    "stdin closed": "<&-",
    "stdout closed": ">&-",
    "stderr closed": "2>&-",
    "all three closed": "<&- >&- 2>&-",
    "stdout full": ">/dev/full",
    "stderr full": "2>/dev/full",
    "nobody reads stdout": '> "$1"',
    "nobody reads stderr": '2> "$1"',
}


@pytest.mark.parametrize("surroundings", SURROUNDINGS.values(), ids=SURROUNDINGS)
@pytest.mark.parametrize("target", [".", "served:Hello"])
def test_requests_are_answered_whatever_becomes_of_the_streams(tmp_path, target, surroundings):
    shutil.copy(APPS / "served.py", tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path = f"unix:{tmp_path}/s"
    script = f'exec "{COMMAND}" "$2" -b "$3" {surroundings}'
    command = ["sh", "-c", script, "sh", pipe, target, path]
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with Daemon(command, cwd=tmp_path) as daemon:
        daemon.wait_notified("READY=1")
        os.close(reader)  # from here on, writing to the pipe fails
        for _ in range(4):
            assert get(f"{tmp_path}/s", "/").status == 200
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log.text() + daemon.out.text()


@pytest.mark.parametrize("closed", [">&-", "2>/dev/full"])
def test_an_error_keeps_its_exit_status_whatever_becomes_of_the_streams(tmp_path, closed):
    prefix = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    result = run("missing", cwd=tmp_path, prefix=prefix)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr + result.stdout


def test_without_stdout_a_target_must_be_named(tmp_path):
    result = run("0", cwd=tmp_path, prefix=["sh", "-c", 'exec "$@" >&-', "sh"])
    assert "TARGET" in told(result)
    assert result.returncode == 2


def test_no_environment_is_enough(tmp_path):
    (tmp_path / "a.txt").write_text("here")
    script = 'exec env -i NOTIFY_SOCKET="$NOTIFY_SOCKET" "$@"'
    command = ["sh", "-c", script, "sh", COMMAND, ".", "0"]
    with Daemon(command, cwd=tmp_path) as daemon:
        daemon.wait_notified("READY=1")
        port = int(daemon.log.wait_for(r"at=0\.0\.0\.0:(\d+)")[1])
        assert get(("127.0.0.1", port), "/a.txt").body == b"here"
        assert daemon.stop() == 0


def test_warnings_as_errors_change_nothing(tmp_path):
    (tmp_path / "a.txt").write_text("here")
    strict = {"PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1"}
    with Service(".", "0", cwd=tmp_path, **strict) as daemon:
        assert get(("127.0.0.1", daemon.port), "/a.txt").body == b"here"
        assert daemon.stop() == 0
        assert "Warning" not in daemon.log.text()


# -- the platform ------------------------------------------------------------


@pytest.mark.parametrize("release", ["5.3.18-lp152", "4.19.0-27-amd64", "3.10.0", "2.6"])
def test_a_kernel_too_old_is_refused(monkeypatch, release):
    monkeypatch.setattr("prefork.system.platform.release", lambda: release)
    with pytest.raises(PlatformError, match=r"Linux 5\.4 or later.*" + release):
        require_platform()


@pytest.mark.parametrize("release", ["5.4.0", "5.4", "5.10-rc1", "6.18.44-fc", "10.0.1+"])
def test_a_kernel_new_enough_is_accepted(monkeypatch, release):
    monkeypatch.setattr("prefork.system.platform.release", lambda: release)
    require_platform()


def test_another_system_is_refused_by_name(monkeypatch):
    monkeypatch.setattr("prefork.system.sys.platform", "darwin")
    monkeypatch.setattr("prefork.system.platform.system", lambda: "Darwin")
    with pytest.raises(PlatformError, match=r"Linux 5\.4 or later.*Darwin"):
        require_platform()


def test_the_command_says_in_one_line_that_the_kernel_is_too_old(tmp_path):
    source = "import platform, sys; platform.release = lambda: '5.3.1'\n"
    source += "from prefork.__main__ import main; sys.exit(main())"
    result = subprocess.run(
        [sys.executable, "-c", source],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert "5.3.1" in told(result)
    assert result.returncode == 1


LINUX_ALONE = """
import os, select, signal, socketserver, sys
sys.platform = "darwin"
for module, names in {
    select: "epoll EPOLLIN EPOLLEXCLUSIVE",
    os: "pidfd_open waitid sched_getaffinity",
    signal: "pidfd_send_signal SIGTTIN SIGTTOU",
    socketserver: "UnixStreamServer UnixDatagramServer",
}.items():
    for name in names.split():
        delattr(module, name)
"""


def test_a_system_that_lacks_what_linux_has_is_told_so_by_the_command():
    source = LINUX_ALONE + "from prefork.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-P", "-c", source]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "Linux 5.4 or later" in told(result)
    assert result.returncode == 1


def test_a_system_that_lacks_what_linux_has_is_told_so_by_the_library():
    source = LINUX_ALONE + "from prefork import PreforkMixIn"
    command = [sys.executable, "-P", "-c", source]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "PlatformError: prefork needs Linux 5.4 or later" in result.stderr


# -- what the command tells of itself ----------------------------------------


def test_version_is_that_of_the_package():
    result = run("--version")
    assert (result.returncode, result.stdout) == (0, f"prefork {prefork.__version__}\n")


def test_help_mentions_every_option():
    result = run("--help")
    assert result.returncode == 0
    words = result.stdout.replace(",", " ").split()
    for option in (
        *("TARGET", "PORT", "-h", "--help", "-b", "--bind", "-d", "--directory", "-p"),
        *("--protocol", "-H", "--header", "--content-type", "-w", "--workers", "--cgi"),
        *("--request-queue-size", "--verbose", "--quiet", "--version"),
    ):
        assert option in words
    assert "unix:/path" in result.stdout


def test_help_fits_a_terminal_of_eighty_columns():
    assert max(map(len, run("--help", COLUMNS="80").stdout.splitlines())) <= 80


def test_the_socket_file_is_for_owner_and_group_and_gone_at_the_end(tmp_path):
    path = tmp_path / "s"
    with Service("served:Shout", "-b", f"unix:{path}") as daemon:
        mode = path.lstat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o660
        assert talk(str(path), b"hello\n") == b"HELLO\n"
        assert daemon.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("target", "kind"), [("served:Hello", socket.SOCK_STREAM), ("served:Echo", socket.SOCK_DGRAM)]
)
def test_a_stale_socket_file_is_replaced(tmp_path, target, kind):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, kind) as dead:
        dead.bind(str(path))
    with (
        Service(target, "-b", f"unix:{path}"),
        socket.socket(socket.AF_UNIX, kind) as client,
    ):
        client.connect(str(path))


def test_a_socket_file_put_in_place_of_ours_is_left_alone(tmp_path):
    path = tmp_path / "s"
    with Service("served:Shout", "-b", f"unix:{path}") as daemon:
        path.unlink()
        path.write_text("another's")
        assert daemon.stop() == 0
    assert path.read_text() == "another's"
