"""CGI scripts behind a server: which are run, what they are told, what their answers become."""

import functools
import http.server
import json
import os
import pwd

import pytest
from cgi_kit import HELLO, ask, client, program, scripts_for_everybody
from harness import converse
from http_kit import OURS, get, serving

SERVERS = {
    "threads": OURS.ThreadingHTTPServer,
    "inline": OURS.HTTPServer,
    "stdlib": http.server.ThreadingHTTPServer,
}


@pytest.fixture(scope="module")
def scripts():
    with scripts_for_everybody() as found:
        found.script("hello", HELLO)
        found.script("env", 'echo X-Args: $# "$@"\necho\nenv\n')
        found.script("cat", "echo Content-Type: text/plain\necho\ncat\n")
        found.script("plain", HELLO, mode=0o644)
        found.script("below/deeper/hello", HELLO)
        (found.cgi_bin / "folder").mkdir()
        (found.folder / "file.txt").write_text("a file")
        (found.folder / "htbin").mkdir()
        path = found.folder / "htbin" / "hello"
        path.write_text("#!/bin/sh\n" + HELLO)
        path.chmod(0o755)
        outside = found.folder / "outside"
        outside.write_text("#!/bin/sh\n" + HELLO)
        outside.chmod(0o755)
        yield found


@pytest.fixture(scope="module", params=SERVERS)
def any_server(request, scripts):
    with scripts.serving(SERVERS[request.param]) as server:
        yield server


@pytest.fixture(scope="module")
def server(scripts):
    with scripts.serving() as found:
        yield found


def variables(answer) -> dict[str, str]:
    lines = answer.body.decode("utf-8", "surrogateescape").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


# -- what is run ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/cgi-bin/hello",
        "/htbin/hello",
        "/cgi-bin/below/deeper/hello",
        "/cgi-bin%2fhello",
        "/cgi%2Dbin/hell%6f",
        "/%2e%2fcgi-bin/./hello",
        "/x/../cgi-bin/hello",
        "/x/..%2fcgi-bin/hello",
        "///cgi-bin//hello",
        "/cgi-bin/hello/more?and=more",
        "/cgi-bin/hello#/../../file.txt",
        "/cgi-bin/hello?#/../../../file.txt",
    ],
)
def test_a_script_is_run_however_its_path_is_written(any_server, path):
    answer = ask(any_server, path)
    assert answer.line.endswith(b" 200 OK")
    assert answer["Content-Type"] == "text/plain"
    assert answer.body == b"hello\n"


PROBLEMS = {
    "/cgi-bin/none": (404, "No such CGI script ('/cgi-bin/none')"),
    "/cgi-bin/n%e2%82%ac": (404, "No such CGI script ('/cgi-bin/n\\u20ac')"),
    "/cgi-bin/n%00": (404, "No such CGI script ('/cgi-bin/n\\x00')"),
    "/cgi-bin/hello/%00": (404, "No such CGI script ('/cgi-bin/hello')"),
    "/cgi-bin/": (403, "CGI script is not a plain file ('/cgi-bin/')"),
    "/cgi-bin/folder": (403, "CGI script is not a plain file ('/cgi-bin/folder')"),
    "/cgi-bin/plain": (403, "CGI script is not executable ('/cgi-bin/plain')"),
    "/cgi-bin/../../hello": (400, "Bad path: '..' climbs out of the root"),
    "/../../etc/passwd": (400, "Bad path: '..' climbs out of the root"),
    "/cgi-bin/%2e%2e/..%2f../etc/passwd": (400, "Bad path: '..' climbs out of the root"),
    "/cgi-bin/%252e%252e/outside": (404, "No such CGI script ('/cgi-bin/%2e%2e')"),
}


