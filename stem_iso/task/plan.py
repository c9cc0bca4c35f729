"""Plan: what one ending does to the store, as data, so that a broker can carry it out in one transaction.

    Finish    the task is over: status, dead letter (exactly when it failed), lock released, waiters woken
    Retry     the same id once more: attempt + 1, not before `due`
    GiveBack  back into its queue without using up an attempt or counting a redelivery

One ending makes one plan. The broker adds two truths that only it can know at that instant: a receipt that is no longer valid changes
nothing (`LeaseLost`), and where the run was revoked a `Retry`, a `GiveBack` or a failed `Finish` is carried out as `cancelled`, reason
`revoked` (D10).
"""

from __future__ import annotations

from dataclasses import dataclass

from stem_iso.outcome import TaskError
from stem_iso.task.envelope import Envelope
from stem_iso.task.status import TaskState


@dataclass(frozen=True, slots=True)
class Finish:
    """`state` is terminal. `ttl` is how long the status is kept, seconds. A failed task leaves one dead letter, with `reason`."""

    state: TaskState
    reason: str | None = None
    result: bytes | None = None
    error: TaskError | None = None
    ttl: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Retry:
    """`successor` replaces the envelope (attempt + 1); it is due at `successor.not_before`. `reason` and `error` go into the status."""

    successor: Envelope
    reason: str
    error: TaskError | None = None


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Back to the queue, visible after `delay` seconds. `successor`, if given, replaces the envelope (same run and attempt)."""

    delay: float = 0.0
    successor: Envelope | None = None


Plan = Finish | Retry | GiveBack
