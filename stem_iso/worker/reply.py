"""What an inline handler's side answered, as an `Outcome`. The bytes are those that an isolate would send: see `isolate.job.Runner`."""

from __future__ import annotations

import msgspec

from stem_iso.isolate.job import FAILED, REJECTED, RETRY, SUCCEEDED
from stem_iso.outcome import Failed, Outcome, Rejected, RetryAsked, Succeeded, TaskError

_failed = msgspec.msgpack.Decoder(tuple[TaskError, tuple[str, ...]])
_retry = msgspec.msgpack.Decoder(tuple[float | None, float | None, int | None])
_rejected = msgspec.msgpack.Decoder(tuple[str, str])


def outcome_of(kind: int, payload: bytes) -> Outcome:
    """Raises ValueError on a kind that there is not; the bytes come from our own code, so they are not doubted."""
    if kind == SUCCEEDED:
        return Succeeded(payload)
    if kind == FAILED:
        return Failed(*_failed.decode(payload))
    if kind == RETRY:
        return RetryAsked(*_retry.decode(payload))
    if kind == REJECTED:
        return Rejected(*_rejected.decode(payload))
    raise ValueError(f"unknown kind of reply: {kind}")
