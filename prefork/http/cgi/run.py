"""One request answered by a script, from its start to its end.

A worker, in the thread of the handler. Whatever goes wrong, the client is told,
the log is told, and the process is gone.
"""

import contextlib
import errno
import math
import os
import select
import socket
import threading
import time
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from prefork import log
from prefork.http.cgi.environ import environ_of
from prefork.http.cgi.feed import Feed, feed_of
from prefork.http.cgi.output import HeadReader, OutputError
from prefork.http.cgi.process import Process, user_of
from prefork.http.cgi.relay import Client, End, Patience, Relay
from prefork.http.cgi.scripts import Script
from prefork.http.cgi.sender import Sender
from prefork.http.cgi.words import Words
from prefork.http.lazy import connection_of
from prefork.http.response import HEAD
from prefork.http.wire import WireError
from prefork.shortage import SHORTAGE

#: How long a script that has closed its stdout is waited for, before a thread does that.
_EXIT_S: Final = 0.1
#: What is the machine's fault, or a moment's.
_SHORTAGE: Final = SHORTAGE | {errno.ENOSPC, errno.EDQUOT}
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Limits(NamedTuple):
    """Seconds and bytes, as the handler class has them; None: none."""

    silent_s: float | None
    late_s: float | None
    header_bytes: int
    output_bytes: int | None


