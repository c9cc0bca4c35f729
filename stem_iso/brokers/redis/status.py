"""Status of tasks and counts of queues: reads only.

    ids ── asked where they are likely to be ──> every known queue, and the id's own slot (a group) ──> queues that came meanwhile
           a hint, or the memory of this broker     one pipelined round trip per node

A task's queue never changes while it is known, so what was once found is looked for there alone; not found there, everywhere. A status is
answered from the structure: record = queued, lease = running, and where the record stands; only the end of a task is ever written.
"""

from __future__ import annotations

import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from stem_iso.brokers.base import QueueCount, StatusRecord
from stem_iso.brokers.redis import canvas
from stem_iso.brokers.redis.corrupt_records import DAMAGE, UNREADABLE, log_corrupt
from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall
from stem_iso.brokers.redis.keys import queue_key
from stem_iso.brokers.redis.queues import QueueRegistry
from stem_iso.brokers.redis.records import (
    NO_ARGS,
    STATES,
    body_of,
    frames,
    laid_over,
    parsed,
    unpack_error,
    unpack_meta,
    unpack_progress,
)
from stem_iso.outcome import LIMITS, TaskState
from stem_iso.task.envelope import Envelope, Undecodable, decode

REMEMBERED = 10_000
GONE = 1.0  # seconds for which a boot that no living worker has is not asked about again
BATCH = 500  # ids per call: no script runs for more than some milliseconds

_STATUS = struct.Struct("<BdddH8s")

Boots = Callable[[Set[str]], Mapping[str, str]]  # the ids of the workers that have these boots; who has gone is left out


