"""What a worker counts of its tasks: each thing that happens once, in the broker's minutes and in the totals, and also after an outage."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stem_iso import BrokerUnavailable, Stem, WorkerEventType
from stem_iso.outcome import TaskState
from stem_iso.testing import eventually
from stem_iso.worker.reporting import events
from stem_iso.worker.reporting.counters import Counters, Totals
from tests.servers.fixtures import broker_of
from tests.worker import handlers
from tests.worker.conftest import Begin, QuickRetries
from tests.worker.operators import BOUND, Operator, entries, middle
from tests.worker.test_broker_away import CabledStem


@pytest.fixture(params=["sqlite", "memory", "redis"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stem]:
    if request.param == "memory":
        with closing(Stem("memory://", claim_interval=0.1)) as app:
            yield app
    else:
        with broker_of(request.param, tmp_path) as url, closing(Stem(url, claim_interval=0.1)) as app:
            yield app


@pytest.fixture
def operator(app: Stem) -> Operator:
    return Operator(app)


@pytest.fixture
def totals(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Totals]:
    """Of the worker that the test begins."""
    made: list[Counters] = []

    def make() -> Counters:
        made.append(Counters())
        return made[-1]

    monkeypatch.setattr(events, "Counters", make)
    return lambda: made[-1].totals()


def settled(operator: Operator, name: str, expected: dict[str, int]) -> None:
    try:
        eventually(lambda: operator.counted(name) == expected, within=BOUND)
    except AssertionError:
        assert operator.counted(name) == expected
        raise


def test_successes_with_how_long_they_waited_and_ran(app: Stem, operator: Operator, begin: Begin, totals: Callable[[], Totals]) -> None:
    nap = app.task(name="nap", isolate=True)(_nap)
    handles = [nap.enqueue(0.1) for _ in range(5)]
    enqueued = time.monotonic()
    begin(app, concurrency=1)
    for handle in handles:
        handle.result(timeout=BOUND)
    within = time.monotonic() - enqueued + 1
    settled(operator, "nap", {"started": 5, "succeeded": 5})
    figures = operator.figures("nap")
    assert entries(figures.wait) == entries(figures.run) == 5
    assert 0.095 <= middle(figures.run) <= within and 0.0 < middle(figures.wait) <= within
    assert totals().tasks["default", "nap"].run == figures.run
    assert totals().tasks["default", "nap"].counts == {"started": 5, "succeeded": 5}


def _nap(seconds: float) -> None:
    time.sleep(seconds)


def test_the_wait_of_a_delayed_task_begins_when_it_is_due(app: Stem, operator: Operator, begin: Begin) -> None:
    add = app.task(name="add")(handlers.add)
    begin(app)
    add.using(delay=1.5).enqueue(1).result(timeout=BOUND)
    settled(operator, "add", {"started": 1, "succeeded": 1})
    assert middle(operator.figures("add").wait) < 1.4


def test_failures_and_each_retry(app: Stem, operator: Operator, begin: Begin) -> None:
    flaky = app.task(name="flaky", isolate=True, max_retries=2)(handlers.flaky)
    begin(app, retry_strategy=QuickRetries())
    handles = [flaky.enqueue(1), flaky.enqueue(9)]
    eventually(lambda: all(handle.status().state.terminal for handle in handles), within=BOUND)
    settled(operator, "flaky", {"started": 5, "retried": 3, "succeeded": 1, "failed": 1})
    assert entries(operator.figures("flaky").run) == 5


@pytest.mark.parametrize("isolate", [True, False])
def test_time_outs_soft_and_hard(app: Stem, operator: Operator, begin: Begin, isolate: bool, totals: Callable[[], Totals]) -> None:
    handler = handlers.spin if isolate else handlers.sleep_async
    stuck = app.task(name="stuck", isolate=isolate, soft_time_limit=0.1, hard_time_limit=0.3)(handler)
    begin(app)
    stuck.enqueue()
    settled(operator, "stuck", {"started": 1, "timed_out_soft": 1, "timed_out_hard": 1, "failed": 1})
    assert totals().kills == ({"hard": 1} if isolate else {})
    assert entries(totals().kill_late) == isolate


def test_a_time_out_that_is_tried_again_counts_too(app: Stem, operator: Operator, begin: Begin) -> None:
    stuck = app.task(name="stuck", isolate=True, hard_time_limit=0.2, max_retries=1)(handlers.spin)
    begin(app, retry_strategy=QuickRetries())
    stuck.enqueue()
    settled(operator, "stuck", {"started": 2, "timed_out_hard": 2, "retried": 1, "failed": 1})


def test_silence(app: Stem, operator: Operator, begin: Begin, totals: Callable[[], Totals]) -> None:
    silent = app.task(name="silent", isolate=True, heartbeat_timeout=0.2)(handlers.spin)
    begin(app)
    silent.enqueue()
    settled(operator, "silent", {"started": 1, "timed_out_silence": 1, "failed": 1})
    assert totals().kills == {"silence": 1}


def test_crashes_also_of_attempts_that_are_tried_again(app: Stem, operator: Operator, begin: Begin, totals: Callable[[], Totals]) -> None:
    crash = app.task(name="crash", isolate=True, max_retries=1)(handlers.crash)
    begin(app, retry_strategy=QuickRetries())
    crash.enqueue()
    settled(operator, "crash", {"started": 2, "crashed": 2, "retried": 1, "failed": 1})
    assert totals().kills == {}


def test_a_kill_by_an_operator_is_a_crash_with_a_reason(
    app: Stem, operator: Operator, begin: Begin, tmp_path: Path, totals: Callable[[], Totals]
) -> None:
    wait = app.task(name="wait", isolate=True)(handlers.say_and_wait)
    worker, recorder = begin(app)
    recorder.wait(WorkerEventType.PROGRESS, wait.enqueue(str(tmp_path / "gate")).id)
    [pid] = eventually(lambda: [each.pid for each in operator.worker(worker.id).isolates if each.state == "busy"], within=BOUND)
    assert operator.order(worker.id, "kill", pid).done
    settled(operator, "wait", {"started": 1, "crashed": 1, "failed": 1})
    assert totals().kills == {"operator": 1}


def test_too_much_memory(app: Stem, operator: Operator, begin: Begin, totals: Callable[[], Totals]) -> None:
    devour = app.task(name="devour", isolate=True, memory_limit="64MiB")(handlers.devour)
    begin(app)
    devour.enqueue(256 << 20)
    settled(operator, "devour", {"started": 1, "out_of_memory": 1, "failed": 1})
    assert totals().kills == {"memory": 1}


def test_revokes_of_what_waits_and_of_what_runs(
    app: Stem, operator: Operator, begin: Begin, tmp_path: Path, totals: Callable[[], Totals]
) -> None:
    wait = app.task(name="wait", isolate=True)(handlers.say_and_wait)
    _, recorder = begin(app)
    waiting, ended = wait.using(delay=3600).enqueue(""), wait.enqueue(str(tmp_path / "gate"))
    recorder.wait(WorkerEventType.PROGRESS, ended.id)
    assert waiting.revoke() and ended.revoke(terminate=True)
    settled(operator, "wait", {"started": 1, "revoked": 2})
    assert totals().kills == {"revoked": 1}


def test_what_never_begins_counts_as_what_it_became(app: Stem, operator: Operator, begin: Begin) -> None:
    add = app.task(name="add")(handlers.add)
    expired = add.using(expires=0.001).enqueue(1)
    eventually(lambda: time.time() > expired.status().enqueued_at.timestamp() + 0.01)
    unknown = app.enqueue("unknown", {})
    begin(app, unregistered_grace=0)
    eventually(lambda: unknown.status().state is TaskState.FAILED, within=BOUND)
    settled(operator, "unknown", {"failed": 1})
    settled(operator, "add", {"revoked": 1})
    assert not operator.figures("add").wait and not operator.figures("unknown").run


def test_what_takes_long_is_among_the_started_while_it_runs(app: Stem, operator: Operator, begin: Begin, tmp_path: Path) -> None:
    wait = app.task(name="wait", isolate=True)(handlers.say_and_wait)
    begin(app)
    handle = wait.enqueue(str(tmp_path / "gate"))
    settled(operator, "wait", {"started": 1})
    (tmp_path / "gate").touch()
    handle.result(timeout=BOUND)
    settled(operator, "wait", {"started": 1, "succeeded": 1})


def test_counts_are_stored_at_the_end_of_a_worker(app: Stem, operator: Operator, begin: Begin) -> None:
    add = app.task(name="add")(handlers.add)
    handles = [add.enqueue(1) for _ in range(20)]
    worker, _ = begin(app, burst=True)
    worker.join(BOUND)
    assert all(handle.status().state is TaskState.SUCCEEDED for handle in handles)
    assert operator.counted("add") == {"started": 20, "succeeded": 20}


def test_nothing_is_lost_or_doubled_while_the_broker_is_away(tmp_path: Path, begin: Begin) -> None:
    with closing(CabledStem(f"sqlite:///{tmp_path}/jobs.db", claim_interval=0.05)) as cabled:
        operator = Operator(Stem(f"sqlite:///{tmp_path}/jobs.db"))
        stuck = cabled.task(name="stuck", isolate=True, soft_time_limit=0.2, hard_time_limit=5)(handlers.say_and_wait)
        add = cabled.task(name="add")(handlers.add)
        _, recorder = begin(cabled, concurrency=2)
        handle: Any = stuck.enqueue(str(tmp_path / "gate"))
        for number in range(3):
            add.enqueue(number).result(timeout=BOUND)
            cabled.pulled.set()
            recorder.wait(WorkerEventType.ERROR, count=number + 1)
            cabled.pulled.clear()
            recorder.wait(WorkerEventType.COMPLETED, count=number + 1)
        cabled.pulled.set()
        recorder.wait(WorkerEventType.TIMEOUT, handle.id)
        (tmp_path / "gate").touch()
        cabled.pulled.clear()
        handle.result(timeout=BOUND)
        settled(operator, "stuck", {"started": 1, "timed_out_soft": 1, "succeeded": 1})
        settled(operator, "add", {"started": 3, "succeeded": 3})


class Refusing:
    """A worker's broker that takes no counts at first, and all else."""

    def __init__(self, broker: Any) -> None:
        self._broker, self.refused = broker, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def add_counts(self, counts: Any) -> None:
        if self.refused < 2:
            self.refused += 1
            raise BrokerUnavailable("no counts")
        self._broker.add_counts(counts)


