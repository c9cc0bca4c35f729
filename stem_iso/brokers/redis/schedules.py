"""Schedules: all of them in one slot; what they fire lies in the slots of its queues.

    fire    read: as it was planned? ── publish, compose ── compare and move the due time ─> True
                   └ no ─> False                                     └ moved by another, who published the same ─> False

Rules
 1. The ids of what is fired follow from the due time, so publishing is done first and may be done by several at once: whoever dies behind
    it leaves the due time where it was, and the next one publishes the same again, which changes nothing.
 2. One of those who fire a due time finds revision and due time as it read them, and moves it. It alone is answered True.
 3. A pause, a change or a removal between the look and the move lets that one firing out: it came a moment late.

Not promised: that nothing is fired twice by a worker that was stopped (SIGSTOP, a machine asleep) between its look and its publishing, for
longer than the task took and its tombstone stands (60 s and its TTL, see `keys`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stem_iso.brokers.base import ScheduleRecord
from stem_iso.brokers.redis.corrupt_records import DAMAGE, log_corrupt, text
from stem_iso.brokers.redis.driver.client import RedisClient
from stem_iso.brokers.redis.keys import SCHEDULES
from stem_iso.brokers.redis.records import frames
from stem_iso.task.canvas.tree import Canvas
from stem_iso.task.envelope import Envelope

STORED = f"{SCHEDULES}:s"


def listed(client: RedisClient) -> list[ScheduleRecord]:
    answer = client.command(SCHEDULES, "HGETALL", STORED)
    found = (_readable(answer[at], answer[at + 1]) for at in range(0, len(answer), 2))
    return sorted((record for record in found if record is not None), key=lambda record: record.name)


def _readable(name: bytes, stored: bytes) -> ScheduleRecord | None:
    try:
        return _record(name, stored)
    except DAMAGE:
        log_corrupt(f"the schedule {text(name)}: put it anew, or remove it")
        return None


def _record(name: bytes, stored: bytes) -> ScheduleRecord:
    revision, due, owner, paused, fired, body = frames(stored)
    return ScheduleRecord(
        name=name.decode(),
        revision=revision.decode(),
        body=body,
        due=float(due),
        owner=owner.decode(),
        paused=paused == b"1",
        fired_at=float(fired) if fired else None,
    )


def put(client: RedisClient, record: ScheduleRecord) -> bool:
    return _done(client, "put", record.name, record.revision, repr(record.due), record.owner, record.body)


def remove(client: RedisClient, name: str) -> bool:
    return _done(client, "remove", name)


def pause(client: RedisClient, name: str) -> bool:
    return _done(client, "pause", name)


def resume(client: RedisClient, name: str, due: float) -> bool:
    return _done(client, "resume", name, repr(due))


def _done(client: RedisClient, verb: str, name: str, *args: str | bytes) -> bool:
    return bool(client.call("schedule", SCHEDULES, verb, name, client.channel, *args))


def fire(
    client: RedisClient,
    record: ScheduleRecord,
    due: float,
    sent: Sequence[Envelope | Canvas],
    publish: Callable[[Sequence[Envelope]], Any],
    compose: Callable[[Canvas], Any],
) -> bool:
    """`publish` and `compose` are the broker's, idempotent; that nothing of `sent` is too large was checked before."""
    stored = client.command(SCHEDULES, "HGET", STORED, record.name)
    if stored is None:
        return False
    found = _readable(record.name.encode(), stored)
    if found is None or found.paused or (found.revision, found.due) != (record.revision, record.due):
        return False
    if envelopes := [each for each in sent if isinstance(each, Envelope)]:
        publish(envelopes)
    for each in sent:
        if isinstance(each, Canvas):
            compose(each)
    return _done(client, "fire", record.name, record.revision, repr(record.due), repr(due), "1" if sent else "0")
