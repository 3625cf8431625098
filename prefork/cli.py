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
from typing import Final

import prefork
from prefork import log, systemd
from prefork.arguments import parse
from prefork.cpus import available_cpus
from prefork.errors import PreforkError, UsageError
from prefork.greeting import greeting, reachable_urls
from prefork.handlers import HandlerOptions, configured
from prefork.http.folder import SimpleHTTPRequestHandler
from prefork.listeners import open_listeners
from prefork.mixin import serve_together
from prefork.scoreboard import CAPACITY
from prefork.servers import Serving
from prefork.sockets import endpoint_of
from prefork.streams import secure_streams
from prefork.target import Kind, Target, find_folder, find_handler, is_folder, names_object

_DESCRIPTORS: Final = 65536
_THREADS: Final = 4096


@dataclass(frozen=True)
class _Wanted:
    """What the command line asks for, checked."""

    target: Target
    binds: Sequence[str]
    port: int
    serving: Serving


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status.

    argv: the arguments without the command's name; None: those of the process.
    """
    secure_streams()
    verbose = False
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
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


def _level(options: argparse.Namespace) -> int:
    if options.verbose:
        return logging.DEBUG
    # A person is greeted; milestones in the log would say the same again.
    return logging.WARNING if options.quiet or sys.stdout.isatty() else logging.INFO


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
    found = _target(target, options)
    return _Wanted(
        target=found,
        binds=options.bind or (),
        port=8000 if port is None else _number("PORT", port, 0, 65535),
        serving=Serving(
            workers=workers,
            request_queue_size=_number(
                "--request-queue-size", options.request_queue_size, 1, 2**31 - 1
            ),
            threads=_threads(found, options),
            access_log="off" if options.quiet else options.access_log,
        ),
    )


def _threads(target: Target, options: argparse.Namespace) -> int | None:
    if options.threads is not None:
        if target.kind is not Kind.HTTP:
            raise UsageError(f"-t/--threads: {target.name} is no HTTP handler")
        return _number("-t/--threads", options.threads, 0, _THREADS)
    # A folder's files are sent by the loop, and threads would only slow that down. What another
    # handler waits for, nobody knows.
    return 0 if target.is_folder else None


def _number(name: str, text: str, least: int, most: int, alternative: str = "") -> int:
    decimal = text.isascii() and text.isdecimal() and len(text) <= 12
    if not decimal or not least <= int(text) <= most:
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
    handler = SimpleHTTPRequestHandler
    return configured(
        Target(options.directory, Kind.HTTP, handler, handler, is_folder=True),
        _handler_options(options),
    )


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
    with open_listeners(target, wanted.binds, wanted.port, wanted.serving) as servers:
        endpoints = [endpoint_of(server.socket) for server in servers]
        at = ",".join(map(str, endpoints))
        pid = os.getpid()
        log.info(
            "master.listening", pid=pid, what=target.name, at=at, workers=wanted.serving.workers
        )
        if sys.stdout.isatty():
            urls = reachable_urls(target.kind, endpoints)
            colour = not os.environ.get("NO_COLOR")
            text = greeting(
                prefork.__version__, target.name, urls, wanted.serving.workers, colour=colour
            )
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
