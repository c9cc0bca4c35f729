"""A row of `task` as values, and values as a row.

`waiting` makes the row of an envelope; `record` the `StatusRecord` of a row. States queued, running, retried are never written: they follow
from where the row stands.
"""

from __future__ import annotations

from typing import Any

import msgspec

from stem_iso.brokers.base import StatusRecord
from stem_iso.brokers.sqlite import schema
from stem_iso.brokers.sqlite.connection import Row
from stem_iso.outcome import TaskError
from stem_iso.task.envelope import Envelope, Undecodable, decode, encode
from stem_iso.task.status import LIMITS, Progress, TaskState

_encoder = msgspec.msgpack.Encoder()
_error = msgspec.msgpack.Decoder(TaskError)
_progress = msgspec.msgpack.Decoder(Progress)
_meta = msgspec.msgpack.Decoder(dict[str, Any])

ENDED = {TaskState.SUCCEEDED: schema.SUCCEEDED, TaskState.FAILED: schema.FAILED, TaskState.CANCELLED: schema.CANCELLED}
_STATES = {number: state for state, number in ENDED.items()} | {schema.LEASED: TaskState.RUNNING}


def pack(value: object) -> bytes | None:
    """None stays None, and so does an empty map: neither costs a byte in the row."""
    return _encoder.encode(value) if value else None


def pack_progress(progress: Progress | None) -> bytes | None:
    return None if progress is None else _encoder.encode(progress)


def unpack_error(body: bytes | None) -> TaskError | None:
    return None if body is None else _error.decode(body)


def seconds(value: object) -> float | None:
    """A duration of an envelope; None where it does not say."""
    return float(value) if isinstance(value, (int, float)) else None


def state_of(state: int, attempt: int) -> TaskState:
    if state in (schema.WAITING, schema.READY, schema.DELAYED):
        return TaskState.RETRIED if attempt else TaskState.QUEUED
    return _STATES[state]


def with_meta(body: bytes, meta: bytes | None) -> bytes:
    """The envelope with what its handler wrote to `meta`; bytes that are no envelope stay as they are."""
    try:
        envelope = decode(body)
    except Undecodable:
        return body
    written = _meta.decode(meta) if meta else {}
    return body if envelope.meta == written else encode(msgspec.structs.replace(envelope, meta=written))


# -- in ---------------------------------------------------------------------------------------------------------------------------

INSERT = """
INSERT INTO task (id, name, queue, rank, state, at, run, attempt, redeliveries, visibility, ttl, lock, parent, root, enqueued, meta, body)
VALUES {rows} ON CONFLICT (id) DO NOTHING RETURNING id"""


def waiting(envelope: Envelope, body: bytes, now: float) -> tuple[Any, ...]:
    """The row of an envelope that waits. A due time stays in `at` once it has come, so that the status can tell it."""
    due = envelope.not_before
    return (
        envelope.id,
        envelope.name,
        envelope.queue,
        9 - envelope.priority,
        schema.DELAYED if due is not None and due > now else schema.READY,
        due,
        envelope.run,
        envelope.attempt,
        envelope.redeliveries,
        seconds(envelope.visibility_timeout),
        seconds(envelope.result_ttl),
        envelope.lock,
        envelope.parent_id,
        envelope.root_id,
        envelope.enqueued_at or None,
        pack(envelope.meta),
        body,
    )


# -- out --------------------------------------------------------------------------------------------------------------------------

SELECT = """
SELECT task.id, name, queue, state, reason, run, attempt, redeliveries, result, error, progress, meta, enqueued, at, started, finished,
       coalesce(worker.id, task.boot), parent, root
FROM task LEFT JOIN worker ON worker.boot = task.boot """


def record(row: Row) -> StatusRecord:
    (id, name, queue, state, reason, run, attempt, redeliveries, result, error, progress, meta, enqueued, at, started, finished, *rest) = (
        row
    )
    return StatusRecord(
        id=id,
        name=name,
        queue=queue,
        state=state_of(state, attempt),
        reason=None if state == schema.LEASED else reason,
        run=run,
        attempt=attempt,
        redeliveries=redeliveries,
        result=result,
        error=unpack_error(error),
        progress=None if progress is None else _progress.decode(progress),
        meta=_meta.decode(meta) if meta else {},
        enqueued_at=enqueued,
        not_before=at if state in (schema.READY, schema.DELAYED) and reason not in LIMITS else None,  # it may come much sooner
        started_at=started,
        finished_at=finished,
        worker_id=rest[0],
        parent_id=rest[1],
        root_id=rest[2],
    )
