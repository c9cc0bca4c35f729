"""Revocations: revoke, forget, purge.

What waits ends here and now. What runs is flagged: `orders` shows the flag to its holder, and `settle` sees it whatever the holder does.
"""

from __future__ import annotations

from collections.abc import Sequence

from stem_iso.brokers.sqlite import end_notices, schema, values
from stem_iso.brokers.sqlite.canvas import KEPT, parts
from stem_iso.brokers.sqlite.connection import Row
from stem_iso.brokers.sqlite.counts import drop
from stem_iso.brokers.sqlite.notifications import Topic
from stem_iso.brokers.sqlite.rate_limits import pull
from stem_iso.brokers.sqlite.rows import RowEnd
from stem_iso.brokers.sqlite.settle import end
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.task.policy import RESULT_TTL

PURGE = 1000  # rows per turn, so that a large purge lets others write in between


def revoke(turn: Transaction, id: str, terminate: bool) -> bool:
    """True if the task was not terminal; of a canvas or a group: if any part of it was not."""
    rows = turn.of_keys("SELECT id, state, seq, forgotten, ttl, waits FROM task WHERE state <= 2 AND id IN ({keys})", parts(turn, id))
    leased = [row[0] for row in rows if row[1] == schema.LEASED]
    if leased:
        turn.of_keys("UPDATE task SET revoked = max(revoked, ?) WHERE id IN ({keys})", leased, 2 if terminate else 1)
        turn.topics.add(Topic.WORK)
    waiting = [row for row in rows if row[1] != schema.LEASED]
    # What stood in a queue has an end notice, and the canvas itself; not each of its parts that were still far from one.
    end_notices.note(turn, [row[2] for row in waiting if row[1] != schema.WAITING or row[0] == id], schema.CANCELLED, "revoked")
    cancel(turn, [row[2:] for row in waiting], "revoked")
    return bool(rows)


def forget(turn: Transaction, id: str) -> bool:
    rows = turn.of_keys("SELECT seq, state > 2 AND at < ? FROM task WHERE id IN ({keys})", parts(turn, id), KEPT)
    drop(turn, [row[0] for row in rows if row[1]])
    turn.of_keys("UPDATE task SET forgotten = 1 WHERE seq IN ({keys})", [row[0] for row in rows if not row[1]])
    turn.topics.add(Topic.DONE)  # who waits for it must not go on waiting
    return bool(rows)


def purge(turn: Transaction, queue: str, upto: int) -> int:
    """One batch of the rows up to `upto`, the newest when the purge began; 0 when none is left."""
    rows = turn.all("SELECT seq, forgotten, ttl, waits FROM task WHERE state = 0 AND queue = ? AND seq <= ? LIMIT ?", (queue, upto, PURGE))
    rows += turn.all("SELECT seq, forgotten, ttl, waits FROM task WHERE state = 1 AND queue = ? AND seq <= ? LIMIT ?", (queue, upto, PURGE))
    end_notices.note(turn, [row[0] for row in rows], schema.CANCELLED, "purged")
    cancel(turn, rows, "purged")
    return len(rows)


def cancel(turn: Transaction, rows: Sequence[Row], reason: str) -> None:
    """End them as cancelled: (seq, forgotten, ttl, the bucket at which it waits)."""

    def until(forgotten: int, ttl: float | None) -> float:
        kept = values.seconds(ttl)
        return turn.now if forgotten else turn.now + (RESULT_TTL if kept is None else kept)

    endings = [RowEnd(seq, schema.CANCELLED, until(forgotten, ttl), reason) for seq, forgotten, ttl, _ in rows]
    end(turn, endings, locked=True, linked=True)
    pull(turn, [waits for *_, waits in rows if waits is not None])
