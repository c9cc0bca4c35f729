"""Unique locks: who holds one, and how it is taken.

    lock(key) ─> its holder's task ── waits, in time; runs ──────────> held
                       ├─ waits past its expiry: it will never run ──> free; who takes the lock ends that task as `cancelled`, `expired`
                       └─ has ended, is gone, or has another lock ───> free

A lock is worth what its holder is, so it is never asked about alone. That the expired task ends in the step that takes its lock keeps a
worker whose clock is slow from running it beside the new one.
"""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

from stem_iso.brokers.sqlite import end_notices, schema
from stem_iso.brokers.sqlite.revoke import cancel
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.sqlite.values import data
from stem_iso.task.envelope import Envelope, Undecodable, decode

ALIVE = frozenset({schema.WAITING, schema.READY, schema.DELAYED, schema.LEASED})


class Holder(NamedTuple):
    """What the lock says, and its task as far as it decides. None in all of these where there is no such task."""

    id: str
    lock: str | None
    seq: int | None
    state: int | None
    forgotten: int | None
    ttl: float | None
    waits: str | None
    body: bytes | None  # while it waits


_HOLDER = """
SELECT lock.id, task.lock, seq, state, forgotten, ttl, waits, CASE WHEN state IN (0, 1) THEN body END
FROM lock LEFT JOIN task ON task.id = lock.id WHERE key = ? AND (until IS NULL OR until > ?)"""


def holder(turn: Transaction, key: str) -> str | None:
    """The id of the task that keeps others out; None where nobody does."""
    found = _found(turn, key)
    return None if found is None or not _holds(found, key, turn.now) else found.id


def take(turn: Transaction, envelope: Envelope, mine: Set[str] = frozenset()) -> str:
    """Take the envelope's lock, if it has one and nobody else holds it; the id of who holds it now.

    `mine`: ids that have taken theirs in this step, and whose rows are written after it.
    """
    if envelope.lock is None:
        return envelope.id
    found = _found(turn, envelope.lock)
    if found is not None and found.id != envelope.id:
        if found.id in mine or _holds(found, envelope.lock, turn.now):
            return found.id
        _end(turn, found)
    if found is None or found.id != envelope.id:
        until = None if envelope.unique_for is None else turn.now + envelope.unique_for
        turn.run("INSERT OR REPLACE INTO lock VALUES (?, ?, ?)", (envelope.lock, envelope.id, until))
    return envelope.id


def _found(turn: Transaction, key: str) -> Holder | None:
    rows = turn.all(_HOLDER, (key, turn.now))
    return Holder._make(rows[0]) if rows else None


def _holds(found: Holder, key: str, now: float) -> bool:
    if found.state not in ALIVE or found.lock != key:
        return False
    return not _expired(found, now)


def _expired(found: Holder, now: float) -> bool:
    """Whether it waits past its expiry. What cannot be decoded is somebody else's to find, and soon: it is ready."""
    try:
        expires = None if found.body is None else decode(data(found.body)).expires
    except Undecodable:
        return False
    return expires is not None and now >= expires


def _end(turn: Transaction, found: Holder) -> None:
    if found.seq is not None and _expired(found, turn.now):
        end_notices.note(turn, [found.seq], schema.CANCELLED, "expired")
        cancel(turn, [(found.seq, found.forgotten, found.ttl, found.waits)], "expired")
