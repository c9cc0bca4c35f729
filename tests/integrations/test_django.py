"""A real Django project with a real worker (`manage.py stem_worker`), on the Django that this Python gets (6 from 3.12 on, else 5.2)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integrations.django_project import Project, ProjectWorker
from tests.isolate.calling import eventually

pytestmark = pytest.mark.integrations


IMPORTS = """
from django.db import transaction
from stem_iso import UnknownResult, PayloadTooLarge, chain
from stem_iso.integrations.django import app
from shop.models import Order
from shop.tasks import *

def known(handle):
    try:
        return bool(handle.status())
    except UnknownResult:
        return False
"""


def test_what_is_enqueued_in_a_transaction_is_sent_with_its_commit_and_sees_the_rows(project: Project, worker: ProjectWorker) -> None:
    program = """
with transaction.atomic():
    order = Order.objects.create(total=7)
    with transaction.atomic():
        handle = bill.enqueue(order.pk)
    print(known(handle))
print(handle.result(timeout=60))
order.refresh_from_db()
print(order.paid)
"""
    assert project.run(IMPORTS + program) == "False\n7\nTrue\n"


def test_what_is_enqueued_in_a_transaction_that_rolls_back_is_never_sent(project: Project, worker: ProjectWorker) -> None:
    program = """
class Stop(Exception): pass

def rolled_back(inner):
    try:
        with transaction.atomic():
            if not inner:
                handles.append(double.enqueue(1))
                raise Stop
            try:
                with transaction.atomic():
                    handles.append(double.enqueue(1))
                    raise Stop
            except Stop:
                handles.append(double.enqueue(2))
    except Stop:
        pass

handles = []
rolled_back(False)
rolled_back(True)
print([known(handle) for handle in handles], handles[2].result(timeout=60))
print([known(handle) for handle in handles])
"""
    assert project.run(IMPORTS + program) == "[False, False, True] 4\n[False, False, True]\n"


def test_on_commit_false_goes_at_once_however_it_is_said(project: Project, worker: ProjectWorker) -> None:
    program = """
from django.test import override_settings
from django.conf import settings
with transaction.atomic():
    handles = [double.using(on_commit=False).enqueue(3), impatient.enqueue(), app.enqueue("shop.tasks.double", {"n": 4}, on_commit=False)]
    with override_settings(STEM_ISO={**settings.STEM_ISO, "on_commit": False}):
        handles += [double.enqueue(5), impatient.using(on_commit=True).enqueue()]
    print([known(handle) for handle in handles])
    print([handle.result(timeout=60) for handle in handles[:4]])
print(handles[4].result(timeout=60))
"""
    assert project.run(IMPORTS + program) == "[True, True, True, True, False]\n[6, 1, 8, 10]\n1\n"


def test_batches_canvases_and_coroutines_wait_for_the_commit_too(project: Project, worker: ProjectWorker) -> None:
    program = """
from asgiref.sync import async_to_sync
with transaction.atomic():
    many = app.enqueue_many([double.s(1), impatient.s(), double.s(2)])
    whole = chain(double.s(2), double.after()).enqueue()
    from_loop = async_to_sync(double.aenqueue)(4)
    print([known(handle) for handle in many], known(whole), known(from_loop))
print([handle.result(timeout=60) for handle in many], whole.result(timeout=60), from_loop.result(timeout=60))
"""
    assert project.run(IMPORTS + program) == "[False, True, False] False False\n[2, 1, 4] 8 8\n"


def test_it_waits_for_the_transactions_of_all_databases(project: Project, worker: ProjectWorker) -> None:
    program = """
with transaction.atomic(using="archive"):
    with transaction.atomic():
        handle = double.enqueue(5)
    print(known(handle))
print(handle.result(timeout=60))
try:
    with transaction.atomic(using="archive"):
        with transaction.atomic():
            handle = double.enqueue(5)
        raise KeyError
except KeyError:
    print(known(handle))
"""
    assert project.run(IMPORTS + program) == "False\n10\nFalse\n"


def test_what_can_be_refused_is_refused_inside_the_transaction(project: Project) -> None:
    program = """
for call in (lambda: once.enqueue("x" * 2_000_000), lambda: once.enqueue(7), lambda: double.enqueue(n=1, m=2)):
    try:
        with transaction.atomic():
            call()
            print("enqueued")
    except Exception as error:
        print(type(error).__name__)
"""
    assert project.run(IMPORTS + program) == "PayloadTooLarge\nTypeError\nTypeError\n"


def test_the_handle_of_a_unique_task_is_after_the_commit_that_of_the_one_that_waits(project: Project) -> None:
    program = """
