"""The stdlib's `socketserver`, and its four servers ready for preforking.

Every public name of the stdlib module is here, the very same object, so that
`isinstance` and existing subclasses go on working:

    from prefork import socketserver

    with socketserver.PreforkTCPServer(("", 9000), Handler) as server:
        server.serve_forever()

It stands above `mixin`, not beside the handlers: it puts the stdlib's classes
and the mix-in together, and nothing below needs it.
"""

import socketserver as _stdlib
import warnings
from socketserver import *  # noqa: F403 # the module's purpose
from socketserver import (
    TCPServer,
    UDPServer,
    UnixDatagramServer,
    UnixStreamServer,
)
from typing import Any

from prefork.mixin import PreforkMixIn

__all__ = [  # noqa: PLE0604 # the stdlib's own list, whatever the version
    *_stdlib.__all__,
    "PreforkMixIn",
    "PreforkTCPServer",
    "PreforkUDPServer",
    "PreforkUnixDatagramServer",
    "PreforkUnixStreamServer",
]


class PreforkTCPServer(PreforkMixIn, TCPServer):
    """TCP, one request at a time in each worker."""


class PreforkUDPServer(PreforkMixIn, UDPServer):
    """UDP, one datagram at a time in each worker."""


class PreforkUnixStreamServer(PreforkMixIn, UnixStreamServer):
    """Unix stream sockets, one request at a time in each worker."""


class PreforkUnixDatagramServer(PreforkMixIn, UnixDatagramServer):
    """Unix datagram sockets, one datagram at a time in each worker."""


def __getattr__(name: str) -> Any:
    """Give the names that are not in the stdlib's `__all__`, such as `__version__`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = getattr(_stdlib, name)
    for warning in caught:  # 3.15 deprecates some, and must point at who asked
        warnings.warn(warning.message, warning.category, stacklevel=2)
    return value
