"""What a person names to be served: a folder, a handler class, a WSGI application.

The master, before serving. It imports the module that is named, binds nothing
and starts nothing.
"""

import difflib
import functools
import http.server
import importlib
import inspect
import os
import socketserver
import stat
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeGuard

from prefork.errors import StartError, UsageError
from prefork.wsgi import WSGIRequestHandler

#: Handlers that share a folder, as they are: they wait for nothing but the disk.
_FOLDERS: Final = ("prefork.http:SimpleHTTPRequestHandler",)


#: After the name of what makes a handler class or an application.
CALL: Final = "()"


class Kind(Enum):
    """Which family of servers fits a handler."""

    HTTP = "http"
    STREAM = "tcp"
    DATAGRAM = "udp"


@dataclass(frozen=True)
class Target:
    """What to serve.

    name: for people and process titles. handler: what socketserver calls with
    (request, client_address, server); None: what the server class brings.
    handler_class: the class behind it.
    is_folder: a folder was named, no handler. application: what was named, if
    that is no handler; the handler is then what calls it.
    """

    name: str
    kind: Kind
    handler: Any
    handler_class: type[socketserver.BaseRequestHandler]
    is_folder: bool = False
    application: Callable[..., Any] | None = None


def find_folder(text: str) -> Path:
    """Return the folder as an absolute path.

    Raises: UsageError when it is missing, no folder, or cannot be read.
    """
    try:
        # Not Path(""), the current directory: an unset variable of a script must not share that.
        is_dir = stat.S_ISDIR(os.stat(text).st_mode)  # noqa: PTH116 # for the reason above
        readable = os.access(text, os.R_OK | os.X_OK)
        folder = Path(text).resolve()
    except PermissionError:
        is_dir, readable = True, False
    except FileNotFoundError:  # also where the current directory has been deleted
        raise UsageError(
            f"no such directory: {text!r}"
            " (TARGET is a directory, module:Class, module:app, or a port)"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot share {text!r}: {error.strerror}") from None
    if not is_dir:
        raise UsageError(
            f"not a directory: {text!r} (share the directory that holds it;"
            " the name of a config ends with .toml)"
        )
    if not readable:
        raise UsageError(f"cannot read the directory {text!r}: permission denied")
    return folder


def is_folder(text: str) -> bool:
    """Tell whether there is such a directory, as far as this user may know."""
    try:
        return Path(text).is_dir()
    except OSError:
        return False


def names_object(text: str) -> bool:
    """Tell whether TARGET has the form module:name or module:name(), and is no directory."""
    module, colon, name = text.partition(":")
    words = [*module.split("."), *name.removesuffix(CALL).split(".")]
    return bool(colon) and all(w.isidentifier() for w in words) and not is_folder(text)


def find_target(text: str) -> Target:
    """Import module:name and tell what serves it; the current directory is importable.

    name: of a handler class, or of a WSGI application; with () after it, of
    what makes either when it is called without arguments.
    Raises: UsageError when there is no such thing, or nothing can serve it;
    StartError when the module itself fails, or what is called.
    """
    module_name, _, name = text.partition(":")
    thing = _import(module_name)
    for part in name.removesuffix(CALL).split("."):
        thing = _member(thing, part, text)
    if name.endswith(CALL):
        thing = _call(thing, text)
    handler_class = thing.func if isinstance(thing, functools.partial) else thing
    if not _is_handler(handler_class):
        _require_application(thing, text)
        handler = WSGIRequestHandler
        return Target(text, Kind.HTTP, handler, handler, application=thing)
    kind = kind_of_class(handler_class)
    return Target(text, kind, thing, handler_class, is_folder=text in _FOLDERS)


def kind_of_class(handler_class: type[Any]) -> Kind:
    """Return which servers fit a handler class."""
    if issubclass(handler_class, http.server.BaseHTTPRequestHandler):
        return Kind.HTTP
    if issubclass(handler_class, socketserver.DatagramRequestHandler):
        return Kind.DATAGRAM
    return Kind.STREAM


def served_as(target: Target, kind: Kind) -> Target:
    """Return the target for streams, or for datagrams, whichever its class has said.

    One that is derived from BaseRequestHandler alone says neither.
    Raises: UsageError where the class is for the other.
    """
    if target.kind is Kind.HTTP and kind is Kind.DATAGRAM:
        raise UsageError("HTTP is served over streams, not over datagrams")
    base: type[socketserver.BaseRequestHandler] = socketserver.DatagramRequestHandler
    is_for, other = "datagrams", "streams"
    if kind is Kind.DATAGRAM:
        base, is_for, other = socketserver.StreamRequestHandler, other, is_for
    if issubclass(target.handler_class, base):
        raise UsageError(f"{target.name} is a {base.__name__}, for {is_for}, not for {other}")
    return replace(target, kind=kind)


def find_object(text: str, base: type[Any]) -> Any:
    """Import module:name, which must be a class derived from base, or anything for `object`.

    Raises: UsageError, StartError.
    """
    module_name, _, name = text.partition(":")
    thing = _import(module_name)
    for part in name.split("."):
        thing = _member(thing, part, text)
    if base is not object and not (isinstance(thing, type) and issubclass(thing, base)):
        raise UsageError(f"{text} is not derived from {base.__module__}.{base.__name__}")
    return thing


def _import(name: str) -> Any:
    with suppress(OSError):  # it has been deleted: nothing can be imported from there
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise UsageError(
                f"no module named {error.name!r} in the current directory or on sys.path"
            ) from None
        raise StartError(f"cannot import {name}: {_last_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise StartError(f"cannot import {name}: {_last_line(error)}") from error


def _member(thing: Any, name: str, text: str) -> Any:
    try:
        return getattr(thing, name)
    except AttributeError:
        found = {n: getattr(thing, n, None) for n in dir(thing)}
        handlers = [n for n in found if _is_handler(found[n])]
        near = difflib.get_close_matches(name, handlers, 1)
        near += difflib.get_close_matches(name, [n for n in found if callable(found[n])], 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"cannot serve {text}: there is no {name!r} in it{hint}") from None


def _is_handler(thing: Any) -> TypeGuard[type[socketserver.BaseRequestHandler]]:
    return isinstance(thing, type) and issubclass(thing, socketserver.BaseRequestHandler)


def _call(factory: Any, text: str) -> Any:
    if not callable(factory):
        kind = type(factory).__name__
        raise UsageError(f"cannot serve {text}: it is of type {kind}, which cannot be called")
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise StartError(f"{text} failed: {_last_line(error)}") from error


def _require_application(thing: Any, text: str) -> None:
    """Raise UsageError for what cannot be a WSGI application."""
    name = text.removesuffix(CALL)
    if isinstance(thing, type) and issubclass(thing, socketserver.BaseServer):
        why = (
            "it is a server class; name its handler class, prefork brings the server"
            " (or, in a config, name it as server_class)"
        )
    elif not callable(thing):
        kind = type(thing).__name__
        why = f"it is no handler class and no WSGI application, but of type {kind}"
    elif inspect.iscoroutinefunction(thing) or inspect.iscoroutinefunction(
        getattr(thing, "__call__", None)  # noqa: B004 # whether it is one, not whether it has one
    ):
        why = "it is an ASGI application; prefork serves WSGI ones"
    elif _takes(thing, 2):
        return
    elif not text.endswith(CALL) and _takes(thing, 0):
        why = f"it takes no environ and start_response; if it makes an application: {name}{CALL}"
    else:
        why = "it does not take what a WSGI application takes: environ and start_response"
    raise UsageError(f"cannot serve {text}: {why}")


def _takes(thing: Callable[..., Any], count: int) -> bool:
    """Tell whether a thing may be called with so many arguments; yes where nobody knows."""
    try:
        inspect.signature(thing).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return True
    return True


def _last_line(error: BaseException) -> str:
    """Return the exception as one line, with the place in the program where it arose."""
    text = " ".join("".join(traceback.format_exception_only(error)[-1:]).split())
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    own = [f for f in frames if Path(f.filename) != Path(__file__)]
    if isinstance(error, SyntaxError) or not own:
        place = f"{error.filename}:{error.lineno}" if isinstance(error, SyntaxError) else ""
    else:
        place = f"{own[-1].filename}:{own[-1].lineno}"
    return f"{text} ({place})" if place else text
