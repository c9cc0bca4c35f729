"""Schedules: a row each; a firing moves its due time and publishes in the same transaction.

Two workers that fire the same due time meet at the row: `revision` and `due` are the check, and only one finds both as it read them.
"""

from __future__ import annotations

from collections.abc import Sequence

from stem_iso.brokers.base import ScheduleRecord
from stem_iso.brokers.sqlite import publishing
from stem_iso.brokers.sqlite.bells import Bell
from stem_iso.brokers.sqlite.turn import Turn
from stem_iso.task.envelope import Envelope


def listed(turn: Turn) -> list[ScheduleRecord]:
    rows = turn.all("SELECT name, revision, body, due, owner, paused, fired FROM schedule ORDER BY name")
    return [
        ScheduleRecord(name=name, revision=revision, body=body, due=due, owner=owner, paused=bool(paused), fired_at=fired)
        for name, revision, body, due, owner, paused, fired in rows
    ]


def put(turn: Turn, record: ScheduleRecord) -> bool:
    known = turn.one("SELECT revision FROM schedule WHERE name = ?", (record.name,))
    if known == record.revision:
        turn.run("UPDATE schedule SET owner = ? WHERE name = ?", (record.owner, record.name))
        return False
    turn.run(_PUT, (record.name, record.revision, record.body, record.due, record.owner))
    turn.rings.add(Bell.WORK)
    return True


def remove(turn: Turn, name: str) -> bool:
    return bool(turn.all("DELETE FROM schedule WHERE name = ? RETURNING 1", (name,)))


def pause(turn: Turn, name: str) -> bool:
    return bool(turn.all("UPDATE schedule SET paused = 1 WHERE name = ? RETURNING 1", (name,)))


def resume(turn: Turn, name: str, due: float) -> bool:
    sql = "UPDATE schedule SET due = CASE paused WHEN 1 THEN ? ELSE due END, paused = 0 WHERE name = ? RETURNING 1"
    found = bool(turn.all(sql, (due, name)))
    if found:
        turn.rings.add(Bell.WORK)
    return found


def fire(turn: Turn, record: ScheduleRecord, due: float, pairs: Sequence[tuple[Envelope, bytes]]) -> bool:
    fired = turn.now if pairs else record.fired_at
    if not turn.all(_FIRE, (due, fired, record.name, record.revision, record.due)):
        return False
    if pairs:
        publishing.publish(turn, pairs)
    return True


_PUT = """
INSERT INTO schedule (name, revision, body, due, owner) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET revision = excluded.revision, body = excluded.body, due = excluded.due, owner = excluded.owner"""

_FIRE = """
UPDATE schedule SET due = ?, fired = ? WHERE name = ? AND revision = ? AND due = ? AND paused = 0 RETURNING 1"""
