"""How many processors this process may use: the meaning of `workers = "auto"`."""

import os
from pathlib import Path


def available_cpus() -> int:
    """Return the smaller of the affinity mask and the cgroup's quota, at least 1.

    A quota of 2.5 processors counts as 3: the fraction would idle otherwise.
    """
    cpus = len(os.sched_getaffinity(0))
    quota = _cgroup_quota()
    return cpus if quota is None else max(1, min(cpus, quota))


def _cgroup_quota() -> int | None:
    """Return cpu.max of the nearest limiting cgroup (v2), rounded up; None without one."""
    try:
        own = next(
            line.split(":", 2)[2].strip()
            for line in Path("/proc/self/cgroup").read_text().splitlines()
            if line.startswith("0::")
        )
    except (OSError, StopIteration):
        return None
    limits = []
    for group in [Path(own), *Path(own).parents]:
        try:
            quota, period = (
                (Path("/sys/fs/cgroup") / group.relative_to("/") / "cpu.max").read_text().split()
            )
            limits.append(-(-int(quota) // int(period)))
        except (OSError, ValueError):
            continue  # no limit at this level: the file says "max", or is not there
    return min(limits, default=None)
