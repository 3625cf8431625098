"""Files that are written as root, at once and whole.

The calling process.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from prefork.errors import StartError

_MODE: Final = 0o644  # neither units nor configs hold secrets, and systemctl shows units to all


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
