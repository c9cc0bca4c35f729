"""Status of tasks and counts of queues: questions that change nothing."""

from __future__ import annotations

from collections.abc import Sequence

from stem_iso.brokers.base import QueueCount, StatusRecord
from stem_iso.brokers.sqlite.rows import SELECT, record
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.sqlite.values import count, data, is_text, text

# A status past its expiry is unknown, swept or not.
_BY_ID = SELECT + "WHERE (state <= 2 OR at > ?) AND task.id IN ({keys})"


def statuses(turn: Transaction, ids: Sequence[str]) -> list[StatusRecord | None]:
    asked = [id for id in dict.fromkeys(ids) if is_text(id)]
    found = {row[0]: record(row) for row in turn.of_keys(_BY_ID, asked, turn.now)}
    return [found.get(id) for id in ids]


def ended(turn: Transaction, ids: Sequence[str]) -> dict[str, StatusRecord | None]:
    """Of these, what has ended, and None for what is unknown. Those that go on, mostly all, are only counted out."""
    asked = [id for id in ids if is_text(id)]
    going = {row[0] for row in turn.of_keys("SELECT id FROM task WHERE state <= 2 AND id IN ({keys})", asked)}
    over = [id for id in ids if id not in going]
    return dict(zip(over, statuses(turn, over), strict=True)) if over else {}


# Delayed ones that have come due are ready, though nobody has moved them yet.
_COUNTS = """
SELECT queue, sum(queued), sum(delayed), sum(running), sum(dead) FROM (
  SELECT queue, count(*) AS queued, 0 AS delayed, 0 AS running, 0 AS dead FROM task WHERE state = 0 GROUP BY queue
  UNION ALL SELECT queue, sum(at <= :now), sum(at > :now), 0, 0 FROM task WHERE state = 1 GROUP BY queue
  UNION ALL SELECT queue, 0, 0, count(*), 0 FROM task WHERE state = 2 GROUP BY queue
  UNION ALL SELECT queue, 0, 0, 0, count(*) FROM dead WHERE died > :alive GROUP BY queue
) GROUP BY queue ORDER BY queue"""


def queues(turn: Transaction, dead_letter_ttl: float) -> list[QueueCount]:
    rows = turn.all(_COUNTS, {"now": turn.now, "alive": turn.now - dead_letter_ttl})
    return [
        QueueCount(name=text(name), queued=count(queued), delayed=count(delayed), running=count(running), dead=count(dead))
        for name, queued, delayed, running, dead in rows
    ]


def unfinished(turn: Transaction, limit: int) -> list[bytes]:
    return [data(row[0]) for row in turn.all("SELECT body FROM task WHERE state BETWEEN 0 AND 2 ORDER BY seq LIMIT ?", (limit,))]
