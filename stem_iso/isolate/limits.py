"""Limits of one call in an isolate: time, memory, cores. Frozen, and refuses nonsense at birth."""

from __future__ import annotations

from dataclasses import dataclass

from stem_iso.errors import InvalidOptions
from stem_iso.validation import Duration, Size, cores, optional_duration, optional_memory


@dataclass(frozen=True, slots=True, init=False)
class Limits:
    """Limits of one call; None: no limit. Times are seconds (or a `timedelta`) from the moment the call is sent to its isolate.

    soft        a notice with the stack of the running code; with `raise_soft` also `SoftTimeLimitExceeded` in it, once
    hard        the isolate and all its descendants are killed
    heartbeat   the same, when the call says nothing for so long
    memory      bytes, or "512MiB", of the isolate and its descendants together; past it they are killed
    cpus        pinned to so many cores of its own, where so many are free

    Raises InvalidOptions.
    """

    soft: float | None
    hard: float | None
    heartbeat: float | None
    raise_soft: bool
    memory: int | None
    cpus: int | None

    def __init__(
        self,
        soft: Duration | None = None,
        hard: Duration | None = None,
        heartbeat: Duration | None = None,
        raise_soft: bool = False,
        memory: Size | None = None,
        cpus: int | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "soft", optional_duration("soft", soft))
        put(self, "hard", optional_duration("hard", hard))
        put(self, "heartbeat", optional_duration("heartbeat", heartbeat))
        put(self, "raise_soft", raise_soft)
        put(self, "memory", optional_memory("memory", memory))
        put(self, "cpus", None if cpus is None else cores("cpus", cpus))
        if self.soft is not None and self.hard is not None and self.soft >= self.hard:
            raise InvalidOptions(f"Limits: soft ({self.soft:g} s) must be below hard ({self.hard:g} s)")


NO_LIMITS = Limits()
