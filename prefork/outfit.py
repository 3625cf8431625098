"""What a worker puts on before it serves: folders to import from, variables, rights.

A worker; environment and folders the master, too, while it imports a pool's
handler. The order matters: what needs root comes first, and nothing of it is
left afterwards.
"""

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from prefork import privileges
from prefork.privileges import Identity
from prefork.signals import react

#: What only the master obeys: sent to a whole process group, it must not end the workers.
_MASTERS: Final = (
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
)


@dataclass(frozen=True)
class Outfit:
    """identity: whom to become; None: stay. chroot: None for none. umask: None as it is.

    rlimits: the master's, which a worker cannot raise again. path: folders that
    come before all others in sys.path.
    """

    identity: Identity | None = None
    chroot: str | None = None
    umask: int | None = None
    rlimits: Mapping[str, int | str] = field(default_factory=dict)
    no_new_privs: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    path: Sequence[str] = ()

    def put_on(self) -> None:
        """Be dressed for good.

        Raises: StartError; the worker must not serve then.
        """
        for signum in _MASTERS:
            # Not SIG_IGN: execve(2) would hand that on to all that handlers start.
            react(signum, None)
            signal.siginterrupt(signum, False)
        os.environ.update(self.environment)
        _come_first(self.path)
        if self.umask is not None:
            os.umask(self.umask)
        privileges.apply_rlimits(self.rlimits)
        if self.chroot is not None:
            privileges.enter_chroot(self.chroot)
        if self.identity is not None:
            privileges.drop(self.identity)
            os.environ.update({**self.identity.environment(), **self.environment})
        if self.no_new_privs:
            privileges.set_no_new_privs()

    @contextmanager
    def imported_in(self) -> Iterator[None]:
        """Have the pool's variables and folders while its handler is imported by the master.

        The folders stay: a handler imports more when it runs.
        """
        before = {name: os.environ.get(name) for name in self.environment}
        os.environ.update(self.environment)
        _come_first(self.path)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _come_first(folders: Sequence[str]) -> None:
    for folder in reversed(folders):
        if folder in sys.path:
            sys.path.remove(folder)
        sys.path.insert(0, folder)
