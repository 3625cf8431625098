"""What a client says about itself and its wishes, in the fields of its request.

A worker. It reads, and decides nothing.
"""

from collections.abc import Mapping
from typing import Any

from prefork.http.lazy import CONNECTION
from prefork.http.wire import joined


def fields_of(handler: Any) -> Mapping[str, str]:
    """Return the fields of the request in hand: names in lower case, repeated ones joined."""
    connection = handler.__dict__.get(CONNECTION)
    head = None if connection is None else connection.head
    if head is not None:
        values: dict[str, str] = head.values
        return values
    headers = getattr(handler, "headers", None)
    return {} if headers is None else joined(headers.items())


def prefers(fields: Mapping[str, str], media_type: str) -> bool:
    """Tell whether Accept names a type, and the client is no browser that wants a page."""
    accept = fields.get("accept", "").lower()
    return media_type in accept and "text/html" not in accept


def wants_page(fields: Mapping[str, str]) -> bool:
    """Tell whether a person looks at the answer, in a browser."""
    return "text/html" in fields.get("accept", "").lower()
