"""How long things may take in the life of a worker. Values only.

The master.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """How long things may take, in seconds.

    boot_s: from fork to READY (puma: 60). graceful_s: from the order to go to
    the end. retire_s: the same where only this worker goes and the others serve
    on, so that there is no hurry; None: as graceful_s. kill_s: from SIGABRT or
    SIGQUIT to SIGKILL. settle_s: a worker that lives this long after READY has
    its slot's failures forgiven: those that die in their first turn do not, those
    that are killed by hand do.
    backoff_s, backoff_factor, backoff_cap_s: the wait after the nth failure
    in a row is backoff_s * backoff_factor**(n-1), at most the cap (einhorn).
    """

    boot_s: float = 60.0
    graceful_s: float = 30.0
    retire_s: float | None = None
    kill_s: float = 2.0
    settle_s: float = 0.2
    backoff_s: float = 1.0
    backoff_factor: float = 1.5
    backoff_cap_s: float = 30.0

    def backoff_after_s(self, failures: int) -> float:
        """Return how long to wait after this many failures in a row; none: not at all."""
        if failures == 0:
            return 0.0
        # 1.5 ** 64 is far above any sensible cap, and no float overflows below it.
        return min(
            self.backoff_cap_s, self.backoff_s * self.backoff_factor ** min(failures - 1, 64)
        )
