"""`handler_options`: what a config makes of a handler class, and what it refuses."""

import functools
import http.server
import socketserver
import sys
from pathlib import Path, PurePosixPath

import pytest

from prefork.config import ConfigError, load
from prefork.http import SimpleHTTPRequestHandler
from prefork.options import keywords_of, with_options
from prefork.share import ShareRequestHandler
from prefork.target import find_target

WHERE = "c.toml: server.a.handler_options"


class Own(http.server.SimpleHTTPRequestHandler):
    color = "red"
    depth = 3
    share = 0.5
    is_open = False
    sizes = (1, 2)
    names = frozenset({"a"})
    table = {"a": 1}  # noqa: RUF012 # what people write
    cache = PurePosixPath("/tmp")
    anything = None
    made_of = print
    numbers = {1: "one"}  # noqa: RUF012 # as above
    template = "page"
    log_file = "/var/log/own"
    _private = 1

    def __init__(self, *args, level=1, **keywords):
        self.level = level
        super().__init__(*args, **keywords)


def problems_of(handler, **options) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        with_options(handler, options, WHERE)
    return [problem.removeprefix(f"{WHERE}.") for problem in caught.value.problems]


def variables_of(handler, **options) -> dict:
    made = with_options(handler, options, WHERE)
    cls = made.func if isinstance(made, functools.partial) else made
    return {name: vars(cls)[name] for name in options}


def test_without_options_the_class_is_served_itself():
    assert with_options(Own, {}, WHERE) is Own


def test_a_derived_class_has_the_options_and_the_named_one_does_not():
    made = with_options(Own, {"color": "blue"}, WHERE)
    assert (made.color, Own.color) == ("blue", "red")
    assert issubclass(made, Own)
    assert (made.__name__, made.__module__) == ("Own", Own.__module__)


def test_the_options_of_the_stdlibs_classes_are_as_the_stdlib_wants_them(tmp_path):
    made = with_options(
        SimpleHTTPRequestHandler,
        {
            "directory": str(tmp_path),
            "index_pages": ["a.html"],
            "extensions_map": {".md": "text/markdown", "": "text/plain"},
            "default_content_type": "text/x-mine; charset=utf-8",
            "extra_response_headers": {"X-A": "1", "Set-Cookie": ["a", "b"]},
            "protocol_version": "HTTP/1.0",
            "server_version": "Mine/1",
            "sys_version": "",
            "allowed_methods": ["GET", "HEAD"],
            "error_message_format": "<p>%(code)d %(message)s %(explain)s 100%%",
            "error_content_type": "text/html",
            "timeout": "1m",
            "disable_nagle_algorithm": True,
            "rbufsize": 0,
        },
        WHERE,
    )
    assert made.keywords == {
        "directory": str(tmp_path),
        "extra_response_headers": (("X-A", "1"), ("Set-Cookie", "a"), ("Set-Cookie", "b")),
    }
    cls = made.func
    assert (cls.index_pages, cls.allowed_methods) == (("a.html",), ("GET", "HEAD"))
    assert cls.extensions_map == {
        **SimpleHTTPRequestHandler.extensions_map,
        ".md": "text/markdown",
        "": "text/plain",
    }
    assert cls.default_content_type == "text/x-mine; charset=utf-8"
    assert (cls.protocol_version, cls.server_version, cls.sys_version) == ("HTTP/1.0", "Mine/1", "")
    assert (cls.timeout, cls.disable_nagle_algorithm, cls.rbufsize) == (60.0, True, 0)


def test_headers_may_be_pairs_where_their_order_counts():
    pairs = [["B", "1"], ["A", "2"], ["B", "3"]]
    made = with_options(SimpleHTTPRequestHandler, {"extra_response_headers": pairs}, WHERE)
    assert made.keywords["extra_response_headers"] == (("B", "1"), ("A", "2"), ("B", "3"))


def test_older_classes_of_the_stdlib_get_the_newer_options():
    made = with_options(
        http.server.SimpleHTTPRequestHandler,
        {"extra_response_headers": {"A": "1"}, "default_content_type": "text/plain"},
        WHERE,
    )
    assert "extra_response_headers" in keywords_of(made.func)
    assert made.func.default_content_type == "text/plain"


def test_a_timeout_may_be_off():
    class Patient(socketserver.StreamRequestHandler):
        timeout = 5

    assert variables_of(Patient, timeout="off") == {"timeout": None}


def test_variables_have_the_type_that_the_class_says():
    wanted = {
        "color": "blue",
        "depth": 4,
        "share": 1,
        "is_open": True,
        "sizes": [3],
        "names": ["b"],
        "table": {"b": 2},
        "cache": "/var",
        "anything": [1, {"a": 2}],
    }
    assert variables_of(Own, **wanted) == {
        "color": "blue",
        "depth": 4,
        "share": 1.0,
        "is_open": True,
        "sizes": (3,),
        "names": frozenset({"b"}),
        "table": {"a": 1, "b": 2},
        "cache": PurePosixPath("/var"),
        "anything": [1, {"a": 2}],
    }


