"""Test mode: what is enqueued runs in place, in memory, and the application's own broker is not touched."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from stem_iso import Stem, TaskFailed, TaskState, WaitRefused, Worker, chain, chord, group
from stem_iso.testing import TasksInPlace, assert_enqueued, test_mode
from tests.testing import shop


@pytest.fixture
def tasks() -> Iterator[TasksInPlace]:
    shop.mails.clear()
    with test_mode(shop.app) as tasks:
        yield tasks
    assert shop.app.broker == "redis://nowhere.invalid/0"


def test_a_task_has_run_when_enqueue_returns(tasks: TasksInPlace) -> None:
    handle = shop.mail.enqueue("ann")
    assert shop.mails == ["ann"] and handle.result(timeout=5) == "sent to ann"
    assert [(task.name, task.state, task.result) for task in tasks.ran] == [("mail", TaskState.SUCCEEDED, "sent to ann")]
    assert tasks.failed == [] and [task.queue for task in tasks.enqueued] == ["mail"]


def test_by_name_many_and_from_a_coroutine_the_same(tasks: TasksInPlace) -> None:
    shop.app.enqueue("mail", {"to": "a"})
    shop.app.enqueue_many([shop.mail.s("b"), shop.mail.s("c")])

    async def enqueue() -> str:
        shop.mail_later.enqueue("nobody")  # a coroutine of its own, inside a loop
        handle = await shop.mail.aenqueue("d")
        return await handle.aresult(timeout=5)

    assert asyncio.run(enqueue()) == "sent to d"
    assert shop.mails == ["a", "b", "c", "d"]


def test_retries_run_at_once_and_see_what_the_attempt_before_wrote(tasks: TasksInPlace) -> None:
    handle = shop.ship.enqueue(7, succeeds_at=2)
    assert handle.result(timeout=5) == "7 shipped by attempt 2"
    assert handle.status().attempt == 2 and handle.status().meta == {"tried": 2}
    assert len(tasks.ran) == 1


def test_a_task_that_fails_for_good_raises_its_own_exception_where_it_was_enqueued(tasks: TasksInPlace) -> None:
    with pytest.raises(shop.OutOfStock, match="order 7"):
        shop.ship.enqueue(7, succeeds_at=9)
    (failed,) = tasks.failed
    assert (failed.name, failed.attempt, failed.reason) == ("ship", 2, "max-retries-exhausted")
    shop.mail.enqueue("ann")
    assert shop.mails == ["ann"], "the next one runs as if nothing had been"


def test_failures_can_be_looked_at_instead() -> None:
    with test_mode(shop.app, raise_errors=False) as tasks:
        handle = shop.ship.enqueue(7, succeeds_at=9)
        with pytest.raises(TaskFailed, match="OutOfStock"):
            handle.result(timeout=5)
        assert [task.id for task in tasks.failed] == [handle.id]


def test_canvases_run_to_their_end(tasks: TasksInPlace) -> None:
    shipped = [shop.ship.s(n) for n in (1, 2)]
    assert chord(shipped, shop.pack.after()).enqueue().result(timeout=5) == "1 shipped by attempt 0 and 2 shipped by attempt 0"
    assert group(shipped).enqueue().results(timeout=5) == ["1 shipped by attempt 0", "2 shipped by attempt 0"]
    assert chain(shop.mail.s("ann"), shop.mail.after()).enqueue().result(timeout=5) == "sent to sent to ann"


def test_time_can_be_moved(tasks: TasksInPlace) -> None:
    shop.mail_later.enqueue("ann")
    shop.mail.using(delay=timedelta(hours=2)).enqueue("bob")
    assert shop.mails == [] and [task.state for task in tasks.enqueued] == [TaskState.SUCCEEDED, TaskState.QUEUED, TaskState.QUEUED]
    tasks.advance(minutes=59)
    assert "ann" not in shop.mails
    tasks.advance(timedelta(minutes=2))
    assert "ann" in shop.mails and "bob" not in shop.mails
    tasks.advance(hours=1)
    assert "bob" in shop.mails


def test_schedules_fire_in_the_time_that_passes(tasks: TasksInPlace) -> None:
    tasks.advance(days=1)
    assert shop.mails == ["night@example.com"] * 24


def test_what_a_task_that_expired_meanwhile_would_have_done_is_not_done(tasks: TasksInPlace) -> None:
    handle = shop.mail.using(delay=7200, expires=3600).enqueue("late")
    tasks.advance(hours=3)
    assert "late" not in shop.mails and (handle.status().state, handle.status().reason) == (TaskState.CANCELLED, "expired")


def test_what_cannot_run_says_why(tasks: TasksInPlace) -> None:
    with pytest.raises(LookupError, match="mial"):
        shop.app.enqueue("mial", {"to": "ann"})
    with pytest.raises(TypeError, match="argument 'to' must be str"):
        shop.mail.enqueue(3)  # type: ignore[arg-type]


def test_it_ends_with_its_block_and_begins_empty() -> None:
    for _ in range(2):
        with test_mode(shop.app) as tasks:
            assert tasks.enqueued == []
            shop.mail.enqueue("ann")
    assert shop.app.site.url == "redis://nowhere.invalid/0" and "clock" not in vars(shop.app)


def test_what_was_enqueued_can_be_asserted(tasks: TasksInPlace) -> None:
    shop.mail.enqueue("ann")
    shop.mail.enqueue("bob")
    assert assert_enqueued(shop.app, "mail", args={"to": "bob"}, queue="mail", times=1).queue == "mail"
    assert_enqueued(shop.app, "mail", times=2)
    assert_enqueued(shop.app, "ship", times=0)
    for wrong in ({"times": 1}, {"queue": "default"}, {"args": {"to": "eve"}}):
        with pytest.raises(AssertionError, match=r"mail .* enqueued.*\n  mail {'to': 'ann'} in mail"):
            assert_enqueued(shop.app, "mail", **wrong)  # type: ignore[arg-type]


def test_what_a_lock_or_a_known_id_keeps_out_was_not_enqueued(tasks: TasksInPlace) -> None:
    for _ in range(2):
        shop.mail.using(unique=True, delay=60).enqueue("ann")
        shop.mail.using(task_id="bob").enqueue("bob")
    assert_enqueued(shop.app, "mail", {"to": "ann"}, times=1)
    assert_enqueued(shop.app, "mail", {"to": "bob"}, times=1)


def test_statuses_say_the_arguments_that_may_be_shown(tasks: TasksInPlace) -> None:
    shop.login.enqueue("ann", "s3cret")
    shown = {"user": "ann", "password": "***"}
    assert [task.args for task in (*tasks.ran, *tasks.enqueued)] == [shown, shown]


def test_a_retry_runs_in_place(tasks: TasksInPlace) -> None:
    with pytest.raises(shop.OutOfStock):
        shop.ship.enqueue(7, succeeds_at=9)
    (failed,) = tasks.failed
    with pytest.raises(shop.OutOfStock):
        shop.app.handle(failed.id).retry()
    assert [(task.id, task.run) for task in tasks.failed] == [(failed.id, 1)]


def test_what_ran_is_remembered_however_far_the_clock_moves(tasks: TasksInPlace) -> None:
    shop.mail.using(result_ttl=60).enqueue("ann")
    revoked = shop.mail.using(delay=60).enqueue("eve")
    revoked.revoke()
    shop.mail.using(delay=timedelta(days=2)).enqueue("bob")
    tasks.advance(days=30)
    assert [task.result for task in tasks.ran if task.args != {"to": "night@example.com"}] == ["sent to ann", "sent to bob"]
    assert [task.state for task in tasks.enqueued][:3] == [TaskState.SUCCEEDED, TaskState.CANCELLED, TaskState.SUCCEEDED]


def test_a_handler_may_not_wait_for_another_task_there_either(tasks: TasksInPlace) -> None:
    with pytest.raises(WaitRefused, match="may not wait"):
        shop.impatient.enqueue()


def test_what_a_handler_enqueues_is_its_child(tasks: TasksInPlace) -> None:
    parent = shop.mail_later.enqueue("ann")
    assert [task.parent_id for task in tasks.enqueued] == [None, parent.id]


def test_the_traceback_of_a_failure_is_that_of_the_handler() -> None:
    with test_mode(shop.app, raise_errors=False) as tasks:
        shop.ship.enqueue(7, succeeds_at=9)
        (failed,) = tasks.failed
    assert failed.error is not None
    assert failed.error.traceback.count("Traceback") == 1 and "running event loop" not in failed.error.traceback


def test_a_block_within_a_block_begins_empty_and_gives_the_clock_back(tasks: TasksInPlace) -> None:
    tasks.advance(days=1)
    moved = shop.app.clock
    with test_mode(shop.app) as inner:
        shop.mail.enqueue("ann")
        assert len(inner.ran) == 1
    assert shop.app.clock is moved
    shop.mail.enqueue("bob")
    assert "bob" in shop.mails


# -- the plugin --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stem_app() -> Stem:
    return shop.app


def test_an_application_of_ones_own_is_put_into_memory(stem_app: Stem) -> None:
    assert stem_app is shop.app and stem_app.broker == "memory://"
    shop.mail.enqueue("ann")
    assert_enqueued(stem_app, "mail", {"to": "ann"}, times=1)


@pytest.mark.parametrize("option", [[], ["-p", "stem_iso.testing.plugin"]])
def test_who_names_the_plugin_loads_it_once(tmp_path: Path, option: list[str]) -> None:
    named = "" if option else 'pytest_plugins = ["stem_iso.testing.plugin"]\n'
    (tmp_path / "test_named.py").write_text(named + 'def test_it(stem_app):\n    assert stem_app.broker == "memory://"\n')
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *option, "test_named.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


def test_each_test_begins_with_nothing(stem_app: Stem) -> None:
    assert_enqueued(stem_app, "mail", times=0)


def test_a_real_worker_runs_beside_the_test(stem_app: Stem, stem_worker: Worker) -> None:
    assert shop.ship.enqueue(3).result(timeout=60) == "3 shipped by attempt 0"
