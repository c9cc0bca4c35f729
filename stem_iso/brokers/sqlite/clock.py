"""The two clocks of the store, and the machine they belong to.

Due times, expiry and TTL are wall clock: they must outlive a reboot. Leases are CLOCK_BOOTTIME, which no clock step moves and which goes
on during suspend; it starts at zero with each boot of the machine, so a lease is worth something only under the boot id it was written in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

# Workers need Linux. Elsewhere nothing is leased, so any monotonic clock does.
_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


boottime: Callable[[], float] = partial(time.clock_gettime, _BOOTTIME)


def machine_boot() -> str:
    """Names this boot of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


@dataclass(frozen=True, slots=True)
class StoreClock:
    """Tests give one that they move by hand."""

    wall: Callable[[], float] = time.time
    lease: Callable[[], float] = boottime
    machine: Callable[[], str] = machine_boot


SYSTEM = StoreClock()
