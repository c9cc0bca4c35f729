"""A function of Django's task framework as a handler of the application, and what the framework shows of it.

    BackendTask.call(context, args) ── TaskResult, RUNNING ──> task_started ── func(*args, **kwargs) ── task_finished
    BackendTask.result_of(status) ───> TaskResult
    context.meta[META] ── priority, run_after, enqueued_at, started_at, last_attempted_at, worker_ids, errors, finished ──> both

`finished` is the [run, attempt] for whose end task_finished was sent where the function ran.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import datetime
from traceback import format_exception
from typing import Any

from django.conf import settings
from django.tasks import Task, TaskResult, TaskResultStatus
from django.tasks.base import TaskContext as FunctionContext
from django.tasks.base import TaskError as FunctionError
from django.tasks.signals import task_finished, task_started
from django.utils import timezone
from django.utils.json import normalize_json

from stem_iso.integrations.last_attempt import tried_again
from stem_iso.outcome import TaskError, TaskState, TaskStatus
from stem_iso.task.context import TaskContext
from stem_iso.task.handler import TaskHandler
from stem_iso.task.options import TaskOptions

META = "django.tasks"
LEVELS = (-79, -49, -24, 0, 1, 10, 25, 50, 80)  # from here on the broker's priorities 1, 2, … 9; 0 is 4
CANCELLED = "stem_iso.errors.TaskCancelled"
STATUSES = {
    TaskState.QUEUED: TaskResultStatus.READY,
    TaskState.RETRIED: TaskResultStatus.READY,
    TaskState.RUNNING: TaskResultStatus.RUNNING,
    TaskState.SUCCEEDED: TaskResultStatus.SUCCESSFUL,
    TaskState.FAILED: TaskResultStatus.FAILED,
    TaskState.CANCELLED: TaskResultStatus.FAILED,
}


class BackendTask(TaskHandler[Any]):
    """Arguments are {"args": [...], "kwargs": {...}}. `options` are those of the backend; `queues` those that it allows.

    Raises InvalidOptions.
    """

    def __init__(self, name: str, task: Task, alias: str, options: TaskOptions, isolate: bool, queues: Sequence[str]) -> None:
        self.name, self.task, self.alias, self.queues = name, task, alias, queues
        given: dict[str, Any] = {each: getattr(options, each) for each in options.given}
        self.options = TaskOptions(**given, queue=task.queue_name, priority=level_of(task.priority))
        self.isolate_entrypoint = self.call if isolate else None
        self.identity = task.func, options, options.given, isolate, list(queues)

    def call(self, context: TaskContext, args: dict[str, Any]) -> Any:
        result = self._begun(context, args)
        task_started.send_robust(type(self.task.get_backend()), task_result=result)
        try:
            value = normalize_json(self.task.func(*self._before(result), *result.args, **result.kwargs))
        except BaseException as error:  # whatever ends it, the worker is to have it
            if self._over(error, context, result):
                task_finished.send_robust(type(self.task.get_backend()), task_result=result)
            raise
        _succeeded(result, value)
        task_finished.send_robust(type(self.task.get_backend()), task_result=result)
        return value

    def _before(self, result: TaskResult) -> list[FunctionContext]:
        return [FunctionContext(task_result=result)] if self.task.takes_context else []

    def _begun(self, context: TaskContext, args: dict[str, Any]) -> TaskResult:
        """The attempt as the function may see it; it is in the task's `meta` from now on."""
        now = timezone.now()
        facts = facts_of(context.meta)
        facts["worker_ids"] = [*facts.get("worker_ids", ()), context.header.worker_id]
        facts.setdefault("started_at", now.isoformat())
        facts["last_attempted_at"] = now.isoformat()
        facts["errors"] = errors_of(context.headers)
        context.meta[META] = facts
        return self._result(
            facts,
            args,
            context.queue,
            id=context.id,
            status=TaskResultStatus.RUNNING,
            enqueued_at=_time(facts.get("enqueued_at")),
            finished_at=None,
        )

    def _over(self, error: BaseException, context: TaskContext, result: TaskResult) -> bool:
        """Whether the task has failed for good by this error; then the result says so."""
        if isinstance(error, asyncio.CancelledError) or tried_again(error, context):  # the core knows why it cancels
            return False
        context.meta[META] = facts_of(context.meta) | {"finished": [context.run, context.attempt]}
        _end(result, TaskResultStatus.FAILED)
        path = f"{type(error).__module__}.{type(error).__qualname__}"
        result.errors.append(FunctionError(exception_class_path=path, traceback="".join(format_exception(error))))
        return True

    # -- what is known of one ----------------------------------------------------------------------------------------------------------

    def result_of(self, status: TaskStatus) -> TaskResult:
        result = self._result(
            facts_of(status.meta),
            status.args or {},
            status.queue,
            id=status.id,
            status=STATUSES[status.state],
            enqueued_at=_shown(status.enqueued_at),
            finished_at=_shown(status.finished_at),
        )
        if status.state in (TaskState.FAILED, TaskState.RETRIED) and status.error is not None:
            result.errors.append(_error(shown_error(status.error)))
        elif status.state is TaskState.CANCELLED:
            result.errors.append(_error((CANCELLED, f"the task was cancelled: {status.reason}")))
        elif status.state is TaskState.SUCCEEDED:
            object.__setattr__(result, "_return_value", status.result)
        return result

    def _result(self, facts: dict[str, Any], args: Mapping[str, Any], queue: str, **fields: Any) -> TaskResult:
        task = type(self.task)(
            func=self.task.func,
            priority=facts.get("priority", self.task.priority),
            backend=self.alias,
            queue_name=queue,
            run_after=_time(facts.get("run_after")),
            takes_context=self.task.takes_context,
        )
        return TaskResult(
            task=task,
            started_at=_time(facts.get("started_at")),
            last_attempted_at=_time(facts.get("last_attempted_at")),
            args=args.get("args", []),
            kwargs=args.get("kwargs", {}),
            backend=self.alias,
            errors=[_error(each) for each in facts.get("errors", ())],
            worker_ids=list(facts.get("worker_ids", ())),
            **fields,
        )


