"""SQLite broker: each call of the contract is one transaction of the database. What happens in it is in the module of its subject."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

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
from stem_iso.brokers.operations import Action, Command, CommandReply, LimitState, Pauses, QueueState, TaskCounts, TaskFilter, TaskList
from stem_iso.brokers.rules import encoded
from stem_iso.brokers.sqlite import (
    acquire,
    actions,
    canvas,
    commands,
    corrupt_rows,
    counts,
    dead_letters,
    edit,
    end_notices,
    event_log,
    expire,
    lease,
    pauses,
    publish,
    queue_states,
    retry,
    revoke,
    schedules,
    settle,
    status,
    task_list,
    workers,
)
from stem_iso.brokers.sqlite.result_watch import SqliteResultWatch, wait, wait_members
from stem_iso.brokers.sqlite.rows import newest
from stem_iso.brokers.sqlite.transaction import CHUNK, Database, Transaction
from stem_iso.brokers.sqlite.work_watch import SqliteWorkWatch
from stem_iso.outcome import Progress
from stem_iso.task.canvas.tree import Canvas, Tree
from stem_iso.task.envelope import Envelope
from stem_iso.task.rate_limit import TaskLimits

LISTENING_CACHE = 1.0  # seconds
SEARCH = 1.0  # seconds between two of a worker that is never idle; one that finds nothing else to do looks at once


class SqliteBroker:
    """See `stem_iso.brokers.base.Broker`. One object per thread; connections are opened by first use."""

    def __init__(self, database: Database, options: BrokerOptions) -> None:
        self.options = options
        self.url = database.url
        self._database = database
        self._searched = 0.0  # when rows that no clock makes ready were last sought
        self._sequence = 0  # of the last lease, see `lease.next_sequence`
        self._listening = (0.0, False)  # when it was looked up, and what it was
        self._listeners = 0

    # -- producers --------------------------------------------------------------------------------------------------------------

    def publish(self, envelopes: Sequence[Envelope]) -> list[str]:
        pairs = encoded(envelopes, self.options.max_payload_bytes)
        unlocked = [envelope.id for envelope in envelopes if envelope.lock is None]
        if len(unlocked) == len(pairs):
            if pairs:
                self._database.write(lambda turn: publish.store(turn, pairs), single=len(pairs) <= CHUNK)
            return unlocked
        if not unlocked:
            # A crowd that wants what is taken only looks: it would else stand in line for the lock, and the worker behind it.
            holders = self._database.read(lambda turn: publish.holders(turn, envelopes))
            if holders is not None:
                return holders
        return self._database.write(lambda turn: publish.publish(turn, pairs))

    def status(self, ids: Sequence[str], queue: str | None = None) -> list[StatusRecord | None]:
        return self._database.read(lambda turn: status.statuses(turn, ids)) if ids else []

    def wait(self, id: str, timeout: float | None, queue: str | None = None) -> StatusRecord:
        return wait(self._database, lambda: self.status([id])[0], id, timeout)

    def watch_results(self) -> SqliteResultWatch:
        return SqliteResultWatch(self._database)

    def revoke(self, id: str, terminate: bool = False, queue: str | None = None) -> bool:
        return self._database.write(lambda turn: revoke.revoke(turn, id, terminate))

    def forget(self, id: str, queue: str | None = None) -> bool:
        return self._database.write(lambda turn: revoke.forget(turn, id))

    def retry(self, id: str, queue: str | None = None) -> Replayed | None:
        return self._database.write(lambda turn: retry.retry(turn, id, self.options.max_payload_bytes))

    def queues(self) -> list[QueueCount]:
        return self._database.read(lambda turn: status.queues(turn, self.options.dead_letter_ttl))

    def purge(self, queue: str) -> int:
        upto = self._database.read(newest)
        purged = 0
        while upto and (count := self._database.write(lambda turn: revoke.purge(turn, queue, upto))):
            purged += count
        return purged

    # -- canvases ---------------------------------------------------------------------------------------------------------------

    def compose(self, whole: Canvas) -> None:
        bodies = encoded([step.envelope for step in whole.steps], self.options.max_payload_bytes)
        self._database.write(lambda turn: canvas.compose(turn, whole, bodies))

    def tree(self, id: str) -> Tree | None:
        return self._database.read(lambda turn: canvas.tree(turn, id))

    def members(self, id: str) -> list[MemberState] | None:
        return self._database.read(lambda turn: canvas.members(turn, id))

    def wait_members(self, id: str, unended: int, timeout: float | None) -> list[MemberState]:
        wait_members(self._database, id, unended, timeout)
        return self.members(id) or []

    # -- dead letters -----------------------------------------------------------------------------------------------------------

    def dead_letters(self, which: DeadFilter) -> list[DeadLetter]:
        ttl = self.options.dead_letter_ttl
        return [dead_letters.letter(row) for row in self._database.read(lambda turn: dead_letters.letters(turn, which, ttl))]

    def replay(self, which: DeadFilter, delay: float = 0.0, dry_run: bool = False) -> list[Replayed]:
        chosen = partial(dead_letters.replay_all, ttl=self.options.dead_letter_ttl, delay=delay, most=self.options.max_payload_bytes)
        if dry_run:
            return self._database.read(partial(chosen, which=which, dry_run=True))
        replayed: list[Replayed] = []
        for batch in self._dead(which):
            replayed += self._database.write(partial(chosen, which=batch))
        return replayed

    def purge_dead(self, which: DeadFilter) -> int:
        return sum(self._database.write(partial(dead_letters.purge, ids=batch.ids or [])) for batch in self._dead(which))

    def _dead(self, which: DeadFilter) -> Iterator[DeadFilter]:
        """Those that are meant now, in batches."""
        found = self._database.read(lambda turn: dead_letters.ids(turn, which, self.options.dead_letter_ttl))
        for start in range(0, len(found), dead_letters.BATCH):
            yield DeadFilter(ids=found[start : start + dead_letters.BATCH])

    # -- workers ----------------------------------------------------------------------------------------------------------------

    def exchange(self, boot: str, settlements: Sequence[Settlement], queues: Sequence[str], want: int) -> Exchange:
        if not settlements:
            # An idle look takes no lock: many workers woken by one task would else stand in line to find nothing.
            ready = self._database.read(lambda turn: lease.ready(turn, queues), single=True)
            due = 0.0 if ready else self._database.read(lambda turn: lease.quiet(turn, queues))
            if due is None or due > 0 or want <= 0:
                return Exchange([], [], due, ready=due == 0)
        return self._database.write(lambda turn: self._exchange(turn, boot, settlements, queues, want))

    def _exchange(self, turn: Transaction, boot: str, settlements: Sequence[Settlement], queues: Sequence[str], want: int) -> Exchange:
        verdicts: list[Verdict] = settle.settle(turn, settlements) if settlements else []
        due = lease.promote(turn, queues)
        self._sequence = lease.next_sequence(self._sequence)
        default = self.options.default_visibility_timeout
        deliveries, more = lease.lease(turn, boot, self._sequence, queues, max(0, want), default)
        if (want > 0 and not deliveries) or turn.lease_now - self._searched > SEARCH:
            self._searched = turn.lease_now
            for queue in queues:
                corrupt_rows.add_dead_letters(turn, corrupt_rows.never_due(turn, queue))
        return Exchange(verdicts, deliveries, due, ready=more or due == 0)

    def renew(self, receipts: Sequence[Receipt]) -> list[Receipt]:
        default = self.options.default_visibility_timeout
        return self._database.write(lambda turn: lease.renew(turn, receipts, default)) if receipts else []

    def extend(self, receipt: Receipt, by: float) -> bool:
        return self._database.write(lambda turn: lease.extend(turn, receipt, by))

    def mark(self, receipt: Receipt) -> bool:
        return self._database.write(lambda turn: lease.mark(turn, receipt))

    def acquire(self, receipt: Receipt, limits: TaskLimits, latest: float | None = None) -> Permit:
        return self._database.write(lambda turn: acquire.acquire(turn, receipt, limits, latest))

    def note(self, receipt: Receipt, meta: dict[str, Any] | None, progress: Progress | None) -> None:
        self._database.write(lambda turn: lease.note(turn, receipt, meta, progress))

    def reclaim(self, boot: str, predecessor: str | None = None, held: Collection[Receipt] | None = None) -> list[Reclaimed]:
        if not self._database.read(lambda turn: lease.expired(turn, boot, predecessor, held)):
            return []
        return self._database.write(lambda turn: lease.reclaim(turn, boot, predecessor, self.options, held))

    def revocations(self, boot: str) -> list[Revocation]:
        return self._database.read(lambda turn: lease.revocations(turn, boot))

    def unattended_ends(self) -> list[UnattendedEnd]:
        return self._database.write(end_notices.take) if self._database.read(end_notices.any_left) else []

    def watch(self, boot: str, queues: Sequence[str]) -> SqliteWorkWatch:
        return SqliteWorkWatch(self._database)

    def beat(self, worker: WorkerInfo) -> None:
        self._database.write(lambda turn: workers.beat(turn, worker))

    def remove_worker(self, worker_id: str) -> None:
        self._database.write(lambda turn: workers.remove(turn, worker_id))

    def neighbours(self, machine: str) -> list[WorkerInfo]:
        return self._database.read(lambda turn: workers.neighbours(turn, machine))

    def remove_dead_worker(self, dead: WorkerInfo) -> None:
        self._database.write(lambda turn: workers.remove_dead(turn, dead))

    def workers(self) -> list[WorkerInfo]:
        return self._database.read(workers.workers)

    def sweep(self) -> int:
        ttl = self.options.dead_letter_ttl
        swept = 0
        if self._database.read(lambda turn: expire.due(turn, ttl)):
            swept = self._database.write(lambda turn: expire.sweep(turn, ttl))
        self._database.shrink()
        return swept

    # -- schedules --------------------------------------------------------------------------------------------------------------

    def schedules(self) -> list[ScheduleRecord]:
        return self._database.read(schedules.listed)

    def put_schedule(self, record: ScheduleRecord) -> bool:
        return self._database.write(lambda turn: schedules.put(turn, record))

    def remove_schedule(self, name: str) -> bool:
        return self._database.write(lambda turn: schedules.remove(turn, name))

    def pause_schedule(self, name: str) -> bool:
        return self._database.write(lambda turn: schedules.pause(turn, name))

    def resume_schedule(self, name: str, due: float) -> bool:
        return self._database.write(lambda turn: schedules.resume(turn, name, due))

    def fire(self, record: ScheduleRecord, due: float, sent: Sequence[Envelope | Canvas]) -> bool:
        bodies = schedules.encoded(sent, self.options.max_payload_bytes)
        return self._database.write(lambda turn: schedules.fire(turn, record, due, bodies))

    # -- events -----------------------------------------------------------------------------------------------------------------

    def emit(self, events: Sequence[bytes]) -> None:
        if events and self.listening():
            self._database.write(lambda turn: event_log.emit(turn, events))

    def listening(self) -> bool:
        looked, answer = self._listening
        now = time.monotonic()
        if now - looked > LISTENING_CACHE:
            answer = self._database.read(event_log.listened)
            self._listening = (now, answer)
        return answer

    def listen(self, timeout: float | None = None) -> Iterator[bytes]:
        return event_log.SqliteEventStream(self._database, self._listener_name(), timeout).events()

    def watch_events(self) -> event_log.SqliteEventStream:
        return event_log.SqliteEventStream(self._database, self._listener_name(), None)

    def _listener_name(self) -> str:
        self._listeners += 1
        return f"{os.getpid()}-{id(self):x}-{self._listeners}"

    # -- operations -------------------------------------------------------------------------------------------------------------

    def list_tasks(self, which: TaskFilter, limit: int, after: str | None = None, newest_first: bool = True) -> TaskList:
        return self._database.read(lambda turn: task_list.list_tasks(turn, which, limit, after, newest_first))

    def run_now(self, id: str, queue: str | None = None) -> Replayed | None:
        return self._database.write(lambda turn: edit.run_now(turn, id))

    def edit(self, id: str, run: int, args: bytes, queue: str | None = None) -> Replayed | None:
        return self._database.write(lambda turn: edit.edit(turn, id, run, args, self.options.max_payload_bytes))

    def add_counts(self, counted: Sequence[TaskCounts]) -> None:
        if counted:
            self._database.write(lambda turn: counts.add_counts(turn, counted))

    def counts(self, since: int, until: int, queue: str | None = None, name: str | None = None) -> list[TaskCounts]:
        while self._database.read(counts.behind):
            self._database.write(counts.advance)
        return self._database.read(lambda turn: counts.counts(turn, since, until, queue, name))

    def queue_states(self) -> list[QueueState]:
        return self._database.read(lambda turn: queue_states.queue_states(turn, self.options.dead_letter_ttl))

    def limit_states(self, most: int = 1000) -> list[LimitState]:
        return self._database.read(lambda turn: queue_states.limit_states(turn, most))

    def pause(self, name: str, task: bool = False) -> bool:
        return self._database.write(lambda turn: pauses.pause(turn, name, task))

    def resume(self, name: str, task: bool = False) -> bool:
        was_paused = self._database.write(lambda turn: pauses.resume(turn, name, task))
        for _ in range(pauses.ONCE if task else 0):
            if not self._database.write(lambda turn: pauses.release(turn, name)):
                break
        return was_paused

    def paused(self) -> Pauses:
        return self._database.read(pauses.paused)

    def hold(self, receipt: Receipt, name: str) -> Permit:
        return self._database.write(lambda turn: pauses.hold(turn, receipt, name))

    def send_command(self, command: Command) -> None:
        self._database.write(lambda turn: commands.send(turn, command))

    def commands(self, worker_id: str, started_at: float) -> list[Command]:
        return self._database.read(lambda turn: commands.commands(turn, worker_id, started_at))

    def reply(self, command_id: str, reply: CommandReply) -> None:
        self._database.write(lambda turn: commands.reply(turn, command_id, reply))

    def replies(self, command_id: str) -> list[CommandReply]:
        return self._database.read(lambda turn: commands.replies(turn, command_id))

    def log_action(self, action: Action) -> None:
        self._database.write(lambda turn: actions.log(turn, action))

    def actions(self, limit: int = 100) -> list[Action]:
        return self._database.read(lambda turn: actions.actions(turn, limit))

    # -- beyond the contract ----------------------------------------------------------------------------------------------------

    def unfinished(self, limit: int) -> list[bytes]:
        """Bodies of what waits or runs, oldest first; nothing is touched. For tests that ask what was enqueued."""
        return self._database.read(lambda turn: status.unfinished(turn, limit))

    def migrate(self) -> tuple[int, int] | None:
        """Bring the file to this version's tables: the version before and after; None where there is no file, and none is made."""
        return self._database.migrate()

    def twin(self) -> SqliteBroker:
        """Another broker on the same store, for another thread."""
        return SqliteBroker(self._database.twin(), self.options)

    def close(self) -> None:
        self._database.close()
