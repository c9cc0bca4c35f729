"""Outbox relay: what an end leaves in the outbox of its queue is carried to where it belongs, which is another slot.

    outbox entry ── job ──> calls ──> answers ──> calls … ──> close ──> ack: the entry is gone
         ^                              │
         └── what a step ended there ───┘    an entry of its own queue, hence a job of its own

Whoever gets an entry as the answer of a script runs it at once (`run`); where that one died, the entry is found in the outbox a second
later, by any worker of that queue (`pending`). All jobs go on side by side: one round trip for a hop of each.

Rules
 1. A hop is one script in one slot, and changes nothing the second time, so an entry may be run twice, at once, and late.
 2. An entry is gone only when all that it moved is durable elsewhere: a step in its queue, or in that queue's outbox. A group has none:
    it answers the message that ended it with its outcome each time, so that the next relay goes on behind it.
 3. A group expires from `close` on, when what it moved is in its place. One that has not ended stays.
 4. End notices are written with the ack, hence once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from stem_iso.brokers.redis import canvas_placement
from stem_iso.brokers.redis.canvas_moves import (
    Outcome,
    RoutedCall,
    beginning,
    calls_of,
    cause_in,
    ended_in,
    is_whole,
    link_in,
    outcome,
    revocation,
)
from stem_iso.brokers.redis.canvas_placement import CanvasOrigin
from stem_iso.brokers.redis.corrupt_records import DAMAGE, log_corrupt
from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall, ServerCommand
from stem_iso.brokers.redis.keys import REGISTRY, own_key, queue_key
from stem_iso.brokers.redis.records import frames
from stem_iso.task.canvas.tree import Canvas, Move, Ref, dropped, moves

AGE = 1.0  # seconds after which an entry is taken to be left behind
TAKE = 100  # entries of a queue in one batch


class OutboxEntry(NamedTuple):
    """`frames`: kind, id, what, state, reason, error, result."""

    queue: str
    number: int
    frames: Sequence[bytes]

    @property
    def kind(self) -> str:
        return self.frames[0].decode()


def entries_in(queue: str, answer: Sequence[bytes]) -> list[OutboxEntry]:
    """As scripts answer them: number, entry, number, entry, …"""
    return [OutboxEntry(queue, int(answer[at]), frames(answer[at + 1])) for at in range(0, len(answer), 2)]


def ack(entry: OutboxEntry, notices: Sequence[bytes] = ()) -> ScriptCall:
    """`notices`: as `scripts/take_end_notices.lua` has them behind their 'M'."""
    return ScriptCall("ack_entry", queue_key(entry.queue), (entry.number, *notices))


# -- running them ----------------------------------------------------------------------------------------------------------------------

Job = Generator[list[RoutedCall], list[Any], None]
Limits = Callable[[RedisClient, Sequence[OutboxEntry]], None]


class OutboxRelay:
    """Used by the broker's thread. `limits`: carries out and acknowledges the entries that are of no canvas."""

    def __init__(self, client: RedisClient, limits: Limits) -> None:
        self._client, self._limits = client, limits

    def run(self, entries: Sequence[OutboxEntry]) -> None:
        """Carry them out, and what follows from them, to the end. Raises BrokerUnavailable: what is left then is still in its outbox."""
        jobs: list[Job] = []
        others: list[OutboxEntry] = []
        _sort(entries, jobs, others)
        self._drive(jobs, others)

    def _drive(self, jobs: Sequence[Job], others: list[OutboxEntry]) -> None:
        going = [(job, next(job)) for job in jobs]
        noticed = False
        while going:
            noticed = noticed or any(_leaves_notice(routed.call) for _, calls in going for routed in calls)
            going = self._hop(going, others)
        if noticed:
            self._client.run([ServerCommand(REGISTRY, ("PUBLISH", self._client.channel, 1))])
        if others:
            self._limits(self._client, others)

    def compose(self, canvas: Canvas, origin: CanvasOrigin) -> None:
        """As `run`, for an entry that its author need not read again."""
        job = _composed(OutboxEntry(origin.queue, origin.number, ()), canvas)
        self._drive([job], [])

    def pending(self, queues: Sequence[str]) -> None:
        """Run what is left in the outboxes of these queues."""
        answers = self._client.run([ScriptCall("pending_entries", queue_key(queue), (AGE, TAKE)) for queue in queues])
        self.run([entry for queue, answer in zip(queues, answers, strict=True) for entry in entries_in(queue, answer)])

    def _hop(self, going: Sequence[tuple[Job, list[RoutedCall]]], others: list[OutboxEntry]) -> list[tuple[Job, list[RoutedCall]]]:
        """One for each job, in one round trip; what steps have ended meanwhile are jobs too."""
        answers = iter(self._client.run([routed.call for _, calls in going for routed in calls]))
        on: list[tuple[Job, list[RoutedCall]]] = []
        fresh: list[Job] = []
        for job, calls in going:
            answered = [next(answers) for _ in calls]
            for routed, answer in zip(calls, answered, strict=True):
                if routed.queue:
                    _sort(entries_in(routed.queue, answer), fresh, others)
            with suppress(StopIteration):
                on.append((job, job.send(answered)))
        return on + [(job, next(job)) for job in fresh]


