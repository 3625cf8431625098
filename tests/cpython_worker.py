"""Run CPython's test_socketserver with `prefork.socketserver` in the stdlib module's place.

A process of its own, started by test_cpython.py with the interpreter under test. It imports
nothing but the standard library and prefork, and writes one JSON object to the file named by
its argument. Exit status: 0 the suite ran, 5 this Python has no such suite.
"""

import importlib
import json
import os
import sys
import unittest
from pathlib import Path

import prefork.socketserver

NO_SUITE = 5


def run_suite() -> dict[str, object]:
    """Return the number of tests run, and what went wrong: test name to traceback."""
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


def main() -> int:
    try:
        report = run_suite()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "test":
            raise
        print(error, file=sys.stderr)
        return NO_SUITE
    Path(sys.argv[1]).write_text(json.dumps(report))
    return 0


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # a thread left behind by a failed test must not keep this process
