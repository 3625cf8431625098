"""A receiver of syslog messages, as RFC 5424 and RFC 3164 have them: a line of text for each."""

# ruff: noqa: INP001 # a file to copy, no package

import re
import socketserver
import sys
from datetime import UTC, datetime
from logging import Handler, StreamHandler, makeLogRecord
from logging.handlers import WatchedFileHandler

# fmt: off
FACILITIES = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock",
    "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
]
# fmt: on
SEVERITIES = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"]

# 0 to 191, without leading zeros (RFC 5424 section 6.2.1), and the version that follows it there.
PRIORITY = re.compile(r"<(\d|[1-9]\d|1[0-8]\d|19[01])>(1 )?")
USER_NOTICE = 13  # of messages without a priority (RFC 3164 section 4.3.3)


class Receiver(socketserver.BaseRequestHandler):
    """Writes down one datagram; there is nothing to answer."""

    path = "-"  # handler_options can set it; "-" is stdout
    writer: Handler | None = None

    def handle(self) -> None:
        """Write a line: when it came, from whom, how important it is, and what it says."""
        cls = type(self)
        if cls.writer is None:  # in each worker, at its first message
            # It opens the file anew when logrotate has moved it. A line is one write: those of
            # several workers do not mix.
            file = WatchedFileHandler(cls.path, encoding="utf-8") if cls.path != "-" else None
            cls.writer = file or StreamHandler(sys.stdout)
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        # Who sends from a Unix socket has no address.
        sender = self.client_address[0] if isinstance(self.client_address, tuple) else "local"
        cls.writer.handle(makeLogRecord({"msg": f"{now} {sender} {parse(self.request[0])}"}))


def parse(packet: bytes) -> str:
    """Return a message as "facility.severity text", of one line."""
    text = packet.decode("utf-8", "backslashreplace").rstrip("\0\r\n")
    found = PRIORITY.match(text)
    priority = int(found[1]) if found else USER_NOTICE
    facility, severity = FACILITIES[priority >> 3], SEVERITIES[priority & 7]
    # Line ends and other controls, as rsyslog writes them: #012. Nobody can forge a line.
    says = text[found.end() :] if found else text
    shown = "".join(c if c.isprintable() else f"#{ord(c):03o}" for c in says.replace("\ufeff", ""))
    return f"{facility}.{severity} {shown}"
