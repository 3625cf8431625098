"""The files of a config, with what they include: one tree in which each value knows its file.

The master, before it serves, and whoever checks a config. It reads these files
and no other; what the keys mean is not its business.
"""

import difflib
import glob
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from prefork.config.expand import expand
from prefork.config.problems import WrongValueError, did_you_mean, quoted, shown
from prefork.config.toml import key_of

_FILE_BYTES: Final = 1 << 20  # no config is larger; /dev/zero is
_PLACE: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")
_LEADING_ZERO: Final = re.compile(r"=\s*[+-]?0([0-7]+)\s*(#.*)?\Z")
_INCLUDE: Final = "include"

#: What tomllib says, for those who do not think of files as dictionaries.
_SAID: Final = MappingProxyType({"Cannot overwrite a value": "a key that is given already"})


@dataclass(frozen=True, slots=True)
class Source:
    """One file. name: as people know it. folder: absolute, where relative paths begin."""

    name: str
    folder: Path
    text: str


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value, as it is written."""

    source: Source
    value: Any


@dataclass(frozen=True, slots=True)
class Table:
    """A table. source: the first file that has it."""

    source: Source
    entries: dict[str, "Table | Leaf"] = field(default_factory=dict)


class Tree:
    """All files merged.

    root: what could be read. is_whole: that is all. problems: what is wrong so far.
    """

    def __init__(self, path: str | os.PathLike[str], environ: Mapping[str, str]) -> None:
        self.problems: list[str] = []
        self.is_whole = True
        self._environ = environ
        self._read_files: set[Path] = set()
        name = os.fspath(path)
        self.root = Table(Source(name, Path(name).absolute().parent, ""))
        self._add(name, Path(name).absolute(), ())

    def _add(self, name: str, path: Path, above: tuple[Path, ...]) -> None:
        real = path.resolve()
        if real in self._read_files:  # two patterns may match the same file
            return
        self._read_files.add(real)
        try:
            text = read_text(path, _FILE_BYTES)
        except WrongValueError as error:
            self._unread(f"{name}: {error.reason}{did_you_mean(error.hint)}")
            return
        source = Source(name, path.parent, text)
        if self.root.source.name == name:
            self.root = Table(source)
        try:
            data = tomllib.loads(text)
            patterns = data.pop(_INCLUDE, [])
            self._merge(self.root, data, source, ())
        except (ValueError, RecursionError) as error:
            self._unread(f"{name}: {_syntax(error, text)}")
            return
        above = (*above, real)
        for inner_name, inner in self._included(patterns, source):
            if inner.resolve() in above:
                self.problems.append(
                    f"{name}: {_INCLUDE}: {inner_name} includes this file, expected no circle"
                )
            else:
                self._add(inner_name, inner, above)

    def _unread(self, problem: str) -> None:
        self.problems.append(problem)
        self.is_whole = False

    def _merge(
        self, into: Table, data: Mapping[str, Any], source: Source, keys: tuple[str, ...]
    ) -> None:
        for key, value in data.items():
            there = into.entries.get(key)
            if there is None and not isinstance(value, dict):
                into.entries[key] = Leaf(source, value)
            elif isinstance(value, dict) and not isinstance(there, Leaf):
                table = into.entries.setdefault(key, Table(source))
                assert isinstance(table, Table)  # noqa: S101 # the branch says so; for the type checker
                self._merge(table, value, source, (*keys, key))
            elif there is not None:
                self.problems.append(
                    f"{source.name}: {key_of(*keys, key)}: given already in {there.source.name},"
                    " expected once"
                )

    def _included(self, patterns: Any, source: Source) -> Iterator[tuple[str, Path]]:
        where = f"{source.name}: {_INCLUDE}"
        if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
            hint = did_you_mean(f"[{quoted(patterns)}]") if isinstance(patterns, str) else ""
            self.problems.append(
                f"{where}: found {shown(patterns)}, expected an array of patterns{hint}"
            )
            return
        for index, pattern in enumerate(patterns):
            try:
                yield from _matches(expand(pattern, self._environ), source)
            except WrongValueError as error:
                self._unread(f"{where}[{index}]: {error.reason}{did_you_mean(error.hint)}")


def read_text(path: Path, most_bytes: int) -> str:
    """Return a file's text, UTF-8 with or without its mark.

    Raises: WrongValueError.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: NUL
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise WrongValueError(f"cannot be read: {reason}") from None
    if len(data) > most_bytes:
        raise WrongValueError(f"larger than {most_bytes} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise WrongValueError(f"line {line}: not UTF-8, expected text in UTF-8") from None


def _matches(pattern: str, source: Source) -> Iterator[tuple[str, Path]]:
    """Yield (name for people, path) of each file that a pattern means, sorted."""
    prefix = os.path.dirname(source.name)  # noqa: PTH120 # "" stays "", and "." would be shown
    if not pattern:
        raise WrongValueError('found "", expected a pattern such as "conf.d/*.toml"')
    if not glob.has_magic(pattern):
        path = source.folder / pattern
        if not path.exists():
            raise WrongValueError(f"no such file: {quoted(pattern)}", _sibling(pattern, source))
        yield os.path.join(prefix, pattern), path  # noqa: PTH118 # as above
        return
    for found in sorted(glob.glob(pattern, root_dir=source.folder, recursive=True)):  # noqa: PTH207 # names as the pattern has them
        path = source.folder / found
        if not path.is_dir():  # a link that leads nowhere is an error, not nothing
            yield os.path.join(prefix, found), path  # noqa: PTH118 # as above


def _sibling(pattern: str, source: Source) -> str | None:
    """Return the name beside it that was probably meant."""
    folder, name = os.path.split(pattern)
    try:
        names = set(os.listdir(source.folder / folder)) - {os.path.basename(source.name)}  # noqa: PTH119, PTH208 # names, not paths
    except OSError:
        return None
    near = difflib.get_close_matches(name, names, 1)
    return quoted(os.path.join(folder, near[0])) if near else None  # noqa: PTH118 # as above


def _syntax(error: Exception, text: str) -> str:
    """Return what tomllib says, in the form of all other messages."""
    said = " ".join(str(error).split())
    if isinstance(error, RecursionError):
        return "nested too deeply"
    place = _PLACE.search(said)
    if place is None:  # a number with more digits than int() takes
        return f"no TOML: {said}"
    lines = text.splitlines() or [""]
    number = int(place[1]) if place[1] else len(lines)
    column = f", column {place[2]}" if place[2] else ""
    said = _SAID.get(said[: place.start()], said[: place.start()])
    octal = _LEADING_ZERO.search(lines[min(number, len(lines)) - 1])
    hint = did_you_mean(f"0o{octal[1]}") if octal else ""
    return f"line {number}{column}: no TOML: {said[:1].lower()}{said[1:]}{hint}"
