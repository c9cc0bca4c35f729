"""Fetching ahead: only while tasks are short, never beyond a bound, and never at the price of a task that could run elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stem_iso import Stem, WorkerEventType
from stem_iso.testing import eventually
from stem_iso.worker.prefetch import AHEAD, MOST, Pace
from tests.worker import handlers
from tests.worker.conftest import Begin

durations = st.floats(0, 10, allow_nan=False)


@settings(max_examples=100, deadline=None)
@given(st.lists(durations, max_size=60), st.integers(1, 64))
def test_what_is_fetched_ahead_is_bounded_by_what_the_seats_should_finish_soon(lengths, seats):
    pace = Pace()
    for length in lengths:
        pace.ended(length)
    assert 0 <= pace.stock(seats) <= MOST
    if lengths and pace.stock(seats):
        assert min(lengths) * pace.stock(seats) / seats <= AHEAD * 1.001


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 0.001), min_size=100, max_size=200), st.integers(1, 64))
def test_one_long_task_ends_it_at_once(lengths, seats):
    pace = Pace()
    for length in lengths:
        pace.ended(length)
    assert pace.stock(64) > 0
    pace.ended(1.0)
    assert pace.stock(seats) == 0


def test_nothing_is_fetched_ahead_before_anything_is_known_or_after_something_waited_too_long():
    pace = Pace()
    assert pace.stock(8) == 0
    for _ in range(200):
        pace.ended(0.0005)
    assert pace.stock(8) > 0
    pace.stalled()
    assert pace.stock(8) == 0


@pytest.mark.slow
def test_what_waits_behind_a_task_that_turns_out_to_be_long_runs_elsewhere_meanwhile(app: Stem, begin: Begin, tmp_path):
    add = app.task(name="add", isolate=True)(handlers.add)
    wait = app.task(name="wait", isolate=True)(handlers.say_and_wait)
    _, recorder = begin(app, id="one")
    _, other = begin(app, id="two")
    for handle in app.enqueue_many([add.s(number) for number in range(600)]):
        handle.result(timeout=60)  # both workers know now that tasks are short
    signatures = [add.s(number) for number in range(100)]
    signatures[3:3] = [wait.s(str(tmp_path / "gate"))]
    handles = app.enqueue_many(signatures)
    long = handles.pop(3)
    eventually(lambda: recorder.of(WorkerEventType.PROGRESS, long.id) or other.of(WorkerEventType.PROGRESS, long.id), 30)
    for handle in handles:
        handle.result(timeout=30)  # the long one lasts until the gate opens
    eventually(lambda: len(recorder.of(WorkerEventType.COMPLETED)) + len(other.of(WorkerEventType.COMPLETED)) == 700, 10)
    assert all(handle.status().redeliveries == 0 and handle.status().attempt == 0 for handle in handles)
    (tmp_path / "gate").touch()
    assert long.result(timeout=30) == "done"


@pytest.mark.slow
def test_never_more_run_at_once_than_there_are_seats_inline_and_isolated_mixed(app: Stem, begin: Begin, tmp_path):
    isolated = app.task(name="isolated", isolate=True)(handlers.count_company)
    inline = app.task(name="inline")(handlers.count_company)
    begin(app, concurrency=2)
    tasks = [isolated, isolated, inline]
    handles = app.enqueue_many([tasks[number % 3].s(str(tmp_path)) for number in range(300)])
    assert max(handle.result(timeout=60) for handle in handles) <= 2
