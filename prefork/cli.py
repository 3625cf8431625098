"""The command `prefork [TARGET] [PORT] [options]`: arguments become a call.

The calling process, which becomes the master. Every error a person can make
ends here, in one line and exit status 2 (what was typed) or 1 (what could not
be done).
"""

import argparse
import logging
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from prefork import log
from prefork.arguments import parse
from prefork.charter import Charter
from prefork.checking import check
from prefork.commands import Tools, is_command, refuse_misspelt, run
from prefork.concurrency import Said, served_by, threads_of
from prefork.config import ConfigError, load
from prefork.config.reference import reference
from prefork.config.show import show
from prefork.cpus import available_cpus
from prefork.daemon import Daemon
from prefork.errors import PreforkError, UsageError
from prefork.front import Front, access_format, is_watched
from prefork.handlers import HandlerOptions, configured
from prefork.http.cgi.handler import CGIHTTPRequestHandler
from prefork.life import Life
from prefork.listeners import Listener, Where, with_rest
from prefork.outfit import Outfit
from prefork.plan import Code, Place, Plan
from prefork.planning import Planner
from prefork.policy import Policy
from prefork.pool import Settings
from prefork.reload.handover import REHEARSAL, Stage, stage
from prefork.reload.holding import Holding
from prefork.reload.image import Image
from prefork.reload.rehearsal import answer
from prefork.scoreboard import CAPACITY
from prefork.servers import REQUEST_QUEUE_SIZE
from prefork.service.install import install_service
from prefork.service.shares import config_of
from prefork.share.handler import ShareRequestHandler
from prefork.sockets import everywhere, keep_apart, resolve, warn_of_limit
from prefork.streams import secure_streams
from prefork.target import (
    Kind,
    Target,
    find_folder,
    find_target,
    is_folder,
    names_object,
    served_as,
)

_THREADS: Final = 4096
_HEARTBEAT_S: Final = 30.0
_BESIDE_CONFIG: Final = ("target", "verbose", "quiet", "daemon", "no_qr")
_UNSAID: Final = (None, False)


