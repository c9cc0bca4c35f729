"""The three ways to stop, and what is true while a worker drains."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stem_iso import BrokerUnavailable, Stem, StemError, Worker, WorkerEventType
from stem_iso.testing import eventually
from tests.worker import handlers
from tests.worker.conftest import Begin, EventRecorder, QuickRetries, alive


def test_a_drain_lets_what_runs_end_and_fetches_nothing_more(app: Stem, begin: Begin, tmp_path):
    wait = app.task(name="wait", isolate=True)(handlers.say_and_wait)
    worker, recorder = begin(app)
    running, waiting = wait.enqueue(str(tmp_path / "gate")), wait.enqueue(str(tmp_path / "gate"))
    recorder.wait(WorkerEventType.PROGRESS, running.id)
    worker.stop()
    (tmp_path / "gate").touch()
    worker.join(30)
    assert running.status().state.value == "succeeded"
    assert waiting.status().state.value == "queued" and recorder.history(waiting.id) == []


def test_what_outlasts_the_grace_is_killed_and_given_back_without_using_an_attempt(app: Stem, begin: Begin, tmp_path):
    spin = app.task(name="spin", isolate=True)(handlers.write_pid)
    worker, recorder = begin(app, shutdown_timeout=0.3)
    handle = spin.enqueue(str(tmp_path / "pid"))
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    before = time.monotonic()
    worker.stop()
    worker.join(30)
    assert 0.3 <= time.monotonic() - before < 5
    assert not alive(int((tmp_path / "pid").read_text()))
    status = handle.status()
    assert (status.state.value, status.attempt, status.redeliveries) == ("queued", 0, 0)
    assert not {"failed", "retried", "completed"} & set(recorder.history(handle.id))


def test_at_once_does_not_wait_for_the_grace(app: Stem, begin: Begin):
    spin = app.task(name="spin", isolate=True)(handlers.say_and_spin)
    worker, recorder = begin(app, shutdown_timeout=600)
    handle = spin.enqueue()
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    worker.stop()
    worker.stop(at_once=True)
    worker.join(10)
    assert handle.status().state.value == "queued"
    assert handle.status().meta == {"said": "before the end"}


def test_a_started_task_that_is_acknowledged_early_is_lost_with_its_worker(app: Stem, begin: Begin):
    spin = app.task(name="spin", isolate=True, acks_late=False)(handlers.say_and_spin)
    worker, recorder = begin(app)
    handle = spin.enqueue()
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    worker.stop(at_once=True)
    worker.join(10)
    assert handle.status().reason == "worker-lost"
    assert recorder.of(WorkerEventType.FAILED, handle.id)[0].reason == "worker-lost"


@pytest.mark.slow
def test_limits_are_enforced_and_leases_renewed_during_a_long_drain(app: Stem, begin: Begin, tmp_path):
    spin = app.task(name="spin", isolate=True, hard_time_limit=1.2, visibility_timeout=0.3)(handlers.count_and_spin)
    worker, recorder = begin(app, shutdown_timeout=60)
    handle = spin.enqueue(str(tmp_path / "runs"))
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    worker.stop()
    begin(app)  # would take the lease, were it not renewed
    worker.join(30)
    assert recorder.of(WorkerEventType.FAILED, handle.id)[0].error.type.endswith("TimeoutException")
    assert (tmp_path / "runs").stat().st_size == 1


def test_a_task_that_still_waits_for_an_isolate_goes_back_when_the_worker_drains(app: Stem, begin: Begin, tmp_path):
    gate = str(tmp_path / "never")
    app.on_isolate_start(lambda: handlers.wait_for(gate))
    handle = app.task(name="add", isolate=True)(handlers.add).enqueue(1)
    broker = app.open_broker()
    worker, recorder = begin(app, shutdown_timeout=600)
    eventually(lambda: broker.queues()[0].running == 1)
    worker.stop()
    worker.join(20)
    assert (handle.status().state.value, handle.status().attempt) == ("queued", 0)
    assert recorder.history(handle.id) == []


def test_leaving_the_block_drains(app: Stem, tmp_path):
    wait = app.task(name="wait", isolate=True)(handlers.say_and_wait)
    with Worker(app, concurrency=1, spares=0) as worker:
        recorder = EventRecorder(worker)
        handle = wait.enqueue(str(tmp_path / "gate"))
        recorder.wait(WorkerEventType.PROGRESS, handle.id)
        threading.Timer(0.2, (tmp_path / "gate").touch).start()
    assert handle.status().state.value == "succeeded"


def test_a_worker_runs_once(app: Stem, begin: Begin):
    worker, _ = begin(app)
    with pytest.raises(StemError, match="make another Worker"):
        worker.start()


def test_a_worker_whose_broker_cannot_be_reached_says_so_at_its_start(tmp_path):
    (tmp_path / "file").touch()
    app = Stem(broker=f"sqlite:///{tmp_path}/file/jobs.db")
    worker = Worker(app)
    with pytest.raises(BrokerUnavailable):
        worker.start()
    worker.join(10)


def test_burst_ends_when_nothing_is_left_but_what_a_producer_delayed(app: Stem):
    add = app.task(name="add", isolate=True)(handlers.add)
    flaky = app.task(name="flaky", isolate=True, max_retries=1, retry_strategy=SoonRetries())(handlers.flaky)
    handles = [add.enqueue(1), flaky.enqueue(until=1)]
    delayed = add.using(delay=600).enqueue(1)
    Worker(app, concurrency=1, burst=True).run()
    assert [handle.status().result for handle in handles] == [2, 1]
    assert delayed.status().state.value == "queued"


def test_burst_with_an_empty_queue_ends_at_once(app: Stem):
    before = time.monotonic()
    Worker(app, burst=True).run()
    assert time.monotonic() - before < 5


class SoonRetries(QuickRetries):
    def next_delay(self, attempt: int, error: object) -> float:
        return 0.3


PROGRAM = """
import sys
from stem_iso import Stem, Worker
from tests.worker import handlers
app = Stem(broker=sys.argv[1])
wait = app.task(name="wait", isolate=True)(handlers.say_and_wait)
if __name__ == "__main__":
    Worker(app, concurrency=1, shutdown_timeout=60).run()
    print("over", flush=True)
