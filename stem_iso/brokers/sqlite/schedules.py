"""Schedules: a row each; a firing moves its due time and publishes in the same transaction.

Two workers that fire the same due time meet at the row: `revision` and `due` are the check, and only one finds both as it read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from stem_iso.brokers import rules
from stem_iso.brokers.base import ScheduleRecord
from stem_iso.brokers.sqlite import canvas, publish
from stem_iso.brokers.sqlite.notifications import Topic
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.sqlite.values import data, is_text, moment, text
from stem_iso.task.canvas.tree import Canvas
from stem_iso.task.envelope import Envelope


def listed(turn: Transaction) -> list[ScheduleRecord]:
    rows = turn.all("SELECT name, revision, body, due, owner, paused, fired FROM schedule ORDER BY name")
    return [_record(turn, *row) for row in rows]


def _record(turn: Transaction, name: Any, revision: Any, body: Any, due: Any, owner: Any, paused: Any, fired: Any) -> ScheduleRecord:
    """One that cannot be read has no body, which whoever lists it or would fire it says; it can be removed, or declared anew."""
    sound = is_text(name) and is_text(revision) and moment(due) is not None
    return ScheduleRecord(
        name=text(name),
        revision=text(revision),
        body=data(body) if sound else b"",
        due=due if sound else turn.now,
        owner=text(owner),
        paused=bool(paused),
        fired_at=moment(fired),
    )


def put(turn: Transaction, record: ScheduleRecord) -> bool:
    known = turn.all("SELECT revision, due FROM schedule WHERE name = ?", (record.name,))
    if known and known[0][0] == record.revision and moment(known[0][1]) is not None:
        turn.run("UPDATE schedule SET owner = ? WHERE name = ?", (record.owner, record.name))
        return False
    turn.run(_PUT, (record.name, record.revision, record.body, record.due, record.owner))
    turn.topics.add(Topic.WORK)
    return True


def remove(turn: Transaction, name: str) -> bool:
    return bool(turn.all("DELETE FROM schedule WHERE name = ? RETURNING 1", (name,)))


def pause(turn: Transaction, name: str) -> bool:
    return bool(turn.all("UPDATE schedule SET paused = 1 WHERE name = ? RETURNING 1", (name,)))


def resume(turn: Transaction, name: str, due: float) -> bool:
    sql = "UPDATE schedule SET due = CASE paused WHEN 1 THEN ? ELSE due END, paused = 0 WHERE name = ? RETURNING 1"
    found = bool(turn.all(sql, (due, name)))
    if found:
        turn.topics.add(Topic.WORK)
    return found


class EncodedFiring(NamedTuple):
    """What is fired, encoded: envelopes of single calls, and canvases with those of their steps."""

    pairs: list[tuple[Envelope, bytes]]
    canvases: list[tuple[Canvas, list[tuple[Envelope, bytes]]]]


def encoded(sent: Sequence[Envelope | Canvas], limit: int) -> EncodedFiring:
    """Raises PayloadTooLarge."""
    pairs = rules.encoded([each for each in sent if isinstance(each, Envelope)], limit)
    canvases = [each for each in sent if isinstance(each, Canvas)]
    return EncodedFiring(pairs, [(each, rules.encoded([step.envelope for step in each.steps], limit)) for each in canvases])


def fire(turn: Transaction, record: ScheduleRecord, due: float, sent: EncodedFiring) -> bool:
    fired = turn.now if sent.pairs or sent.canvases else record.fired_at
    if not turn.all(_FIRE, (due, fired, record.name, record.revision, record.due)):
        return False
    publish.publish(turn, sent.pairs)
    for whole, bodies in sent.canvases:
        canvas.compose(turn, whole, bodies)
    return True


_PUT = """
INSERT INTO schedule (name, revision, body, due, owner) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET revision = excluded.revision, body = excluded.body, due = excluded.due, owner = excluded.owner"""

_FIRE = """
UPDATE schedule SET due = ?, fired = ? WHERE name = ? AND revision = ? AND due = ? AND paused = 0 RETURNING 1"""
