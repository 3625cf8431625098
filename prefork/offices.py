"""What people and programs know a daemon by: its pidfile and its control socket.

The master, before it serves. A later image goes on with what the one before has
left, unless the config names another place now.
"""

import os
import socket
from pathlib import Path

from prefork import log
from prefork.charter import Charter
from prefork.errors import StartError
from prefork.handover import Handover
from prefork.pidfile import Pidfile
from prefork.places import default_control_path, open_control, usable_control_path


def take_pidfile(charter: Charter, left: Handover | None) -> Pidfile | None:
    """Return the pidfile that the charter wants, held.

    Raises: StartError, also when another process holds it.
    """
    held = None
    if left is not None and left.pidfile_fd is not None and left.pidfile_path is not None:
        held = Pidfile.adopt(left.pidfile_path, left.pidfile_fd)
        if left.pidfile_path == charter.pidfile:
            return held
    created = None if charter.pidfile is None else Pidfile.create(charter.pidfile)
    if held is not None:
        held.remove()
    return created


def take_control(charter: Charter, left: Handover | None) -> tuple[Path, socket.socket] | None:
    """Return the control socket's path and the socket, listening; None: there is none.

    Raises: StartError when it cannot be where the charter wants it.
    """
    wanted = None if charter.control is None else Path(charter.control)
    if left is not None and left.control_fd is not None and left.control_path is not None:
        if charter.control in (None, left.control_path):
            return Path(left.control_path), socket.socket(fileno=left.control_fd)
        os.close(left.control_fd)
        Path(left.control_path).unlink(missing_ok=True)
    if charter.config_path is None or charter.control == "off":
        return None
    try:
        if wanted is None:
            uid = os.geteuid()
            wanted = usable_control_path(default_control_path(charter.config_path, uid), uid)
        return wanted, open_control(wanted, charter.control_mode, charter.control_group)
    except StartError as error:
        if charter.control is not None:
            raise
        log.warning("control.none", reason=error)
        return None
