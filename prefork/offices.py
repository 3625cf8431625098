"""What people and programs know a daemon by: its pidfile, its control socket, where it runs.

The master, before it serves; a rehearsal, which tries it. A later image goes on
with what the one before has left, unless the config names another place now.
"""

import os
import socket
from contextlib import suppress
from pathlib import Path

from prefork import log, privileges
from prefork.charter import Charter
from prefork.children import answer_of
from prefork.control.places import default_control_path, open_control, usable_control_path
from prefork.errors import StartError
from prefork.pidfile import Pidfile
from prefork.reload.handover import Handover


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
    if left is None or left.control_fd is None or left.control_path is None:
        return _new_control(charter)
    former = Path(left.control_path)
    if former in _wanted(charter) and _is_there(former):
        return former, socket.socket(fileno=left.control_fd)
    found = _new_control(charter)
    # Last: if there cannot be a new one, the old one is needed still.
    os.close(left.control_fd)
    if found is None or found[0] != former:
        with suppress(OSError):  # its folder belongs to root, who we were: stale from now on
            former.unlink()
    return found


def rehearse(charter: Charter, left: Handover) -> None:
    """Open for a moment what the next image will have to open; what it goes on with is left alone.

    Raises: StartError.
    """
    if charter.pidfile not in (None, left.pidfile_path):
        Pidfile.create(str(charter.pidfile)).remove()
    kept = charter.control == left.control_path and _is_there(Path(charter.control or ""))
    if charter.control is not None and not kept:
        found = _new_control(charter)
        if found is not None:
            path, sock = found
            sock.close()
            path.unlink(missing_ok=True)
    if charter.identity is not None:
        identity = charter.identity

        def become() -> str:
            privileges.drop(identity)
            return "done"

        answer_of(become)


def _is_there(path: Path) -> bool:
    """Tell whether a socket's file has not been removed, so that people can still find it."""
    try:
        return path.is_socket()
    except OSError:
        return False


def _wanted(charter: Charter) -> list[Path]:
    """Return the places where the control socket may be, the best first."""
    if charter.config_path is None or charter.control == "off":
        return []
    if charter.control is not None:
        return [Path(charter.control)]
    return default_control_path(charter.config_path, os.geteuid())


def _new_control(charter: Charter) -> tuple[Path, socket.socket] | None:
    places = _wanted(charter)
    if not places:
        return None
    try:
        path = places[0]
        if charter.control is None:
            path = usable_control_path(places, os.geteuid())
        return path, open_control(path, charter.control_mode, charter.control_group)
    except StartError as error:
        if charter.control is not None:
            raise
        log.warning("control.none", reason=error, remedy="name a path: [master] control")
        return None


def go_to(folder: str) -> None:
    """Make a folder the working directory.

    Raises: StartError.
    """
    try:
        os.chdir(folder)
    except OSError as error:
        raise StartError(f"master.working_directory: {folder}: {error.strerror}") from None
