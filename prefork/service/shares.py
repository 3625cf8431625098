"""The config of a folder that is to be shared as a service.

The calling process, as root. It writes one file, and makes the folder if there
is none; a config that is there is never changed.
"""

import re
from pathlib import Path
from typing import Final

from prefork.config.toml import written
from prefork.errors import StartError, UsageError
from prefork.service.files import write_file

#: Where the units of the distribution look for configs, too.
CONFIGS: Final = Path("/etc/prefork")

_TEMPLATE: Final = Path(__file__).with_name("share.toml")  # etc/ has the same
_DIRECTORY: Final = '"${SHARE:-/srv/share}"'


def config_of(target: str, *, may_write: bool) -> Path:
    """Return the config that a person means: the file itself, or one made for a folder.

    Raises: UsageError, StartError.
    """
    if target.endswith(".toml") or Path(target).is_file():
        return Path(target)
    if not may_write:
        raise UsageError(
            f"{target} is no config: with --now it becomes a service by one of its own"
        )
    folder = Path(target).absolute()
    path = CONFIGS / f"{_stem(folder)}.toml"
    said = f"directory = {written(str(folder))}\n"
    try:
        if path.exists():
            if said not in path.read_text():
                raise StartError(f"{path} is there, and not for {folder}; name it, or remove it")
            return path
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StartError(f"cannot share {folder}: {error.strerror}") from None
    text = _TEMPLATE.read_text()
    write_file(path, text.replace(f"directory = {_DIRECTORY}\n", said))
    return path


def _stem(folder: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.name).strip(".-") or "share"