class QueueCache:
    """Where tasks were seen, the newest of them."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, str] = OrderedDict()

    def put(self, ids: Iterable[str], queue: str) -> None:
        for id in ids:
            self._queues[id] = queue
        while len(self._queues) > REMEMBERED:
            self._queues.popitem(last=False)

    def get(self, id: str) -> str | None:
        return self._queues.get(id)


class StatusReader:
    """One per broker, used by its thread."""

    def __init__(self, client: RedisClient, registry: QueueRegistry, queue_cache: QueueCache, boots: Boots) -> None:
        self._client, self._registry, self._queue_cache, self._boots = client, registry, queue_cache, boots
        self._workers: dict[str, str] = {}  # boot -> id
        self._gone: dict[str, float] = {}  # boots of workers that had gone, and when that was seen

    def likely_queue(self, id: str, queue: str | None) -> str | None:
        """Where to look first: the memory knows better than a hint."""
        return self._queue_cache.get(id) or queue

    def statuses(self, ids: Sequence[str], queue: str | None = None) -> list[StatusRecord | None]:
        """`queue`: where they are likely to be; they are found wherever they are."""
        wanted = list(dict.fromkeys(ids))
        likely: dict[str, list[str]] = {}
        for id in wanted:
            if where := self.likely_queue(id, queue):
                likely.setdefault(where, []).append(id)
        found = self._read([*likely.items()])
        searched: Sequence[str] = ()
        for fresh in (False, True):
            missing = [id for id in wanted if id not in found]
            if missing:
                queues = [each for each in self._registry.known(fresh) if each not in searched]
                found |= self._read([(each, missing) for each in queues], () if fresh else missing)
                searched = queues
        named = self._with_worker_ids(found)
        return [named.get(id) for id in ids]

    def in_queues(self, places: Sequence[tuple[str, Sequence[str]]]) -> dict[str, StatusRecord]:
        """Of ids in these queues, those that are there."""
        return self._with_worker_ids(self._read(places))

    def _read(self, places: Sequence[tuple[str, Sequence[str]]], groups: Sequence[str] = ()) -> dict[str, StatusRecord]:
        """One round trip to each node."""
        batches = [(queue, ids[start : start + BATCH]) for queue, ids in places for start in range(0, len(ids), BATCH)]
        calls = [ScriptCall("status", queue_key(queue), tuple(ids)) for queue, ids in batches]
        answers = self._client.run([*calls, *(canvas.read_group(id) for id in groups)])
        found: dict[str, StatusRecord] = {}
        for (queue, ids), answer in zip(batches, answers, strict=False):
            here = {id: _record(id, queue, seen) for id, seen in zip(ids, answer, strict=True) if seen is not None}
            self._queue_cache.put(here, queue)
            found |= here
        for id, answer in zip(groups, answers[len(batches) :], strict=True):
            if (group := canvas.record(id, answer)) is not None:
                found[id] = group
        return found

    def _with_worker_ids(self, found: dict[str, StatusRecord]) -> dict[str, StatusRecord]:
        """A task knows the boot that held it; people know workers by their ids."""
        boots = {record.worker_id for record in found.values() if record.worker_id is not None}
        now = time.monotonic()
        unknown = {boot for boot in boots if boot not in self._workers and now - self._gone.get(boot, -GONE) >= GONE}
        if unknown:
            known = self._boots(unknown)
            if len(self._workers) + len(self._gone) > REMEMBERED:
                self._workers, self._gone = {}, {}
            self._workers |= known
            self._gone |= dict.fromkeys(unknown - known.keys(), now)
        return {id: self._with_worker_id(record) for id, record in found.items()}

    def _with_worker_id(self, record: StatusRecord) -> StatusRecord:
        name = self._workers.get(record.worker_id or "")
        return record if name is None else msgspec.structs.replace(record, worker_id=name)


# -- a record as people see it -------------------------------------------------------------------------------------------------------


def _record(id: str, queue: str, seen: bytes | list[bytes]) -> StatusRecord:
    try:
        return ended(id, queue, seen) if isinstance(seen, bytes) else live(id, queue, Live._make(seen))
    except DAMAGE:
        log_corrupt(f"what is stored of task {id} in queue {queue}")
        return StatusRecord(id=id, name="", queue=queue, **unreadable(seen))


class Live(NamedTuple):
    """What the slot knows of a task that has not ended, a field each; None where there is nothing."""

    record: bytes
    lease: bytes | None  # "boot sequence started [visibility]"
    redeliveries: bytes | None
    note: bytes | None
    progress: bytes | None
    why: bytes | None  # frames: reason, error
    waits: int
    due: bytes | None
    begun: bytes | None


def live(id: str, queue: str, seen: Live) -> StatusRecord:
    """Queued, retried or running. The worker is named by its boot."""
    stored = parsed(seen.record)
    args = None
    try:
        envelope = laid_over(decode(stored.body), None, seen.begun)
        args = bytes(envelope.args)
    except Undecodable:
        envelope = Envelope(id=id, name="", args=NO_ARGS, queue=queue)
    reason, error = frames(seen.why)[:2] if seen.why else (b"", b"")
    boot = started_at = None
    if seen.lease is not None:
        words = seen.lease.decode().split(" ")
        boot, started_at = words[0], float(words[2])
    why = "waiting" if seen.waits else None if seen.lease else reason.decode() or None
    due = stored.due if seen.due is None else float(seen.due)
    return StatusRecord(
        id=id,
        name=envelope.name,
        queue=queue,
        state=TaskState.RUNNING if seen.lease is not None else TaskState.RETRIED if envelope.attempt else TaskState.QUEUED,
        reason=why,
        run=envelope.run,
        attempt=envelope.attempt,
        redeliveries=int(seen.redeliveries or 0),
        error=unpack_error(error),
        progress=unpack_progress(seen.progress) if seen.progress else None,
        meta=unpack_meta(seen.note) if seen.note else envelope.meta,
        enqueued_at=envelope.enqueued_at or None,
        not_before=None if seen.lease or seen.waits or why in LIMITS else due,
        started_at=started_at,
        worker_id=boot,
        parent_id=envelope.parent_id,
        root_id=envelope.root_id,
        args=args,
        attempts=envelope.attempts,
        ready_at=envelope.ready_at,
    )


def unreadable(seen: bytes | list[Any]) -> dict[str, Any]:
    """What can be said of a task all the same."""
    if isinstance(seen, bytes):
        return {"state": TaskState.FAILED, "reason": UNREADABLE}
    return {"state": TaskState.RUNNING if Live._make(seen).lease is not None else TaskState.QUEUED}


def ended(id: str, queue: str, data: bytes) -> StatusRecord:
    """`data`: the value of `P:s:<id>`; whether it still counts (`until`) is the script's to say. The worker is named by its boot."""
    state, _, finished, started_at, redeliveries, _ = _STATUS.unpack_from(data)
    token, begun, head, reason, error, result, meta, progress = frames(data, _STATUS.size)
    envelope = laid_over(decode(head), None, begun)
    return StatusRecord(
        id=id,
        name=envelope.name,
        queue=queue,
        state=STATES[state],
        reason=reason.decode() or None,
        run=envelope.run,
        attempt=envelope.attempt,
        redeliveries=redeliveries,
        result=result or None,
        error=unpack_error(error),
        progress=unpack_progress(progress) if progress else None,
        meta=unpack_meta(meta) if meta else envelope.meta,
        enqueued_at=envelope.enqueued_at or None,
        started_at=started_at or None,
        finished_at=finished,
        worker_id=token.decode().partition(" ")[0] or None,
        parent_id=envelope.parent_id,
        root_id=envelope.root_id,
        args=bytes(envelope.args) if kept_as(token) else None,
        attempts=envelope.attempts,
        ready_at=envelope.ready_at,
    )