@pytest.mark.parametrize("path", PROBLEMS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_cannot_be_run_is_answered_by_the_reason(server, path, method):
    answer = ask(server, path, method=method)
    status, reason = PROBLEMS[path]
    assert answer.line.decode() == f"HTTP/1.1 {status} {reason}"


def test_the_root_may_be_a_folder_of_scripts(scripts):
    with scripts.serving(cgi_directories=["/"]) as server:
        assert ask(server, "/cgi-bin/hello").body == b"hello\n"
        assert ask(server, "/outside").body == b"hello\n"
        assert ask(server, "/file.txt").status == 403


@pytest.mark.parametrize(
    "folder", ["/cgi-bin/", "//cgi-bin", "cgi-bin", "/./cgi-bin", "/x/../cgi-bin//", "/cgi-bin/."]
)
def test_a_folder_of_scripts_is_one_however_it_is_written(scripts, folder):
    with scripts.serving(cgi_directories=[folder]) as server:
        assert ask(server, "/cgi-bin/hello").body == b"hello\n"
        assert ask(server, "/cgi-bin/plain").status == 403
        assert ask(server, "/file.txt").body == b"a file"


def test_a_script_that_no_system_can_run_is_answered_by_403(scripts, server):
    scripts.script("lost", HELLO, interpreter="/no/such/shell")
    path = scripts.cgi_bin / "noscript"
    path.write_bytes(b"\x7fELF?")
    path.chmod(0o755)
    for name in "lost", "noscript":
        answer = ask(server, f"/cgi-bin/{name}")
        expected = f"HTTP/1.1 403 CGI script cannot be run ('/cgi-bin/{name}')"
        assert answer.line.decode() == expected


def test_files_beside_scripts_are_files(any_server):
    for _ in range(2):
        assert ask(any_server, "/file.txt").body == b"a file"
        assert ask(any_server, "/file.txt", method="HEAD")["Content-Length"] == "6"
    assert ask(any_server, "/cgi-bin").status == 301
    assert ask(any_server, "/outside").body.startswith(b"#!/bin/sh")


def test_only_scripts_can_be_posted_to(any_server):
    answer = ask(any_server, "/file.txt", method="POST", body=b"x")
    assert answer.line.endswith(b" 501 Can only POST to CGI scripts")


def test_python_scripts_need_not_be_executable_where_the_class_says_so(scripts):
    if os.geteuid() == 0:
        pytest.skip("this interpreter may be one that nobody else may run")
    scripts.script("no-x.py", "print('A: b\\n\\nhello')", mode=0o644)
    scripts.script("no-x", HELLO, mode=0o644)
    with scripts.serving(have_fork=False) as server:
        assert ask(server, "/cgi-bin/no-x.py").body == b"hello\n"
        assert ask(server, "/cgi-bin/no-x").status == 403


def test_a_class_may_decide_by_itself_what_is_a_script(scripts):
    class Handler(OURS.CGIHTTPRequestHandler):
        def is_cgi(self):
            path = self.path.partition("?")[0]
            self.cgi_info = "/cgi-bin", f"{path[1:]}/info?and%3F"
            return path != "/file.txt"

        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=str(scripts.folder))
    with serving(OURS.HTTPServer, handler) as server:
        told = variables(ask(server, "/env"))
        assert told["PATH_INFO"] == "/info"
        assert told["QUERY_STRING"] == "and%3F"
        assert ask(server, "/file.txt").body == b"a file"


# -- what it is told -------------------------------------------------------------------


