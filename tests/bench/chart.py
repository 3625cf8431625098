"""The chart of the README: bars of requests per second, drawn as SVG text.

Its colours are read on white and on black.
"""

from html import escape

SHOWN = ("hello", "wsgi-hello", "wsgi-threads", "static-1k", "cgi")
WIDTH = 720
NAME_WIDTH = 250
BAR_WIDTH = 310
LINE = 20  # pixels, as all of these
GAP = 34
OURS, THEIRS, TEXT = "#2f81f7", "#8b949e", "#768390"


def chart(results: list[dict], about: dict) -> str:
    """Return the SVG of the workloads that are SHOWN; a server that is missing has no bar."""
    parts = []
    top = 0
    for result in results:
        if result["workload"] in SHOWN:
            drawn, height = _panel(result, top)
            parts += drawn
            top += height
    versions = ", ".join(f"{name} {about[name]}" for name in ("python", "nginx", "kernel"))
    note = f"One processor for the server, one worker process. {versions}."
    parts.append(_text(0, top + 4, note, size=11))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 12}"'
        f' width="{WIDTH}" font-family="system-ui, sans-serif" fill="{TEXT}">\n'
        "<title>Requests per second of prefork and its peers</title>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _panel(result: dict, top: int) -> tuple[list[str], int]:
    servers = [server for server in result["servers"] if server["median"]]
    servers.sort(key=lambda server: -server["median"]["rate"])
    title = f"{result['title']}: requests/s (microseconds of CPU for each)"
    parts = [_text(0, top + 14, title, weight="600")]
    most = max((server["median"]["rate"] for server in servers), default=1)
    y = top + 24
    for server in servers:
        rate, cost_us = server["median"]["rate"], server["median"]["cost_us"]
        colour = OURS if server["name"].lower().startswith("prefork") else THEIRS
        width = max(1, round(BAR_WIDTH * rate / most))
        parts += [
            _text(NAME_WIDTH - 8, y + 13, server["name"], anchor="end"),
            f'<rect x="{NAME_WIDTH}" y="{y + 2}" width="{width}" height="15" fill="{colour}"/>',
            _text(NAME_WIDTH + width + 8, y + 13, f"{rate:,.0f}  ({cost_us:,.0f} µs)"),
        ]
        y += LINE
    return parts, y - top + GAP - LINE


def _text(x: int, y: int, text: str, *, size=13, weight="400", anchor="start") -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}"'
        f' text-anchor="{anchor}">{escape(text)}</text>'
    )
