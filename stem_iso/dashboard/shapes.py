"""Shapes of what the dashboard shows: plain values that `json.dumps` takes. The JSON API answers with them, the pages are made of them.

    Overview           /                /api/overview           ScheduleView[]    /schedules     /api/schedules
    TaskRows           /tasks           /api/tasks              LimitView[]       /limits        /api/limits
    TaskView           /tasks/ID        /api/tasks/ID           ActionView[]      /actions       /api/actions
    FailureGroup[]     /failures        /api/failures           QueueView[]       /queues        /api/queues
    WorkerView[]       /workers         /api/workers            StatsView                        /api/stats

Rules
 1. A moment is a text, ISO 8601 in UTC; a duration is seconds; a size is bytes. Series have their moments as whole seconds since the epoch.
 2. Arguments are as people may see them: "***" where they are redacted, None where nobody here can say what is to be redacted.
 3. Texts are what users and programs wrote, of any characters. Who makes a page of them escapes them.
"""

from __future__ import annotations

from typing import Any, TypedDict

# -- overview --------------------------------------------------------------------------------------------------------------------------


class Quantile(TypedDict):
    """Seconds that so much of all did not exceed, right to 5 %; None where there were none."""

    p50: float | None
    p95: float | None
    p99: float | None


class CountSeries(TypedDict):
    """One column for each word that is counted, a minute a place, oldest first; the last place still grows."""

    at: list[int]  # when the minute began, seconds since the epoch
    enqueued: list[int]
    started: list[int]
    succeeded: list[int]
    failed: list[int]
    retried: list[int]
    timed_out_soft: list[int]
    timed_out_hard: list[int]
    timed_out_silence: list[int]
    crashed: list[int]
    out_of_memory: list[int]
    revoked: list[int]


class SpanCounts(TypedDict):
    """What happened in an hour or a day. `counts` has every word that is counted. `wait`: from ready until begun; `run`: of an attempt."""

    counts: dict[str, int]
    wait: Quantile
    run: Quantile


class OverviewQueue(TypedDict):
    name: str
    queued: int
    delayed: int
    running: int
    dead: int
    oldest_age: float | None
    paused: bool
    rate: float  # tasks ended per second, over the last minute
    served: int  # workers that answer and serve it
    hour: SpanCounts
    day: SpanCounts


class OverviewTotals(TypedDict):
    """Of all queues, and of all workers."""

    queued: int
    delayed: int
    running: int
    dead: int
    rate: float
    oldest_age: float | None
    workers: int  # that answer
    silent: int  # workers that do not
    seats: int
    busy: int  # tasks in the hands of workers that answer


class Overview(TypedDict):
    at: str
    broker: str  # its URL, without password
    ready: bool  # False: the day is still being read, and `hour` and `day` lack a part of it
    totals: OverviewTotals
    hour: CountSeries
    day: CountSeries
    span_hour: SpanCounts
    span_day: SpanCounts
    queues: list[OverviewQueue]  # by name
    paused_tasks: list[str]


# -- tasks -----------------------------------------------------------------------------------------------------------------------------


class ErrorView(TypedDict):
    """`stack`: where it was stuck when its limit came, or when it died; `traceback`: of the exception that it raised; `output`: the last
    lines that it printed or logged. "" where none."""

    type: str
    message: str
    traceback: str
    retryable: bool
    exit_code: int | None
    signal: str | None
    stack: str
    output: str


class ProgressView(TypedDict):
    percent: float
    data: Any


class AttemptView(TypedDict):
    """One that another one followed. `state`: "retried"; "failed" or "cancelled" where it was the last of its run. The limits are those
    that held, seconds; None: there was none, or nobody knows."""

    run: int
    attempt: int
    started_at: str | None
    finished_at: str
    state: str
    reason: str
    error_type: str
    error_message: str
    soft_time_limit: float | None
    hard_time_limit: float | None
    worker_id: str
    killed: bool


class TaskShown(TypedDict):
    """`TaskStatus.as_dict()`, and what follows the blank line."""

    id: str
    name: str
    queue: str
    state: str  # queued running succeeded failed retried cancelled
    reason: str | None
    run: int
    attempt: int
    redeliveries: int
    result: Any
    error: ErrorView | None
    progress: ProgressView | None
    meta: dict[str, Any]
    enqueued_at: str | None
    not_before: str | None
    started_at: str | None
    finished_at: str | None
    worker_id: str | None
    parent_id: str | None
    root_id: str | None
    args: dict[str, Any] | None
    attempts: list[AttemptView]  # before the newest, oldest first
    ready_at: str | None

    answering: bool | None  # of one that runs: whether its worker was seen within 5 s; None for all others
    elapsed: float | None  # seconds of the newest attempt, so far or whole
    waited: float | None  # seconds from when it was ready until that began, so far or whole; None where it is not ready
    cut: list[str]  # which of `result` and `args` are not whole, but an excerpt: a list has 2 KiB of each, one task 1 MiB of its result


