"""Buckets: what is counted together for a limit, and the line that waits at each.

    acquire ──┬─ room ──> the row holds the bucket (`task.slot`), and with a rate its start is written down (`start`)
              └─ none ──> the row waits in line (`task.waits`), DELAYED
    an end, a give-back, a retry, a lost lease of one that held it, the end of one that waited ──> pull

Rules
 1. Nothing is counted that could be miscounted: the holders of a bucket are the leased rows that name it, so whatever takes the lease from
    a row gives the room back, a kill of any process included.
 2. A start is numbered within its bucket. The one that must be a period old before the next is `count` numbers before that, so a rate of
    100,000 a day costs one look-up. Starts are on the clock of leases, which no clock step moves; at a reboot they are carried over.
 3. `pull` is the one thing that moves the line: as many of its first as there is room for are made READY, and behind a rate the next one is
    made due at the very moment in which it may begin. It may be called at any time, and as often as one likes. The line is in the order of
    the queue (priority, arrival), so one that was refused loses no place.
 4. Nobody else in the line has to look again: a thousand waiting tasks cost nothing while they wait. One look in a minute, SPACING apart,
    is the net below: limits that a deploy raised, a task that was pulled in a queue that nobody serves.

Not promised: due times are wall clock, so where that is set back, a line behind a rate may stand until it has caught up, or until anything
happens in its bucket.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from stem_iso.brokers.sqlite.connection import Row
from stem_iso.brokers.sqlite.notifications import Topic
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.sqlite.values import is_count, is_text, seconds
from stem_iso.task.rate_limit import Rate, TaskLimits, wait

FALLBACK, SPACING = 60.0, 0.25  # seconds: until one in the line looks by itself, and between two of a bucket that do
PULL = 16  # in one turn; each that begins pulls again
GRAIN = 0.001  # due times are wall clock: a hair too early would be one look in vain


class Bucket(NamedTuple):
    """`starts` counts all that ever began; `parked` is when (wall clock) the last of the line looks by itself."""

    number: int
    limits: TaskLimits
    starts: int
    parked: float

    def running(self, turn: Transaction) -> int:
        if self.limits.concurrency is None:
            return 0
        return int(turn.one("SELECT count(*) FROM task WHERE slot = ?", (self.limits.bucket,)))

    def began(self, turn: Transaction, ahead: int, most: int) -> dict[int, float]:
        """When those began that must be a period old for the `most` next ones behind `ahead` others, by place; missing: none must."""
        rate = self.limits.rate
        if rate is None:
            return {}
        first = self.starts - rate.count + ahead
        rows = turn.all("SELECT number, at FROM start WHERE bucket = ? AND number >= ? ORDER BY number LIMIT ?", (self.number, first, most))
        return {number - first: at for number, at in rows if isinstance(at, int | float)}

    def wait(self, turn: Transaction) -> float:
        """Seconds until one more may begin, inf where one that runs must end first."""
        return wait(self.limits, now=turn.lease_now, running=self.running(turn), ahead=0, began=self.began(turn, 0, 1).get(0))


def opened(turn: Transaction, limits: TaskLimits) -> Bucket:
    """The bucket, with these limits from now on."""
    rate = limits.rate or Rate(0, 0.0)
    found = found_bucket(turn, limits.bucket)
    if found is not None and found.limits == limits:
        return found
    turn.run(_OPEN, (limits.bucket, rate.count, rate.period, limits.concurrency, turn.lease_now, turn.now - turn.lease_now))
    bucket = found_bucket(turn, limits.bucket)
    assert bucket is not None
    return bucket


_OPEN = """
INSERT INTO bucket (name, count, period, most, until, offset) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET count = excluded.count, period = excluded.period, most = excluded.most"""


def found_bucket(turn: Transaction, name: str) -> Bucket | None:
    for number, count, period, most, starts, parked in turn.all(_FIND, (name,)):
        if (
            all(map(is_count, (count, starts, 0 if most is None else most)))
            and seconds(period) is not None
            and isinstance(parked, int | float)
        ):
            return Bucket(number, TaskLimits(name, Rate(count, period) if count else None, most), starts, parked)
        # It cannot be read: it begins anew, and its rate may be passed once.
        turn.run("DELETE FROM start WHERE bucket = ?", (number,))
        turn.run("DELETE FROM bucket WHERE number = ?", (number,))
    return None


_FIND = "SELECT number, count, period, most, starts, parked FROM bucket WHERE name = ?"


def write_start(turn: Transaction, bucket: Bucket, rate: Rate) -> None:
    turn.run("INSERT INTO start VALUES (?, ?, ?)", (bucket.number, bucket.starts, turn.lease_now))
    turn.run("DELETE FROM start WHERE bucket = ? AND number <= ?", (bucket.number, bucket.starts - rate.count))
    turn.run(
        "UPDATE bucket SET starts = starts + 1, until = ?, offset = ? WHERE number = ?",
        (turn.lease_now + rate.period, turn.now - turn.lease_now, bucket.number),
    )


def line_up(turn: Transaction, bucket: Bucket, seq: int, reason: str, latest: float | None) -> None:
    """This row waits in line, and looks by itself at `latest`, if not before."""
    alone = turn.one("SELECT 1 FROM task WHERE waits = ? AND state = 1 LIMIT 1", (bucket.limits.bucket,)) is None
    parked = turn.now + FALLBACK if alone else max(turn.now + FALLBACK, bucket.parked + SPACING)
    turn.run("UPDATE bucket SET parked = ? WHERE number = ?", (parked, bucket.number))
    at = parked if latest is None else min(parked, latest)
    turn.run(_LINE_UP, (at, bucket.limits.bucket, reason, seq))


_LINE_UP = """
UPDATE task SET state = 1, at = ?, waits = ?, reason = ?, slot = NULL, boot = NULL, sequence = NULL, marked = 0 WHERE seq = ?"""


def pull(turn: Transaction, names: Iterable[str]) -> None:
    """Move the lines of these buckets."""
    for name in sorted(name for name in set(names) if is_text(name)):
        bucket = found_bucket(turn, name) if _line(turn, name, 1) else None
        if bucket is not None:
            _pull(turn, bucket)


def _line(turn: Transaction, name: str, most: int) -> list[Row]:
    return turn.all("SELECT seq, at FROM task WHERE waits = ? AND state = 1 ORDER BY rank, seq LIMIT ?", (name, most))


def _called(turn: Transaction, name: str) -> int:
    """How many were called and have not asked yet: ready, or in a worker's hands."""
    return sum(turn.one(f"SELECT count(*) FROM task WHERE waits = ? AND state = {state}", (name,)) for state in (0, 2))


