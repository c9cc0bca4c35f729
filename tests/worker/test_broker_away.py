"""The broker goes away and comes back, at the worst moments; the tasks do not notice."""

from __future__ import annotations

import logging
import threading
from itertools import pairwise
from typing import Any

import pytest

from stem_iso import BrokerUnavailable, Stem, WorkerEventType
from stem_iso.testing import eventually
from tests.worker import handlers
from tests.worker.conftest import Begin


class Cable:
    """In front of a worker's broker: when it is pulled, the worker's thread gets no answers; producers still do."""

    def __init__(self, broker: Any, pulled: threading.Event) -> None:
        self._broker, self._pulled = broker, pulled

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._broker, name)
        if not callable(found) or name in ("close", "listening"):
            return found

        def call(*args: Any) -> Any:
            if self._pulled.is_set() and threading.current_thread().name == "stem-iso-consumer":
                raise BrokerUnavailable("the cable is pulled")
            return found(*args)

        return call


class CabledStem(Stem):
    """Its workers can be cut off."""

    def __init__(self, broker: str, **options: Any) -> None:
        super().__init__(broker, **options)
        self.pulled = threading.Event()

    def open_broker(self) -> Any:
        return Cable(super().open_broker(), self.pulled)


@pytest.fixture
def cabled(tmp_path) -> CabledStem:
    return CabledStem(f"sqlite:///{tmp_path}/jobs.db", claim_interval=0.05)


def test_an_outcome_is_kept_until_the_broker_is_back_and_stored_once(cabled: CabledStem, begin: Begin, tmp_path):
    wait = cabled.task(name="wait", isolate=True)(handlers.say_and_wait)
    _, recorder = begin(cabled)
    handle = wait.enqueue(str(tmp_path / "gate"))
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    cabled.pulled.set()
    (tmp_path / "gate").touch()
    assert "cannot be reached" in recorder.wait(WorkerEventType.ERROR).message
    assert handle.status().state.value == "running"
    assert "completed" not in recorder.history(handle.id)
    cabled.pulled.clear()
    assert handle.result(timeout=30) == "done"
    recorder.wait(WorkerEventType.COMPLETED, handle.id)
    assert recorder.history(handle.id).count("completed") == 1


def test_the_log_says_once_that_the_broker_is_back(cabled: CabledStem, begin: Begin, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, logger="stem_iso.worker")
    add = cabled.task(name="add")(handlers.add)
    _, recorder = begin(cabled)
    add.enqueue(1).result(timeout=30)
    cabled.pulled.set()
    handle = add.enqueue(1)
    recorder.wait(WorkerEventType.ERROR)
    assert not any("is back" in record.getMessage() for record in caplog.records)
    cabled.pulled.clear()
    handle.result(timeout=30)
    recorder.wait(WorkerEventType.COMPLETED, handle.id)
    eventually(lambda: len([record for record in caplog.records if "the broker is back, after" in record.getMessage()]) == 1)


def test_the_tries_back_off(cabled: CabledStem, begin: Begin):
    add = cabled.task(name="add")(handlers.add)
    _, recorder = begin(cabled)
    cabled.pulled.set()
    handle = add.enqueue(1)
    recorder.wait(WorkerEventType.ERROR, count=4)
    times = [event.at for event in recorder.of(WorkerEventType.ERROR)]
    gaps = [later - earlier for earlier, later in pairwise(times[:4])]
    assert gaps[0] >= 0.09 and gaps[1] >= 0.19 and gaps[2] >= 0.39
    cabled.pulled.clear()
    assert handle.result(timeout=30) == 2


def test_a_handler_that_asks_while_the_broker_is_away_gets_the_error(cabled: CabledStem, begin: Begin, tmp_path):
    ask = cabled.task(name="ask", isolate=True)(handlers.enqueue_when_opened)
    _, recorder = begin(cabled)
    handle = ask.enqueue(str(tmp_path / "gate"))
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    cabled.pulled.set()
    (tmp_path / "gate").touch()
    said = tmp_path / "gate.error"
    assert eventually(lambda: said.exists() and said.read_text(), 20) == "BrokerUnavailable"
    cabled.pulled.clear()
    assert handle.result(timeout=30) == "went on"


def test_limits_are_enforced_while_the_broker_is_away(cabled: CabledStem, begin: Begin):
    spin = cabled.task(name="spin", isolate=True, hard_time_limit=0.5)(handlers.say_and_spin)
    _, recorder = begin(cabled)
    handle = spin.enqueue()
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    cabled.pulled.set()
    assert recorder.wait(WorkerEventType.TIMEOUT, handle.id).level == "hard"
    cabled.pulled.clear()
    assert recorder.wait(WorkerEventType.FAILED, handle.id).error.type.endswith("TimeoutException")


@pytest.mark.slow
def test_a_lease_that_ran_out_meanwhile_is_renewed_before_anybody_could_claim_it(cabled: CabledStem, begin: Begin, tmp_path):
    wait = cabled.task(name="wait", isolate=True, visibility_timeout=0.3)(handlers.count_and_wait)
    _, recorder = begin(cabled)
    handle = wait.enqueue(str(tmp_path / "runs"), str(tmp_path / "gate"))
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    cabled.pulled.set()
    recorder.wait(WorkerEventType.ERROR, count=4)  # 0.7 s: more than twice the lease
    cabled.pulled.clear()
    (tmp_path / "gate").touch()
    assert handle.result(timeout=30) == 1
    assert handle.status().redeliveries == 0


@pytest.mark.slow
def test_a_worker_that_stops_without_its_broker_gives_up_and_says_what_it_could_not_store(cabled: CabledStem, begin: Begin):
    spin = cabled.task(name="spin", isolate=True)(handlers.say_and_spin)
    worker, recorder = begin(cabled)
    handle = spin.enqueue()
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    cabled.pulled.set()
    worker.stop(at_once=True)
    worker.join(20)
    assert any("could not be stored" in event.message for event in recorder.of(WorkerEventType.ERROR))
    assert handle.status().state.value == "running"
