"""What a script answers, given to the client by the hooks of its handler.

A worker, in the thread of the handler. It never looks at the script itself.
"""

from typing import Any

from prefork.http.cgi.output import Answer, HeadReader, OutputError, status_of
from prefork.http.lazy import connection_of


class Sender:
    """begun: the client has been sent something. redirect: what shall be answered instead, or "".

    most_bytes: of the answer's body; None: any. raw: the script speaks HTTP itself.
    """

    def __init__(
        self, handler: Any, reader: HeadReader, most_bytes: int | None, *, raw: bool
    ) -> None:
        self._handler = handler
        self._reader = reader
        self._left_bytes = most_bytes
        self._raw = raw
        self._drops = False
        self.begun = False
        self.redirect = ""

    def take(self, data: bytes, is_all: bool) -> None:
        """Send what the script has said; is_all: and it will not say more.

        Raises: OutputError, if that is no answer; OSError when the client has
        gone, TimeoutError when it stalls.
        """
        if self._drops:
            self._count(data)
        elif self.begun:
            self._send(data)
            if is_all:
                self._end_body()
        elif self._raw:
            self._begin_raw(data)
        elif found := self._reader.feed(data):
            answer, body = found
            if is_all and self._handler.command != "HEAD":
                answer = answer.with_length(len(body))
            self._begin(answer)
            if body:
                self.take(body, is_all)

    def close(self) -> None:
        """Take note that the script has said all.

        Raises: OutputError, if that is no answer.
        """
        if not self.begun and not self.redirect:
            self._reader.close()

    def _begin(self, answer: Answer) -> None:
        if answer.redirect:
            self.redirect = answer.redirect
            self._drops = True
            return
        handler = self._handler
        handler.send_response(answer.status, answer.reason or None)
        for name, value in answer.fields:
            handler.send_header(name, value)
        self.begun = True
        handler.end_headers()
        self._drops = handler.command == "HEAD"

    def _begin_raw(self, data: bytes) -> None:
        handler = self._handler
        connection = connection_of(handler)
        handler.log_request(status_of(data) or "-")
        self.begun = handler.close_connection = True
        if connection is not None:
            connection.make_way()
            connection.response.status = status_of(data)
        self._send(data)

    def _send(self, data: bytes) -> None:
        self._count(data)
        self._handler.wfile.write(data)

    def _end_body(self) -> None:
        """Tell the client that this is all: it may wait for that before it sends the rest."""
        handler = self._handler
        handler.wfile.flush()
        connection = connection_of(handler)
        if connection is not None:
            connection.response.end_body()

    def _count(self, data: bytes) -> None:
        if self._left_bytes is None:
            return
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise OutputError("it says more than it may")
