"""Placement of a canvas: one entry in the outbox of its first step's queue, and from there all parts to their places.

    post ──> compose entry ── claim ──> tree ──> place, place, … ──> placed: the entry is a `begin` now ──> begin ──> ack
             all of it, one write       own slot   every slot

Rules
 1. The entry is the whole canvas, hence it is composed when that is written, or not at all. Who wrote it does the rest; any worker of the
    queue, if that one dies.
 2. Nothing begins before everything is in its place; from then on nothing is placed again (`placed` is the watershed).
 3. The tree comes first, with the entry's name on it: a second entry of the same canvas finds the other's name, helps it, and is gone.
    It outlives the canvas by a day, or its longest `result_ttl`.
 4. Placing is refused a minute after the relay has claimed the entry: one that was asleep must not bring back what has ended since.

Not promised: canvases across nodes of a cluster whose clocks are a minute apart; they wait until that has been put right.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from stem_iso.brokers.redis.canvas_moves import RoutedCall, linked
from stem_iso.brokers.redis.driver.client import ScriptCall, ServerCommand
from stem_iso.brokers.redis.keys import own_key, queue_key
from stem_iso.brokers.redis.records import frames, record
from stem_iso.outcome import TaskState
from stem_iso.task.canvas.tree import GROUP, TOO_LARGE, Canvas, FailureCause, Join, Ref, Step, hands_on, too_large
from stem_iso.task.policy import RESULT_TTL

DEFAULT = "default"  # where a canvas without steps begins
BATCH, BYTES = 300, 1 << 20  # parts in one call, and bytes
TRIES = 3

Placing = Generator[list[RoutedCall], list[Any], tuple[Ref, ...] | None]
_canvas = msgspec.msgpack.Decoder(Canvas)


class CanvasOrigin(NamedTuple):
    """The entry of a canvas: the queue in whose outbox it lies, and its number there."""

    queue: str
    number: int

    @property
    def token(self) -> str:
        return f"{self.number} {self.queue}"


def queue_of(canvas: Canvas) -> str:
    return canvas.steps[0].envelope.queue if canvas.steps else DEFAULT


def canvas_in(body: bytes) -> Canvas:
    return _canvas.decode(body)


def place(origin: CanvasOrigin, canvas: Canvas) -> Placing:
    """All parts to their places. Returns those that begin; None where that was another's to do, or cannot be done now."""
    key = queue_key(origin.queue)
    for _ in range(TRIES):
        (claimed,) = yield [RoutedCall(ScriptCall("claim_entry", key, (origin.number,)))]
        if claimed is None:
            return None
        tree = (claimed, origin.token, msgspec.msgpack.encode(canvas.tree), _keep(canvas))
        (token,) = yield [RoutedCall(ScriptCall("store_tree", own_key(canvas.id), tree))]
        if token != -1 and token.decode() != origin.token:
            return (yield from _help(canvas, token.decode()))
        if token != -1 and -1 not in (yield [RoutedCall(call) for call in _calls(canvas, claimed)]):
            first = _first(canvas)
            said = (origin.number, canvas.id, msgspec.msgpack.encode(first))
            (there,) = yield [RoutedCall(ScriptCall("mark_placed", key, said))]
            return first if there else None
    return None


def _help(canvas: Canvas, token: str) -> Placing:
    """Another entry composes this canvas: see it through, lest its author be dead. Then this one has nothing left to do."""
    number, _, queue = token.partition(" ")
    (entry,) = yield [RoutedCall(ServerCommand(queue_key(queue), ("HGET", f"{queue_key(queue)}:out", number)))]
    if entry is not None and frames(entry)[0] == b"compose":
        first = yield from place(CanvasOrigin(queue, int(number)), canvas)
        return first or ()
    return ()


def _first(canvas: Canvas) -> tuple[Ref, ...]:
    queues = {step.envelope.id: step.envelope.queue for step in canvas.steps}
    return tuple(Ref(id, queues.get(id, "")) for id in canvas.first)


def _keep(canvas: Canvas) -> float:
    """Seconds that its groups and its tree outlive it."""
    ttls = (step.envelope.result_ttl for step in canvas.steps)
    return max([RESULT_TTL, *(float(ttl) for ttl in ttls if isinstance(ttl, (int, float)))])


# -- the calls of one round ------------------------------------------------------------------------------------------------------------


def _calls(canvas: Canvas, claimed: bytes) -> Iterator[ScriptCall]:
    queues: dict[str, list[Step]] = {}
    for step in canvas.steps:
        queues.setdefault(step.envelope.queue, []).append(step)
    for queue, steps in queues.items():
        for parts in _batches((step.envelope.id, record(step.envelope), _link(canvas, step)) for step in steps):
            yield ScriptCall("place_steps", queue_key(queue), (claimed, *parts))
    keep, root = _keep(canvas), queue_of(canvas)
    for join in canvas.joins:
        yield ScriptCall("group", own_key(join.id), ("place", claimed, *_group(canvas, join, root, keep)))


def _link(canvas: Canvas, step: Step) -> bytes:
    return linked(step.envelope.name, step.then, step.envelope.id == canvas.id)


def _batches(parts: Iterable[tuple[str, bytes, bytes]]) -> Iterator[list[str | bytes]]:
    batch: list[str | bytes] = []
    size = 0
    for part in parts:
        batch += part
        size += len(part[1])
        if len(batch) >= 3 * BATCH or size >= BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _group(canvas: Canvas, join: Join, root: str, keep: float) -> tuple[str | bytes | int | float, ...]:
    """In the order of `scripts/group.lua`."""
    error = too_large(join.then.most)
    cause = FailureCause(id=join.id, name=GROUP, state=TaskState.FAILED, reason=TOO_LARGE, error=error)
    encode = msgspec.msgpack.encode
    flags = int(hands_on(join.then)), int(join.id == canvas.id)
    return (join.size, join.then.most, *flags, canvas.id, root, keep, encode(join.then), encode(error), encode(cause))
