"""What a move is at the place where its target lives: a call of one script, and what its answer says. Pure.

    Start ┐            queue: begin · skip · drop   ── steps; what they end or drop there goes into that queue's own outbox
    Skip  ├─ calls ──> group: start · skip · count  ── `Outcome` where that ended it: the asker has to deliver what it moves
    Count │
    Drop  ┘

A part's name and its `Then` lie beside its record (`linked`), undecoded, behind one byte of what the scripts must know.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple, assert_never

import msgspec

from stem_iso.brokers.redis.keys import own_key, queue_key
from stem_iso.brokers.redis.links import Call
from stem_iso.outcome import TaskError
from stem_iso.task.canvas import GROUP, LINK_FAILED, MEMBER_FAILED, Cause, Count, Drop, Move, Ref, Skip, Start, Then, error_of, moves
from stem_iso.task.status import TaskState

EMPTY = b"\x90"  # an empty list
NONE = b"\xc0"
BATCH = 500  # parts in one call
WHOLE, ERRORS = 1, 2  # the byte before a part's name and Then: its outcome is the canvas's; what follows its error has to be dropped with it


class Named(NamedTuple):
    name: str
    then: Then


_named = msgspec.msgpack.Decoder(Named)
_then = msgspec.msgpack.Decoder(Then)
_cause = msgspec.msgpack.Decoder(Cause)
_error = msgspec.msgpack.Decoder(TaskError)


def linked(name: str, then: Then, whole: bool) -> bytes:
    flags = (WHOLE if whole else 0) | (ERRORS if then.errors else 0)
    return bytes((flags,)) + msgspec.msgpack.encode(Named(name, then))


def named(link: bytes) -> Named:
    return _named.decode(link[1:])


def is_whole(link: bytes) -> bool:
    return bool(link[0] & WHOLE)


def cause_in(packed: bytes) -> Cause:
    return _cause.decode(packed)


def ended_in(id: str, name: str, state: TaskState, reason: bytes, error: bytes, result: bytes) -> bytes | Cause:
    """How a task ended, as its queue tells it: "" where there is none."""
    if state is TaskState.SUCCEEDED:
        return result or NONE
    return Cause(id=id, name=name, state=state, reason=reason.decode() or None, error=_error.decode(error) if error else None)


# -- calls -----------------------------------------------------------------------------------------------------------------------------


def calls(found: Sequence[Move]) -> list[Call]:
    """One for each group, and one for all steps of a queue that are to be told the same."""
    made: list[Call] = []
    same: dict[tuple[Any, ...], list[str]] = {}
    for move in found:
        match move:
            case Count():
                made.append(_count(move))
            case Start(target=Ref(queue="")):
                made.append(Call("group", own_key(move.target.id), ("start", move.previous)))
            case Skip(target=Ref(queue="")):
                made.append(Call("group", own_key(move.target.id), ("skip", *_told(move.cause, LINK_FAILED))))
            case Start():
                same.setdefault(("begin", move.target.queue, move.previous, move.parent), []).append(move.target.id)
            case Skip():
                same.setdefault(("skip", move.target.queue, *_told(move.cause, LINK_FAILED)), []).append(move.target.id)
            case Drop():
                same.setdefault(("drop", move.target.queue), []).append(move.target.id)
            case _:
                assert_never(move)
    for (script, queue, *said), ids in same.items():
        made += [Call(script, queue_key(queue), (*said, *some)) for some in in_batches(ids)]
    return made


def begin_first(refs: Sequence[Ref]) -> list[Call]:
    """The parts with which a canvas begins: as they were composed, with nothing before them."""
    steps: dict[str, list[str]] = {}
    for ref in refs:
        if ref.queue:
            steps.setdefault(ref.queue, []).append(ref.id)
    made = [Call("begin", queue_key(queue), ("", "", *some)) for queue, ids in steps.items() for some in in_batches(ids)]
    return made + [Call("group", own_key(ref.id), ("start", EMPTY)) for ref in refs if not ref.queue]


def _count(move: Count) -> Call:
    said = ("", *_told(move.ended, MEMBER_FAILED)) if isinstance(move.ended, Cause) else (move.ended,)
    return Call("group", own_key(move.join), ("count", move.index, *said))


def _told(cause: Cause, reason: str) -> tuple[bytes, bytes]:
    return msgspec.msgpack.encode(cause), msgspec.msgpack.encode(error_of(cause, reason))


def in_batches(ids: Sequence[str]) -> list[tuple[str, ...]]:
    left = iter(ids)
    return list(iter(lambda: tuple(islice(left, BATCH)), ()))


# -- answers ---------------------------------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """A group has ended. `apart`: what is to be told of it, where it is a whole canvas, and failed."""

    id: str
    moves: list[Move]
    apart: list[bytes]


def outcome(call: Call, answer: Sequence[bytes]) -> Outcome | None:
    """What a group answers; None where it goes on waiting, or was ended by something else."""
    if call.script != "group" or not answer:
        return None
    id = id_of(call)
    then, cause, result, reason, error, whole = answer
    ended = _cause.decode(cause) if cause else (result or EMPTY)
    found = moves(_then.decode(then), id, ended)
    if not cause or whole != b"1":
        return Outcome(id, found, [])
    state = TaskState.CANCELLED if reason == b"revoked" else TaskState.FAILED
    return Outcome(id, found, [apart(id, GROUP, "", 0, 0, state, reason, error)])


def apart(id: str, name: str, queue: str, run: int, attempt: int, state: TaskState, reason: bytes, error: bytes) -> bytes:
    """As it lies among those that ended in no worker's hands."""
    return msgspec.msgpack.encode((id, name, queue, run, attempt, state.value, reason.decode(), _error.decode(error) if error else None))