first = once.using(delay=3600).enqueue("same")
with transaction.atomic():
    second = once.enqueue("same")
print(second.id == first.id, first.revoke())
"""
    assert project.run(IMPORTS + program) == "True True\n"


def test_a_transaction_in_a_handler_counts_as_well(project: Project, worker: ProjectWorker) -> None:
    program = """
kept, dropped = parent.enqueue(False).result(timeout=60)[0], parent.enqueue(True).result(timeout=60)[0]
print(app.handle(kept).result(timeout=60), known(app.handle(dropped)))
"""
    assert project.run(IMPORTS + program) == "2 False\n"


RUN_ALL = """
import json
tasks = [isolated, inline, coroutine, isolated_coroutine, isolated, inline, coroutine, isolated_coroutine]
print(json.dumps([task.enqueue().result(timeout=60)["pid"] for task in tasks]))
"""


def test_connections_are_closed_between_tasks(project: Project, worker: ProjectWorker) -> None:
    pids = json.loads(project.run(IMPORTS + RUN_ALL))
    assert worker.process.pid not in pids
    eventually(lambda: not worker.holding("shop.sqlite3"), "a process of the worker keeps a connection")
    # One for each task, and the one that `ready` opened: nobody used a connection of another task.
    assert all(len([line for line in project.lines("opened") if line[0] == str(pid)]) >= 1 + pids.count(pid) for pid in pids)
    assert set(pids) <= set(worker.pids), "an isolate whose handler awaited the ORM was replaced"


def test_conn_max_age_keeps_them_and_a_child_of_a_handler_has_its_own(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with project.worker("-c", "1", "--spares", "0", SHOP_AGE="None") as worker:
        pids = json.loads(project.run(IMPORTS + RUN_ALL))
        assert sorted(worker.holding("shop.sqlite3")) == sorted(set(pids))
        for pid in set(pids):  # one of `ready`; then one for the thread of handlers, one for that of coroutines
            assert len([line for line in project.lines("opened") if line[0] == str(pid)]) == 3
        assert project.run(IMPORTS + "print(forking.enqueue().result(timeout=60))") == "[True, True, True]\n"


def test_django_is_set_up_once_in_each_process(project: Project, worker: ProjectWorker) -> None:
    pids = json.loads(project.run(IMPORTS + RUN_ALL))
    ready = [line[0] for line in project.lines("ready")]
    assert len(ready) == len(set(ready))
    assert {str(pid) for pid in pids} < set(ready)
    assert len([pid for pid in worker.pids if str(pid) in ready]) >= 4  # launcher (before its exec), core, inline host, isolate


def test_modules_of_include_are_served_and_the_command_runs_from_any_folder(project: Project, tmp_path: Path) -> None:
    program = 'from stem_iso.integrations.django import app\nprint(app.enqueue("shop.remind", {"name": "Ann"}).result(timeout=60))\n'
    with project.worker("-Q", "default", cwd=tmp_path) as worker:
        assert project.run(program) == "Dear Ann\n"
        worker.says("queues default, 3 seats")  # concurrency is of STEM_ISO
    with project.worker("--concurrency", "2", STEM_ISO_CONCURRENCY="4") as worker:
        worker.says(" 2 seats")
    with project.worker(STEM_ISO_CONCURRENCY="4") as worker:
        worker.says(" 4 seats")


def test_the_command_refuses_what_the_worker_does(project: Project) -> None:
    shown = project.manage("stem_worker", "--help")
    assert shown.returncode == 0 and "--shutdown-timeout" in shown.stdout and "--reload" in shown.stdout
    refused = project.manage("stem_worker", "--concurency", "3")
    assert refused.returncode == 2 and "unrecognized arguments: --concurency" in refused.stderr
    refused = project.manage("stem_worker", "-c", "none")
    assert (refused.returncode, refused.stderr) == (2, "Error: --concurrency: 'none' must be a whole number\n")


def test_call_command_runs_a_worker_and_comes_back(project: Project) -> None:
    program = """
