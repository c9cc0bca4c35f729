"""Moves of a canvas as script calls: one call where the target lives, and what its answer means. Pure.

    Start ┐            queue: begin · skip · drop   ── steps; what they end or drop there goes into that queue's own outbox
    Skip  ├─ calls ──> group: start · skip · count  ── `Outcome` where that ended it: the caller has to deliver what it moves
    Count │
    Drop  ┘

A step's name and its `Then` lie beside its record (`linked`), undecoded, behind one byte of what the scripts must know.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple, assert_never

import msgspec

from stem_iso.brokers.redis.driver.client import ScriptCall, ServerCommand
from stem_iso.brokers.redis.keys import own_key, queue_key
from stem_iso.brokers.redis.records import STATES, SUCCEEDED, unpack_error
from stem_iso.outcome import TaskState
from stem_iso.task.canvas.tree import (
    GROUP,
    LINK_FAILED,
    MEMBER_FAILED,
    Count,
    Drop,
    FailureCause,
    Move,
    Ref,
    Skip,
    Start,
    Then,
    error_of,
    moves,
)

EMPTY, NONE = b"\x90", b"\xc0"  # an empty list, None: encoded
BATCH = 500  # steps in one call
WHOLE, ERRORS = 1, 2  # the byte before a link: its outcome is the canvas's; what follows its error is dropped where it is dropped
REVOKED = "revoked"

Args = tuple[str | bytes, ...]


class CanvasLink(NamedTuple):
    name: str
    then: Then


_link = msgspec.msgpack.Decoder(CanvasLink)
_then = msgspec.msgpack.Decoder(Then)
_cause = msgspec.msgpack.Decoder(FailureCause)


def linked(name: str, then: Then, whole: bool) -> bytes:
    flags = (WHOLE if whole else 0) | (ERRORS if then.errors else 0)
    return bytes((flags,)) + msgspec.msgpack.encode(CanvasLink(name, then))


def link_in(packed: bytes) -> CanvasLink:
    return _link.decode(packed[1:])


def is_whole(packed: bytes) -> bool:
    return bool(packed[0] & WHOLE)


def cause_in(packed: bytes) -> FailureCause:
    return _cause.decode(packed)


def ended_in(id: str, name: str, state: bytes, reason: bytes, error: bytes, result: bytes) -> bytes | FailureCause:
    """How a task ended, as its queue tells it."""
    number = int(state)
    if number == SUCCEEDED:
        return result or NONE
    return FailureCause(id=id, name=name, state=STATES[number], reason=reason.decode() or None, error=unpack_error(error))


def revocation(id: str) -> ScriptCall:
    """Of a group, in its own slot."""
    cause = FailureCause(id=id, name=GROUP, state=TaskState.CANCELLED, reason=REVOKED)
    return ScriptCall("group", own_key(id), ("revoke", msgspec.msgpack.encode(cause)))


# -- calls -----------------------------------------------------------------------------------------------------------------------------


class RoutedCall(NamedTuple):
    """A call, and where it runs: in a queue, or in a group."""

    call: ScriptCall | ServerCommand
    queue: str = ""
    group: str = ""


def calls_of(found: Sequence[Move]) -> list[RoutedCall]:
    """One for each group, and one for all steps of a queue that get the same message."""
    made: list[RoutedCall] = []
    same: dict[tuple[str, str, Args], list[str]] = {}
    for move in found:
        match move:
            case Count(join=join):
                made.append(_to_group(join, "count", move.index, *_counted(move)))
            case Start(target=Ref(id=id, queue="")):
                made.append(_to_group(id, "start", EMPTY))  # whatever stands before it: it has no members
            case Skip(target=Ref(id=id, queue="")):
                made.append(_to_group(id, "skip", *_cause_args(move.cause, LINK_FAILED)))
            case Start(target=Ref(queue=queue)):
                same.setdefault(("begin", queue, (move.previous, move.parent)), []).append(move.target.id)
            case Skip(target=Ref(queue=queue)):
                same.setdefault(("skip", queue, _cause_args(move.cause, LINK_FAILED)), []).append(move.target.id)
            case Drop(target=Ref(queue=queue)):
                same.setdefault(("drop", queue, ()), []).append(move.target.id)
            case _:
                assert_never(move)
    for (script, queue, args), ids in same.items():
        made += _to_steps(script, queue, args, ids)
    return made


def beginning(refs: Sequence[Ref]) -> list[RoutedCall]:
    """The parts with which a canvas begins: as they were composed, nothing stands before them."""
    steps: dict[str, list[str]] = {}
    for ref in refs:
        if ref.queue:
            steps.setdefault(ref.queue, []).append(ref.id)
    made = [call for queue, ids in steps.items() for call in _to_steps("begin", queue, ("", ""), ids)]
    return made + [_to_group(ref.id, "start", EMPTY) for ref in refs if not ref.queue]


def _to_group(id: str, *args: str | bytes | int) -> RoutedCall:
    return RoutedCall(ScriptCall("group", own_key(id), args), group=id)


def _to_steps(script: str, queue: str, args: Args, ids: Sequence[str]) -> list[RoutedCall]:
    left = iter(ids)
    batches = iter(lambda: tuple(islice(left, BATCH)), ())
    return [RoutedCall(ScriptCall(script, queue_key(queue), (*args, *batch)), queue=queue) for batch in batches]


def _counted(move: Count) -> Args:
    return ("", *_cause_args(move.ended, MEMBER_FAILED)) if isinstance(move.ended, FailureCause) else (move.ended,)


def _cause_args(cause: FailureCause, reason: str) -> tuple[bytes, bytes]:
    return msgspec.msgpack.encode(cause), msgspec.msgpack.encode(error_of(cause, reason))


# -- answers ---------------------------------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """A group has ended. `notices`: its end notice, where it is a whole canvas and has failed, or was revoked by its id."""

    moves: list[Move]
    notices: list[bytes]


def outcome(id: str, answer: Sequence[bytes], by_id: bool) -> Outcome | None:
    """What a group answers; None where it goes on waiting, or was ended by something else. `by_id`: the revoke named this group."""
    if not answer:
        return None
    then, cause, result, reason, error, whole = answer
    ended = _cause.decode(cause) if cause else result or EMPTY
    found = moves(_then.decode(then), id, ended)
    revoked = reason == REVOKED.encode()
    if not cause or not (by_id if revoked else whole == b"1"):
        return Outcome(found, [])
    state = TaskState.CANCELLED if revoked else TaskState.FAILED
    notice = (id, GROUP, "", 0, 0, state, reason.decode(), unpack_error(error))
    return Outcome(found, [msgspec.msgpack.encode(notice)])