def test_a_script_is_told_what_rfc_3875_says(scripts, server):
    answer = ask(server, "/cgi-bin/env/a%20b/c%2Fd?x=y%20z&a", "User-Agent: me/1")
    told = variables(answer)
    host, port = server.server_address
    # Set by the shell itself.
    for name in ("PWD", "OLDPWD", "SHLVL", "_", *OURS.CGIHTTPRequestHandler.cgi_inherited):
        told.pop(name, None)
    assert told.pop("REMOTE_PORT").isdecimal()
    assert told.pop("SERVER_SOFTWARE").startswith("SimpleHTTP")
    assert told == {
        "DOCUMENT_ROOT": str(scripts.folder),
        "GATEWAY_INTERFACE": "CGI/1.1",
        "HTTP_ACCEPT": "",
        "HTTP_HOST": "here",
        "HTTP_USER_AGENT": "me/1",
        "PATH_INFO": "/a b/c/d",
        "PATH_TRANSLATED": str(scripts.folder / "a b/c/d"),
        "QUERY_STRING": "x=y%20z&a",
        "REDIRECT_STATUS": "200",
        "REMOTE_ADDR": host,
        "REMOTE_HOST": host,
        "REQUEST_METHOD": "GET",
        "REQUEST_SCHEME": "http",
        "REQUEST_URI": "/cgi-bin/env/a%20b/c%2Fd?x=y%20z&a",
        "SCRIPT_FILENAME": str(scripts.cgi_bin / "env"),
        "SCRIPT_NAME": "/cgi-bin/env",
        "SERVER_NAME": "here",
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/1.1",
    }


