"""The relay: what an end leaves in the outbox of its queue is carried to where it belongs, which is another slot.

    outbox entry ── job ──> calls ──> answers ──> calls … ──> group: close ──> ack: the entry is gone
         ^                              │
         └── what a step ended there ───┘    an entry of its own queue, hence a job of its own

Whoever gets an entry as the answer of a script runs it at once (`run`); one whose asker died is found in the outbox a second later, by any
worker of that queue (`pending`). All jobs go on side by side: one round trip for a hop of each.

Rules
 1. A hop is one script in one slot, and changes nothing the second time, so an entry may be run twice, at once, and late.
 2. An entry is gone only when all that it moved is durable elsewhere: a step in its queue, or in that queue's outbox. A group has no outbox:
    it answers the message that ended it with its outcome each time, so that the next relay goes on behind it.
 3. A group expires from `close` on, after which nobody asks it any more but those who come late. One that has not ended stays.
 4. What ended apart is told with the ack, hence once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import msgspec

from stem_iso.brokers.redis import delivering, placing
from stem_iso.brokers.redis.delivering import cause_in, ended_in, named
from stem_iso.brokers.redis.keys import own_key, queue_key
from stem_iso.brokers.redis.links import Call, Links
from stem_iso.task.canvas import Canvas, Cause, Drop, Move, Ref, dropped, moves
from stem_iso.task.status import TaskState

AGE = 1.0  # seconds after which an entry is taken to be left behind
TAKE = 100  # entries of a queue in one round

Job = Generator[list[Call], list[Any], None]


class Entry(NamedTuple):
    """`frames`: the kind, then what it says."""

    queue: str
    number: int
    frames: tuple[bytes, ...]

    @property
    def kind(self) -> str:
        return self.frames[0].decode()


def entries_in(queue: str, answer: Sequence[Any]) -> list[Entry]:
    """As scripts answer them: number, entry, number, entry, …"""
    return [Entry(queue, int(answer[at]), frames_in(answer[at + 1])) for at in range(0, len(answer), 2)]


def frames_in(packed: bytes) -> tuple[bytes, ...]:
    """`>I4` length, bytes, and so on."""
    found, at = [], 0
    while at < len(packed):
        end = at + 4 + int.from_bytes(packed[at : at + 4], "big")
        found.append(packed[at + 4 : end])
        at = end
    return tuple(found)


def framed(*frames: bytes) -> bytes:
    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)


# -- running them ----------------------------------------------------------------------------------------------------------------------

Limits = Callable[[Links, Sequence[Entry]], None]  # what carries out the entries of limits


class Relay:
    """`limits`: carries out the entries that are not of canvases, and acknowledges them. Used by the broker's thread."""

    def __init__(self, links: Links, limits: Limits) -> None:
        self._links, self._limits = links, limits

    def run(self, entries: Sequence[Entry]) -> None:
        """Carry them out, and what follows from them, to the end. Raises BrokerUnavailable: what is left then is still in its outbox."""
        going: list[tuple[Job, list[Call]]] = []
        others: list[Entry] = []
        self._take(entries, going, others)
        while going:
            answers = iter(self._links.run([call for _, asked in going for call in asked]))
            before, going = going, []
            for job, asked in before:
                self._go_on(job, asked, [next(answers) for _ in asked], going, others)
        if others:
            self._limits(self._links, others)

    def pending(self, queues: Sequence[str]) -> None:
        """Run what is left in the outboxes of these queues."""
        answers = self._links.run([Call("pending", queue_key(queue), (AGE, TAKE)) for queue in queues])
        self.run([entry for queue, answer in zip(queues, answers, strict=True) for entry in entries_in(queue, answer)])

    def _take(self, entries: Sequence[Entry], going: list[tuple[Job, list[Call]]], others: list[Entry]) -> None:
        for entry in entries:
            job = job_of(entry)
            if job is None:
                others.append(entry)
            else:
                going.append((job, next(job)))

    def _go_on(
        self, job: Job, asked: list[Call], answers: list[Any], going: list[tuple[Job, list[Call]]], others: list[Entry]
    ) -> None:
        for call, answer in zip(asked, answers, strict=True):
            if call.script in ("begin", "skip", "drop"):
                self._take(entries_in(delivering.queue_of(call), answer), going, others)
        try:
            going.append((job, job.send(answers)))
        except StopIteration:
            pass


# -- what an entry asks for ------------------------------------------------------------------------------------------------------------


def job_of(entry: Entry) -> Job | None:
    """None: it is of no canvas."""
    match entry.frames:
        case (b"end", id, link, state, reason, error, result):
            name, then = named(link)
            ended = ended_in(id.decode(), name, TaskState(state.decode()), reason, error, result)
            return _moved(entry, moves(then, id.decode(), ended), _closing(id.decode(), link))
        case (b"skip", id, link, cause):
            return _moved(entry, moves(named(link).then, id.decode(), cause_in(cause)), _closing(id.decode(), link))
        case (b"drop", _, link):
            return _moved(entry, [*dropped(named(link).then)], [])
        case (b"revoke", id):
            call = Call("group", own_key(id.decode()), ("revoke", msgspec.msgpack.encode(delivering.revoked(id.decode()))))
            return _delivered(entry, [call], [])
        case (b"compose", _, body):
            return placing.placed(entry, _canvas.decode(body))
        case (b"begin", _, refs):
            return _delivered(entry, delivering.begin_first(_refs.decode(refs)), [])
    return None


_canvas = msgspec.msgpack.Decoder(Canvas)
_refs = msgspec.msgpack.Decoder(tuple[Ref, ...])


def _closing(id: str, link: bytes) -> list[str]:
    """A canvas whose outcome is a task: its tree begins to expire."""
    return [id] if delivering.is_whole(link) else []


def _moved(entry: Entry, found: Sequence[Move], closing: list[str]) -> Job:
    return _delivered(entry, delivering.calls(found), closing)


def _delivered(entry: Entry, asked: list[Call], closing: list[str]) -> Job:
    """Hop by hop, until nothing moves any more; then the slots of their own that have ended, then the ack."""
    apart: list[bytes] = []
    while asked:
        found: list[Move] = []
        for call, answer in zip(asked, (yield asked), strict=True):
            ended = delivering.outcome(call, answer)
            if ended is not None:
                found += ended.moves
                closing.append(ended.id)
                apart += ended.apart
        asked = delivering.calls(found)
    if closing:
        yield [Call("close", own_key(id), ()) for id in closing]
    yield [ack(entry, apart)]


def ack(entry: Entry, apart: Sequence[bytes] = ()) -> Call:
    return Call("ack", queue_key(entry.queue), (entry.number, *apart))
