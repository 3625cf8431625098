"""`prefork install-service`: the units of a config, shown or installed.

The calling process, as root if it is to write. It starts no service: that is
the administrator's word.
"""

import os
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from prefork.config import Config
from prefork.errors import StartError
from prefork.service.units import SYSUSERS_FILE, TMPFILES_FILE, plan_units, service_name

_MODE: Final = 0o644  # units hold no secrets, and systemctl shows them to everybody


def install_service(config: Config, *, write: bool) -> str:
    """Return the units as text; or install them, and return what to do next.

    Raises: StartError where the config cannot run under systemd, or the units
    cannot be installed; what was there is then still there, or made anew.
    """
    files = plan_units(config)
    if not write:
        return "\n".join(f"# {path}\n{text}" for path, text in files.items())
    for path, text in files.items():
        write_file(path, text)
    _activate(files)
    names = [path.name for path in files if path.suffix in (".service", ".socket")]
    # A service whose sockets systemd has is started by the first client.
    first = [name for name in names if name.endswith(".socket")] or [service_name(config)]
    written = "".join(f"wrote {path}\n" for path in files)
    return f"{written}next: systemctl enable --now {' '.join(first)}\n"


def write_file(path: Path, text: str) -> None:
    """Put a file in place at once, whole, or leave what there is.

    Raises: StartError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(fd, "w") as file:
                file.write(text)
                os.fchmod(file.fileno(), _MODE)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)  # noqa: PTH105 # beside a name of mkstemp
        except BaseException:
            with suppress(OSError):  # it was never there, or is in place
                os.unlink(temporary)  # noqa: PTH108 # likewise
            raise
    except OSError as error:
        remedy = "; it takes root" if os.geteuid() != 0 else ""
        raise StartError(f"cannot write {path}: {error.strerror}{remedy}") from None


def _activate(files: Mapping[Path, str]) -> None:
    """Make what the files ask for: the user, the folder, the units."""
    if SYSUSERS_FILE in files:
        _run("systemd-sysusers", str(SYSUSERS_FILE))
    if TMPFILES_FILE in files:
        _run("systemd-tmpfiles", "--create", str(TMPFILES_FILE))
    _run("systemctl", "daemon-reload")


def _run(*words: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 # fixed
    except OSError as error:
        raise StartError(f"the units are written, but {words[0]}: {error.strerror}") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise StartError(f"the units are written, but {' '.join(words)} failed: {said}")
