"""Answers to those who wait, the same from every broker: it has ended, there is no such thing, it is late. Pure."""

from __future__ import annotations

from stem_iso.brokers.records import StatusRecord
from stem_iso.errors import UnknownResult


def ended(id: str, found: StatusRecord | None) -> StatusRecord | None:
    """Its status where that is terminal. Raises UnknownResult."""
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
