"""Where log records go: a descriptor, syslog, the journal.

Master and workers, each with the descriptors that the master has opened. A
sink never raises and never waits for long: what cannot be written is counted,
and the count logged when writing works again.
"""

import errno
import fcntl
import logging
import os
import re
import select
import socket
import stat
import struct
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from email.utils import formatdate
from typing import Final

from prefork.errors import StartError
from prefork.logs.records import Text, event_of, new_record, severity_of

JOURNAL: Final = "/run/systemd/journal/socket"
SYSLOG: Final = "/dev/log"

_PATIENCE_S: Final = 1.0  # for a reader that is behind, the first time
_SYSLOG_BYTES: Final = 8192  # rsyslog cuts longer ones
_DAEMON: Final = 3  # syslog's facility for daemons (RFC 5424 §6.2.1)
# As systemd's own sd_journal_send() does it.
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
# Of a datagram socket whose reader has gone, or has come again.
_CUT_OFF: Final = (errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE)
_NOT_IN_NAMES: Final = re.compile(r"[^A-Z0-9]+")


class Sink(logging.Handler):
    """A handler that counts what it could not write."""

    def __init__(self) -> None:
        super().__init__()
        self._lost = 0
        self._why = ""

    @abstractmethod
    def put(self, record: logging.LogRecord) -> None:
        """Write a record. Raises: OSError when it cannot be written now."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, and before it how many were lost."""
        try:
            if self._lost:
                fields = {"lines": self._lost, "reason": self._why}
                self.put(new_record(logging.WARNING, "log.lines_lost", fields))
                self._lost = 0
            self.put(record)
        except OSError as error:
            self._lost += 1
            self._why = errno.errorcode.get(error.errno or 0, str(error))
        except Exception as error:  # a message that does not fit its arguments; ours are safe
            self._lost += 1
            self._why = f"{record.name}: {error}"


class DescriptorSink(Sink):
    """Lines to an open file, which may become another under the same number at any time."""

    def __init__(self, fd: int, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._fd = fd
        self._torn = False  # the last byte written was no line end
        self._patience = _Patience(fd)

    def put(self, record: logging.LogRecord) -> None:
        """Write a line; of a pipe's readers, one that is behind is waited for a little."""
        data = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
        mode = os.fstat(self._fd).st_mode
        # Of more than this a pipe may take some, and wait for the rest (pipe(7)).
        most = select.PIPE_BUF if stat.S_ISFIFO(mode) else len(data) + 1
        data = b"\n" * self._torn + data
        while data:
            if not stat.S_ISREG(mode):
                self._patience.wait()
            written = os.write(self._fd, data[:most])
            self._torn = data[written - 1] != 0x0A
            data = data[written:]


class SyslogSink(Sink):
    """Datagrams as syslog(3) sends them, tracebacks in lines of their own.

    Rejected: `logging.handlers.SysLogHandler`, which waits for ever for a
    daemon that does not read, and would stop the master with it.
    Raises: StartError if nobody listens.
    """

    def __init__(self, formatter: logging.Formatter, path: str = SYSLOG) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._channel = _Channel("syslog", path)

    def put(self, record: logging.LogRecord) -> None:
        """Send a record (RFC 3164 without host, which the daemon adds)."""
        _, day, month, _, clock, _ = formatdate(record.created, localtime=True).split()
        head = (
            f"<{_DAEMON * 8 + severity_of(record.levelno)}>{month} {int(day):2} {clock}"
            f" prefork[{record.process}]: "
        )
        for line in self.format(record).splitlines():
            data = (head + line).encode("utf-8", "backslashreplace")[:_SYSLOG_BYTES]
            self._channel.send(data)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()
        super().close()


class JournalSink(Sink):
    """Native records of systemd's journal: PREFORK_EVENT, PREFORK_<field>, MESSAGE ...

    Source: systemd.io/JOURNAL_NATIVE_PROTOCOL. Raises: StartError without a journal.
    """

    def __init__(self, path: str = JOURNAL) -> None:
        super().__init__()
        self.setFormatter(Text(stamped=False))
        self._channel = _Channel("journald", path)

    def put(self, record: logging.LogRecord) -> None:
        """Send a record; one too large for a datagram as a sealed memory file."""
        data = b"".join(_journal_field(name, value) for name, value in self._fields(record))
        try:
            self._channel.send(data)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._channel.send_as_file(data)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()
        super().close()

    def _fields(self, record: logging.LogRecord) -> list[tuple[str, object]]:
        found: list[tuple[str, object]] = [
            ("MESSAGE", self.format(record)),
            ("PRIORITY", severity_of(record.levelno)),
            ("SYSLOG_IDENTIFIER", "prefork"),
            ("SYSLOG_FACILITY", _DAEMON),
        ]
        name, fields = event_of(record)
        if name is None:
            return [*found, ("LOGGER", record.name)]
        found.append(("PREFORK_EVENT", name))
        for key, value in fields.items():
            found.append((f"PREFORK_{_NOT_IN_NAMES.sub('_', key.upper())}"[:64], value))
        return found


def journal_is_stderr(environ: Mapping[str, str]) -> bool:
    """Tell whether descriptor 2 leads to the journal (JOURNAL_STREAM of systemd.exec(5))."""
    with suppress(OSError):
        stderr = os.fstat(2)
        return environ.get("JOURNAL_STREAM") == f"{stderr.st_dev}:{stderr.st_ino}"
    return False


class _Patience:
    """A wait for room, which gets impatient: a reader that has stopped must not stop us."""

    def __init__(self, fd: int) -> None:
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._left_s = _PATIENCE_S

    def wait(self) -> None:
        """Wait for room. Raises: BlockingIOError when there is none in time."""
        if not self._poll.poll(self._left_s * 1000):
            self._left_s = 0.0  # nobody waits for it again before it reads on
            raise BlockingIOError(errno.EAGAIN, "nobody reads")
        self._left_s = _PATIENCE_S


class _Channel:
    """Datagrams to a daemon of this machine, over its restarts."""

    def __init__(self, what: str, path: str) -> None:
        self._path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._sock.connect(path)
        except OSError as error:
            self._sock.close()
            raise StartError(f"cannot log to {what}: {path}: {error.strerror}") from None
        self._patience = _Patience(self._sock.fileno())

    def send(self, data: bytes) -> None:
        """Send a datagram. Raises: OSError when it does not arrive."""
        self._repeat(lambda: self._sock.send(data, socket.MSG_DONTWAIT))

    def send_as_file(self, data: bytes) -> None:
        """Send a memory file that nobody can change any more. Raises: OSError."""
        fd = os.memfd_create("prefork-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(data)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))]
            self._repeat(lambda: self._sock.sendmsg([], rights, socket.MSG_DONTWAIT))
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close the socket; once or twice."""
        self._sock.close()

    def _repeat(self, send: Callable[[], object]) -> None:
        try:
            send()
        except BlockingIOError:
            self._patience.wait()
            send()
        except OSError as error:
            if error.errno not in _CUT_OFF:
                raise
            self._sock.connect(self._path)  # the daemon was started again
            send()


def _journal_field(name: str, value: object) -> bytes:
    data = str(value).encode("utf-8", "backslashreplace")
    if b"\n" in data:
        return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data)
    return b"%s=%s\n" % (name.encode(), data)
