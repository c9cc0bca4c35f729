"""The kernel's out-of-memory killer: whether a SIGKILL was its. The kernel reports that to nobody, but counts its kills.

    own cgroup: memory.events (v2), memory.oom_control (v1) ──┐
    the machine: /proc/vmstat, where there is no such cgroup ─┴──> kills so far ── grown? ──> the SIGKILL of this death was most likely its

Not promised: an isolate that somebody else kills with SIGKILL, after the kernel has killed another process of the same cgroup in that
isolate's lifetime, is taken for a victim of the kernel as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
VMSTAT = Path("/proc/vmstat")


def counters(membership: str, cgroups: Path = CGROUPS) -> Iterator[Path]:
    """Where the kills of these cgroups (text of /proc/self/cgroup) may be counted, the narrowest first; not all of them exist.

    In a container the path that the kernel tells may be the host's, which is not there: the container's own root is then the cgroup.
    """
    for line in membership.splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        inside = path.lstrip("/")
        if "memory" in controllers.split(","):
            yield cgroups / "memory" / inside / "memory.oom_control"
            yield cgroups / "memory" / "memory.oom_control"
        elif hierarchy == "0":
            yield cgroups / inside / "memory.events"
            yield cgroups / "memory.events"


def kills(counter: Path) -> int | None:
    """How many processes it has killed; None where the file does not say."""
    try:
        words = [line.split() for line in counter.read_text().splitlines()]
        return next((int(count) for name, count in words if name == "oom_kill"), None)
    except (OSError, ValueError):
        return None


class OomKills:
    """Owned by the engine, under its lock. A look costs 20 µs."""

    def __init__(self, counter: Path | None = None) -> None:
        self._counter = counter if counter is not None else _own_counter()
        self._seen = kills(self._counter) or 0

    def grew(self) -> bool:
        """Whether it has killed since the last time that this was asked."""
        before, self._seen = self._seen, kills(self._counter) or 0
        return self._seen > before


def _own_counter() -> Path:
    try:
        membership = Path("/proc/self/cgroup").read_text()
    except OSError:
        membership = ""
    return next((path for path in counters(membership) if kills(path) is not None), VMSTAT)
