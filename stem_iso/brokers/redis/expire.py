"""Expiry: dead letters, places in lists of what has expired, and the names of queues that are no longer used, are dropped.

Statuses, locks, counts and rung lists expire in the server by themselves; what somebody left in an outbox is handed on by `reclaim`.
"""

from __future__ import annotations

from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall
from stem_iso.brokers.redis.keys import queue_key
from stem_iso.brokers.redis.queues import QueueRegistry


def sweep(client: RedisClient, registry: QueueRegistry, dead_letter_ttl: float) -> int:
    """How many were dropped: a bounded number of each queue."""
    swept: int = sum(client.run([ScriptCall("sweep", queue_key(name), (dead_letter_ttl,)) for name in registry.known()]))
    return swept + _unused(client, registry)


def _unused(client: RedisClient, registry: QueueRegistry) -> int:
    """A queue that holds something stays known, however long nobody has used it."""
    stale = registry.stale()
    empty = client.run([ScriptCall("drop_if_empty", queue_key(name)) for name in stale])
    registry.register([name for name, nothing in zip(stale, empty, strict=True) if not nothing])
    return registry.drop([name for name, nothing in zip(stale, empty, strict=True) if nothing])