from django.core.management import call_command
handle = double.enqueue(21)
call_command("stem_worker", burst=True)
print(handle.status().result)
"""
    assert project.run(IMPORTS + program) == "42\n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('{"brokr": "memory://"}', "STEM_ISO: there is no setting 'brokr'; did you mean 'broker'?"),
        ('{"BROKER": "memory://"}', "STEM_ISO: there is no setting 'BROKER'; did you mean 'broker'?"),
        ('{"broker": 7}', "STEM_ISO['broker']: 7 must be a URL, such as 'redis://localhost/0', or f\"sqlite:///{BASE_DIR / 'jobs.db'}\""),
        ('{"broker": "localhost:6379"}', "STEM_ISO: broker"),
        ('{"defaults": {"hard_time_limt": 3}}', "STEM_ISO['defaults']: unknown option 'hard_time_limt'; did you mean 'hard_time_limit'?"),
        ('{"defaults": 3}', "STEM_ISO['defaults']: 3 must be a dict of options of tasks, such as {'hard_time_limit': 300}"),
        ('{"on_commit": "no"}', "STEM_ISO: on_commit: 'no' must be"),
        ('{"concurrency": "many"}', "STEM_ISO['concurrency']: 'many' must be a whole number"),
        ('{"include": "shop.billing"}', "STEM_ISO['include']: 'shop.billing' must be a list of modules, such as ['shop.billing']"),
        ('{"concurrency": 0}', "STEM_ISO: concurrency: 0 must be at least 1; a worker needs a seat to run anything in"),
        ('{"max_redeliveries": -1}', "STEM_ISO: broker option max_redeliveries is -1; it is a whole number from 0 up"),
        ('["broker"]', "STEM_ISO: ['broker'] must be a dict, such as {'broker': 'redis://localhost/0'}"),
    ],
)
def test_wrong_settings_are_refused_with_key_and_way_out(tmp_path: Path, settings: str, message: str) -> None:
    (tmp_path / "wrong.py").write_text(f'INSTALLED_APPS = ["stem_iso.integrations.django"]\nSTEM_ISO = {settings}\n')
    program = """
import django
from django.core.exceptions import ImproperlyConfigured
try:
    django.setup()
except ImproperlyConfigured as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "wrong"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith(message), done.stdout + done.stderr


def test_without_the_installed_app_the_import_says_what_to_add(project: Project) -> None:
    program = """
from django.conf import settings
settings.configure(INSTALLED_APPS=[])
try:
    import stem_iso.integrations.django
except Exception as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=project.folder, capture_output=True, text=True, timeout=60)
    assert done.stdout == "INSTALLED_APPS: add 'stem_iso.integrations.django', so that the modules of tasks are found\n", done.stderr


TESTS = """
from django.db import transaction
from django.test import TestCase, TransactionTestCase, override_settings

from shop.models import Order
from shop.tasks import bill, coroutine, double, inline, isolated_coroutine
from stem_iso import UnknownResult
from stem_iso.integrations.django import app
from stem_iso.testing import assert_enqueued, test_mode


def order():
    with transaction.atomic():
        made = Order.objects.create(total=3)
        return made, bill.enqueue(made.pk)


class InPlaceTest(TestCase):
    def test_capture_on_commit_callbacks(self):
        with test_mode(app) as tasks:
            with self.captureOnCommitCallbacks(execute=True) as callbacks:
                made, handle = order()
                self.assertEqual(tasks.enqueued, [])
            self.assertEqual([task.result for task in tasks.ran], [3])
        made.refresh_from_db()
        self.assertTrue(made.paid)
        self.assertEqual(len(callbacks), 1)

    def test_without_a_block_of_its_own_it_goes_at_once(self):
        with test_mode(app) as tasks:
            made = Order.objects.create(total=4)
            self.assertEqual(bill.enqueue(made.pk).result(), 4)
        self.assertEqual(len(tasks.ran), 1)

    def test_coroutines_see_the_rows_of_the_test(self):
        Order.objects.create(total=4)
        with test_mode(app):
            self.assertEqual(coroutine.enqueue().result()["orders"], 1)
            self.assertEqual(isolated_coroutine.enqueue().result()["orders"], 1)

    async def test_so_do_tasks_of_a_test_that_is_a_coroutine(self):
        await Order.objects.acreate(total=4)
        with test_mode(app):
            for task in (coroutine, inline):
                handle = await task.aenqueue()
                self.assertEqual((await handle.aresult())["orders"], 1)

    def test_what_nobody_commits_is_not_sent(self):
        with test_mode(app) as tasks:
            _, handle = order()
            self.assertEqual(tasks.enqueued, [])
            with self.assertRaises(UnknownResult):
                handle.status()


class CommittingTest(TransactionTestCase):
    def test_a_commit_sends(self):
        with test_mode(app) as tasks:
            made, handle = order()
            self.assertEqual(handle.result(), 3)


