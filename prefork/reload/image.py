"""The program that this process runs: how to start it again, here or beside.

The master. `execve` keeps the PID and everything inherited; it returns only if
it fails, and then nothing has changed.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Image:
    """The command line and surroundings that this process was started with."""

    executable: str
    arguments: list[str]
    environ: dict[str, str] = field(repr=False)
    folder: str | None = None

    @classmethod
    def of_this_process(cls) -> Self:
        """Take note; before anything changes the working directory or the environment."""
        arguments = list(sys.orig_argv)
        if sys.argv and sys.argv[0] in arguments and Path(sys.argv[0]).exists():
            arguments[arguments.index(sys.argv[0])] = str(Path(sys.argv[0]).absolute())
        folder = None
        with suppress(OSError):  # it has been deleted
            folder = str(Path.cwd())
        return cls(sys.executable, arguments, dict(os.environ), folder)

    def existing_folder(self) -> str | None:
        """Return the folder to start it in again; None: where this process is, for it is gone."""
        return self.folder if self.folder is not None and Path(self.folder).is_dir() else None

    def execute(
        self,
        variables: Mapping[str, str],
        fds: Iterable[int],
        unheard: Callable[[], Iterable[int]] = tuple,
    ) -> OSError:
        """Replace this image by a new one that inherits these descriptors; return why it failed.

        All signals are blocked in the new one, until it is ready for them. unheard: called when
        they are, for the numbers of those that came before and that nobody has obeyed yet.
        """
        fds = list(fds)
        before = None
        with suppress(OSError):
            before = str(Path.cwd())
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        for signum in unheard():
            os.kill(os.getpid(), signum)  # pending, it outlives execve(2), as no pipe's bytes do
        for fd in fds:
            os.set_inheritable(fd, True)
        try:
            if self.folder is not None:
                with suppress(OSError):  # deleted meanwhile: go on from where we are
                    os.chdir(self.folder)
            os.execve(self.executable, self.arguments, {**self.environ, **variables})  # noqa: S606 # our own interpreter
        except OSError as error:
            for fd in fds:
                os.set_inheritable(fd, False)
            if before is not None:
                with suppress(OSError):
                    os.chdir(before)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            return error
