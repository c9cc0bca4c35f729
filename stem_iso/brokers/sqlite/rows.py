"""Rows of `task`: an envelope as a row, the end of a row, a row as a status.

    waiting ── Envelope ──> row        close ── RowEnd ──> row, which is the status from then on        row ── record ──> StatusRecord

States queued, running, retried are never written: they follow from where the row stands.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from stem_iso.brokers.base import StatusRecord
from stem_iso.brokers.sqlite import schema, values
from stem_iso.brokers.sqlite.connection import Row
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.outcome import LIMITS, Progress, TaskError, TaskState
from stem_iso.task.envelope import Envelope, Undecodable, decode, encode

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

_COMMON = "id, name, queue, rank, state, run, attempt, enqueued, body"  # what each row has; the rest is nothing in most of them
_RARE = "at, redeliveries, visibility, ttl, lock, parent, root, meta"
_COMMONS, _NOTHING = 9, (None, 0, *(None,) * 6)
_INSERT = "INSERT INTO task ({columns}) VALUES {{rows}} ON CONFLICT (id) DO NOTHING"
_INSERT_ALL, _INSERT_COMMON = _INSERT.format(columns=f"{_COMMON}, {_RARE}"), _INSERT.format(columns=_COMMON)


def add_waiting(turn: Transaction, pairs: Sequence[tuple[Envelope, bytes]]) -> int:
    """Store envelopes with their bytes, in one statement per CHUNK; how many there were not before.

    A value that is not bound costs nothing: rows that have only what all have are stored in less than half of the time.
    """
    rows = [waiting(envelope, body, turn.now) for envelope, body in pairs]
    for row in rows:
        if row[_COMMONS:] != _NOTHING:
            return turn.count_of_rows(_INSERT_ALL, rows)  # all of them by one statement, so that they keep their order
    return turn.count_of_rows(_INSERT_COMMON, [row[:_COMMONS] for row in rows])


def newest(turn: Transaction) -> int:
    """The largest `seq` there is: the next one is one more."""
    return turn.one("SELECT max(seq) FROM task") or 0


def waiting(envelope: Envelope, body: bytes, now: float) -> tuple[Any, ...]:
    """The row of an envelope that waits. A due time stays in `at` once it has come, so that the status can tell it."""
    due = envelope.not_before
    return (
        envelope.id,
        envelope.name,
        envelope.queue,
        9 - envelope.priority,
        schema.DELAYED if due is not None and due > now else schema.READY,
        envelope.run,
        envelope.attempt,
        envelope.enqueued_at or None,
        body,
        due,
        envelope.redeliveries,
        seconds(envelope.visibility_timeout),
        seconds(envelope.result_ttl),
        envelope.lock,
        envelope.parent_id,
        envelope.root_id,
        pack(envelope.meta),
    )


# -- ended ----------------------------------------------------------------------------------------------------------------------


class RowEnd(NamedTuple):
    """`until` is when the status expires, wall clock."""

    seq: int
    state: int
    until: float
    reason: str | None = None
    error: bytes | None = None
    result: bytes | None = None
    meta: bytes | None = None  # None: as it was
    progress: bytes | None = None  # None: as it was


# Ends that are alike but for their rows are written by one plain statement, which takes a third less than a join with their values. Most
# are: of tasks that return nothing, above all. What is longer than SHORT, bytes, is not compared.
FEW, SHORT = 3, 256


def close(turn: Transaction, endings: Sequence[RowEnd]) -> None:
    """The row is the status from now on. Its envelope stays, for those who ask with which arguments it ran, and for a retry."""
    alike: dict[tuple[Any, ...], list[RowEnd]] = defaultdict(list)
    others: list[RowEnd] = []
    for ending in endings:
        if ending.result is None or len(ending.result) <= SHORT:
            alike[ending[1:]].append(ending)
        else:
            others.append(ending)
    for end, same in alike.items():
        if len(same) >= FEW or len(endings) < FEW:
            turn.of_keys(_END_ALIKE, [ending.seq for ending in same], *end, turn.now)
        else:
            others += same
    turn.of_rows(_END, [(*ending, turn.now) for ending in others])


def add_dead_letters(turn: Transaction, rows: Sequence[tuple[int, str, bytes | None]]) -> None:
    """A dead letter for each: (seq, reason, error). Before they are closed, which frees their locks."""
    turn.of_rows(_BURY, [(turn.now, *row) for row in rows])


# column1, column2, …: how SQLite names the columns of a VALUES list.
_ENDED = "sequence = NULL, marked = 0, revoked = 0, lock = NULL, slot = NULL, waits = NULL"
_END = f"""
UPDATE task SET state = v.column2, at = v.column3, reason = v.column4, error = v.column5, result = v.column6,
  meta = coalesce(v.column7, meta), progress = coalesce(v.column8, progress), finished = v.column9,
  {_ENDED} FROM (VALUES {{rows}}) AS v WHERE task.seq = v.column1"""
_END_ALIKE = f"""
UPDATE task SET state = ?, at = ?, reason = ?, error = ?, result = ?, meta = coalesce(?, meta), progress = coalesce(?, progress),
  finished = ?, {_ENDED} WHERE seq IN ({{keys}})"""

_BURY = """
INSERT INTO dead (id, name, queue, reason, run, attempt, died, lock, error, body)
SELECT id, name, queue, v.column3, run, attempt, v.column1, lock, v.column4, body
FROM (VALUES {rows}) AS v CROSS JOIN task ON task.seq = v.column2
WHERE true ON CONFLICT (id) DO UPDATE SET name = excluded.name, queue = excluded.queue, reason = excluded.reason, run = excluded.run,
  attempt = excluded.attempt, died = excluded.died, lock = excluded.lock, error = excluded.error, body = excluded.body
"""


# -- out --------------------------------------------------------------------------------------------------------------------------

SELECT = """
SELECT task.id, name, queue, state, reason, run, attempt, redeliveries, result, error, progress, meta, enqueued, at, started, finished,
       coalesce(worker.id, task.boot), parent, root, body, seq
FROM task LEFT JOIN worker ON worker.boot = task.boot """


def record(row: Row) -> StatusRecord:
    """What cannot be read is left out, and a state that is none is shown as a failure."""
    (id, name, queue, state, reason, run, attempt, redeliveries, result, error, progress, meta, enqueued, at, started, finished, *rest) = (
        row
    )
    known, envelope = state in _KNOWN, _envelope(rest[3])
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
        args=None if envelope is None else bytes(envelope.args),
        attempts=() if envelope is None else envelope.attempts,
        ready_at=None if envelope is None else envelope.ready_at,
    )


def _envelope(body: Any) -> Envelope | None:
    try:
        return None if body is None else decode(values.data(body))
    except Undecodable:
        return None