class AsyncBackendTask(BackendTask):
    """A coroutine function. Receivers of signals that are none get a thread."""

    async def call(self, context: TaskContext, args: dict[str, Any]) -> Any:
        result = self._begun(context, args)
        await task_started.asend_robust(type(self.task.get_backend()), task_result=result)
        try:
            value = normalize_json(await self.task.func(*self._before(result), *result.args, **result.kwargs))
        except BaseException as error:  # whatever ends it, the worker is to have it
            if self._over(error, context, result):
                await task_finished.asend_robust(type(self.task.get_backend()), task_result=result)
            raise
        _succeeded(result, value)
        await task_finished.asend_robust(type(self.task.get_backend()), task_result=result)
        return value


def level_of(priority: int) -> int:
    """The broker's priority, 0 to 9, of one from -100 to 100; the sign always counts."""
    return bisect_right(LEVELS, priority)


def facts_of(meta: Mapping[str, Any]) -> dict[str, Any]:
    """A copy; empty for what another program enqueued, who may have put anything there."""
    found = meta.get(META)
    return dict(found) if isinstance(found, dict) else {}


def errors_of(headers: Mapping[str, Any]) -> list[Any]:
    """Of earlier attempts: (path of the class, traceback)."""
    found = headers.get(META)
    return list(found) if isinstance(found, list) else []


def shown_error(error: TaskError) -> tuple[str, str]:
    """Path of the exception's class, and a text that is a traceback wherever one is known."""
    path = error.type if "." in error.type else f"builtins.{error.type}"
    return path, error.traceback or "\n".join(filter(None, (error.stack, f"{error.type}: {error.message}")))


def _error(shown: Sequence[str]) -> FunctionError:
    return FunctionError(exception_class_path=shown[0], traceback=shown[1])


def _succeeded(result: TaskResult, value: Any) -> None:
    _end(result, TaskResultStatus.SUCCESSFUL)
    object.__setattr__(result, "_return_value", value)


def _end(result: TaskResult, status: TaskResultStatus) -> None:
    object.__setattr__(result, "status", status)
    object.__setattr__(result, "finished_at", timezone.now())


def _time(text: str | None) -> datetime | None:
    return None if text is None else _shown(datetime.fromisoformat(text))


def _shown(at: datetime | None) -> datetime | None:
    """As this project has times: aware with USE_TZ, else naive and local."""
    if at is None or timezone.is_aware(at) == settings.USE_TZ:
        return at
    converted: datetime = timezone.make_aware(at) if settings.USE_TZ else timezone.make_naive(at)
    return converted
