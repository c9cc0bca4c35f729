"""List of tasks: a page at a time, in the order in which the store first got them.

    filter ── sources ──> ranges of indexes, each in the order of `seq` ──┐
                          rows with a place of their own (`listed`) ──────┴── merge ──> rows looked at ── match ──> a page
    after ── where each begins            since, until ── bounds ──> where they begin, and where they stop

Rules
 1. The position of a task is its `seq`, or `listed` where that is given (`schema`). All rows are met in two orders, those of the indexes
    and those of `listed`; each counts in one of them alone, and the merge of both is the order of positions.
 2. A step looks at LOOKS rows at most, and its page is of PAGE bytes at most. What it has looked at, it says by `next`, matching or not.
 3. `since` and `until` bound the range by what stands in it: rows that came later were enqueued later, but for SPARE seconds of clocks
    that differ. A part of a canvas is enqueued anew when it begins; one that began longer than that after its canvas came may be missed
    by `since`.

A row with values that cannot be read is listed as what `rows.record` makes of it, where a source finds it at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import translate
from heapq import merge
from operator import itemgetter
from typing import Any, NamedTuple

from stem_iso.brokers.operations import ListedTask, TaskFilter, TaskList
from stem_iso.brokers.sqlite import schema
from stem_iso.brokers.sqlite.connection import Row
from stem_iso.brokers.sqlite.rows import SELECT, newest, record
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.sqlite.values import is_text, moment, text

LOOKS = 4000  # rows per step: some 10 ms
PAGE = 4 << 20  # bytes of results and envelopes in one page, but for its first task
SPARE = 3600.0
LINES = 100  # ranges of one step: more queues with more priorities are found by a look at every row
CHUNK = 1000  # rows per statement, over all ranges
NARROW = LOOKS  # a range of so many rows needs no bounds
PROBE = 16  # rows that are looked at where the times of one place are asked for

POSITION = re.compile(r"-?[0-9]{1,19}", re.ASCII)
LEAST, MOST = -(1 << 63), (1 << 63) - 1

# Where those of each state stand in `task_state`. What has come due and was not moved yet is listed as queued.
STAND = {
    "queued": (schema.WAITING, schema.DELAYED),
    "delayed": (schema.DELAYED,),
    "retried": (schema.READY, schema.DELAYED),
    "succeeded": (schema.SUCCEEDED,),
    "failed": (schema.FAILED,),
    "cancelled": (schema.CANCELLED,),
}
_IN_TASK_STATE = "state <> 2 AND (state <> 0 OR attempt > 0)"


class Range(NamedTuple):
    """Rows in the order of `column`: those of the index `name` (None: all) that meet `condition`, the index's own among it."""

    name: str | None
    condition: str
    values: tuple[Any, ...] = ()
    column: str = "seq"


class Look(NamedTuple):
    """What is looked at of every row."""

    place: int
    seq: int
    listed: Any
    state: Any
    at: Any
    attempt: Any
    queue: Any
    name: Any
    enqueued: Any
    group: int


_LOOK = "seq, listed, state, at, attempt, queue, name, enqueued, size IS NOT NULL"

ALL = Range(None, "true")
LISTED = Range("task_listed", "listed IS NOT NULL", column="listed")
RUNNING = Range("task_leased", "state = 2")


def list_tasks(turn: Transaction, which: TaskFilter, limit: int, after: str | None, newest_first: bool) -> TaskList:
    wanted = Wanted(which, turn.now)
    begin = _place(after)
    low, high = bounds(turn, which)
    if begin is not None:
        low, high = (low, min(high, begin - 1)) if newest_first else (max(low, begin + 1), high)
    if low > high or wanted.nothing:
        return TaskList([])
    found, last, more = _step(turn, wanted, ranges(turn, which), (low, high, newest_first), limit)
    return _page(turn, found, last if more else None)


def _place(after: str | None) -> int | None:
    """Raises ValueError."""
    if after is None:
        return None
    if POSITION.fullmatch(after) is None or not LEAST <= int(after) <= MOST:
        raise ValueError(f"{after[:40]!r} is no position in a list of tasks")
    return int(after)


# -- which rows match ------------------------------------------------------------------------------------------------------------------


