"""The commands `prefork status`, `reload` ...: words become a call, its end an exit status.

The calling process, which does not become a master. Each command returns when
what it asks for is done, or says in one line why it is not.
"""

import argparse
import difflib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from prefork import log
from prefork.control import finding, remote, top
from prefork.control.places import default_control_path
from prefork.control.protocol import (
    KillWorker,
    MasterStatus,
    Reload,
    ReopenLogs,
    Scale,
    Status,
    decode_status,
)
from prefork.control.table import render
from prefork.errors import PreforkError, UsageError
from prefork.scoreboard import CAPACITY

_INTERVAL_S: Final = "1"
_LONGEST_INTERVAL_S: Final = 3600.0
_SHORTEST_INTERVAL_S: Final = 0.1


@dataclass(frozen=True)
class Tools:
    """What the commands that need a config call with its path, as it was typed.

    control: its `[master] control`, None where it says nothing. check: what was
    found in order, as text. show: the effective settings. reference: every key
    there is. install_service: the units, written if the first flag is set, started if the
    second.
    Each raises PreforkError.
    """

    control: Callable[[str], str | None]
    check: Callable[[str], str]
    show: Callable[[str], str]
    reference: Callable[[], str]
    install_service: Callable[[str, bool, bool], str]


def is_command(words: Sequence[str]) -> bool:
    """Tell whether the command line names a command (a folder of that name: ./status)."""
    return bool(words) and words[0] in COMMANDS


def refuse_misspelt(words: Sequence[str]) -> None:
    """Raise UsageError where the first word is no target, but nearly a command."""
    word = words[0] if words else ""
    near = difflib.get_close_matches(word, COMMANDS, 1, 0.75)
    if near and not Path(word).exists():
        raise UsageError(f"no such command or directory: {word!r}; did you mean {near[0]!r}?")


def run(words: Sequence[str], tools: Tools) -> int:
    """Run the command that the first word names; return its exit status.

    Raises: SystemExit after --help.
    """
    name, command = words[0], _COMMANDS[words[0]]
    try:
        status = command.perform(_parse(name, command, words[1:]), tools)
        sys.stdout.flush()
    except BrokenPipeError:  # who read it has read enough: head, a pager
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (PreforkError, OSError) as error:
        _complain(str(error))
        return error.exit_status if isinstance(error, PreforkError) else 1
    except KeyboardInterrupt:
        _complain(
            "interrupted; what the master has begun goes on" if command.waits else "interrupted"
        )
        return 130  # as a shell has it: 128 and SIGINT
    return status


# -- words ------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Tells what is wrong as every other part does: by one line."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError where argparse would print and exit."""
        raise UsageError(f"{message} ({self.prog} --help lists what there is)")


def _parse(name: str, command: "_Command", words: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog=f"prefork {name}", description=command.summary, allow_abbrev=False)
    command.add(parser)
    return parser.parse_intermixed_args(words)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="the config file")


def _add_master(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config",
        metavar="CONFIG",
        nargs="?",
        help="the config file of the master (default: the only one that runs)",
    )
    parser.add_argument(
        "--socket", metavar="PATH", help="the master's control socket, in place of CONFIG"
    )


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", nargs="?", help="the config file")
    parser.add_argument(
        "--reference", action="store_true", help="print every key there is, and what it means"
    )


def _add_status(parser: argparse.ArgumentParser) -> None:
    _add_master(parser)
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def _add_top(parser: argparse.ArgumentParser) -> None:
    _add_master(parser)
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        default=_INTERVAL_S,
        help="look again after so long (default: %(default)s)",
    )


def _add_stop(parser: argparse.ArgumentParser) -> None:
    _add_master(parser)
    parser.add_argument("--now", action="store_true", help="do not wait for requests in hand")


def _add_scale(parser: argparse.ArgumentParser) -> None:
    _add_master(parser)
    parser.add_argument("pool", metavar="POOL", help="NAME of [server.NAME]")
    parser.add_argument("workers", metavar="N", help="how many workers it shall have")


def _add_kill_worker(parser: argparse.ArgumentParser) -> None:
    _add_master(parser)
    parser.add_argument("slot", metavar="SLOT", help="the worker's, as status shows it")


def _add_install_service(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config",
        metavar="CONFIG",
        help="the config file; or with --now or --write a directory to share, which gets one in"
        " /etc/prefork",
    )
    parser.add_argument("--write", action="store_true", help="install them, do not print them")
    parser.add_argument(
        "--now", action="store_true", help="install them, and start the service, now and at boot"
    )


def _number(name: str, text: str, least: int, most: int) -> int:
    decimal = text.isascii() and text.isdecimal() and len(text) <= 12
    if not decimal or not least <= int(text) <= most:
        raise UsageError(f"{name} must be a number from {least} to {most}, not {text!r}")
    return int(text)


def _seconds(name: str, text: str, least_s: float, most_s: float) -> float:
    try:
        value_s = float(text)
    except ValueError:
        value_s = 0.0
    if not least_s <= value_s <= most_s:
        raise UsageError(f"{name} must be {least_s:g} to {most_s:g} seconds, not {text!r}")
    return value_s


