"""Rules that are the same in every broker: what may be stored, how lost workers end a task, what waiters are answered. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from stem_iso.brokers.records import DeadLetter, StatusRecord
from stem_iso.errors import PayloadTooLarge, UnknownResult
from stem_iso.outcome import EndedAttempt, TaskError, TaskState
from stem_iso.task.attempt_history import ended_attempt, remember
from stem_iso.task.envelope import Envelope, encode

# -- what may be stored ----------------------------------------------------------------------------------------------------------------


def encoded(envelopes: Sequence[Envelope], limit: int) -> list[tuple[Envelope, bytes]]:
    """Raises PayloadTooLarge for the first that is too large, before anything is stored."""
    pairs = [(envelope, encode(envelope)) for envelope in envelopes]
    for envelope, body in pairs:
        if len(body) > limit:
            raise PayloadTooLarge(
                f"task {envelope.name} ({envelope.id}) is {len(body):,} bytes, max_payload_bytes is {limit:,}: "
                "pass a reference (a path, a key) instead of the data, or raise the limit"
            )
    return pairs


# -- what a run says of the one before it ----------------------------------------------------------------------------------------------


def after(envelope: Envelope, before: StatusRecord | DeadLetter, largest: int) -> Envelope:
    """The next run, with the attempt in its history that was the last of the run before it. `largest`: bytes of an envelope."""
    ended = _last_of(before)
    return envelope if ended is None else remember(envelope, ended, largest)


def _last_of(before: StatusRecord | DeadLetter) -> EndedAttempt | None:
    """None where no attempt had begun."""
    if isinstance(before, DeadLetter):
        return ended_attempt(before, before.error, before.reason, finished_at=before.died_at, state=TaskState.FAILED.value)
    if not before.state.terminal or before.started_at is None or before.finished_at is None:
        return None
    if before.attempts and before.attempts[-1].finished_at.timestamp() >= before.started_at:
        return None  # it ended while it waited for its next attempt
    return ended_attempt(
        before,
        before.error,
        before.reason,
        started_at=before.started_at,
        finished_at=before.finished_at,
        state=before.state.value,
        worker_id=before.worker_id,
    )


# -- how lost workers end a task -------------------------------------------------------------------------------------------------------


def at_most_once() -> TaskError:
    return _lost("its worker was lost, and it runs at most once (acks_late=False)")


def too_often(times: int, most: int) -> TaskError:
    """`times`: how many workers held it; `most`: `max_redeliveries`."""
    return _lost(f"{times} workers were lost while they held it (max_redeliveries is {most})")


def _lost(message: str) -> TaskError:
    return TaskError(type="stem_iso.errors.LeaseLost", message=message, retryable=False)


# -- what waiters are answered ---------------------------------------------------------------------------------------------------------


def ended(id: str, found: StatusRecord | None) -> StatusRecord | None:
    """The status of a task where it is terminal. Raises UnknownResult."""
    if found is None:
        raise UnknownResult(f"no task {id}: it never was, or its result has expired")
    return found if found.state.terminal else None


def fewer_than(unended: int, group: str, found: int | None) -> bool | None:
    """True where fewer members have still to end, else None. Raises UnknownResult."""
    if found is None:
        raise UnknownResult(f"no group {group}: it never was, or it has expired")
    return True if found < unended else None


def late(who_has: str, timeout: float | None) -> str:
    return f"{who_has} not ended after {timeout:g} s of waiting"
