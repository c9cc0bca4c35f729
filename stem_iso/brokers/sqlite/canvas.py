"""Canvases in rows: every part is a row of `task` from the beginning, and its end moves its neighbours in the same transaction.

    end(endings) ── those of no canvas ──> back to `settle`
         └ parts ── close ── moves ──> Start: READY · Skip: FAILED · Count: the group's `tally` · Drop: gone
                       ^                               │                      │
                       └───────────────────────────────┴──── they end too <───┘

A part whose row cannot be read any more costs no other canvas anything: a step without its envelope is dead-lettered and fails its canvas,
and where what a part moves is lost, nothing of its canvas can begin after it, so all that still waits there fails at once.

A member's row is kept until its group has ended (`KEPT` in place of its expiry), since its result waits there; then its own TTL begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, assert_never

import msgspec

from stem_iso.brokers.base import MemberState
from stem_iso.brokers.sqlite import end_notices, schema
from stem_iso.brokers.sqlite.connection import Row
from stem_iso.brokers.sqlite.counts import drop
from stem_iso.brokers.sqlite.notifications import Topic
from stem_iso.brokers.sqlite.rows import ENDED, RowEnd, add_dead_letters, add_waiting, close, pack, state_of, undecodable, unpack_error
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.sqlite.values import count, data, is_text, seconds, text, unpacked
from stem_iso.errors import StemError
from stem_iso.outcome import TaskError
from stem_iso.task.canvas.tree import (
    GROUP,
    LINK_FAILED,
    MEMBER_FAILED,
    TOO_LARGE,
    Canvas,
    Count,
    Drop,
    FailureCause,
    Join,
    Move,
    Ref,
    Skip,
    Start,
    Then,
    Tree,
    dropped,
    error_of,
    gathered,
    group_of,
    hands_on,
    moves,
    parts_of,
    started,
    too_large,
)
from stem_iso.task.envelope import Envelope, Undecodable, decode, encode
from stem_iso.task.policy import RESULT_TTL

KEPT = 1e15  # an expiry that no clock reaches: its group has not ended
EMPTY = b"\x90"  # an empty list

_then = msgspec.msgpack.Decoder(Then)
_tree = msgspec.msgpack.Decoder(Tree)
_STATES = {number: state for state, number in ENDED.items()}


# -- a canvas comes --------------------------------------------------------------------------------------------------------------------


def compose(turn: Transaction, canvas: Canvas, bodies: Sequence[tuple[Envelope, bytes]]) -> None:
    """`bodies`: the envelopes of its steps, encoded, in their order."""
    if turn.one("SELECT 1 FROM task WHERE id = ? OR canvas = ?", (canvas.id, canvas.id)):
        return  # it is here already, or was: its outcome may have expired before its other parts have
    first = set(canvas.first)
    add_waiting(turn, bodies)
    turn.of_rows(_INSERT_GROUP, [(join.id, GROUP, "", 9, join.size, turn.now) for join in canvas.joins])
    thens = [(step.envelope.id, step.then) for step in canvas.steps] + [(join.id, join.then) for join in canvas.joins]
    turn.of_rows("INSERT INTO tally VALUES {rows}", [(join.id, join.size) for join in canvas.joins if join.size])
    turn.of_rows(_LINK, [(id, canvas.id, msgspec.msgpack.encode(then), then.join, then.index) for id, then in thens])
    later = [step.envelope.id for step in canvas.steps if step.envelope.id not in first]
    turn.of_keys("UPDATE task SET state = -1, at = NULL, reason = 'waiting' WHERE id IN ({keys})", later)
    turn.run("UPDATE task SET tree = ? WHERE id = ?", (msgspec.msgpack.encode(canvas.tree), canvas.id))
    _Moving(turn).empty([join for join in canvas.joins if join.id in first])
    turn.topics.add(Topic.WORK)


_INSERT_GROUP = """
INSERT INTO task (id, name, queue, rank, state, run, attempt, size, enqueued, reason)
SELECT column1, column2, column3, column4, -1, 0, 0, column5, column6, 'waiting' FROM (VALUES {rows}) WHERE true"""

_LINK = """
UPDATE task SET canvas = v.column2, follows = v.column3, joined = v.column4, place = v.column5
FROM (VALUES {rows}) AS v WHERE task.id = v.column1"""


# -- a part ends -----------------------------------------------------------------------------------------------------------------------


class PartRow(NamedTuple):
    """The row of a part, as far as its neighbours depend on it."""

    seq: int
    id: str
    name: str
    follows: bytes
    joined: str | None
    ttl: float | None
    forgotten: int
    size: int | None  # None: it is no group
    whole: int  # its outcome is the canvas's

    @classmethod
    def of(cls, row: Row) -> PartRow:
        seq, id, name, follows, joined, ttl, forgotten, size, whole = row
        joined = joined if is_text(joined) else None
        return cls(seq, text(id), text(name), data(follows), joined, seconds(ttl), forgotten, size, whole)


_PART = "SELECT seq, id, name, follows, joined, ttl, forgotten, size, tree IS NOT NULL FROM task WHERE canvas IS NOT NULL AND "


def end(turn: Transaction, endings: Sequence[RowEnd]) -> list[RowEnd]:
    """End those that are parts of a canvas, and all that follows from it; the others are returned."""
    parts = {row[0]: row for row in turn.of_keys(_PART + "seq IN ({keys})", [ending.seq for ending in endings])}
    linked = [ending for ending in endings if ending.seq in parts]
    if linked:
        _Moving(turn).ended(linked, {seq: PartRow.of(row) for seq, row in parts.items()})
    return [ending for ending in endings if ending.seq not in parts]


class _Moving:
    """One batch of ends with all that they move, in the order in which it happens."""

    def __init__(self, turn: Transaction) -> None:
        self._turn = turn
        self._ends: deque[tuple[PartRow, bytes | FailureCause]] = deque()

    def ended(self, endings: Sequence[RowEnd], parts: dict[int, PartRow]) -> None:
        # All of them first: what is revoked as a whole must not be skipped part by part.
        close(self._turn, endings)
        for ending in endings:
            part = parts[ending.seq]
            if ending.state == schema.SUCCEEDED:
                self._ends.append((part, ending.result or b"\xc0"))
            else:
                error = unpack_error(ending.error)
                self._ends.append(
                    (part, FailureCause(id=part.id, name=part.name, state=_STATES[ending.state], reason=ending.reason, error=error))
                )
        self._run()
        self._let_go(endings, parts)

    def empty(self, joins: Sequence[Join]) -> None:
        """Groups without members, at the start of a canvas."""
        for join in joins:
            self._start(Start(Ref(join.id, ""), EMPTY, ""))
        self._run()

    def _run(self) -> None:
        while self._ends:
            part, ended = self._ends.popleft()
            for move in self._moves(part, ended):
                match move:
                    case Start():
                        self._start(move)
                    case Skip():
                        self._skip(move)
                    case Count():
                        self._count(move)
                    case Drop():
                        self._drop(move)
                    case _:
                        assert_never(move)
        self._turn.topics.add(Topic.DONE)

    def _let_go(self, endings: Sequence[RowEnd], parts: dict[int, PartRow]) -> None:
        """Of those that ended from outside: who is still counted on is kept, who is wanted no longer goes."""
        for part in parts.values():
            if part.size is not None:
                self._release(part.id)
        for ending in endings:
            joined = parts[ending.seq].joined
            if joined is not None and self._waits(joined):
                self._turn.run("UPDATE task SET at = ?, ttl = ? WHERE seq = ?", (KEPT, max(0.0, ending.until - self._turn.now), ending.seq))
            elif ending.until <= self._turn.now:
                drop(self._turn, [ending.seq])

    def _waits(self, id: str) -> bool:
        return bool(self._turn.one("SELECT 1 FROM task WHERE id = ? AND state = -1", (id,)))

    # -- one move each: a target that no longer waits is left alone -----------------------------------------------------------------

    def _start(self, move: Start) -> None:
        rows = self._turn.all(_PART + "id = ? AND state = -1", (move.target.id,))
        for part in map(PartRow.of, rows):
            if part.size is not None:
                self._close(part, schema.SUCCEEDED, result=EMPTY)
                self._ends.append((part, EMPTY))
                continue
            (body,) = self._turn.all("SELECT body FROM task WHERE seq = ?", (part.seq,))[0]
            try:
                envelope = started(decode(data(body)), move, self._turn.now)
            except Undecodable as error:
                self._fail(part, str(error))
                continue
            due = envelope.not_before
            state = schema.READY if due is None or due <= self._turn.now else schema.DELAYED
            self._turn.run(_BEGIN, (state, due, move.parent or None, envelope.enqueued_at, encode(envelope), part.seq))
            self._turn.topics.add(Topic.WORK)

    def _skip(self, move: Skip) -> None:
        for part in map(PartRow.of, self._turn.all(_PART + "id = ? AND state = -1", (move.target.id,))):
            self._close(part, schema.FAILED, LINK_FAILED, error_of(move.cause, LINK_FAILED))
            self._ends.append((part, move.cause))

    def _count(self, move: Count) -> None:
        missing = self._turn.one("UPDATE tally SET missing = missing - 1 WHERE id = ? RETURNING missing", (move.join,))
        if missing is not None and (not isinstance(missing, int) or missing < 0):  # the count cannot be read: it is taken anew
            missing = self._turn.one("SELECT count(*) FROM task WHERE joined = ? AND state <= 2", (move.join,))
            self._turn.run("UPDATE tally SET missing = ? WHERE id = ?", (missing, move.join))
        if not missing:
            self._turn.run("DELETE FROM tally WHERE id = ?", (move.join,))
        elif not isinstance(move.ended, FailureCause):
            return
        for part in map(PartRow.of, self._turn.all(_PART + "id = ? AND state = -1", (move.join,))):
            if isinstance(move.ended, FailureCause):
                self._close(part, schema.FAILED, MEMBER_FAILED, error_of(move.ended, MEMBER_FAILED))
                self._ends.append((part, move.ended))
            else:
                self._complete(part)
            self._release(part.id)

    def _drop(self, move: Drop) -> None:
        for seq, follows in self._turn.all("SELECT seq, follows FROM task WHERE id = ? AND state = -1", (move.target.id,)):
            drop(self._turn, [seq])
            for below in dropped(unpacked(_then, follows) or Then()):
                self._drop(below)

    # -- what cannot be read ----------------------------------------------------------------------------------------------------------

    def _moves(self, part: PartRow, ended: bytes | FailureCause) -> Sequence[Move]:
        then = unpacked(_then, part.follows)
        if then is not None:
            return moves(then, part.id, ended)
        cause = (
            ended if isinstance(ended, FailureCause) else self._cause(part, "undecodable", undecodable("what follows it cannot be read"))
        )
        waiting = "SELECT id FROM task WHERE canvas = (SELECT canvas FROM task WHERE seq = ?) AND state = -1"
        return [Skip(Ref(id, ""), cause) for (id,) in self._turn.all(waiting, (part.seq,)) if is_text(id)]

    def _fail(self, part: PartRow, message: str) -> None:
        """A step without an envelope never begins."""
        error = undecodable(message)
        add_dead_letters(self._turn, [(part.seq, "undecodable", pack(error))])
        self._close(part, schema.FAILED, "undecodable", error)
        self._ends.append((part, self._cause(part, "undecodable", error)))

    def _cause(self, part: PartRow, reason: str, error: TaskError) -> FailureCause:
        return FailureCause(id=part.id, name=part.name, state=_STATES[schema.FAILED], reason=reason, error=error)

    # -- a group has all its members ----------------------------------------------------------------------------------------------------

    def _complete(self, part: PartRow) -> None:
        then = unpacked(_then, part.follows) or Then()
        result = self._results(part.id, then.most)
        if result is None and hands_on(then):
            error = too_large(then.most)
            self._close(part, schema.FAILED, TOO_LARGE, error)
            ended: bytes | FailureCause = self._cause(part, TOO_LARGE, error)
        else:
            self._close(part, schema.SUCCEEDED, result=result)
            ended = EMPTY if result is None else result
        self._ends.append((part, ended))

    def _results(self, join: str, most: int) -> bytes | None:
        # Measured before they are read: a thousand results of 16 MiB would end this process, and hold the lock until then.
        if (self._turn.one("SELECT sum(length(result)) FROM task WHERE joined = ?", (join,)) or 0) > most:
            return None
        rows = self._turn.all("SELECT result FROM task WHERE joined = ? ORDER BY place", (join,))
        return gathered([data(row[0]) or b"\xc0" for row in rows], most)

    def _close(
        self, part: PartRow, state: int, reason: str | None = None, error: TaskError | None = None, result: bytes | None = None
    ) -> None:
        if part.whole and state == schema.FAILED:
            end_notices.note(self._turn, [part.seq], state, reason or "failed", pack(error))
        until = self._turn.now + (RESULT_TTL if part.ttl is None else part.ttl)
        if part.joined is not None and self._waits(part.joined):
            until = KEPT
        elif part.forgotten:
            until = self._turn.now
        close(self._turn, [RowEnd(part.seq, state, until, reason, pack(error), result)])

    def _release(self, join: str) -> None:
        """The group has ended: the expiry of its members begins."""
        self._turn.run("UPDATE task SET at = ? + coalesce(ttl, ?) WHERE joined = ? AND at = ?", (self._turn.now, RESULT_TTL, join, KEPT))
        over = "SELECT seq FROM task WHERE joined = ? AND state > 2 AND (at <= ? OR forgotten)"
        drop(self._turn, [row[0] for row in self._turn.all(over, (join, self._turn.now))])


_BEGIN = "UPDATE task SET state = ?, at = ?, reason = NULL, parent = coalesce(?, parent), enqueued = ?, body = ? WHERE seq = ?"


# -- questions -------------------------------------------------------------------------------------------------------------------------


def tree(turn: Transaction, id: str) -> Tree | None:
    body = turn.one("SELECT tree FROM task WHERE id = ? AND (state <= 2 OR at > ?)", (id, turn.now))
    if body is None:
        return None
    found = unpacked(_tree, body)
    if found is None:
        raise StemError(f"canvas {id} cannot be read: what was composed is damaged in the broker; its tasks can be asked for one by one")
    return found


def members(turn: Transaction, id: str) -> list[MemberState] | None:
    if not turn.one("SELECT 1 FROM task WHERE id = ? AND size IS NOT NULL AND (state <= 2 OR at > ?)", (id, turn.now)):
        return None
    rows = turn.all("SELECT id, state, attempt FROM task WHERE joined = ? AND (state <= 2 OR at > ?) ORDER BY place", (id, turn.now))
    return [MemberState(text(member), state_of(state, attempt)) for member, state, attempt in rows]


def unended(turn: Transaction, id: str) -> int | None:
    """How many members of a group have not ended; None where there is no such group."""
    missing = turn.one(_UNENDED, (id, turn.now))
    return None if missing is None else count(missing)


_UNENDED = """
SELECT coalesce((SELECT missing FROM tally WHERE tally.id = task.id), 0) FROM task
WHERE id = ? AND size IS NOT NULL AND (state <= 2 OR at > ?)"""


def parts(turn: Transaction, id: str) -> list[str]:
    """The ids of what `id` means: all parts of a canvas, of a group in it, or the task itself."""
    if not is_text(id):
        return []
    if turn.one("SELECT 1 FROM task WHERE id = ? AND tree IS NOT NULL", (id,)):
        return [row[0] for row in turn.all("SELECT id FROM task WHERE canvas = ?", (id,)) if is_text(row[0])]
    body = turn.one("SELECT tree FROM task WHERE id = (SELECT canvas FROM task WHERE id = ? AND size IS NOT NULL)", (id,))
    whole = unpacked(_tree, body)
    group = None if whole is None else group_of(whole, id)
    if group is None:
        return [id]
    return [
        row[0]
        for row in turn.of_keys("SELECT id FROM task WHERE canvas IS NOT NULL AND id IN ({keys})", [ref.id for ref in parts_of(group)])
    ]
