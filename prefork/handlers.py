"""What the options of the command line make of a handler: a class derived from it.

The master, before serving. The class that was named is never changed; where no
option asks for anything, it is served itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler
from typing import Any, Final

from prefork.config.kind import Kind
from prefork.config.known import FieldValue, HostName, MediaType, Token, Version
from prefork.errors import UsageError
from prefork.options import derived
from prefork.share.handler import ShareRequestHandler
from prefork.target import Target


@dataclass(frozen=True)
class HandlerOptions:
    """As typed; None and empty mean that nothing was."""

    directory: str | None
    protocol: str | None
    headers: Sequence[tuple[str, str]]
    content_type: str | None
    access_log: bool
    share: Mapping[str, Any] = field(default_factory=dict)  #: variables of ShareRequestHandler


def configured(target: Target, options: HandlerOptions) -> Target:
    """Return the target with the options applied to its handler.

    Raises: UsageError for a malformed value, and for an option that this
    handler could not follow.
    """
    handler_class = target.handler_class
    variables: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    if options.protocol is not None:
        _require(target, BaseHTTPRequestHandler, "-p/--protocol")
        _check(Version, "-p/--protocol", options.protocol, "HTTP/1.0 or HTTP/1.1")
        variables["protocol_version"] = options.protocol
    if options.directory is not None:
        _require(target, SimpleHTTPRequestHandler, "-d/--directory")
        arguments["directory"] = options.directory
    if options.headers or options.content_type is not None:
        _require(target, SimpleHTTPRequestHandler, "-H/--header and --content-type")
    if options.headers:
        for name, value in options.headers:
            _check(Token, "-H/--header", name, "the name of a header")
            _check(FieldValue, f"-H/--header {name}", value, "one line of printable characters")
        arguments["extra_response_headers"] = tuple(options.headers)
    if options.content_type is not None:
        _check(MediaType, "--content-type", options.content_type, "a type such as text/plain")
        variables["default_content_type"] = options.content_type
    variables |= _share_variables(target, options.share)
    if not options.access_log and _logs_plainly(handler_class):
        variables["log_request"] = _log_nothing
    return replace(target, handler=derived(target.handler, variables, arguments))


#: The words of a share's variables on the command line.
_SHARE: Final = {
    "hidden": "--hidden",
    "symlinks": "--symlinks",
    "trusted": "--trusted",
    "spa": "--spa",
    "allowed_hosts": "--allowed-host",
}


def _share_variables(target: Target, said: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in said.items() if value not in (None, False)}
    if given and not issubclass(target.handler_class, ShareRequestHandler):
        words = " and ".join(_SHARE[name] for name in given)
        raise UsageError(
            f"{words}: {target.name} is not served by prefork.share.ShareRequestHandler,"
            " which alone knows this"
        )
    for name in given.get("allowed_hosts", ()):
        _check(HostName, "--allowed-host", name, "a name such as files.example.org, or '*'")
    return given


def _require(target: Target, base: type[Any], option: str) -> None:
    if not issubclass(target.handler_class, base):
        raise UsageError(
            f"{option}: {target.name} is not derived from http.server.{base.__name__},"
            " which alone knows this"
        )


def _check(form: Any, option: str, value: str, expected: str) -> None:
    if not Kind(form).accepts(value):
        raise UsageError(f"{option}: expected {expected}, not {value!r}")


def _logs_plainly(handler_class: type[Any]) -> bool:
    plain = BaseHTTPRequestHandler.log_request
    return getattr(handler_class, "log_request", None) is plain


def _log_nothing(handler: object, code: object = "-", size: object = "-") -> None:
    """Stand in for `log_request` where nobody wants an access log."""