def test_nothing_of_the_servers_environment_gets_into_a_script(server, monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    monkeypatch.setenv("HTTP_PROXY", "http://evil")
    monkeypatch.setenv("LANG", "C.UTF-8")
    told = variables(ask(server, "/cgi-bin/env"))
    assert "SECRET" not in told
    assert "HTTP_PROXY" not in told
    assert told["LANG"] == "C.UTF-8"
    assert told["PATH"] == os.environ["PATH"]


def test_fields_become_variables_but_those_that_could_deceive(server):
    fields = [
        "Proxy: http://evil",
        "X_Forwarded_For: 1",
        "X.Y: 1",
        "Authorization: Basic dXNlcjpwYXNz",
        "Accept: text/html",
        "ACCEPT: text/plain",
        "Cookie: a=b",
        "Cookie: c=d",
        "X-Bytes: \xe9",
        "TE: trailers",
    ]
    told = variables(ask(server, "/cgi-bin/env", *fields))
    found = {name: value for name, value in told.items() if name.startswith("HTTP_")}
    assert found == {
        "HTTP_HOST": "here",
        "HTTP_ACCEPT": "text/html,text/plain",
        "HTTP_COOKIE": "a=b; c=d",
        "HTTP_X_BYTES": "\udce9",
    }
    assert "REMOTE_USER" not in told
    assert "AUTH_TYPE" not in told


def test_a_class_may_hand_on_the_password_and_variables_of_its_own(scripts):
    extra = {"GIT_PROJECT_ROOT": "/srv/git", "SERVER_NAME": "public.example"}
    with scripts.serving(cgi_authorization=True, cgi_environment=extra) as server:
        told = variables(ask(server, "/cgi-bin/env", "Authorization: Basic dXNlcjpwYTpzcw=="))
        assert told["AUTH_TYPE"] == "Basic"
        assert told["REMOTE_USER"] == "user"
        assert told["HTTP_AUTHORIZATION"] == "Basic dXNlcjpwYTpzcw=="
        assert told["GIT_PROJECT_ROOT"] == "/srv/git"
        assert told["SERVER_NAME"] == "public.example"
        told = variables(ask(server, "/cgi-bin/env", "Authorization: Bearer x"))
        assert told["AUTH_TYPE"] == "Bearer"
        assert "REMOTE_USER" not in told
        for wrong in "Basic", "Basic !", "Basic /w==":
            assert "REMOTE_USER" not in variables(
                ask(server, "/cgi-bin/env", f"Authorization: {wrong}")
            )


def test_path_and_query_are_the_bytes_of_the_request(server):
    told = variables(ask(server, "/cgi-bin/env/%ff%3f?k=\xe9//q//%3F#no"))
    assert told["PATH_INFO"] == "/\udcff?"
    assert told["QUERY_STRING"] == "k=\udce9//q//%3F"


@pytest.mark.parametrize(
    ("query", "arguments"),
    [
        ("", "0"),
        ("a", "1 a"),
        ("a+b%20c%2Bd", "2 a b c+d"),
        ("a=b", "0"),
        ("a%3Db", "1 a=b"),
        ("-s", "0"),
        ("a+%2dd", "0"),
        ("a%00", "0"),
    ],
)
def test_an_indexed_query_becomes_arguments(server, query, arguments):
    assert ask(server, f"/cgi-bin/env?{query}")["X-Args"] == arguments
    assert ask(server, f"/cgi-bin/env?{query}", method="POST")["X-Args"] == "0"


def test_trusted_proxies_tell_the_client_and_the_scheme(scripts):
    class Server(OURS.ThreadingHTTPServer):
        forwarders = ("127.0.0.1",)

    fields = [
        "X-Forwarded-For: 203.0.113.9",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: public.example",
    ]
    with scripts.serving(Server) as server:
        told = variables(ask(server, "/cgi-bin/env", *fields))
    assert told["REMOTE_ADDR"] == "203.0.113.9"
    assert (told["HTTPS"], told["REQUEST_SCHEME"]) == ("on", "https")
    assert (told["SERVER_NAME"], told["SERVER_PORT"]) == ("public.example", "443")


def test_nobody_else_tells_the_scheme(server):
    told = variables(ask(server, "/cgi-bin/env", "X-Forwarded-Proto: https"))
    assert "HTTPS" not in told
    assert told["REQUEST_SCHEME"] == "http"


def test_a_script_runs_in_its_folder(scripts, server):
    scripts.script("below/where", "echo X-Where: `pwd`\necho\n")
    assert ask(server, "/cgi-bin/below/where")["X-Where"] == str(scripts.cgi_bin / "below")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes nobody")
def test_roots_scripts_are_nobodys_with_nobodys_groups(scripts, server, monkeypatch):
    scripts.script("who", "echo X-Who: `id -u` `id -ru` `id -g` `id -rg` : `id -G`\necho\n")
    nobody = pwd.getpwnam("nobody")
    uid, gid = nobody.pw_uid, nobody.pw_gid
    groups = " ".join(map(str, os.getgrouplist("nobody", gid)))
    assert ask(server, "/cgi-bin/who")["X-Who"] == f"{uid} {uid} {gid} {gid} : {groups}"
    mail = pwd.getpwnam("mail")
    monkeypatch.setattr(OURS, "nobody", mail.pw_uid)
    assert ask(server, "/cgi-bin/who")["X-Who"].startswith(f"{mail.pw_uid} {mail.pw_uid} ")
    monkeypatch.setattr(OURS, "nobody", 54321)  # without an account: its own group, and no other
    assert ask(server, "/cgi-bin/who")["X-Who"].startswith("54321 54321 54321 54321 :")


def test_nobody_is_a_user_of_this_system(tmp_path):
    assert OURS.nobody is None
    assert OURS.nobody_uid() == pwd.getpwnam("nobody").pw_uid
    assert OURS.executable("/bin/sh") is True
    (tmp_path / "file").touch(0o644)
    assert OURS.executable(tmp_path / "file") is False


# -- the body of the request --------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 3_000_000])
def test_a_body_is_the_scripts_stdin(any_server, size):
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    answer = ask(any_server, "/cgi-bin/cat", method="POST", body=body)
    assert answer.body == body


def test_a_script_is_told_the_length_and_type_of_a_body(any_server):
    form = "Content-Type: application/x-www-form-urlencoded"
    told = variables(ask(any_server, "/cgi-bin/env", form, method="POST", body=b"a=b"))
    assert told["CONTENT_LENGTH"] == "3"
    assert told["CONTENT_TYPE"] == "application/x-www-form-urlencoded"
    told = variables(ask(any_server, "/cgi-bin/env", "Content-Length: 0", method="POST"))
    assert told["CONTENT_LENGTH"] == "0"
    assert "CONTENT_LENGTH" not in variables(ask(any_server, "/cgi-bin/env"))


@pytest.mark.parametrize("size", [1, 200_000])
def test_a_chunked_body_has_a_length_for_the_script(scripts, server, size):
    scripts.script("length", "echo X-Length: $CONTENT_LENGTH $HTTP_TRANSFER_ENCODING\necho\ncat\n")
    body = b"y" * size
    with client(server) as one:
        one.send(get("/cgi-bin/length", "Transfer-Encoding: chunked", method="POST"))
        one.send(b"%x\r\n%b\r\n0\r\n\r\n" % (size, body))
        answer = one.answer("POST")
        assert answer["X-Length"] == str(size)
        assert answer.body == body
        one.send(get("/cgi-bin/hello"))  # the connection goes on
        assert one.answer().body == b"hello\n"


def test_a_chunked_body_where_nobody_reads_chunks_needs_a_length(scripts):
    with scripts.serving(http.server.ThreadingHTTPServer) as server:
        answer = ask(server, "/cgi-bin/cat", "Transfer-Encoding: chunked", method="POST")
        assert answer.status == 411


def test_a_chunked_body_that_is_too_long_is_refused(scripts):
    class Server(OURS.ThreadingHTTPServer):
        limits = OURS.HTTPServer.limits.__class__(body_bytes=1000)

    with scripts.serving(Server) as server, client(server) as one:
        one.send(get("/cgi-bin/cat", "Transfer-Encoding: chunked", method="POST"))
        one.send(b"7d0\r\n" + b"z" * 2000)
        assert one.answer("POST").status == 413


def test_a_body_is_asked_for_where_its_client_waits_for_that(server):
    with client(server) as one:
        fields = ("Content-Length: 5", "Expect: 100-continue")
        one.send(get("/cgi-bin/cat", *fields, method="POST"))
        assert one.file.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert one.file.readline() == b"\r\n"
        one.send(b"hello")
        assert one.answer("POST").body == b"hello"
        one.send(get("/cgi-bin/none", *fields, method="POST"))  # and not where there is no script
        assert one.answer("POST").interim == []


def test_a_body_that_nobody_reads_holds_nobody_up(scripts, server):
    scripts.script("deaf", HELLO)
    body = b"x" * 2_000_000
    with client(server) as one:
        one.request("/cgi-bin/deaf", "POST", fields=(f"Content-Length: {len(body)}",))
        answer = one.answer("POST")  # before the body has been sent
        assert (answer.status, answer.body) == (200, b"hello\n")


# -- what its answer becomes ------------------------------------------------------------


def test_the_scripts_status_and_headers_are_the_answers(scripts, any_server):
    scripts.script("gone", "echo Status: 410 Gone Fishing\necho X-A: b\necho Server: mine\necho\n")
    answer = ask(any_server, "/cgi-bin/gone")
    assert answer.line.endswith(b" 410 Gone Fishing")
    assert answer["X-A"] == "b"
    assert answer["Server"] == "mine"


def test_a_location_elsewhere_is_a_redirect_for_the_client(scripts, any_server):
    scripts.script("away", "echo Location: https://example.org/\necho\n")
    answer = ask(any_server, "/cgi-bin/away")
    assert answer.status == 302
    assert answer["Location"] == "https://example.org/"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_location_here_is_answered_by_the_server_itself(scripts, any_server, method):
    scripts.script("to-file", "echo Location: /file.txt?x\necho\necho not for the client\n")
    scripts.script("to-env", "echo Location: /cgi-bin/env/info?a=b\necho\n")
    answer = ask(any_server, "/cgi-bin/to-file", method=method, body=b"x" * (method == "POST"))
    assert (answer.status, answer["Content-Length"]) == (200, "6")
    assert answer.body == (b"" if method == "HEAD" else b"a file")
    answer = ask(any_server, "/cgi-bin/to-env", method=method, body=b"x" * (method == "POST"))
    assert answer.status == 200
    if method != "HEAD":
        told = variables(answer)
        assert told["REQUEST_METHOD"] == "GET"
        assert told["PATH_INFO"] == "/info"
        assert told["QUERY_STRING"] == "a=b"
        assert told["REQUEST_URI"] == "/cgi-bin/to-env"
        assert "CONTENT_LENGTH" not in told


def test_scripts_that_send_each_other_in_circles_are_told_apart_from_work(scripts, server):
    scripts.script("round", "echo Location: /cgi-bin/round\necho\n")
    answer = ask(server, "/cgi-bin/round")
    assert answer.line == b"HTTP/1.1 502 Too many redirects from script to script"


def test_the_stdlibs_way_is_a_class_variable(scripts):
    scripts.script("gone", "echo Status: 410 Gone Fishing\necho Location: /file.txt\necho\n")
    with scripts.serving(script_output_follows=True) as server:
        answer = ask(server, "/cgi-bin/gone")
        assert answer.line == b"HTTP/1.1 200 Script output follows"
        assert answer["Status"] == "410 Gone Fishing"
        assert answer["Location"] == "/file.txt"


def test_an_answer_without_a_length_keeps_the_connection(scripts, server):
    scripts.script("thoughtful", "echo A: b\necho\nsleep 0.1\necho well\n")
    scripts.script("sized", "echo Content-Length: 3\necho\nprintf abc\n")
    with client(server) as one:
        for _ in range(3):
            one.send(get("/cgi-bin/hello"))
            assert one.answer().body == b"hello\n"
            one.send(get("/cgi-bin/thoughtful"))
            answer = one.answer()
            assert answer["Transfer-Encoding"] == "chunked"
            assert answer.body == b"well\n"
            one.send(get("/cgi-bin/sized"))
            answer = one.answer()
            assert (answer["Content-Length"], answer.body) == ("3", b"abc")


def test_a_client_of_http_1_0_reads_to_the_end(server):
    raw = converse(server.server_address, b"GET /cgi-bin/hello HTTP/1.0\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert raw.endswith(b"\r\n\r\nhello\n")
    assert b"Transfer-Encoding" not in raw


def test_head_has_no_body(any_server):
    with client(any_server) as one:
        one.send(get("/cgi-bin/hello", "Connection: close", method="HEAD"))
        head, _, body = one.file.read().partition(b"\r\n\r\n")
        assert b"Content-Type: text/plain" in head
        assert body == b""


def test_an_answer_comes_as_the_script_says_it(scripts, server):
    fifo = scripts.fifo("gate-stream")
    scripts.script("slow", f"echo A: b\necho\necho first\ncat <{fifo}\necho last\n")
    with client(server) as one:
        one.send(get("/cgi-bin/slow"))
        while one.file.readline() != b"\r\n":
            pass
        assert one.file.readline() == b"6\r\n"
        assert one.file.readline() == b"first\n"
        fifo.write_text("")
        rest = one.file.read1(100)
        while not rest.endswith(b"0\r\n\r\n"):
            rest += one.file.read1(100)
        assert rest == b"\r\n5\r\nlast\n\r\n0\r\n\r\n"


def test_a_script_may_speak_http_itself(scripts, any_server):
    raw = "HTTP/1.1 299 Mine\\r\\nX-Raw:  yes\\r\\n\\r\\nanything"
    scripts.script("nph-raw", f"printf '{raw}'\n")
    with client(any_server) as one:
        one.send(get("/cgi-bin/nph-raw"))
        assert one.file.read() == b"HTTP/1.1 299 Mine\r\nX-Raw:  yes\r\n\r\nanything"


BAD = {
    "nothing": (":", "it has said nothing"),
    "mute": ("exit 3", "it has said nothing"),
    "headless": ("echo hello", "it ended within its headers"),
    "wrong": ("echo Status: many\necho", "its Status is"),
    "long": ("printf 'A: %070000d' 1", "its headers are longer than 65536 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_answer_becomes_502_and_the_log_knows_why(scripts, any_server, caplog, name):
    source, reason = BAD[name]
    scripts.script(name, source + "\n")
    assert ask(any_server, f"/cgi-bin/{name}").status == 502
    (record,) = [r for r in caplog.records if r.event == "cgi.failed"]
    assert record.fields["script"] == f"/cgi-bin/{name}"
    assert record.fields["reason"].startswith(reason)
    if name == "mute":
        assert record.fields["ended"] == "exit 3"


def test_what_a_script_cries_is_in_the_log_with_its_name(scripts, server, caplog):
    scripts.script("cry", HELLO + "echo 'one\ntwo\x1b[31m' >&2\nexit 7\n")
    assert ask(server, "/cgi-bin/cry").body == b"hello\n"
    said = [r for r in caplog.records if r.event == "cgi.stderr"]
    assert [r.fields["script"] for r in said] == ["/cgi-bin/cry"]
    assert said[0].fields["text"] == "one\ntwo\x1b[31m"
    assert "\\x1b" in said[0].getMessage()  # one line, which steers no terminal
    assert "\n" not in said[0].getMessage()
    (exited,) = [r for r in caplog.records if r.event == "cgi.exited"]
    assert exited.fields["cause"] == "exit 7"


def test_a_flood_of_complaints_is_bounded(scripts, server, caplog):
    scripts.script("flood", HELLO + "yes complaint | head -c 1000000 >&2\n")
    assert ask(server, "/cgi-bin/flood").body == b"hello\n"
    texts = [r.fields["text"] for r in caplog.records if r.event == "cgi.stderr"]
    assert 60_000 < sum(map(len, texts)) <= 65536
    (cut,) = [r.fields for r in caplog.records if r.event == "cgi.stderr_cut"]
    assert cut["dropped_bytes"] > 900_000 - 65536


# -- in other languages ------------------------------------------------------------------


def test_a_script_in_perl(scripts, server):
    scripts.script(
        "form.pl",
        'read(STDIN, $b, $ENV{CONTENT_LENGTH});\nprint "Status: 201 Made\\nX-Got: $b\\n\\n";\n',
        interpreter=program("perl"),
    )
    answer = ask(server, "/cgi-bin/form.pl", method="POST", body=b"a=b")
    assert (answer.status, answer["X-Got"]) == (201, "a=b")


def test_a_script_in_python(scripts, server):
    source = (
        "import json, os, sys\n"
        "body = sys.stdin.buffer.read()\n"
        "print('Content-Type: application/json\\n')\n"
        "print(json.dumps([len(body), os.environ['CONTENT_LENGTH'], sys.argv[1:]]))\n"
    )
    scripts.script("length.py", source, interpreter=program("python3"))
    answer = ask(server, "/cgi-bin/length.py?a+b", method="POST", body=b"x" * 100_000)
    assert json.loads(answer.body) == [100_000, "100000", []]


@pytest.mark.skipif(
    not hasattr(http.server, "CGIHTTPRequestHandler"), reason="this Python's stdlib has no CGI"
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # it forks, in a process with threads
def test_a_class_of_the_stdlibs_own_cgi_handler_goes_on_as_ever(scripts, monkeypatch):
    class Handler(http.server.CGIHTTPRequestHandler):
        def log_message(self, *args):
            pass

    monkeypatch.chdir(scripts.folder)
    with serving(OURS.HTTPServer, Handler) as server:
        raw = converse(server.server_address, get("/cgi-bin/hello", "Connection: close"))
        assert raw.startswith(b"HTTP/1.0 200 Script output follows\r\n")
        assert raw.endswith(b"Content-Type: text/plain\n\nhello\n")
