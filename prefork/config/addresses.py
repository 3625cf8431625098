"""The words for a place to listen at: `host:port`, `unix:`, `systemd:`, `fd:`.

Any process. Pure: it asks neither the DNS nor the kernel.
"""

import ipaddress
import os
import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from prefork.config.problems import WrongValueError, quoted

_PATH_BYTES: Final = 107  # unix(7): 108 with the NUL
_PORT: Final = re.compile(r"[0-9]{1,5}")
_HOST: Final = re.compile(r"[0-9A-Za-z_]([0-9A-Za-z_.-]*[0-9A-Za-z_])?\.?")
_FD_NAME: Final = re.compile(r"[\x21-\x39\x3b-\x7e]{1,255}")  # sd_listen_fds_with_names(3)
_LEAST_FD: Final = 3  # 0, 1 and 2 are the standard streams


class Place(Enum):
    """What kind of address it is."""

    HOST = "host"
    UNIX = "unix"
    SYSTEMD = "systemd"
    FD = "fd"


@dataclass(frozen=True, slots=True)
class Address:
    """One parsed address.

    name: a host, without brackets ("*": all interfaces, IPv4 and IPv6); a path,
    or "@" and a name in the abstract namespace; the name of systemd's socket.
    number: a port (0: any free one) or a file descriptor.
    """

    place: Place
    name: str = ""
    number: int = 0

    def __str__(self) -> str:
        match self.place:
            case Place.HOST:
                host = f"[{self.name}]" if ":" in self.name else self.name
                return f"{host}:{self.number}"
            case Place.FD:
                return f"fd:{self.number}"
        return f"{self.place.value}:{self.name}"

    @property
    def is_path(self) -> bool:
        """Tell whether it has an entry in the file system."""
        return self.place is Place.UNIX and not self.name.startswith("@")


def parse_address(text: str) -> Address:
    """Return what an address of `bind` means.

    Raises: WrongValueError with the reason, and what was probably meant.
    """
    scheme, colon, rest = text.partition(":")
    if text != text.strip():
        raise WrongValueError("it has blanks around it", quoted(text.strip()))
    if rest.startswith("//"):
        raise _url(scheme, rest[2:])
    if colon and scheme == "unix":
        return _unix(rest)
    if colon and scheme == "systemd":
        if not _FD_NAME.fullmatch(rest):
            raise WrongValueError("no name of a socket follows systemd:")
        return Address(Place.SYSTEMD, rest)
    if colon and scheme == "fd":
        if not _PORT.fullmatch(rest) or int(rest) < _LEAST_FD:
            raise WrongValueError("a number from 3 must follow fd:")
        return Address(Place.FD, number=int(rest))
    if text.startswith(("/", "./", "@")):
        raise WrongValueError("a Unix socket begins with unix:", quoted(f"unix:{text}"))
    return _host_and_port(text)


def _url(scheme: str, rest: str) -> WrongValueError:
    if scheme == "unix":
        return WrongValueError("it is a URL", quoted(f"unix:{rest}"))
    place = rest.partition("/")[0]
    if place and not place.rpartition(":")[1]:
        place += ":443" if scheme == "https" else ":80"
    return WrongValueError("it is a URL", quoted(place) if place else None)


def _unix(name: str) -> Address:
    if name in ("", "@"):
        raise WrongValueError("no path follows unix:")
    if len(os.fsencode(name)) > _PATH_BYTES:
        raise WrongValueError(f"a socket's path has at most {_PATH_BYTES} bytes")
    return Address(Place.UNIX, name)


def _host_and_port(text: str) -> Address:
    if text.isdecimal() and text.isascii():
        raise WrongValueError("it is a port alone", quoted(f"*:{text}"))
    host, colon, port = text.rpartition(":")
    if text.count(":") > 1 and not (host.endswith("]") or text.endswith("]")):
        raise _bare_ipv6(text, host, port)
    if not colon or text.endswith("]"):
        raise WrongValueError("it has no port", quoted(f"{text}:8000") if text else None)
    if not _PORT.fullmatch(port):
        raise WrongValueError(f"{quoted(port)} is no port" if port else "it has no port")
    if int(port) > 65535:
        raise WrongValueError("the port is above 65535")
    if host == "":
        raise WrongValueError("it has no host; all interfaces are *", quoted(f"*:{port}"))
    return Address(Place.HOST, _host(host), int(port))


def _bare_ipv6(text: str, host: str, port: str) -> WrongValueError:
    for bare, number in ((host, port), (text, "8000")):
        if _is_ipv6(bare):
            return WrongValueError("IPv6 stands in brackets", quoted(f"[{bare}]:{number}"))
    return WrongValueError("it has too many colons")


def _host(host: str) -> str:
    if host == "*":
        return host
    if host.startswith("[") and host.endswith("]"):
        if not _is_ipv6(host[1:-1]):
            raise WrongValueError(f"{quoted(host[1:-1])} is no IPv6 address")
        return host[1:-1]
    if not _HOST.fullmatch(host):
        raise WrongValueError(f"{quoted(host)} is no host")
    if host.replace(".", "").isdecimal():
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise WrongValueError(f"{quoted(host)} is no IPv4 address") from None
    return host


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
