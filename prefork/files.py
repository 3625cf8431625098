"""3.15's options of SimpleHTTPRequestHandler, for classes derived from an older one.

A worker. `extra_response_headers` and `default_content_type` came to the
stdlib with 3.15; for the versions before, they are made of the hooks that all
have.
"""

import http.server
import io
import mimetypes
import os
import posixpath
import sys
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, BinaryIO


class _FolderOptions(http.server.SimpleHTTPRequestHandler):
    """The options, for a class derived from SimpleHTTPRequestHandler that follows.

    extra_response_headers: pairs of name and value, added to the answers that
    carry a file or a listing, unless such a header is there already.
    """

    #: For names that say nothing about the type of their content.
    default_content_type = "application/octet-stream"

    def __init__(
        self,
        *args: Any,
        extra_response_headers: Sequence[tuple[str, str]] = (),
        **kwargs: Any,
    ) -> None:
        self.extra_response_headers = extra_response_headers
        self._sends_head = False
        self._status: int = 0
        super().__init__(*args, **kwargs)

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        """Send the head of a file or listing; only there extra headers belong."""
        self._sends_head = True
        try:
            return super().send_head()
        finally:
            self._sends_head = False

    def send_response(self, code: int, message: str | None = None) -> None:
        """Begin an answer, and remember what kind it is."""
        self._status = code
        super().send_response(code, message)

    def end_headers(self) -> None:
        """End the head, with the extra headers if it is that of a file or listing."""
        if self._sends_head and self.extra_response_headers and self._status == HTTPStatus.OK:
            buffer = getattr(self, "_headers_buffer", [])  # HTTP/0.9 has no head
            there = {line.partition(b":")[0].lower() for line in buffer[1:]}
            for name, value in self.extra_response_headers:
                if name.lower().encode("latin-1") not in there:
                    self.send_header(name, value)
        super().end_headers()

    def guess_type(self, path: str | os.PathLike[str]) -> str:
        """Return the content type by the file's suffix, or `default_content_type`."""
        guessed = super().guess_type(path)
        if guessed != "application/octet-stream":
            return guessed
        # A known suffix (.bin) may mean that, too: only what nobody knows changes.
        suffix = posixpath.splitext(path)[1].lower()
        unknown = suffix not in self.extensions_map and mimetypes.guess_type(path)[0] is None
        return self.default_content_type if unknown else guessed


#: SimpleHTTPRequestHandler with the options, whichever Python it is of.
FolderOptions: type[http.server.SimpleHTTPRequestHandler] = (
    http.server.SimpleHTTPRequestHandler if sys.version_info >= (3, 15) else _FolderOptions
)