class Wanted:
    """The filter, as a question to one row."""

    def __init__(self, which: TaskFilter, now: float) -> None:
        self._which, self._now = which, now
        self._states = None if which.states is None else frozenset(which.states)
        self._name = None if which.name is None else re.compile(translate(which.name))
        self.nothing = self._states == frozenset() or not (which.queue is None or is_text(which.queue))

    def matches(self, row: Look) -> bool:
        which = self._which
        if row.group or (which.queue is not None and row.queue != which.queue):
            return False
        if isinstance(row.state, int) and row.state > schema.LEASED and not _after(row.at, self._now):
            return False  # its status has expired
        if self._states is not None and self._states.isdisjoint(states_of(row.state, row.at, row.attempt, self._now)):
            return False
        if self._name is not None and self._name.match(text(row.name)) is None:
            return False
        if which.since is None and which.until is None:
            return True
        enqueued = moment(row.enqueued)
        if enqueued is None:
            return False
        return (which.since is None or enqueued >= which.since) and (which.until is None or enqueued <= which.until)


def _after(at: Any, now: float) -> bool:
    return not isinstance(at, int | float) or at > now


def states_of(state: Any, at: Any, attempt: Any, now: float) -> tuple[str, ...]:
    """The states by which a row is listed, of LISTED_STATES."""
    if state in (schema.WAITING, schema.READY, schema.DELAYED):
        waits = "delayed" if state == schema.DELAYED and _after(at, now) else "queued"
        return (waits, "retried") if attempt else (waits,)
    if state == schema.LEASED:
        return ("running",)
    return ("succeeded",) if state == schema.SUCCEEDED else ("cancelled",) if state == schema.CANCELLED else ("failed",)


# -- where they are found --------------------------------------------------------------------------------------------------------------


def ranges(turn: Transaction, which: TaskFilter) -> list[Range]:
    """Those that hold every row that may match, and as few others as can be."""
    if turn.is_view():
        return [ALL]
    if which.states is None:
        return [ALL, LISTED]
    found = [LISTED]
    states = frozenset(which.states)
    if "queued" in states:
        lines = _lines(turn, which.queue)
        if lines is None:
            return [ALL, LISTED]
        found += lines
    if "running" in states:
        found.append(RUNNING)
    numbers = {number for state in states & set(STAND) for number in STAND[state]}
    return found + [Range("task_state", f"{_IN_TASK_STATE} AND state = {number}") for number in sorted(numbers)]


def _lines(turn: Transaction, queue: str | None) -> list[Range] | None:
    """What is ready, by queue and rank: two look-ups for each. None where there are too many, or one cannot be asked for."""
    found: list[Range] = []
    row = turn.all(_FIRST_LINE) if queue is None else turn.all(_FIRST_OF_QUEUE, (queue,))
    while row:
        if len(found) == LINES or not all(is_text(value) or isinstance(value, int) for value in row[0]):
            return None
        found.append(Range("task_ready", "state = 0 AND queue = ? AND rank = ?", row[0]))
        row = turn.all(_NEXT_RANK, row[0]) or (turn.all(_NEXT_QUEUE, row[0][:1]) if queue is None else [])
    return found


# A comparison of pairs would walk through all rows of the queue.
_LINE = "SELECT queue, rank FROM task INDEXED BY task_ready WHERE state = 0"
_FIRST_LINE = _LINE + " ORDER BY queue, rank LIMIT 1"
_FIRST_OF_QUEUE = _LINE + " AND queue = ? ORDER BY rank LIMIT 1"
_NEXT_RANK = _LINE + " AND queue = ? AND rank > ? ORDER BY rank LIMIT 1"
_NEXT_QUEUE = _LINE + " AND queue > ? ORDER BY queue, rank LIMIT 1"


def bounds(turn: Transaction, which: TaskFilter) -> tuple[int, int]:
    """The first and the last place at which a task of these times may stand."""
    if which.since is None and which.until is None:
        return LEAST, MOST
    first, last = turn.one("SELECT min(seq) FROM task"), newest(turn)
    if first is None:
        return LEAST, MOST
    low, high = LEAST, MOST
    if which.since is not None and (place := _first_at(turn, first, last, which.since - SPARE, strict=False)) > first:
        low = place
    if which.until is not None and (place := _first_at(turn, first, last, which.until + SPARE, strict=True) + NARROW) < last:
        high = place
    return low, high


