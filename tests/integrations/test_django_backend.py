"""What Django's task framework asks of a backend, of real workers. Needs Django 6, which pip gives to Python 3.12 and later."""

from __future__ import annotations

from pathlib import Path

import django
import pytest

from tests.integrations.django_project import Project, ProjectWorker
from tests.isolate.calling import eventually

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.skipif(django.VERSION < (6, 0), reason="django.tasks needs Django 6, which needs Python 3.12"),
]


IMPORTS = """
import asyncio, time
from datetime import datetime, timedelta, timezone
from django.db import transaction
from django.tasks import TaskResultStatus, task_backends
from django.tasks.exceptions import *
from stem_iso.integrations.django import StemBackend, app
from shop.models import Order
from shop.tasks import *

def ended(result):
    try:
        app.handle(result.id).result(timeout=60)
    except Exception:
        pass
    result.refresh()
    return result

def refused(call):
    try:
        return call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
"""


def test_it_says_what_it_supports(project: Project) -> None:
    program = """
backend = task_backends["default"]
print(type(backend) is StemBackend, backend.supports_defer, backend.supports_async_task)
print(backend.supports_get_result, backend.supports_priority)
"""
    assert project.run(IMPORTS + program) == "True True True\nTrue True\n"


def test_a_task_runs_in_a_worker_and_its_result_is_to_be_had_anywhere(project: Project, worker: ProjectWorker) -> None:
    program = """
import os
result = add.enqueue(1, b=2)
print(result.status, result.args, result.kwargs, result.backend, result.started_at, result.is_finished, result.attempts)
print(refused(lambda: result.return_value))
result = ended(result)
print(result.status, result.return_value["sum"], result.return_value["pid"] != os.getpid(), result.errors, result.attempts)
print(result.enqueued_at < result.started_at == result.last_attempted_at < result.finished_at, len(result.worker_ids))
found = add.get_result(result.id)
print(found == result, asyncio.run(add.aget_result(result.id)) == result)
print(refused(lambda: add.get_result("nowhere")), refused(lambda: unpayable.get_result(result.id)))
"""
    assert project.run(IMPORTS + program).splitlines() == [
        "READY [1] {'b': 2} default None False 0",
        "ValueError: Task has not finished yet",
        "SUCCESSFUL 3 True [] 1",
        "True 1",
        "True True",
        "TaskResultDoesNotExist: nowhere TaskResultMismatch: Task does not match (received 'shop.tasks.add')",
    ]


def test_coroutines_context_and_the_async_interface(project: Project, worker: ProjectWorker) -> None:
    program = """
async def main():
    return await with_context.aenqueue("word"), await count_orders.aenqueue()

first, second = asyncio.run(main())
result = ended(first)
print(result.return_value == [1, result.id, "RUNNING", "word"], result.task.priority, result.task.queue_name)
print(ended(second).return_value)
asyncio.run(second.arefresh())
print(second.status)
"""
    assert project.run(IMPORTS + program) == "True 20 slow\n0\nSUCCESSFUL\n"


def test_a_failure_names_its_exception_and_has_its_traceback(project: Project, worker: ProjectWorker) -> None:
    program = """
result = ended(unpayable.enqueue())
(error,) = result.errors
print(result.status, error.exception_class_path, error.exception_class is Unpayable, refused(lambda: result.return_value))
print(error.traceback.strip().splitlines()[-1], "in unpayable" in error.traceback)
result = ended(no_json.enqueue())
print(result.status, result.errors[0].exception_class_path)
"""
    assert project.run(IMPORTS + program).splitlines() == [
        "FAILED shop.tasks.Unpayable True ValueError: Task failed",
        "shop.tasks.Unpayable: no card True",
        "FAILED builtins.TypeError",
    ]


def test_each_attempt_that_failed_is_an_error(project: Project, worker: ProjectWorker) -> None:
    program = """
result = ended(flaky.enqueue("attempts"))
print(result.status, result.attempts, [error.exception_class_path for error in result.errors], result.started_at < result.last_attempted_at)
"""
    assert project.run(IMPORTS + program) == f"FAILED 3 {['builtins.OSError'] * 3} True\n"
    assert len(project.lines("attempts")) == 3


def test_what_is_killed_or_revoked_has_failed(project: Project, worker: ProjectWorker) -> None:
    program = """
result = ended(stuck.enqueue())
(error,) = result.errors
print(result.status, error.exception_class_path, "in stuck" in error.traceback, result.attempts)
result = add.using(run_after=datetime.now(timezone.utc) + timedelta(hours=1)).enqueue(1, 2)
app.handle(result.id).revoke()
result.refresh()
print(result.status, result.errors[0].exception_class_path, result.errors[0].traceback)
"""
    assert project.run(IMPORTS + program).splitlines() == [
        "FAILED stem_iso.errors.TimeoutException True 1",
        "FAILED stem_iso.errors.TaskCancelled the task was cancelled: revoked",
    ]


def test_run_after_is_the_earliest(project: Project, worker: ProjectWorker) -> None:
    program = """
at = datetime.now(timezone.utc) + timedelta(seconds=1.5)
result = ended(add.using(run_after=at).enqueue(1, 2))
print(result.status, result.started_at >= at, result.task.run_after == at)
"""
    assert project.run(IMPORTS + program) == "SUCCESSFUL True True\n"