# -- the master -------------------------------------------------------------


def _socket(options: argparse.Namespace, tools: Tools) -> Path:
    """Return the control socket of the master that is meant."""
    uid = os.geteuid()
    if options.socket is not None:
        if options.config is not None:
            raise UsageError(f"two masters: {options.config} and --socket {options.socket}")
        return Path(options.socket)
    if options.config is None:
        return finding.find_only(uid)
    named = finding.named_control(options.config, tools.control)
    if named == "off":
        raise remote.RemoteError(f"{options.config} has no control socket: control is off")
    if named is not None:
        return Path(named)
    config = Path(options.config)
    try:
        return finding.find_of_config(config, default_control_path(config, uid), uid)
    except remote.RemoteError:
        if not config.exists():
            raise UsageError(f"no such file: {options.config!r}") from None
        raise


def _ask_status(path: Path) -> MasterStatus:
    return decode_status(remote.ask(path, Status()))


# -- what each command does --------------------------------------------------


def _check(options: argparse.Namespace, tools: Tools) -> int:
    _say(tools.check(options.config))
    return 0


def _show(options: argparse.Namespace, tools: Tools) -> int:
    if options.reference == (options.config is not None):
        raise UsageError("prefork show takes a CONFIG or --reference")
    _say(tools.reference() if options.reference else tools.show(options.config))
    return 0


def _status(options: argparse.Namespace, tools: Tools) -> int:
    path = _socket(options, tools)
    if options.json:
        _say(json.dumps(remote.ask(path, Status()).get("status"), indent=2))
    else:
        _print_table(_ask_status(path))
    return 0


def _top(options: argparse.Namespace, tools: Tools) -> int:
    interval_s = _seconds("--interval", options.interval, _SHORTEST_INTERVAL_S, _LONGEST_INTERVAL_S)
    path = _socket(options, tools)
    if top.is_screen():
        return top.watch(lambda: _ask_status(path), interval_s)
    _print_table(_ask_status(path))
    return 0


def _print_table(status: MasterStatus) -> None:
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    _say("\n".join(render(status, time.time(), columns)))


def _reload(options: argparse.Namespace, tools: Tools) -> int:
    remote.ask(_socket(options, tools), Reload())
    return 0


def _stop(options: argparse.Namespace, tools: Tools) -> int:
    remote.stop(_socket(options, tools), now=options.now)
    return 0


def _scale(options: argparse.Namespace, tools: Tools) -> int:
    workers = _number("N", options.workers, 1, CAPACITY)
    remote.ask(_socket(options, tools), Scale(options.pool, workers))
    return 0


def _reopen_logs(options: argparse.Namespace, tools: Tools) -> int:
    remote.ask(_socket(options, tools), ReopenLogs())
    return 0


def _kill_worker(options: argparse.Namespace, tools: Tools) -> int:
    slot = _number("SLOT", options.slot, 0, CAPACITY - 1)
    remote.ask(_socket(options, tools), KillWorker(slot))
    return 0


def _install_service(options: argparse.Namespace, tools: Tools) -> int:
    _say(tools.install_service(options.config, options.write, options.now))
    return 0


def _say(text: str) -> None:
    # Names may hold what this terminal's encoding has not.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding).rstrip("\n") + "\n")


def _complain(text: str) -> None:
    for line in text.split("\n"):
        sys.stderr.write(f"prefork: error: {log.printable(line)}\n")


@dataclass(frozen=True)
class _Command:
    """One command. waits: it waits for something that the master does."""

    summary: str
    add: Callable[[argparse.ArgumentParser], None]
    perform: Callable[[argparse.Namespace, Tools], int]
    waits: bool = False


_COMMANDS: Final[dict[str, _Command]] = {
    "check": _Command("Validate a config, import its handlers, report.", _add_config, _check),
    "show": _Command("Print the effective settings, each with its origin.", _add_show, _show),
    "status": _Command("Print how a master and its workers are.", _add_status, _status),
    "top": _Command("Show the workers, live; q ends it.", _add_top, _top),
    "reload": _Command(
        "Take the new config and code, losing no request.", _add_master, _reload, waits=True
    ),
    "stop": _Command(
        "End a master, after what its workers have in hand.", _add_stop, _stop, waits=True
    ),
    "scale": _Command("Have another number of workers in a pool.", _add_scale, _scale, waits=True),
    "reopen-logs": _Command(
        "Open log files again, after they were renamed.", _add_master, _reopen_logs, waits=True
    ),
    "kill-worker": _Command(
        "End one worker at once; another takes its place.",
        _add_kill_worker,
        _kill_worker,
        waits=True,
    ),
    "install-service": _Command(
        "Print systemd units for a config, or install them.",
        _add_install_service,
        _install_service,
    ),
}

#: What the first word of a command line may be, beside a target or a config, and what it does.
COMMANDS: Final = {name: command.summary for name, command in _COMMANDS.items()}
