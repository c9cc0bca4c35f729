"""Cores that this process may use: what `taskset`, a cpuset and a cgroup's quota leave of the machine's."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def allowed_cores() -> int:
    """How many cores' worth of time this process may use; not the machine's, which a container may have cut down."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = own_quota()
    return cores if granted is None else min(cores, max(1, math.ceil(granted)))


def quota(membership: str, cgroups: Path = CGROUPS) -> float | None:
    """Cores' worth of time that the cgroups (text of /proc/self/cgroup) grant, the least of all levels; None: no limit."""
    granted: list[float] = []
    for line in membership.splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0" or "cpu" in controllers.split(","):
            root = cgroups / "cpu" if controllers else cgroups
            inside = Path(path.lstrip("/"))
            # In a container the path may be the host's, which is not there: its own root then says what holds.
            granted += [share for level in (inside, *inside.parents) if (share := _share(root / level)) is not None]
    return min(granted, default=None)


def _share(group: Path) -> float | None:
    with suppress(OSError, ValueError):
        allowed, period = (group / "cpu.max").read_text().split()
        return None if allowed == "max" else int(allowed) / int(period)
    with suppress(OSError, ValueError):
        granted = int((group / "cpu.cfs_quota_us").read_text())
        return None if granted < 0 else granted / int((group / "cpu.cfs_period_us").read_text())
    return None


def own_quota() -> float | None:
    try:
        return quota(Path("/proc/self/cgroup").read_text())
    except OSError:
        return None
