"""The tests exercise the installed package, never the checkout's."""

import resource
import signal
from pathlib import Path

import prefork

CHECKOUT = Path(__file__).parent.parent


def pytest_report_header():
    return f"prefork {prefork.__version__} from {Path(prefork.__file__).parent}"


def pytest_configure():
    # A shell's background job ignores them, and so would the daemons under test.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    # No core files from workers that tests abort.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