class _CommandLine:
    """What the command line asks for, checked: a daemon's source of plans."""

    def __init__(self, plan: Plan, front: Front) -> None:
        self.charter = Charter()
        self.front = front
        self._plan = plan

    def plans(self) -> list[Plan]:
        """Return the one pool."""
        return [self._plan]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status.

    argv: the arguments without the command's name; None: those of the process.
    """
    secure_streams()
    verbose = False
    is_told = REHEARSAL in os.environ  # the master, who logs it
    words = sys.argv[1:] if argv is None else argv
    if is_command(words):
        return run(words, _TOOLS)
    try:
        refuse_misspelt(words)
        options = parse(words)
        verbose = options.verbose
        log.configure(_level(options))
        _run(options, stage(os.environ), Image.of_this_process())
    except (PreforkError, OSError) as error:
        if verbose and (error.__cause__ is not None or not isinstance(error, PreforkError)):
            log.exception("target.failed")
        lines = error.problems if isinstance(error, ConfigError) else [str(error)]
        for line in [] if is_told else lines:
            print(f"prefork: error: {log.printable(line)}", file=sys.stderr)
        return error.exit_status if isinstance(error, PreforkError) else 1
    except KeyboardInterrupt as interrupt:
        if is_watched():
            print("\nKeyboard interrupt received, exiting.", *interrupt.args, sep="\n")
    return 0


_TOOLS: Final = Tools(
    control=lambda path: load(path).master.control,
    check=check,
    show=lambda path: show(load(path)),
    reference=reference,
    install_service=lambda target, write, now: install_service(
        load(config_of(target, may_write=write or now)), write=write, now=now
    ),
)


def _run(options: argparse.Namespace, begun: Stage, image: Image) -> None:
    """Serve what the command line says, or the config that it names."""
    text = options.target
    # Only the first image shares a folder: what was a config when it was started still is one.
    is_first = begun.handover is None
    if text is None or not text.endswith(".toml") or (is_first and is_folder(text)):
        source = _wanted(options)
        daemon = Daemon(source, begun, image, source.front.greet)
        try:
            daemon.run()
        except KeyboardInterrupt:
            pools = daemon.master.pools if hasattr(daemon, "master") else ()
            raise KeyboardInterrupt(*source.front.farewell(pools)) from None
        return
    for name, value in vars(options).items():
        if name not in _BESIDE_CONFIG and value not in _UNSAID:
            word = "PORT" if name == "port" else f"--{name.replace('_', '-')}"
            raise UsageError(f"{word}: {text} says that itself; write it there")
    try:
        planner = Planner(load(text))
        planner.charter = _with_options(planner.charter, options)
        daemon = Daemon(planner, begun, image, tell_pools)
    except (PreforkError, OSError) as error:
        if begun.answer_fd is not None:
            answer(begun.answer_fd, str(error))
        elif begun.handover is not None:
            Holding(image, begun.handover).hold(str(error))
        raise
    if begun.answer_fd is None:
        daemon.run()
    else:
        daemon.rehearse()


def _with_options(charter: Charter, options: argparse.Namespace) -> Charter:
    says = charter.logging
    if says is not None and options.verbose:
        says = replace(says, level="debug")
    elif says is not None and options.quiet:
        says = replace(says, level="warning")
    return replace(charter, logging=says, daemonize=charter.daemonize or options.daemon)


def tell_pools(listeners: Sequence[Listener]) -> None:
    """Log where it listens."""
    at = ",".join(dict.fromkeys(map(str, listeners)))
    log.info("master.listening", pid=os.getpid(), at=at)


def _level(options: argparse.Namespace) -> int:
    if options.verbose:
        return logging.DEBUG
    # A person is greeted; milestones in the log would say the same again.
    return logging.WARNING if options.quiet or is_watched() else logging.INFO


def _wanted(options: argparse.Namespace) -> _CommandLine:
    target, port = options.target, options.port
    if target is not None and target.isdecimal() and target.isascii():
        if port is not None:
            raise UsageError(
                f"two ports: {target} and {port} (a directory named {target}: ./{target})"
            )
        target, port = None, target
    workers = (
        available_cpus()
        if options.workers in (None, "auto")
        else _number("-w/--workers", options.workers, 1, CAPACITY, " or auto")
    )
    found = _target(target, options)
    if options.udp:
        found = served_as(found, Kind.DATAGRAM)
    _refuse_unheeded(options, found)
    number = 8000 if port is None else _number("PORT", port, 0, 65535)
    queue = REQUEST_QUEUE_SIZE
    if options.request_queue_size is not None:
        queue = _number("--request-queue-size", options.request_queue_size, 1, 2**31 - 1)
    if options.daemon:
        raise UsageError("--daemon: it wants a CONFIG.toml, which says where the log goes then")
    variables: dict[str, object] = {"request_queue_size": queue}
    threads = None
    if options.threads is not None:
        threads = _number("-t/--threads", options.threads, 0, _THREADS)
    said = Said(options.concurrency, threads)
    maker = served_by(found, None, said)
    if (most := threads_of(found, said)) is not None:
        variables["threads"] = most
    if found.kind is Kind.HTTP:
        said_format = options.access_log or access_format()
        variables["access_log"] = "off" if options.quiet else said_format
    front = Front(found, workers, quiet=options.quiet, has_code=not options.no_qr)
    variables |= front.variables()
    warn_of_limit(queue)
    places = [
        Place(where) for where in with_rest(_wheres(options.bind or (), number, found.kind, queue))
    ]
    what = f"{found.name} {','.join(str(place.where) for place in places)}"
    return _CommandLine(
        Plan(
            name="",
            what=found.name,
            places=places,
            load=lambda: Code(found, maker),
            settings=Settings(workers, Policy(), _HEARTBEAT_S, Life(what=what, poll_s=0.5)),
            variables=variables,
            # As with a config: no script of nobody's becomes another user.
            outfit=Outfit(no_new_privs=bool(options.cgi)),
        ),
        front,
    )


def _refuse_unheeded(options: argparse.Namespace, target: Target) -> None:
    """Raise UsageError for an option that says something about what is not there."""
    if options.access_log is not None and target.kind is not Kind.HTTP:
        raise UsageError(f"--access-log: {target.name} is no HTTP handler")
    if options.request_queue_size is not None and target.kind is Kind.DATAGRAM:
        raise UsageError(
            "--request-queue-size: datagrams wait in the socket's buffer"
            " (sysctl net.core.rmem_default)"
        )


def _wheres(binds: Sequence[str], port: int, kind: Kind, queue: int) -> list[Where]:
    sort = socket.SOCK_DGRAM if kind is Kind.DATAGRAM else socket.SOCK_STREAM
    endpoints = (
        keep_apart([endpoint for bind in binds for endpoint in resolve(bind, port, sort)])
        if binds
        else everywhere(port)
    )
    return [Where(endpoint, sort, queue) for endpoint in endpoints]


def _number(name: str, text: str, least: int, most: int, alternative: str = "") -> int:
    decimal = text.isascii() and text.isdecimal() and len(text) <= 12
    if not decimal or not least <= int(text) <= most:
        raise UsageError(
            f"{name} must be a number from {least} to {most}{alternative}, not {text!r}"
        )
    return int(text)


def _target(text: str | None, options: argparse.Namespace) -> Target:
    if text is not None and names_object(text):
        if options.cgi:
            raise UsageError(f"--cgi: it is for a directory; {text} says itself what it runs")
        if options.directory is not None:
            options.directory = str(find_folder(options.directory))
        return configured(find_target(text), _handler_options(options))
    if text is not None and options.directory is not None:
        raise UsageError(f"two directories: {text} and -d {options.directory}")
    if text is not None and text.endswith(".toml"):  # a service must not share its configs
        raise UsageError(f"a directory, and no config: {text!r} (to share it: prefork -d {text})")
    folder = text if text is not None else options.directory
    if folder is None:
        if not is_watched():
            raise UsageError(
                "no TARGET: without a terminal, name what to share"
                " (for the current directory: prefork .)"
            )
        folder = "."
    options.directory = str(find_folder(folder))
    handler = CGIHTTPRequestHandler if options.cgi else ShareRequestHandler
    target = Target(options.directory, Kind.HTTP, handler, handler)
    return configured(target, _handler_options(options))


def _handler_options(options: argparse.Namespace) -> HandlerOptions:
    return HandlerOptions(
        directory=options.directory,
        protocol=options.protocol,
        headers=[(name, value) for name, value in options.header or ()],
        content_type=options.content_type,
        access_log=not options.quiet,
        share={
            "hidden": options.hidden,
            "symlinks": options.symlinks,
            "trusted": options.trusted,
            "spa": options.spa,
            "allowed_hosts": options.allowed_host,
        },
    )
