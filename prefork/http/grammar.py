r"""The grammar of a request's head, as regular expressions on bytes.

A worker. After the ABNF of RFC 9110, 9112 and 3986. All are linear in time:
what repeats is possessive, or bounded by a number. Never converts anything.

More tolerant than the RFCs only for clients that exist: any of "<>\^`{|}# and
raw bytes above 0x7f in a target, a zone in an IPv6 Host.
"""

import functools
import re
from typing import Final


def compiled(pattern: str) -> re.Pattern[bytes]:
    """Compile an ASCII pattern for bytes."""
    return re.compile(pattern.encode("ascii"))


TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"  # noqa: S105 # RFC 9110 §5.6.2, no password
TEXT: Final = r"[\t\x20-\x7e\x80-\xff]*+"  # a field value with its white space, §5.5
_VISIBLE: Final = r"[\x21-\x7e\x80-\xff]*+"
# RFC 3986 §3.2.2. The zone is RFC 6874's; http.client before 3.12 sends it with a bare percent.
_H16: Final = r"[0-9A-Fa-f]{1,4}"
_OCTET: Final = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_LS32: Final = rf"(?:{_H16}:{_H16}|(?:{_OCTET}\.){{3}}{_OCTET})"
_IPV6: Final = "|".join(
    [rf"(?:{_H16}:){{6}}{_LS32}", rf"::(?:{_H16}:){{5}}{_LS32}"]
    + [
        rf"(?:(?:{_H16}:){{0,{left}}}{_H16})?::(?:{_H16}:){{{4 - left}}}{_LS32}"
        for left in range(5)
    ]
    + [rf"(?:(?:{_H16}:){{0,5}}{_H16})?::{_H16}", rf"(?:(?:{_H16}:){{0,6}}{_H16})?::"]
)
_LITERAL: Final = (
    rf"\[(?:(?:{_IPV6})(?:%[0-9A-Za-z._~%-]+)?|[vV][0-9A-Fa-f]+\.[0-9A-Za-z._~!$&'()*+,;=:-]+)\]"
)
_PLAIN: Final = r"[0-9A-Za-z._~!$&'()*+,;=-]*+"
_NAME: Final = rf"{_PLAIN}(?:%[0-9A-Fa-f]{{2}}{_PLAIN})*+"
_AUTHORITY: Final = rf"(?:{_LITERAL}|(?=[^:/?# ]){_NAME})"  # a host that is not empty

# RFC 9112 §3.2.1, origin-form: nearly all requests. CONNECT alone may not have it.
_ORIGIN: Final = rf"((?!CONNECT ){TOKEN} /{_VISIBLE} HTTP/1\.[0-9])"
_OTHER: Final = (
    rf"((?!CONNECT ){TOKEN} [Hh][Tt][Tt][Pp][Ss]?://{_AUTHORITY}(?::[0-9]*+)?(?:[/?#]{_VISIBLE})?"
    r" HTTP/1\.[0-9]"  # §3.2.2, absolute-form; without a user name, RFC 9110 §4.2.4
    rf"|CONNECT {_AUTHORITY}:[0-9]++ HTTP/1\.[0-9]"  # §3.2.3, authority-form
    r"|OPTIONS \* HTTP/1\.[0-9])"  # §3.2.4, asterisk-form
)
_BLOCK: Final = rf"\r\n((?:{TOKEN}:{TEXT}\r\n)*+\r\n)"
ORIGIN_HEAD: Final = compiled(_ORIGIN + _BLOCK)


@functools.cache
def other_head() -> re.Pattern[bytes]:
    """Return the pattern of a head in the rarer forms, compiled when a client first needs it."""
    return compiled(_OTHER + _BLOCK)


@functools.cache
def request_line() -> re.Pattern[bytes]:
    """Return the pattern of a request line in any form, for what is no good head; likewise."""
    return compiled(f"{_ORIGIN}|{_OTHER}")


VERSION: Final = compiled(r"HTTP/1\.[0-9]")
LATER_VERSION: Final = compiled(r"HTTP/((?!1\.)[1-9][0-9]{0,9}\.[0-9]{1,10})")
FIELD_SO_FAR: Final = compiled(rf"(?:{TOKEN}(?::{TEXT})?+)?+")
CONTROL: Final = compiled(r"[\x00-\x08\x0a-\x1f\x7f]")
CONTROL_OR_TAB: Final = compiled(r"[\x00-\x1f\x7f]")

# The fields that say where the request ends and what becomes of the connection.
# Spelled in both cases, because (?i:) tries every name at every line: half of the time.
TELLING: Final = compiled(
    r"\n([Hh][Oo][Ss][Tt]|[Ee][Xx][Pp][Ee][Cc][Tt]|[Uu][Pp][Gg][Rr][Aa][Dd][Ee]"
    r"|[Cc][Oo][Nn](?:[Nn][Ee][Cc][Tt][Ii][Oo][Nn]|[Tt][Ee][Nn][Tt]-[Ll][Ee][Nn][Gg][Tt][Hh])"
    r"|[Tt][Rr][Aa][Nn][Ss][Ff][Ee][Rr]-[Ee][Nn][Cc][Oo][Dd][Ii][Nn][Gg]):[ \t]*+([^\r]*+)"
)
CONDITION: Final = compiled(r"\n[Ii][Ff]-")  # RFC 9110 §13.1
HOST: Final = compiled(rf"(?:{_LITERAL}|{_NAME})(?::[0-9]*+)?")  # RFC 9110 §7.2; may be empty
DIGITS: Final = compiled(r"[0-9]{1,18}")  # below 2**63; a longer number is nobody's file
CODINGS: Final = compiled(rf"{TOKEN}(?:[ \t]*+,[ \t]*+{TOKEN})*+")
