"""The words of the command line: which there are, and what they are called.

The calling process. It parses; what the words mean is checked by who acts on
them.
"""

import argparse
from collections.abc import Sequence
from typing import Final, NoReturn

import prefork
from prefork.commands import COMMANDS
from prefork.concurrency import CHOICES
from prefork.errors import UsageError
from prefork.http.access import FORMATS
from prefork.servers import REQUEST_QUEUE_SIZE

_EPILOG: Final = """\
examples:
  prefork ~/Public                 share a folder on port 8000, all interfaces
  prefork . 8080 -b 127.0.0.1      share the current one with this machine only
  prefork mymodule:Handler 9000    serve a class of socketserver or http.server
  prefork mymodule:Logs 5140 --udp serve datagrams
  prefork site -b unix:/run/site   serve on a Unix socket
  prefork /etc/prefork/site.toml   serve what a config says

commands, each with a --help of its own:
"""


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the words as attributes, all still text; None where nothing was said.

    TARGET and PORT may stand apart: `prefork site -b 127.0.0.1 8080`.
    Raises: UsageError; SystemExit after --help and --version.
    """
    cut = words.index("--") if "--" in words else len(words)
    parser = _parser()
    # The second of its two passes would take what follows "--" for options.
    options = parser.parse_intermixed_args(words[:cut])
    for word in words[cut + 1 :]:
        if options.target is None:
            options.target = word
        elif options.port is None:
            options.port = word
        else:
            parser.error(f"unrecognized arguments: {word}")
    return options


class _Parser(argparse.ArgumentParser):
    """Tells what is wrong as every other part does: by one line."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError where argparse would print and exit."""
        raise UsageError(f"{message} (prefork --help lists what there is)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="prefork",
        usage="prefork [TARGET] [PORT] [options] | prefork COMMAND ...",
        description="Serve a folder, a handler class or a WSGI application, by several processes.",
        epilog=_EPILOG + "".join(f"  {name:<17}{text}\n" for name, text in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_places(parser)
    _add_datagrams(parser)
    _add_handler_options(parser)
    _add_share_options(parser)
    _add_fleet_options(parser)
    parser.add_argument("--version", action="version", version=f"prefork {prefork.__version__}")
    return parser


def _add_places(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "target",
        metavar="TARGET",
        nargs="?",
        help="a directory to share; or module:Class, a socketserver or http.server handler; or"
        " module:app or 'module:create_app()', a WSGI application; or CONFIG.toml"
        " (default: the current directory)",
    )
    add("port", metavar="PORT", nargs="?", help="listen on this port (default: 8000)")
    add(
        "-b",
        "--bind",
        metavar="ADDRESS",
        action="append",
        help="listen on this address: IPv4, IPv6, host name, or unix:/path; repeatable"
        " (default: all interfaces)",
    )


def _add_datagrams(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--udp",
        action="store_true",
        help="serve a BaseRequestHandler by UDP, or with unix:/path by Unix datagrams"
        " (default: by TCP, and by Unix streams; other handlers say which)",
    )


def _add_handler_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-d", "--directory", metavar="DIR", help="share this directory, the same as TARGET")
    add(
        "--cgi",
        action="store_true",
        default=None,
        help="run the scripts in the directory's cgi-bin and htbin",
    )
    add(
        "-p",
        "--protocol",
        metavar="VERSION",
        help="conform to this HTTP version (default: HTTP/1.1, or what the handler says)",
    )
    add(
        "-H",
        "--header",
        nargs=2,
        action="append",
        metavar=("NAME", "VALUE"),
        help="add a header to files and listings; repeatable",
    )
    add(
        "--content-type",
        metavar="TYPE",
        help="content type of files whose name tells none (default: application/octet-stream)",
    )


def _add_share_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--hidden", action="store_true", help="share files whose name begins with a dot, too")
    add(
        "--symlinks",
        choices=("inside", "follow", "never"),
        help="follow symbolic links that stay inside the directory, all of them, or none"
        " (default: inside)",
    )
    add(
        "--trusted",
        action="store_true",
        help="the directory is a site: its pages may run scripts, which can read all of it",
    )
    add(
        "--spa",
        action="store_true",
        help="a trusted site whose index.html answers for pages that are not there",
    )
    add(
        "--allowed-host",
        metavar="NAME",
        action="append",
        help="answer requests for this host name, .NAME: and all below it, '*': any; repeatable"
        " (default: addresses, and names that only a local network has)",
    )


def _add_fleet_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "-w",
        "--workers",
        metavar="N",
        help="number of worker processes, or auto: one for each processor this process may use"
        " (default: auto)",
    )
    add(
        "-t",
        "--threads",
        metavar="N",
        help="how many threads of each worker may run HTTP handlers, or have a client each; 0: one"
        " request at a time (default: 0 for datagrams, 16 for a WSGI"
        " application, else up to 512)",
    )
    add(
        "--concurrency",
        choices=CHOICES,
        help="how each worker serves several TCP clients, or datagrams, at a time: by a thread or"
        " a process for each, or not (default: none for datagrams, else threads)",
    )
    add(
        "--access-log",
        choices=FORMATS,
        help="log requests to stderr (default: short at a terminal, else common); handlers with a"
        " log_message() of their own do that themselves",
    )
    add(
        "--request-queue-size",
        metavar="N",
        help=f"how many connections may wait to be accepted (default: {REQUEST_QUEUE_SIZE})",
    )
    add("--daemon", action="store_true", help="with CONFIG.toml: detach, once ready")
    add("--no-qr", action="store_true", help="show no QR code of the URL at a terminal")
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("--verbose", action="store_true", help="log what each worker does")
    loudness.add_argument(
        "--quiet", action="store_true", help="show URLs, warnings and errors only"
    )
