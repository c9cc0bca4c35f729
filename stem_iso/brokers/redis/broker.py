"""Redis broker: the contract, call by call. What each call asks of the servers is in the module of its subject.

Where a step leaves entries in an outbox, they are relayed before it answers. If the server goes away under that, the step is done all the
same: what follows from it is in the outbox, and somebody's `reclaim` hands it on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
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
from stem_iso.brokers.operations import (
    Action,
    Command,
    CommandReply,
    LimitState,
    Pauses,
    QueueState,
    TaskCounts,
    TaskFilter,
    TaskList,
)
from stem_iso.brokers.redis import (
    canvas,
    commands,
    edit,
    event_log,
    expire,
    lease,
    pauses,
    publish,
    queue_states,
    rate_limits,
    retry,
    schedules,
    status,
    workers,
)
from stem_iso.brokers.redis import counts as task_counts
from stem_iso.brokers.redis.buckets import BucketRegistry
from stem_iso.brokers.redis.dead_letters import DeadLetters
from stem_iso.brokers.redis.driver.client import RedisClient
from stem_iso.brokers.redis.exchange import Exchanger, ExchangeTurn, Nonces
from stem_iso.brokers.redis.keys import own_key, queue_key
from stem_iso.brokers.redis.outbox import OutboxRelay, entries_in
from stem_iso.brokers.redis.queues import QueueRegistry
from stem_iso.brokers.redis.receipts import ReceiptIndex
from stem_iso.brokers.redis.result_watch import RedisResultWatch, wait_until
from stem_iso.brokers.redis.revoke import Revocations
from stem_iso.brokers.redis.status import QueueCache, StatusReader
from stem_iso.brokers.redis.task_list import TaskLister
from stem_iso.brokers.redis.work_watch import RedisWorkWatch
from stem_iso.brokers.rules import encoded, ended, fewer_than, late
from stem_iso.errors import BrokerUnavailable
from stem_iso.outcome import Progress
from stem_iso.task.canvas.tree import Canvas, Tree
from stem_iso.task.envelope import Envelope
from stem_iso.task.rate_limit import TaskLimits
from stem_iso.task.settlement import GiveBack

LISTENING_CACHE = 1.0  # seconds


class RedisBroker:
    """See `stem_iso.brokers.base.Broker`. One object per thread; connections are opened by first use."""

    def __init__(self, client: RedisClient, options: BrokerOptions) -> None:
        self.options = options
        self.url = client.url
        self._client = client
        self._registry = QueueRegistry(client)
        nonces = Nonces()
        self._receipts = ReceiptIndex(client, self._registry, nonces)
        self._exchanger = Exchanger(client, self._receipts, nonces, options)
        self._buckets = BucketRegistry(client)
        self._limits = rate_limits.RateLimits(client, self._buckets, self._hand_on)
        self._relay = OutboxRelay(client, rate_limits.relay)
        self._queue_cache = QueueCache()
        self._statuses = StatusReader(client, self._registry, self._queue_cache, lambda boots: workers.worker_ids(client, boots))
        self._revocations = Revocations(client, self._registry, self._statuses, self._relay)
        self._lister = TaskLister(client, self._registry, self._statuses)
        self._dead_letters = DeadLetters(client, self._registry, options.dead_letter_ttl, options.max_payload_bytes)
        self._watches: WeakSet[RedisWorkWatch] = WeakSet()
        self._listening = (0.0, False)  # when it was looked up, and what it was
        self._beaten: dict[str, WorkerInfo] = {}  # by id, the last heartbeat of a worker
        self._reclaimed = False  # whether this one has looked for leases that ran out

    # -- producers --------------------------------------------------------------------------------------------------------------

    def publish(self, envelopes: Sequence[Envelope]) -> list[str]:
        pairs = encoded(envelopes, self.options.max_payload_bytes)
        return publish.publish(self._client, self._registry, pairs) if pairs else []

    def status(self, ids: Sequence[str], queue: str | None = None) -> list[StatusRecord | None]:
        return self._statuses.statuses(ids, queue) if ids else []

    def wait(self, id: str, timeout: float | None, queue: str | None = None) -> StatusRecord:
        def terminal() -> StatusRecord | None:
            return ended(id, self.status([id], queue)[0])

        def slot() -> str:
            where = self._queue_cache.get(id)  # as of the poll just now; a group is in no queue
            return own_key(id) if where is None else queue_key(where)

        return wait_until(self._client, slot, id, terminal, lambda: late(f"task {id} has", timeout), timeout)

    def watch_results(self) -> RedisResultWatch:
        return RedisResultWatch(self._client, self._statuses, self._queue_cache)

    def revoke(self, id: str, terminate: bool = False, queue: str | None = None) -> bool:
        return self._revocations.revoke(id, terminate, queue)

    def forget(self, id: str, queue: str | None = None) -> bool:
        return self._revocations.forget(id, queue)

    def retry(self, id: str, queue: str | None = None) -> Replayed | None:
        return retry.retry(self._client, self._registry, self._statuses, id, queue, self.options.max_payload_bytes)

    def queues(self) -> list[QueueCount]:
        return status.queues(self._client, self._registry, self.options.dead_letter_ttl)

    def purge(self, queue: str) -> int:
        return self._revocations.purge(queue)

    # -- canvases ---------------------------------------------------------------------------------------------------------------

    def compose(self, whole: Canvas) -> None:
        canvas.compose(self._client, self._registry, self._relay, whole, self.options)

    def tree(self, id: str) -> Tree | None:
        return canvas.tree(self._client, id)

    def members(self, id: str) -> list[MemberState] | None:
        return canvas.members(self._client, id, self._of_queue)

    def wait_members(self, id: str, unended: int, timeout: float | None) -> list[MemberState]:
        def fewer() -> bool | None:
            return fewer_than(unended, id, canvas.unended(self._client, id))

        wait_until(self._client, lambda: own_key(id), id, fewer, lambda: late(f"{unended} members of group {id} have", timeout), timeout)
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
                watch.exchanged(fetched=want > 0, idle=idle)
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
        if any(answer for _, answer in entries):
            with suppress(BrokerUnavailable):
                self._relay.run([entry for queue, answer in entries for entry in entries_in(queue, answer)])

    def renew(self, receipts: Sequence[Receipt]) -> list[Receipt]:
        if not receipts:
            return []
        lost = lease.renew(self._client, self._receipts, receipts, self.options.default_visibility_timeout)
        self._limits.settled(lost)
        self._limits.renewed(receipts)
        return lost

    def extend(self, receipt: Receipt, by: float) -> bool:
        kept = lease.extend(self._client, self._receipts, receipt, by)
        self._limits.renewed([receipt])
        return kept

    def mark(self, receipt: Receipt) -> bool:
        return lease.mark(self._client, self._receipts, receipt)

    def acquire(self, receipt: Receipt, limits: TaskLimits, latest: float | None = None) -> Permit:
        return self._admitted(receipt, lambda queue, cancel: self._limits.acquire(queue, receipt, limits, latest, cancel))

    def hold(self, receipt: Receipt, name: str) -> Permit:
        return self._admitted(receipt, lambda queue, cancel: pauses.hold(self._client, queue, receipt, name, cancel, self._hand_on))

    def _admitted(self, receipt: Receipt, ask: Callable[[str, rate_limits.Cancel], Permit]) -> Permit:
        def cancel() -> Verdict:
            # The flag makes it `cancelled`, for as long as the envelope says.
            return self.exchange(receipt.boot, [Settlement(receipt, GiveBack())], [], 0).verdicts[0]

        if receipt in self._receipts.unanswered:  # it was cancelled here, and the answer was lost
            verdict = cancel()
            return Permit(Verdict.LOST if verdict is Verdict.LOST else Verdict.CANCELLED)
        for queue in self._receipts.of([receipt]):
            permit = ask(queue, cancel)
            if permit.wait or permit.verdict is not Verdict.DONE:
                self._receipts.over(receipt)
            return permit
        return Permit(Verdict.LOST)

    def note(self, receipt: Receipt, meta: dict[str, Any] | None, progress: Progress | None) -> None:
        lease.note(self._client, self._receipts, receipt, meta, progress)

    def reclaim(self, boot: str, predecessor: str | None = None, held: Collection[Receipt] | None = None) -> list[Reclaimed]:
        names = self._registry.known(fresh=predecessor is not None)
        claimant = lease.Claimant(boot, predecessor, held, fresh=not self._reclaimed)
        found, entries = lease.reclaim(self._client, claimant, names, self.options)
        self._reclaimed = True
        self._hand_on(entries)
        with suppress(BrokerUnavailable):  # what was reclaimed is to be reported, whatever becomes of the rest
            self._relay.pending(names)
        return found

    def revocations(self, boot: str) -> list[Revocation]:
        return self._revocations.revocations(boot)

    def unattended_ends(self) -> list[UnattendedEnd]:
        return self._revocations.unattended_ends()

    def watch(self, boot: str, queues: Sequence[str]) -> RedisWorkWatch:
        watch = RedisWorkWatch(self._client, queues)
        self._watches.add(watch)
        return watch

    def beat(self, worker: WorkerInfo) -> None:
        self._registry.register(worker.queues)
        workers.beat(self._client, worker)
        self._beaten[worker.id] = worker

    def remove_worker(self, worker_id: str) -> None:
        workers.remove(self._client, worker_id, self._beaten.pop(worker_id, None))

    def neighbours(self, machine: str) -> list[WorkerInfo]:
        return workers.neighbours(self._client, machine)

    def remove_dead_worker(self, dead: WorkerInfo) -> None:
        workers.remove_dead(self._client, dead)

    def workers(self) -> list[WorkerInfo]:
        return workers.workers(self._client)

    def sweep(self) -> int:
        pauses.see_through(self._client)
        self._buckets.sweep()
        return expire.sweep(self._client, self._registry, self.options.dead_letter_ttl)

    # -- schedules --------------------------------------------------------------------------------------------------------------

    def schedules(self) -> list[ScheduleRecord]:
        return schedules.listed(self._client)

    def put_schedule(self, record: ScheduleRecord) -> bool:
        return schedules.put(self._client, record)

    def remove_schedule(self, name: str) -> bool:
        return schedules.remove(self._client, name)

    def pause_schedule(self, name: str) -> bool:
        return schedules.pause(self._client, name)

    def resume_schedule(self, name: str, due: float) -> bool:
        return schedules.resume(self._client, name, due)

    def fire(self, record: ScheduleRecord, due: float, sent: Sequence[Envelope | Canvas]) -> bool:
        steps = [step.envelope for each in sent if isinstance(each, Canvas) for step in each.steps]
        encoded([*(each for each in sent if isinstance(each, Envelope)), *steps], self.options.max_payload_bytes)
        return schedules.fire(self._client, record, due, sent, self.publish, self.compose)

    # -- for those who look after the queue ----------------------------------------------------------------------------------------

    def list_tasks(self, which: TaskFilter, limit: int, after: str | None = None, newest_first: bool = True) -> TaskList:
        return self._lister.list_tasks(which, limit, after, newest_first)

    def run_now(self, id: str, queue: str | None = None) -> Replayed | None:
        return edit.run_now(self._client, self._statuses, id, queue)

    def edit(self, id: str, run: int, args: bytes, queue: str | None = None) -> Replayed | None:
        new = retry.NewArgs(args, run, self.options.max_payload_bytes)
        return edit.edit(self._client, self._registry, self._statuses, id, new, queue)

    def add_counts(self, counts: Sequence[TaskCounts]) -> None:
        task_counts.add(self._client, self._registry, counts)

    def counts(self, since: int, until: int, queue: str | None = None, name: str | None = None) -> list[TaskCounts]:
        return task_counts.read(self._client, self._registry, since, until, queue, name)

    def queue_states(self) -> list[QueueState]:
        served = [queue for worker in self.workers() for queue in worker.queues]
        return queue_states.queue_states(self._client, self._registry, served, self.paused(), self.options.dead_letter_ttl)

    def limit_states(self, most: int = 1000) -> list[LimitState]:
        return self._buckets.states(most)

    def pause(self, name: str, task: bool = False) -> bool:
        return pauses.pause(self._client, name, task)

    def resume(self, name: str, task: bool = False) -> bool:
        return pauses.resume(self._client, name, task)

    def paused(self) -> Pauses:
        return pauses.paused(self._client)

    def send_command(self, command: Command) -> None:
        commands.send(self._client, command)

    def commands(self, worker_id: str, started_at: float) -> list[Command]:
        return commands.commands(self._client, worker_id, started_at)

    def reply(self, command_id: str, reply: CommandReply) -> None:
        commands.reply(self._client, command_id, reply)

    def replies(self, command_id: str) -> list[CommandReply]:
        return commands.replies(self._client, command_id)

    def log_action(self, action: Action) -> None:
        commands.log_action(self._client, action)

    def actions(self, limit: int = 100) -> list[Action]:
        return commands.actions(self._client, limit)

    # -- events -----------------------------------------------------------------------------------------------------------------

    def emit(self, events: Sequence[bytes]) -> None:
        if events and self.listening():
            event_log.emit(self._client, events)

    def listening(self) -> bool:
        looked, answer = self._listening
        now = time.monotonic()
        if now - looked > LISTENING_CACHE:
            answer = event_log.listened(self._client)
            self._listening = (now, answer)
        return answer

    def listen(self, timeout: float | None = None) -> Iterator[bytes]:
        return event_log.RedisEventStream(self._client, timeout).events()

    def watch_events(self) -> event_log.RedisEventStream:
        return event_log.RedisEventStream(self._client, None)

    def unfinished(self, limit: int) -> list[bytes]:
        """Bodies of what waits or runs, oldest first; nothing is touched. For tests that ask what was enqueued."""
        return status.unfinished(self._client, self._registry, limit)

    def close(self) -> None:
        self._client.close()
