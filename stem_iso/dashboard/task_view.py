"""View of one task: its status, and what stands around it: the limits that hold, its isolate, its canvas, what may be done to it.

TaskStatus ── task_row ──> TaskShown ── task_view ──> TaskView
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, cast

from stem_iso.client.event_stream import unknown
from stem_iso.client.task_excerpt import ALONE, excerpt
from stem_iso.dashboard.shapes import CanvasNode, CanvasView, IsolateShown, TaskLimitsView, TaskShown, TaskView
from stem_iso.errors import InvalidOptions
from stem_iso.outcome import TERMINAL, TaskState, TaskStatus
from stem_iso.task.canvas import drawing
from stem_iso.task.canvas.tree import Leaf, Parallel, Series, Tree, last_of, parts_of

if TYPE_CHECKING:
    from datetime import datetime

    from stem_iso.app import Stem
    from stem_iso.brokers.base import Broker, StatusRecord

MOST_PARTS = 100  # of one group that are shown
ENDED_AGAIN = ("failed", "cancelled")


def task_row(task: TaskStatus, now: float, alive: Callable[[str | None], bool], cut: list[str]) -> TaskShown:
    """`now`: wall clock; `alive`: whether the worker of this id answers."""
    runs = task.state is TaskState.RUNNING
    fields = task.as_dict()
    fields["answering"] = alive(task.worker_id) if runs else None
    fields["elapsed"] = _between(task.started_at, task.finished_at, now) if runs or task.finished_at else None
    fields["waited"] = _waited(task, now)
    fields["cut"] = cut
    return cast("TaskShown", fields)


def _between(since: datetime | None, until: datetime | None, now: float) -> float | None:
    if since is None:
        return None
    return max(0.0, (now if until is None else until.timestamp()) - since.timestamp())


def _waited(task: TaskStatus, now: float) -> float | None:
    """Of the newest attempt, from when it could begin; where that is not known, from the end of the one before."""
    before = task.attempts[-1].finished_at if task.attempts else None
    ready = max((moment for moment in (task.enqueued_at, task.not_before, task.ready_at, before) if moment is not None), default=None)
    if ready is None or (task.started_at is None and (task.state in TERMINAL or ready.timestamp() > now)):
        return None
    begun = None if task.state in (TaskState.QUEUED, TaskState.RETRIED) else task.started_at
    if begun is None and ready.timestamp() > now:
        return None
    return _between(ready, begun, now)


def task_view(app: Stem, id: str, now: float, alive: Callable[[str | None], bool], isolate: IsolateShown | None) -> TaskView:
    """Raises UnknownResult."""
    with app.broker_pool.borrow() as broker:
        (record,) = broker.status([id])
        if record is None:
            raise unknown(id)
        canvas = _canvas_of(broker, record)
    status, cut = excerpt(app, record, ALONE)
    limits = _limits(app, status.name, isolate)
    fields = dict(task_row(status, now, alive, cut))
    fields |= {"limits": limits, "isolate": isolate, "canvas": canvas, "can": allowed(status, now)}
    return cast("TaskView", fields | {"max_retries": None if limits is None else limits["max_retries"]})


def allowed(task: TaskStatus, now: float) -> list[str]:
    """What may be done to it as it stands; the broker has the last word."""
    ended = task.state in TERMINAL
    due_later = task.not_before is not None and task.not_before.timestamp() > now
    waits = task.state in (TaskState.QUEUED, TaskState.RETRIED)
    part = not task.queue  # a group
    can = {
        "retry": task.state.value in ENDED_AGAIN and not part,
        "revoke": not ended,
        "terminate": task.state is TaskState.RUNNING,
        "run-now": waits and due_later,
        "edit": (waits or task.state.value in ENDED_AGAIN) and task.args is not None and not part,
        "delete": ended,
    }
    return [action for action, possible in can.items() if possible]


def _limits(app: Stem, name: str, isolate: IsolateShown | None) -> TaskLimitsView | None:
    """Those in force, else those that its task declares here."""
    try:
        options = app.options_of(name) if name in app.registry else None
    except InvalidOptions:
        options = None
    if isolate is None and options is None:
        return None
    declared = {
        field: getattr(options, field, None)
        for field in ("soft_time_limit", "hard_time_limit", "heartbeat_timeout", "memory_limit", "max_retries")
    }
    if isolate is not None:
        declared |= {field: isolate[field] for field in ("soft_time_limit", "hard_time_limit", "memory_limit")}
    return cast("TaskLimitsView", {"source": "code" if isolate is None else "isolate", **declared})


# -- canvas ----------------------------------------------------------------------------------------------------------------------------


def _canvas_of(broker: Broker, record: StatusRecord) -> CanvasView | None:
    """The canvas that it is a part of: all parts have the canvas's id as their root, or it is the canvas's last part itself."""
    for id in dict.fromkeys(each for each in (record.root_id, record.id) if each):
        if (tree := broker.tree(id)) is not None and record.id in {ref.id for ref in parts_of(tree)}:
            return _canvas_view(broker, tree)
    return None


def _canvas_view(broker: Broker, tree: Tree) -> CanvasView:
    shown = _shown_ids(tree)
    found = {record.id: record for record in broker.status(shown) if record is not None}
    words = {id: record.reason or record.state.value for id, record in found.items()}
    return CanvasView(id=last_of(tree).id, text=drawing.text(tree, words), root=_node(tree, found))


def _shown_ids(tree: Tree) -> list[str]:
    match tree:
        case Leaf():
            ids = [tree.id]
        case Series(parts=parts):
            ids = [id for part in parts for id in _shown_ids(part)]
        case Parallel(members=members):
            ids = [tree.id, *(id for member in members[:MOST_PARTS] for id in _shown_ids(member))]
    return ids + [id for leaf in tree.on_error for id in _shown_ids(leaf)]


def _node(tree: Tree, found: Mapping[str, StatusRecord]) -> CanvasNode:
    kind, id, name, queue, parts, more = _facts(tree)
    record = found.get(id)
    return CanvasNode(
        kind=kind,
        id=id,
        name=name,
        queue=queue,
        state=None if record is None else record.state.value,
        reason=None if record is None else record.reason,
        parts=[_node(part, found) for part in parts],
        on_error=[_node(leaf, found) for leaf in tree.on_error],
        more=more,
    )


def _facts(tree: Tree) -> tuple[str, str, str, str, Iterable[Tree], int]:
    match tree:
        case Leaf():
            return "task", tree.id, tree.name, tree.queue, (), 0
        case Series(parts=parts):
            return "chain", "", "", "", parts, 0
        case Parallel(members=members):
            return "group", tree.id, "group", "", members[:MOST_PARTS], max(0, len(members) - MOST_PARTS)
