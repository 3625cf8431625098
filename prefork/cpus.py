"""How many processors this process may use: the meaning of `workers = "auto"`."""

import os
from pathlib import Path
from typing import Final

_OWN_CGROUP: Final = Path("/proc/self/cgroup")
_CGROUPS: Final = Path("/sys/fs/cgroup")


def available_cpus() -> int:
    """Return the smaller of the affinity mask and the cgroup's quota, at least 1.

    A quota of 2.5 processors counts as 3: the fraction would idle otherwise.
    """
    cpus = len(os.sched_getaffinity(0))
    return min([cpus, *_quotas()])


def _quotas() -> list[int]:
    """Return cpu.max of each limiting cgroup (v2) that this process is in, rounded up."""
    try:
        lines = _OWN_CGROUP.read_text().splitlines()
    except OSError:
        return []  # no /proc
    quotas = []
    for own in (Path(line[3:]) for line in lines if line.startswith("0::")):
        for group in (own, *own.parents):
            try:
                limit = (_CGROUPS / group.relative_to("/") / "cpu.max").read_text()
                quota, period = map(int, limit.split())
            except (OSError, ValueError):
                continue  # no limit at this level: the file says "max", or is not there
            quotas.append(-(-quota // period))
    return quotas
