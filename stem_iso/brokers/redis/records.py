"""Records of a queue's slot, as bytes: the record of a task, its final status, a dead letter, an entry of the outbox.

    record    flags B, priority B, [visibility d] [ttl d] [due d] [starts_in d] [lock H+bytes], head, envelope
    head      start H, length I: where in the envelope its `args` lie; or, as the flag HEAD says, length I + an envelope without the large
    status    state B, until d, finished d, started d, redeliveries H, nonce 8,
              frames: token, begun, head, reason, error, result, meta, progress
              token: "boot sequence", and a third word where head is the whole envelope: "task", or "part" of a part of a canvas
    letter    died d, frames: reason, error, note, begun, record
    entry     frames: kind, id, what, state, reason, error, result

All little-endian and unaligned; a frame is I + bytes, an empty one means None. A status keeps its envelope, with which its arguments are
shown and it can run again; an older worker kept it without args. What changes of a waiting envelope lies beside it: `note`, what the
handler wrote to `meta`, and `begun`, how a part of a canvas began (msgpack [previous, parent, now]); whoever reads the envelope lays them
over it (`merged`).
"""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from stem_iso.brokers.redis.corrupt_records import DAMAGE
from stem_iso.outcome import Progress, TaskError, TaskState
from stem_iso.task.canvas.tree import Ref, Start, started
from stem_iso.task.envelope import Envelope, Undecodable, decode, encode

VISIBILITY, TTL, DUE, STARTS_IN, LOCK, HEAD = (1 << bit for bit in range(6))
NO_NUMBERS = (None,) * 4
LONGEST_LOCK = 4096  # bytes: a longer one is known by its hash
SUCCEEDED, FAILED, CANCELLED = 3, 4, 5
ENDED = {TaskState.SUCCEEDED: SUCCEEDED, TaskState.FAILED: FAILED, TaskState.CANCELLED: CANCELLED}
STATES = {number: state for state, number in ENDED.items()}

NO_ARGS = msgspec.Raw(b"\x80")
_place = struct.Struct("<HI")
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


def unpack_meta(data: bytes) -> dict[str, Any]:
    return _meta.decode(data)


def unpack_progress(data: bytes) -> Progress:
    return _progress.decode(data)


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
    numbers = envelope.visibility_timeout, envelope.result_ttl, envelope.not_before, envelope.starts_in
    if numbers != NO_NUMBERS:
        for place, value in enumerate(numbers):
            if isinstance(value, (int, float)):
                flags |= 1 << place
                fields.append(struct.pack("<d", value))
    if envelope.lock is not None:
        flags |= LOCK
        lock = envelope.lock.encode()
        if len(lock) > LONGEST_LOCK:
            lock = sha256(lock).hexdigest().encode()
        fields.append(len(lock).to_bytes(2, "little") + lock)
    flag, head = _head(envelope, body)
    start = bytes((flags | flag, envelope.priority))
    return b"".join((start, *fields, head, body)) if fields else start + head + body


def _head(envelope: Envelope, body: bytes) -> tuple[int, bytes]:
    start = body.find(b"\xa4args") + 5
    if envelope.previous is None and not envelope.headers and not envelope.extra and 5 < start < 65_536:
        args = bytes(envelope.args)
        if body.startswith(args, start):
            return 0, _place.pack(start, len(args))
    bare = encode(msgspec.structs.replace(envelope, args=NO_ARGS, previous=None, headers={}, extra={}, attempts=()))
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
    """The envelope of a record as it is now, encoded; of one that is damaged, bytes that are no envelope."""
    if not note and not begun and data[:1] == b"\0":  # most of them
        return data[8:]
    try:
        return merged(data[8:] if not data[0] else parsed(data).body, note, begun)
    except DAMAGE:
        return data


def merged(body: bytes, note: bytes | None, begun: bytes | None) -> bytes:
    """Bytes that are no envelope stay as they are. What should lie over it and cannot be read makes it none: it would run without."""
    if not note and not begun:
        return body
    try:
        envelope = decode(body)
    except Undecodable:
        return body
    try:
        return encode(laid_over(envelope, note, begun))
    except DAMAGE:
        return b"\xc1" + body  # a byte that msgpack never writes


def laid_over(envelope: Envelope, note: bytes | None, begun: bytes | None) -> Envelope:
    """What lies beside a record, over its envelope."""
    if begun:
        previous, parent, now = _begun.decode(begun)
        envelope = started(envelope, Start(Ref(envelope.id, envelope.queue), previous, parent), now)
    return msgspec.structs.replace(envelope, meta=_meta.decode(note)) if note else envelope


def head_of(id: str, queue: str, data: bytes) -> Envelope:
    """Of a record: its envelope without what may be large. It decodes where the envelope does not, for what it leaves out."""
    try:
        return decode(_bare(data))
    except DAMAGE:  # Undecodable among them
        return Envelope(id=id, name="", args=NO_ARGS, queue=queue)


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


def visibility_of(data: bytes) -> float | None:
    """Of a record. As `within` in common.lua."""
    if len(data) < 10 or not data[0] & VISIBILITY:
        return None
    (seconds,) = struct.unpack_from("<d", data, 2)
    return seconds if 0 <= seconds <= 1e11 else None


def priority_of(data: bytes) -> int:
    """Of a record."""
    return data[1] if len(data) > 1 and data[1] <= 9 else 0
