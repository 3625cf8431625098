"""Tables of TOML become the objects of the schema; what is wrong with them is collected.

The master, before it serves, and whoever checks a config. It reads the files
that `KEY_file` names, and nothing else.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from msgspec import Struct

from prefork.config import values
from prefork.config.checks import check_listener, check_name
from prefork.config.expand import expand, expand_all, variables_of
from prefork.config.hints import refuse_decimal_mode
from prefork.config.kind import Kind, Setting, settings_of
from prefork.config.known import HandlerOptions
from prefork.config.meant import meant_by
from prefork.config.problems import WrongValueError, did_you_mean, quoted
from prefork.config.server import ListenerConfig
from prefork.config.sources import Leaf, Table, Tree
from prefork.config.texts import FromFile, found, origin, plain_of, read_value, stem_of
from prefork.config.toml import key_of, written

_Read = TypeVar("_Read", bound=Struct)


class Unread:
    """Stands for a value of which the problems are known."""


UNREAD: Final = Unread()


class Reader:
    """Goes through the tree once, and collects."""

    def __init__(self, tree: Tree, environ: Mapping[str, str]) -> None:
        self.problems = tree.problems
        self.origins: dict[str, str] = {}
        self.as_written: dict[str, str] = {}
        self._is_whole = tree.is_whole
        self._environ = environ
        self._files: dict[str, str] = {}

    # -- what is wrong -----------------------------------------------------------

    def say(self, node: Table | Leaf, key: str, text: str) -> None:
        """Add a problem of a key, in the file that has it."""
        self.problems.append(f"{self._files.get(key, node.source.name)}: {key}: {text}")

    def wrong(
        self,
        node: Table | Leaf,
        key: str,
        value: Any,
        expected: str,
        error: WrongValueError | None = None,
    ) -> Unread:
        """Add what was found and what was expected."""
        reason = f": {error.reason}" if error and error.reason else ""
        hint = did_you_mean(error.hint if error else None)
        self.say(node, key, f"found {found(value)}{reason}, expected {expected}{hint}")
        return UNREAD

    def missing(self, node: Table, key: str, text: str) -> Unread:
        """Add that something is missing, unless a file that may have it could not be read."""
        if self._is_whole:
            self.say(node, key, text)
        return UNREAD

    def unknown(
        self, node: Table | Leaf, prefix: str, name: str, table: type[Struct] | None
    ) -> Unread:
        """Add that there is no such key."""
        key = f"{prefix}.{key_of(name)}" if prefix else key_of(name)
        meant = meant_by(prefix, name, table)
        self.say(node, key, f"unknown key{did_you_mean(None if meant is None else repr(meant))}")
        return UNREAD

    # -- tables ------------------------------------------------------------------

    def table(self, cls: type[_Read], node: Table | Leaf, key: str) -> _Read | Unread:
        """Return the object that a table is."""
        if isinstance(node, Leaf):
            several = isinstance(node.value, list) and all(isinstance(v, dict) for v in node.value)
            error = WrongValueError("there is one of them", f"[{key}]") if several else None
            return self.wrong(node, key, node.value, f"a table [{key}]", error)
        settings = settings_of(cls)
        got: dict[str, Any] = {}
        for name, inner in node.entries.items():
            stem = stem_of(name)
            if name in settings:
                got[name] = self._setting(settings[name], inner, f"{key}.{name}")
            elif stem in settings and settings[stem].kind.takes_text:
                leaf = self._from_file(inner, key, stem, node)
                if isinstance(leaf, Leaf):
                    got[stem] = self._setting(settings[stem], leaf, f"{key}.{stem}")
                else:
                    got.setdefault(stem, leaf)
            else:
                self.unknown(inner, key, name, cls)
        for name, setting in settings.items():
            if name not in got:
                got[name] = self._default(setting, node, f"{key}.{name}")
        if any(isinstance(value, Unread) for value in got.values()):
            return UNREAD
        return cls(**got)

    def _default(self, setting: Setting, table: Table, key: str) -> Any:
        if setting.is_required:
            return self.missing(table, key, f"missing, expected {setting.kind.expected()}")
        if setting.kind.is_table:  # its keys have defaults of their own
            return self._setting(setting, Table(table.source), key)
        self.origins[key] = "default"
        return setting.default

    def _from_file(self, node: Table | Leaf, key: str, stem: str, table: Table) -> Leaf | Unread:
        """Return the value that a KEY_file brings."""
        at = f"{key}.{key_of(f'{stem}_file')}"
        if stem in table.entries:
            self.say(node, at, f"{stem} is given as well, expected one of them")
            return UNREAD
        if not isinstance(node, Leaf) or not isinstance(node.value, str):
            return self.wrong(node, at, plain_of(node), "a path")
        name = node.value
        try:
            name = expand(name, self._environ)
            return Leaf(node.source, read_value(node.source.folder / name))
        except WrongValueError as error:
            return self.wrong(node, at, name, "the path of a file with text", error)

    # -- values ------------------------------------------------------------------

    def _setting(self, setting: Setting, node: Table | Leaf, key: str) -> Any:
        """Return the value of a key, whatever type it has."""
        kind = setting.kind
        self._files[key] = node.source.name
        if kind.struct is not None and (isinstance(node, Table) or kind.is_table):
            return self.table(kind.struct, node, key)
        inner = kind.items(dict)
        if inner is not None:
            return self._mapping(setting, inner, node, key)
        value = self._resolved(node, key)
        if isinstance(value, Unread):
            return value
        self._originates(key, node, value)
        if isinstance(value, FromFile):
            self.as_written[key] = f"{setting.name}_file = {quoted(value.path)}"
        inner = kind.items(list)
        if inner is not None:
            return self._list(kind, inner, node, value, key)
        return self._scalar(kind, node, value, key)

    def _resolved(self, node: Table | Leaf, key: str) -> Any:
        if isinstance(node, Leaf) and isinstance(node.value, FromFile):
            return node.value  # a "${" in it is its own
        value, wrongs = expand_all(plain_of(node), self._environ)
        for place, error in wrongs:
            self.say(node, key + place, f"{error.reason}{did_you_mean(error.hint)}")
        return UNREAD if wrongs else value

    def _originates(self, key: str, node: Table | Leaf, value: Any) -> None:
        other = origin(value)
        self.origins[key] = f"{node.source.name}, {other}" if other else node.source.name

    def _scalar(self, kind: Kind, node: Table | Leaf, value: Any, key: str) -> Any:
        try:
            refuse_decimal_mode(kind, value, key, node.source.text)
            return values.read(kind, value, node.source.folder)
        except WrongValueError as error:
            return self.wrong(node, key, value, kind.expected(), error)

    def _list(self, kind: Kind, inner: Kind, node: Table | Leaf, value: Any, key: str) -> Any:
        if not isinstance(value, list):
            hint = f"[{written(value, raw=True)}]" if isinstance(value, str) else None
            return self.wrong(node, key, value, kind.expected(), WrongValueError("", hint))
        if len(value) < kind.limits.get("min_length", 0):
            return self.wrong(node, key, value, kind.expected(), WrongValueError("it is empty"))
        items = [self._item(inner, node, v, f"{key}[{i}]") for i, v in enumerate(value)]
        return UNREAD if any(isinstance(item, Unread) for item in items) else items

    def _item(self, kind: Kind, node: Table | Leaf, value: Any, key: str) -> Any:
        if kind.struct is None or not isinstance(value, dict):
            return self._scalar(kind, node, value, key)
        entries: dict[str, Table | Leaf] = {k: Leaf(node.source, v) for k, v in value.items()}
        item = self.table(kind.struct, Table(node.source, entries), key)
        if isinstance(item, ListenerConfig):
            wrongs = check_listener(item)
            for at, text in wrongs:
                self.say(node, f"{key}.{at}", text)
            return UNREAD if wrongs else item
        return item

    # -- tables whose keys are free -----------------------------------------------

    def _mapping(self, setting: Setting, inner: Kind, node: Table | Leaf, key: str) -> Any:
        if isinstance(node, Leaf):
            return self.wrong(node, key, node.value, f"a table [{key}]")
        got: dict[str, Any] = {}
        for name, entry in node.entries.items():
            at = f"{key}.{key_of(name)}"
            error = check_name(setting.name, name)
            if error is not None:
                self.say(entry, at, f"{error.reason}{did_you_mean(error.hint)}")
                got[name] = UNREAD
                continue
            stem = stem_of(name)
            if stem is None or not self._brings_text(setting, entry, stem):
                got[name] = self._entry(inner, entry, at, name)
                continue
            leaf = self._from_file(entry, key, stem, node)
            got[stem] = leaf
            if isinstance(leaf, Leaf):
                got[stem] = self._entry(inner, leaf, f"{key}.{key_of(stem)}", stem)
        for name, value in setting.default.items():
            if name not in got:
                got[name] = value
                self.origins[f"{key}.{name}"] = "default"
        return UNREAD if any(isinstance(value, Unread) for value in got.values()) else got

    def _brings_text(self, setting: Setting, node: Table | Leaf, stem: str) -> bool:
        """Tell whether a KEY_file is to be read in this table.

        A handler may have an option of its own whose name ends in _file, and
        create that file. If it is there, `options` knows what was meant.
        """
        if setting.name != "handler_options" or stem in settings_of(HandlerOptions):
            return setting.name != "rlimits"
        value, _ = expand_all(plain_of(node), self._environ)
        return isinstance(value, str) and (node.source.folder / value).is_file()

    def _entry(self, kind: Kind, node: Table | Leaf, key: str, name: str) -> Any:
        value = self._resolved(node, key)
        if isinstance(value, Unread):
            return value
        self._originates(key, node, value)
        if isinstance(value, FromFile):
            self.as_written[key] = f"{key_of(name)}_file = {quoted(value.path)}"
        elif variables_of(value):
            self.as_written[key] = f"{key_of(name)} = {written(plain_of(node), raw=True)}"
        if kind.base is not Any:
            return self._scalar(kind, node, value, key)
        known = settings_of(HandlerOptions).get(name)
        if known is not None and "path" in known.kind.forms and isinstance(value, str):
            return self._scalar(known.kind, node, value, key)
        return value
