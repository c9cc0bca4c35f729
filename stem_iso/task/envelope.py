"""Envelope: the message that asks for one attempt of a task.

    producer: Envelope ── encode ──> bytes in the broker ── decode ──> worker: Envelope

Rules
 1. Never pickled. msgpack, typed and validated by msgspec; nothing in it can name code but `name`, which only finds a registered handler.
 2. `args` stay undecoded (`msgspec.Raw`, a msgpack map of parameter names): they travel to the isolate as they came.
 3. Options are UNSET where the producer did not say: the handler's own then hold. A value given at enqueue overrides, a default value and
    None included (`max_retries=0` over 3 means 0).
 4. An id is printable: it stands in process titles, log lines, keys of stores. Counts and the priority are in the range that every store
    holds. What arrives with others is no envelope, whoever made it.
 5. Fields of a newer version are kept: what is not known here sits in `extra` and is written back by `encode`.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from stem_iso.outcome import EndedAttempt

VERSION = 1
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class Envelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One attempt of one task. Times are wall-clock seconds since the epoch, durations seconds."""

    id: str
    name: str
    args: msgspec.Raw
    v: int = msgspec.field(default_factory=lambda: VERSION)  # by a factory: what equals a plain default is left out on the wire
    queue: str = "default"
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] = 0
    headers: dict[str, Any] = {}
    meta: dict[str, Any] = {}
    run: Count = 0
    attempt: Count = 0
    redeliveries: Count = 0
    enqueued_at: float = 0.0
    not_before: float | None = None
    expires: float | None = None
    lock: str | None = None  # the unique key in full ("queue/task/key"), None where the task is not unique
    unique_for: float | None = None  # the longest life of that lock, seconds
    parent_id: str | None = None
    root_id: str | None = None
    previous: bytes | None = None  # in a canvas: the result before it, encoded
    after: bool = False  # and that it is the first argument (`task.after(...)`)
    starts_in: float | None = None  # of a step that waits for others: its delay, counted from its start
    expires_in: float | None = None  # and its expiry
    unregistered_since: float | None = None  # when a worker first met it without its handler
    attempts: tuple[EndedAttempt, ...] = ()  # those before this one (`attempt_history`)
    max_retries: int | UnsetType = UNSET
    visibility_timeout: float | UnsetType | None = UNSET
    soft_time_limit: float | UnsetType | None = UNSET
    hard_time_limit: float | UnsetType | None = UNSET
    heartbeat_timeout: float | UnsetType | None = UNSET
    memory_limit: int | UnsetType | None = UNSET
    cpu_bound: bool | UnsetType = UNSET
    cpus: int | UnsetType = UNSET
    soft_limit_action: str | UnsetType = UNSET
    acks_late: bool | UnsetType = UNSET
    result_ttl: float | UnsetType | None = UNSET
    rate_limit: str | UnsetType | None = UNSET
    max_concurrency: int | UnsetType | None = UNSET
    limit_key: str | UnsetType = UNSET
    extra: dict[str, msgspec.Raw] = {}  # fields of a newer version; on the wire they stand beside the others, not below this name

    @property
    def ready_at(self) -> float | None:
        """When this attempt could begin: as it was enqueued, or fell due. None where nothing says so."""
        return max(self.enqueued_at, self.not_before or 0.0) or None


class Undecodable(ValueError):
    """These bytes are no envelope; the message says why."""


FIELDS = frozenset(Envelope.__struct_fields__) - {"extra"}
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)
_raw_decoder = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])


def encode(envelope: Envelope) -> bytes:
    """The bytes that travel. Fields of a newer version go back to where they were."""
    if not envelope.extra:
        return _encoder.encode(envelope)
    known = _raw_decoder.decode(_encoder.encode(msgspec.structs.replace(envelope, extra={})))
    return _encoder.encode({**known, **envelope.extra})


def decode(body: bytes) -> Envelope:
    """The envelope of these bytes. Raises `Undecodable`, and nothing else, whatever the bytes are."""
    try:
        envelope = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        envelope = _decode_newer(body)
    if not envelope.id.isprintable():
        raise Undecodable(f"its id {envelope.id!r} has characters that cannot be printed")
    return envelope


def _decode_newer(body: bytes) -> Envelope:
    # The strict decoder is the fast road; only bytes that it refuses pay for a second look.
    try:
        fields = _raw_decoder.decode(body)
        known = {name: value for name, value in fields.items() if name in FIELDS}
        extra = {name: msgspec.Raw(bytes(value)) for name, value in fields.items() if name not in FIELDS}
        envelope = _decoder.decode(_encoder.encode(known))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Undecodable(str(error)) from None
    return msgspec.structs.replace(envelope, extra=extra)


def next_run(envelope: Envelope, id: str, run: int, due: float | None) -> Envelope:
    """As a replay sends it: from its first attempt on, without an expiry. `id`: what its letter says, for the envelope may be anybody's.
    `due`: now at the latest of one that had ended, for its age and its wait are counted from then; None: since it was enqueued."""
    return msgspec.structs.replace(
        envelope, id=id, run=run, attempt=0, redeliveries=0, expires=None, not_before=due, unregistered_since=None
    )
