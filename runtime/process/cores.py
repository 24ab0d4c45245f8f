"""How many processor cores this process may use."""

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")  # in a container, its own


def cores(cgroup: Path = _CGROUP) -> int:
    """Those that it may run on, and of these as many as the time suffices for that its container is given.

    A container with two of the 64 cores of a machine runs on all 64, a 32nd of the time. The limit is in cgroup v2's
    file cpu.max: microseconds of processor time, or "max", in every so many.
    https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files
    """
    runs_on = len(os.sched_getaffinity(0))
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except FileNotFoundError:  # the root of a machine has no limit
        return runs_on
    return runs_on if quota == "max" else max(1, min(runs_on, int(quota) // int(period)))
