"""Run CPython's test_socketserver with `prefork.socketserver` in the stdlib module's place.

A process of its own, started by test_cpython.py with the interpreter under test. It imports
nothing but the standard library and prefork. Arguments: the file to which it writes one JSON
object and, optionally, the mix-in of the stdlib that PreforkMixIn is to stand in for. Exit
status: 0 the suite ran, 5 this Python has no such suite.
"""

import importlib
import json
import os
import sys
import unittest
from pathlib import Path

import prefork.socketserver

NO_SUITE = 5


def stand_in(mixin: str) -> None:
    """Let `ForkingMixIn` be PreforkMixIn, and ForkingTCPServer PreforkTCPServer, and so on."""
    module = prefork.socketserver
    prefix = mixin.removesuffix("MixIn")
    for name in ("MixIn", "TCPServer", "UDPServer", "UnixStreamServer", "UnixDatagramServer"):
        setattr(module, prefix + name, getattr(module, "Prefork" + name))
    module.PreforkMixIn.workers = 2
    module.PreforkMixIn.active_children = None  # the suite asks, at the end, whether any are left


def run_suite(mixin: str | None = None) -> dict[str, object]:
    """Return the number of tests run, and what went wrong: test name to traceback."""
    if mixin is not None:
        stand_in(mixin)
    sys.modules["socketserver"] = prefork.socketserver
    suite = importlib.import_module("test.test_socketserver")
    assert suite.socketserver is prefork.socketserver
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromModule(suite).run(result)
    wrong = dict(result.errors + result.failures)
    wrong |= dict.fromkeys(result.unexpectedSuccesses, "unexpected success")
    return {
        "python": sys.version,
        "prefork": prefork.__file__,
        "run": result.testsRun,
        "skipped": {_name(test): reason for test, reason in result.skipped},
        "wrong": {_name(test): trace for test, trace in wrong.items()},
    }


def _name(test: unittest.TestCase) -> str:
    return ".".join(test.id().split(".")[-2:])


def main(report_path: str, mixin: str | None = None) -> int:
    try:
        report = run_suite(mixin)
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
