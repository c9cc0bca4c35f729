"""What the queue slot stores, as bytes: the record of a task, its final status, a dead letter, an entry of the outbox.

    record    flags B, priority B, [visibility d] [ttl d] [due d] [starts_in d] [lock H+bytes], head, envelope
    head      start H, length I: where in the envelope its `args` lie; or, as the flag HEAD says, length I + an envelope without the large
    status    state B, until d, finished d, started d, redeliveries H, nonce 8,
              frames: token, begun, head, reason, error, result, meta, progress
    letter    died d, frames: reason, error, note, begun, record
    entry     frames: kind, id, what, state, reason, error, result

All little-endian and unaligned; a frame is I + bytes, an empty one means None. A status keeps its envelope without args: it says name,
attempt, parent and meta already. What changes of a waiting envelope lies beside it: `note`, what the handler wrote to `meta`, and `begun`,
how a part of a canvas began (msgpack [previous, parent, now]); whoever reads the envelope lays them over it (`merged`).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from stem_iso.brokers.base import DeadLetter, StatusRecord
from stem_iso.outcome import TaskError
from stem_iso.task.canvas import Ref, Start, started
from stem_iso.task.envelope import Envelope, Undecodable, decode, encode
from stem_iso.task.status import LIMITS, Progress, TaskState

VISIBILITY, TTL, DUE, STARTS_IN, LOCK, HEAD = (1 << bit for bit in range(6))
RESULT_TTL = 86_400.0  # of a status whose end the broker itself decides, where the envelope does not say; scripts know it too
SUCCEEDED, FAILED, CANCELLED = 3, 4, 5
ENDED = {TaskState.SUCCEEDED: SUCCEEDED, TaskState.FAILED: FAILED, TaskState.CANCELLED: CANCELLED}
STATES = {number: state for state, number in ENDED.items()}

_NOTHING = msgspec.Raw(b"\x80")
_STATUS = struct.Struct("<BdddH8s")
_encoder = msgspec.msgpack.Encoder()
_error = msgspec.msgpack.Decoder(TaskError)
_progress = msgspec.msgpack.Decoder(Progress)
_meta = msgspec.msgpack.Decoder(dict[str, Any])
_begun = msgspec.msgpack.Decoder(tuple[bytes, str, float])


# -- frames ---------------------------------------------------------------------------------------------------------------------------


def framed(*parts: bytes | str | None) -> bytes:
    found = []
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part or b""
        found.append(len(raw).to_bytes(4, "little") + raw)
    return b"".join(found)


def frames(data: bytes, at: int = 0) -> list[bytes]:
    """All of them from `at` on."""
    found = []
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        found.append(data[at + 4 : end])
        at = end
    return found


def pack(value: object) -> bytes:
    """Nothing for None and what is empty."""
    return _encoder.encode(value) if value else b""


def pack_meta(meta: dict[str, Any] | None) -> bytes:
    """An emptied map too must replace the one before it."""
    return b"" if meta is None else _encoder.encode(meta)


def pack_progress(progress: Progress | None) -> bytes:
    return b"" if progress is None else _encoder.encode(progress)


def unpack_error(data: bytes | None) -> TaskError | None:
    return _error.decode(data) if data else None


def pack_begun(previous: bytes, parent: str, now: float) -> bytes:
    return _encoder.encode((previous, parent, now))


# -- the record of a task ----------------------------------------------------------------------------------------------------------------


class Record(NamedTuple):
    priority: int
    visibility: float | None
    ttl: float | None
    due: float | None
    starts_in: float | None
    lock: str | None
    body: bytes


def record(envelope: Envelope, body: bytes | None = None) -> bytes:
    """`body`: the envelope encoded, where that was done already."""
    body = encode(envelope) if body is None else body
    flags, fields = 0, []
    for flag, value in (
        (VISIBILITY, envelope.visibility_timeout),
        (TTL, envelope.result_ttl),
        (DUE, envelope.not_before),
        (STARTS_IN, envelope.starts_in),
    ):
        if isinstance(value, (int, float)):
            flags |= flag
            fields.append(struct.pack("<d", value))
    if envelope.lock is not None:
        flags |= LOCK
        lock = envelope.lock.encode()
        fields.append(len(lock).to_bytes(2, "little") + lock)
    flag, head = _head(envelope, body)
    return b"".join((bytes((flags | flag, envelope.priority)), *fields, head, body))


def _head(envelope: Envelope, body: bytes) -> tuple[int, bytes]:
    start = body.find(b"\xa4args") + 5
    if envelope.previous is None and not envelope.headers and not envelope.extra and start < 65_536:
        end = start + len(envelope.args)
        if start > 5 and body[start:end] == bytes(envelope.args):
            return 0, struct.pack("<HI", start, len(envelope.args))
    bare = encode(msgspec.structs.replace(envelope, args=_NOTHING, previous=None, headers={}, extra={}))
    return HEAD, framed(bare)


def parsed(data: bytes) -> Record:
    flags, priority = data[0], data[1]
    numbers: list[float | None] = []
    at = 2
    for flag in (VISIBILITY, TTL, DUE, STARTS_IN):
        numbers.append(struct.unpack_from("<d", data, at)[0] if flags & flag else None)
        at += 8 if flags & flag else 0
    lock = None
    if flags & LOCK:
        end = at + 2 + int.from_bytes(data[at : at + 2], "little")
        lock, at = data[at + 2 : end].decode(), end
    at += 4 + int.from_bytes(data[at : at + 4], "little") if flags & HEAD else 6
    return Record(priority, numbers[0], numbers[1], numbers[2], numbers[3], lock, data[at:])


def body_of(data: bytes, note: bytes | None = None, begun: bytes | None = None) -> bytes:
    """The envelope of a record as it is now, encoded."""
    if not data[0]:  # most of them
        return data[8:] if not note and not begun else merged(data[8:], note, begun)
    return merged(parsed(data).body, note, begun)


def merged(body: bytes, note: bytes | None, begun: bytes | None) -> bytes:
    """Bytes that are no envelope stay as they are."""
    if not note and not begun:
        return body
    try:
        return encode(_laid_over(decode(body), note, begun))
    except Undecodable:
        return body


def _laid_over(envelope: Envelope, note: bytes | None, begun: bytes | None) -> Envelope:
    if begun:
        previous, parent, now = _begun.decode(begun)
        envelope = started(envelope, Start(Ref(envelope.id, envelope.queue), previous, parent), now)
    return msgspec.structs.replace(envelope, meta=_meta.decode(note)) if note else envelope


# -- status and dead letter ---------------------------------------------------------------------------------------------------------------


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


def _head_of(data: bytes, begun: bytes | None) -> Envelope:
    return _laid_over(decode(data), None, begun)


def live(id: str, queue: str, seen: Live) -> StatusRecord:
    """Queued, retried or running. The worker is named by its boot."""
    stored = parsed(seen.record)
    try:
        envelope = _head_of(stored.body, seen.begun)
    except Undecodable:
        envelope = Envelope(id=id, name="", args=_NOTHING, queue=queue)
    reason, error = frames(seen.why)[:2] if seen.why else (b"", b"")
    boot = started_at = None
    if seen.lease:
        words = seen.lease.decode().split(" ")
        boot, started_at = words[0], float(words[2])
    why = "waiting" if seen.waits else None if seen.lease else reason.decode() or None
    due = stored.due if seen.due is None else float(seen.due)
    return StatusRecord(
        id=id,
        name=envelope.name,
        queue=queue,
        state=TaskState.RUNNING if seen.lease else TaskState.RETRIED if envelope.attempt else TaskState.QUEUED,
        reason=why,
        run=envelope.run,
        attempt=envelope.attempt,
        redeliveries=int(seen.redeliveries or 0),
        error=unpack_error(error),
        progress=_progress.decode(seen.progress) if seen.progress else None,
        meta=_meta.decode(seen.note) if seen.note else envelope.meta,
        enqueued_at=envelope.enqueued_at or None,
        not_before=None if seen.lease or seen.waits or why in LIMITS else due,
        started_at=started_at,
        worker_id=boot,
        parent_id=envelope.parent_id,
        root_id=envelope.root_id,
    )


def ended(id: str, queue: str, data: bytes) -> StatusRecord:
    """`data`: the value of `P:s:<id>`; whether it still counts (`until`) is the script's to say. The worker is named by its boot."""
    state, _, finished, started_at, redeliveries, _ = _STATUS.unpack_from(data)
    token, begun, head, reason, error, result, meta, progress = frames(data, _STATUS.size)
    envelope = _head_of(head, begun)
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
        progress=_progress.decode(progress) if progress else None,
        meta=_meta.decode(meta) if meta else envelope.meta,
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


def head_of(id: str, queue: str, data: bytes) -> Envelope:
    """Of a record: its envelope without what may be large. It decodes where the envelope does not, for what it leaves out."""
    try:
        return decode(_bare(data))
    except Undecodable:
        return Envelope(id=id, name="", args=_NOTHING, queue=queue)


def _bare(data: bytes) -> bytes:
    body = parsed(data).body
    before = len(data) - len(body)
    if data[0] & HEAD:
        return frames_before(data, before)
    start, length = struct.unpack_from("<HI", data, before - 6)
    return body[:start] + b"\x80" + body[start + length :]


def frames_before(data: bytes, end: int) -> bytes:
    """The frame of the head, which ends at `end`."""
    at = 2 + 8 * (data[0] & 15).bit_count()
    if data[0] & LOCK:
        at += 2 + int.from_bytes(data[at : at + 2], "little")
    return data[at + 4 : end]


def entry(data: bytes) -> Sequence[bytes]:
    """Of the outbox: kind, id, what, state, reason, error, result."""
    return frames(data)


def visibility_of(data: bytes) -> float | None:
    """Of a record."""
    return struct.unpack_from("<d", data, 2)[0] if data[0] & VISIBILITY else None
