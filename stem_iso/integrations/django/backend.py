"""Backend of Django's task framework (`django.tasks`, Django 6): its tasks, run by workers of stem_iso.

    TASKS = {"default": {"BACKEND": "stem_iso.integrations.django.StemBackend", "QUEUES": ["default", "mail"],
                         "OPTIONS": {"isolate": True, "hard_time_limit": 60, "max_retries": 3}}}

    @task            ── validate_task ──> BackendTask in the application's registry: its name is the function's path
    send.enqueue(7)  ── on commit ──────> broker ── task_enqueued
    worker           task_started ── the function ── task_finished ──> its result, as JSON has it
    core             task_finished of what was killed or never ran: a limit, a crash, bad arguments, a lost worker
    get_result(id)   <── status of the broker

Rules
 1. OPTIONS are those of `@app.task`, and hold for all tasks of this backend. Tasks of another alias than "default" are named `path@alias`.
 2. A worker runs the functions that its processes have imported: of modules named `tasks`, and of those in STEM_ISO["include"].
 3. What the framework wants to know of a task and a broker does not keep (its priority, worker ids, errors of earlier attempts) is in the
    task's `meta`, under META; errors reach it by a header of the same name.
 4. READY is a task that waits for its first or next attempt. One that was revoked, or expired, is FAILED, with the error TaskCancelled.
 5. A receiver of a signal that raises is logged by Django, and harms no task.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import iscoroutinefunction
from types import ModuleType
from typing import Any

import msgspec
from django.apps import apps
from django.conf import settings
from django.core import checks
from django.tasks import Task, TaskResult, TaskResultStatus, task_backends
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.base import DEFAULT_TASK_BACKEND_ALIAS
from django.tasks.exceptions import InvalidTask, InvalidTaskBackend, TaskResultDoesNotExist
from django.tasks.signals import task_enqueued, task_finished
from django.utils import timezone

from stem_iso.client.enqueue import after_commit, envelope, new_id, waits
from stem_iso.errors import InvalidOptions, UnknownResult
from stem_iso.integrations.django.application import PACKAGE, app
from stem_iso.integrations.django.backend_task import META, AsyncBackendTask, BackendTask, errors_of, facts_of, level_of, shown_error
from stem_iso.integrations.django.connections import close_old
from stem_iso.outcome import TaskError, TaskStatus
from stem_iso.signals import TaskFailedSignal, TaskRevokedSignal
from stem_iso.task.envelope import Envelope
from stem_iso.task.middleware import Middleware
from stem_iso.task.options import DECLARED_CHECKS, TaskOptions
from stem_iso.validation import did_you_mean, flag, queue

OPTIONS = frozenset(DECLARED_CHECKS) - {"queue", "priority", "redact", "isolate_entrypoint"} | {"isolate"}
MOST_ERRORS, LONGEST_TRACEBACK = 20, 20_000  # of earlier attempts, and characters: they travel with every attempt


class StemBackend(BaseTaskBackend):
    """Raises InvalidTaskBackend for OPTIONS that cannot be meant."""

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)
        self._declared: set[Callable[..., Any]] = set()
        where = f"TASKS[{alias!r}]"
        try:
            for name in self.queues:
                queue(f"{where}['QUEUES']", name)
        except InvalidOptions as error:
            raise InvalidTaskBackend(str(error)) from None
        for name in self.options:
            if name not in OPTIONS:
                raise InvalidTaskBackend(f"{where}['OPTIONS']: there is no option {name!r}{did_you_mean(str(name), OPTIONS)}")
        given = dict(self.options)
        try:
            self.isolate = flag("isolate", given.pop("isolate", False))
            self.task_options = TaskOptions(**given)
        except InvalidOptions as error:
            raise InvalidTaskBackend(f"{where}['OPTIONS']: {error}") from None

    def check(self, **kwargs: Any) -> Iterator[Any]:
        if not apps.is_installed(PACKAGE):
            hint = "Without it there is no manage.py stem_worker, and no module of tasks is found."
            yield checks.Error(f"TASKS[{self.alias!r}] needs {PACKAGE!r} in INSTALLED_APPS.", hint=hint, id="stem_iso.E001")

    def validate_task(self, task: Task) -> None:
        """Raises InvalidTask. A function that is seen for the first time is declared, to every backend of this class."""
        super().validate_task(task)
        try:
            queue("queue_name", task.queue_name)
        except InvalidOptions as error:
            raise InvalidTask(str(error)) from None
        if task.func not in self._declared:
            declare(task)

    def declare(self, task: Task) -> None:
        """Raises InvalidTask for options that cannot be enforced on this function, and for a name that is taken."""
        self._declared.add(task.func)
        name = self._name_of(task)
        present = app.registry.resolve(name) if name in app.registry else None
        kind = AsyncBackendTask if iscoroutinefunction(task.func) else BackendTask
        try:
            handler = kind(name, task, self.alias, self.task_options, self.isolate, sorted(self.queues))
            if not isinstance(present, BackendTask) or present.identity != handler.identity:  # TASKS was overridden, its module reloaded
                app.register(handler, override=isinstance(present, BackendTask))
        except InvalidOptions as error:
            raise InvalidTask(f"TASKS[{self.alias!r}]: {error}") from None

    def enqueue(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
        """Raises InvalidTask, TypeError for arguments that JSON does not know, PayloadTooLarge and BrokerUnavailable."""
        self.validate_task(task)
        result = self._ready(task, args, kwargs)
        facts = {"priority": task.priority, "enqueued_at": result.enqueued_at.isoformat()}
        reference = app.task_named(self._name_of(task)).using(task_id=result.id, queue=task.queue_name, priority=level_of(task.priority))
        if task.run_after is not None:
            facts["run_after"] = task.run_after.isoformat()
            reference = reference.using(eta=task.run_after if timezone.is_aware(task.run_after) else timezone.make_aware(task.run_after))
        reference = reference.using(meta={META: facts})

        def store() -> None:
            handle = reference.using(on_commit=False).enqueue(args=result.args, kwargs=result.kwargs)
            object.__setattr__(result, "id", handle.id)  # of a unique task: the one that waits already
            task_enqueued.send_robust(type(self), task_result=result)

        if waits(app, reference):
            call = reference.s(args=result.args, kwargs=result.kwargs)
            after_commit(app, [envelope(call, None, app.clock())], store)
        else:
            store()
        return result

    def _ready(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
        return TaskResult(
            task=task,
            id=new_id(),
            status=TaskResultStatus.READY,
            enqueued_at=timezone.now(),
            started_at=None,
            finished_at=None,
            last_attempted_at=None,
            args=list(args),
            kwargs=dict(kwargs),
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )

    def get_result(self, result_id: str) -> TaskResult:
        """Raises TaskResultDoesNotExist, BrokerUnavailable."""
        try:
            status = app.handle(str(result_id)).status()
        except UnknownResult:
            raise TaskResultDoesNotExist(result_id) from None
        handler = app.registry.resolve(status.name) if status.name in app.registry else None
        if not isinstance(handler, BackendTask) or handler.alias != self.alias:
            raise TaskResultDoesNotExist(result_id)
        return handler.result_of(status)

    def _name_of(self, task: Task) -> str:
        return task.module_path if self.alias == DEFAULT_TASK_BACKEND_ALIAS else f"{task.module_path}@{self.alias}"


def declare(task: Task) -> None:
    """To every backend of this class: `task.using(backend=...)` may name any of them, where no worker hears it."""
    for alias in settings.TASKS:
        backend = task_backends[alias]
        if isinstance(backend, StemBackend):
            backend.declare(task)


def declare_all() -> None:
    """What the modules of tasks hold, also for other backends."""
    names = [f"{config.name}.tasks" for config in apps.get_app_configs()]
    for module in [sys.modules[name] for name in names if isinstance(sys.modules.get(name), ModuleType)]:
        for task in [value for value in vars(module).values() if isinstance(value, Task)]:
            declare(task)


# -- in the core -----------------------------------------------------------------------------------------------------------------------


class BackendMiddleware(Middleware):
    """Keeps the errors of attempts that are tried again, however they ended."""

    def retry(self, envelope: Envelope, error: TaskError) -> Envelope:
        """The envelope with this error among those of earlier attempts. In a header: what a handler wrote replaces `meta`."""
        if META not in envelope.meta:
            return envelope
        path, traceback = shown_error(error)
        errors = [*errors_of(envelope.headers), [path, traceback[-LONGEST_TRACEBACK:]]][-MOST_ERRORS:]
        return msgspec.structs.replace(envelope, headers={**envelope.headers, META: errors})


def _on_end(value: TaskFailedSignal | TaskRevokedSignal) -> None:
    """Sends task_finished for a task whose function did not see its end."""
    handler = app.registry.resolve(value.name) if value.name in app.registry else None
    if not isinstance(handler, BackendTask):
        return
    status: TaskStatus = app.handle(value.task_id).status()
    if facts_of(status.meta).get("finished") == [value.run, value.attempt]:
        return
    close_old()
    try:
        task_finished.send_robust(StemBackend, task_result=handler.result_of(status))
    finally:
        close_old()


app.middleware.add(BackendMiddleware())
app.signals.task_failed.connect(_on_end)
app.signals.task_revoked.connect(_on_end)
