"""Status of tasks and counts of queues: questions that change nothing.

    ids ── asked where they are thought to be ──> every known queue, and the id's own slot (a group) ──> queues that came meanwhile
           a hint, or the memory of this broker     one pipelined round trip per node

A task's queue never changes while it is known, so what was once found is looked for there alone; not found there, everywhere. A status is
answered from the structure: record = queued, lease = running; only the end of a task is ever written.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set

import msgspec

from stem_iso.brokers.base import QueueCount, StatusRecord
from stem_iso.brokers.redis import canvas
from stem_iso.brokers.redis.client.client import Links, ScriptCall
from stem_iso.brokers.redis.corrupt_records import DAMAGE, say
from stem_iso.brokers.redis.keys import queue_key
from stem_iso.brokers.redis.queues import Registry
from stem_iso.brokers.redis.status_records import Live, ended, live, unreadable

REMEMBERED = 10_000
GONE = 1.0  # seconds for which a boot that no living worker has is not asked about again
BATCH = 500  # ids per call: no script runs for more than some milliseconds

Boots = Callable[[Set[str]], Mapping[str, str]]  # the ids of the workers that have these boots; who has gone is left out


class Memory:
    """Where tasks were seen, the newest of them."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, str] = OrderedDict()

    def seen(self, ids: Iterable[str], queue: str) -> None:
        for id in ids:
            self._queues[id] = queue
        while len(self._queues) > REMEMBERED:
            self._queues.popitem(last=False)

    def get(self, id: str) -> str | None:
        return self._queues.get(id)


class StatusReader:
    """One per broker, used by its thread."""

    def __init__(self, links: Links, registry: Registry, memory: Memory, boots: Boots) -> None:
        self._links, self._registry, self._memory, self._boots = links, registry, memory, boots
        self._workers: dict[str, str] = {}  # boot -> id
        self._nobody: dict[str, float] = {}  # boots of workers that had gone, and when that was seen

    def thought(self, id: str, queue: str | None) -> str | None:
        """Where to look first: the memory knows better than a hint."""
        return self._memory.get(id) or queue

    def statuses(self, ids: Sequence[str], queue: str | None = None) -> list[StatusRecord | None]:
        """`queue`: where they are thought to be; they are found wherever they are."""
        wanted = list(dict.fromkeys(ids))
        thought: dict[str, list[str]] = {}
        for id in wanted:
            if where := self.thought(id, queue):
                thought.setdefault(where, []).append(id)
        found = self._ask([*thought.items()])
        asked: Sequence[str] = ()
        for fresh in (False, True):
            missing = [id for id in wanted if id not in found]
            if missing:
                queues = [each for each in self._registry.known(fresh) if each not in asked]
                found |= self._ask([(each, missing) for each in queues], () if fresh else missing)
                asked = queues
        named = self._named(found)
        return [named.get(id) for id in ids]

    def _ask(self, places: Sequence[tuple[str, Sequence[str]]], groups: Sequence[str] = ()) -> dict[str, StatusRecord]:
        """One round trip to each node."""
        asks = [(queue, ids[start : start + BATCH]) for queue, ids in places for start in range(0, len(ids), BATCH)]
        calls = [ScriptCall("status", queue_key(queue), tuple(ids)) for queue, ids in asks]
        answers = self._links.run([*calls, *(canvas.ask(id) for id in groups)])
        found: dict[str, StatusRecord] = {}
        for (queue, ids), answer in zip(asks, answers, strict=False):
            here = {id: _record(id, queue, seen) for id, seen in zip(ids, answer, strict=True) if seen is not None}
            self._memory.seen(here, queue)
            found |= here
        for id, answer in zip(groups, answers[len(asks) :], strict=True):
            if (group := canvas.record(id, answer)) is not None:
                found[id] = group
        return found

    def _named(self, found: dict[str, StatusRecord]) -> dict[str, StatusRecord]:
        """A task knows the boot that held it; people know workers by their ids."""
        boots = {record.worker_id for record in found.values() if record.worker_id is not None}
        now = time.monotonic()
        unknown = {boot for boot in boots if boot not in self._workers and now - self._nobody.get(boot, -GONE) >= GONE}
        if unknown:
            known = self._boots(unknown)
            if len(self._workers) + len(self._nobody) > REMEMBERED:
                self._workers, self._nobody = {}, {}
            self._workers |= known
            self._nobody |= dict.fromkeys(unknown - known.keys(), now)
        return {id: self._signed(record) for id, record in found.items()}

    def _signed(self, record: StatusRecord) -> StatusRecord:
        name = self._workers.get(record.worker_id or "")
        return record if name is None else msgspec.structs.replace(record, worker_id=name)


def _record(id: str, queue: str, seen: bytes | list[bytes]) -> StatusRecord:
    try:
        return ended(id, queue, seen) if isinstance(seen, bytes) else live(id, queue, Live._make(seen))
    except DAMAGE:
        say(f"what is stored of task {id} in queue {queue}")
        return StatusRecord(id=id, name="", queue=queue, **unreadable(seen))


def queues(links: Links, registry: Registry, dead_letter_ttl: float) -> list[QueueCount]:
    """Those that hold something."""
    names = registry.known(fresh=True)
    answers = links.run([ScriptCall("counts", queue_key(name), (dead_letter_ttl,)) for name in names])
    return [
        QueueCount(name=name, queued=max(0, answer[0]), delayed=answer[1], running=answer[2], dead=answer[3])
        for name, answer in zip(names, answers, strict=True)
        if any(answer)
    ]
