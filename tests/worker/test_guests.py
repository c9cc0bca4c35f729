"""What a handler does to its worker with text that no encoder takes, and to the loop that it shares: it costs its own task alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from stem_iso import Stem, TaskFailed, TaskHandle, WorkerEventType
from stem_iso.outcome import TaskError
from stem_iso.testing import eventually
from tests.worker import guests
from tests.worker.conftest import Begin

LOOP_GOES_ON = [
    ("exit", "gather", "SystemExit"),
    ("exit", "wait_for", "SystemExit"),
    ("exit", "itself", "SystemExit"),
    ("exit", "group", "SystemExit"),
    ("interrupt", "gather", "KeyboardInterrupt"),
    ("stop", "itself", "RuntimeError"),
    ("stop", "gather", "RuntimeError"),
    ("close", "itself", "RuntimeError"),
    ("shutdown", "itself", "RuntimeError"),
]


def error_of(handle: TaskHandle[object], within: float = 30) -> TaskError:
    with pytest.raises(TaskFailed) as caught:
        handle.result(timeout=within)
    assert caught.value.error is not None
    return caught.value.error


def test_arguments_refused_with_text_that_cannot_be_encoded_are_invalid_and_the_seat_is_free(app: Stem, begin: Begin) -> None:
    tasks = [
        app.task(name="isolated", isolate=True, max_retries=3)(guests.upload),
        app.task(name="sync", max_retries=3)(guests.upload),
        app.task(name="async", max_retries=3)(guests.upload_async),
    ]
    begin(app, concurrency=1)
    producer = Stem(app.broker)  # without the code, which would refuse it at once
    for task in tasks * 2:
        handle = producer.enqueue(task.name, {"file": {"name": b"caf\xe9"}})
        assert "not a name that we take: caf?" in error_of(handle).message
        assert (handle.status().reason, handle.status().attempt) == ("invalid-arguments", 0)
    producer.close()


def test_whatever_text_a_handler_ends_with_it_ends(app: Stem, begin: Begin) -> None:
    tasks = [
        app.task(name="isolated", isolate=True)(guests.end),
        app.task(name="sync")(guests.end),
        app.task(name="async")(guests.end_async),
    ]
    begin(app, concurrency=1)
    for task in tasks:
        errors = {how: error_of(task.enqueue(how)) for how in ("message", "name", "long name", "notes", "hostile")}
        assert (errors["message"].type, errors["message"].message) == ("ValueError", "caf?")
        assert errors["name"].type == "tests.worker.guests.caf?"
        assert 60_000 < len(errors["long name"].type.encode()) < 70_000
        assert "caf?" in errors["notes"].traceback
        assert "could not be reported" in errors["hostile"].message
        for how in ("result", "progress", "meta", "enqueue"):
            assert error_of(task.enqueue(how)).type == "TypeError"
        assert error_of(task.enqueue("revoke")).type == "UnicodeEncodeError"


def test_a_line_of_the_log_with_such_text_is_logged(app: Stem, begin: Begin, caplog: pytest.LogCaptureFixture) -> None:
    task = app.task(name="log", isolate=True)(guests.log)
    begin(app)
    assert task.enqueue().result(timeout=30) == "logged"
    eventually(lambda: "logged: caf?" in caplog.text, 30)  # by a thread of its own, maybe after the result


def test_a_loop_outlives_a_coroutine_that_would_end_it(app: Stem, begin: Begin, tmp_path: Path) -> None:
    end, wait = app.task(name="end")(guests.end_part), app.task(name="wait")(guests.wait_async)
    later = app.task(name="later")(guests.in_thread)
    _, recorder = begin(app, concurrency=2)
    neighbour = wait.enqueue(str(tmp_path / "gate"))
    recorder.wait(WorkerEventType.PROGRESS, neighbour.id)
    for how, awaited, type in LOOP_GOES_ON:
        error = error_of(end.enqueue(how, awaited))
        assert (type in error.type or type in error.traceback) and type in f"{error.type} {error.traceback}", (how, awaited, error)
        assert later.enqueue().result(timeout=30) == "fine"
    assert end.enqueue("stop by its class", "itself").result(timeout=30) == "ended"
    assert end.enqueue("exit", "nobody").result(timeout=30) == "ended"
    (tmp_path / "gate").touch()
    assert neighbour.result(timeout=30) == "waited"
    for text in ("SystemExit", "stopped the loop"):  # events come a little after the results
        eventually(lambda text=text: any(text in event.message for event in recorder.of(WorkerEventType.ERROR)), 30)


def test_a_loop_that_is_broken_is_replaced_and_its_coroutines_fail(app: Stem, begin: Begin, tmp_path: Path) -> None:
    end, wait = app.task(name="end")(guests.end_part), app.task(name="wait")(guests.wait_async)
    _, recorder = begin(app, concurrency=2)
    for _ in range(2):
        neighbour = wait.enqueue(str(tmp_path / "never"))
        recorder.wait(WorkerEventType.PROGRESS, neighbour.id)
        assert "broken" in error_of(end.enqueue("break", "itself")).message
        assert "broken" in error_of(neighbour).message
    eventually(lambda: any("a new one is made" in event.message for event in recorder.of(WorkerEventType.ERROR)), 30)
    (tmp_path / "gate").touch()
    assert wait.enqueue(str(tmp_path / "gate")).result(timeout=30) == "waited"


def test_a_coroutine_that_cancels_all_fails_with_them_and_is_not_given_back_for_ever(app: Stem, begin: Begin, tmp_path: Path) -> None:
    end, wait = app.task(name="end")(guests.end_part), app.task(name="wait")(guests.wait_async)
    _, recorder = begin(app, concurrency=2)
    neighbour = wait.enqueue(str(tmp_path / "never"))
    recorder.wait(WorkerEventType.PROGRESS, neighbour.id)
    assert "CancelledError" in error_of(end.enqueue("cancel all", "itself")).type
    assert "CancelledError" in error_of(neighbour).type


@pytest.mark.parametrize("kind", ["sync", "async", "isolated"])
def test_what_a_call_changes_in_its_context_and_its_thread_is_its_own(app: Stem, begin: Begin, kind: str) -> None:
    look = app.task(name="look", isolate=kind == "isolated")(guests.look_async if kind == "async" else guests.look)
    change = app.task(name="change", isolate=kind == "isolated")(guests.change_async if kind == "async" else guests.change)
    begin(app, concurrency=1)
    before = look.enqueue().result(timeout=30)
    for name in ("context variable", "decimal context", "blocked signals", "trace", "profile", "affinity"):
        change.enqueue(name).result(timeout=30)
        assert look.enqueue().result(timeout=30) == before, name


def test_a_process_that_an_inline_handler_forked_ends_where_the_handler_does(app: Stem, begin: Begin) -> None:
    tasks = [app.task(name="sync")(guests.fork), app.task(name="async")(guests.fork_async)]
    begin(app, concurrency=1)
    for task in tasks * 2:
        assert task.enqueue().result(timeout=30) == 5
