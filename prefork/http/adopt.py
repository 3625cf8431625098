"""Makes any handler class run on the engine: a class derived from it, with faster hooks.

A worker, once for each class. Only those hooks are replaced that the class has
from the stdlib, or from `prefork.http`, untouched; what it overrides it keeps,
and its `super()` and unbound calls reach what they always reached. What cannot
be derived from is left as it is. It never changes a class it is given.
"""

import functools
import http.client
import http.server
import socketserver
import types
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from prefork.http import downloads, folder, gateway, handler, heads, hooks, lazy
from prefork.http.cgi.handler import CGIHTTPRequestHandler, unless_script


class Style(Enum):
    """When a handler gets its client, and who reads the head."""

    FAST = 1  #: a head is complete; the engine has read it
    FIRST_HEAD = 2  #: a head is complete, and unread
    FIRST_BYTE = 3  #: the client has sent something, which is unread
    AT_ONCE = 4  #: it was accepted


@dataclass(frozen=True, slots=True)
class Adopted:
    """handler: what to call for a client. timeout_s: the class's own `timeout`."""

    handler: Any
    style: Style
    timeout_s: float | None = None


_CLASSES: Final = (
    socketserver.BaseRequestHandler,
    socketserver.StreamRequestHandler,
    http.server.BaseHTTPRequestHandler,
    http.server.SimpleHTTPRequestHandler,
    handler.BaseHTTPRequestHandler,
    folder.SimpleHTTPRequestHandler,
    CGIHTTPRequestHandler,
)

#: What counts as untouched, by name. A program that has patched the stdlib before us is respected:
#: what it has put there is the stdlib's own now.
_STOCK: Final[Mapping[str, list[Any]]] = {
    name: [c.__dict__[name] for c in _CLASSES if name in c.__dict__]
    for name in {name for c in _CLASSES for name in c.__dict__}
}

#: A class with one of these does things to attributes that derived hooks would upset.
_TRICKS: Final = ("__getattribute__", "__setattr__", "__delattr__", "__slots__")

#: Where a derived class has the one that it was derived from.
_PLAIN: Final = "_prefork_plain"

#: The hooks that a handler may only have untouched if the engine is to read for it.
_READERS: Final = ("setup", "finish", "handle_one_request", "rbufsize")

#: Each fast hook, and the others whose work it does on the way.
_FAST: Final[Mapping[str, tuple[Any, tuple[str, ...]]]] = {
    "setup": (hooks.setup, ()),
    "finish": (hooks.finish, ()),
    "handle": (hooks.handle, ()),
    "handle_one_request": (hooks.handle_one_request, ()),
    "send_header": (heads.send_header, ()),
    "send_response": (
        heads.send_response,
        (
            "send_response_only",
            "send_header",
            "version_string",
            "date_time_string",
            "responses",
        ),
    ),
    "end_headers": (heads.end_headers, ("flush_headers",)),
    "log_request": (
        hooks.log_request,
        ("log_message", "address_string", "log_date_time_string"),
    ),
    "log_error": (
        hooks.log_error,
        ("log_message", "address_string", "log_date_time_string"),
    ),
}


def defines(thing: Any, name: str) -> Any:
    """Return what an instance or a class has by a name, as it stands there: unbound; else None."""
    if not isinstance(thing, type):
        if name in getattr(thing, "__dict__", ()):
            return thing.__dict__[name]
        thing = type(thing)
    for base in thing.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return None


def is_untouched(cls: type[Any], *names: str) -> bool:
    """Tell whether a handler class has all these from the stdlib or from `prefork.http`."""
    return all(any(defines(cls, n) is stock for stock in _STOCK.get(n, ())) for n in names)


@functools.lru_cache(maxsize=64)
def _adopt_class(cls: type[Any]) -> Adopted:
    if not issubclass(cls, http.server.BaseHTTPRequestHandler):
        return Adopted(cls, Style.AT_ONCE)
    timeout_s = cls.timeout if isinstance(cls.timeout, int | float) else None
    kept = Style.FIRST_HEAD if is_untouched(cls, "handle") else Style.FIRST_BYTE
    if any(not _is_plain(base) for base in cls.__mro__):
        return Adopted(cls, kept, timeout_s)
    wsgi = _wsgi_stock(cls)
    if wsgi and defines(cls, "handle") is wsgi["handle"]:
        if not is_untouched(cls, *_READERS, "parse_request", "handle_expect_100"):
            return Adopted(cls, Style.FIRST_BYTE, timeout_s)
        return Adopted(_derive(cls, _fast_members(cls) | _wsgi(cls, wsgi)), Style.FAST, timeout_s)
    if not is_untouched(cls, *_READERS) or cls.rbufsize != -1:
        members: dict[str, Any] = {}
        if is_untouched(cls, "parse_request") and cls.MessageClass is http.client.HTTPMessage:
            members["parse_request"] = hooks.parse_request
        return Adopted(_derive(cls, members), kept, timeout_s)
    members = _fast_members(cls)
    if issubclass(cls, http.server.SimpleHTTPRequestHandler):
        members |= _downloading(cls)
    style = Style.FAST if "handle" in members else Style.FIRST_BYTE
    return Adopted(_derive(cls, members), style, timeout_s)


