"""The tests exercise the installed package, never the checkout's."""

import resource
import signal
from pathlib import Path

import prefork

CHECKOUT = Path(__file__).parent.parent

#: The files that take longest, the longest first. Where several processes test at once (`-n`),
#: each takes a file at a time: one that came last would keep all others waiting at the end.
LONGEST = (
    "test_reload.py",
    "test_process.py",
    "test_cpython.py",
    "test_systemd.py",
    "test_cli.py",
    "test_raw.py",
    "test_privileged.py",
    "test_daemon.py",
    "test_share_browser.py",
    "test_pools.py",
    "test_options.py",
    "test_http_ends.py",
    "test_commands_live.py",
    "test_examples.py",
    "test_raw_limits.py",
    "test_raw_datagrams.py",
)


def pytest_report_header():
    return f"prefork {prefork.__version__} from {Path(prefork.__file__).parent}"


def pytest_configure():
    # A shell's background job ignores them, and so would the daemons under test.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    # No core files from workers that tests abort.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def pytest_collection_modifyitems(config, items):
    if hasattr(config, "workerinput"):  # one of several processes that test
        order = {name: rank for rank, name in enumerate(LONGEST)}
        items.sort(key=lambda item: order.get(item.path.name, len(order)))
