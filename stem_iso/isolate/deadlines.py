"""The clocks of one call. Pure: monotonic seconds come in as `now`.

   sent ------- soft ---------- hard - 200 ms ----- hard - 20 ms --- hard
                 │                   │                   │             │
              Alarm.SOFT      Alarm.EARLY_STACK     Alarm.STACK    Alarm.HARD      (or SILENCE: the handler said nothing for too long)

1. Each alarm rings once; after HARD or SILENCE none. A heartbeat moves the silence limit, and with it when its stack is asked for.
2. The stack for the hard limit is asked for 20 ms before it, because the kill waits for nothing that a handler can prolong; at the start if
   the limit is shorter. On a busy machine the signal may need longer than that to get through, or this process to send it, so it is asked
   for once before: 200 ms before the limit, or halfway to it. The last stack that came counts.
"""

from __future__ import annotations

from enum import Enum
from math import inf

from stem_iso.isolate.job import Limits

ASK_BEFORE = 0.020  # seconds; a dump inside a C call took 5 ms at most
ASK_EARLY = 0.200  # with four busy processes to a core, one waits some 40 ms for its turn


class Alarm(Enum):
    SOFT = "soft"
    EARLY_STACK = "early stack"
    STACK = "stack"
    HARD = "hard"
    SILENCE = "silence"


class Deadlines:
    """The alarms of one call that have not rung. Owned by the engine, under its lock."""

    __slots__ = ("early_at", "hard_at", "heartbeat", "next_at", "sent_at", "silent_at", "soft_at", "stack_at")

    def __init__(self, limits: Limits, now: float) -> None:
        self.sent_at = now
        self.soft_at = inf if limits.soft is None else now + limits.soft
        self.hard_at = inf if limits.hard is None else now + limits.hard
        self.heartbeat = limits.heartbeat
        self.silent_at = inf if limits.heartbeat is None else now + limits.heartbeat
        self.early_at = self.stack_at = self.next_at = inf
        self._plan_stack(now)
        self._next()

    @property
    def kill_at(self) -> float:
        """When the call is killed as things stand; inf: never. What the seat row holds for the keeper."""
        return min(self.hard_at, self.silent_at)

    def beat(self, now: float) -> None:
        if self.heartbeat is not None and self.silent_at != inf:
            before, self.silent_at = self.kill_at, now + self.heartbeat
            if self.kill_at != before:
                self._plan_stack(now)
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
            self.early_at = self.stack_at = inf
        elif now >= self.early_at:
            rung.append(Alarm.EARLY_STACK)
            self.early_at = inf
        if now >= self.kill_at:
            rung.append(Alarm.HARD if self.hard_at <= self.silent_at else Alarm.SILENCE)
            self.soft_at = self.early_at = self.stack_at = self.hard_at = self.silent_at = inf
        self._next()
        return rung

    def _plan_stack(self, now: float) -> None:
        kill_at = self.kill_at
        self.early_at = self.stack_at = inf
        if kill_at != inf:
            self.stack_at = max(self.sent_at, kill_at - ASK_BEFORE)
            early_at = max(now + (kill_at - now) / 2, kill_at - ASK_EARLY)
            self.early_at = early_at if early_at < self.stack_at else inf

    def _next(self) -> None:
        self.next_at = min(self.soft_at, self.early_at, self.stack_at, self.hard_at, self.silent_at)