class Run:
    """handler: a CGIHTTPRequestHandler with a request. uid: whom to run as; None: as oneself."""

    def __init__(self, handler: Any, script: Script, limits: Limits, uid: int | None) -> None:
        self._handler = handler
        self._script = script
        self._limits = limits
        self._uid = uid
        self._connection = connection_of(handler)
        # Of its own: a script that goes on without its client outlives the connection.
        self._engine = None if self._connection is None else self._connection.engine
        self._words = Words(script.name)

    def run(self, command: list[str], *, has_body: bool) -> str:
        """Run it and answer; or return the path that shall be answered instead.

        Raises: OSError when the client has gone, TimeoutError when it stalls,
        WireError when it is wrong.
        """
        try:
            feed = feed_of(self._handler) if has_body else Feed(None)
        except ConnectionError:
            self._forget_client()
            return ""
        except TimeoutError:
            raise
        except OSError as error:  # of the file for the body
            self._refuse(error)
            return ""
        except WireError as error:
            if self._connection is not None:
                raise
            self._handler.send_error(error.status, error.reason or None)
            return ""
        try:
            process = self._start(command, feed)
            return "" if process is None else self._serve(process, feed)
        finally:
            feed.close_stdin()
            feed.close_pipe()

    def _start(self, command: list[str], feed: Feed) -> Process | None:
        environ = environ_of(self._handler, self._script, feed.length)
        folder = os.path.dirname(self._script.file)  # noqa: PTH120 # a str, and RFC 3875 §7.2
        try:
            user = None if self._uid is None else user_of(self._uid)
            process = Process(command, environ, folder, feed.stdin, user)
        except OSError as error:
            self._refuse(error)
            return None
        feed.close_stdin()
        if self._engine is not None:
            self._engine.programs.add(process.pid)
        return process

    def _refuse(self, error: OSError) -> None:
        """Answer that it could not be started; log why."""
        self._complain(error.strerror or str(error))
        if error.errno in _SHORTAGE:
            self._handler.send_error(HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            text = f"CGI script cannot be run ({self._script.name!a})"
            self._handler.send_error(HTTPStatus.FORBIDDEN, text)

    def _serve(self, process: Process, feed: Feed) -> str:
        handler, limits = self._handler, self._limits
        reader = HeadReader(limits.header_bytes, follows=handler.script_output_follows)
        sender = Sender(handler, reader, limits.output_bytes, raw=self._script.is_nph)
        relay = Relay(process, feed, self._client(), self._patience(), self._words)
        try:
            end = relay.run(sender.take)
            if end is End.DONE:
                sender.close()
        except OutputError as error:
            cause = self._stop(process, after_s=_EXIT_S)
            self._complain(str(error), cause)
            self._fail(sender, HTTPStatus.BAD_GATEWAY)
        except BaseException:
            self._stop(process)
            raise
        else:
            self._finish(process, sender, end)
        return sender.redirect if not sender.begun else ""

    def _finish(self, process: Process, sender: Sender, end: End) -> None:
        if end is End.DONE:
            self._let_go(process)
            return
        self._stop(process)
        if end is End.GONE:
            self._forget_client()
            return
        self._complain(end.value)
        self._fail(sender, HTTPStatus.GATEWAY_TIMEOUT)

    def _forget_client(self) -> None:
        """Take note that nobody waits for an answer."""
        log.debug("cgi.gone", script=self._script.name, client=self._handler.client_address)
        self._cut()

    def _fail(self, sender: Sender, status: HTTPStatus) -> None:
        sender.redirect = ""
        if sender.begun:
            self._cut()
        else:
            self._handler.send_error(status)

    def _cut(self) -> None:
        """Have the connection closed in such a way that nobody takes the answer for complete."""
        self._handler.close_connection = True
        if self._connection is not None:
            self._connection.failing = self._connection.over = True

    def _complain(self, reason: str, cause: str = "") -> None:
        more = {"ended": cause} if cause else {}
        log.warning("cgi.failed", script=self._script.name, reason=reason, **more)

    # -- its end -----------------------------------------------------------------

    def _stop(self, process: Process, after_s: float = 0.0) -> str:
        """End the process; return why it has ended, if that was by itself."""
        by_itself = process.wait(after_s)
        process.end()
        cause = self._reap(process)
        return cause if by_itself else ""

    def _let_go(self, process: Process) -> None:
        """See the process end; in a thread, if it goes on without its output."""
        if process.wait(_EXIT_S):
            self._reap_and_tell(process)
            return
        threading.Thread(target=self._outlive, args=(process,), name="cgi", daemon=True).start()

    def _outlive(self, process: Process) -> None:
        late_s = math.inf if self._limits.late_s is None else time.monotonic() + self._limits.late_s
        poll = select.poll()
        poll.register(process.pidfd, select.POLLIN)
        poll.register(process.stderr, select.POLLIN)
        while time.monotonic() < late_s:
            due_s = min(late_s, self._words.due_s)
            wait_ms = None if due_s == math.inf else max(0.0, due_s - time.monotonic()) * 1000
            ready = [fd for fd, _ in poll.poll(wait_ms)]
            if process.pidfd in ready:
                break
            if process.stderr in ready and not self._words.read(process.stderr):
                poll.unregister(process.stderr)
            self._words.tick(time.monotonic())
        else:
            process.end()
        self._reap_and_tell(process)

    def _reap(self, process: Process) -> str:
        self._words.close(process.stderr)
        if self._engine is not None:
            self._engine.programs.discard(process.pid)
        return process.reap()

    def _reap_and_tell(self, process: Process) -> None:
        cause = self._reap(process)
        if cause:
            log.warning("cgi.exited", script=self._script.name, cause=cause)

    # -- its client ----------------------------------------------------------------

    def _client(self) -> Client:
        connection = self._connection
        if connection is None:
            return Client(self._handler.connection.fileno(), _nothing, None)
        fd = socket.socket.fileno(connection.sock)
        return Client(fd, self._doubt, connection.desk)

    def _patience(self) -> Patience:
        connection, limits = self._connection, self._limits
        body_s = self._handler.timeout
        if connection is not None:
            body_s = connection.stall_s(connection.engine.limits.body_stall_s)
        return Patience(limits.silent_s, limits.late_s, body_s)

    def _doubt(self) -> None:
        """Say something that a client passes over, and one that has gone answers by a reset.

        RFC 9110 §15.2: any number of interim answers may come before the final one.
        """
        connection = self._connection
        if connection is None or connection.head is None:
            return
        if connection.response.mode == HEAD and connection.head.version == "HTTP/1.1":
            with contextlib.suppress(OSError):  # poll(2) tells
                connection.outbox.send(_CONTINUE)


def _nothing() -> None:
    """Without an engine nobody knows what has been said already."""
