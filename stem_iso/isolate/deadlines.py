"""The clocks of one call. Pure: monotonic seconds come in as `now`.

   sent ------------- soft ------------------ hard - 20 ms --- hard
                       │                         │              │
                    Alarm.SOFT               Alarm.STACK     Alarm.HARD      (or SILENCE, when the handler said nothing for too long)

1. Each alarm rings once, in this order; after HARD or SILENCE none.
2. The stack for the hard limit is asked for 20 ms before it, because the kill waits for nothing; at the start if the limit is shorter.
3. A heartbeat moves the silence limit and nothing else.
"""

from __future__ import annotations

from enum import Enum
from math import inf

from stem_iso.isolate.job import Limits

ASK_BEFORE = 0.020  # seconds; a dump inside a C call took 5 ms at most


class Alarm(Enum):
    SOFT = "soft"
    STACK = "stack"
    HARD = "hard"
    SILENCE = "silence"


class Deadlines:
    """The alarms of one call that have not rung. Owned by the engine, under its lock."""

    __slots__ = ("hard_at", "heartbeat", "next_at", "sent_at", "silent_at", "soft_at", "stack_at")

    def __init__(self, limits: Limits, now: float) -> None:
        self.sent_at = now
        self.soft_at = inf if limits.soft is None else now + limits.soft
        self.hard_at = inf if limits.hard is None else now + limits.hard
        self.heartbeat = limits.heartbeat
        self.silent_at = inf if limits.heartbeat is None else now + limits.heartbeat
        self.stack_at = inf
        self._plan_stack()
        self._next()

    @property
    def kill_at(self) -> float:
        """When the call is killed as things stand; inf: never. What the seat row holds for the keeper."""
        return min(self.hard_at, self.silent_at)

    def beat(self, now: float) -> None:
        if self.heartbeat is not None and self.silent_at != inf:
            self.silent_at = now + self.heartbeat
            self._plan_stack()
            self._next()

    def due(self, now: float) -> list[Alarm]:
        """What rings at `now`, in order."""
        rung: list[Alarm] = []
        if now < self.next_at:
            return rung
        if now >= self.soft_at:
            rung.append(Alarm.SOFT)
            self.soft_at = inf
        if now >= self.stack_at:
            rung.append(Alarm.STACK)
            self.stack_at = inf
        if now >= self.kill_at:
            rung.append(Alarm.HARD if self.hard_at <= self.silent_at else Alarm.SILENCE)
            self.soft_at = self.stack_at = self.hard_at = self.silent_at = inf
        self._next()
        return rung

    def _plan_stack(self) -> None:
        kill_at = self.kill_at
        self.stack_at = inf if kill_at == inf else max(self.sent_at, kill_at - ASK_BEFORE)

    def _next(self) -> None:
        self.next_at = min(self.soft_at, self.stack_at, self.hard_at, self.silent_at)