class TaskRows(TypedDict):
    tasks: list[TaskShown]
    cursor: str | None  # of the next page; None: there is none. A page may be short, or empty, and have one


class TaskLimitsView(TypedDict):
    """None: no limit. `source`: "isolate" (in force now), "envelope" (as it was enqueued), "code" (what its task declares here)."""

    source: str
    soft_time_limit: float | None
    hard_time_limit: float | None
    heartbeat_timeout: float | None
    memory_limit: int | None
    max_retries: int | None


class IsolateShown(TypedDict):
    """`state`: starting, spare, busy, shared. `elapsed`: seconds of its task. `memory`: bytes, with all that it spawned."""

    pid: int
    state: str
    task_id: str | None
    name: str | None
    started_at: str | None
    elapsed: float | None
    soft_time_limit: float | None
    hard_time_limit: float | None
    memory: int | None
    memory_limit: int | None
    cores: list[int]


class CanvasNode(TypedDict):
    """A part of a canvas. `kind`: "task" (has no parts), "chain", "group". `id`, `name`, `queue` are "" for a chain; `state` is None where
    it has expired, and of a chain. `more`: parts of a group that are left out, past the first 100."""

    kind: str
    id: str
    name: str
    queue: str
    state: str | None
    reason: str | None
    parts: list[CanvasNode]
    on_error: list[CanvasNode]
    more: int


class CanvasView(TypedDict):
    id: str
    text: str  # the drawing of `stem-iso graph`
    root: CanvasNode


class TaskView(TaskShown):
    limits: TaskLimitsView | None
    isolate: IsolateShown | None  # the process that it runs in
    canvas: CanvasView | None
    max_retries: int | None
    can: list[str]  # of retry revoke terminate run-now edit delete: what its state allows now


class FailureGroup(TypedDict):
    """Failed tasks with one type of error and one place. `place`: the innermost frame of traceback or stack, `file.py:12 in name`; "" where
    there is none."""

    type: str
    place: str
    message: str  # of the newest
    count: int
    names: dict[str, int]  # tasks by name
    queues: dict[str, int]
    first_at: str | None
    last_at: str | None
    newest: list[str]  # ids, newest first, at most 20


class StatsBucketView(TypedDict):
    at: str
    enqueued: int
    started: int
    succeeded: int
    failed: int
    retried: int
    timed_out_soft: int
    timed_out_hard: int
    timed_out_silence: int
    crashed: int
    out_of_memory: int
    revoked: int


class StatsView(TypedDict):
    """`app.task_stats`; `name` "": all tasks."""

    name: str
    minutes: int
    buckets: list[StatsBucketView]
    wait: Quantile
    run: Quantile


# -- the rest --------------------------------------------------------------------------------------------------------------------------


class QueueView(TypedDict):
    """`QueueStats`. `silent`: ids of workers that serve it, so far as one knows, and do not answer; they are not among `served_by`."""

    name: str
    queued: int
    delayed: int
    running: int
    dead: int
    oldest_age: float | None
    paused: bool
    rate: float
    served_by: list[str]
    by_priority: dict[str, int]

    silent: list[str]


class WorkerView(TypedDict):
    id: str
    hostname: str
    pid: int
    queues: list[str]
    seats: int
    spares: int
    running: list[str]  # ids of tasks
    cores: list[int]
    pinned: dict[str, list[int]]
    started_at: str | None
    seen_at: str | None
    draining: bool
    isolates: list[IsolateShown]

    answering: bool  # False: not seen for more than 5 s; it may be dead, and its tasks with it
    seen_ago: float  # seconds


class ScheduleOutcomeView(TypedDict):
    """`due`: for when it was fired. `ended_at` is None while its task has not ended."""

    id: str
    due: str | None
    state: str
    reason: str | None
    ended_at: str | None


class ScheduleView(TypedDict):
    """`ScheduleInfo`. `outcomes`: of its last five firings, the newest first, as far as the broker knows them; none by hand."""

    name: str
    tasks: list[str]
    when: str
    cron: str | None
    timezone: str | None
    every: float | None
    jitter: float
    catch_up: str
    next_due: str | None
    last_fired: str | None
    paused: bool
    late: float
    owner: str
    outcomes: list[ScheduleOutcomeView]


class LimitView(TypedDict):
    """A bucket: at most `count` starts per `period` seconds (0: no rate), and `concurrency` at once (None: any number)."""

    bucket: str
    count: int
    period: float
    concurrency: int | None
    running: int
    waiting: int


class ActionView(TypedDict):
    at: str
    by: str
    action: str
    target: str
    result: str
