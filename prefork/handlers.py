"""What the options of the command line make of a handler: a class derived from it.

The master, before serving. The class that was named is never changed; where no
option asks for anything, it is served itself.
"""

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler
from typing import Any, Final

from prefork.errors import UsageError
from prefork.files import FolderOptions
from prefork.http import folder
from prefork.target import Target

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_FIELD_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110 §5.5
_VERSION: Final = re.compile(r"HTTP/1\.[01]")  # RFC 9112 §2.3; those that http.server speaks
_MEDIA_TYPE: Final = re.compile(  # RFC 9110 §8.3.1
    rf"{_TOKEN.pattern}/{_TOKEN.pattern}[\t ]*(;{_FIELD_VALUE.pattern})?"
)


@dataclass(frozen=True)
class HandlerOptions:
    """As typed; None and empty mean that nothing was."""

    directory: str | None
    protocol: str | None
    headers: Sequence[tuple[str, str]]
    content_type: str | None
    access_log: bool


def configured(target: Target, options: HandlerOptions) -> Target:
    """Return the target with the options applied to its handler.

    Raises: UsageError for a malformed value, and for an option that this
    handler could not follow.
    """
    handler_class = target.handler_class
    bases: tuple[type[Any], ...] = (handler_class,)
    variables: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    if options.protocol is not None:
        _require(target, BaseHTTPRequestHandler, "-p/--protocol")
        _check(_VERSION, "-p/--protocol", options.protocol, "HTTP/1.0 or HTTP/1.1")
        variables["protocol_version"] = options.protocol
    if options.directory is not None:
        _require(target, SimpleHTTPRequestHandler, "-d/--directory")
        arguments["directory"] = options.directory
    if options.headers or options.content_type is not None:
        _require(target, SimpleHTTPRequestHandler, "-H/--header and --content-type")
        if not issubclass(handler_class, (FolderOptions, folder.SimpleHTTPRequestHandler)):
            bases = (FolderOptions, handler_class)
    if options.headers:
        for name, value in options.headers:
            _check(_TOKEN, "-H/--header", name, "the name of a header")
            _check(_FIELD_VALUE, f"-H/--header {name}", value, "one line of printable characters")
        arguments["extra_response_headers"] = tuple(options.headers)
    if options.content_type is not None:
        _check(_MEDIA_TYPE, "--content-type", options.content_type, "a type such as text/plain")
        variables["default_content_type"] = options.content_type
    if not options.access_log and _logs_plainly(handler_class):
        variables["log_request"] = _log_nothing
    if variables or len(bases) > 1:
        names = {"__module__": handler_class.__module__, "__doc__": handler_class.__doc__}
        handler_class = type(handler_class.__name__, bases, names | variables)
    return replace(target, handler=_callable(target.handler, handler_class, arguments))


def _callable(named: Any, handler_class: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    if isinstance(named, functools.partial):
        return functools.partial(handler_class, *named.args, **(named.keywords | arguments))
    return functools.partial(handler_class, **arguments) if arguments else handler_class


def _require(target: Target, base: type[Any], option: str) -> None:
    if not issubclass(target.handler_class, base):
        raise UsageError(
            f"{option}: {target.name} is not derived from http.server.{base.__name__},"
            " which alone knows this"
        )


def _check(pattern: re.Pattern[str], option: str, value: str, expected: str) -> None:
    if not pattern.fullmatch(value):
        raise UsageError(f"{option}: expected {expected}, not {value!r}")


def _logs_plainly(handler_class: type[Any]) -> bool:
    plain = BaseHTTPRequestHandler.log_request
    return getattr(handler_class, "log_request", None) is plain


def _log_nothing(handler: object, code: object = "-", size: object = "-") -> None:
    """Stand in for `log_request` where nobody wants an access log."""
