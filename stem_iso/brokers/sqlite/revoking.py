"""Wishes of those who wait: revoke, forget, purge.

What waits ends here and now. What runs is flagged: its holder is told by `orders`, and `settling` sees the flag whatever the holder does.
"""

from __future__ import annotations

from collections.abc import Sequence

from stem_iso.brokers.sqlite import schema
from stem_iso.brokers.sqlite.bells import Bell
from stem_iso.brokers.sqlite.buckets import pull
from stem_iso.brokers.sqlite.connection import Row
from stem_iso.brokers.sqlite.endings import Ending, end
from stem_iso.brokers.sqlite.rows import RESULT_TTL
from stem_iso.brokers.sqlite.turn import Turn

PURGE = 1000  # rows per turn, so that a large purge lets others write in between


def revoke(turn: Turn, id: str, terminate: bool) -> bool:
    """True if the task was not terminal."""
    rows = turn.all("SELECT state, seq, forgotten, ttl, waits FROM task WHERE id = ?", (id,))
    if not rows or rows[0][0] > schema.LEASED:
        return False
    if rows[0][0] == schema.LEASED:
        turn.run("UPDATE task SET revoked = max(revoked, ?) WHERE id = ?", (2 if terminate else 1, id))
        turn.rings.add(Bell.WORK)
    else:
        cancel(turn, [row[1:] for row in rows], "revoked")
    return True


def forget(turn: Turn, id: str) -> bool:
    state = turn.one("SELECT state FROM task WHERE id = ?", (id,))
    if state is None:
        return False
    if state > schema.LEASED:
        turn.run("DELETE FROM task WHERE id = ?", (id,))
        turn.rings.add(Bell.DONE)  # who waits for it must not go on waiting
    else:
        turn.run("UPDATE task SET forgotten = 1 WHERE id = ?", (id,))
    return True


def purge(turn: Turn, queue: str, upto: int) -> int:
    """One bite of the rows up to `upto`, the newest when the purge began; 0 when none is left."""
    rows = turn.all("SELECT seq, forgotten, ttl, waits FROM task WHERE state = 0 AND queue = ? AND seq <= ? LIMIT ?", (queue, upto, PURGE))
    rows += turn.all("SELECT seq, forgotten, ttl, waits FROM task WHERE state = 1 AND queue = ? AND seq <= ? LIMIT ?", (queue, upto, PURGE))
    cancel(turn, rows, "purged")
    return len(rows)


def newest(turn: Turn) -> int:
    return turn.one("SELECT max(seq) FROM task") or 0


def cancel(turn: Turn, rows: Sequence[Row], reason: str) -> None:
    """End them as cancelled: (seq, forgotten, ttl, the bucket at which it waits)."""

    def until(forgotten: int, ttl: float | None) -> float:
        return turn.now if forgotten else turn.now + (RESULT_TTL if ttl is None else ttl)

    end(turn, [Ending(seq, schema.CANCELLED, until(forgotten, ttl), reason) for seq, forgotten, ttl, _ in rows], locked=True)
    pull(turn, [waits for *_, waits in rows if waits is not None])
