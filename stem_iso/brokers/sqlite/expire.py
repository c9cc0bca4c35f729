"""Expiry: a bounded number of expired rows is dropped per transaction; at 1 µs a row no sweep holds the lock for more than milliseconds."""

from __future__ import annotations

from stem_iso.brokers.operations import COMMAND_LIFE, COUNTS_LIFE
from stem_iso.brokers.sqlite import commands, counts, end_notices, pauses, rate_limits
from stem_iso.brokers.sqlite.event_log import EVENTS_LIFE, listened
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.sqlite.workers import SILENT, WORKER_LIFE

BATCH = 1000
ODD = 86_400.0  # no worker, no listener is renewed so far in the future. A text is larger than every number


def sweep(turn: Transaction, dead_letter_ttl: float) -> int:
    now = turn.now
    swept = (
        turn.run("DELETE FROM dead WHERE id IN (SELECT id FROM dead WHERE died <= ? LIMIT ?)", (now - dead_letter_ttl, BATCH)).rowcount
        + turn.run("DELETE FROM lock WHERE until <= ?", (now,)).rowcount
        + turn.run(f"DELETE FROM worker WHERE {SILENT}", (now - WORKER_LIFE,)).rowcount
        + turn.run("DELETE FROM worker WHERE seen > ?", (now + ODD,)).rowcount
        + turn.run("DELETE FROM listener WHERE until <= ? OR until > ?", (now, now + ODD)).rowcount
    )
    kept_since = now - EVENTS_LIFE if listened(turn) else now
    swept += rate_limits.sweep(turn, BATCH) + end_notices.sweep(turn)
    ended = [row[0] for row in turn.all(_ENDED, (now, BATCH))]
    counts.drop(turn, ended)
    swept += len(ended) + counts.sweep(turn) + commands.sweep(turn) + pauses.sweep(turn)
    return swept + turn.run("DELETE FROM event WHERE at <= ?", (kept_since,)).rowcount


# A text is larger than every number: a time that is none would else never come.
_ENDED = "SELECT seq FROM task WHERE state > 2 AND (at <= ? OR at >= '') LIMIT ?"


def due(turn: Transaction, dead_letter_ttl: float) -> bool:
    """Whether a sweep would find anything; asked without the lock."""
    now = turn.now
    if turn.all(rate_limits.STALE, (turn.lease_now, 1)) or pauses.overdue(turn):
        return True
    return any(
        turn.one(sql, (limit,))
        for sql, limit in (
            ("SELECT 1 FROM task WHERE state > 2 AND (at <= ? OR at >= '') LIMIT 1", now),
            ("SELECT 1 FROM dead WHERE died <= ? LIMIT 1", now - dead_letter_ttl),
            ("SELECT 1 FROM lock WHERE until <= ? LIMIT 1", now),
            (f"SELECT 1 FROM worker WHERE {SILENT} LIMIT 1", now - WORKER_LIFE),
            ("SELECT 1 FROM worker WHERE seen > ? LIMIT 1", now + ODD),
            ("SELECT 1 FROM listener WHERE until <= ? LIMIT 1", now),
            ("SELECT 1 FROM listener WHERE until > ? LIMIT 1", now + ODD),
            ("SELECT 1 FROM apart WHERE at <= ? LIMIT 1", now - end_notices.LIFE),
            (counts.STALE, counts.oldest(now)),
            ("SELECT 1 FROM used WHERE at <= ? OR at >= '' LIMIT 1", now - COUNTS_LIFE),
            *((sql, now - COMMAND_LIFE) for sql in commands.STALE),
            ("SELECT 1 FROM event WHERE at <= ? LIMIT 1", now - EVENTS_LIFE if listened(turn) else now),
        )
    )
