"""The environ of a WSGI application (PEP 3333), made of a request's head.

A worker, in the thread of the handler. What a head says is worked out once and
copied for each request that sends the same bytes. It reads no body but a chunked
one, whose length it has to tell, and never puts the process's own environment into it.
"""

import io
import sys
import urllib.parse
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from prefork.http import exchange
from prefork.http.file_wrapper import FileWrapper
from prefork.http.spool import take_in
from prefork.http.wire import Head, WireError

if TYPE_CHECKING:
    from prefork.http.connection import Connection
    from prefork.http.engine import Engine

#: Fields that have names of their own (RFC 3875 §4.1).
_BARE: Final = frozenset({"CONTENT_LENGTH", "CONTENT_TYPE"})


class Environs:
    """The environs of one engine's requests."""

    def __init__(self, engine: "Engine") -> None:
        server = engine.server
        self._base: dict[str, Any] = dict(server.base_environ)
        self._fixed: dict[str, Any] = {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.multithread": server.thread_count() > 1,
            # Also where there is one worker: during a reload there are two.
            "wsgi.multiprocess": not engine.alone,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
        }

    def make(self, handler: Any, connection: "Connection", head: Head) -> dict[str, Any]:
        """Return the environ of a request.

        Whoever calls this closes its `wsgi.input` where a body came in chunks.
        Raises: WireError for a field whose name CGI cannot tell from another's,
        where proxies contradict each other, and for a chunked body that is none;
        OSError, TimeoutError when such a body does not come.
        """
        environ = head.environ.copy() if head.environ else self._first(handler, head)
        if connection.engine.forwarders is not None:
            environ |= _remote(_believe(handler, connection, environ))
        else:
            remote = handler._prefork_remote
            if remote is None:
                remote = handler._prefork_remote = _remote(connection.address)
            environ |= remote
        if connection.body is None:
            environ["wsgi.input"] = io.BytesIO()
        elif head.length is None:
            _take_in(handler, connection, environ)
        else:
            environ["wsgi.input"] = _input(handler, connection)
        environ["wsgi.errors"] = sys.stderr
        return environ

    def made_by_handler(self, handler: Any, connection: "Connection", head: Head) -> dict[str, Any]:
        """Return what a `get_environ()` of the program's own makes, and what wsgiref adds to it.

        Raises: as `make()`.
        """
        _refuse_ambiguous(head)
        origin: dict[str, Any] = {}
        if connection.engine.forwarders is not None:
            _believe(handler, connection, origin)
        environ: dict[str, Any] = handler.get_environ()
        for name, value in self._fixed.items():
            environ.setdefault(name, value)
        environ["wsgi.url_scheme"] = "http"
        environ |= origin
        if head.length is None:
            environ.pop("HTTP_TRANSFER_ENCODING", None)
            _take_in(handler, connection, environ)
        else:
            environ["wsgi.input"] = handler.rfile
        environ["wsgi.errors"] = handler.get_stderr()
        return environ

    def _first(self, handler: Any, head: Head) -> dict[str, Any]:
        """Return the environ of a head that was not copied before.

        It is kept from the second time on: most paths are asked for once.
        """
        environ = self._template(handler, head)
        head.environ = {} if head.environ is None else environ.copy()
        return environ

    def _template(self, handler: Any, head: Head) -> dict[str, Any]:
        of_fields = head.shared.environ
        if of_fields is None:
            of_fields = head.shared.environ = self._of_fields(head)
        environ = of_fields.copy()
        environ["SERVER_SOFTWARE"] = handler.server_version
        environ["SERVER_PROTOCOL"] = head.version
        environ["REQUEST_METHOD"] = head.method
        environ["REQUEST_URI"] = head.target
        target, authority = _origin_form(str(head.attributes["path"]))
        path, _, query = target.partition("?")
        environ["PATH_INFO"] = urllib.parse.unquote(path, "iso-8859-1") if "%" in path else path
        environ["QUERY_STRING"] = query
        if authority:
            environ["HTTP_HOST"] = authority  # whatever Host says (RFC 9112 §3.2.2)
        return environ

    def _of_fields(self, head: Head) -> dict[str, Any]:
        """Return all but what the request line says.

        Browsers send the same fields with each request for a kind of resource.
        """
        _refuse_ambiguous(head)
        environ = self._base | self._fixed
        for name, value in head.fields:
            key = name.replace("-", "_").upper()
            if key == "TRANSFER_ENCODING":
                continue  # it is decoded (RFC 9112 §7.1.3); Bottle would do it again
            if key not in _BARE:
                key = f"HTTP_{key}"
            if key not in environ:
                environ[key] = value
            elif key == "HTTP_COOKIE":
                environ[key] += f"; {value}"  # RFC 9113 §8.2.3
            elif key not in _BARE:
                environ[key] += f",{value}"
            else:
                environ[key] = value
        return environ


def _remote(address: Any) -> dict[str, str]:
    host, port = address[0], address[1]
    remote = {"REMOTE_ADDR": host if host != "unix" else ""}  # applications expect an address
    if port:
        remote["REMOTE_PORT"] = str(port)
    return remote


def _input(handler: Any, connection: "Connection") -> Any:
    """Return the body as a file; one that has arrived whole is taken out of the engine's hands."""
    body, buffer = connection.body, connection.buffer
    if body is not None and body.is_plain() and 0 < body.left <= len(buffer):
        size, body.left = body.left, 0
        connection.body = None
        connection.buffer = buffer[size:]
        return io.BytesIO(buffer[:size])
    return handler.rfile


def _take_in(handler: Any, connection: "Connection", environ: dict[str, Any]) -> None:
    """Put a chunked body and its length into environ."""
    memory_bytes = connection.engine.limits.prefetch_bytes
    environ["wsgi.input"], size = take_in(handler.rfile, memory_bytes)
    environ["CONTENT_LENGTH"] = str(size)


def _believe(handler: Any, connection: "Connection", environ: dict[str, Any]) -> Any:
    """Put what trusted proxies say of the client into environ; return its address."""
    handler.client_address = connection.address  # not that of the request before
    told = exchange.told(connection)
    if told is None:
        return connection.address
    if told.scheme is not None:
        environ["wsgi.url_scheme"] = told.scheme
    if told.scheme == "https":
        environ["HTTPS"] = "on"
    if told.authority is not None:
        environ["HTTP_HOST"] = told.authority
    if told.host:
        handler.client_address = told.host, told.port
    return handler.client_address


def _refuse_ambiguous(head: Head) -> None:
    """Refuse X_Name, which an application could not tell from X-Name.

    With it a client could forge what a proxy in front sets or removes.
    """
    for name, _ in head.fields:
        if "_" in name:
            reason = f"Header name with an underscore ({name})"
            raise WireError(HTTPStatus.BAD_REQUEST, reason, head.request_line)


def _origin_form(target: str) -> tuple[str, str]:
    """Return path and query of a request's target, and the authority if that is named, too."""
    if target[:1] == "/":
        return target, ""
    if target == "*":  # RFC 9112 §3.2.4
        return "", ""
    scheme, found, rest = target.partition("://")
    if not found or scheme.lower() not in ("http", "https"):
        return target, ""
    end = min((i for i in (rest.find("/"), rest.find("?")) if i >= 0), default=len(rest))
    path = rest[end:]
    return path if path[:1] == "/" else f"/{path}", rest[:end].rpartition("@")[2]
