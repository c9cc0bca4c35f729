"""Buckets of limits that are in use: a sorted set of their names beside the registry of queues, and a look at each.

    acquire ── at most once a minute for a bucket ──> ZADD GT until ──> limit_states ──> each bucket's own slot
                                                       └── sweep drops those that nobody has asked for an hour

Not promised: buckets that only older workers ask.
"""

from __future__ import annotations

import time

from stem_iso.brokers.operations import LimitState
from stem_iso.brokers.redis.corrupt_records import DAMAGE, log_corrupt, text
from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall
from stem_iso.brokers.redis.keys import REGISTRY, bucket_key

NAMES = f"{REGISTRY}:b"
LIFE = 3600.0  # seconds; who stands in a line asks again sooner
REGISTER_EVERY = 60.0
REMEMBERED = 10_000
BATCH = 500


class BucketRegistry:
    """One per broker, used by its thread."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._registered: dict[str, float] = {}  # bucket -> when that was done last, monotonic
        self._connected = client.connected

    def due(self, bucket: str) -> list[ScriptCall]:
        """The call that registers it, to be sent with another one; none where that was done within the minute."""
        now = time.monotonic()
        if self._connected != self._client.connected or len(self._registered) > REMEMBERED:
            self._connected, self._registered = self._client.connected, {}
        if now - self._registered.get(bucket, -REGISTER_EVERY) < REGISTER_EVERY:
            return []
        self._registered[bucket] = now
        return [ScriptCall("register_queues", NAMES, (LIFE, bucket))]

    def states(self, most: int) -> list[LimitState]:
        names = sorted(self._client.command(NAMES, "ZRANGE", NAMES, 0, -1))
        found: list[LimitState] = []
        for start in range(0, len(names), BATCH):
            some = names[start : start + BATCH]
            answers = self._client.run([ScriptCall("bucket", bucket_key(text(name)), ("read",)) for name in some])
            found += [_state(text(name), answer) for name, answer in zip(some, answers, strict=True) if answer]
            if len(found) >= most:
                break
        return found[:most]

    def sweep(self) -> None:
        stale = self._client.call("unused_queues", NAMES)
        if stale:
            self._client.call("drop_queues", NAMES, *stale)


def _state(bucket: str, answer: list[bytes | int]) -> LimitState:
    count, period, most, running, waiting = answer
    try:
        set_ = int(count), float(period), int(most) or None
    except DAMAGE:
        log_corrupt(f"the limits of bucket {bucket}")
        set_ = 0, 0.0, None
    return LimitState(bucket=bucket, count=set_[0], period=set_[1], concurrency=set_[2], running=int(running), waiting=int(waiting))
