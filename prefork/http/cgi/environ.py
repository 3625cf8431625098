"""The environment of a script: the meta-variables of RFC 3875 §4.1, and what an administrator adds.

A worker, in the thread of the handler. It is built anew: of the server's own
environment nothing but what the handler class names gets into a script. It
never believes a client about who it is.
"""

import base64
import binascii
import os
import re
from collections.abc import Mapping
from typing import Any, Final

from prefork.http import exchange
from prefork.http.cgi.scripts import Script, quote
from prefork.http.forwarded import Origin
from prefork.http.lazy import connection_of

#: No variable for these. Proxy would be HTTP_PROXY, which programs obey (CVE-2016-1000110); the
#: rest is between client and server (§4.1.18), or has a variable of its own.
_LEFT_OUT: Final = frozenset(
    {
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "expect",
        "keep-alive",
        "proxy",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# An underscore and a dash would make one variable of two fields: who guards the one is deceived by
# the other.
_NAME: Final = r"[0-9A-Za-z-]++"
_JOINED: Final = {"cookie": "; "}
_AUTHORITY: Final = r"(\[[0-9A-Fa-f:.]++\]|[0-9A-Za-z._~-]++)(?::([0-9]{1,5}))?"
_PORTS: Final = {"http": "80", "https": "443"}
#: What came from the client and was not unquoted is text of latin-1 that stands for its bytes.
_AS_THEY_CAME: Final = ("HTTP_", "CONTENT_", "QUERY_", "REQUEST_")
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


def environ_of(handler: Any, script: Script, length: int | None) -> dict[bytes, bytes]:
    """Return a script's environment.

    handler: a CGIHTTPRequestHandler with a request. length: of the body on
    stdin; None: it has none.
    """
    own = {name: os.environ[name] for name in handler.cgi_inherited if name in os.environ}
    found = {
        "PATH": _PATH,
        **own,
        **_fields(handler),
        **_request(handler, script),
        **_server(handler),
        **_client(handler),
    }
    if length is not None:
        found["CONTENT_LENGTH"] = str(length)
        kind = handler.headers.get("Content-Type")
        if kind is not None:
            found["CONTENT_TYPE"] = kind
    if handler.cgi_authorization:
        found |= _authorization(handler.headers.get("Authorization", ""))
    found |= {name: str(value) for name, value in handler.cgi_environment.items()}
    return _encoded(found)


def _request(handler: Any, script: Script) -> dict[str, str]:
    words = handler.requestline.split()
    found = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_METHOD": handler.command,
        "REQUEST_URI": words[1] if len(words) > 1 else handler.path,
        "SCRIPT_NAME": script.name,
        "SCRIPT_FILENAME": script.file,
        "DOCUMENT_ROOT": os.path.abspath(handler.translate_path("/")),  # noqa: PTH100 # as scripts
        "PATH_INFO": script.path_info,
        "QUERY_STRING": script.query,
        "REDIRECT_STATUS": "200",  # php-cgi runs for no one who does not say so
    }
    if script.path_info:
        found["PATH_TRANSLATED"] = handler.translate_path(quote(script.path_info))
    return found


def _server(handler: Any) -> dict[str, str]:
    """Return who is asked, and how: as trusted proxies say, else as the client does."""
    origin = _origin(handler)
    is_tls = hasattr(handler.request, "cipher")  # an ssl.SSLSocket
    scheme = (origin and origin.scheme) or ("https" if is_tls else "http")
    asked = (origin and origin.authority) or handler.headers.get("Host", "").strip()
    found = re.fullmatch(_AUTHORITY, asked)
    server = handler.server
    own_port = getattr(server, "server_port", 0)
    port = "" if origin is not None or not own_port else str(own_port)
    variables = {
        "SERVER_NAME": found[1] if found else str(getattr(server, "server_name", "localhost")),
        "SERVER_PORT": port or (found and found[2]) or _PORTS[scheme],
        "SERVER_PROTOCOL": handler.request_version or "HTTP/1.0",
        "SERVER_SOFTWARE": handler.version_string(),
        "REQUEST_SCHEME": scheme,
    }
    return variables | ({"HTTPS": "on"} if scheme == "https" else {})


def _origin(handler: Any) -> Origin | None:
    connection = connection_of(handler)
    return None if connection is None else exchange.told(connection)


def _client(handler: Any) -> dict[str, str]:
    address = handler.client_address
    host, port = address[:2] if isinstance(address, tuple) and len(address) > 1 else ("unix", 0)
    host = str(host).partition("%")[0]
    if host.startswith("::ffff:") and "." in host:
        host = host.removeprefix("::ffff:")  # an IPv4 client on a socket of both
    # §4.1.9: without a name, the address. Who looks names up overrides address_string().
    return {
        "REMOTE_ADDR": host,
        "REMOTE_HOST": handler.address_string(),
        "REMOTE_PORT": str(port),
    }


def _fields(handler: Any) -> dict[str, str]:
    found: dict[str, str] = {"HTTP_ACCEPT": ""}  # the stdlib's, which scripts may look up
    seen: set[str] = set()
    for name, value in handler.headers.items():
        key = name.lower()
        if key in _LEFT_OUT or not re.fullmatch(_NAME, key):
            continue
        variable = f"HTTP_{key.upper().replace('-', '_')}"
        if key in seen:
            found[variable] += _JOINED.get(key, ",") + value
        else:
            found[variable] = value
            seen.add(key)
    return found


def _authorization(said: str) -> dict[str, str]:
    """Return what the client says of itself, for a script that looks at the password."""
    scheme, _, credentials = said.strip().partition(" ")
    if not credentials:
        return {}
    found = {"HTTP_AUTHORIZATION": said, "AUTH_TYPE": scheme}
    if scheme.lower() == "basic":
        try:
            user, colon, _ = base64.b64decode(credentials.strip()).decode().partition(":")
        except (binascii.Error, ValueError):
            return found
        if colon:
            found["REMOTE_USER"] = user
    return found


def _encoded(variables: Mapping[str, str]) -> dict[bytes, bytes]:
    """Return variables as bytes; without those that no environment can hold."""
    return {
        name.encode(): _bytes_of(name, value)
        for name, value in variables.items()
        if "\0" not in value
    }


def _bytes_of(name: str, value: str) -> bytes:
    if name.startswith(_AS_THEY_CAME):
        try:
            return value.encode("latin-1")
        except UnicodeEncodeError:
            pass  # a program has put other text there
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair: no file has such a name
        return value.encode("utf-8", "replace")