class Kept(NamedTuple):
    """What a status says of the run that it ended: the envelope with all that was laid over it, and whether that is a part of a canvas."""

    envelope: Envelope | None  # None: an older worker kept none
    part: bool


def kept(data: bytes) -> Kept:
    """Raises what `DAMAGE` names for a status that cannot be read."""
    token, begun, head, *_, meta, _ = frames(data, _STATUS.size)
    form = kept_as(token)
    return Kept(laid_over(decode(head), meta, begun) if form else None, form == "part")


def kept_as(token: bytes) -> str | None:
    """The third word of a status's token: "task" or "part", None where its envelope is not whole."""
    word = token.decode().rpartition(" ")[2]
    return word if word in ("task", "part") else None


# -- counts --------------------------------------------------------------------------------------------------------------------------


def queues(client: RedisClient, registry: QueueRegistry, dead_letter_ttl: float) -> list[QueueCount]:
    """Those that hold something."""
    names = registry.known(fresh=True)
    answers = client.run([ScriptCall("count", queue_key(name), (dead_letter_ttl,)) for name in names])
    return [
        QueueCount(name=name, queued=max(0, answer[0]), delayed=answer[1], running=answer[2], dead=answer[3])
        for name, answer in zip(names, answers, strict=True)
        if any(answer)
    ]


def unfinished(client: RedisClient, registry: QueueRegistry, limit: int) -> list[bytes]:
    """The envelopes of what waits or runs, encoded, oldest first; what cannot be read is left out."""
    found: dict[str, tuple[float, bytes]] = {}
    for name in registry.known(fresh=True):
        cursor = b"0"
        while len(found) < limit:
            cursor, *seen = client.call("unfinished", queue_key(name), cursor, BATCH)
            for record, note, begun in seen:
                body = body_of(record, note, begun)
                with suppress(Undecodable):
                    envelope = decode(body)
                    found[envelope.id] = envelope.enqueued_at, body  # by id: a scan may show one twice
            if cursor == b"0":
                break
    ordered = sorted(found.items(), key=lambda each: (each[1][0], each[0]))  # ids of one instant are in order, too
    return [body for _, (_, body) in ordered[:limit]]
