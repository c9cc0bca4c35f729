"""Workers and their events: who lives, and what happens in whom. All in one slot, all of it gone by itself when nobody writes any more.

    beat ──> shown for 30 s                    emit ── somebody listens? ──> a stream, 10,000 long, a minute old ──XREAD BLOCK──> listener
                                                             └ nobody ─> dropped                    says every 3 s that it lives, for 10 s

A listener that lags loses the oldest events, nobody else loses anything. One that is cut off comes again and goes on where it was.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from math import inf
from typing import Any

import msgspec

from stem_iso.brokers.base import WorkerInfo
from stem_iso.brokers.redis.client.blocking import BlockingConnection
from stem_iso.brokers.redis.client.client import Links, ScriptCall
from stem_iso.brokers.redis.corrupt_records import DAMAGE, say, text
from stem_iso.brokers.redis.keys import GOSSIP
from stem_iso.errors import BrokerUnavailable

WORKER_LIFE = 30.0  # seconds, as all below
LISTENER_LIFE = 10.0
RENEW_LISTENER = LISTENER_LIFE / 3
AGAIN = 0.2  # until a server that is away is asked again
EVENTS_KEPT, EVENTS_LIFE = 10_000, 60.0
STREAM = f"{GOSSIP}:ev"
TELL = 1_000  # events in one call: no script runs for more than some milliseconds
READ = 500  # events in one answer

_decoder = msgspec.msgpack.Decoder(WorkerInfo)


# -- workers --------------------------------------------------------------------------------------------------------------------------


def beat(links: Links, worker: WorkerInfo) -> None:
    links.call("worker", GOSSIP, "beat", WORKER_LIFE, worker.id, worker.machine, worker.boot, msgspec.msgpack.encode(worker))


def goodbye(links: Links, id: str, last: WorkerInfo | None) -> None:
    """`last`: what was said of it last."""
    machine, boot = ("", "") if last is None else (last.machine, last.boot)
    links.call("worker", GOSSIP, "goodbye", WORKER_LIFE, id, machine, boot)


def unregister(links: Links, dead: WorkerInfo) -> None:
    links.call("worker", GOSSIP, "unregister", WORKER_LIFE, dead.id, dead.machine, dead.boot)


def neighbours(links: Links, machine: str) -> list[WorkerInfo]:
    found: list[WorkerInfo] = []
    for info in links.call("worker", GOSSIP, "neighbours", WORKER_LIFE, "", machine):
        with suppress(*DAMAGE):  # a record that nobody can read is nobody's to judge
            found.append(_decoder.decode(info))
    return found


def workers(links: Links) -> list[WorkerInfo]:
    """By id; seen when the server heard them."""
    answer = links.call("worker", GOSSIP, "list", WORKER_LIFE)
    found = []
    for id, info, seen in zip(*[iter(answer)] * 3, strict=True):
        try:
            found.append(msgspec.structs.replace(_decoder.decode(info), seen_at=float(seen)))
        except DAMAGE:
            say(f"what worker {text(id)} tells of itself")
    return sorted(found, key=lambda worker: worker.id)


def worker_ids(links: Links, boots: Set[str]) -> dict[str, str]:
    """Boot -> id, of those that live."""
    return {worker.boot: worker.id for worker in workers(links) if worker.boot in boots}


# -- events ---------------------------------------------------------------------------------------------------------------------------


def listened(links: Links) -> bool:
    return bool(links.call("events", GOSSIP, "heard"))


def emit(links: Links, events: Sequence[bytes]) -> None:
    kept = events[-EVENTS_KEPT:]
    batches = [kept[start : start + TELL] for start in range(0, len(kept), TELL)]
    links.run([ScriptCall("events", GOSSIP, ("tell", EVENTS_KEPT, EVENTS_LIFE, *batch)) for batch in batches])


class RedisEventStream:
    """Events from the moment it is made. Used by one thread."""

    def __init__(self, links: Links, timeout: float | None) -> None:
        self._links, self._timeout = links, timeout
        self._name = uuid.uuid4().hex
        self._parked: BlockingConnection | None = None
        self._after: bytes = self._hear()

    def events(self) -> Iterator[bytes]:
        """Ends after `timeout` seconds without any; by TimeoutError where the server is away then. Until then it is waited for."""
        try:
            while batch := self._next():
                for id, (_, body) in batch:
                    self._after = id
                    yield body
        finally:
            self.close()

    def _hear(self) -> bytes:
        self._renewed = time.monotonic()
        newest: bytes = self._links.call("events", GOSSIP, "hear", LISTENER_LIFE, self._name)
        return newest

    def _next(self) -> list[Any]:
        ends = inf if self._timeout is None else time.monotonic() + self._timeout
        while True:
            now = time.monotonic()
            if now - self._renewed >= RENEW_LISTENER and not self._heard(ends):
                continue
            seconds = max(0.001, min(ends - now, RENEW_LISTENER))
            if found := self._read(seconds):
                return found
            if time.monotonic() >= ends:
                return []

    def _heard(self, ends: float) -> bool:
        """That we listen, by the server. Raises TimeoutError."""
        try:
            self._hear()
        except BrokerUnavailable as error:
            self._renewed = -inf
            if time.monotonic() >= ends:
                raise TimeoutError(f"no event in {self._timeout:g} s; the broker cannot be reached: {error}") from error
            time.sleep(max(0.0, min(AGAIN, ends - time.monotonic())))
            return False
        return True

    def _read(self, seconds: float) -> list[Any]:
        """Those behind the last one, as soon as there are any; none after so long, and where the server was lost."""
        asked = ("XREAD", "COUNT", READ, "BLOCK", max(1, round(seconds * 1000)), "STREAMS", STREAM, self._after)
        try:
            if self._parked is None:
                self._parked = self._links.park(GOSSIP)
            answers = self._parked.asked(seconds, *asked)
        except BrokerUnavailable:
            self._unpark()
            self._renewed = -inf  # said again at once, by a call that waits for the server, or raises
            return []
        if not answers:
            self._unpark()
        return answers[0][0][1] if answers and answers[0] is not None else []

    def _unpark(self) -> None:
        if self._parked is not None:
            self._parked.close()
            self._parked = None

    def close(self) -> None:
        self._unpark()
        with suppress(BrokerUnavailable):  # it is forgotten by itself in some seconds; the error that is on its way matters more
            self._links.call("events", GOSSIP, "deaf", self._name)
