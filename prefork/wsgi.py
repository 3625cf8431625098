"""The stdlib's `wsgiref.simple_server`, with a server and a handler for production.

Every public name of the stdlib's module is here; what is not a class of our own
is the very same object:

    from prefork.wsgi import make_server

    with make_server("", 8000, app) as server:
        server.serve_forever()

On the engine (`prefork.http`) an application gets HTTP/1.1: connections that
persist, chunks, `wsgi.file_wrapper` by sendfile(2), `wsgi.early_hints`. Elsewhere,
and where a subclass overrides `handle()`, all is as in the stdlib, HTTP/1.0
included. wsgiref's own WSGIRequestHandler and classes derived from it run on the
engine in the same way.
"""

import wsgiref.simple_server as _stdlib
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import (
    ServerHandler,
    demo_app,
    server_version,
    software_version,
    sys_version,
)

from prefork.http.handler import BaseHTTPRequestHandler
from prefork.http.server import HTTPServer

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

__all__ = [*_stdlib.__all__]  # noqa: PLE0604 # the stdlib's own list, whatever the version

# Not in `__all__` there, either.
_ALSO = (ServerHandler, server_version, software_version, sys_version, demo_app)


class WSGIServer(HTTPServer, _stdlib.WSGIServer):
    """An HTTPServer with one application; see `wsgiref.simple_server.WSGIServer`.

    application, base_environ: as there. `threads` as with HTTPServer: 0, one
    request at a time.
    """

    def server_bind(self) -> None:
        """Bind, and set up `base_environ`."""
        HTTPServer.server_bind(self)
        self.setup_environ()


class WSGIRequestHandler(BaseHTTPRequestHandler, _stdlib.WSGIRequestHandler):
    """Calls the server's application for each request; see wsgiref's.

    `get_environ()` and `get_stderr()` may be overridden as there.
    """

    # Of answers that no application gives, off the engine; on it, it is 1.1.
    protocol_version = "HTTP/1.0"
    server_version = _stdlib.WSGIRequestHandler.server_version


def make_server(
    host: str,
    port: int,
    app: "WSGIApplication",
    server_class: type[Any] = WSGIServer,
    handler_class: type[Any] = WSGIRequestHandler,
) -> Any:
    """Return a server of an application, bound to host and port.

    Raises: OSError.
    """
    server = server_class((host, port), handler_class)
    server.set_app(app)
    return server
