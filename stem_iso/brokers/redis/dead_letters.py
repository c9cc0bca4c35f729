"""Dead letters: a hash of them and their times, beside the queue they died in, apart from their status, because they live longer.

A replay is the task's next run under the same id: run + 1, attempt 0, no expiry, as new in its queue. Refused where another holds its lock
(`unique`), where the body is no envelope (`undecodable`), and where a task of this id is alive again (`active`). What another has replayed
or purged meanwhile is left out.

    ids by time, of all queues ──> batches ──> letters ──> filter ──> per queue: replay, purge      each letter is compared in the slot
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from stem_iso.brokers.base import DeadFilter, DeadLetter, Replayed
from stem_iso.brokers.redis.corrupt_records import DAMAGE, UNREADABLE, log_corrupt, text
from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall, ServerCommand
from stem_iso.brokers.redis.keys import queue_key
from stem_iso.brokers.redis.queues import QueueRegistry
from stem_iso.brokers.redis.records import body_of, frames, head_of, record, unpack_error
from stem_iso.brokers.rules import after
from stem_iso.task.envelope import Envelope, Undecodable, decode, next_run

MOST_ASKED = 1000  # ids: more are found by looking at all
BATCH = 50  # per round trip, of letters that may have a megabyte each: a replay sends every one back twice

T = TypeVar("T")


class _Found(NamedTuple):
    died: float
    id: str
    queue: str


class _Letter(NamedTuple):
    """`raw`: as it is stored, for the script to compare."""

    shown: DeadLetter
    raw: bytes


class _Next(NamedTuple):
    """What a replay would put in its place."""

    letter: _Letter
    envelope: Envelope


class DeadLetters:
    """One per broker, used by its thread. `ttl`: how long a letter is kept, seconds; `most`: the largest envelope, bytes."""

    def __init__(self, client: RedisClient, registry: QueueRegistry, ttl: float, most: int) -> None:
        self._client, self._registry, self._ttl, self._most = client, registry, ttl, most

    def letters(self, which: DeadFilter) -> list[DeadLetter]:
        """Newest last."""
        return [each.shown for batch in self._batches(which)[1] for each in batch]

    def purge(self, which: DeadFilter) -> int:
        purged = 0
        for batch in self._batches(which)[1]:
            places = _by_queue(batch, lambda each: each.shown.queue)
            calls = [
                ScriptCall("purge_dead_letters", queue_key(queue), tuple(each.shown.id for each in some)) for queue, some in places.items()
            ]
            purged += sum(self._client.run(calls))
        return purged

    def replay(self, which: DeadFilter, delay: float = 0.0, dry_run: bool = False) -> list[Replayed]:
        now, batches = self._batches(which)
        taken: set[str] = set()  # locks that a dry run would have taken by then
        replayed: list[Replayed] = []
        for batch in batches:
            replayed += self._replay(batch, now + max(0.0, delay), dry_run, taken)
        return replayed

    def _replay(self, batch: Sequence[_Letter], due: float, dry_run: bool, taken: set[str]) -> list[Replayed]:
        wanted: list[_Next] = []
        answered: dict[str, str] = {}
        for each in batch:
            try:
                wanted.append(_Next(each, after(_next_run(each.shown, due), each.shown, self._most)))
            except Undecodable:
                answered[each.shown.id] = "undecodable"
        places = _by_queue(wanted, lambda each: each.letter.shown.queue)
        nonce = os.urandom(8)
        calls = [ScriptCall("replay", queue_key(queue), (int(dry_run), nonce, *_replay_args(some))) for queue, some in places.items()]
        for some, answers in zip(places.values(), self._client.run(calls), strict=True):
            for (dead, envelope), answer in zip(some, answers, strict=True):
                lock = envelope.lock if dry_run and answer in (b"ok", b"unique") else None
                answered[dead.shown.id] = "unique" if lock in taken else answer.decode()
                if lock is not None:
                    taken.add(lock)
        return [_replayed(each.shown, answered[each.shown.id]) for each in batch if answered[each.shown.id] != "gone"]

    def _batches(self, which: DeadFilter) -> tuple[float, Iterator[list[_Letter]]]:
        """The server's clock, and what is meant now, oldest first, read as it is asked for."""
        queues = self._registry.known(fresh=True)
        queues = [queue for queue in queues if which.queue in (None, queue)]
        words = (self._ttl, "" if which.since is None else which.since, *_asked(which.ids))
        answers = self._client.run([ScriptCall("dead_letter_ids", queue_key(queue), words) for queue in queues])
        wanted = None if which.ids is None else set(which.ids)
        found = [
            _Found(float(died), text(id), queue)
            for queue, answer in zip(queues, answers, strict=True)
            for id, died in zip(answer[1::2], answer[2::2], strict=True)
            if wanted is None or text(id) in wanted
        ]
        found.sort()
        now = float(answers[0][0]) if answers else 0.0
        batches = (self._read(found[start : start + BATCH]) for start in range(0, len(found), BATCH))
        return now, ([each for each in batch if which.name in (None, each.shown.name)] for batch in batches)

    def _read(self, found: Sequence[_Found]) -> list[_Letter]:
        places = _by_queue(found, lambda each: each.queue)
        commands = []
        for queue, some in places.items():
            key = queue_key(queue)
            commands.append(ServerCommand(key, ("HMGET", f"{key}:x", *(each.id for each in some))))
        raw: dict[_Found, bytes] = {}
        for some, answer in zip(places.values(), self._client.run(commands), strict=True):
            raw |= {each: data for each, data in zip(some, answer, strict=True) if data is not None}
        return [_Letter(_shown(each, raw[each]), raw[each]) for each in found if each in raw]


