"""Event log: events of all workers for those who listen, in one stream of one slot, gone by itself when nobody writes any more.

    emit ── somebody listens? ──> a stream, 10,000 long, a minute old ── XREAD BLOCK ──> RedisEventStream
                └ nobody ─> dropped                                     renewed every 3 s, forgotten after 10 s

A listener that lags loses the oldest events, nobody else loses anything. One that is cut off comes again and goes on where it was.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import inf
from typing import Any

from stem_iso.brokers.redis.driver.blocking import BlockingConnection
from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall
from stem_iso.brokers.redis.keys import WORKERS
from stem_iso.errors import BrokerUnavailable

LISTENER_LIFE = 10.0  # seconds, as all below
RENEW_LISTENER = LISTENER_LIFE / 3
AGAIN = 0.2  # until a server that is away is asked again
EVENTS_KEPT, EVENTS_LIFE = 10_000, 60.0
STREAM = f"{WORKERS}:ev"
EMIT = 1_000  # events in one call: no script runs for more than some milliseconds
READ = 500  # events in one answer


def listened(client: RedisClient) -> bool:
    return bool(client.call("events", WORKERS, "listened"))


def emit(client: RedisClient, events: Sequence[bytes]) -> None:
    kept = events[-EVENTS_KEPT:]
    batches = [kept[start : start + EMIT] for start in range(0, len(kept), EMIT)]
    client.run([ScriptCall("events", WORKERS, ("emit", EVENTS_KEPT, EVENTS_LIFE, *batch)) for batch in batches])


class RedisEventStream:
    """Events from the moment it is made, as an iterator or as an `EventWatch`. Used by one thread."""

    def __init__(self, client: RedisClient, timeout: float | None) -> None:
        self._client, self._timeout = client, timeout
        self._name = uuid.uuid4().hex
        self._connection: BlockingConnection | None = None
        self._after: bytes = self._subscribe()

    def events(self) -> Iterator[bytes]:
        """Ends after `timeout` seconds without any; by TimeoutError where the server is away then. Until then it is waited for."""
        try:
            while batch := self._next(self._timeout):
                for id, (_, body) in batch:
                    self._after = id
                    yield body
        finally:
            self.close()

    def _subscribe(self) -> bytes:
        self._renewed = time.monotonic()
        newest: bytes = self._client.call("events", WORKERS, "subscribe", LISTENER_LIFE, self._name)
        return newest

    def poll(self, timeout: float | None) -> list[bytes]:
        batch = self._next(timeout)
        if batch:
            self._after = batch[-1][0]
        return [body for _, (_, body) in batch]

    def _next(self, timeout: float | None) -> list[Any]:
        ends = inf if timeout is None else time.monotonic() + timeout
        while True:
            now = time.monotonic()
            if now - self._renewed >= RENEW_LISTENER and not self._renew(ends, timeout):
                continue
            seconds = max(0.001, min(ends - now, RENEW_LISTENER))
            if found := self._read(seconds):
                return found
            if time.monotonic() >= ends:
                return []

    def _renew(self, ends: float, timeout: float | None) -> bool:
        """True once the server knows that this stream goes on. Raises TimeoutError."""
        try:
            self._subscribe()
        except BrokerUnavailable as error:
            self._renewed = -inf
            if time.monotonic() >= ends:
                raise TimeoutError(f"no event in {timeout:g} s; the broker cannot be reached: {error}") from error
            time.sleep(max(0.0, min(AGAIN, ends - time.monotonic())))
            return False
        return True

    def _read(self, seconds: float) -> list[Any]:
        """Those behind the last one, as soon as there are any; none after so long, and where the server was lost."""
        words = ("XREAD", "COUNT", READ, "BLOCK", max(1, round(seconds * 1000)), "STREAMS", STREAM, self._after)
        try:
            if self._connection is None:
                self._connection = self._client.open_blocking(WORKERS)
            answers = self._connection.request(seconds, *words)
        except BrokerUnavailable:
            self._disconnect()
            self._renewed = -inf  # renewed at once, by a call that waits for the server, or raises
            return []
        if not answers:
            self._disconnect()
        return answers[0][0][1] if answers and answers[0] is not None else []

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        self._disconnect()
        with suppress(BrokerUnavailable):  # it is forgotten by itself in some seconds; the error that is on its way matters more
            self._client.call("events", WORKERS, "unsubscribe", self._name)
