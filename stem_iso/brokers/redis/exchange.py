"""Exchange of a worker: its plans carried out, what has come due made ready, new deliveries leased.

    one queue      one script does all of it: one round trip
    several        count: settle, promote, read by priority ── share out `want`, 9 first ──> fetch, each its share
                   among equals the turn begins with another queue each time, so that none starves;
                   what is ready in a queue that gives nothing keeps a wake-up token: those who serve others of these queues may have a seat

    Settlement ── plan_args ──> kind, id, token, nonce, a, b, tail ──> `exchange.lua`: fence, revoked?, carry out ──> digit ──> Verdict

Where the answer to a turn is lost, what it did is not.
 1. A settlement is sent with a nonce, eight random bytes. Where its answer is lost, the next one for the same receipt bears the same
    nonce, and a store that has carried out the first answers the second with what it did then. Another nonce for a receipt that is used up
    is LOST. Until then the receipt counts as held: renewing it, which comes first after an outage, finds no lease, and that says nothing.
 2. Leases are known by their sequence. The next turn names the sequence, and so takes the deliveries over; the lost turn can then no longer
    happen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, assert_never

import msgspec

from stem_iso.brokers.base import BrokerOptions, Delivery, Exchange, Receipt, Settlement, Verdict
from stem_iso.brokers.redis.corrupt_records import log_corrupt, text
from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall, round_trips
from stem_iso.brokers.redis.keys import queue_key
from stem_iso.brokers.redis.receipts import ReceiptIndex, token
from stem_iso.brokers.redis.records import (
    ENDED,
    body_of,
    framed,
    pack,
    pack_meta,
    pack_progress,
    priority_of,
    record,
    visibility_of,
)
from stem_iso.task.envelope import Envelope
from stem_iso.task.settlement import Finish, GiveBack, Retry

BATCH, BATCH_BYTES = 500, 8 << 20  # plans of one script, and what they bring: results may have megabytes each
ROUND_TRIP_BYTES = 16 << 20  # and of one round trip
DELIVERY = 6  # fields
VERDICTS = {ord("0"): Verdict.LOST, ord("1"): Verdict.DONE, ord("2"): Verdict.CANCELLED}
VOID = "-"  # what was noted is in the successor already
EMPTY = framed(None, None, None, None, None)

ExchangeCall = tuple[str, list[int], ScriptCall]  # queue, the places of its plans, the call
PlanArgs = tuple[str, str, str, bytes, bytes | str | int, float | str, bytes]


# -- settlements as arguments --------------------------------------------------------------------------------------------------------


class Nonces:
    """Those of settlements whose answer never came."""

    def __init__(self) -> None:
        self._open: dict[Receipt, bytes] = {}

    def __contains__(self, receipt: object) -> bool:
        return receipt in self._open

    def of(self, receipt: Receipt) -> bytes:
        return (self._open.get(receipt) if self._open else None) or os.urandom(8)

    def sent(self, nonces: Sequence[tuple[Receipt, bytes]]) -> None:
        """No answer came to these."""
        self._open.update(nonces)

    def answered(self, receipts: Sequence[Receipt]) -> None:
        if self._open:
            for receipt in receipts:
                self._open.pop(receipt, None)


def plan_args(settlement: Settlement, nonce: bytes) -> PlanArgs:
    receipt, plan = settlement.receipt, settlement.plan
    head = (receipt.id, token(receipt), nonce)
    match plan:
        case Finish():
            return "F", *head, ENDED[plan.state], plan.ttl, _tail(plan, settlement)
        case Retry():
            successor, void = _successor(settlement, plan)
            due = "" if successor.not_before is None else successor.not_before
            tail = framed(plan.reason, pack(plan.error), None, void, pack_progress(settlement.progress))
            return "R", *head, record(successor), due, tail
        case GiveBack(successor=None):
            written = settlement.meta is not None or settlement.progress is not None
            tail = framed(None, None, None, pack_meta(settlement.meta), pack_progress(settlement.progress)) if written else EMPTY
            return "G", *head, "", max(0.0, plan.delay), tail
        case GiveBack():
            successor, void = _successor(settlement, plan)
            return "G", *head, record(successor), max(0.0, plan.delay), framed(None, None, None, void, pack_progress(settlement.progress))
        case _:
            assert_never(plan)


def _tail(plan: Finish, settlement: Settlement) -> bytes:
    return framed(plan.reason, pack(plan.error), plan.result, pack_meta(settlement.meta), pack_progress(settlement.progress))


def _successor(settlement: Settlement, plan: Retry | GiveBack) -> tuple[Envelope, str | None]:
    successor = plan.successor
    assert successor is not None
    if settlement.meta is not None and settlement.meta != successor.meta:
        successor = msgspec.structs.replace(successor, meta=settlement.meta)
    return successor, VOID if successor.meta or settlement.meta is not None else None


# -- the exchange --------------------------------------------------------------------------------------------------------------------


class LostFetch(NamedTuple):
    """A fetch whose answer never came."""

    boot: str
    sequences: dict[str, int]  # by queue


class ExchangeTurn(NamedTuple):
    """`entries`: what the scripts left in the outbox of a queue, as they answered it."""

    exchange: Exchange
    entries: list[tuple[str, list[Any]]]


class Plans(NamedTuple):
    """Those of one queue, and their places among all."""

    places: list[int]
    args: list[PlanArgs]


class Exchanger:
    """One per broker, used by its thread."""

    def __init__(self, client: RedisClient, receipts: ReceiptIndex, nonces: Nonces, options: BrokerOptions) -> None:
        self._client, self._receipts, self._nonces, self._options = client, receipts, nonces, options
        self._lost: list[LostFetch] = []
        self._sequence = 0
        self._turns = 0

    def exchange(self, boot: str, settlements: Sequence[Settlement], queues: Sequence[str], want: int) -> ExchangeTurn:
        verdicts = [Verdict.LOST] * len(settlements)
        plans = self._plans(settlements)
        sequences = self._sequences(queues)
        turn = _Turn(self._client, boot, sequences, self._options.default_visibility_timeout, self._recovering(boot, queues))
        try:
            exchange = turn.run(plans, verdicts, self._rotated(queues) if want > 0 else queues, max(0, want))
        except BaseException:  # whatever it was, Ctrl-C too: what was sent may have been done
            self._nonces.sent([(settlements[place].receipt, args[3]) for each in plans.values() for place, args in zip(*each, strict=True)])
            if want > 0:
                self._lost.append(LostFetch(boot, sequences))
            raise
        if len(exchange.deliveries) < want:  # else there may be more of theirs
            self._lost = [lost for lost in self._lost if lost.boot != boot or not lost.sequences.keys() <= set(queues)]
        self._nonces.answered([settlement.receipt for settlement in settlements])
        for settlement in settlements:
            self._receipts.over(settlement.receipt)
        for delivery in exchange.deliveries:
            self._receipts.leased(delivery.receipt, delivery.queue)
        return ExchangeTurn(exchange, turn.entries)

    def _sequences(self, queues: Sequence[str]) -> dict[str, int]:
        """One for each queue, for two of them may have a task of the same id. They grow within a boot, whichever of its brokers asks."""
        first = max(self._sequence + 1, time.monotonic_ns())
        self._sequence = first + len(queues)
        return {queue: first + at for at, queue in enumerate(queues)}

    def _rotated(self, queues: Sequence[str]) -> list[str]:
        if len(queues) < 2:
            return list(queues)
        self._turns += 1
        start = self._turns % len(queues)
        return [*queues[start:], *queues[:start]]

    def _recovering(self, boot: str, queues: Sequence[str]) -> dict[str, str]:
        """Queue -> the sequences that were lost in it, by spaces."""
        found: dict[str, list[str]] = {}
        for lost in self._lost:
            if lost.boot == boot:
                for queue in lost.sequences.keys() & set(queues):
                    found.setdefault(queue, []).append(str(lost.sequences[queue]))
        return {queue: " ".join(sequences) for queue, sequences in found.items()}

    def _plans(self, settlements: Sequence[Settlement]) -> dict[str, Plans]:
        """By queue. Settlements that nobody knows are in none of them."""
        if not settlements:
            return {}
        places: dict[Receipt, list[int]] = {}
        for place, settlement in enumerate(settlements):
            places.setdefault(settlement.receipt, []).append(place)
        found: dict[str, Plans] = {}
        for queue, receipts in self._receipts.of(places).items():
            plans = found[queue] = Plans([], [])
            for place in sorted(place for receipt in receipts for place in places[receipt]):
                plans.places.append(place)
                plans.args.append(plan_args(settlements[place], self._nonces.of(settlements[place].receipt)))
        return found


class _Turn:
    def __init__(self, client: RedisClient, boot: str, sequences: dict[str, int], visibility: float, recovering: dict[str, str]) -> None:
        self._client, self._boot, self._sequences, self._visibility, self._recovering = client, boot, sequences, visibility, recovering
        self.entries: list[tuple[str, list[Any]]] = []
        self._deliveries: list[tuple[int, Delivery]] = []
        self._due: dict[str, float | None] = {}
        self._ready: dict[str, bool] = {}

    def run(self, plans: dict[str, Plans], verdicts: list[Verdict], queues: Sequence[str], want: int) -> Exchange:
        taken = self._recover(queues, want)
        want -= len(self._deliveries)
        left = [queue for queue in queues if queue not in taken]
        alone = len(queues) == 1
        counts = self._settle_and_count(plans, verdicts, queues, want if alone and left else 0)
        if want > 0 and left and not alone:
            shares = shared(counts, left, want)
            calls = [self._call(queue, [], share) for queue, share in shares.items()]
            calls += [ScriptCall("pass_token", queue_key(queue)) for queue in left if queue not in shares and any(counts[queue])]
            for queue, answer in zip(shares, self._client.run(calls), strict=False):
                self._take_answer(queue, answer, True)
            self._deliveries.sort(key=lambda found: -found[0])
        due = min((each for each in self._due.values() if each is not None), default=None)
        deliveries = [delivery for _, delivery in self._deliveries]
        return Exchange(verdicts, deliveries, None if due is None else max(0.0, due), any(self._ready.values()))

    def _recover(self, queues: Sequence[str], want: int) -> list[str]:
        """Take over what a lost turn has leased in them, and fill up from there: rare, hence one after the other. Which ones it was."""
        taken: list[str] = []
        for queue in queues:
            if queue in self._recovering and len(self._deliveries) < want:
                call = self._call(queue, [], want - len(self._deliveries), self._recovering[queue])
                self._take_answer(queue, self._client.run([call])[0], True)
                taken.append(queue)
        return taken

    def _settle_and_count(self, plans: dict[str, Plans], verdicts: list[Verdict], queues: Sequence[str], want: int) -> dict[str, list[int]]:
        """Settle, promote; with one queue, fetch too. What is ready, by queue and priority."""
        calls: list[ExchangeCall] = []
        for queue in dict.fromkeys((*queues, *plans)):
            mine = plans.get(queue, Plans([], []))
            for start, end in batches(mine.args):
                served = want if end == len(mine.args) and queue in queues else 0
                calls.append((queue, mine.places[start:end], self._call(queue, mine.args[start:end], served)))
        counts: dict[str, list[int]] = {}
        for some in round_trips(calls, lambda call: call[2], ROUND_TRIP_BYTES):
            for (queue, places, _), answer in zip(some, self._client.run([call for *_, call in some]), strict=True):
                for place, digit in zip(places, answer[0], strict=True):
                    verdicts[place] = VERDICTS[digit]
                self._take_answer(queue, answer, queue in queues)
                counts[queue] = answer[5]
        return counts

    def _delivery(self, queue: str, fields: Sequence[Any]) -> Delivery:
        id, record, redeliveries, note, begun, revoked = fields
        own = visibility_of(record)
        receipt = Receipt(id.decode(), self._boot, self._sequences[queue])
        visibility = self._visibility if own is None else own
        return Delivery(receipt, body_of(record, note, begun), queue, _times(redeliveries), visibility, bool(revoked))

    def _call(self, queue: str, plans: Sequence[PlanArgs], want: int, recover: str = "") -> ScriptCall:
        args = (self._boot, self._sequences.get(queue, 0), want, self._visibility, recover, *(word for plan in plans for word in plan))
        return ScriptCall("exchange", queue_key(queue), args)

    def _take_answer(self, queue: str, answer: list[Any], served: bool) -> None:
        _, entries, fields, due, more, _ = answer
        if entries:
            self.entries.append((queue, entries))
        for at in range(0, len(fields), DELIVERY):
            try:
                delivery = self._delivery(queue, fields[at : at + DELIVERY])
            except UnicodeDecodeError:  # an id that is no text: its lease runs out until it has been delivered too often
                log_corrupt(f"the id {text(fields[at])} in queue {queue}")
                continue
            self._deliveries.append((priority_of(fields[at + 1]), delivery))
        if served:
            self._due[queue] = float(due) if due else None
            self._ready[queue] = bool(more)


def _times(count: bytes | None) -> int:
    return int(count) if count and count.isdigit() else 0


def batches(plans: Sequence[PlanArgs]) -> Iterator[tuple[int, int]]:
    """From, to; one at least."""
    start = size = 0
    for end, plan in enumerate(plans):
        brings = len(plan[-1]) + (len(plan[4]) if isinstance(plan[4], bytes) else 0)  # a result, or the record of a next attempt
        size += brings
        if end > start and (end - start == BATCH or size > BATCH_BYTES):
            yield start, end
            start, size = end, brings
    yield start, len(plans)


def shared(counts: dict[str, list[int]], queues: Sequence[str], want: int) -> dict[str, int]:
    """How many each queue gives, where `counts` says what is ready in it by priority 0..9: strictly by priority, equals in turn."""
    shares: dict[str, int] = {}
    for priority in range(9, -1, -1):
        ready = {queue: counts[queue][priority] for queue in queues if counts[queue]}
        while want > 0 and any(ready.values()):
            for queue, left in ready.items():
                if left and want > 0:
                    shares[queue] = shares.get(queue, 0) + 1
                    ready[queue] -= 1
                    want -= 1
    return shares
