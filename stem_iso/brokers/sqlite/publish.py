"""Envelopes into rows, all of a batch in one step.

A second publish of the same (id, run, attempt) meets the row and changes nothing; it takes no lock either, so a resend after a lost answer
is harmless at any time. A unique lock is taken together with the row, or the answer is its holder's id and nothing is stored.
"""

from __future__ import annotations

from collections.abc import Sequence

from stem_iso.brokers.sqlite.notifications import Topic
from stem_iso.brokers.sqlite.rows import add_waiting
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.sqlite.unique import holder, take
from stem_iso.task.envelope import Envelope


def holders(turn: Transaction, envelopes: Sequence[Envelope]) -> list[str] | None:
    """What `publish` would answer if it had nothing to store: each is known, or its lock is another's. None: there is something to store.

    For a look without the writer's lock. What it sees was so at one instant of the call, which is all that an answer can promise.
    """
    known = _known(turn, envelopes)
    ids: list[str] = []
    for envelope in envelopes:
        held_by = envelope.id if envelope.id in known else holder(turn, envelope.lock or "")
        if held_by is None:
            return None
        ids.append(held_by)
    return ids


def publish(turn: Transaction, pairs: Sequence[tuple[Envelope, bytes]]) -> list[str]:
    """Of envelopes some of which have locks."""
    known = _known(turn, [envelope for envelope, _ in pairs])
    ids: list[str] = []
    mine: set[str] = set()
    for envelope, _ in pairs:
        ids.append(envelope.id if envelope.id in known else take(turn, envelope, mine))
        mine.add(ids[-1])
    store(turn, [pair for pair, id in zip(pairs, ids, strict=True) if pair[0].id == id])
    return ids


def store(turn: Transaction, pairs: Sequence[tuple[Envelope, bytes]]) -> None:
    """Of envelopes whose locks were taken, or that have none: a statement per CHUNK, and nothing else."""
    if add_waiting(turn, pairs):
        turn.topics.add(Topic.WORK)  # delayed ones wake too: the sleeper may have to wake earlier than it thinks


def _known(turn: Transaction, envelopes: Sequence[Envelope]) -> set[str]:
    return {row[0] for row in turn.of_keys("SELECT id FROM task WHERE id IN ({keys})", [envelope.id for envelope in envelopes])}
