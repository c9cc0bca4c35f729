"""Outbox relay: what an end leaves in the outbox of its queue is carried to where it belongs, which is another slot.

    outbox entry ── job ──> calls ──> answers ──> calls … ──> close ──> ack: the entry is gone
         ^                              │
         └── what a step ended there ───┘    an entry of its own queue, hence a job of its own

Whoever gets an entry as the answer of a script runs it at once (`run`); one whose asker died is found in the outbox a second later, by any
worker of that queue (`pending`). All jobs go on side by side: one round trip for a hop of each.

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
from stem_iso.brokers.redis.canvas_moves import Asked, Outcome, beginning, calls, cause_in, ended_in, is_whole, link_in, outcome, revocation
from stem_iso.brokers.redis.canvas_placement import CanvasOrigin
from stem_iso.brokers.redis.client.client import Command, Links, ScriptCall
from stem_iso.brokers.redis.corrupt_records import DAMAGE, say
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


def ack(entry: OutboxEntry, apart: Sequence[bytes] = ()) -> ScriptCall:
    """`apart`: as `scripts/ended_apart.lua` has them behind their 'M'."""
    return ScriptCall("ack", queue_key(entry.queue), (entry.number, *apart))


# -- running them ----------------------------------------------------------------------------------------------------------------------

Job = Generator[list[Asked], list[Any], None]
Limits = Callable[[Links, Sequence[OutboxEntry]], None]


class OutboxRelay:
    """Used by the broker's thread. `limits`: carries out and acknowledges the entries that are of no canvas."""

    def __init__(self, links: Links, limits: Limits) -> None:
        self._links, self._limits = links, limits

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
            noticed = noticed or any(_leaves_notice(asked.call) for _, asking in going for asked in asking)
            going = self._hop(going, others)
        if noticed:
            self._links.run([Command(REGISTRY, ("PUBLISH", self._links.bell, 1))])
        if others:
            self._limits(self._links, others)

    def compose(self, canvas: Canvas, origin: CanvasOrigin) -> None:
        """As `run`, for an entry that its author need not read again."""
        job = _composed(OutboxEntry(origin.queue, origin.number, ()), canvas)
        self._drive([job], [])

    def pending(self, queues: Sequence[str]) -> None:
        """Run what is left in the outboxes of these queues."""
        answers = self._links.run([ScriptCall("pending", queue_key(queue), (AGE, TAKE)) for queue in queues])
        self.run([entry for queue, answer in zip(queues, answers, strict=True) for entry in entries_in(queue, answer)])

    def _hop(self, going: Sequence[tuple[Job, list[Asked]]], others: list[OutboxEntry]) -> list[tuple[Job, list[Asked]]]:
        """One for each job, in one round trip; what steps have ended meanwhile are jobs too."""
        answers = iter(self._links.run([asked.call for _, asking in going for asked in asking]))
        on: list[tuple[Job, list[Asked]]] = []
        fresh: list[Job] = []
        for job, asking in going:
            answered = [next(answers) for _ in asking]
            for asked, answer in zip(asking, answered, strict=True):
                if asked.queue:
                    _sort(entries_in(asked.queue, answer), fresh, others)
            with suppress(StopIteration):
                on.append((job, job.send(answered)))
        return on + [(job, next(job)) for job in fresh]


def _leaves_notice(call: ScriptCall | Command) -> bool:
    """It writes an end notice, or may."""
    return isinstance(call, ScriptCall) and (call.script == "skip" or (call.script == "ack" and len(call.args) > 1))


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
        return _asked_by(entry)
    except DAMAGE:
        say(f"entry {entry.number} of what queue {entry.queue} hands on")
        return _delivered(entry, [], [])


def _asked_by(entry: OutboxEntry) -> Job | None:
    id, what = entry.frames[1].decode(), entry.frames[2]
    match entry.kind:
        case "end":
            link = link_in(what)
            return _delivered(entry, calls(moves(link.then, id, ended_in(id, link.name, *entry.frames[3:7]))), _closing(id, what))
        case "skip":
            return _delivered(entry, calls(moves(link_in(what).then, id, cause_in(entry.frames[5]))), _closing(id, what))
        case "drop":
            return _delivered(entry, calls(dropped(link_in(what).then)), [])
        case "revoke":
            return _delivered(entry, [Asked(revocation(id), group=id)], [], asked=what == b"1")
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


def _outcome(group: str, answer: Sequence[bytes], asked: bool) -> Outcome | None:
    try:
        return outcome(group, answer, asked)
    except DAMAGE:
        say(f"what follows group {group}")
        return None


def _delivered(entry: OutboxEntry, asking: list[Asked], closing: list[str], asked: bool = False) -> Job:
    """Hop by hop until nothing moves any more; then the slots of their own that have ended; then the ack."""
    apart: list[bytes] = []
    while asking:
        found: list[Move] = []
        for each, answer in zip(asking, (yield asking), strict=True):
            if each.group and (ended := _outcome(each.group, answer, asked)) is not None:
                found += ended.moves
                apart += ended.apart
                closing.append(each.group)
        asking = calls(found)
    if closing:
        yield [Asked(ScriptCall("group", own_key(id), ("close",))) for id in closing]
    yield [Asked(ack(entry, apart))]
