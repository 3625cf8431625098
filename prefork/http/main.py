"""`python -m prefork.http`, and its `test()`: what `python -m http.server` does, in this process.

The calling process, without a fleet: `prefork` is the command for that. Its
options and defaults are 3.15's, HTTP/1.0 included, with the `--cgi` of those before,
and the TLS options where the running Python has HTTPS servers. It says what the
stdlib says, never in colours.
"""

import argparse
import contextlib
import http.server
import importlib
import os
import socket
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from prefork.http.folder import SimpleHTTPRequestHandler
from prefork.http.server import ThreadingHTTPServer

_ANY_TYPE: Final = SimpleHTTPRequestHandler.default_content_type
#: What options are where the running Python has no such thing to offer.
_ABSENT: Final = types.MappingProxyType(dict.fromkeys(("tls_cert", "tls_key", "tls_password_file")))


def get_best_family(bind: str | None, port: int) -> tuple[socket.AddressFamily, Any]:
    """Return family and socket address of the first that getaddrinfo() finds to bind.

    Raises: OSError when there is none.
    """
    found = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, socket_address = found[0]
    return family, socket_address


def make_server(  # noqa: PLR0913, PLR0917 # the stdlib's arguments
    HandlerClass: Any = http.server.BaseHTTPRequestHandler,  # noqa: N803 # the stdlib's names
    ServerClass: Any = ThreadingHTTPServer,  # noqa: N803
    protocol: str = "HTTP/1.0",
    port: int = 8000,
    bind: str | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    tls_password: str | None = None,
    default_content_type: str = _ANY_TYPE,
) -> Any:
    """Return a bound server; like the stdlib's, it says so to the classes, not to their instances.

    Raises: OSError as getaddrinfo() and bind() do.
    """
    ServerClass.address_family, address = get_best_family(bind, port)
    HandlerClass.protocol_version = protocol
    HandlerClass.default_content_type = default_content_type
    if not tls_cert:
        return ServerClass(address, HandlerClass)
    return ServerClass(
        address, HandlerClass, certfile=tls_cert, keyfile=tls_key, password=tls_password
    )


def run(  # noqa: PLR0913, PLR0917 # the stdlib's arguments
    HandlerClass: Any = SimpleHTTPRequestHandler,  # noqa: N803 # the stdlib's names
    ServerClass: Any = ThreadingHTTPServer,  # noqa: N803
    protocol: str = "HTTP/1.0",
    port: int = 8000,
    bind: str | None = None,
    content_type: str = _ANY_TYPE,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    tls_password: str | None = None,
) -> None:
    """Serve until Ctrl-C, which exits with status 0: `prefork.http.test()`.

    Raises: OSError as getaddrinfo() and bind() do.
    """
    tls = {"tls_cert": tls_cert, "tls_key": tls_key, "tls_password": tls_password}
    with make_server(
        HandlerClass, ServerClass, protocol, port, bind, default_content_type=content_type, **tls
    ) as server:
        host, port = server.socket.getsockname()[:2]
        scheme = "HTTPS" if tls_cert else "HTTP"
        url_host = f"[{host}]" if ":" in host else host
        url = f"{scheme.lower()}://{url_host}:{port}/"
        print(f"Serving {scheme} on {host} port {port} ({url}) ...")  # noqa: T201 # a person waits
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nKeyboard interrupt received, exiting.")  # noqa: T201 # as above
            sys.exit(0)


def main(args: Sequence[str] | None = None) -> None:
    """Parse the arguments, by default those of the process, and call `prefork.http.test()`."""
    # By name, and now: it imports this module, and somebody may have replaced its test().
    module: Any = importlib.import_module("prefork.http")
    parser = _parser()
    options = parser.parse_args(args, argparse.Namespace(**_ABSENT))
    if options.cgi and options.header:
        parser.error("--header cannot be used with --cgi: scripts send their own")
    base: Any = module.ThreadingHTTPSServer if options.tls_cert else ThreadingHTTPServer
    module.test(
        HandlerClass=module.CGIHTTPRequestHandler if options.cgi else SimpleHTTPRequestHandler,
        ServerClass=_dual_stack(base, options),
        port=options.port,
        bind=options.bind,
        protocol=options.protocol,
        content_type=options.content_type,
        tls_cert=options.tls_cert,
        tls_key=options.tls_key,
        tls_password=_read_password(parser, options),
    )


def _dual_stack(base: Any, options: argparse.Namespace) -> Any:
    """Return a class of servers that take IPv4 on "::" too, and whose handlers know the options."""
    arguments = {"directory": options.directory}
    if options.header:
        arguments["extra_response_headers"] = options.header

    class DualStackServer(base):  # type: ignore[misc] # known only at run time
        def server_bind(self) -> None:
            with contextlib.suppress(OSError):  # an IPv4 socket has no such option (bpo-38907)
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            super().server_bind()

        def finish_request(self, request: Any, client_address: Any) -> None:
            self.RequestHandlerClass(request, client_address, self, **arguments)

    return DualStackServer


def _read_password(parser: argparse.ArgumentParser, options: argparse.Namespace) -> str | None:
    if options.tls_key and not options.tls_cert:
        parser.error("--tls-key requires --tls-cert to be set")
    if not options.tls_password_file:
        return None
    if not options.tls_cert:
        parser.error("--tls-password-file requires --tls-cert to be set")
    try:
        return Path(options.tls_password_file).read_text(encoding="utf-8").strip()
    except OSError as error:
        parser.error(f"Failed to read TLS password file: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m prefork.http")
    add = parser.add_argument
    add("-b", "--bind", metavar="ADDRESS", help="bind to this address (default: all interfaces)")
    add(
        "-d",
        "--directory",
        default=os.getcwd(),  # noqa: PTH109 # handlers take it as text
        help="serve this directory (default: current directory)",
    )
    add(
        "-p",
        "--protocol",
        metavar="VERSION",
        default="HTTP/1.0",
        help="conform to this HTTP version (default: %(default)s)",
    )
    add(
        "--content-type",
        default=_ANY_TYPE,
        help="default content type for unknown extensions (default: %(default)s)",
    )
    add("--cgi", action="store_true", help="run the scripts in cgi-bin and htbin")
    if hasattr(http.server, "HTTPSServer"):
        add("--tls-cert", metavar="PATH", help="path to the TLS certificate chain file")
        add("--tls-key", metavar="PATH", help="path to the TLS key file")
        add(
            "--tls-password-file",
            metavar="PATH",
            help="path to the password file for the TLS key",
        )
    add(
        "port",
        default=8000,
        type=int,
        nargs="?",
        help="bind to this port (default: %(default)s)",
    )
    add(
        "-H",
        "--header",
        nargs=2,
        action="append",
        metavar=("HEADER", "VALUE"),
        help="add a header to answers with a file or a listing (can be given several times)",
    )
    return parser
