"""Pauses: of which queues and tasks nothing new begins, and the line of what is held meanwhile.

    pause ──> `pause` ──> workers, who ask for `paused`         hold ──> the row is DELAYED, reason `paused`, in the line of its name
    resume ──> no longer in `pause` ──> release, RELEASE rows at a time: here as often as ONCE, then in every sweep

A held row waits as one without room waits at a bucket (`rate_limits`), in a line that no limit can have: it is cancelled, purged and
listed like any other that waits, and no boot and no worker holds it. There is no bucket of that name, so nothing pulls it but a release.

An older worker knows of no pause: what it leases it runs, but what is held does not come to it.
"""

from __future__ import annotations

from stem_iso.brokers.base import Permit, Receipt, Verdict
from stem_iso.brokers.operations import Pauses
from stem_iso.brokers.sqlite.lease import FENCE
from stem_iso.brokers.sqlite.notifications import Topic
from stem_iso.brokers.sqlite.rate_limits import pull
from stem_iso.brokers.sqlite.revoke import cancel
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.sqlite.values import is_text
from stem_iso.outcome import PAUSED

LINE = "%paused "  # no name of a bucket has a "%" that "25" or "2F" does not follow
HELD = 366 * 86_400.0  # seconds: until a held row comes to look by itself
RELEASE = 500  # rows per turn
ONCE = 20  # turns of one resume


def pause(turn: Transaction, name: str, task: bool) -> bool:
    known = turn.run("INSERT OR IGNORE INTO pause VALUES (?, ?, ?)", (int(task), name, turn.now)).rowcount == 0
    turn.topics.add(Topic.WORK)
    return not known


def resume(turn: Transaction, name: str, task: bool) -> bool:
    turn.topics.add(Topic.WORK)
    return turn.run("DELETE FROM pause WHERE task = ? AND name = ?", (int(task), name)).rowcount > 0


def paused(turn: Transaction) -> Pauses:
    rows = [row for row in turn.all("SELECT task, name FROM pause") if is_text(row[1])]
    queues = frozenset(name for task, name in rows if task == 0)
    return Pauses(queues, frozenset(name for task, name in rows if task == 1))


def is_held(waits: str) -> bool:
    return waits.startswith(LINE)


def hold(turn: Transaction, receipt: Receipt, name: str) -> Permit:
    token = (receipt.id, receipt.boot, receipt.sequence)
    rows = turn.all(f"SELECT seq, revoked, forgotten, ttl, waits, coalesce(slot, waits) FROM task WHERE {FENCE}", token)
    if not rows:
        return Permit(Verdict.LOST)
    seq, revoked, forgotten, ttl, waits, bucket = rows[0]
    if revoked:
        cancel(turn, [(seq, forgotten, ttl, waits)], "revoked")
        return Permit(Verdict.CANCELLED)
    if not turn.one("SELECT 1 FROM pause WHERE task = 1 AND name = ?", (name,)):
        return Permit(Verdict.DONE)
    turn.run(_HOLD, (turn.now + HELD, LINE + name, PAUSED, seq))
    if bucket is not None:
        pull(turn, [bucket])
    return Permit(Verdict.DONE, HELD)


_HOLD = """
UPDATE task SET state = 1, at = ?, waits = ?, reason = ?, slot = NULL, boot = NULL, sequence = NULL, marked = 0 WHERE seq = ?"""


def release(turn: Transaction, name: str) -> int:
    """Some of what was held of this task, in the order of its line; how many."""
    if turn.one("SELECT 1 FROM pause WHERE task = 1 AND name = ?", (name,)):
        return 0
    rows = turn.all("SELECT seq FROM task WHERE waits = ? AND state = 1 ORDER BY rank, seq LIMIT ?", (LINE + name, RELEASE))
    turn.of_keys("UPDATE task SET state = 0, at = NULL, waits = NULL, reason = NULL WHERE seq IN ({keys})", [row[0] for row in rows])
    if rows:
        turn.topics.add(Topic.WORK)
    return len(rows)


def held(turn: Transaction) -> list[str]:
    """Names of tasks of which something is held."""
    names: list[str] = []
    last = LINE
    while (line := turn.one("SELECT min(waits) FROM task WHERE waits > ? AND waits < ?", (last, LINE + "\U0010ffff"))) is not None:
        last = line
        names.append(line[len(LINE) :])
    return names


def overdue(turn: Transaction) -> list[str]:
    """Those that are paused no longer: their resume had more to release than it does at once, or died."""
    known = paused(turn).tasks
    return [name for name in held(turn) if name not in known]


def sweep(turn: Transaction) -> int:
    return sum(release(turn, name) for name in overdue(turn))
