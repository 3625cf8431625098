"""What an error looks like to a client.

A worker. Pure.
"""


def error_of(
    code: int,
    title: str,
    text: str,
    *,
    page: bool,  # noqa: ARG001 # for browsers, when there are pages
) -> tuple[str, list[tuple[str, str]], bytes]:
    """Return its Content-Type, further headers, and its body."""
    return "text/plain; charset=utf-8", [], f"{code} {title}: {text}\n".encode()
