"""Status of a task as people see it: `StatusRecord` of one that lives or has ended, `DeadLetter` of one that died.

States queued, running, retried are never written: they follow from where the record stands.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from stem_iso.brokers.base import DeadLetter, StatusRecord
from stem_iso.brokers.redis.corrupt_records import UNREADABLE
from stem_iso.brokers.redis.records import (
    NO_ARGS,
    STATES,
    body_of,
    frames,
    head_of,
    laid_over,
    parsed,
    unpack_error,
    unpack_meta,
    unpack_progress,
)
from stem_iso.task.envelope import Envelope, Undecodable, decode
from stem_iso.task.status import LIMITS, TaskState

_STATUS = struct.Struct("<BdddH8s")


class Live(NamedTuple):
    """What the slot knows of a task that has not ended, a field each; None where there is nothing."""

    record: bytes
    lease: bytes | None  # "boot sequence started [visibility]"
    redeliveries: bytes | None
    note: bytes | None
    progress: bytes | None
    why: bytes | None  # frames: reason, error
    waits: int
    due: bytes | None
    begun: bytes | None


def live(id: str, queue: str, seen: Live) -> StatusRecord:
    """Queued, retried or running. The worker is named by its boot."""
    stored = parsed(seen.record)
    try:
        envelope = laid_over(decode(stored.body), None, seen.begun)
    except Undecodable:
        envelope = Envelope(id=id, name="", args=NO_ARGS, queue=queue)
    reason, error = frames(seen.why)[:2] if seen.why else (b"", b"")
    boot = started_at = None
    if seen.lease is not None:
        words = seen.lease.decode().split(" ")
        boot, started_at = words[0], float(words[2])
    why = "waiting" if seen.waits else None if seen.lease else reason.decode() or None
    due = stored.due if seen.due is None else float(seen.due)
    return StatusRecord(
        id=id,
        name=envelope.name,
        queue=queue,
        state=TaskState.RUNNING if seen.lease is not None else TaskState.RETRIED if envelope.attempt else TaskState.QUEUED,
        reason=why,
        run=envelope.run,
        attempt=envelope.attempt,
        redeliveries=int(seen.redeliveries or 0),
        error=unpack_error(error),
        progress=unpack_progress(seen.progress) if seen.progress else None,
        meta=unpack_meta(seen.note) if seen.note else envelope.meta,
        enqueued_at=envelope.enqueued_at or None,
        not_before=None if seen.lease or seen.waits or why in LIMITS else due,
        started_at=started_at,
        worker_id=boot,
        parent_id=envelope.parent_id,
        root_id=envelope.root_id,
    )


def unreadable(seen: bytes | list[Any]) -> dict[str, Any]:
    """What can be said of a task all the same."""
    if isinstance(seen, bytes):
        return {"state": TaskState.FAILED, "reason": UNREADABLE}
    return {"state": TaskState.RUNNING if Live._make(seen).lease is not None else TaskState.QUEUED}


def ended(id: str, queue: str, data: bytes) -> StatusRecord:
    """`data`: the value of `P:s:<id>`; whether it still counts (`until`) is the script's to say. The worker is named by its boot."""
    state, _, finished, started_at, redeliveries, _ = _STATUS.unpack_from(data)
    token, begun, head, reason, error, result, meta, progress = frames(data, _STATUS.size)
    envelope = laid_over(decode(head), None, begun)
    return StatusRecord(
        id=id,
        name=envelope.name,
        queue=queue,
        state=STATES[state],
        reason=reason.decode() or None,
        run=envelope.run,
        attempt=envelope.attempt,
        redeliveries=redeliveries,
        result=result or None,
        error=unpack_error(error),
        progress=unpack_progress(progress) if progress else None,
        meta=unpack_meta(meta) if meta else envelope.meta,
        enqueued_at=envelope.enqueued_at or None,
        started_at=started_at or None,
        finished_at=finished,
        worker_id=token.decode().partition(" ")[0] or None,
        parent_id=envelope.parent_id,
        root_id=envelope.root_id,
    )


def letter(id: str, queue: str, data: bytes) -> DeadLetter:
    """A value of `P:x`."""
    (died,) = struct.unpack_from("<d", data)
    reason, error, note, begun, stored = frames(data, 8)
    body = body_of(stored, note, begun)
    try:
        envelope = decode(body)
    except Undecodable:
        envelope = head_of(id, queue, stored)
    return DeadLetter(
        id=id,
        name=envelope.name,
        queue=queue,
        reason=reason.decode(),
        run=envelope.run,
        attempt=envelope.attempt,
        died_at=died,
        error=unpack_error(error),
        body=body,
    )
