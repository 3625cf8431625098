"""What a config's `handler_options` make of a handler: a class derived from it.

The master, before serving. The class that was named is never changed. What the
stdlib's own options mean and may be is in `config.known`; any other option is a
variable of the class, or a keyword of its `__init__()`, and has that one's type.
"""

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any, Final

from prefork.config import values
from prefork.config.kind import Kind, Setting, settings_of
from prefork.config.known import HandlerOptions
from prefork.config.problems import ConfigError, WrongValueError, did_you_mean, nearest, quoted
from prefork.config.texts import FromFile, found, stem_of
from prefork.files import FolderOptions
from prefork.http import folder

#: What `__init__()` takes from the server.
_PASSED: Final = frozenset({"request", "client_address", "server"})
_FOLDER_OPTIONS: Final = frozenset({"extra_response_headers", "default_content_type"})
_NOTHING: Final = inspect.Parameter.empty

_SHARE: Final = "prefork.share.ShareRequestHandler"

#: The classes that know an option, where another does not.
_KNOWS: Final = MappingProxyType(
    dict.fromkeys(
        ("timeout", "disable_nagle_algorithm", "rbufsize", "wbufsize"),
        "socketserver.StreamRequestHandler",
    )
    | dict.fromkeys(("directory", "extensions_map"), "http.server.SimpleHTTPRequestHandler")
    | {
        "extra_response_headers": "http.server.SimpleHTTPRequestHandler",
        "default_content_type": "http.server.SimpleHTTPRequestHandler",
        "index_pages": "prefork.http.SimpleHTTPRequestHandler",
    }
    | dict.fromkeys(
        (
            "cgi_directories",
            "cgi_timeout",
            "cgi_time_limit",
            "cgi_header_bytes",
            "cgi_output_bytes",
            "cgi_environment",
            "cgi_inherited",
            "cgi_authorization",
            "script_output_follows",
        ),
        "prefork.http.CGIHTTPRequestHandler",
    )
    | dict.fromkeys(
        (
            "symlinks",
            "hidden",
            "trusted",
            "spa",
            "not_found_page",
            "archives",
            "compression",
            "allowed_hosts",
            "cors_origins",
            "cache_directory",
            "cache_bytes",
        ),
        _SHARE,
    )
)


def with_options(
    handler: Any, options: Mapping[str, Any], where: str, *, root: str = "/"
) -> Callable[..., Any]:
    """Return the handler with the options applied: a class, or a partial of one.

    handler: a class derived from BaseRequestHandler, or a functools.partial of
    one. options: values as TOML has them. where: begins each problem, such as
    "prefork.toml: server.files.handler_options". root: the handler's root
    folder, where it will have another.
    Raises: ConfigError with everything that is wrong.
    """
    named = _class_of(handler)
    taken = _Taken(named, keywords_of(named), root)
    problems = []
    for name, value in options.items():
        try:
            taken.take(name, value)
        except WrongValueError as error:
            problems.append(f"{where}.{name}: {error.reason}{did_you_mean(error.hint)}")
    if problems:
        raise ConfigError(problems)
    return derived(handler, taken.variables, taken.arguments)


def derived(
    handler: Any, variables: Mapping[str, Any], arguments: Mapping[str, Any]
) -> Callable[..., Any]:
    """Return the handler with these class variables, called with these keywords beside its own.

    3.15's options of SimpleHTTPRequestHandler are given to classes of older ones.
    """
    handler_class = _class_of(handler)
    bases: tuple[type[Any], ...] = (handler_class,)
    if _FOLDER_OPTIONS & (variables.keys() | arguments.keys()) and not issubclass(
        handler_class, (FolderOptions, folder.SimpleHTTPRequestHandler)
    ):
        bases = (FolderOptions, handler_class)
    if variables or len(bases) > 1:
        names = {"__module__": handler_class.__module__, "__doc__": handler_class.__doc__}
        handler_class = type(handler_class.__name__, bases, names | dict(variables))
    if isinstance(handler, functools.partial):
        return functools.partial(handler_class, *handler.args, **{**handler.keywords, **arguments})
    return functools.partial(handler_class, **arguments) if arguments else handler_class