def _pull(turn: Transaction, bucket: Bucket) -> None:
    name, running = bucket.limits.bucket, bucket.running(turn)
    ahead, count, left = _called(turn, name), 0, 0.0
    began = bucket.began(turn, ahead, PULL)
    while count < PULL:
        left = wait(bucket.limits, now=turn.lease_now, running=running, ahead=ahead + count, began=began.get(count))
        if left > 0:
            break
        count += 1
    line = _line(turn, name, count + 1)
    line[count:] = [row for row in line[count:] if isinstance(row[1], int | float)]
    if count:
        turn.of_keys("UPDATE task SET state = 0 WHERE seq IN ({keys})", [row[0] for row in line[:count]])
        turn.topics.add(Topic.WORK)
    for seq, at in line[count:]:
        if 0 < left < inf and turn.now + left + GRAIN < at:
            turn.run("UPDATE task SET at = ? WHERE seq = ?", (turn.now + left + GRAIN, seq))
            turn.topics.add(Topic.WORK)


# A bucket that nobody holds and nobody waits at says nothing once its last start is a period old.
STALE = """SELECT number FROM bucket WHERE until <= ? AND NOT EXISTS (SELECT 1 FROM task WHERE slot = bucket.name)
  AND NOT EXISTS (SELECT 1 FROM task WHERE waits = bucket.name) LIMIT ?"""


def sweep(turn: Transaction, most: int) -> int:
    stale = [row[0] for row in turn.all(STALE, (turn.lease_now, most))]
    turn.of_keys("DELETE FROM start WHERE bucket IN ({keys})", stale)
    turn.of_keys("DELETE FROM bucket WHERE number IN ({keys})", stale)
    return len(stale)
