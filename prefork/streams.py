"""The standard streams of a server: there, and never the reason that a request fails.

Master and worker, set up once by the command line. Handlers of the stdlib
write their access log to `sys.stderr` before they answer; a full disk or a log
reader that has died would end every request there.
"""

import io
import os
import select
import stat
import sys
from typing import Any, Final

#: How long a reader that has stopped to read is waited for, the first time.
_PATIENCE_S: Final = 1.0


class _Forgiving(io.RawIOBase):
    """A descriptor to which what cannot be written is not written."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._patience_s = _PATIENCE_S
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        # Of more than this a pipe may take some, and wait for the rest (pipe(7)).
        pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
        self._most_bytes = select.PIPE_BUF if pipe else sys.maxsize

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return os.isatty(self._fd)

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True

    def write(self, data: object, /) -> int:
        """Write what can be written; tell that all was."""
        view = memoryview(data)  # type: ignore[arg-type] # typeshed has a private name for buffers
        left = view.cast("B")
        while left:
            if not self._poll.poll(self._patience_s * 1000):
                self._patience_s = 0.0  # nobody waits for it again before it reads on
                break
            self._patience_s = _PATIENCE_S
            try:
                left = left[os.write(self._fd, left[: self._most_bytes]) :]
            except OSError:  # full, hung up, nobody reads: a log line less, a request answered
                break
        return view.nbytes


def secure_streams() -> None:
    """Open what is closed of descriptors 0 to 2, and make stderr one that never fails.

    A closed one would be given to the next socket, and whatever is printed
    would go to a client.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free one: fd
    if sys.stdout is None:
        sys.stdout = _text(1, "utf-8")
    if sys.stderr is sys.__stderr__:  # else a program, or a test, has put its own there
        sys.stderr = _text(2, "utf-8" if sys.stderr is None else sys.stderr.encoding)


def _text(fd: int, encoding: str) -> io.TextIOWrapper:
    raw: Any = _Forgiving(fd)  # unbuffered, as under `python -u`: one line is one write
    return io.TextIOWrapper(
        raw, encoding, "backslashreplace", line_buffering=True, write_through=True
    )
