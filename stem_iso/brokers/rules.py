"""Rules that are the same in every broker: what may be stored, how lost workers end a task, what waiters are answered. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from stem_iso.brokers.records import StatusRecord
from stem_iso.errors import PayloadTooLarge, UnknownResult
from stem_iso.outcome import TaskError
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
