"""End notices: ends that no worker has seen, kept for a short while, so that one worker can report them.

revoke, purge, a canvas that fails ── note ──> `apart` ── take, by any worker, once ──> events, signals
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

from stem_iso.brokers.base import UnattendedEnd
from stem_iso.brokers.sqlite.notifications import Topic
from stem_iso.brokers.sqlite.rows import ENDED, unpack_error
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.sqlite.values import count, moment, text

LIFE, KEPT = 60.0, 10_000
TAKE = 500  # per turn

_STATES = {number: state for state, number in ENDED.items()}


def note(turn: Transaction, seqs: Sequence[int], state: int, reason: str, error: bytes | None = None) -> None:
    """These rows end now, so. Before they are closed: some are deleted by it."""
    if not seqs:
        return
    turn.of_keys(_NOTE, seqs, turn.now, state, reason, error)
    turn.run("DELETE FROM apart WHERE number <= (SELECT max(number) FROM apart) - ?", (KEPT,))
    turn.topics.add(Topic.WORK)


_NOTE = """
INSERT INTO apart (at, id, name, queue, run, attempt, state, reason, error)
SELECT ?, id, name, queue, run, attempt, ?, ?, ? FROM task WHERE seq IN ({keys})"""


def any_left(turn: Transaction) -> bool:
    return bool(turn.one("SELECT 1 FROM apart LIMIT 1"))


def take(turn: Transaction) -> list[UnattendedEnd]:
    rows = turn.all(
        "DELETE FROM apart WHERE number IN (SELECT number FROM apart ORDER BY number LIMIT ?) "
        "RETURNING number, at, id, name, queue, run, attempt, state, reason, error",
        (TAKE,),
    )
    return [
        UnattendedEnd(text(id), text(name), text(queue), count(run), count(attempt), _STATES[state], text(reason), unpack_error(error))
        for _, at, id, name, queue, run, attempt, state, reason, error in sorted(rows, key=itemgetter(0))
        if state in _STATES and (moment(at) or 0.0) > turn.now - LIFE
    ]


def sweep(turn: Transaction) -> int:
    return turn.run("DELETE FROM apart WHERE at <= ?", (turn.now - LIFE,)).rowcount
