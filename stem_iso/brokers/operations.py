"""Contract of every broker, second part: what those ask for who look after the queue. `base` is the first part.

    list_tasks ── a page at a time ──> ListedTask …        add_counts <── workers, once a second        counts ──> per minute
    queue_states                                           pause, resume, paused                        hold: a paused task waits in a line
    send_command ──> commands ──> worker ──> reply ──> replies        run_now, edit: one task        log_action ──> actions

Rules
 1. Nothing here is on the road of a task, but the count of what is published: each of these may be late, and none may block. A scan is made
    of bounded steps, and each step is an answer of its own.
 2. An older worker or producer on the same store goes on as before; what it does is neither counted nor listed where it leaves no trace.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from stem_iso.brokers.records import Permit, Receipt, Replayed, StatusRecord

# What tasks are listed by. `queued` is ready now, or waits for other parts of its canvas; `delayed` is due later, a waiting retry and one
# that waits for a limit too; `retried` waits for its next attempt, now or later. One task may be in two of them.
LISTED_STATES = ("queued", "delayed", "running", "retried", "succeeded", "failed", "cancelled")

# What is counted of a task. `crashed`, `out_of_memory` and `timed_out_…` are ways in which an attempt ends, whatever becomes of the task.
COUNTED = (
    "enqueued",
    "started",
    "succeeded",
    "failed",
    "retried",
    "timed_out_soft",
    "timed_out_hard",
    "timed_out_silence",
    "crashed",
    "out_of_memory",
    "revoked",
)
COUNTS_LIFE = 86_400.0  # seconds
COMMAND_LIFE = 60.0  # seconds: a worker that has not asked by then never learns of it
MOST_ACTIONS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks: all given fields must match; none given means all. Groups of canvases are no tasks.

    `states` are of LISTED_STATES, any of them; `name` is a shell pattern (`thumbs.*`); `since` and `until` are of `enqueued_at`, wall
    clock, both ends included. A store may look for `since` with an hour to spare, for producers whose clocks are ahead, and no further.
    """

    states: Collection[str] | None = None
    queue: str | None = None
    name: str | None = None
    since: float | None = None
    until: float | None = None


class ListedTask(msgspec.Struct, frozen=True):
    """`position`: given as `after`, the list goes on behind this task. It stays the task's own as long as its status is kept."""

    position: str
    record: StatusRecord


class TaskList(msgspec.Struct, frozen=True):
    """One step of a list. `next`: where the next step begins; None at the end. There may be fewer tasks than were asked for, and none at
    all, with a `next`: then this is how far the store has looked."""

    tasks: list[ListedTask]
    next: str | None = None


class TaskCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to the tasks of one name in one queue in one minute (`minute`: wall clock // 60). `counts` by the words of COUNTED,
    those that are not zero; `wait` (from when it was ready until it began) and `run` (of an attempt) as of `task.histogram`."""

    queue: str
    name: str
    minute: int
    counts: dict[str, int] = {}
    wait: dict[int, int] = {}
    run: dict[int, int] = {}


class QueueState(msgspec.Struct, frozen=True, kw_only=True):
    """A queue as it stands. `by_priority` counts what is ready; `oldest_age` is how long, seconds, the oldest of these has been ready:
    since it was enqueued, came due, or was retried."""

    name: str
    by_priority: dict[int, int] = {}
    delayed: int = 0
    running: int = 0
    dead: int = 0
    oldest_age: float | None = None
    paused: bool = False

    @property
    def queued(self) -> int:
        return sum(self.by_priority.values())


class LimitState(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket of a limit: how many tasks hold it, and how many stand in its line. `count` starts per `period` seconds; 0: no rate."""

    bucket: str
    count: int = 0
    period: float = 0.0
    concurrency: int | None = None
    running: int = 0
    waiting: int = 0


class Pauses(msgspec.Struct, frozen=True):
    """Names of queues and of tasks of which nothing new begins."""

    queues: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is to do. `worker_id` "*": every one. `action` as of `app.control`, and "pauses": look at `paused()` again."""

    id: str
    worker_id: str
    action: str
    value: Any = None
    at: float = 0.0


class CommandReply(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker answers. `done` False: it refuses, and `text` says why; else `text` is what it was asked for, if anything."""

    worker_id: str
    done: bool = True
    text: str = ""


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody did, for the list of actions. `by` is "user@host" or what the dashboard knows of its visitor; `target` an id, a queue,
    a worker, or a filter in words; `result` in words."""

    at: float
    by: str
    action: str
    target: str = ""
    result: str = ""


class Operations(Protocol):
    # -- tasks ---------------------------------------------------------------------------------------------------------------------

    def list_tasks(self, which: TaskFilter, limit: int, after: str | None = None, newest_first: bool = True) -> TaskList:
        """Up to `limit` (1 to 1,000) tasks, by when the store first got them. The order is one order, whatever the filter: a task that is
        there throughout is met exactly once by who goes on with `next`, also while its state changes, and when it is retried or edited.
        Each step looks at a bounded number of tasks. Raises ValueError for an `after` that is no position.
        """
        ...

    def run_now(self, id: str, queue: str | None = None) -> Replayed | None:
        """Make a delayed task ready at once, a waiting retry too; its place in line is that of one that comes now. None for an unknown id.

        `refused`: `not-delayed`, where it is anything else (ready, running, ended, waiting for its canvas or for a limit).
        """
        ...

    def edit(self, id: str, run: int, args: bytes, queue: str | None = None) -> Replayed | None:
        """Give a task these arguments (encoded), and let it run anew: same id, run + 1, attempt 0. What waits keeps its due time and its
        lock; what has failed or was cancelled is as retried. `run` is the one that the editor saw. None for an unknown id.

        `refused`: `running`, `changed` (another run by now), `too-large`; and `succeeded`, `canvas`, `no-envelope`, `undecodable`, `unique`
        as of `retry`.
        """
        ...

    # -- counts --------------------------------------------------------------------------------------------------------------------

    def add_counts(self, counts: Sequence[TaskCounts]) -> None:
        """Add to what is kept. `enqueued` is counted by `publish`, `compose` and `fire`, of each task that is new, and by nobody else."""
        ...

    def counts(self, since: int, until: int, queue: str | None = None, name: str | None = None) -> list[TaskCounts]:
        """Those of these minutes, both included, one per (queue, name, minute), by minute; kept for a day."""
        ...

    # -- queues --------------------------------------------------------------------------------------------------------------------

    def queue_states(self) -> list[QueueState]:
        """Every queue that holds something, that a living worker serves, that is paused, or that was used within the last day, by name."""
        ...

    def limit_states(self, most: int = 1000) -> list[LimitState]:
        """Buckets that are in use, by name; of paused tasks none."""
        ...

    def pause(self, name: str, task: bool = False) -> bool:
        """Remember that nothing new begins of this queue, or of the tasks of this name. It is the workers who obey. False: it was so."""
        ...

    def resume(self, name: str, task: bool = False) -> bool:
        """False: it was not paused. What was held of this task is ready again: a bounded number at once, the rest soon after."""
        ...

    def paused(self) -> Pauses: ...

    def hold(self, receipt: Receipt, name: str) -> Permit:
        """Put a delivery of a paused task aside: it waits, reason `paused`, with its attempt, redeliveries and place in line as they were,
        until `resume`; the receipt is void. Verdicts as of `acquire`; DONE without a wait: it is not paused any more, run it."""
        ...

    # -- workers -------------------------------------------------------------------------------------------------------------------

    def send_command(self, command: Command) -> None:
        """Keep it for COMMAND_LIFE, and wake the workers."""
        ...

    def commands(self, worker_id: str, started_at: float) -> list[Command]:
        """Those for this worker that it has not replied to, oldest first, and none from before its start."""
        ...

    def reply(self, command_id: str, reply: CommandReply) -> None: ...

    def replies(self, command_id: str) -> list[CommandReply]:
        """By worker."""
        ...

    # -- actions -------------------------------------------------------------------------------------------------------------------

    def log_action(self, action: Action) -> None: ...

    def actions(self, limit: int = 100) -> list[Action]:
        """Newest first; MOST_ACTIONS are kept."""
        ...
