"""Registry of queues: a sorted set of names, each with the time until which it is kept.

    producer, before its first publish to a queue ──┐
    worker, with its beats ─────────────────────────┴─> ZADD GT until ──> read by whoever looks for a bare id, counts, or sweeps

Rules
 1. A name is durable before the first envelope in its queue, hence a call of its own and not one more in the publish's pipeline: in a
    cluster they lie on two nodes, and a producer may die between them.
 2. Who uses a queue registers it once a minute. A name that nobody has used for a week is dropped by `sweep`, and only where its queue is
    empty.
 3. It is registered again after every new connection: the server may have died, or been followed by another, and have kept nothing.
 4. The clock is the server's.

Not promised: that a bare id whose result outlives its queue's last use by more than a week is still found without naming the queue.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall, ServerCommand
from stem_iso.brokers.redis.keys import REGISTRY

LIFE = 7 * 86_400.0  # seconds
REGISTER_EVERY = 60.0
READ_EVERY = 1.0


class QueueRegistry:
    """One per broker, used by its thread."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._registered: dict[str, float] = {}  # queue -> when that was done last, monotonic
        self._connected = client.connected
        self._known: list[str] = []
        self._read_at = -READ_EVERY

    def register(self, queues: Collection[str]) -> None:
        """These are in use. Nothing is sent where that was done within the minute."""
        now = time.monotonic()
        if self._connected != self._client.connected:
            self._connected, self._registered = self._client.connected, {}
        due = [queue for queue in queues if now - self._registered.get(queue, -REGISTER_EVERY) >= REGISTER_EVERY]
        if not due:
            return
        self._client.run([ScriptCall("register_queues", REGISTRY, (LIFE, *due))])
        self._connected = self._client.connected
        self._registered |= dict.fromkeys(due, now)
        if not set(due) <= set(self._known):
            self._read_at = -READ_EVERY

    def known(self, fresh: bool = False) -> list[str]:
        """All names, sorted; a second old at most, and as of now where they are wanted `fresh`."""
        now = time.monotonic()
        if fresh or now - self._read_at >= READ_EVERY:
            (names,) = self._client.run([ServerCommand(REGISTRY, ("ZRANGE", REGISTRY, 0, -1))])
            self._known, self._read_at = sorted(name.decode() for name in names), now
        return self._known

    def unused_for(self) -> dict[str, float]:
        """Each name -> for how many seconds, to the minute, nobody has used it."""
        words = ServerCommand(REGISTRY, ("ZRANGE", REGISTRY, 0, -1, "WITHSCORES")), ServerCommand(REGISTRY, ("TIME",))
        names, (seconds, _) = self._client.run(words)
        return {name.decode(): int(seconds) - (float(until) - LIFE) for name, until in zip(names[::2], names[1::2], strict=True)}

    def stale(self) -> list[str]:
        """Those that nobody has used for long."""
        return [name.decode() for name in self._client.call("unused_queues", REGISTRY)]

    def drop(self, queues: Sequence[str]) -> int:
        """Those of them that are still stale."""
        if not queues:
            return 0
        self._read_at = -READ_EVERY
        for queue in queues:
            self._registered.pop(queue, None)
        dropped: int = self._client.call("drop_queues", REGISTRY, *queues)
        return dropped
