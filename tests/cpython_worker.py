"""Run one of CPython's test suites with prefork's modules in the places of the stdlib's.

A process of its own, started by test_cpython.py with the interpreter under test. It imports
nothing but the standard library and prefork. Arguments: the file to which it writes one JSON
object, the suite and, optionally, the mix-in of the stdlib that PreforkMixIn is to stand in for.
Exit status: 0 the suite ran, 5 this Python has no such suite.
"""

import fnmatch
import http
import importlib
import json
import os
import sys
import unittest
import wsgiref.simple_server
from dataclasses import dataclass
from pathlib import Path

NO_SUITE = 5


@dataclass(frozen=True)
class Suite:
    """Tests to run. modules: the first that is there. patterns: of names to run; least: of them."""

    modules: tuple[str, ...]
    least: int
    patterns: tuple[str, ...] = ("*",)


SUITES = {
    "socketserver": Suite(("test.test_socketserver",), 21),
    "httpservers": Suite(("test.test_httpservers",), 60),
    "wsgiref": Suite(("test.test_wsgiref",), 35),
    # Skipped for root, and gone with 3.15.
    "cgi": Suite(("test.test_httpservers",), 14, ("CGIHTTPServerTestCase.*",)),
    # What else derives from http.server's classes. Left out: what never talks to them, and ten of
    # the eleven tests of MultiPathServerTestCase, each of which waits three seconds for itself.
    "xmlrpc": Suite(
        ("test.test_xmlrpc",),
        31,
        (
            "SimpleServer*",
            "Keepalive*",
            "GzipServer*",
            "FailingServer*",
            "HeadersServer*",
            "ServerProxy*",
            "MultiPathServerTestCase.test_path1",
        ),
    ),
    "docxmlrpc": Suite(("test.test_docxmlrpc",), 9),
    "urllib2_localnet": Suite(("test.test_urllib2_localnet",), 21),
    "robotparser": Suite(("test.test_robotparser",), 1, ("*LocalServer*", "*PasswordProtected*")),
    "pydoc": Suite(
        ("test.test_pydoc.test_pydoc", "test.test_pydoc"),
        3,
        ("*PydocServerTest*", "*PydocUrlHandlerTest*"),
    ),
    "logging": Suite(
        ("test.test_logging",), 7, ("*HandlerTest.test_output", "*ConfigDictTest.test_listen_*_ok")
    ),
}


def stand_in(mixin: str) -> None:
    """Let `ForkingMixIn` be PreforkMixIn, and ForkingTCPServer PreforkTCPServer, and so on."""
    module = sys.modules["socketserver"]
    prefix = mixin.removesuffix("MixIn")
    for name in ("MixIn", "TCPServer", "UDPServer", "UnixStreamServer", "UnixDatagramServer"):
        setattr(module, prefix + name, getattr(module, "Prefork" + name))
    module.PreforkMixIn.workers = 2
    module.PreforkMixIn.active_children = None  # the suite asks, at the end, whether any are left


def replace_modules() -> None:
    """Put ours in their places; both must have met the stdlib's before."""
    ours_socketserver = importlib.import_module("prefork.socketserver")
    ours_http = importlib.import_module("prefork.http")
    ours_wsgi = importlib.import_module("prefork.wsgi")
    sys.modules["socketserver"] = ours_socketserver
    sys.modules["http.server"] = http.server = ours_http
    sys.modules["wsgiref.simple_server"] = wsgiref.simple_server = ours_wsgi


def import_first(names: tuple[str, ...]):
    for name in names[:-1]:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    return importlib.import_module(names[-1])


def import_suite(suite: Suite):
    module = import_first(suite.modules)
    if suite.modules == ("test.test_httpservers",):
        # This one handler leaves its protocol to the default, and asks for HTTP/1.0 afterwards.
        # Ours is HTTP/1.1; the suite as a whole would hide that, as its tests of test() set the
        # class variable.
        module.SimpleHTTPServerTestCase.request_handler.protocol_version = "HTTP/1.0"
    return module


def pick(tests: unittest.TestSuite, suite: Suite) -> unittest.TestSuite:
    picked = unittest.TestSuite()
    for test in tests:
        if isinstance(test, unittest.TestSuite):
            picked.addTest(pick(test, suite))
        elif any(fnmatch.fnmatchcase(_name(test), pattern) for pattern in suite.patterns):
            picked.addTest(test)
    return picked


def run_suite(suite: Suite, mixin: str | None = None) -> dict[str, object]:
    """Return the number of tests run, and what went wrong: test name to traceback."""
    replace_modules()
    if mixin is not None:
        stand_in(mixin)
    module = import_suite(suite)
    picked = pick(unittest.defaultTestLoader.loadTestsFromModule(module), suite)
    if not picked.countTestCases():
        raise ModuleNotFoundError(f"no {suite.patterns[0]} in it", name=suite.modules[0])
    result = unittest.TestResult()
    picked.run(result)
    wrong = dict(result.errors + result.failures)
    wrong |= dict.fromkeys(result.unexpectedSuccesses, "unexpected success")
    return {
        "python": sys.version,
        "prefork": sys.modules["prefork"].__file__,
        "run": result.testsRun,
        "skipped": {_name(test): reason for test, reason in result.skipped},
        "wrong": {_name(test): trace for test, trace in wrong.items()},
    }


def _name(test: unittest.TestCase) -> str:
    return ".".join(test.id().split(".")[-2:])


def main(report_path: str, suite: str, mixin: str | None = None) -> int:
    try:
        report = run_suite(SUITES[suite], mixin)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "test":
            raise
        print(error, file=sys.stderr)
        return NO_SUITE
    Path(report_path).write_text(json.dumps(report))
    return 0


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    sys.stderr.flush()
    os._exit(status)  # a thread left behind by a failed test must not keep this process
