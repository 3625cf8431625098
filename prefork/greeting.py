"""What a person sees at start: what is served, where it can be reached, how to stop.

The master, before serving, and only when stdout is a terminal.
"""

import ipaddress
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import psutil

from prefork import log
from prefork.columns import width_of
from prefork.qr import code_of, painted
from prefork.sockets import Endpoint
from prefork.target import Kind

#: A name that mDNS does not know answers late; nobody waits longer for a greeting.
_MDNS_WAIT_S: Final = 0.6

_GAP: Final = 2  # columns between the lines and the code

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


def code_url(urls: Sequence[str]) -> str | None:
    """Return the URL for a phone in the same network, of all that are shown; None: there is none.

    The address that this machine has for the rest of the world, then other
    private IPv4 ones, IPv4, IPv6; a name only where there is no address, for
    not every phone asks mDNS.
    """
    routed = _routed_address()

    def rank(url: str) -> tuple[bool, ...]:
        host = (urlsplit(url).hostname or "").partition("%")[0]
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            return (True,)
        return (False, host != routed, ip.version != 4, ip.is_link_local, not ip.is_private)

    shown = [url for url in urls if url.startswith("http:") and not _is_loopback(url)]
    return min(shown, key=rank, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a greeting says. how: the share is shared; "" for others. code_url: None for no code."""

    version: str
    what: str
    how: str = ""
    urls: Sequence[str]
    workers: int
    code_url: str | None = None


class Screen(NamedTuple):
    """A terminal. columns, rows: 0 if unknown."""

    columns: int
    rows: int
    has_colour: bool


def greeting(shown: Shown, screen: Screen) -> str:
    """Return the text for the terminal, with its final newline.

    The code stands beside the other lines or, where these are too long, below;
    if there is no room for all of it, it is left out.
    """
    lines = _lines(shown, screen, shown.code_url)
    code = code_of(shown.code_url) if shown.code_url and screen.columns else []
    wide = max(width_of(plain) for plain, _ in lines)
    gap = _GAP + len(code[0]) if code else 0
    # The cursor has a row of its own.
    beside = code and wide + gap <= screen.columns and max(len(code), len(lines)) < screen.rows
    below = code and len(code[0]) <= screen.columns and len(code) + len(lines) < screen.rows
    drawn = [painted(line) for line in code] if screen.has_colour else code
    if beside:
        rows = zip_longest(lines, drawn, fillvalue=None)
        return "".join(_row(line or ("", ""), wide, part) for line, part in rows)
    if not below:
        lines, drawn = _lines(shown, screen, None), []
    return "".join(f"{line}\n" for line in [*(text for _, text in lines), *drawn])


def _row(line: tuple[str, str], wide: int, part: str | None) -> str:
    plain, text = line
    return f"{text}\n" if part is None else f"{text}{' ' * (wide - width_of(plain) + _GAP)}{part}\n"


def _lines(shown: Shown, screen: Screen, marked: str | None) -> list[tuple[str, str]]:
    """Return each line as it is read, and as it is written, with colours; marked: a URL."""
    bold, green, end = ("\x1b[1m", "\x1b[32m", "\x1b[0m") if screen.has_colour else ("", "", "")
    title, what = f"prefork {shown.version}", log.printable(shown.what)
    lines = [
        (title, f"{bold}{title}{end}"),
        (f"Serving {what}", f"Serving {bold}{what}{end}"),
    ]
    if shown.how:
        lines.append((f"    {shown.how}", f"    {shown.how}"))
    for url in map(log.printable, shown.urls):
        mark = "  (QR code)" if url == marked else ""
        lines.append((f"    {url}{mark}", f"    {green}{url}{end}{mark}"))
    processes = f"{shown.workers} worker process{'' if shown.workers == 1 else 'es'}"
    last = f"by {processes}. Press Ctrl-C to stop."
    return [*lines, (last, last)]


def _url(kind: Kind, host: str, port: int) -> str:
    shown = f"[{host.replace('%', '%25')}]" if ":" in host else host  # RFC 6874: the zone's %
    return f"{_SCHEMES[kind]}://{shown}:{port}{'/' if kind is Kind.HTTP else ''}"


def _is_loopback(url: str) -> bool:
    host = url.partition("://")[2]
    return host.startswith(("127.", "[::1]", "localhost:"))


def _routed_address() -> str | None:
    """Return the address that packets for the rest of the world would have; none is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # of no network there is (RFC 5737)
        except OSError:  # there is no way out
            return None
        return str(sock.getsockname()[0])


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
