"""Admission of an attempt: the limits of its task. The bucket lies in one slot, the task in that of its queue; nothing spans the two.

    acquire  queue    lost · revoked · from here on every end of this delivery leaves "free" in the outbox (P:b)
    take     bucket   room: it holds the bucket ─> taken          none: it stands in line there ──┐
    defer    queue    its lease is over, it is delayed, or back at once if it was called by now <─┘
    free     bucket   (from the outbox, by its relay) its place and its turn are void; the next of the line are called ──┐
    promote  queue    those come to the head of their queue, in their order; those that have gone are freed <─────┘
    free     bucket   … and these calls were delivered. Until it knows that, a bucket answers them again to whoever touches it

Rules
 1. A task stands in line before it leaves its worker's hands, and `promote` finds it on either side of `defer`: no wake-up falls between.
 2. Whoever dies between two hops dies with a lease: its end leaves "free" in the outbox, which is relayed until it is done. A holder whose
    "free" never comes (a failover took it) lets go 30 s after the last lease end that it knows.
 3. Each asking has a number that grows, so an end that is relayed late, or twice, leaves a newer asking of the same task alone.
 4. Room that opens is offered to the line, 16 at once, and is held for a minute for each that was called and has not asked; an arrival that
    finds room does not wait behind them. A look in a minute, SPACING apart, is the net below.
 5. Starts and leases are on the clock of the bucket's server; between two servers only durations travel.

Not promised: that a rate is exact across a failover that lost writes, or a step of the server's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from stem_iso.brokers.base import Permit, Receipt, Verdict
from stem_iso.brokers.redis.buckets import BucketRegistry
from stem_iso.brokers.redis.corrupt_records import DAMAGE, log_corrupt
from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall
from stem_iso.brokers.redis.keys import bucket_key, queue_key
from stem_iso.outcome import CONCURRENCY_LIMIT, RATE_LIMIT
from stem_iso.task.rate_limit import Rate, TaskLimits

GRAIN = 0.001  # seconds: a wait of 0 would say that it was taken
BATCH = 500  # places in one call
TAKEN = Permit(Verdict.DONE)
LINE_OF_PAUSED = "//paused/"  # and the name of the task: no bucket of a limit begins like that
REASONS = {b"rate": RATE_LIMIT, b"concurrency": CONCURRENCY_LIMIT}


Cancel = Callable[[], Verdict]
HandOn = Callable[[Sequence[tuple[str, Sequence[Any]]]], None]  # entries of the outbox, by queue


class LimitPlace(NamedTuple):
    """One asking: a task of a queue, at a bucket. `number` grows with each of the same task."""

    bucket: str
    queue: str
    id: str
    number: bytes

    @property
    def member(self) -> bytes:
        """As the bucket knows the task: the length of the queue's name, a blank, the name, the id."""
        queue = self.queue.encode()
        return b"%d %b%b" % (len(queue), queue, self.id.encode())


