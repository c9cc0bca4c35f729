"""A row of `task` as values, and values as a row.

`waiting` makes the row of an envelope; `record` the `StatusRecord` of a row. States queued, running, retried are never written: they follow
from where the row stands.
"""

from __future__ import annotations

from typing import Any

import msgspec

from stem_iso.brokers.base import StatusRecord
from stem_iso.brokers.sqlite import schema, values
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
_KNOWN = frozenset({schema.WAITING, schema.READY, schema.DELAYED, *_STATES})
UNDECODABLE = "stem_iso.task.envelope.Undecodable"


def pack(value: object) -> bytes | None:
    """None stays None, and so does an empty map: neither costs a byte in the row."""
    return _encoder.encode(value) if value else None


def pack_progress(progress: Progress | None) -> bytes | None:
    return None if progress is None else _encoder.encode(progress)


def unpack_error(body: Any) -> TaskError | None:
    if body is None:
        return None
    return values.unpacked(_error, body) or TaskError(type=UNDECODABLE, message="its error cannot be read", retryable=False)


def undecodable(message: str) -> TaskError:
    return TaskError(type=UNDECODABLE, message=message, retryable=False)


def seconds(value: object) -> float | None:
    """A duration of an envelope; None where it does not say."""
    return float(value) if isinstance(value, (int, float)) else None


def state_of(state: Any, attempt: Any) -> TaskState:
    """Failed where no such state is known: nobody will ever run it."""
    if state in (schema.WAITING, schema.READY, schema.DELAYED):
        return TaskState.RETRIED if attempt else TaskState.QUEUED
    return _STATES.get(state, TaskState.FAILED)


def with_meta(body: Any, meta: Any) -> Any:
    """The envelope with what its handler wrote to `meta`; what is no envelope, or no meta, leaves it as it is."""
    try:
        envelope = decode(values.data(body))
    except Undecodable:
        return body
    written = values.unpacked(_meta, meta) if meta else {}
    if written is None:
        return body
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
    """What cannot be read is left out, and a state that is none is told as a failure."""
    (id, name, queue, state, reason, run, attempt, redeliveries, result, error, progress, meta, enqueued, at, started, finished, *rest) = (
        row
    )
    known = state in _KNOWN
    waits = state in (schema.READY, schema.DELAYED) and reason not in LIMITS  # one that waits for a limit may come much sooner
    return StatusRecord(
        id=values.text(id),
        name=values.text(name),
        queue=values.text(queue),
        state=state_of(state, attempt),
        reason=None if state == schema.LEASED else values.optional_text(reason) if known else "undecodable",
        run=values.count(run),
        attempt=values.count(attempt),
        redeliveries=values.count(redeliveries),
        result=None if result is None else values.data(result),
        error=unpack_error(error) if known else undecodable(f"its state is {state!r}"),
        progress=values.unpacked(_progress, progress),
        meta=(values.unpacked(_meta, meta) if meta else None) or {},
        enqueued_at=values.moment(enqueued),
        not_before=values.moment(at) if waits else None,
        started_at=values.moment(started),
        finished_at=values.moment(finished),
        worker_id=values.optional_text(rest[0]),
        parent_id=values.optional_text(rest[1]),
        root_id=values.optional_text(rest[2]),
    )
