"""What a person sees at start: what is served, where it can be reached, how to stop.

The master, before serving, and only when stdout is a terminal.
"""

import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

import psutil

from prefork import log
from prefork.sockets import Endpoint
from prefork.target import Kind

#: A name that mDNS does not know answers late; nobody waits longer for a greeting.
_MDNS_WAIT_S: Final = 0.6

_SCHEMES: Final = {Kind.HTTP: "http", Kind.STREAM: "tcp", Kind.DATAGRAM: "udp"}


def reachable_urls(kind: Kind, endpoints: Sequence[Endpoint]) -> list[str]:
    """Return every URL of the endpoints, those for this machine alone last.

    An endpoint on all interfaces gives one for each address of each interface
    that is up, and `HOSTNAME.local` if that name leads to one of them.
    """
    urls: list[str] = []
    own: dict[socket.AddressFamily, list[str]] | None = None
    for endpoint in endpoints:
        if endpoint.family == socket.AF_UNIX:
            urls.append(str(endpoint))
            continue
        host, port = endpoint.address[:2]
        if host not in ("0.0.0.0", "::"):
            urls.append(_url(kind, endpoint.zoned_host, port))
            continue
        own = own or _own_addresses()
        families = [endpoint.family]
        if endpoint.v6only is False:
            families.insert(0, socket.AF_INET)
        addresses = [address for family in families for address in own[family]]
        if kind is Kind.HTTP and (name := _local_name(addresses)):
            urls.append(_url(kind, name, port))
        urls += [_url(kind, address, port) for address in addresses]
    return sorted(dict.fromkeys(urls), key=_is_loopback)


def greeting(version: str, what: str, urls: Sequence[str], workers: int, *, colour: bool) -> str:
    """Return the text for the terminal, with its final newline."""
    bold, green, plain = ("\x1b[1m", "\x1b[32m", "\x1b[0m") if colour else ("", "", "")
    lines = [
        f"{bold}prefork {version}{plain}",
        f"Serving {bold}{log.printable(what)}{plain}",
        *(f"    {green}{log.printable(url)}{plain}" for url in urls),
        f"by {workers} worker process{'' if workers == 1 else 'es'}. Press Ctrl-C to stop.",
    ]
    return "\n".join(lines) + "\n"


def _url(kind: Kind, host: str, port: int) -> str:
    shown = f"[{host.replace('%', '%25')}]" if ":" in host else host  # RFC 6874: the zone's %
    return f"{_SCHEMES[kind]}://{shown}:{port}{'/' if kind is Kind.HTTP else ''}"


def _is_loopback(url: str) -> bool:
    host = url.partition("://")[2]
    return host.startswith(("127.", "[::1]", "localhost:"))


def _own_addresses() -> dict[socket.AddressFamily, list[str]]:
    """Return the addresses of the interfaces that are up, without link-local IPv6 ones.

    A link-local URL needs a zone that differs from machine to machine, and no
    browser takes it.
    """
    found: dict[socket.AddressFamily, list[str]] = {socket.AF_INET: [], socket.AF_INET6: []}
    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    for name, addresses in psutil.net_if_addrs().items():
        for entry in addresses:
            family = socket.AddressFamily(entry.family)
            if name in up and family in found and not entry.address.startswith("fe80:"):
                found[family].append(entry.address)
    return found


def _local_name(addresses: Sequence[str]) -> str | None:
    """Return HOSTNAME.local if it resolves, by mDNS or otherwise, to one of the addresses.

    In a process of its own: getaddrinfo() cannot be interrupted, and a thread
    that still waits in it must not be there when workers are forked.
    """
    host = socket.gethostname()
    name = host if host.endswith(".local") else f"{host.partition('.')[0]}.local"
    code = "import socket,sys;print(*{i[4][0] for i in socket.getaddrinfo(sys.argv[1],None)})"
    try:
        answer = subprocess.run(  # noqa: S603 # our own interpreter and our own host's name
            [sys.executable, "-IS", "-c", code, name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_MDNS_WAIT_S,
            check=True,
            text=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return name if set(answer.split()) & set(addresses) else None
