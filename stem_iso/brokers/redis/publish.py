"""Publishing: envelopes into their queues, one script per queue and batch, all in one round trip.

Sent twice, nothing changes: an id that lives, or has ended within its tombstone's life, is left alone, and a unique lock that it holds is
answered as its own. So what was sent, and had no answer, is sent again as long as its caller is still within his five seconds; in the end
the error names the ids, with which the caller may do the same. Where nothing could be sent, it fails at once.
Each script's batch is stored whole or not at all; what goes to several queues, or is more than one batch, may be stored in part where the
server goes away under it. Who then publishes the same again, completes it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

from stem_iso.brokers.redis.driver.client import BUDGET, RedisClient, ScriptCall, round_trips
from stem_iso.brokers.redis.driver.connection import ConnectionLost
from stem_iso.brokers.redis.keys import queue_key
from stem_iso.brokers.redis.queues import QueueRegistry
from stem_iso.brokers.redis.records import record
from stem_iso.errors import BrokerUnavailable
from stem_iso.task.envelope import Envelope

BATCH, BATCH_BYTES = 2000, 8 << 20  # of one script: the server does nothing else meanwhile
ROUND_TRIP_BYTES = 32 << 20  # of one round trip
PATIENCE = 4.9  # seconds of a producer, who gets an answer within 5
SPARE, PAUSE = 0.8, 0.1  # the last of them are for one more try; between two tries that end early
NAMED = 3  # ids in a message


def publish(client: RedisClient, registry: QueueRegistry, pairs: Sequence[tuple[Envelope, bytes]]) -> list[str]:
    """Their ids, or those who hold their locks, in their order."""
    ids = [envelope.id for envelope, _ in pairs]
    queues = {envelope.queue for envelope, _ in pairs}
    register_queues(registry, queues, ids)
    connected = client.connected
    batches = _batches(pairs)
    answers: list[Any] = []
    for some in round_trips(batches, lambda batch: batch[0], ROUND_TRIP_BYTES):
        answers += send(client, [call for call, _ in some], ids, unsure=bool(answers))  # those of earlier round trips are stored
    if client.connected != connected:  # to a server that may have lost what it knew
        with suppress(BrokerUnavailable):  # they are stored: whoever uses the queue next registers it
            registry.register(queues)
    for (_, places), refused in zip(batches, answers, strict=True):
        for at in range(0, len(refused), 2):
            ids[places[int(refused[at])]] = refused[at + 1].decode()
    return ids


def register_queues(registry: QueueRegistry, queues: Collection[str], ids: Sequence[str]) -> None:
    """Register their queues as used. Nothing is published where that fails."""
    try:
        registry.register(queues)
    except BrokerUnavailable as error:
        raise BrokerUnavailable(f"no task was published; while their queues were registered: {error}", task_ids=ids) from error


def _batches(pairs: Sequence[tuple[Envelope, bytes]]) -> list[tuple[ScriptCall, list[int]]]:
    """Each with the places of its envelopes in the batch. One queue's batches keep their order."""
    found: list[tuple[ScriptCall, list[int]]] = []
    queues: dict[str, list[int]] = {}
    for place, (envelope, _) in enumerate(pairs):
        queues.setdefault(envelope.queue, []).append(place)
    for queue, places in queues.items():
        key, start, size = queue_key(queue), 0, 0
        for end, place in enumerate(places, 1):
            size += len(pairs[place][1])
            if end - start == BATCH or size >= BATCH_BYTES or end == len(places):
                batch = places[start:end]
                found.append((_call(key, [pairs[each] for each in batch]), batch))
                start, size = end, 0
    return found


def _call(key: str, pairs: Sequence[tuple[Envelope, bytes]]) -> ScriptCall:
    args: list[bytes | str | float] = []
    before, script = "", "publish"
    for envelope, body in pairs:
        life, name = envelope.unique_for, envelope.name
        args += (envelope.id, record(envelope, body), "" if life is None else life, "" if name == before else name)
        before = name
        if envelope.lock is not None:
            script = "publish_locked"
    return ScriptCall(script, key, tuple(args))


def send(client: RedisClient, calls: Sequence[ScriptCall], ids: Sequence[str], canvas: bool = False, unsure: bool = False) -> list[Any]:
    """What they are answered; asked again while nobody knows whether they were done. Raises BrokerUnavailable, which says how to go on.

    `unsure`: some of `ids` may be stored already.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return client.run(calls, min(BUDGET, max(SPARE, until - time.monotonic() - SPARE)))
        except BrokerUnavailable as error:
            unsure = unsure or error.unsure
            refused = not isinstance(error.__cause__, ConnectionLost)  # which is an answer: asking again brings the same
            if refused or not unsure or time.monotonic() + PAUSE > until - PAUSE:
                how = f"; {_how_to_go_on(ids, canvas)}" if unsure else ""
                raise BrokerUnavailable(f"{error}{how}", unsure=unsure, task_ids=ids) from error
        time.sleep(PAUSE)


def _how_to_go_on(ids: Sequence[str], canvas: bool) -> str:
    if canvas:
        return f"it may be stored or not: app.canvas({ids[0]!r}) finds it, or says that it was never enqueued"
    named = ", ".join(map(repr, ids[:NAMED])) + (f" and {len(ids) - NAMED} more (`task_ids`)" if len(ids) > NAMED else "")
    what = f"task {named} may be stored" if len(ids) == 1 else f"tasks {named} may be stored, all or some,"
    return f"{what} or not: enqueue the same again with the same task_id, which makes no second one"