def _fast_members(cls: type[Any]) -> dict[str, Any]:
    members: dict[str, Any] = {
        name: fast for name, (fast, inlined) in _FAST.items() if is_untouched(cls, name, *inlined)
    }
    return members | {
        "rfile": lazy.LazyRfile(),
        "headers": lazy.LazyHeaders(),
        "_prefork_dispatch": hooks.dispatch,
        "_prefork_asks": hooks.Asks(
            parse_request=not is_untouched(cls, "parse_request"),
            handle_expect_100=not is_untouched(cls, "handle_expect_100"),
            logs=not is_untouched(cls, "log_request", *_FAST["log_request"][1]),
        ),
    }


def _wsgi_stock(cls: type[Any]) -> Mapping[str, Any]:
    """Return what wsgiref's handler class consists of, if this one is derived from it."""
    for base in cls.__mro__:  # the module is not imported for those that are not
        if (base.__module__, base.__name__) == ("wsgiref.simple_server", "WSGIRequestHandler"):
            return base.__dict__
    return {}


def _wsgi(cls: type[Any], stock: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hooks that call an application, and keep the connection."""
    members: dict[str, Any] = {"handle": hooks.handle, "_prefork_dispatch": gateway.dispatch}
    members["_prefork_remote"] = None
    members["_prefork_makes_environ"] = any(
        defines(cls, name) is not stock[name] for name in ("get_environ", "get_stderr")
    )
    if not any("protocol_version" in base.__dict__ for base in cls.__mro__ if not _is_own(base)):
        members["protocol_version"] = "HTTP/1.1"
    return members


def _is_own(base: type[Any]) -> bool:
    """Tell whether a class is the stdlib's or of this package."""
    return base.__module__.partition(".")[0] in ("prefork", "http", "wsgiref")


def _downloading(cls: type[Any]) -> dict[str, Any]:
    """Return the hooks that send files."""
    members: dict[str, Any] = {}
    if is_untouched(cls, "do_GET", *downloads.INLINED):
        members["do_GET"] = downloads.getting(defines(cls, "do_GET"))
    if is_untouched(cls, "do_HEAD", *downloads.INLINED):
        members["do_HEAD"] = downloads.heading(defines(cls, "do_HEAD"))
    if issubclass(cls, CGIHTTPRequestHandler):
        members = {n: unless_script(defines(cls, n), fast) for n, fast in members.items()}
    touching = ("send_head", "guess_type", "list_directory", "end_headers")
    if is_untouched(cls, "copyfile", *touching):
        members["copyfile"] = downloads.copying(defines(cls, "copyfile"))
    return members


def adopt(wanted: Any) -> Adopted:
    """Return how to serve what a server was given as its RequestHandlerClass.

    A class, a functools.partial of one, or anything to call with (request,
    client_address, server).
    """
    if isinstance(wanted, functools.partial) and isinstance(wanted.func, type):
        found = adopt(wanted.func)
        again = functools.partial(found.handler, *wanted.args, **wanted.keywords)
        return replace(found, handler=again)
    if not isinstance(wanted, type):
        return Adopted(wanted, Style.FIRST_BYTE)
    # A server that serves again has been given a derived class before.
    wanted = wanted.__dict__.get(_PLAIN, wanted)
    return _adopt_class(wanted)


def _is_plain(base: type[Any]) -> bool:
    if base in _CLASSES or base is object:
        return True
    return not any(trick in base.__dict__ for trick in _TRICKS)


def _derive(cls: type[Any], members: dict[str, Any]) -> type[Any]:
    names = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        _PLAIN: cls,
    }

    def fill(namespace: dict[str, Any]) -> None:
        namespace.update(names | members)

    try:
        derived: type[Any] = types.new_class(cls.__name__, (cls,), {}, fill)
    except Exception:
        return cls  # its metaclass or __init_subclass__ will not have it
    return derived
