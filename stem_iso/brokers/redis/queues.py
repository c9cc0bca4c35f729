"""Registry of queues: a sorted set of names, each with the time until which it is kept.

    producer, before its first publish to a queue ──┐
    worker, with its beats ─────────────────────────┴─> ZADD GT until ──> read by whoever looks for a bare id, counts, or sweeps

Rules
 1. A name is durable before the first envelope in its queue, hence a call of its own and not one more in the publish's pipeline: in a
    cluster they lie on two nodes, and a producer may die between them.
 2. Who uses a queue says so once a minute. A name that nobody has used for a week is dropped by `sweep`, and only where its queue is empty.
 3. Said again behind every new connection: the server may have died, or been followed by another, and have kept nothing.
 4. The clock is the server's.

Not promised: that a bare id whose result outlives its queue's last use by more than a week is still found without naming the queue.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from stem_iso.brokers.redis.client.client import Command, Links, ScriptCall
from stem_iso.brokers.redis.keys import REGISTRY

LIFE = 7 * 86_400.0  # seconds
SAID_EVERY = 60.0
READ_EVERY = 1.0


class Registry:
    """One per broker, used by its thread."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._said: dict[str, float] = {}  # queue -> when it was said last, monotonic
        self._connected = links.connected
        self._known: list[str] = []
        self._read_at = -READ_EVERY

    def announce(self, queues: Collection[str]) -> None:
        """These are in use. Silent where that was said within the minute."""
        now = time.monotonic()
        if self._connected != self._links.connected:
            self._connected, self._said = self._links.connected, {}
        unsaid = [queue for queue in queues if now - self._said.get(queue, -SAID_EVERY) >= SAID_EVERY]
        if not unsaid:
            return
        self._links.run([ScriptCall("register", REGISTRY, (LIFE, *unsaid))])
        self._connected = self._links.connected
        self._said |= dict.fromkeys(unsaid, now)
        if not set(unsaid) <= set(self._known):
            self._read_at = -READ_EVERY

    def known(self, fresh: bool = False) -> list[str]:
        """All names, sorted; a second old at most, and as of now where they are wanted `fresh`."""
        now = time.monotonic()
        if fresh or now - self._read_at >= READ_EVERY:
            (names,) = self._links.run([Command(REGISTRY, ("ZRANGE", REGISTRY, 0, -1))])
            self._known, self._read_at = sorted(name.decode() for name in names), now
        return self._known

    def stale(self) -> list[str]:
        """Those that nobody has used for long."""
        return [name.decode() for name in self._links.call("stale", REGISTRY)]

    def drop(self, queues: Sequence[str]) -> int:
        """Those of them that are still stale."""
        if not queues:
            return 0
        self._read_at = -READ_EVERY
        for queue in queues:
            self._said.pop(queue, None)
        dropped: int = self._links.call("unregister", REGISTRY, *queues)
        return dropped
