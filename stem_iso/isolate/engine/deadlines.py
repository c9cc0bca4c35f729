"""The deadlines of one call. Pure: monotonic seconds come in as `now`.

   sent ------- soft ---------- hard - 200 ms ----- hard - 20 ms --- hard
                 │                   │                   │             │
              Alarm.SOFT      Alarm.EARLY_STACK     Alarm.STACK    Alarm.HARD      (or SILENCE: the handler said nothing for too long)

    who watches                   what can be ended       its stack                   alarms ring
    engine, a call in an isolate  every call              is asked for before         at the limit
    inline host, embedded worker  coroutines, no thread   is seen at the alarm        at the limit
    engine, a hosted call         coroutines, no thread   is asked for at the alarm   late, for the host keeps the limits (`shared_host`)

1. Each alarm rings once; after HARD or SILENCE none. A heartbeat moves the silence limit, and with it when its stack is asked for.
2. The stack for the hard limit is asked for 20 ms before it, because the kill waits for nothing that a handler can prolong; at the start if
   the limit is shorter. On a busy machine the signal may need longer than that to get through, or this process to send it, so it is asked
   for once before: 200 ms before the limit, or halfway to it. The last stack that came counts.
3. What cannot be ended (a thread) has a soft limit only: nothing else could be enforced.
"""

from __future__ import annotations

from enum import Enum
from math import inf

from stem_iso.isolate.interfaces import Limits
from stem_iso.outcome import TimedOut

STACK_BEFORE = 0.020  # seconds; a dump inside a C call took 5 ms at most
EARLY_STACK_BEFORE = 0.200  # with four busy processes to a core, one waits some 40 ms for its turn


class Alarm(Enum):
    SOFT = "soft"
    EARLY_STACK = "early stack"
    STACK = "stack"
    HARD = "hard"
    SILENCE = "silence"
    OVER = "over"  # the last two are of hosted calls alone (`shared_host.call`)
    UNREAD = "unread"


def after(start: float, seconds: float | None) -> float:
    """When a limit is reached; inf: there is none."""
    return inf if seconds is None else start + seconds


class Deadlines:
    """The alarms of one call that have not rung. Owned by whoever watches the call.

    `early_stack`: the stack is requested before the call is ended. `ends`: the call can be ended. `late`: seconds that SOFT, HARD and
    SILENCE ring after their limits.
    """

    __slots__ = ("_early_stack", "_late", "early_at", "hard_at", "limits", "next_at", "over", "sent_at", "silent_at", "soft_at", "stack_at")

    def __init__(self, limits: Limits, sent_at: float, *, early_stack: bool = True, ends: bool = True, late: float = 0.0) -> None:
        self.limits, self.sent_at, self._early_stack, self._late = limits, sent_at, early_stack, late
        soft, hard, heartbeat = limits.soft, limits.hard, limits.heartbeat
        self.soft_at = inf if soft is None else sent_at + soft
        self.hard_at = sent_at + hard if ends and hard is not None else inf
        self.silent_at = sent_at + heartbeat if ends and heartbeat is not None else inf
        self.over = False  # the limit that ends the call was reached: `kill_at` says when
        self.early_at = self.stack_at = inf
        self._plan_stack(sent_at)
        self._next()

    @property
    def kill_at(self) -> float:
        """When the limit that ends the call is reached, as things stand, or was; inf: never. What the shared row holds for the keeper."""
        return min(self.hard_at, self.silent_at)

    @property
    def silent(self) -> bool:
        """Whether that is the limit of silence."""
        return self.silent_at < self.hard_at

    def beat(self, now: float) -> bool:
        """The handler is alive. True if that moved `kill_at`."""
        if self.over or self.silent_at == inf:
            return False
        before, self.silent_at = self.kill_at, after(now, self.limits.heartbeat)
        if moved := self.kill_at != before:
            self._plan_stack(now)
        self._next()
        return moved

    def due(self, now: float) -> list[Alarm]:
        """What rings at `now`, in order."""
        rung: list[Alarm] = []
        if now < self.next_at:
            return rung
        if now >= self.soft_at + self._late:
            rung.append(Alarm.SOFT)
            self.soft_at = inf
        if now >= self.stack_at:
            rung.append(Alarm.STACK)
            self.early_at = self.stack_at = inf
        elif now >= self.early_at:
            rung.append(Alarm.EARLY_STACK)
            self.early_at = inf
        if now >= self.kill_at + self._late:
            rung.append(Alarm.SILENCE if self.silent else Alarm.HARD)
            self.over = True
        self._next()
        return rung

    def reach(self, at: float, *, silent: bool) -> None:
        """Somebody else saw the limit that ends the call."""
        self.hard_at, self.silent_at = (inf, at) if silent else (at, inf)
        self.over = True
        self._next()

    def drop_soft(self) -> None:
        """It has been reported."""
        self.soft_at = inf
        self._next()

    def drop_kill(self) -> None:
        """Something else ends the call."""
        self.hard_at = self.silent_at = self.early_at = self.stack_at = inf
        self._next()

    def time_out(self, stack: str, signalled_at: float, dead_at: float, killed: tuple[tuple[int, str], ...] = ()) -> TimedOut:
        """How a call has ended that its limit ended: at `dead_at`, of what was done at `signalled_at` (0: nobody saw it)."""
        limit, kill_at = self.limits.heartbeat if self.silent else self.limits.hard, self.kill_at
        assert limit is not None
        return TimedOut(limit, dead_at - self.sent_at, stack, max(0.0, signalled_at - kill_at), dead_at - kill_at, killed, self.silent)

    def _plan_stack(self, now: float) -> None:
        kill_at = self.kill_at
        self.early_at = self.stack_at = inf
        if self._early_stack and kill_at != inf:
            self.stack_at = max(self.sent_at, kill_at - STACK_BEFORE)
            early_at = max(now + (kill_at - now) / 2, kill_at - EARLY_STACK_BEFORE)
            self.early_at = early_at if early_at < self.stack_at else inf

    def _next(self) -> None:
        limit_at = min(self.soft_at, self.hard_at, self.silent_at) + self._late
        self.next_at = inf if self.over else min(limit_at, self.early_at, self.stack_at)
