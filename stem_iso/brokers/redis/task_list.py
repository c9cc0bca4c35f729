"""Lists of tasks: those of each queue lie in its slot, by when they arrived; a page is merged of them.

    slot    qa those alive · qr of these, those that had an attempt · q3 q4 q5 those that ended, by state        place = microseconds, id
    step    heads (place, id) of each slot ── merge as far as every slot was looked at ──> the chosen ── sizes, bodies ──> page

Rules
 1. The lists are hints, and what lies in the slot is the truth: what is not there any more, or in another state, is left out.
 2. A slot is looked at in one script over all of its lists, so a task that moves from one to another is in one of them. Each place in the
    order is looked at in one step; the next begins behind it.
 3. A look is bounded (LOOK), and so are the looks of a step (STEP) and the bytes of a page (PAGE_BYTES): then the page is a short one.
 4. The position is the place and the id as text. It stays the task's own: what ends, runs again or is edited takes its place along.

Not promised: tasks that only older producers and workers have touched; by time, where the lists are long, what came more than ten minutes
after it was enqueued (`until`) or before (`since`, a clock that is so far ahead).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from stem_iso.brokers.base import StatusRecord
from stem_iso.brokers.operations import ListedTask, TaskFilter, TaskList
from stem_iso.brokers.redis.corrupt_records import text
from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall
from stem_iso.brokers.redis.keys import queue_key
from stem_iso.brokers.redis.queues import QueueRegistry
from stem_iso.brokers.redis.status import StatusReader
from stem_iso.outcome import TaskState

LOOK, DETAILED = 300, 150  # tasks in one look of a slot, and where each is to be read for its name
STEP = 3000, 1500  # tasks in all looks of a step
PAGE_BYTES = 4 << 20
SPARE = 600.0  # seconds that a producer's clock may be ahead, or a task late
MICROSECONDS = 1_000_000
HEAD = 4  # words

LIVE = {"queued": 1, "delayed": 2, "running": 4, "retried": 8}
ENDED = {"succeeded": "3", "failed": "4", "cancelled": "5"}
EVERYTHING = "a345"

_position = re.compile(r"([0-9]{1,17})(?:-(.+)|:((?:[0-9a-f]{2})+))", re.DOTALL)


class Place(NamedTuple):
    """In the one order of all tasks."""

    at: int
    id: bytes

    @property
    def position(self) -> str:
        try:
            return f"{self.at}-{self.id.decode()}"
        except UnicodeDecodeError:  # damaged: it is shown to nobody, but a list goes on behind it
            return f"{self.at}:{self.id.hex()}"


class Head(NamedTuple):
    place: Place
    queue: str
    name: str
    enqueued_at: float | None


def place_of(position: str) -> Place:
    """Raises ValueError."""
    match = _position.fullmatch(position)
    if match is None:
        raise ValueError(f"{position!r} is no position in a list of tasks")
    return Place(int(match[1]), bytes.fromhex(match[3]) if match[3] else match[2].encode())


class Lists(NamedTuple):
    """What a slot is asked for: its lists, and of those alive a sum of LIVE."""

    names: str
    live: int

    @classmethod
    def of(cls, which: TaskFilter) -> Lists:
        if which.states is None:
            return cls(EVERYTHING, 15)
        live = sum(LIVE.get(state, 0) for state in set(which.states))
        ended = "".join(ENDED.get(state, "") for state in sorted(set(which.states)))
        return cls(("a" if live else "") + ended, live)


# -- one slot ---------------------------------------------------------------------------------------------------------------------------


class _Slot:
    """A slot within one step."""

    def __init__(self, queue: str, after: Place | None) -> None:
        self.queue = queue
        self.heads: deque[Head] = deque()
        self.upto = after  # how far it was looked at; None: not at all
        self.done = False

    @property
    def needs_look(self) -> bool:
        return not self.heads and not self.done

    def take(self, answer: Sequence[bytes | list[bytes]], fits: Callable[[Head], bool]) -> None:
        looked, words = answer[0], answer[1:]
        if looked:
            self.upto = _place(*looked)
        else:
            self.done = True
        for place, id, name, enqueued in zip(*[iter(words)] * HEAD, strict=True):
            assert isinstance(place, bytes) and isinstance(id, bytes) and isinstance(name, bytes) and isinstance(enqueued, bytes)
            head = Head(_place(place, id), self.queue, name.decode(errors="replace"), float(enqueued) if enqueued else None)
            if fits(head):
                self.heads.append(head)


def _place(at: bytes, id: bytes) -> Place:
    return Place(round(float(at)), id)


def merged(slots: Sequence[_Slot], limit: int, newest_first: bool) -> list[Head]:
    """The next of all slots, in order, as far as each was looked at; they are taken out of them."""
    first = max if newest_first else min
    found: list[Head] = []
    while len(found) < limit:
        if any(slot.needs_look and slot.upto is None for slot in slots):
            break
        full = [slot for slot in slots if slot.heads]
        if not full:
            break
        best = first(full, key=lambda slot: slot.heads[0].place)
        place = best.heads[0].place
        borders = [slot.upto for slot in slots if slot.needs_look and slot.upto is not None]
        if borders and first([place, *borders]) != place:
            break
        found.append(best.heads.popleft())
    return found


# -- a step -----------------------------------------------------------------------------------------------------------------------------


class TaskLister:
    """One per broker, used by its thread."""

    def __init__(self, client: RedisClient, registry: QueueRegistry, statuses: StatusReader) -> None:
        self._client, self._registry, self._statuses = client, registry, statuses

    def list_tasks(self, which: TaskFilter, limit: int, after: str | None, newest_first: bool) -> TaskList:
        behind = None if after is None else place_of(after)
        if not Lists.of(which).names:
            return TaskList([])
        queues = self._registry.known(fresh=True) if which.queue is None else [which.queue]
        slots = [_Slot(queue, behind) for queue in queues]
        chosen = self._chosen(slots, which, limit, newest_first)
        read = self._readable(chosen)
        found = self._listed(chosen[:read], which)
        if read < len(chosen):
            return TaskList(found, chosen[read - 1].place.position)
        return TaskList(found, self._next(slots, chosen, limit, newest_first))

    def _chosen(self, slots: Sequence[_Slot], which: TaskFilter, limit: int, newest_first: bool) -> list[Head]:
        lists, details = Lists.of(which), _details(which)
        most = min(DETAILED if details else LOOK, max(10, 2 * limit // max(1, len(slots))))
        chosen: list[Head] = []
        left = max(STEP[1 if details else 0], most * len(slots))
        while len(chosen) < limit and left > 0:
            empty = [slot for slot in slots if slot.needs_look]
            if empty:
                calls = [_look(slot, which, lists, newest_first, most) for slot in empty]
                for slot, answer in zip(empty, self._client.run(calls), strict=True):
                    slot.take(answer, lambda head: not details or _within(head.name, head.enqueued_at, which))
                left -= most * len(empty)
            chosen += merged(slots, limit - len(chosen), newest_first)
            if all(slot.done and not slot.heads for slot in slots):
                break
        return chosen

    def _next(self, slots: Sequence[_Slot], chosen: Sequence[Head], limit: int, newest_first: bool) -> str | None:
        if all(slot.done and not slot.heads for slot in slots):
            return None
        if len(chosen) == limit:
            return chosen[-1].place.position
        borders = [slot.upto for slot in slots if slot.needs_look and slot.upto is not None]
        return (max if newest_first else min)(borders).position if borders else None

    def _readable(self, chosen: Sequence[Head]) -> int:
        """How many of them make a page; one at least."""
        places = _by_queue(chosen)
        answers = self._client.run([ScriptCall("sizes", queue_key(queue), tuple(ids)) for queue, ids in places.items()])
        sizes = {
            (queue, id): size
            for (queue, ids), answer in zip(places.items(), answers, strict=True)
            for id, size in zip(ids, answer, strict=True)
        }
        total = 0
        for at, head in enumerate(chosen):
            total += sizes[head.queue, head.place.id]
            if at and total > PAGE_BYTES:
                return at
        return len(chosen)

    def _listed(self, chosen: Sequence[Head], which: TaskFilter) -> list[ListedTask]:
        records = self._statuses.in_queues([(queue, [text(id) for id in ids]) for queue, ids in _by_queue(chosen).items()])
        found = []
        for head in chosen:
            record = records.get(text(head.place.id))
            if record is not None and record.queue == head.queue and matches(record, which):
                found.append(ListedTask(head.place.position, record))
        return found


def _look(slot: _Slot, which: TaskFilter, lists: Lists, newest_first: bool, most: int) -> ScriptCall:
    at, id = ("", b"") if slot.upto is None else (str(slot.upto.at), slot.upto.id)
    low = "-inf" if which.since is None else str(max(0, int((which.since - SPARE) * MICROSECONDS)))
    high = "+inf" if which.until is None else str(max(0, int((which.until + SPARE) * MICROSECONDS)))
    return ScriptCall("list", queue_key(slot.queue), (int(newest_first), at, id, low, high, most, lists.names, lists.live, _details(which)))


def _details(which: TaskFilter) -> int:
    """What each head must say: 0 nothing more, 1 its name, 2 when it was enqueued too."""
    if which.since is not None or which.until is not None:
        return 2
    return int(which.name is not None)


def _within(name: str, enqueued_at: float | None, which: TaskFilter) -> bool:
    if which.name is not None and not fnmatchcase(name, which.name):
        return False
    if which.since is not None and (enqueued_at is None or enqueued_at < which.since):
        return False
    return which.until is None or (enqueued_at is not None and enqueued_at <= which.until)


def matches(record: StatusRecord, which: TaskFilter) -> bool:
    """Whether it is still one that is meant; where it waits, its head has said how."""
    if not _within(record.name, record.enqueued_at, which):
        return False
    if which.states is None:
        return True
    if record.state.terminal or record.state is TaskState.RUNNING:
        return record.state.value in which.states
    return not {"queued", "delayed", "retried"}.isdisjoint(which.states)


def _by_queue(heads: Sequence[Head]) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for head in heads:
        found.setdefault(head.queue, []).append(head.place.id)
    return found
