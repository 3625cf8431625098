"""Errors that end the command with one line for a person, never a traceback.

Any process before serving begins. Each message names what was wrong and what
to do about it.
"""

from typing import ClassVar


class PreforkError(Exception):
    """Something that a person must mend; `exit_status` is the command's."""

    exit_status: ClassVar[int] = 1


class UsageError(PreforkError):
    """What was typed cannot be meant: a wrong option, a missing directory."""

    exit_status = 2


class StartError(PreforkError):
    """What was typed is fine, but cannot be done now: a port in use."""


class PlatformError(PreforkError, OSError):
    """This system lacks what prefork stands on (Linux 5.4)."""