class Freed(Protocol):
    """An entry of the outbox of a queue: "free", the id, and what P:b said of it."""

    @property
    def queue(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def frames(self) -> Sequence[bytes]: ...


class RateLimits:
    """One per broker, used by its thread. It remembers which deliveries hold a bucket, to renew them with their leases."""

    def __init__(self, client: RedisClient, buckets: BucketRegistry, hand_on: HandOn) -> None:
        self._client, self._buckets, self._hand_on = client, buckets, hand_on
        self._held: dict[Receipt, LimitPlace] = {}

    def acquire(self, queue: str, receipt: Receipt, limits: TaskLimits, latest: float | None, cancel: Cancel) -> Permit:
        """`cancel` settles the delivery as `cancelled`, reason `revoked`."""
        token = (receipt.id, receipt.boot, receipt.sequence)
        found = self._client.call("acquire", queue_key(queue), *token, limits.bucket)
        if found[0] != b"asked":
            return refused(found[0], cancel)
        _, number, left, priority, entries = found
        self._hand_on([(queue, entries)])
        place = LimitPlace(limits.bucket, queue, receipt.id, number)
        rate = limits.rate or Rate(0, 0.0)
        rules = (rate.count, rate.period, limits.concurrency or 0)
        take = ScriptCall("bucket", bucket_key(limits.bucket), ("take", place.member, number, left, 9 - priority, *rules))
        answer = self._client.run([take, *self._buckets.due(limits.bucket)])[0]
        if answer[0]:
            self._held[receipt] = place
            deliver(self._client, limits.bucket, answer[1])
            return TAKEN
        _, why, look, calls = answer
        return put_aside(self._client, queue, receipt, place, look, latest, REASONS[why], calls, cancel)

    def renewed(self, receipts: Iterable[Receipt]) -> None:
        """The leases of these were moved: their places go with them."""
        queues: dict[str, list[Receipt]] = {}
        for receipt in receipts:
            if (place := self._held.get(receipt)) is not None:
                queues.setdefault(place.queue, []).append(receipt)
        if not queues:
            return
        batches = [(queue, held[at : at + BATCH]) for queue, held in queues.items() for at in range(0, len(held), BATCH)]
        answers = self._client.run([ScriptCall("lease_time_left", queue_key(queue), tuple(_tokens(held))) for queue, held in batches])
        holds: dict[str, list[bytes]] = {}
        for (_, held), lefts in zip(batches, answers, strict=True):
            for receipt, left in zip(held, lefts, strict=True):
                if left is None:
                    del self._held[receipt]
                else:
                    place = self._held[receipt]
                    holds.setdefault(place.bucket, []).extend((place.member, place.number, left))
        self._client.run([ScriptCall("bucket", bucket_key(bucket), ("hold", *words)) for bucket, words in holds.items()])

    def settled(self, receipts: Iterable[Receipt]) -> None:
        """These are over, for whatever reason."""
        for receipt in receipts:
            self._held.pop(receipt, None)


def put_aside(
    client: RedisClient,
    queue: str,
    receipt: Receipt,
    place: LimitPlace,
    look: bytes,
    latest: float | None,
    reason: str,
    calls: Sequence[Any],
    cancel: Cancel,
) -> Permit:
    """It stands in line: its lease is over. `look`: seconds until it looks by itself; `calls`: those that the bucket told to come."""
    until = "" if latest is None else repr(latest)
    asking = (receipt.id, receipt.boot, receipt.sequence, place.number, look, until, reason)
    waits = client.call("defer", queue_key(queue), *asking)
    deliver(client, place.bucket, calls)
    return Permit(Verdict.DONE, max(GRAIN, float(waits[1]))) if waits[0] == b"waits" else refused(waits[0], cancel)


def refused(answer: bytes, cancel: Cancel) -> Permit:
    if answer == b"lost":
        return Permit(Verdict.LOST)
    return Permit(Verdict.LOST if cancel() is Verdict.LOST else Verdict.CANCELLED)


def _tokens(receipts: Iterable[Receipt]) -> Iterable[str | int]:
    for receipt in receipts:
        yield from (receipt.id, receipt.boot, receipt.sequence)


# -- room ------------------------------------------------------------------------------------------------------------------------------


def relay(client: RedisClient, entries: Sequence[Freed]) -> None:
    """Free the places that these name, call who is next, and take the entries out of their outboxes."""
    buckets: dict[str, list[LimitPlace]] = {}
    for entry in entries:
        try:
            place = _place(entry.queue, entry.frames[1].decode(), entry.frames[2])
        except DAMAGE:
            log_corrupt(f"entry {entry.number} in the outbox of queue {entry.queue}")
            continue
        buckets.setdefault(place.bucket, []).append(place)
    batches = [(bucket, places[at : at + BATCH]) for bucket, places in buckets.items() for at in range(0, len(places), BATCH)]
    answers = client.run([_free(bucket, places, ()) for bucket, places in batches])
    for (bucket, _), calls in zip(batches, answers, strict=True):
        deliver(client, bucket, calls)
    client.run([ScriptCall("ack_entry", queue_key(entry.queue), (entry.number,)) for entry in entries])


def deliver(client: RedisClient, bucket: str, calls: Sequence[Any], first: bool = False) -> None:
    """Call these into their queues, and whoever is next where one of them is not there any more.

    Of a line that was opened these alone, for it may be long; its `first` stand before all others in their queues, the rest behind them.
    """
    opened = bucket.startswith(LINE_OF_PAUSED)
    while calls:
        queues: dict[str, list[LimitPlace]] = {}
        due: dict[LimitPlace, tuple[bytes, bytes]] = {}
        for member, number, at, left in zip(*[iter(calls)] * 4, strict=True):
            place = _seen(bucket, member, number)
            queues.setdefault(place.queue, []).append(place)
            due[place] = (at, b"-1" if opened and not first else left)
        by_queue = list(queues.items())
        words = [[word for each in places for word in (each.id, each.number, due[each][1])] for _, places in by_queue]
        answers = client.run([ScriptCall("promote", queue_key(queue), (bucket, *words[at])) for at, (queue, _) in enumerate(by_queue)])
        gone: list[LimitPlace] = []
        delivered: list[bytes] = []
        for (_, places), left_ in zip(by_queue, answers, strict=True):
            for place, away in zip(places, left_, strict=True):
                if away:
                    gone.append(place)
                else:
                    delivered += (place.member, place.number, due[place][0])
        (calls,) = client.run([_free(bucket, gone, delivered)])
        if opened:
            break


def _free(bucket: str, places: Sequence[LimitPlace], delivered: Sequence[bytes]) -> ScriptCall:
    words = [word for place in places for word in (place.member, place.number)]
    return ScriptCall("bucket", bucket_key(bucket), ("free", len(places), *words, *delivered))


def _place(queue: str, id: str, held: bytes) -> LimitPlace:
    """Of P:b: "n boot sequence due bucket"."""
    number, _, _, _, bucket = held.split(b" ", 4)
    return LimitPlace(bucket.decode(), queue, id, number)


def _seen(bucket: str, member: bytes, number: bytes) -> LimitPlace:
    length, _, rest = member.partition(b" ")
    return LimitPlace(bucket, rest[: int(length)].decode(), rest[int(length) :].decode(), number)
