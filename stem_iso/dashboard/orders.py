"""Orders of visitors: what the dashboard does, as its API is asked to. Each answers with plain values, and leaves a line in the actions.

    POST /api/tasks/ID/retry ── Orders.retry(id, by) ──> handle.retry ──> {"id", "action", "task"}

Each method blocks: the server calls it in a thread (`DashboardContext.order`). `by` is who does it. All raise BrokerUnavailable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stem_iso.client.bulk import ACTIVE, GONE, BulkResult, delete
from stem_iso.client.event_stream import unknown
from stem_iso.client.schedules import ScheduleHandle
from stem_iso.client.task_filter import FilterFields
from stem_iso.dashboard.snapshots import Snapshots
from stem_iso.errors import ActionRefused, InvalidOptions, StemError
from stem_iso.json_data import to_plain

if TYPE_CHECKING:
    from stem_iso.app import Stem
    from stem_iso.client.bulk import BulkAction
    from stem_iso.client.worker_control import Acknowledged

WAIT = 5.0  # seconds that workers have to obey


class Interrupted(StemError):
    """The server stops in the middle of a bulk action. What was done is done; the action may be begun anew."""


class Orders:
    def __init__(self, app: Stem, snapshots: Snapshots) -> None:
        self._app, self._snapshots = app, snapshots

    # -- one task --------------------------------------------------------------------------------------------------------------------

    def retry(self, id: str, by: str) -> dict[str, Any]:
        """Raises RetryRefused, UnknownResult."""
        return self._logged("retry", id, by, self._app.handle(id).retry)

    def run_now(self, id: str, by: str) -> dict[str, Any]:
        """Raises ActionRefused, UnknownResult."""
        self._app.handle(id).run_now(by=by)
        return self._done("run-now", id)

    def edit(self, id: str, args: dict[str, Any], run: int | None, by: str) -> dict[str, Any]:
        """`run`: the one that was seen. Raises ActionRefused, PayloadTooLarge, UnknownResult, and InvalidOptions for what does not fit."""
        try:
            self._app.handle(id).edit(args, run=run, by=by)
        except TypeError as error:
            raise InvalidOptions(f"args: {error}") from None
        return self._done("edit", id)

    def revoke(self, id: str, by: str, terminate: bool = False) -> dict[str, Any]:
        """Raises ActionRefused where it has ended, UnknownResult."""
        action = "terminate" if terminate else "revoke"

        def revoke() -> None:
            if not self._app.revoke(id, terminate):
                raise ActionRefused(f"task {id} has ended; there is nothing to {action}")

        return self._logged(action, id, by, revoke)

    def delete(self, id: str, by: str) -> dict[str, Any]:
        """Drop what is kept of a task that has ended. Raises ActionRefused, UnknownResult."""

        def forget() -> None:
            with self._app.broker_pool.borrow() as broker:
                refused = delete(broker, id, None)
            if refused == GONE:
                raise unknown(id)
            if refused == ACTIVE:
                raise ActionRefused(f"task {id} has not ended; revoke it first")

        self._log("delete", id, by, forget)
        return {"id": id, "action": "delete"}

    def _logged(self, action: str, id: str, by: str, do: Callable[[], object]) -> dict[str, Any]:
        self._log(action, id, by, do)
        return self._done(action, id)

    def _log(self, action: str, target: str, by: str, do: Callable[[], object]) -> None:
        """The line says so where it was refused."""
        try:
            do()
        except ActionRefused:
            self._app.log_action(action, target, "refused", by=by)
            raise
        self._app.log_action(action, target, "done", by=by)

    def _done(self, action: str, id: str) -> dict[str, Any]:
        return {"id": id, "action": action, "task": self._snapshots.task(id)}

    # -- many --------------------------------------------------------------------------------------------------------------------------

    def bulk(
        self, action: BulkAction, which: FilterFields, *, all: bool, dry_run: bool, by: str, progress: Callable[[BulkResult], None]
    ) -> dict[str, Any]:
        """`progress` may raise `Interrupted`. Raises InvalidOptions."""
        result = self._app.bulk(action, all=all, dry_run=dry_run, by=by, progress=progress, **which)
        return {"action": action, "dry_run": dry_run, **to_plain(result)}

    # -- queues, tasks of a name, workers ----------------------------------------------------------------------------------------------

    def pause_queue(self, name: str, by: str) -> dict[str, Any]:
        return self._paused(name, True, self._app.pause(name, timeout=WAIT, by=by))

    def resume_queue(self, name: str, by: str) -> dict[str, Any]:
        return self._paused(name, False, self._app.resume(name, timeout=WAIT, by=by))

    def pause_task(self, name: str, by: str) -> dict[str, Any]:
        return self._paused(name, True, self._app.pause(task=name, timeout=WAIT, by=by))

    def resume_task(self, name: str, by: str) -> dict[str, Any]:
        return self._paused(name, False, self._app.resume(task=name, timeout=WAIT, by=by))

    def _paused(self, name: str, paused: bool, answers: Acknowledged) -> dict[str, Any]:
        return {"name": name, "paused": paused, **_acknowledged(answers)}

    def purge(self, name: str, by: str) -> dict[str, Any]:
        with self._app.broker_pool.borrow() as broker:
            count = broker.purge(name)
        self._app.log_action("purge", f"queue {name}", f"{count} cancelled", by=by)
        return {"name": name, "purged": count}

    def control(self, worker_id: str, action: str, value: Any, by: str) -> dict[str, Any]:
        """Raises InvalidOptions, ActionRefused where nobody obeyed, UnknownWorker."""
        answers = self._app.control(worker_id, action, value, timeout=WAIT, by=by)
        if not answers and not answers.refused and not answers.silent:
            raise UnknownWorker(f"no worker has the id {worker_id!r}: it has ended, or died")
        if not answers:
            raise ActionRefused(answers.in_words())
        return {"worker_id": worker_id, "action": action, "value": value, **_acknowledged(answers)}

    # -- schedules ---------------------------------------------------------------------------------------------------------------------

    def schedule(self, name: str, action: str, by: str) -> dict[str, Any]:
        """`action`: pause, resume, trigger, remove. Raises UnknownSchedule."""
        handle = ScheduleHandle(self._app.schedules, name)
        orders: dict[str, Callable[[], Any]] = {
            "pause": handle.pause,
            "resume": handle.resume,
            "trigger": handle.trigger,
            "remove": handle.remove,
        }
        sent = orders[action]()
        self._app.log_action(f"schedule {action}", name, "done" if sent is None else f"sent {sent.id}", by=by)
        return {"name": name, "action": action, "id": None if sent is None else sent.id}


class UnknownWorker(StemError, LookupError):
    """No worker of this id is there."""


def _acknowledged(answers: Acknowledged) -> dict[str, Any]:
    return {"obeyed": list(answers), "refused": answers.refused, "silent": answers.silent, "texts": answers.texts}
