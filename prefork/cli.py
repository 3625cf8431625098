"""The command `prefork [TARGET] [PORT] [options]`: arguments become a call.

The calling process, which becomes the master. Every error a person can make
ends here, in one line and exit status 2 (what was typed) or 1 (what could not
be done).
"""

import argparse
import logging
import os
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

import prefork
from prefork import log, systemd
from prefork.cpus import available_cpus
from prefork.errors import PreforkError, UsageError
from prefork.files import FolderRequestHandler
from prefork.greeting import greeting, reachable_urls
from prefork.handlers import HandlerOptions, configured
from prefork.listeners import open_listeners
from prefork.mixin import serve_together
from prefork.scoreboard import CAPACITY
from prefork.servers import REQUEST_QUEUE_SIZE
from prefork.sockets import endpoint_of
from prefork.streams import secure_streams
from prefork.target import Kind, Target, find_folder, find_handler, is_folder, names_object

_DESCRIPTORS: Final = 65536

_EPILOG: Final = """\
examples:
  prefork ~/Public                 share a folder on port 8000, all interfaces
  prefork . 8080 -b 127.0.0.1      share the current one with this machine only
  prefork mymodule:Handler 9000    serve a class of socketserver or http.server
  prefork site -b unix:/run/site   serve on a Unix socket
"""


@dataclass(frozen=True)
class _Wanted:
    """What the command line asks for, checked."""

    target: Target
    binds: Sequence[str]
    port: int
    workers: int
    request_queue_size: int


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status.

    argv: the arguments without the command's name; None: those of the process.
    """
    secure_streams()
    verbose = False
    try:
        options = _options(sys.argv[1:] if argv is None else argv)
        verbose = options.verbose
        log.configure(_level(options))
        _serve(_wanted(options))
    except (PreforkError, OSError) as error:
        if verbose and (error.__cause__ is not None or not isinstance(error, PreforkError)):
            log.exception("target.failed")
        print(f"prefork: error: {log.printable(str(error))}", file=sys.stderr)
        return error.exit_status if isinstance(error, PreforkError) else 1
    except KeyboardInterrupt:
        if sys.stdout.isatty():
            print("\nKeyboard interrupt received, exiting.")
    return 0


class _Parser(argparse.ArgumentParser):
    """Tells what is wrong as every other part does: by one line."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError where argparse would print and exit."""
        raise UsageError(f"{message} (prefork --help lists what there is)")


def _options(words: Sequence[str]) -> argparse.Namespace:
    """Parse; TARGET and PORT may stand apart, `prefork site -b 127.0.0.1 8080`."""
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


def _level(options: argparse.Namespace) -> int:
    if options.verbose:
        return logging.DEBUG
    # A person is greeted; milestones in the log would say the same again.
    return logging.WARNING if options.quiet or sys.stdout.isatty() else logging.INFO


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="prefork",
        usage="prefork [TARGET] [PORT] [options]",
        description="Serve a folder, or any handler class, from several supervised processes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "target",
        metavar="TARGET",
        nargs="?",
        help="a directory to share, or module:Class, a socketserver or http.server handler"
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
    add("-d", "--directory", metavar="DIR", help="share this directory, the same as TARGET")
    add(
        "-p",
        "--protocol",
        metavar="VERSION",
        help="conform to this HTTP version (default: HTTP/1.0, or what the handler says)",
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
    add(
        "-w",
        "--workers",
        metavar="N",
        default="auto",
        help="number of worker processes, or auto: one for each processor this process may use"
        " (default: auto)",
    )
    add(
        "--request-queue-size",
        metavar="N",
        default=str(REQUEST_QUEUE_SIZE),
        help="how many connections may wait to be accepted (default: %(default)s)",
    )
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("--verbose", action="store_true", help="log what each worker does")
    loudness.add_argument("--quiet", action="store_true", help="log warnings and errors only")
    add("--version", action="version", version=f"prefork {prefork.__version__}")
    return parser


def _wanted(options: argparse.Namespace) -> _Wanted:
    target, port = options.target, options.port
    if target is not None and target.isdecimal() and target.isascii():
        if port is not None:
            raise UsageError(
                f"two ports: {target} and {port} (a directory named {target}: ./{target})"
            )
        target, port = None, target
    workers = (
        available_cpus()
        if options.workers == "auto"
        else _number("-w/--workers", options.workers, 1, CAPACITY, " or auto")
    )
    return _Wanted(
        target=_target(target, options),
        binds=options.bind or (),
        port=8000 if port is None else _number("PORT", port, 0, 65535),
        workers=workers,
        request_queue_size=_number(
            "--request-queue-size", options.request_queue_size, 1, 2**31 - 1
        ),
    )


def _number(name: str, text: str, least: int, most: int, alternative: str = "") -> int:
    if not (text.isdecimal() and text.isascii() and least <= int(text[:12]) <= most):
        raise UsageError(
            f"{name} must be a number from {least} to {most}{alternative}, not {text!r}"
        )
    return int(text)


def _target(text: str | None, options: argparse.Namespace) -> Target:
    if text is not None and text.endswith(".toml") and not is_folder(text):
        raise UsageError(f"cannot serve {text}: configuration files are not supported yet")
    if text is not None and names_object(text):
        if options.directory is not None:
            options.directory = str(find_folder(options.directory))
        return configured(find_handler(text), _handler_options(options))
    if text is not None and options.directory is not None:
        raise UsageError(f"two directories: {text} and -d {options.directory}")
    folder = text if text is not None else options.directory
    if folder is None:
        if not sys.stdout.isatty():
            raise UsageError(
                "no TARGET: without a terminal, name what to share"
                " (for the current directory: prefork .)"
            )
        folder = "."
    options.directory = str(find_folder(folder))
    target = Target(options.directory, Kind.HTTP, FolderRequestHandler, FolderRequestHandler)
    return configured(target, _handler_options(options))


def _handler_options(options: argparse.Namespace) -> HandlerOptions:
    return HandlerOptions(
        directory=options.directory,
        protocol=options.protocol,
        headers=[(name, value) for name, value in options.header or ()],
        content_type=options.content_type,
        access_log=not options.quiet,
    )


def _serve(wanted: _Wanted) -> None:
    """Open the listeners, greet, and serve until told to stop."""
    target = wanted.target
    _raise_descriptor_limit()
    with open_listeners(
        target, wanted.binds, wanted.port, wanted.workers, wanted.request_queue_size
    ) as servers:
        endpoints = [endpoint_of(server.socket) for server in servers]
        at = ",".join(map(str, endpoints))
        pid = os.getpid()
        log.info("master.listening", pid=pid, what=target.name, at=at, workers=wanted.workers)
        if sys.stdout.isatty():
            urls = reachable_urls(target.kind, endpoints)
            colour = not os.environ.get("NO_COLOR")
            text = greeting(prefork.__version__, target.name, urls, wanted.workers, colour=colour)
            print(text, end="", flush=True)
        try:
            serve_together(
                servers,
                what=f"{target.name} {at}",
                on_ready=_tell_ready,
                on_stopping=_tell_stopping,
            )
        finally:
            log.info("master.stopped", pid=pid)


def _raise_descriptor_limit() -> None:
    """Let a worker have more clients than the usual 1024, a limit made for select(2).

    Not as many as allowed: programs that handlers start may close each in turn.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


def _tell_ready() -> None:
    log.info("master.ready", pid=os.getpid())
    systemd.notify("READY=1")


def _tell_stopping() -> None:
    systemd.notify("STOPPING=1")
