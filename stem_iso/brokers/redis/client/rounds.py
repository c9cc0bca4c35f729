"""Batches of large calls: one round trip where that arrives within its seconds, else several. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from stem_iso.brokers.redis.client.client import ScriptCall

T = TypeVar("T")


def in_rounds(items: Sequence[T], call_of: Callable[[T], ScriptCall], most: int) -> list[list[T]]:
    """In their order, each batch of at most `most` bytes of arguments, or of one item."""
    if len(items) < 2:
        return [list(items)]
    rounds: list[list[T]] = [[]]
    size = 0
    for item in items:
        brings = sum(len(word) for word in call_of(item).args if isinstance(word, bytes))
        size += brings
        if size > most and rounds[-1]:
            rounds.append([])
            size = brings
        rounds[-1].append(item)
    return rounds