def _shown(found: _Found, raw: bytes) -> DeadLetter:
    try:
        return _dead_letter(found.id, found.queue, raw)
    except DAMAGE:
        log_corrupt(f"the dead letter {found.id} of queue {found.queue}")
        return DeadLetter(
            id=found.id, name="", queue=found.queue, reason=UNREADABLE, run=0, attempt=0, died_at=found.died, error=None, body=raw
        )


def _dead_letter(id: str, queue: str, data: bytes) -> DeadLetter:
    """A value of `P:x`."""
    (died,) = struct.unpack_from("<d", data)
    reason, error, note, begun, stored = frames(data, 8)
    body = body_of(stored, note, begun)
    try:
        envelope = decode(body)
    except Undecodable:
        envelope = head_of(id, queue, stored)
    return DeadLetter(
        id=id,
        name=envelope.name,
        queue=queue,
        reason=reason.decode(),
        run=envelope.run,
        attempt=envelope.attempt,
        died_at=died,
        error=unpack_error(error),
        body=body,
    )


def _asked(ids: Sequence[str] | None) -> list[bytes]:
    """Those that each slot looks up by themselves; none where it is to name all it has: they are many, or one may stand for bytes that are
    no text (`corrupt_records.text`)."""
    words = [id.encode(errors="backslashreplace") for id in dict.fromkeys(ids or ())]
    return [] if len(words) > MOST_ASKED or any(b"\\" in word for word in words) else words


def _by_queue(items: Sequence[T], queue_of: Callable[[T], str]) -> dict[str, list[T]]:
    places: dict[str, list[T]] = {}
    for each in items:
        places.setdefault(queue_of(each), []).append(each)
    return places


def _next_run(of: DeadLetter, due: float) -> Envelope:
    """Raises Undecodable. In the queue it died in, whatever it says itself."""
    return msgspec.structs.replace(next_run(decode(of.body), of.id, of.run + 1, due), queue=of.queue)


def _replay_args(some: Sequence[_Next]) -> Iterator[bytes | str | float]:
    for dead, envelope in some:
        yield dead.shown.id
        yield dead.raw
        yield record(envelope)
        yield "" if envelope.unique_for is None else envelope.unique_for


def _replayed(shown: DeadLetter, answer: str) -> Replayed:
    return Replayed(shown.id, shown.run + 1) if answer == "ok" else Replayed(shown.id, shown.run, answer)