def test_priorities_order_what_waits(tmp_path: Path) -> None:
    project = Project(tmp_path)
    program = """
for priority in (0, -100, 100, -10, 10):
    ordered.using(priority=priority).enqueue(str(priority))
"""
    project.run(IMPORTS + program)
    with project.worker("-c", "1"):
        project.run(IMPORTS + "ended(ordered.using(priority=-100).enqueue('last'))")
    assert [line[0] for line in project.lines("order")] == ["100", "10", "0", "-10", "-100", "last"]


def test_what_cannot_be_run_is_refused_where_it_is_enqueued(project: Project) -> None:
    program = """
print(refused(lambda: add.using(queue_name="elsewhere")))
print(refused(lambda: add.using(priority=101)))
print(refused(lambda: add.using(run_after=datetime(2030, 1, 1))))
print(refused(lambda: tasks.task(lambda: 1)))
print(refused(lambda: add.enqueue(object(), 1)))
"""
    assert project.run(IMPORTS + program).splitlines() == [
        "InvalidTask: Queue 'elsewhere' is not valid for backend.",
        "InvalidTask: priority must be a whole number between -100 and 100.",
        "InvalidTask: run_after must be an aware datetime.",
        "InvalidTask: Task function must be defined at a module level.",
        "TypeError: Unsupported type: <class 'object'>",
    ]


def test_it_waits_for_the_commit_unless_the_options_say_otherwise(project: Project, worker: ProjectWorker) -> None:
    program = """
with transaction.atomic():
    Order.objects.create(total=1)
    result = count_orders.enqueue()
    print(refused(result.refresh))
print(ended(result).return_value)
try:
    with transaction.atomic():
        dropped = count_orders.enqueue()
        raise KeyError
except KeyError:
    print(refused(dropped.refresh).partition(":")[0])
from django.test import override_settings
from django.conf import settings
at_once = {**settings.TASKS, "default": {**settings.TASKS["default"], "OPTIONS": {"on_commit": False}}}
with override_settings(TASKS=at_once), transaction.atomic():
    result = add.enqueue(1, 2)
    result.refresh()
    print(result.id == app.handle(result.id).status().id)
"""
    lines = project.run(IMPORTS + program).splitlines()
    assert lines[0].startswith("TaskResultDoesNotExist: ")
    assert lines[1:] == ["1", "TaskResultDoesNotExist", "True"]


def test_one_function_may_go_to_several_backends(project: Project, worker: ProjectWorker) -> None:
    program = """
result = ended(add.using(backend="inline").enqueue(2, 3))
print(result.return_value["sum"], result.backend, result.task.backend, app.handle(result.id).status().name)
print(refused(lambda: task_backends["default"].get_result(result.id)).partition(":")[0])
"""
    assert project.run(IMPORTS + program) == "5 inline inline shop.tasks.add@inline\nTaskResultDoesNotExist\n"


def test_signals_are_sent_where_it_happens(project: Project, worker: ProjectWorker) -> None:
    program = """
print(*[ended(task.enqueue(*args)).id for task, args in ((add, (1, 2)), (unpayable, ()), (stuck, ()), (count_orders, ()), (flaky, ("x",)))])
"""
    ids = project.run(IMPORTS + program).split()
    for id, ending, attempts in zip(ids, ("SUCCESSFUL", "FAILED", "FAILED", "SUCCESSFUL", "FAILED"), (1, 1, 1, 1, 3), strict=True):

        def signals(id: str = id) -> list[list[str]]:
            return [line for line in project.lines("signals") if line[1] == id]

        eventually(lambda signals=signals: "finished" in [line[0] for line in signals()], "no task_finished")
        assert sorted(line[0] for line in signals()) == ["enqueued", "finished", *["started"] * attempts]
        assert {line[0]: line[2] for line in signals()} == {"enqueued": "READY", "started": "RUNNING", "finished": ending}
        senders = {line[0]: int(line[3]) for line in signals()}
        assert senders["enqueued"] not in worker.pids
        assert (senders["finished"] == senders["started"]) == (id != ids[2]), "the core speaks for what was killed, and for nothing else"


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ('{"OPTIONS": {"isolated": True}}', "TASKS['default']['OPTIONS']: there is no option 'isolated'; did you mean 'isolate'?"),
        ('{"OPTIONS": {"hard_time_limit": -1}}', "TASKS['default']['OPTIONS']: hard_time_limit: -1"),
        ('{"QUEUES": ["a,b"]}', "TASKS['default']['QUEUES']: 'a,b' must have no comma"),
    ],
)
def test_wrong_options_are_refused_with_their_name(project: Project, backend: str, message: str) -> None:
    program = f"""
from django.test import override_settings
from django.tasks import task_backends
from django.core.exceptions import ImproperlyConfigured
with override_settings(TASKS={{"default": {{"BACKEND": "stem_iso.integrations.django.StemBackend", **{backend}}}}}):
    try:
        task_backends["default"]
    except ImproperlyConfigured as error:
        print(error)
"""
    assert project.run(program).startswith(message)


def test_a_check_says_what_is_missing(project: Project) -> None:
    program = """
from django.test import override_settings, modify_settings
from django.core.checks import run_checks
print(run_checks())
with modify_settings(INSTALLED_APPS={"remove": ["stem_iso.integrations.django"]}):
    print([message.id for message in run_checks()])
"""
    assert project.run(program).splitlines() == ["[]", "['stem_iso.E001'" + ", 'stem_iso.E001'" * 2 + "]"]
