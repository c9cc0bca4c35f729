"""History of a task's attempts: those that ended travel in the envelope of the one that follows.

    Envelope(attempt 0) ── it ended ──> Envelope(attempt 1, attempts=[0]) ── it ended ──> Envelope(attempt 2, attempts=[0, 1]) ── …

Rules
 1. A task that is tried once has none, and pays nothing for it.
 2. It is bounded: the newest MOST, each with LONGEST characters of its error's message. The oldest go too where the envelope would become
    larger than the store takes: a history is no reason to lose a task.
 3. An older worker passes on what it found, and adds nothing: then one is missing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

import msgspec

from stem_iso.outcome import EndedAttempt, TaskError
from stem_iso.task.envelope import Envelope, encode

MOST = 20
LONGEST = 200  # characters
LAST = 253_402_214_400.0  # the last day of the year 9999


class Numbered(Protocol):
    @property
    def run(self) -> int: ...

    @property
    def attempt(self) -> int: ...


def ended_attempt(
    of: Numbered,
    error: TaskError | None,
    reason: str | None,
    *,
    finished_at: float,
    started_at: float | None = None,
    state: str = "retried",
    worker_id: str | None = None,
) -> EndedAttempt:
    """Times are wall-clock seconds."""
    return EndedAttempt(
        run=of.run,
        attempt=of.attempt,
        started_at=None if started_at is None else _moment(started_at),
        finished_at=_moment(finished_at),
        state=state,
        reason=reason or "",
        error_type="" if error is None else _cut(error.type),
        error_message="" if error is None else _cut(error.message),
        worker_id=worker_id or "",
    )


def _moment(seconds: float) -> datetime:
    """The nearest that a calendar knows: what is stored may be anything."""
    return datetime.fromtimestamp(min(LAST, max(0.0, seconds)), UTC)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def remember(envelope: Envelope, ended: EndedAttempt, largest: int) -> Envelope:
    """The envelope with one more behind it. `largest`: bytes of an envelope."""
    return fitted(msgspec.structs.replace(envelope, attempts=(*envelope.attempts, ended)[-MOST:]), largest)


def fitted(envelope: Envelope, largest: int) -> Envelope:
    """The envelope with as much of its history as there is room for."""
    while envelope.attempts and (over := len(encode(envelope)) - largest) > 0:
        envelope = msgspec.structs.replace(envelope, attempts=_without(envelope.attempts, over))
    return envelope


def _without(attempts: tuple[EndedAttempt, ...], size: int) -> tuple[EndedAttempt, ...]:
    """Without the oldest ones that make up so many bytes."""
    dropped = 0
    for place, each in enumerate(attempts, 1):
        dropped += len(msgspec.msgpack.encode(each))
        if dropped >= size:
            return attempts[place:]
    return ()