"""


@pytest.fixture
def program(app: Stem, tmp_path: Path):
    """A program that embeds a worker, in the midst of a task."""
    (tmp_path / "program.py").write_text(PROGRAM)
    wait = app.task(name="wait", isolate=True)(handlers.say_and_wait)
    handle = wait.enqueue(str(tmp_path / "gate"))
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), app.broker], env=environment, stdout=subprocess.PIPE, text=True
    )
    eventually(lambda: handle.status().progress is not None, 30)
    yield process, handle
    process.kill()
    process.wait()


@pytest.mark.slow
def test_run_drains_at_the_first_term(program, tmp_path):
    process, handle = program
    process.send_signal(signal.SIGTERM)
    (tmp_path / "gate").touch()
    assert process.communicate(timeout=30)[0] == "over\n"
    assert handle.status().state.value == "succeeded"


def test_run_ends_at_once_at_the_second_int(program):
    process, handle = program
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=10)[0] == "over\n"
    assert handle.status().state.value == "queued"


@pytest.mark.slow
def test_run_ends_at_once_at_quit(program):
    process, handle = program
    process.send_signal(signal.SIGQUIT)
    assert process.communicate(timeout=10)[0] == "over\n"
    assert handle.status().state.value == "queued"


def test_a_worker_takes_the_application_itself():
    with pytest.raises(TypeError, match="app: 'shop:app' must be a Stem"):
        Worker("shop:app")  # type: ignore[arg-type]
