"""What `server_class` names: a server class, or a function that makes a server; how it is called.

The master, before serving, and whoever checks a config; without `preload` each
worker. It calls nothing before it is asked to, and changes no class.
"""

import http.server
import inspect
import socketserver
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prefork.errors import StartError, UsageError
from prefork.target import CALL, Kind, Target, find_object, kind_of_class


@dataclass(frozen=True)
class Maker:
    """name: as people write it. make: the class; or the function, to be called without arguments.

    cls: the class, None where a function is named.
    """

    name: str
    make: Callable[..., Any]
    cls: type[socketserver.TCPServer] | None

    def target(self) -> Target:
        """Return what it serves where no handler is named: what it brings itself, as far as known.

        As in `SimpleXMLRPCServer(addr, requestHandler=SimpleXMLRPCRequestHandler)`.
        """
        for parameter in self._parameters()[1:2]:
            brought = parameter.default
            if isinstance(brought, type) and issubclass(brought, socketserver.BaseRequestHandler):
                return Target(self.name, kind_of_class(brought), brought, brought)
        is_http = self.cls is not None and issubclass(self.cls, http.server.HTTPServer)
        kind = Kind.HTTP if is_http else Kind.STREAM
        return Target(self.name, kind, None, socketserver.BaseRequestHandler)

    def require(self, handler: Any) -> None:
        """Raise UsageError if the class cannot be called as it will be. handler: None for none."""
        if self.cls is None or self._takes(handler):
            return
        if handler is None and self._takes(object):
            raise UsageError(f"{self.name} brings no handler of its own; name one as handler")
        given = "(address)" if handler is None else "(address, handler)"
        raise UsageError(
            f"{self.name} is called with {given}, and takes ({self._signature()});"
            " derive a class from it that takes these, or name a function that makes"
            ' the server, as in "module:function()"'
        )

    def require_applications(self, target: Target, server: Any) -> None:
        """Raise UsageError if a server, or its class, knows nothing of the application."""
        if target.application is not None and not hasattr(server, "set_app"):
            raise UsageError(
                f"{target.name} is a WSGI application, and {self.name}"
                " is not derived from wsgiref's WSGIServer, which serves those"
            )

    def call(self, cls: type[Any], address: Any, handler: Any) -> Any:
        """Return a server of a class derived from the one that was named.

        Raises: StartError where it ends the program, else what its `__init__()` raises.
        """
        with _staying(self.name):
            return cls(address) if handler is None else cls(address, handler)

    def made(self) -> Any:
        """Return the server that the function makes.

        Raises: StartError, UsageError, or what the function raises.
        """
        with _staying(self.name):
            server = self.make()
        if isinstance(server, socketserver.TCPServer):
            return server
        raise UsageError(
            f"{self.name} returned something of type {type(server).__name__},"
            " and no server derived from socketserver.TCPServer"
        )

    def _takes(self, handler: Any) -> bool:
        signature = _signature_of(self.make)
        if signature is None:
            return True  # one written in C: the call will tell
        try:
            signature.bind("address") if handler is None else signature.bind("address", handler)
        except TypeError:
            return False
        return True

    def _parameters(self) -> list[inspect.Parameter]:
        signature = None if self.cls is None else _signature_of(self.make)
        return [] if signature is None else list(signature.parameters.values())

    def _signature(self) -> str:
        return ", ".join(
            str(p.replace(annotation=p.empty, default=p.empty))
            + ("=..." if p.default is not p.empty else "")
            for p in self._parameters()
        )


def find_maker(text: str) -> Maker:
    """Import what `server_class` names: "module:Class" or "module:function()".

    Raises: UsageError when it is neither, StartError when the module itself fails.
    """
    name = text.removesuffix(CALL)
    thing = find_object(name, object)
    if name != text:
        if callable(thing):
            return Maker(text, thing, None)
        raise UsageError(f"{name} cannot be called, for it is of type {type(thing).__name__}")
    if isinstance(thing, type) and issubclass(thing, socketserver.TCPServer):
        return Maker(text, thing, thing)
    if isinstance(thing, socketserver.BaseServer):
        raise UsageError(
            f"{text} is a server that is made already, and each listener wants one of its own;"
            ' name its class, or a function that makes one, as in "module:function()"'
        )
    if isinstance(thing, type):
        raise UsageError(f"{text} is not derived from socketserver.TCPServer")
    if callable(thing):
        raise UsageError(f'{text} is no class; if it makes a server, write "{text}{CALL}"')
    raise UsageError(f"{text} is no server class, but of type {type(thing).__name__}")


@contextmanager
def _staying(name: str) -> Iterator[None]:
    """Make an error of a wish to end the program: some end it where a port is in use."""
    try:
        yield
    except SystemExit as error:
        raise StartError(f"{name} wants to end the program: exit {error.code}") from error


def _signature_of(thing: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(thing)
    except (TypeError, ValueError):
        return None