class HalfAway(Refusing):
    """As a cluster of which one node is away: what is for the others is stored, and the call fails."""

    def __init__(self, broker: Any, back: threading.Event, refused: list[Any]) -> None:
        super().__init__(broker)
        self._back, self._refused = back, refused

    def add_counts(self, counts: Any) -> None:
        if self._back.is_set() or all(row.queue != "away" for row in counts):
            self._broker.add_counts(counts)
            return
        self._broker.add_counts([row for row in counts if row.queue != "away"])
        self._refused.append(counts)
        raise BrokerUnavailable("a node is away")


class RefusingStem(Stem):
    def open_broker(self) -> Any:
        return Refusing(super().open_broker())


class HalfAwayStem(Stem):
    def open_broker(self) -> Any:
        self.back, self.refused = getattr(self, "back", threading.Event()), getattr(self, "refused", [])
        return HalfAway(super().open_broker(), self.back, self.refused)


def test_counts_that_the_broker_refuses_are_kept_for_it(tmp_path: Path, begin: Begin) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    with closing(RefusingStem(url)) as app, closing(Stem(url)) as seen:
        add = app.task(name="add")(handlers.add)
        _, recorder = begin(app)
        add.enqueue(1).result(timeout=BOUND)
        recorder.wait(WorkerEventType.ERROR, count=2)
        settled(Operator(seen), "add", {"started": 1, "succeeded": 1})


@pytest.mark.slow
def test_counts_of_a_queue_are_stored_once_while_another_ones_are_refused(tmp_path: Path, begin: Begin) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    with closing(HalfAwayStem(url)) as app, closing(Stem(url)) as seen:
        there, away = app.task(name="there", queue="there")(handlers.add), app.task(name="away", queue="away")(handlers.add)
        begin(app, queues=["there", "away"])
        away.enqueue(1).result(timeout=BOUND)
        eventually(lambda: len(app.refused) > 0, within=BOUND)
        there.enqueue(1).result(timeout=BOUND)
        before = len(app.refused)
        eventually(lambda: len(app.refused) > before, within=BOUND)
        app.back.set()
        once = {"started": 1, "succeeded": 1}
        eventually(lambda: Operator(seen).counted("away", "away") == once, within=BOUND)
        assert Operator(seen).counted("there", "there") == once
