"""Contract of every broker.

    producer ── publish ──> queue ── exchange ──> Delivery(receipt, body) ──> worker
                              ^                                              │
                              └── Retry, GiveBack ── exchange <── Settlement(receipt, plan)

Rules (the contract suite in `stem_iso.testing` holds each)
 1. A broker is synchronous and is used by one thread at a time; a worker gives it a thread of its own and sends requests in batches.
    A connection is opened by first use, never at construction, and is abandoned in a forked child, which opens its own.
 2. A plan is carried out in one atomic step, or not at all. The fence is the receipt: a receipt whose delivery was given to another
    changes nothing and is answered with `Verdict.LOST`. An expired lease that nobody took is still its holder's.
 3. Publishing is idempotent by (id, run, attempt): the same envelope again changes nothing.
 4. `exchange` settles, promotes what has come due, and leases up to `want` deliveries: by priority (9 first), then arrival; between two
    queues, equals come in any order, and neither starves.
 5. Lease ends use a clock that wall-clock steps do not move; due times, expiry and TTL are wall clock.
 6. A foreign exception stops here: what a store raises becomes `BrokerUnavailable`.
 7. Whoever waits is woken: `WorkWatch.fileno()` turns readable when there may be something new.
 8. A part of a canvas that waits for others is `queued`, reason `waiting`, and stands in no queue. However a part ends, in whoever's hands,
    its moves (`task.canvas.tree.moves`) are carried out, each once. A member's result is kept until its group has ended, whatever its TTL.

Durations are seconds. Lists are answered in the order of the question.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from stem_iso.brokers.operations import Operations
from stem_iso.brokers.records import BrokerAddress as BrokerAddress
from stem_iso.brokers.records import BrokerOptions as BrokerOptions
from stem_iso.brokers.records import DeadFilter as DeadFilter
from stem_iso.brokers.records import DeadLetter as DeadLetter
from stem_iso.brokers.records import Delivery as Delivery
from stem_iso.brokers.records import Exchange as Exchange
from stem_iso.brokers.records import IsolateInfo as IsolateInfo
from stem_iso.brokers.records import MemberState as MemberState
from stem_iso.brokers.records import Permit as Permit
from stem_iso.brokers.records import QueueCount as QueueCount
from stem_iso.brokers.records import Receipt as Receipt
from stem_iso.brokers.records import Reclaimed as Reclaimed
from stem_iso.brokers.records import Replayed as Replayed
from stem_iso.brokers.records import Revocation as Revocation
from stem_iso.brokers.records import ScheduleRecord as ScheduleRecord
from stem_iso.brokers.records import Settlement as Settlement
from stem_iso.brokers.records import StatusRecord as StatusRecord
from stem_iso.brokers.records import UnattendedEnd as UnattendedEnd
from stem_iso.brokers.records import Verdict as Verdict
from stem_iso.brokers.records import WorkerInfo as WorkerInfo
from stem_iso.outcome import Progress
from stem_iso.task.canvas.tree import Canvas, Tree
from stem_iso.task.envelope import Envelope
from stem_iso.task.rate_limit import TaskLimits


class WorkWatch(Protocol):
    """Wake-ups of a worker that waits for something new. Owned by the thread that asked for it."""

    interval: float  # call `changed()` at least this often: some stores cannot always notify

    def fileno(self) -> int:
        """A descriptor for poll: readable when something may have changed."""

    def changed(self) -> bool:
        """True where an exchange is worth its price; takes the readiness back."""

    def close(self) -> None: ...


class ResultWatch(Protocol):
    """Ends of many tasks, for one thread that waits for all of them. Owned by the thread that asked for it."""

    interval: float  # poll at least this often: some stores cannot always notify

    def fileno(self) -> int:
        """A descriptor for poll: readable when a poll is due. It may be another one after each `poll`."""

    def poll(self, waits: Mapping[str, str | None]) -> dict[str, StatusRecord | None]:
        """Which of these ids have ended, with their terminal status; None for one that is unknown or has expired. Those that go on are
        left out; one that has ended is answered as often as it is asked for. The values are their queues, where known (hints, as
        below). Takes the readiness back: an end after the poll makes it readable.
        Raises BrokerUnavailable; then close it, and ask the broker for another.
        """

    def close(self) -> None: ...


class EventWatch(Protocol):
    """Events of all workers, from the moment it is made. Owned by the thread that asked for it."""

    def poll(self, timeout: float | None) -> list[bytes]:
        """Those that came, in their order, as soon as there are any; none after `timeout` seconds without one.

        Raises TimeoutError where the broker is away at that time; the next poll goes on where this one was.
        """
        ...

    def close(self) -> None: ...


class Broker(Operations, Protocol):
    """`Operations`: what is asked by those who look after the queue."""

    url: str  # as shown to people: an absolute path, no password
    options: BrokerOptions

    # -- producers -----------------------------------------------------------------------------------------------------------------

    def publish(self, envelopes: Sequence[Envelope]) -> list[str]:
        """Store them all in one step and return their ids; where a unique lock is held, the id of its holder instead.

        An envelope with `not_before` in the future is delayed. Raises PayloadTooLarge (before anything is stored) and BrokerUnavailable.
        """
        ...

    # `queue` of the next methods is a hint, where the caller knows it: a store may look there first, and must look elsewhere after that.

    def status(self, ids: Sequence[str], queue: str | None = None) -> list[StatusRecord | None]:
        """None for an unknown or expired id."""
        ...

    def wait(self, id: str, timeout: float | None, queue: str | None = None) -> StatusRecord:
        """The terminal status, as soon as there is one. Raises TimeoutError, UnknownResult (also when it expires meanwhile)."""
        ...

    def watch_results(self) -> ResultWatch:
        """For whoever waits for many: one descriptor, whatever their number."""
        ...

    def revoke(self, id: str, terminate: bool = False, queue: str | None = None) -> bool:
        """True if there was something to revoke: the task was not terminal. What waits is `cancelled` at once; of what
        runs, a success stands and any other end is `cancelled`. `terminate`: its holder is to kill it at once."""
        ...

    def forget(self, id: str, queue: str | None = None) -> bool:
        """Drop the result and status of a finished task; of an unfinished one, once it has settled. True if the id was known."""
        ...

    def retry(self, id: str, queue: str | None = None) -> Replayed | None:
        """Run a failed or cancelled task again, in one step: the same id with run + 1, attempt 0, redeliveries 0 and without expiry, as new
        in its queue; what its handler wrote to `meta` stays. Its dead letter goes, and a unique one takes its lock. None for an unknown id.

        A part of a canvas is refused: what follows it has ended with it, and would not begin again.
        """
        ...

    def queues(self) -> list[QueueCount]:
        """Every queue that holds something, by name."""
        ...

    def purge(self, queue: str) -> int:
        """End all that waits in the queue (ready and delayed) as `cancelled`, reason `purged`. What runs is left alone."""
        ...

    # -- canvases ------------------------------------------------------------------------------------------------------------------

    def compose(self, canvas: Canvas) -> None:
        """Store all of it in one step and begin; the same canvas again changes nothing. Raises PayloadTooLarge.

        Its parts, groups included (name "group", queue ""), have a status each; a group's result is the list of its members', None where it
        is past the canvas's `most` bytes and nothing follows it. `revoke` and `forget` of a canvas's or a group's id mean all of its
        parts, and what would follow their errors.
        """
        ...

    def tree(self, id: str) -> Tree | None:
        """What was composed as this canvas; None for an id that is unknown, expired, or not a canvas's."""
        ...

    def members(self, id: str) -> list[MemberState] | None:
        """The members of a group, by place; those that have expired are left out, and those that were replayed, which run alone. None where
        there is no such group."""
        ...

    def wait_members(self, id: str, unended: int, timeout: float | None) -> list[MemberState]:
        """As `members`, as soon as fewer than `unended` of them are still to end. Raises TimeoutError, UnknownResult."""
        ...

    # -- dead letters --------------------------------------------------------------------------------------------------------------

    def dead_letters(self, which: DeadFilter) -> list[DeadLetter]:
        """Newest last."""
        ...

    def replay(self, which: DeadFilter, delay: float = 0.0, dry_run: bool = False) -> list[Replayed]:
        """The same ids with run + 1, attempt 0, redeliveries 0, and the expiry dropped; a dry run only answers what would be done."""
        ...

    def purge_dead(self, which: DeadFilter) -> int: ...

    # -- workers -------------------------------------------------------------------------------------------------------------------

    def exchange(self, boot: str, settlements: Sequence[Settlement], queues: Sequence[str], want: int) -> Exchange:
        """Carry out the plans and lease up to `want` deliveries, in one step. A result too large is the caller's to refuse beforehand."""
        ...

    def renew(self, receipts: Sequence[Receipt]) -> list[Receipt]:
        """Move each lease's end to now + its visibility, never backwards; return those that are lost."""
        ...

    def extend(self, receipt: Receipt, by: float) -> bool:
        """Move the lease's end to at least now + by; False if it is lost."""
        ...

    def mark(self, receipt: Receipt) -> bool:
        """At most once: from now on a lost lease means `failed`, `worker-lost`. False if it is lost already."""
        ...

    def acquire(self, receipt: Receipt, limits: TaskLimits, latest: float | None = None) -> Permit:
        """Ask for room in the bucket of `limits`, atomically over all workers. Asked again with the same receipt: taken, and counted once.

        A rate is spent by the start; a place of `concurrency` is held as long as the lease, and is free again with every end of it:
        settled, given back, retried, reclaimed. Without room the delivery returns to its queue in this call, with its attempt, redeliveries
        and place in line as they were: the receipt is void. It comes back when there is room, or at `latest` (wall clock: its expiry) if
        that is sooner. The limits that were given last hold for the bucket.
        """
        ...

    def note(self, receipt: Receipt, meta: dict[str, Any] | None, progress: Progress | None) -> None:
        """Store what a running handler wrote; silently nothing if the lease is lost."""
        ...

    def reclaim(self, boot: str, predecessor: str | None = None, held: Collection[Receipt] | None = None) -> list[Reclaimed]:
        """Redeliver leases that ran out, a bounded number; with `predecessor`, those of that boot at once. Counted, capped.

        Of `boot`'s own that ran out, only those that are not among `held`: the worker dropped them, or never learned of them. None: it
        holds them all.
        """
        ...

    def revocations(self, boot: str) -> list[Revocation]:
        """Revokes of what this boot holds. The same order is answered each time until its delivery is settled."""
        ...

    def unattended_ends(self) -> list[UnattendedEnd]:
        """Those that ended in no worker's hands, some hundreds at once, each given out once; forgotten after a minute, and past 10,000."""
        ...

    def watch(self, boot: str, queues: Sequence[str]) -> WorkWatch:
        """For a worker: it wakes for new work in these queues, for revocations of this boot, for schedules, and for what ended apart.

        New work may stay unsaid while the last `exchange` got all that it wanted.
        """
        ...

    def beat(self, worker: WorkerInfo) -> None:
        """Say that this worker lives; it is shown for 30 s after its last beat. `neighbours` have its record while it holds a lease."""
        ...

    def remove_worker(self, worker_id: str) -> None: ...

    def neighbours(self, machine: str) -> list[WorkerInfo]:
        """The workers with this `WorkerInfo.machine` whose record is there, however long ago they were seen last. Some may be dead."""
        ...

    def remove_dead_worker(self, dead: WorkerInfo) -> None:
        """Drop the record of a worker that died, and nothing of another one that has its id by now."""
        ...

    def workers(self) -> list[WorkerInfo]: ...

    def sweep(self) -> int:
        """Drop what has expired (statuses, dead letters, locks, workers), a bounded number; return how many, 0 where nothing is left to do.

        A store that drops some of it by itself does not count that.
        """
        ...

    # -- schedules -----------------------------------------------------------------------------------------------------------------

    def schedules(self) -> list[ScheduleRecord]:
        """All of them, by name."""
        ...

    def put_schedule(self, record: ScheduleRecord) -> bool:
        """Store it and wake the workers. One of the same name and revision keeps its due time; another revision takes the new one. A pause
        and the last firing are kept. True if it is new or another revision."""
        ...

    def remove_schedule(self, name: str) -> bool:
        """False if there is none."""
        ...

    def pause_schedule(self, name: str) -> bool:
        """It fires nothing until it is resumed. False if there is none."""
        ...

    def resume_schedule(self, name: str, due: float) -> bool:
        """Let it go on from this due time, and wake the workers; one that was not paused keeps its own. False if there is none."""
        ...

    def fire(self, record: ScheduleRecord, due: float, sent: Sequence[Envelope | Canvas]) -> bool:
        """In one step: check that the schedule still has this revision and due time and is not paused, publish envelopes as `publish`
        does and canvases as `compose`, and store `due` as its next. False if the check failed; then nothing was changed.

        Their ids follow from the due time, so a store that cannot do it in one step publishes first and then moves the due
        time: two who do so at once, or one who dies in between, publish the same. Raises PayloadTooLarge.
        """
        ...

    # -- events --------------------------------------------------------------------------------------------------------------------

    def emit(self, events: Sequence[bytes]) -> None:
        """Keep them for those who listen now, bounded; nobody listening: dropped."""
        ...

    def listening(self) -> bool:
        """Whether anybody listens. Cheap, cached for up to a second."""
        ...

    def listen(self, timeout: float | None = None) -> Iterator[bytes]:
        """Events from now on, as they come; ends after `timeout` seconds without one. Closing the iterator stops listening."""
        ...

    def watch_events(self) -> EventWatch:
        """As `listen`, for whoever has something else to do meanwhile."""
        ...

    def close(self) -> None:
        """Let go of connections and descriptors. The broker may be used again and then opens new ones."""
        ...
