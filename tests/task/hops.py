"""A store whose parts live apart, as on a Redis Cluster: each queue is a slot, each group is one, and nothing is done in two slots at once.

    part ends in its slot ── its moves ──> that slot's outbox ── hop ──> another slot ── its moves ──> ...

A hop is bytes. It is taken from the outbox some time after it has been carried out, so it may arrive twice; whoever carries it may be
stopped for long with it in hand, so it may arrive long after it was taken away; and hops overtake each other. What has ended or was dropped
stays as its tombstone: in such a store a status must outlive the hops under way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import assert_never

import msgspec

from stem_iso.outcome import TaskState
from stem_iso.task.canvas.tree import (
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
    Step,
    Then,
    dropped,
    gathered,
    hands_on,
    moves,
    started,
)
from stem_iso.task.envelope import Envelope, decode, encode

Stage = Enum("Stage", "WAITING READY LEASED ENDED DROPPED")
EMPTY = msgspec.msgpack.encode([])


class Place(msgspec.Struct, frozen=True, tag=True):
    """The canvas at `root` brings a part to its slot. Once all are there, the root starts those that come first."""

    root: Ref
    target: Ref
    then: Then
    body: bytes | None = None  # None: a group
    size: int = 0


class Placed(msgspec.Struct, frozen=True, tag=True):
    """And this one is there."""

    root: Ref
    id: str


Hop = Move | Place | Placed
_hops = msgspec.msgpack.Decoder(Hop)


@dataclass
class Part:
    ref: Ref
    then: Then
    body: bytes | None
    size: int
    stage: Stage = Stage.WAITING
    counted: dict[int, bytes | FailureCause] = field(default_factory=dict)
    lease: int = 0
    revoked: bool = False
    ended: bytes | FailureCause | None = None
    begun: list[Envelope] = field(default_factory=list)


@dataclass
class Slot:
    parts: dict[str, Part] = field(default_factory=dict)
    outbox: dict[int, bytes] = field(default_factory=dict)
    unplaced: dict[str, set[str]] = field(default_factory=dict)  # of a canvas whose root is here
    first: dict[str, tuple[Ref, ...]] = field(default_factory=dict)


@dataclass
class Apart:
    """`fates`: how each part ended that was ended from outside. `seen`: every part, wherever it lives."""

    slots: dict[str, Slot] = field(default_factory=dict)
    seen: dict[str, Part] = field(default_factory=dict)
    fates: dict[str, TaskState] = field(default_factory=dict)
    _number: int = 0

    def slot(self, ref: Ref) -> Slot:
        return self.slots.setdefault(ref.queue or f"group {ref.id}", Slot())

    # -- each of these is one step in one slot ----------------------------------------------------------------------------------

    def compose(self, canvas: Canvas) -> None:
        refs = {step.envelope.id: Ref(step.envelope.id, step.envelope.queue) for step in canvas.steps}
        refs |= {join.id: Ref(join.id, "") for join in canvas.joins}
        root = refs[canvas.id]
        slot = self.slot(root)
        slot.unplaced[root.id] = set(refs)
        slot.first[root.id] = tuple(refs[id] for id in canvas.first)
        for part in (*canvas.steps, *canvas.joins):
            match part:
                case Step(envelope=envelope, then=then):
                    self._send(slot, Place(root, refs[envelope.id], then, body=encode(envelope)))
                case Join(id=id, size=size, then=then):
                    self._send(slot, Place(root, refs[id], then, size=size))

    def arrive(self, hop: bytes) -> None:
        move = _hops.decode(hop)
        match move:
            case Place(target=ref):
                slot = self.slot(ref)
                if ref.id not in slot.parts:
                    self.seen[ref.id] = slot.parts[ref.id] = Part(ref, move.then, move.body, move.size)
                self._send(slot, Placed(move.root, ref.id))
            case Placed(root=root, id=id):
                slot = self.slot(root)
                waited = slot.unplaced[root.id]
                if waited and not (waited := waited - {id}):
                    for first in slot.first[root.id]:
                        self._send(slot, Start(first, EMPTY, ""))
                slot.unplaced[root.id] = waited
            case Start(target=ref):
                self._if_waiting(ref, lambda part: self._start(part, move))
            case Skip(target=ref, cause=cause):
                self._if_waiting(ref, lambda part: self._end(part, cause))
            case Count(join=id):
                self._if_waiting(Ref(id, ""), lambda part: self._count(part, move))
            case Drop(target=ref):
                self._if_waiting(ref, self._drop)
            case _:
                assert_never(move)

    def lease(self, part: Part) -> int:
        assert part.stage is Stage.READY
        self._number += 1
        part.stage, part.lease = Stage.LEASED, self._number
        return part.lease

    def settle(self, part: Part, lease: int, ended: bytes | FailureCause | None) -> None:
        """None: again (a retry, given back). A lease that another has by now changes nothing."""
        if part.stage is not Stage.LEASED or part.lease != lease:
            return
        if part.revoked and not isinstance(ended, bytes):
            self._from_outside(part, TaskState.CANCELLED, cause_of(part, TaskState.CANCELLED))
        elif ended is None:
            part.stage = Stage.READY
        else:
            self._from_outside(part, TaskState.SUCCEEDED if isinstance(ended, bytes) else ended.state, ended)

    def revoke(self, part: Part) -> None:
        match part.stage:
            case Stage.WAITING | Stage.READY:
                self._from_outside(part, TaskState.CANCELLED, cause_of(part, TaskState.CANCELLED))
            case Stage.LEASED:
                part.revoked = True

    # -- what they consist of ---------------------------------------------------------------------------------------------------

    def _if_waiting(self, ref: Ref, then: Callable[[Part], None]) -> None:
        part = self.slot(ref).parts[ref.id]  # a KeyError: it was moved before it was placed
        if part.stage is Stage.WAITING:
            then(part)

    def _start(self, part: Part, move: Start) -> None:
        if part.body is None:
            self._end(part, EMPTY)
            return
        part.begun.append(started(decode(part.body), move, now=0.0))
        part.stage = Stage.READY

    def _count(self, part: Part, move: Count) -> None:
        part.counted.setdefault(move.index, move.ended)
        if isinstance(move.ended, FailureCause):
            self._end(part, move.ended)
        elif len(part.counted) == part.size:
            self._complete(part)

    def _complete(self, part: Part) -> None:
        results = [part.counted[index] for index in range(part.size)]
        result = gathered([one for one in results if isinstance(one, bytes)], part.then.most)
        if result is None and hands_on(part.then):
            self._end(part, cause_of(part, TaskState.FAILED, TOO_LARGE))
        else:
            self._end(part, EMPTY if result is None else result)

    def _drop(self, part: Part) -> None:
        part.stage = Stage.DROPPED
        for move in dropped(part.then):
            self._send(self.slot(part.ref), move)

    def _from_outside(self, part: Part, state: TaskState, ended: bytes | FailureCause) -> None:
        self.fates[part.ref.id] = state
        self._end(part, ended)

    def _end(self, part: Part, ended: bytes | FailureCause) -> None:
        assert part.ended is None, f"{part.ref.id} ended twice"
        part.stage, part.ended = Stage.ENDED, ended
        for move in moves(part.then, part.ref.id, ended):
            self._send(self.slot(part.ref), move)

    def _send(self, slot: Slot, hop: Hop) -> None:
        self._number += 1
        slot.outbox[self._number] = msgspec.msgpack.encode(hop)


def cause_of(part: Part, state: TaskState, reason: str | None = None) -> FailureCause:
    return FailureCause(id=part.ref.id, name="step", state=state, reason=reason)