def _first_at(turn: Transaction, first: int, last: int, when: float, *, strict: bool) -> int:
    """Some place before which all were enqueued before `when`, NARROW at most before the first of the others; one that nothing is known of
    counts as one of these, unless `strict`."""
    low, high = first, last + 1
    while high - low > NARROW:
        middle = (low + high) // 2
        at = _enqueued_at(turn, middle)
        if (at is None and not strict) or (at is not None and at >= when):
            high = middle
        else:
            low = middle
    return low


def _enqueued_at(turn: Transaction, place: int) -> float | None:
    """When those at this place were enqueued: the middle one of some."""
    rows = turn.all("SELECT seq, listed, enqueued FROM task WHERE seq >= ? ORDER BY seq LIMIT ?", (place, PROBE))
    found = [(seq, enqueued) for seq, listed, enqueued in rows if listed is None]
    if not turn.is_view():
        found += turn.all(_LISTED_FROM, (place, PROBE))
    times = sorted(at for _, enqueued in sorted(found, key=itemgetter(0))[:PROBE] if (at := moment(enqueued)) is not None)
    return times[len(times) // 2] if times else None


_LISTED_FROM = """
SELECT listed, enqueued FROM task INDEXED BY task_listed
WHERE listed IS NOT NULL AND listed BETWEEN ? AND 9223372036854775807 ORDER BY listed LIMIT ?"""


# -- one step --------------------------------------------------------------------------------------------------------------------------


def _step(
    turn: Transaction, wanted: Wanted, found: Sequence[Range], span: tuple[int, int, bool], limit: int
) -> tuple[list[Look], int, bool]:
    """Up to `limit` rows that match, the place of the last one that was looked at, and whether there are more."""
    low, high, newest_first = span
    chunk = max(16, CHUNK // len(found))
    streams = [_rows(turn, each, low, high, newest_first, chunk) for each in found]
    matching: list[Look] = []
    last, looked = (LEAST, LEAST), 0
    for row in merge(*streams, key=lambda row: row.place, reverse=newest_first):
        if (row.place, row.seq) == last:
            continue  # of two states that were asked for
        if looked >= LOOKS or len(matching) >= limit:
            return matching, last[0], True
        last, looked = (row.place, row.seq), looked + 1
        if row.place == _position(row) and wanted.matches(row):
            matching.append(row)
    return matching, last[0], False


def _position(row: Look) -> int:
    return row.listed if isinstance(row.listed, int) else row.seq


def _rows(turn: Transaction, each: Range, low: int, high: int, newest_first: bool, chunk: int) -> Iterator[Look]:
    """The rows of one range from `low` to `high`, some at a time."""
    index = "" if each.name is None else f"INDEXED BY {each.name}"
    column, order = (each.column, "DESC" if newest_first else "ASC")
    # A range whose index has another order is small: it is sorted.
    sql = (
        f"SELECT {column}, {_LOOK} FROM task {index} WHERE {each.condition} AND {column} BETWEEN ? AND ? ORDER BY {column} {order} LIMIT ?"
    )
    while low <= high:
        rows = turn.all(sql, (*each.values, low, high, chunk))
        yield from map(Look._make, rows)
        if len(rows) < chunk:
            return
        low, high = (low, rows[-1][0] - 1) if newest_first else (rows[-1][0] + 1, high)


# -- a page ----------------------------------------------------------------------------------------------------------------------------


def _page(turn: Transaction, found: Sequence[Look], next: int | None) -> TaskList:
    sizes: dict[int, int] = dict(turn.of_keys(_SIZES, [row.seq for row in found]))
    taken, size = 0, 0
    for row in found:
        size += sizes[row.seq]
        if size > PAGE and taken:
            next = found[taken - 1].place
            break
        taken += 1
    rows = turn.of_keys(SELECT + "WHERE task.seq IN ({keys})", [row.seq for row in found[:taken]])
    records: dict[int, Row] = {row[-1]: row for row in rows}
    tasks = [ListedTask(str(row.place), record(records[row.seq])) for row in found[:taken]]
    return TaskList(tasks, None if next is None else str(next))


_SIZES = "SELECT seq, coalesce(length(result), 0) + coalesce(length(body), 0) FROM task WHERE seq IN ({keys})"
