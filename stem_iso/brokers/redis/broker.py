"""Redis broker: the contract, call by call. What each call asks of the servers is in the module of its subject.

Where a step leaves entries in an outbox, they are relayed before it answers. If the server goes away under that, the step is done all the
same: what follows from it is in the outbox, and somebody's `reclaim` hands it on.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from weakref import WeakSet

from stem_iso.brokers.base import (
    BrokerOptions,
    DeadFilter,
    DeadLetter,
    Exchange,
    MemberState,
    Permit,
    QueueCount,
    Receipt,
    Reclaimed,
    Replayed,
    Revocation,
    ScheduleRecord,
    Settlement,
    StatusRecord,
    UnattendedEnd,
    Verdict,
    WorkerInfo,
)
from stem_iso.brokers.redis import canvas, expire, lease, publish, rate_limits, schedules, status, workers
from stem_iso.brokers.redis.client.client import Links
from stem_iso.brokers.redis.dead_letters import DeadLetters
from stem_iso.brokers.redis.exchange import Exchanger, ExchangeTurn
from stem_iso.brokers.redis.keys import own_key, queue_key
from stem_iso.brokers.redis.notifications import RedisWatch
from stem_iso.brokers.redis.outbox import OutboxRelay, entries_in
from stem_iso.brokers.redis.queues import Registry
from stem_iso.brokers.redis.receipts import ReceiptIndex
from stem_iso.brokers.redis.result_watch import TokenEnds
from stem_iso.brokers.redis.revoke import Revocations
from stem_iso.brokers.redis.settle import Nonces
from stem_iso.brokers.redis.status import Memory, StatusReader
from stem_iso.brokers.redis.waiting import until
from stem_iso.brokers.rules import encoded, ended, fewer_than, late
from stem_iso.errors import BrokerUnavailable
from stem_iso.task.canvas.tree import Canvas, Tree
from stem_iso.task.envelope import Envelope
from stem_iso.task.plan import GiveBack
from stem_iso.task.rate_limit import TaskLimits
from stem_iso.task.status import Progress

LISTENING_CACHE = 1.0  # seconds


class RedisBroker:
    """See `stem_iso.brokers.base.Broker`. One object per thread; connections are opened by first use."""

    def __init__(self, links: Links, options: BrokerOptions) -> None:
        self.options = options
        self.url = links.url
        self._links = links
        self._registry = Registry(links)
        nonces = Nonces()
        self._receipts = ReceiptIndex(links, self._registry, nonces)
        self._exchanger = Exchanger(links, self._receipts, nonces, options)
        self._limits = rate_limits.RateLimits(links)
        self._relay = OutboxRelay(links, rate_limits.relay)
        self._memory = Memory()
        self._statuses = StatusReader(links, self._registry, self._memory, lambda boots: workers.worker_ids(links, boots))
        self._revocations = Revocations(links, self._registry, self._statuses, self._relay)
        self._dead_letters = DeadLetters(links, self._registry, options.dead_letter_ttl)
        self._watches: WeakSet[RedisWatch] = WeakSet()
        self._listening = (0.0, False)  # when it was looked up, and what it was
        self._beaten: dict[str, WorkerInfo] = {}  # by id, what was said of a worker last
        self._reclaimed = False  # whether this one has looked for leases that ran out

    # -- producers --------------------------------------------------------------------------------------------------------------

    def publish(self, envelopes: Sequence[Envelope]) -> list[str]:
        pairs = encoded(envelopes, self.options.max_payload_bytes)
        return publish.publish(self._links, self._registry, pairs) if pairs else []

    def status(self, ids: Sequence[str], queue: str | None = None) -> list[StatusRecord | None]:
        return self._statuses.statuses(ids, queue) if ids else []

    def wait(self, id: str, timeout: float | None, queue: str | None = None) -> StatusRecord:
        def terminal() -> StatusRecord | None:
            return ended(id, self.status([id], queue)[0])

        def key() -> str:
            where = self._memory.get(id)  # as of the look just now; a group is in no queue
            return own_key(id) if where is None else queue_key(where)

        return until(self._links, key, id, terminal, lambda: late(f"task {id} has", timeout), timeout)

    def ends(self) -> TokenEnds:
        return TokenEnds(self._links, self._statuses, self._memory)

    def revoke(self, id: str, terminate: bool = False, queue: str | None = None) -> bool:
        return self._revocations.revoke(id, terminate, queue)

    def forget(self, id: str, queue: str | None = None) -> bool:
        return self._revocations.forget(id, queue)

    def queues(self) -> list[QueueCount]:
        return status.queues(self._links, self._registry, self.options.dead_letter_ttl)

    def purge(self, queue: str) -> int:
        return self._revocations.purge(queue)

    # -- canvases ---------------------------------------------------------------------------------------------------------------

    def compose(self, whole: Canvas) -> None:
        canvas.compose(self._links, self._registry, self._relay, whole, self.options)

    def tree(self, id: str) -> Tree | None:
        return canvas.tree(self._links, id)

    def members(self, id: str) -> list[MemberState] | None:
        return canvas.members(self._links, id, self._of_queue)

    def wait_members(self, id: str, unended: int, timeout: float | None) -> list[MemberState]:
        def fewer() -> bool | None:
            return fewer_than(unended, id, canvas.unended(self._links, id))

        until(self._links, lambda: own_key(id), id, fewer, lambda: late(f"{unended} members of group {id} have", timeout), timeout)
        return self.members(id) or []

    def _of_queue(self, queue: str, ids: Sequence[str]) -> Sequence[StatusRecord | None]:
        return self._statuses.statuses(ids, queue)

    # -- dead letters -----------------------------------------------------------------------------------------------------------

    def dead_letters(self, which: DeadFilter) -> list[DeadLetter]:
        return self._dead_letters.letters(which)

    def replay(self, which: DeadFilter, delay: float = 0.0, dry_run: bool = False) -> list[Replayed]:
        return self._dead_letters.replay(which, delay, dry_run)

    def purge_dead(self, which: DeadFilter) -> int:
        return self._dead_letters.purge(which)

    # -- workers ----------------------------------------------------------------------------------------------------------------

    def exchange(self, boot: str, settlements: Sequence[Settlement], queues: Sequence[str], want: int) -> Exchange:
        turn = self._exchanger.exchange(boot, settlements, queues, want)
        self._limits.settled(settlement.receipt for settlement in settlements)
        self._hand_on(turn.entries)
        answer = self._followed(boot, turn, queues, want)
        if queues:
            idle = len(answer.deliveries) < want and not answer.ready
            for watch in self._watches:
                watch.exchanged(looked=want > 0, idle=idle)
        return answer

    def _followed(self, boot: str, turn: ExchangeTurn, queues: Sequence[str], want: int) -> Exchange:
        """What begins by these ends is leased by the same step, where seats are left for it."""
        found = turn.exchange
        if not turn.entries or not queues or len(found.deliveries) >= want or found.ready:
            return found
        with suppress(BrokerUnavailable):  # what was leased before that is held all the same
            more = self._exchanger.exchange(boot, [], queues, want - len(found.deliveries)).exchange
            found = replace(more, verdicts=found.verdicts, deliveries=[*found.deliveries, *more.deliveries])
        return found

    def _hand_on(self, entries: Sequence[tuple[str, Sequence[Any]]]) -> None:
        if entries:
            with suppress(BrokerUnavailable):
                self._relay.run([entry for queue, answer in entries for entry in entries_in(queue, answer)])

    def renew(self, receipts: Sequence[Receipt]) -> list[Receipt]:
        if not receipts:
            return []
        lost = lease.renew(self._links, self._receipts, receipts, self.options.default_visibility_timeout)
        self._limits.settled(lost)
        self._limits.renewed(receipts)
        return lost

    def extend(self, receipt: Receipt, by: float) -> bool:
        kept = lease.extend(self._links, self._receipts, receipt, by)
        self._limits.renewed([receipt])
        return kept

    def mark(self, receipt: Receipt) -> bool:
        return lease.mark(self._links, self._receipts, receipt)

    def acquire(self, receipt: Receipt, limits: TaskLimits, latest: float | None = None) -> Permit:
        def cancel() -> Verdict:
            # The flag makes it `cancelled`, for as long as the envelope says.
            return self.exchange(receipt.boot, [Settlement(receipt, GiveBack())], [], 0).verdicts[0]

        if receipt in self._receipts.unanswered:  # it was cancelled here, and the answer was lost
            verdict = cancel()
            return Permit(Verdict.LOST if verdict is Verdict.LOST else Verdict.CANCELLED)
        for queue in self._receipts.of([receipt]):
            permit = self._limits.acquire(queue, receipt, limits, latest, cancel)
            if permit.wait or permit.verdict is not Verdict.DONE:
                self._receipts.over(receipt)
            return permit
        return Permit(Verdict.LOST)

    def note(self, receipt: Receipt, meta: dict[str, Any] | None, progress: Progress | None) -> None:
        lease.note(self._links, self._receipts, receipt, meta, progress)

    def reclaim(self, boot: str, predecessor: str | None = None, held: Collection[Receipt] | None = None) -> list[Reclaimed]:
        names = self._registry.known(fresh=predecessor is not None)
        asker = lease.Asker(boot, predecessor, held, fresh=not self._reclaimed)
        found, entries = lease.reclaim(self._links, asker, names, self.options)
        self._reclaimed = True
        self._hand_on(entries)
        with suppress(BrokerUnavailable):  # what was reclaimed is to be reported, whatever becomes of the rest
            self._relay.pending(names)
        return found

    def orders(self, boot: str) -> list[Revocation]:
        return self._revocations.orders(boot)

    def ended_apart(self) -> list[UnattendedEnd]:
        return self._revocations.ended_apart()

    def watch(self, boot: str, queues: Sequence[str]) -> RedisWatch:
        watch = RedisWatch(self._links, queues)
        self._watches.add(watch)
        return watch

    def beat(self, worker: WorkerInfo) -> None:
        self._registry.announce(worker.queues)
        workers.beat(self._links, worker)
        self._beaten[worker.id] = worker

    def goodbye(self, worker_id: str) -> None:
        workers.goodbye(self._links, worker_id, self._beaten.pop(worker_id, None))

    def neighbours(self, machine: str) -> list[WorkerInfo]:
        return workers.neighbours(self._links, machine)

    def unregister(self, dead: WorkerInfo) -> None:
        workers.unregister(self._links, dead)

    def workers(self) -> list[WorkerInfo]:
        return workers.workers(self._links)

    def sweep(self) -> int:
        return expire.sweep(self._links, self._registry, self.options.dead_letter_ttl)

    # -- schedules --------------------------------------------------------------------------------------------------------------

    def schedules(self) -> list[ScheduleRecord]:
        return schedules.listed(self._links)

    def put_schedule(self, record: ScheduleRecord) -> bool:
        return schedules.put(self._links, record)

    def remove_schedule(self, name: str) -> bool:
        return schedules.remove(self._links, name)

    def pause_schedule(self, name: str) -> bool:
        return schedules.pause(self._links, name)

    def resume_schedule(self, name: str, due: float) -> bool:
        return schedules.resume(self._links, name, due)

    def fire(self, record: ScheduleRecord, due: float, sent: Sequence[Envelope | Canvas]) -> bool:
        steps = [step.envelope for each in sent if isinstance(each, Canvas) for step in each.steps]
        encoded([*(each for each in sent if isinstance(each, Envelope)), *steps], self.options.max_payload_bytes)
        return schedules.fire(self._links, record, due, sent, self.publish, self.compose)

    # -- events -----------------------------------------------------------------------------------------------------------------

    def emit(self, events: Sequence[bytes]) -> None:
        if events and self.listening():
            workers.emit(self._links, events)

    def listening(self) -> bool:
        looked, answer = self._listening
        now = time.monotonic()
        if now - looked > LISTENING_CACHE:
            answer = workers.listened(self._links)
            self._listening = (now, answer)
        return answer

    def listen(self, timeout: float | None = None) -> Iterator[bytes]:
        return workers.RedisEventStream(self._links, timeout).events()

    def close(self) -> None:
        self._links.close()
