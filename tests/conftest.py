"""The tests exercise the installed package, never the checkout's."""

import resource
from pathlib import Path

import prefork

CHECKOUT = Path(__file__).parent.parent


def pytest_report_header():
    return f"prefork {prefork.__version__} from {Path(prefork.__file__).parent}"


def pytest_configure():
    # No core files from workers that tests abort.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
