"""An XML-RPC server: Python functions, for programs in any language."""

# ruff: noqa: INP001 # a file to copy, no package

import platform
import time
from http.server import BaseHTTPRequestHandler
from typing import Any
from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer


class Functions:
    """What clients may call: its methods, but for those that begin with an underscore."""

    def add(self, first: float, second: float) -> float:
        """Return the sum of two numbers."""
        return first + second

    def host(self) -> dict[str, str]:
        """Tell who answers."""
        return {"name": platform.node(), "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}


class Handler(SimpleXMLRPCRequestHandler):
    """The stdlib's, with the server's access log."""

    rpc_paths = ("/RPC2",)
    log_request = BaseHTTPRequestHandler.log_request


class Server(SimpleXMLRPCServer):
    """The stdlib's; prefork puts its HTTP engine beneath."""

    def __init__(self, server_address: Any, handler: Any) -> None:
        super().__init__(server_address, handler, allow_none=True)
        self.register_introspection_functions()
        self.register_instance(Functions())
