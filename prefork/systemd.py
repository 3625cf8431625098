"""What systemd is told about this service (sd_notify(3)).

The master, on the command line. A library never speaks here: the program that
embeds it may be a service of its own.
"""

import os
import socket


def notify(state: str) -> bool:
    """Send one datagram of `NAME=value` lines; False when no service manager listens.

    Raises: nothing. A notification that cannot be delivered changes nothing
    that this process could do better; systemd's own timeout speaks then.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto(state.encode(), address)
        except OSError:
            return False
    return True
