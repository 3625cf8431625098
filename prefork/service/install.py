"""`prefork install-service`: the units of a config, shown or installed.

The calling process, as root if it is to write. It starts no service unasked:
that is the administrator's word.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from prefork.config import Config
from prefork.errors import StartError
from prefork.service.files import write_file
from prefork.service.units import SYSUSERS_FILE, TMPFILES_FILE, plan_units, service_name

#: How the program begins the line in which it says why it does not start.
_ERROR: Final = "prefork: error: "


def install_service(config: Config, *, write: bool, now: bool = False) -> str:
    """Return the units as text; or install them, and return what was done, and what is to do.

    now: also start the service, at once and at each boot.

    Raises: StartError where the config cannot run under systemd, or the units
    cannot be installed; what was there is then still there, or made anew.
    """
    files = plan_units(config)
    if not (write or now):
        return "\n".join(f"# {path}\n{text}" for path, text in files.items())
    for path, text in files.items():
        write_file(path, text)
    _activate(files)
    names = [path.name for path in files if path.suffix in (".service", ".socket")]
    # A service whose sockets systemd has is started by the first client.
    first = [name for name in names if name.endswith(".socket")] or [service_name(config)]
    written = "".join(f"wrote {path}\n" for path in files)
    if not now:
        return f"{written}next: systemctl enable --now {' '.join(first)}\n"
    try:
        _run("systemctl", "enable", "--now", *first)
    except StartError as error:
        why = _last_words(service_name(config))
        raise StartError(f"{error}\n{why}its config is {config.path}") from None
    return f"{written}started {' '.join(first)}; what it does is written in {config.path}\n"


def _activate(files: Mapping[Path, str]) -> None:
    """Make what the files ask for: the user, the folder, the units."""
    if SYSUSERS_FILE in files:
        _run("systemd-sysusers", str(SYSUSERS_FILE))
    if TMPFILES_FILE in files:
        _run("systemd-tmpfiles", "--create", str(TMPFILES_FILE))
    _run("systemctl", "daemon-reload")


def _last_words(name: str) -> str:
    """Return what a service that did not start has said, as lines; it knows best why."""
    words = ("journalctl", f"--unit={name}", "--lines=20", "--output=cat", "--no-pager")
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 # fixed
    except OSError:  # a system without a journal
        return ""
    lines = dict.fromkeys(done.stdout.splitlines())  # systemd has tried it several times
    said = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]
    return "".join(f"{line}\n" for line in said)


def _run(*words: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 # fixed
    except OSError as error:
        raise StartError(f"the units are written, but {words[0]}: {error.strerror}") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise StartError(f"the units are written, but {' '.join(words)} failed: {said}")