def _class_of(handler: Any) -> Any:
    return handler.func if isinstance(handler, functools.partial) else handler


def keywords_of(handler_class: Any) -> dict[str, Any]:
    """Return the keywords that reach an `__init__()` of the class, and their defaults.

    A class's own, and its base's where it passes `**keywords` on.
    """
    found: dict[str, Any] = {}
    for cls in handler_class.__mro__:
        if "__init__" not in cls.__dict__ or cls is object:
            continue
        parameters = list(inspect.signature(cls.__dict__["__init__"]).parameters.values())[1:]
        for parameter in parameters:
            if parameter.name not in _PASSED and parameter.kind in (
                inspect.Parameter.KEYWORD_ONLY,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
            ):
                found.setdefault(parameter.name, parameter.default)
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    return found


class _Taken:
    """The options of one handler class that have been found right."""

    def __init__(self, handler_class: type[Any], keywords: dict[str, Any], root: str) -> None:
        self.variables: dict[str, Any] = {}
        self.arguments: dict[str, Any] = {}
        self._class = handler_class
        self._keywords = keywords
        self._root = root
        self._known = settings_of(HandlerOptions)
        self._is_share = any(_is_share(base) for base in handler_class.__mro__)

    def take(self, name: str, value: Any) -> None:
        """Add an option.

        Raises: WrongValueError, whose reason is the whole message.
        """
        if isinstance(value, FromFile) and not self._has(name) and self._has(f"{name}_file"):
            # It was the path that was meant, not what is in the file.
            name, value = f"{name}_file", value.path
        if not self._has(name):
            raise self._unknown(name, value)
        # A `hidden` or `trusted` of another class is of that one's own type.
        if name in self._known and (self._is_share or _KNOWS.get(name) != _SHARE):
            value = self._read_known(self._known[name], value)
            if name == "extensions_map":
                value = {**self._now(name), **value}
        else:
            value = _read_like(self._now(name), value)
        to_init = name in self._keywords or name == "extra_response_headers"
        (self.arguments if to_init else self.variables)[name] = value

    def _has(self, name: str) -> bool:
        if name in self._keywords:
            return True
        if name in _FOLDER_OPTIONS and issubclass(self._class, SimpleHTTPRequestHandler):
            return True
        if name == "allowed_methods" and issubclass(self._class, BaseHTTPRequestHandler):
            return True  # the engine asks for it, whether the class has it or not
        return name in self._variables()

    def _variables(self) -> set[str]:
        """Return the names of the class's variables that a config may set."""
        return {
            name
            for name in dir(self._class)
            if not name.startswith("_")
            and not hasattr(inspect.getattr_static(self._class, name), "__get__")
            and not isinstance(getattr(self._class, name), type)
        }

    def _now(self, name: str) -> Any:
        """Return what it is without the option; _NOTHING where nobody knows."""
        if name in self._keywords:
            return self._keywords[name]
        return getattr(self._class, name, _NOTHING)

    def _unknown(self, name: str, value: Any) -> WrongValueError:
        who = f"{self._class.__module__}:{self._class.__qualname__}"
        if name in self._known:
            knows = _KNOWS.get(name, "http.server.BaseHTTPRequestHandler")
            return WrongValueError(f"{who} has no such option, expected a class of {knows}")
        stem = stem_of(name)
        if stem is not None and self._has(stem):
            return WrongValueError(f"no such file: {found(value, is_secret=True)}")
        called = next((s.name for s in self._known.values() if name.lower() in s.also), None)
        near = called or nearest(name, [n for n in (*self._known, *self._all()) if self._has(n)])
        return WrongValueError(f"{who} has no such option", None if near is None else repr(near))

    def _all(self) -> Iterator[str]:
        yield from self._keywords
        yield from self._variables()

    def _read_known(self, setting: Setting, value: Any) -> Any:
        """Return the plain value of an option of the stdlib's classes."""
        kind = setting.kind
        if isinstance(value, (list, dict)):
            _require_items(kind, value)
            return _PLAIN.get(setting.name, tuple)(value)
        try:
            plain = values.read(kind, value, _here())
        except WrongValueError as error:
            raise _wrong(value, kind, error) from None
        if setting.name == "error_message_format":
            _try_template(plain)
        if setting.name == "directory":
            self._require_folder(plain)
        return plain

    def _require_folder(self, path: str) -> None:
        # As the handler will see it: a missing folder is no error there, but 404 for everything.
        if not os.path.isdir(os.path.join(self._root, path.lstrip("/"))):  # noqa: PTH112, PTH118 # an absolute path below another
            raise WrongValueError(f"no such folder: {quoted(path)}, expected one that is there")


