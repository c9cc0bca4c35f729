"""Counts of what happened to tasks: a hash for each queue and minute, in the slot of the queue, which expires after a day.

    publish, compose, fire ── in their scripts ──> enqueued          workers, once a second ── add_counts ──> all else
    counts ── each minute of each queue ──> TaskCounts, one for each name

A field is a word and the name of the task: "succeeded thumbs.make"; "w-12 thumbs.make", "r7 thumbs.make": a bin of its waits, of its runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from stem_iso.brokers.operations import COUNTED, COUNTS_LIFE, TaskCounts
from stem_iso.brokers.redis.corrupt_records import DAMAGE, log_corrupt, text
from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall, ServerCommand
from stem_iso.brokers.redis.keys import REGISTRY, queue_key
from stem_iso.brokers.redis.queues import QueueRegistry

MINUTE = 60
BATCH = 500  # fields of one script, minutes of one round trip
_bin = re.compile(r"([wr])(-?\d{1,4})")


def add(client: RedisClient, registry: QueueRegistry, counts: Sequence[TaskCounts]) -> None:
    queues: dict[str, list[str | int]] = {}
    for each in counts:
        words = queues.setdefault(each.queue, [])
        for name, count in _fields(each):
            words += (each.minute, name, count)
    calls = [
        ScriptCall("add_counts", queue_key(queue), (os.urandom(8).hex(), *words[start : start + 3 * BATCH]))
        for queue, words in queues.items()
        for start in range(0, len(words), 3 * BATCH)
    ]
    registry.register(queues)
    client.run(calls)


def _fields(of: TaskCounts) -> Iterator[tuple[str, int]]:
    for word, count in of.counts.items():
        if word != "enqueued":  # which the store counts
            yield f"{word} {of.name}", count
    for letter, bins in (("w", of.wait), ("r", of.run)):
        for bin, count in bins.items():
            yield f"{letter}{bin} {of.name}", count


# -- read -------------------------------------------------------------------------------------------------------------------------------


def read(client: RedisClient, registry: QueueRegistry, since: int, until: int, queue: str | None, name: str | None) -> list[TaskCounts]:
    queues = registry.known(fresh=True) if queue is None else [queue]
    now = int(client.command(REGISTRY, "TIME")[0]) // MINUTE
    first, last = max(since, now - int(COUNTS_LIFE) // MINUTE), min(until, now + MINUTE)  # there is nothing before and after that
    places = sorted(_counted(client, queues, first, last))
    found: list[TaskCounts] = []
    for start in range(0, len(places), BATCH):
        some = places[start : start + BATCH]
        answers = client.run([_minute(each, minute) for minute, each in some])
        for (minute, each), answer in zip(some, answers, strict=True):
            found += _read(each, minute, answer, name)
    return found


def _counted(client: RedisClient, queues: Sequence[str], first: int, last: int) -> Iterator[tuple[int, str]]:
    """Minutes of queues in which there is something."""
    spans = [(each, start, min(last, start + BATCH - 1)) for start in range(first, last + 1, BATCH) for each in queues]
    answers = client.run([ScriptCall("counted_minutes", queue_key(each), (start, end)) for each, start, end in spans])
    for (each, _, _), minutes in zip(spans, answers, strict=True):
        yield from ((int(minute), each) for minute in minutes)


def _minute(queue: str, minute: int) -> ServerCommand:
    key = queue_key(queue)
    return ServerCommand(key, ("HGETALL", f"{key}:qc:{minute}"))


@dataclass(slots=True)
class _Sums:
    counts: dict[str, int] = field(default_factory=dict)
    wait: dict[int, int] = field(default_factory=dict)
    run: dict[int, int] = field(default_factory=dict)


def _read(queue: str, minute: int, answer: Sequence[bytes], wanted: str | None) -> Iterator[TaskCounts]:
    """By name."""
    names: dict[str, _Sums] = {}
    for key, value in zip(answer[::2], answer[1::2], strict=True):
        try:
            word, _, name = key.decode().partition(" ")
            if wanted in (None, name):
                _put(names.setdefault(name, _Sums()), word, int(value))
        except DAMAGE:
            log_corrupt(f"the count {text(key)} of queue {queue}")
    for name in sorted(names):
        sums = names[name]
        yield TaskCounts(queue=queue, name=name, minute=minute, counts=sums.counts, wait=sums.wait, run=sums.run)


def _put(sums: _Sums, word: str, count: int) -> None:
    """A word of a newer version is left out."""
    if word in COUNTED:
        sums.counts[word] = count
    elif match := _bin.fullmatch(word):
        (sums.wait if match[1] == "w" else sums.run)[int(match[2])] = count