def _leaves_notice(call: ScriptCall | ServerCommand) -> bool:
    """It writes an end notice, or may."""
    return isinstance(call, ScriptCall) and (call.script == "skip" or (call.script == "ack_entry" and len(call.args) > 1))


def _sort(entries: Sequence[OutboxEntry], jobs: list[Job], others: list[OutboxEntry]) -> None:
    for entry in entries:
        if (job := _job(entry)) is None:
            others.append(entry)
        else:
            jobs.append(job)


# -- what an entry asks for ------------------------------------------------------------------------------------------------------------

_refs = msgspec.msgpack.Decoder(tuple[Ref, ...])


def _job(entry: OutboxEntry) -> Job | None:
    """None: it is of no canvas."""
    try:
        return _of_canvas(entry)
    except DAMAGE:
        log_corrupt(f"entry {entry.number} in the outbox of queue {entry.queue}")
        return _delivered(entry, [], [])


def _of_canvas(entry: OutboxEntry) -> Job | None:
    id, what = entry.frames[1].decode(), entry.frames[2]
    match entry.kind:
        case "end":
            link = link_in(what)
            return _delivered(entry, calls_of(moves(link.then, id, ended_in(id, link.name, *entry.frames[3:7]))), _closing(id, what))
        case "skip":
            return _delivered(entry, calls_of(moves(link_in(what).then, id, cause_in(entry.frames[5]))), _closing(id, what))
        case "drop":
            return _delivered(entry, calls_of(dropped(link_in(what).then)), [])
        case "revoke":
            return _delivered(entry, [RoutedCall(revocation(id), group=id)], [], by_id=what == b"1")
        case "compose":
            return _composed(entry, canvas_placement.canvas_in(what))
        case "begin":
            return _delivered(entry, beginning(_refs.decode(what)), [])
    return None


def _closing(id: str, link: bytes) -> list[str]:
    """A canvas whose outcome is a task: its tree begins to expire."""
    return [id] if is_whole(link) else []


def _composed(entry: OutboxEntry, canvas: Canvas) -> Job:
    first = yield from canvas_placement.place(CanvasOrigin(entry.queue, entry.number), canvas)
    if first is not None:
        yield from _delivered(entry, beginning(first), [])


def _outcome(group: str, answer: Sequence[bytes], by_id: bool) -> Outcome | None:
    try:
        return outcome(group, answer, by_id)
    except DAMAGE:
        log_corrupt(f"what follows group {group}")
        return None


def _delivered(entry: OutboxEntry, calls: list[RoutedCall], closing: list[str], by_id: bool = False) -> Job:
    """Hop by hop until nothing moves any more; then the slots of their own that have ended; then the ack."""
    notices: list[bytes] = []
    while calls:
        found: list[Move] = []
        for each, answer in zip(calls, (yield calls), strict=True):
            if each.group and (ended := _outcome(each.group, answer, by_id)) is not None:
                found += ended.moves
                notices += ended.notices
                closing.append(each.group)
        calls = calls_of(found)
    if closing:
        yield [RoutedCall(ScriptCall("group", own_key(id), ("close",))) for id in closing]
    yield [RoutedCall(ack(entry, notices))]
