"""The stdlib's `http.server`, with handlers and servers for production.

Every public name of the stdlib module is here. The servers and handlers are
classes of our own, derived from the stdlib's; what is not is the very same object:

    from prefork.http import SimpleHTTPRequestHandler, ThreadingHTTPServer

    with ThreadingHTTPServer(("", 8000), SimpleHTTPRequestHandler) as server:
        server.serve_forever()

It puts names together and has no code of its own; `handler` and `folder` say
where they differ from the stdlib's.
"""

# ruff: noqa: F401 # the names are for others

import http.server as _stdlib
import os
import warnings as _warnings
from http.server import *  # noqa: F403 # the module's purpose
from typing import Any

from prefork.http.cgi.handler import (  # type: ignore[assignment] # the star has brought the stdlib's
    CGIHTTPRequestHandler as CGIHTTPRequestHandler,
)
from prefork.http.cgi.handler import executable, nobody, nobody_uid
from prefork.http.folder import SimpleHTTPRequestHandler
from prefork.http.folder import collapse_url_path as _url_collapse_path
from prefork.http.handler import (
    DEFAULT_ERROR_CONTENT_TYPE,
    DEFAULT_ERROR_MESSAGE,
    BaseHTTPRequestHandler,
)
from prefork.http.main import get_best_family as _get_best_family
from prefork.http.main import main as _main
from prefork.http.main import make_server as _make_server
from prefork.http.main import run as test
from prefork.http.server import HTTPServer
from prefork.http.server import (  # type: ignore[assignment] # the star has brought the stdlib's
    ThreadingHTTPServer as ThreadingHTTPServer,
)

__all__ = [*_stdlib.__all__]  # noqa: PLE0604 # the stdlib's own list, whatever the version
if "CGIHTTPRequestHandler" not in __all__:  # 3.15 has none any more
    __all__ += ["CGIHTTPRequestHandler"]


def __getattr__(name: str) -> Any:
    """Give the names that are not in the stdlib's `__all__`, such as `__version__`."""
    with _warnings.catch_warnings(record=True) as caught:
        _warnings.simplefilter("always")
        value = getattr(_stdlib, name)
    for warning in caught:  # 3.15 deprecates some, and must point at who asked
        _warnings.warn(warning.message, warning.category, stacklevel=2)
    return value