def test_a_keyword_of_init_is_given_with_each_request():
    assert with_options(Own, {"level": 2}, WHERE).keywords == {"level": 2}
    assert problems_of(Own, level="2") == [
        'level: found "2", expected a whole number; did you mean 2?'
    ]


def test_a_partial_keeps_its_own_arguments():
    made = with_options(functools.partial(Own, level=5), {"color": "blue"}, WHERE)
    assert (made.keywords, made.func.color) == ({"level": 5}, "blue")
    assert with_options(functools.partial(Own, level=5), {"level": 6}, WHERE).keywords["level"] == 6


def test_keywords_end_where_none_are_passed_on():
    class Closed(Own):
        def __init__(self, request, client_address, server):
            super().__init__(request, client_address, server, directory="/tmp")

    assert keywords_of(Closed) == {}
    assert problems_of(Closed, directory="/tmp") == [
        (
            f"directory: {__name__}:test_keywords_end_where_none_are_passed_on.<locals>.Closed"
            " has no such option, expected a class of http.server.SimpleHTTPRequestHandler"
        )
    ]


WRONG = [
    ("directory", "/no/such", 'no such folder: "/no/such", expected one that is there'),
    (
        "extra_response_headers",
        {"X A": "1"},
        'found "X A", expected a word such as "GET" or "Cache-Control"',
    ),
    (
        "extra_response_headers",
        {"X": "a\nb"},
        (
            'found "a\\nb", expected one line of printable characters or an array,'
            " each item one line of printable characters"
        ),
    ),
    ("extensions_map", {"md": "text/x"}, 'found "md", expected a suffix such as ".md"'),
    ("extensions_map", {".md": "text"}, 'found "text", expected a type such as "text/plain"'),
    (
        "protocol_version",
        "HTTP/2",
        'found "HTTP/2", expected "HTTP/1.0" or "HTTP/1.1"; did you mean "HTTP/1.1"?',
    ),
    (
        "timeout",
        0,
        (
            'found 0, expected a time above 0, up to 365d (30, "30s", "5m", "1h") or "off";'
            ' did you mean "off"?'
        ),
    ),
    ("rbufsize", "0", 'found "0", expected a whole number, -1 or more; did you mean 0?'),
    (
        "allowed_methods",
        "GET",
        'found "GET", expected an array, each item a word such as "GET" or "Cache-Control"',
    ),
    ("color", 5, 'found 5, expected text; did you mean "5"?'),
    ("is_open", "yes", 'found "yes", expected true or false; did you mean true?'),
    ("sizes", 5, "found 5, expected an array"),
    ("sizes", ["a"], 'found "a", expected a whole number'),
    ("table", 5, "found 5, expected a table"),
    ("cache", 5, "found 5, expected a path"),
    ("numbers", {}, "of type dict, which no config can say"),
    ("colour", "red", f"{__name__}:Own has no such option; did you mean 'color'?"),
    ("levels", 5, f"{__name__}:Own has no such option; did you mean 'level'?"),
    ("root", "/srv", f"{__name__}:Own has no such option; did you mean 'directory'?"),
    ("do_GET", 5, f"{__name__}:Own has no such option"),
    ("made_of", 5, "of type builtin_function_or_method, which no config can say"),
    ("_private", 5, f"{__name__}:Own has no such option"),
    (
        "cgi_directories",
        ["/x"],
        (
            f"{__name__}:Own has no such option, expected a class of"
            " prefork.http.CGIHTTPRequestHandler"
        ),
    ),
    ("template_file", "/no/such", 'no such file: "/no/such"'),
]


@pytest.mark.parametrize(("name", "value", "problem"), WRONG)
def test_a_wrong_option_is_answered_by_this_line(name, value, problem):
    assert problems_of(Own, **{name: value}) == [f"{name}: {problem}"]


SHARE = {
    "symlinks": "never",
    "hidden": True,
    "trusted": True,
    "spa": True,
    "not_found_page": "errors/404.html",
    "archives": False,
    "compression": False,
    "allowed_hosts": ["files.example.org", ".example.org", "*"],
    "cors_origins": ["https://app.example.org:8443", "*"],
    "cache_directory": "/var/cache/share",
    "cache_bytes": "1G",
}