@override_settings(STEM_ISO={"broker": "memory://", "defaults": {"queue": "elsewhere"}})
class OverriddenTest(TestCase):
    def test_the_broker_and_the_defaults_are_the_overridden_ones(self):
        handle = double.enqueue(2)
        self.assertEqual(handle.status().queue, "elsewhere")
        assert_enqueued(app, "shop.tasks.double", args={"n": 2}, queue="elsewhere", times=1)
        self.assertEqual(app.broker, "memory://")


class RestoredTest(TestCase):
    def test_afterwards_all_is_as_before(self):
        self.assertTrue(app.broker.endswith("/jobs.db"))
        self.assertEqual(app.options_of("shop.tasks.double").queue, "default")
"""


def test_tests_of_a_project_run_in_place(project: Project) -> None:
    (project.folder / "shop" / "tests.py").write_text(TESTS)
    done = project.manage("test", "-v", "1")
    assert done.returncode == 0, done.stderr
    assert "Ran 8 tests" in done.stderr


BESIDE_A_WORKER = """
from django.test import TransactionTestCase

from shop.models import Order
from shop.tasks import bill, inline, isolated, isolated_coroutine
from stem_iso import Worker
from stem_iso.integrations.django import app


class WorkerTest(TransactionTestCase):
    def test_rows_of_the_test(self):
        order = Order.objects.create(total=7)
        with Worker(app):
            self.assertEqual(bill.enqueue(order.pk).result(timeout=60), 7)
            counts = [task.enqueue().result(timeout=60)["orders"] for task in (isolated, isolated_coroutine, inline)]
        order.refresh_from_db()
        self.assertEqual((counts, order.paid), ([1, 1, 1], True))
"""
REAL = "from shop.models import Order\n"


@pytest.fixture
def shop(tmp_path: Path) -> Project:
    """A project of its own, with two unpaid orders in the database that its settings name."""
    project = Project(tmp_path)
    project.run(REAL + "Order.objects.bulk_create([Order(total=1), Order(total=2)])")
    return project


def untouched(shop: Project) -> bool:
    return shop.run(REAL + "print(*Order.objects.order_by('pk').values_list('total', 'paid'))") == "(1, False) (2, False)\n"


def test_a_worker_beside_a_test_works_on_the_test_database(shop: Project) -> None:
    (shop.folder / "shop" / "tests.py").write_text(BESIDE_A_WORKER)
    done = shop.manage("test", "--settings", "shopsite.in_file")
    assert done.returncode == 0 and "Ran 1 test" in done.stderr, done.stderr
    assert untouched(shop)
    names = {name for _, name in shop.lines("hooks")}
    assert names == {str(shop.folder / "test.sqlite3")}


def test_a_worker_that_runs_already_follows_to_the_test_database_and_back(shop: Project) -> None:
    program = """
from django.test.utils import setup_databases, teardown_databases
from stem_iso import Worker

def orders():
    return [task.enqueue().result(timeout=60)["orders"] for task in (isolated, isolated_coroutine)]

with Worker(app, concurrency=1):
    print(orders())
    databases = setup_databases(0, False, aliases=["default"])
    order = Order.objects.create(total=7)
    print(orders(), bill.enqueue(order.pk).result(timeout=60))
    teardown_databases(databases, 0)
    print(orders())
"""
    assert shop.run(IMPORTS + program, DJANGO_SETTINGS_MODULE="shopsite.in_file") == "[2, 2]\n[1, 1] 7\n[2, 2]\n"
    assert untouched(shop)


def test_an_isolated_task_cannot_use_a_test_database_in_memory_and_says_so(shop: Project) -> None:
    program = """
from django.test.utils import setup_databases
from stem_iso import TaskFailed, Worker

setup_databases(0, False, aliases=["default"])
order = Order.objects.create(total=7)
with Worker(app):
    for call in (bill.using(max_retries=3).s(order.pk), bill.s(1), isolated_coroutine.s()):
        try:
            call.enqueue().result(timeout=60)
        except TaskFailed as error:
            print(error.status.reason, error.error.message)
    print(impatient.enqueue().result(timeout=60))
"""
    message = (
        "DATABASES['default'] is in the memory of the process that runs the tests, and an isolate is another process. "
        """Give the tests a file: DATABASES['default']["TEST"] = {"NAME": "test.sqlite3"}; """
        "or run what they enqueue in place, with stem_iso.testing.test_mode"
    )
    told = shop.run(IMPORTS + program, DJANGO_SETTINGS_MODULE="shopsite.in_memory").splitlines()
    assert [line.partition(" ")[2] for line in told] == [message, message, message, ""]
    assert told[0].startswith("not-retryable ") and told[-1] == "1"
    assert untouched(shop)