def _is_share(cls: type[Any]) -> bool:
    # Not imported for that: it brings templates and a database.
    package, _, name = _SHARE.rpartition(".")
    return cls.__name__ == name and cls.__module__.startswith(package)


def _here() -> Path:
    """Return the current directory; the root where it has been deleted."""
    try:
        return Path.cwd()
    except OSError:
        return Path("/")


def _read_like(now: Any, value: Any) -> Any:
    """Return the value as the type that the class's own is of.

    Raises: WrongValueError.
    """
    if now is None or now is _NOTHING:
        return str(value) if isinstance(value, str) else value
    if isinstance(now, (bool, int, float, str)):
        kind = Kind(type(now))
        try:
            return values.read(kind, value, _here())
        except WrongValueError as error:
            raise _wrong(value, kind, error) from None
    if isinstance(now, PurePath):
        if isinstance(value, str):
            return type(now)(value)
        raise WrongValueError(f"found {found(value, is_secret=True)}, expected a path")
    return _read_several_like(now, value)


def _read_several_like(now: Any, value: Any) -> Any:
    if isinstance(now, (list, tuple, set, frozenset)):
        if isinstance(value, list):
            return type(now)(_read_item(now, item) for item in value)
        raise WrongValueError(f"found {found(value, is_secret=True)}, expected an array")
    if isinstance(now, dict) and all(isinstance(key, str) for key in now):
        if isinstance(value, dict):
            return now | {k: _read_item(now.values(), item) for k, item in value.items()}
        raise WrongValueError(f"found {found(value, is_secret=True)}, expected a table")
    raise WrongValueError(f"of type {type(now).__name__}, which no config can say")


def _read_item(others: Iterable[Any], value: Any) -> Any:
    """Return a value that stands among others, of their type where they are all of one."""
    kinds = {type(other) for other in others}
    if len(kinds) == 1 and kinds <= {bool, int, float, str}:
        return _read_like(next(iter(others)), value)
    return value


def _wrong(value: Any, kind: Kind, error: WrongValueError | None = None) -> WrongValueError:
    reason = f": {error.reason}" if error and error.reason else ""
    return WrongValueError(
        f"found {found(value, is_secret=True)}{reason}, expected {kind.expected()}",
        error.hint if error else None,
    )


def _require_items(kind: Kind, value: Any) -> None:
    if kind.accepts(value):
        return
    inner, keys = kind.items(type(value)), kind.items(type(value), 0)
    for key in value if isinstance(value, dict) else ():
        if keys is not None and not keys.accepts(key):
            raise _wrong(key, keys)
    for item in value.values() if isinstance(value, dict) else value:
        if inner is not None and not inner.accepts(item):
            raise _wrong(item, inner)
    raise _wrong(value, kind)


def _try_template(text: str) -> None:
    try:
        text % {"code": 404, "message": "Not Found", "explain": "Nothing matches"}
    except (KeyError, TypeError, ValueError) as error:
        raise WrongValueError(
            f"as a template it fails ({error}), expected %(code)d, %(message)s and %(explain)s,"
            " and %% for a percent sign"
        ) from None


def _pairs(headers: Any) -> tuple[tuple[str, str], ...]:
    """Return headers as pairs, from a table or from an array of pairs."""
    if isinstance(headers, list):
        return tuple((str(name), str(value)) for name, value in headers)
    return tuple(
        (name, str(value))
        for name, given in headers.items()
        for value in (given if isinstance(given, list) else [given])
    )


#: How the stdlib wants what TOML has as an array or a table; else a tuple.
_PLAIN: Final[Mapping[str, Callable[[Any], Any]]] = MappingProxyType(
    {
        "extra_response_headers": _pairs,
        "extensions_map": dict,
        "cgi_directories": list,
        "cgi_environment": dict,
    }
)