def test_a_share_takes_its_options():
    made = with_options(ShareRequestHandler, SHARE, WHERE)
    changed = {
        "allowed_hosts": tuple(SHARE["allowed_hosts"]),
        "cors_origins": tuple(SHARE["cors_origins"]),
        "cache_bytes": 1 << 30,
    }
    assert {name: getattr(made, name) for name in SHARE} == SHARE | changed


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        (
            "symlinks",
            "inisde",
            'found "inisde", expected "inside", "follow" or "never"; did you mean "inside"?',
        ),
        ("hidden", "yes", 'found "yes", expected true or false; did you mean true?'),
        (
            "allowed_hosts",
            ["http://files.example.org"],
            (
                'found "http://files.example.org", expected a name such as "files.example.org" or'
                ' ".example.org", or "*"'
            ),
        ),
        (
            "allowed_hosts",
            ["*.example.org"],
            (
                'found "*.example.org", expected a name such as "files.example.org" or'
                ' ".example.org", or "*"'
            ),
        ),
        (
            "cors_origins",
            ["https://app.example.org/"],
            (
                'found "https://app.example.org/", expected an origin such as'
                ' "https://app.example.org", or "*"'
            ),
        ),
        (
            "not_found_page",
            "",
            'found "", expected the path of a file below the folder, such as "404.html"',
        ),
        (
            "cache_bytes",
            "64 MB",
            (
                "found \"64 MB\": no unit 'MB', expected a size, 1 or more"
                ' (512, "512K", "512M", "1G"); did you mean "64M"?'
            ),
        ),
        ("follow_symlinks", True, "{who} has no such option; did you mean 'symlinks'?"),
        ("server_name", "x", "{who} has no such option; did you mean 'allowed_hosts'?"),
        ("gzip", True, "{who} has no such option; did you mean 'compression'?"),
        ("hiden", True, "{who} has no such option; did you mean 'hidden'?"),
    ],
)
def test_a_wrong_option_of_a_share_is_answered_by_this_line(name, value, problem):
    who = "prefork.share.handler:ShareRequestHandler"
    said = problems_of(ShareRequestHandler, **{name: value})
    assert said == [f"{name}: {problem.format(who=who)}"]


@pytest.mark.parametrize("name", SHARE)
def test_an_option_of_a_share_needs_a_share(name):
    assert problems_of(SimpleHTTPRequestHandler, **{name: SHARE[name]}) == [
        (
            f"{name}: prefork.http.folder:SimpleHTTPRequestHandler has no such option,"
            " expected a class of prefork.share.ShareRequestHandler"
        )
    ]


def test_options_of_other_classes_may_be_called_as_a_shares_and_be_something_else():
    class Other(SimpleHTTPRequestHandler):
        hidden = 3
        trusted = ("ada",)
        symlinks = "some"

    options = {"hidden": 5, "trusted": ["eve"], "symlinks": "any"}
    assert variables_of(Other, **options) == options | {"trusted": ("eve",)}


def test_a_template_that_its_own_percent_signs_would_break_is_refused():
    (problem,) = problems_of(Own, error_message_format="100% %(code)d")
    assert problem.startswith("error_message_format: as a template it fails (")
    assert problem.endswith(
        "), expected %(code)d, %(message)s and %(explain)s, and %% for a percent sign"
    )


def test_all_that_is_wrong_is_said_at_once():
    assert len(problems_of(Own, color=5, depth="x", colour="red")) == 3


def test_index_pages_need_a_class_that_knows_them():
    if sys.version_info >= (3, 12):
        assert variables_of(Own, index_pages=["a"]) == {"index_pages": ("a",)}
    else:
        assert problems_of(Own, index_pages=["a"]) == [
            (
                f"index_pages: {__name__}:Own has no such option, expected a class of"
                " prefork.http.SimpleHTTPRequestHandler"
            )
        ]


def test_a_folder_is_looked_for_below_the_root_that_the_handler_will_have(tmp_path):
    (tmp_path / "srv").mkdir()
    made = with_options(Own, {"directory": "/srv"}, WHERE, root=str(tmp_path))
    assert made.keywords == {"directory": "/srv"}


def test_options_of_a_config_become_those_of_the_class(tmp_path, monkeypatch):
    monkeypatch.setenv("DEPTH", "7")
    monkeypatch.setenv("SECRET", "hunter2")
    (tmp_path / "page.html").write_text("<p>%(code)d\n")
    (tmp_path / "log").write_text("what was logged")
    config = tmp_path / "c.toml"
    config.write_text("""
[server.a]
bind = ["*:0"]
handler = "m:Own"
[server.a.handler_options]
directory = "."
depth = "${DEPTH}"
color = "${SECRET}"
error_message_format_file = "page.html"
log_file = "log"
""")
    made = with_options(Own, load(config).servers["a"].handler_options, WHERE)
    assert made.keywords == {"directory": str(tmp_path)}
    assert (made.func.depth, made.func.color) == (7, "hunter2")
    assert type(made.func.color) is str
    assert made.func.error_message_format == "<p>%(code)d"
    assert made.func.log_file == str(tmp_path / "log")


def test_a_secret_of_the_environment_is_not_in_messages(tmp_path):
    config = tmp_path / "c.toml"
    config.write_text(
        '[server.a]\nbind = ["*:0"]\nhandler = "m:Own"\nhandler_options.depth = "${SECRET}"\n'
    )
    options = load(config, {"SECRET": "hunter2"}).servers["a"].handler_options
    assert problems_of(Own, **options) == [
        "depth: found what is in ${SECRET}, expected a whole number"
    ]


def test_the_examples_have_options_that_their_handlers_know(monkeypatch, tmp_path):
    etc = Path(__file__).parent.parent / "etc"
    monkeypatch.syspath_prepend(etc)
    checked = 0
    for path in etc.glob("*.toml"):
        for server in load(
            path, {"SHARE": str(tmp_path), "RECORDS": str(tmp_path)}
        ).servers.values():
            if server.handler_options:
                handler = find_target(server.handler).handler
                assert with_options(handler, server.handler_options, path.name)
                checked += 1
    assert checked >= 5
