"""What an error looks like to a client.

A worker. Pure.
"""

from prefork.share.render import ERROR_POLICY, HTML, error_page


def error_of(
    code: int, title: str, text: str, *, page: bool
) -> tuple[str, list[tuple[str, str]], bytes]:
    """Return its Content-Type, further headers, and its body. page: for a browser."""
    if page:
        return HTML, [ERROR_POLICY], error_page(code, title, text)
    return "text/plain; charset=utf-8", [], f"{code} {title}: {text}\n".encode()
