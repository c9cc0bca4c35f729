"""Outcomes of schedules: what became of the tasks that each has fired last.

    schedule ── latest due times ──> ids ── one question for all schedules ──> records ──> the newest OUTCOMES that are known

Rules
 1. Nothing is stored for it: the id of a firing follows from the schedule's name and the due time (`task/schedule`). So what was triggered
    by hand is not among these, nor a firing that enqueued nothing, since its unique task still waited or ran.
 2. Sought are the due times before the one that comes next, and those before the last firing: of a schedule that was paused for long, the
    first may all have been left out. After a long time without workers fewer may be found than there were.
 3. Of a canvas it is the last part whose outcome counts. What has expired, or was deleted, is not shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from stem_iso.client.result import datetime_of
from stem_iso.task import schedule as planning

if TYPE_CHECKING:
    from stem_iso.brokers.base import Broker, ScheduleRecord, StatusRecord

OUTCOMES = 5  # of one schedule
ROUNDED = 0.001  # seconds: a due time may be rounded upwards by as much
QUESTION = 200  # ids in one question


class ScheduleOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One firing. `due`: for when it was; `state` and `reason` as of its task, `ended_at` None while that has not ended."""

    id: str
    due: datetime | None
    state: str
    reason: str | None
    ended_at: datetime | None


def outcomes(broker: Broker, records: Iterable[ScheduleRecord]) -> dict[str, list[ScheduleOutcome]]:
    """By name of the schedule, the newest first; none of one that cannot be read here."""
    fired = {record.name: _fired(record) for record in records}
    ids = [id for of_one in fired.values() for id in of_one.values()]
    known: dict[str, ScheduleOutcome] = {}
    due_of = {id: due for of_one in fired.values() for due, id in of_one.items()}
    for at in range(0, len(ids), QUESTION):
        found = broker.status(ids[at : at + QUESTION])
        known |= {record.id: _outcome(record, due_of[record.id]) for record in found if record is not None}
    return {name: [known[id] for id in of_one.values() if id in known][:OUTCOMES] for name, of_one in fired.items()}


def _fired(record: ScheduleRecord) -> dict[float, str]:
    """Due time -> id of what it may have fired, the newest first."""
    if record.fired_at is None:
        return {}
    try:
        schedule = planning.decode_schedule(record.body)
        before = {record.due, min(record.due, record.fired_at + ROUNDED)}
        dues = {due for each in before for due in planning.latest_due(schedule, each, OUTCOMES)}
        return {due: planning.fired_id(schedule, due) for due in sorted(dues, reverse=True)}
    except (ValueError, ArithmeticError, RecursionError):  # ValueError: InvalidOptions, Undecodable
        return {}


def _outcome(record: StatusRecord, due: float) -> ScheduleOutcome:
    return ScheduleOutcome(
        id=record.id,
        due=datetime_of(due),
        state=record.state.value,
        reason=record.reason,
        ended_at=datetime_of(record.finished_at) if record.state.terminal else None,
    )
