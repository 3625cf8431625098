"""What a server is started with, and what says that it cannot be."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent  # where all are started: the applications are importable
ROOT = HERE.parent.parent


class BenchError(Exception):
    """A server is not there, or it, or the load on it, did not do what it should."""


@dataclass(frozen=True)
class Start:
    """site: the files. folder: for what a server writes itself. app: which of `wsgi.py`."""

    port: int
    site: Path
    folder: Path
    workers: int
    log: bool
    app: str


@dataclass(frozen=True)
class Peer:
    """A server; program: makes its command line, or raises BenchError if it is not installed.

    path: what it calls the path of a workload. headers: what it is asked with beside the usual.
    """

    name: str
    program: Callable[[Start], list[str]]
    workers: int = 1
    path: str = "{}"
    headers: Mapping[str, str] = field(default_factory=dict)


def require(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        raise BenchError(f"not installed (pip install {name})")


def module(name: str) -> list[str]:
    require(name)
    return [sys.executable, "-m", name]


def daemon(*names: str) -> str | None:
    """Return the path of the first of these programs that is there."""
    # Debian's place for daemons is in the PATH of root alone.
    places = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
    return next(filter(None, (shutil.which(name, path=places) for name in names)), None)
