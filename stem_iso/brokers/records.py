"""Records of a broker: the values that go in and out. `base` says what is done with them.

Durations are seconds; times of records that are shown to people are wall-clock seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec

from stem_iso.outcome import EndedAttempt, Progress, TaskError, TaskState
from stem_iso.task.settlement import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerOptions:
    """Settings of a broker, from keywords of `Stem` or from the URL's query. See the README's table of defaults."""

    block_time: float = 5.0
    claim_interval: float = 1.0
    default_visibility_timeout: float = 60.0
    max_redeliveries: int = 3
    dead_letter_ttl: float = 30 * 86_400.0
    max_payload_bytes: int = 1 << 20
    max_result_bytes: int = 16 << 20
    sync: str = "normal"  # SQLite: "normal" or "full"


# The three below are made or hashed several times for each task: structs, because a frozen dataclass does that in Python, at four times
# the price.


class Receipt(msgspec.Struct, frozen=True):
    """Names one delivery: the task, the worker's boot, and a count that only grows in that boot."""

    id: str
    boot: str
    sequence: int


class Delivery(msgspec.Struct, frozen=True):
    """An envelope leased to a worker. `body` is undecoded: only the worker's admission may find out that it is no envelope."""

    receipt: Receipt
    body: bytes
    queue: str
    redeliveries: int
    visibility: float
    revoked: bool = False


class Settlement(msgspec.Struct, frozen=True):
    """The end of one attempt. `meta` and `progress` are what the handler wrote, None where it wrote nothing."""

    receipt: Receipt
    plan: Plan
    meta: dict[str, Any] | None = None
    progress: Progress | None = None


class Verdict(Enum):
    """What became of a settlement."""

    DONE = "done"
    LOST = "lost"  # the delivery was another's; nothing was changed
    CANCELLED = "cancelled"  # the run was revoked: carried out as `cancelled`, reason `revoked`


class Permit(msgspec.Struct, frozen=True):
    """The answer to `acquire`. DONE without a wait: taken, run it now. DONE with `wait`: the delivery is back in its queue, and comes again
    when there is room, at the latest after so many seconds. LOST, CANCELLED: as of a settlement."""

    verdict: Verdict
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class Exchange:
    """`next_due`: seconds until the earliest delayed envelope of these queues is due, None without one. `ready`: more can be leased."""

    verdicts: list[Verdict]
    deliveries: list[Delivery]
    next_due: float | None
    ready: bool = False


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """A lease that was taken from `boot`: redelivered (`state` QUEUED), or ended as failed (`redelivery-limit`, `worker-lost`) or as
    cancelled."""

    id: str
    name: str
    queue: str
    run: int
    attempt: int
    state: TaskState
    reason: str | None = None
    boot: str = ""


@dataclass(frozen=True, slots=True)
class UnattendedEnd:
    """A task that ended in the store, in no worker's hands: `cancelled` while it waited (`revoked`, `purged`, `expired`), or as a failed
    canvas."""

    id: str
    name: str
    queue: str
    run: int
    attempt: int
    state: TaskState
    reason: str
    error: TaskError | None = None


@dataclass(frozen=True, slots=True)
class Revocation:
    """The run of a delivery that this worker holds was revoked; `terminate` asks for a kill at once."""

    receipt: Receipt
    terminate: bool


class StatusRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A task as the broker knows it; `result` and `args` are still encoded. Times are wall-clock seconds.

    `args` is None where no envelope is kept: of a group, of what cannot be read, and of what an older worker has ended. `attempts` are
    those of the envelope.
    """

    id: str
    name: str
    queue: str
    state: TaskState
    reason: str | None = None
    run: int = 0
    attempt: int = 0
    redeliveries: int = 0
    result: bytes | None = None
    error: TaskError | None = None
    progress: Progress | None = None
    meta: dict[str, Any] = {}
    enqueued_at: float | None = None
    not_before: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    worker_id: str | None = None
    parent_id: str | None = None
    root_id: str | None = None
    args: bytes | None = None
    attempts: tuple[EndedAttempt, ...] = ()
    ready_at: float | None = None  # when its newest attempt could begin: as it came, or fell due; None where no envelope is kept


class MemberState(msgspec.Struct, frozen=True):
    """A member of a group, at its place."""

    id: str
    state: TaskState


class QueueCount(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    queued: int
    delayed: int
    running: int
    dead: int


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead task. `body` is the envelope of its last attempt, or the raw bytes that were no envelope."""

    id: str
    name: str
    queue: str
    reason: str
    run: int
    attempt: int
    died_at: float
    error: TaskError | None = None
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class DeadFilter:
    """Which dead letters: all given fields must match; none given means all. `since` is wall-clock seconds."""

    ids: Sequence[str] | None = None
    queue: str | None = None
    name: str | None = None
    since: float | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of a replay or a retry. `run` is the new one, or the one that stands where it was refused.

    `refused` is None, or why: `unique` (another one holds its lock), `undecodable`, `active` (it has not ended); of a retry also
    `succeeded`, `canvas` (it is a part of one, or a group), `no-envelope` (an older worker ended it, and kept none).
    """

    id: str
    run: int
    refused: str | None = None


class IsolateInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A process of a worker as others see it. `state`: "starting", "spare" (ready, without a call), "busy", "shared" (the host of inline
    handlers). Of a busy one: the task, when it began (wall clock), its limits (seconds, None: none) and its memory (bytes, with all that
    it spawned, None: not measured) against its limit."""

    pid: int
    state: str
    task_id: str | None = None
    name: str | None = None
    started_at: float | None = None
    soft_time_limit: float | None = None
    hard_time_limit: float | None = None
    memory: int | None = None
    memory_limit: int | None = None
    cores: list[int] = []


ANSWERS_WITHIN = 5.0  # seconds: two heartbeats that were lost, and one that is late


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as others see it. `boot` is what its receipts carry.

    `machine` names the machine's boot and the namespaces in which `processes` (pid, start time) mean something: the worker lives as long as
    one of these does. "": nobody can judge that from outside.

    `silent_for`: seconds from its last heartbeat until the store was asked, both by the store's clock; that of whoever asks may differ.
    """

    id: str
    boot: str
    hostname: str
    pid: int
    queues: list[str]
    seats: int
    spares: int
    running: list[str] = msgspec.field(default_factory=list)  # ids of tasks
    cores: list[int] = msgspec.field(default_factory=list)  # those that it may use
    pinned: dict[str, list[int]] = msgspec.field(default_factory=dict)  # id of a running task -> the cores that are its own
    started_at: float = 0.0
    seen_at: float = 0.0
    broker: str = ""
    machine: str = ""
    processes: list[tuple[int, int]] = msgspec.field(default_factory=list)
    isolates: list[IsolateInfo] = msgspec.field(default_factory=list)
    draining: bool = False  # it takes nothing new
    silent_for: float = 0.0

    @property
    def answers(self) -> bool:
        return answers(self.silent_for)


def answers(silent_for: float) -> bool:
    """Whether a worker is shown as alive that was heard of so many seconds ago."""
    return silent_for < ANSWERS_WITHIN


class ScheduleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as the broker keeps it. `body` is undecoded, `revision` names its contents, `owner` the application whose code declares
    it ("": a program put it there). `due` is the next due time that has not been fired, without jitter; times are wall clock.
    """

    name: str
    revision: str
    body: bytes
    due: float
    owner: str = ""
    paused: bool = False
    fired_at: float | None = None


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """A broker's URL taken apart: `scheme`, `path` (as written after the scheme), and the options of its query."""

    scheme: str
    path: str
    options: dict[str, str] = field(default_factory=dict)
