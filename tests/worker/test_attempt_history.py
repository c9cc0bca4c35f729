"""What is known of a task's attempts afterwards: when each was, under which limits, how it ended, and what it printed last."""

from __future__ import annotations

import tracemalloc

import pytest

from stem_iso import Stem, TaskFailed, WorkerEventType
from stem_iso.worker.output_tail import BYTES, LINES, OutputTail
from tests.worker import handlers
from tests.worker.conftest import Begin, QuickRetries

LIMITS = {"soft_time_limit": 50.0, "hard_time_limit": 60.0}


def test_attempts_that_were_tried_again_are_in_the_status_with_their_limits(app: Stem, begin: Begin) -> None:
    task = app.task(name="t", isolate=True, max_retries=5, retry_strategy=QuickRetries(), **LIMITS)(handlers.print_and_fail)
    worker, _ = begin(app)
    handle = task.enqueue(until=2)
    assert handle.result(timeout=30) == "done"
    status = handle.status()
    assert [(each.run, each.attempt, each.state, each.reason) for each in status.attempts] == [
        (0, 0, "retried", "error"),
        (0, 1, "retried", "error"),
    ]
    assert status.attempt == 2 and status.error is None
    moments = [status.enqueued_at]
    for each in status.attempts:
        assert each.error_type.endswith("Flakier") and each.error_message == "no\x1b[2Jluck"
        assert (each.soft_time_limit, each.hard_time_limit, each.worker_id, each.killed) == (50, 60, worker.id, False)
        moments += [each.started_at, each.finished_at]
    assert moments == sorted(moments)
    assert [each["attempt"] for each in status.as_dict()["attempts"]] == [0, 1]


def test_an_attempt_whose_process_was_killed_says_so(app: Stem, begin: Begin) -> None:
    task = app.task(name="t", isolate=True, max_retries=1, hard_time_limit=0.3, retry_for=TimeoutError, retry_strategy=QuickRetries())(
        handlers.print_and_fail
    )
    begin(app)
    handle = task.enqueue(then="hang", until=1)
    assert handle.result(timeout=30) == "done"
    (before,) = handle.status().attempts
    assert (before.reason, before.killed, before.hard_time_limit) == ("timeout", True, 0.3)
    assert (before.finished_at - before.started_at).total_seconds() >= 0.3


def test_a_task_that_is_tried_once_has_none(app: Stem, begin: Begin) -> None:
    add = app.task(name="add", isolate=True)(handlers.add)
    begin(app)
    handle = add.enqueue(2)
    handle.result(timeout=30)
    assert handle.status().attempts == ()


@pytest.mark.parametrize("then", ["raise", "hang", "die"])
def test_an_error_has_what_the_attempt_printed_and_logged_last(app: Stem, begin: Begin, then: str) -> None:
    task = app.task(name="t", isolate=True, hard_time_limit=2 if then == "hang" else None)(handlers.print_and_fail)
    _, recorder = begin(app)
    handle = task.enqueue(lines=40, then=then)
    with pytest.raises(TaskFailed) as failure:
        handle.result(timeout=60)
    wanted = [*(f"line {number} of attempt 0" for number in range(21, 40)), "WARNING users.own: almost there"]
    assert sorted(failure.value.error.output.splitlines()) == sorted(wanted)  # what is printed and what is logged come on two ways
    assert recorder.wait(WorkerEventType.FAILED, handle.id).error.output == handle.status().error.output == failure.value.error.output


def test_each_attempt_has_its_own_output(app: Stem, begin: Begin) -> None:
    task = app.task(name="t", isolate=True, max_retries=1, retry_strategy=QuickRetries())(handlers.print_and_fail)
    _, recorder = begin(app)
    handle = task.enqueue()
    with pytest.raises(TaskFailed) as failure:
        handle.result(timeout=30)
    assert "line 0 of attempt 1" in failure.value.error.output and "attempt 0" not in failure.value.error.output
    assert "line 0 of attempt 0" in recorder.wait(WorkerEventType.RETRIED, handle.id).error.output


def test_a_flood_is_kept_in_two_kibibytes_of_whole_lines_at_most() -> None:
    tail = OutputTail()
    tail.add(20, "stdout", "\n".join(f"{number} {'ä' * 200}" for number in range(5000)))
    text = tail.text()
    assert len(text.encode()) <= BYTES and len(text.splitlines()) <= LINES
    assert text.splitlines()[-1].startswith("4999 ")
    for number in range(1000):
        tail.add(20, "stdout", f"{number}")
    assert tail.text().splitlines() == [str(number) for number in range(980, 1000)]


def test_a_flood_takes_no_memory() -> None:
    tail = OutputTail()
    tracemalloc.start()
    try:
        for number in range(20_000):
            tail.add(20, "stdout", f"{number}" * 500)
        assert tracemalloc.get_traced_memory()[0] < 4 * LINES * BYTES
    finally:
        tracemalloc.stop()
