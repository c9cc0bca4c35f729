"""Envelopes into their queues, one script per queue and bite, all in one round trip.

Sent twice, nothing changes: an id that lives, or has ended within its tombstone's life, is left alone, and a unique lock that it holds is
answered as its own. So a batch whose answer was lost is sent once more, as long as its caller is still within his five seconds.
Each bite is whole or not at all; a batch over several queues, or of more than a bite, may be stored in part where the server goes away
under it. Who then publishes it again, completes it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from stem_iso.brokers.redis.keys import queue_key
from stem_iso.brokers.redis.links import Call, Links
from stem_iso.brokers.redis.records import record
from stem_iso.brokers.redis.registry import Registry
from stem_iso.brokers.redis.rounds import in_rounds
from stem_iso.errors import BrokerUnavailable
from stem_iso.task.envelope import Envelope

BITE, BITE_BYTES = 2000, 8 << 20  # of one script: the server does nothing else meanwhile
ROUND_BYTES = 32 << 20  # of one round trip
AGAIN = 0.5  # seconds: a refusal that came sooner leaves time for a second try


def publish(links: Links, registry: Registry, pairs: Sequence[tuple[Envelope, bytes]]) -> list[str]:
    """Their ids, or those who hold their locks, in their order."""
    ids = [envelope.id for envelope, _ in pairs]
    queues = {envelope.queue for envelope, _ in pairs}
    registry.announce(queues)
    bites = _bites(pairs)
    answers = [
        answer for some in in_rounds(bites, lambda bite: bite[0], ROUND_BYTES) for answer in _sent(links, [call for call, _ in some])
    ]
    with suppress(BrokerUnavailable):  # they are stored: whoever uses the queue next says its name
        registry.announce(queues)  # asks nothing, unless we had to connect anew, to a server that may have lost what it was told
    for (_, places), refused in zip(bites, answers, strict=True):
        for at in range(0, len(refused), 2):
            ids[places[int(refused[at])]] = refused[at + 1].decode()
    return ids


def _bites(pairs: Sequence[tuple[Envelope, bytes]]) -> list[tuple[Call, list[int]]]:
    """Each with the places of its envelopes in the batch. One queue's bites keep their order."""
    found: list[tuple[Call, list[int]]] = []
    queues: dict[str, list[int]] = {}
    for place, (envelope, _) in enumerate(pairs):
        queues.setdefault(envelope.queue, []).append(place)
    for queue, places in queues.items():
        args: list[bytes | str | float] = []
        bite: list[int] = []
        size = 0
        for place in places:
            envelope, body = pairs[place]
            args += (envelope.id, record(envelope, body), "" if envelope.unique_for is None else envelope.unique_for)
            bite.append(place)
            size += len(body)
            if len(bite) == BITE or size >= BITE_BYTES:
                found.append((Call("publish", queue_key(queue), tuple(args)), bite))
                args, bite, size = [], [], 0
        if bite:
            found.append((Call("publish", queue_key(queue), tuple(args)), bite))
    return found


def _sent(links: Links, calls: Sequence[Call]) -> list[list[bytes]]:
    began = time.monotonic()
    try:
        return links.run(calls)
    except BrokerUnavailable:
        if time.monotonic() - began > AGAIN:
            raise
    return links.run(calls)
