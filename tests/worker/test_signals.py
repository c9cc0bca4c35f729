"""What listeners of `app.signals` hear of real workers: each thing once, in order, whatever becomes of the attempt and of the listener."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from stem_iso import BrokerUnavailable, InvalidOptions, Stem, TaskCancelled, TaskFailed, Worker, WorkerEventType, chain
from stem_iso.signals import Channel
from stem_iso.testing import eventually
from tests.worker import handlers
from tests.worker.conftest import Begin, QuickRetries, steal


class SignalRecorder:
    """Records every signal of an application."""

    def __init__(self, app: Stem) -> None:
        self.received: list[Any] = []
        self._changed = threading.Condition()
        for channel in app.signals:
            channel.connect(self._on_signal)

    def _on_signal(self, value: Any) -> None:
        with self._changed:
            self.received.append(value)
            self._changed.notify_all()

    def of(self, signal: str, task_id: str | None = None) -> list[Any]:
        return [value for value in self.received if value.signal == signal and task_id in (None, getattr(value, "task_id", None))]

    def wait(self, signal: str, task_id: str | None = None, count: int = 1, within: float = 30.0) -> Any:
        deadline = time.monotonic() + within
        with self._changed:
            while len(found := self.of(signal, task_id)) < count:
                left = deadline - time.monotonic()
                assert left > 0, f"no {signal} #{count} in {within} s; heard {[value.signal for value in self.received]}"
                self._changed.wait(left)
        return found[count - 1]

    def history(self, task_id: str) -> list[str]:
        """What workers emitted of one task, in order."""
        return [f"{value.signal.removeprefix('task_')} {value.attempt}" for value in self._of_worker(task_id)]

    def _of_worker(self, task_id: str) -> Iterator[Any]:
        return (value for value in self.received if getattr(value, "task_id", None) == task_id and "publish" not in value.signal)


def test_a_success_is_signalled_once_each_and_in_order(app: Stem, begin: Begin):
    signals = SignalRecorder(app)
    add = app.task(name="add", isolate=True)(handlers.add)
    begin(app)
    handle = add.using(queue="default").enqueue(2, b=3)
    ended = signals.wait("task_postrun", handle.id)
    assert signals.history(handle.id) == ["received 0", "prerun 0", "succeeded 0", "postrun 0"]
    signal = signals.of("task_succeeded")[0]
    assert (signal.result, signal.result_bytes, signal.name, signal.queue) == (5, 1, "add", "default")
    assert (ended.state, ended.reason) == ("succeeded", None)
    assert ended.elapsed == signal.elapsed > 0


def test_a_result_too_large_to_show_is_signalled_by_its_size(app: Stem, begin: Begin):
    signals = SignalRecorder(app)
    huge = app.task(name="huge", isolate=True)(handlers.huge)
    begin(app)
    handle = huge.enqueue(1 << 20)
    signal = signals.wait("task_succeeded", handle.id)
    assert signal.result is None and signal.result_bytes > 1 << 20


def test_retries_say_why_and_when_and_the_last_failure_is_signalled_as_one(app: Stem, begin: Begin):
    signals = SignalRecorder(app)
    boom = app.task(name="boom", isolate=True, max_retries=1, retry_strategy=QuickRetries())(handlers.boom)
    begin(app)
    handle = boom.enqueue("no luck")
    last = signals.wait("task_postrun", handle.id, count=2)
    assert signals.history(handle.id) == [
        *("received 0", "prerun 0", "retry 0", "postrun 0"),
        *("received 1", "prerun 1", "failed 1", "postrun 1"),
    ]
    retry = signals.of("task_retry")[0]
    assert (retry.reason, retry.next_attempt, retry.delay, retry.error.message) == ("error", 1, pytest.approx(0, abs=0.1), "no luck")
    assert retry.due == pytest.approx(time.time(), abs=60)
    failed = signals.of("task_failed")[0]
    assert (failed.reason, failed.error.type) == ("max-retries-exhausted", "ValueError")
    assert [value.state for value in signals.of("task_postrun")] == ["retried", "failed"]
    assert last.reason == "max-retries-exhausted"


@pytest.mark.parametrize(
    ("handler", "options", "error"),
    [
        (handlers.spin, {"hard_time_limit": 0.2}, "stem_iso.errors.TimeoutException"),
        (handlers.crash, {}, "stem_iso.errors.IsolateCrashed"),
        (handlers.sleep_async, {"hard_time_limit": 0.2, "isolate": False}, "stem_iso.errors.TimeoutException"),
    ],
)
def test_a_killed_attempt_is_signalled_as_any_other(app: Stem, begin: Begin, handler, options, error):
    signals = SignalRecorder(app)
    task = app.task(name="ends badly", **{"isolate": True, "max_retries": 1, "retry_strategy": QuickRetries(), **options})(handler)
    begin(app)
    handle = task.enqueue()
    signals.wait("task_postrun", handle.id, count=2)
    assert signals.history(handle.id) == [
        *("received 0", "prerun 0", "retry 0", "postrun 0"),
        *("received 1", "prerun 1", "failed 1", "postrun 1"),
    ]
    assert {value.error.type for value in (*signals.of("task_retry"), *signals.of("task_failed"))} == {error}


def test_a_revoked_attempt_is_signalled_once_whether_it_ran_or_waited(app: Stem, begin: Begin):
    signals = SignalRecorder(app)
    spin = app.task(name="spin", isolate=True)(handlers.spin)
    begin(app)
    running = spin.enqueue()
    signals.wait("task_prerun", running.id)
    running.revoke(terminate=True)
    ended = signals.wait("task_postrun", running.id)
    assert signals.history(running.id) == ["received 0", "prerun 0", "revoked 0", "postrun 0"]
    assert (ended.state, signals.of("task_revoked")[0].reason) == ("cancelled", "revoked")


def test_a_failure_of_what_was_revoked_meanwhile_is_signalled_as_revoked(app: Stem, begin: Begin, tmp_path):
    signals = SignalRecorder(app)
    task = app.task(name="wait and fail", isolate=True, max_retries=3)(handlers.say_wait_and_fail)
    _, recorder = begin(app)
    handle = task.enqueue(str(tmp_path / "gate"))
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    assert handle.revoke()
    (tmp_path / "gate").touch()
    ended = signals.wait("task_postrun", handle.id)
    assert signals.history(handle.id) == ["received 0", "prerun 0", "revoked 0", "postrun 0"]
    assert (ended.state, ended.reason) == ("cancelled", "revoked")


def test_what_another_worker_has_now_is_signalled_by_that_one_alone(app: Stem, begin: Begin, tmp_path):
    signals = SignalRecorder(app)
    wait = app.task(name="wait", isolate=True)(handlers.say_and_wait)
    _, recorder = begin(app)
    handle = wait.enqueue(str(tmp_path / "gate"))
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    steal(app, handle.id)
    (tmp_path / "gate").touch()
    assert "the lease was lost" in recorder.wait(WorkerEventType.ERROR, handle.id).message
    other = app.task(name="add", isolate=True)(handlers.add)
    signals.wait("task_postrun", other.enqueue(1).id)  # in line after whatever would have been emitted
    assert signals.history(handle.id) == ["received 0", "prerun 0"]


def test_a_worker_that_cannot_start_signals_no_life(tmp_path):
    app = Stem(broker=f"sqlite:///{tmp_path}/no/such/folder/jobs.db")
    signals = SignalRecorder(app)
    with pytest.raises(BrokerUnavailable):
        Worker(app).start()
    assert signals.received == []


@pytest.mark.slow
def test_the_parts_of_a_canvas_are_signalled_as_any_task_and_so_is_its_failure(app: Stem, begin: Begin):
    signals = SignalRecorder(app)
    add, boom = app.task(name="add", isolate=True)(handlers.add), app.task(name="boom", isolate=True)(handlers.boom)
    begin(app)
    chain(add.s(1), add.after(b=2), boom.s("no"), add.s(3), add.s(4)).enqueue()
    sent = [value.task_id for value in signals.of("before_task_publish")]
    assert len(sent) == 5 and [value.task_id for value in signals.of("after_task_publish")] == sent
    signals.wait("task_postrun", sent[2])
    assert [value.task_id for value in signals.of("task_succeeded")] == sent[:2]
    assert signals.wait("task_failed", sent[4]).reason == "link-failed"
    assert [value.task_id for value in signals.of("task_failed")] == [sent[2], sent[4]]  # none is emitted for the link between


def test_what_never_ran_has_an_end_and_no_run(app: Stem, begin: Begin):
    signals = SignalRecorder(app)
    add = app.task(name="add", isolate=True)(handlers.add)
    late = add.using(expires=0.01).enqueue(1)
    unheard_of = app.enqueue("nobody.knows", {})
    eventually(lambda: time.time() > signals.of("before_task_publish", late.id)[0].expires)
    begin(app, unregistered_grace=0)
    with pytest.raises(TaskCancelled):
        late.result(timeout=30)
    with pytest.raises(TaskFailed):
        unheard_of.result(timeout=30)
    assert signals.wait("task_revoked", late.id).reason == "expired"
    assert signals.wait("task_failed", unheard_of.id).reason == "unregistered-task"
    assert signals.history(late.id) == ["revoked 0"]
    assert signals.history(unheard_of.id) == ["failed 0"]


def test_arguments_that_do_not_fit_are_found_out_by_the_attempt(app: Stem, begin: Begin):
    signals = SignalRecorder(app)
    app.task(name="add", isolate=True)(handlers.add)
    begin(app)
    producer = Stem(app.broker)
    handle = producer.enqueue("add", {"c": 1})
    signals.wait("task_postrun", handle.id)
    assert signals.history(handle.id) == ["received 0", "prerun 0", "failed 0", "postrun 0"]
    assert signals.of("task_failed")[0].reason == "invalid-arguments"
    producer.close()


def test_a_task_given_up_by_a_lost_worker_is_signalled_as_failed_by_who_finds_it(app: Stem, begin: Begin, tmp_path):
    signals = SignalRecorder(app)
    wait = app.task(name="wait", isolate=True, acks_late=False, visibility_timeout=0.3)(handlers.say_and_wait)
    _, recorder = begin(app)
    handle = wait.enqueue(str(tmp_path / "gate"))
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    steal(app, handle.id)  # by a worker that is not there: its lease runs out
    signal = signals.wait("task_failed", handle.id)
    (tmp_path / "gate").touch()
    assert signal.reason == "worker-lost"
    assert signals.of("task_postrun", handle.id) == []


@pytest.mark.slow
def test_what_a_stopping_worker_gives_back_is_over_there_and_goes_on_elsewhere(app: Stem, begin: Begin, tmp_path):
    signals = SignalRecorder(app)
    wait = app.task(name="wait", isolate=True)(handlers.say_and_wait)
    worker, recorder = begin(app)
    handle = wait.enqueue(str(tmp_path / "gate"))
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    worker.stop(at_once=True)
    worker.join(30)
    assert signals.wait("task_postrun", handle.id).state == "queued"
    (tmp_path / "gate").touch()
    begin(app)
    signals.wait("task_postrun", handle.id, count=2)
    assert signals.history(handle.id) == [*("received 0", "prerun 0", "postrun 0"), *("received 0", "prerun 0", "succeeded 0", "postrun 0")]


def test_the_life_of_a_worker_is_signalled_from_ready_to_shutdown(app: Stem):
    signals = SignalRecorder(app)
    add = app.task(name="add", isolate=True)(handlers.add)
    worker = Worker(app, concurrency=1, spares=0, max_tasks_per_isolate=1, queues=["default", "other"])
    worker.start()
    for number in range(2):
        add.enqueue(number).result(timeout=30)
    died = signals.wait("isolate_recycled")
    assert len(signals.of("task_prerun")) == 2  # though nobody listens to the event of it
    worker.stop()
    worker.join(30)
    own = [value.signal for value in signals.received if value.signal.startswith("worker")]
    assert own == ["worker_ready", "worker_stopping", "worker_shutdown"]
    assert signals.received[-1].signal == "worker_shutdown"
    ready = signals.of("worker_ready")[0]
    assert (ready.worker_id, ready.boot, ready.seats, ready.spares) == (worker.id, worker.boot, 1, 0)
    assert ready.queues == ("default", "other") and ready.broker.startswith("sqlite:///")
    assert signals.of("worker_stopping")[0].at_once is False
    assert died.pid in [value.pid for value in signals.of("isolate_spawned")] and died.reason


def test_a_worker_that_is_stopped_at_once_says_so(app: Stem):
    signals = SignalRecorder(app)
    worker = Worker(app, concurrency=1)
    worker.start()
    worker.stop(at_once=True)
    worker.join(30)
    assert signals.of("worker_stopping")[0].at_once is True


def test_a_listener_that_raises_or_hangs_harms_no_task(app: Stem, begin: Begin):
    add = app.task(name="add", isolate=True)(handlers.add)
    release, hanging = threading.Event(), threading.Event()

    @app.signals.task_received.connect
    def raises(value: Any) -> None:
        raise ZeroDivisionError(value.task_id)

    @app.signals.task_succeeded.connect
    def hangs(value: Any) -> None:
        hanging.set()
        release.wait(60)

    _, recorder = begin(app)
    assert [add.enqueue(number).result(timeout=30) for number in range(20)] == list(range(1, 21))
    assert hanging.wait(30)
    release.set()
    assert "ZeroDivisionError" in recorder.wait(WorkerEventType.ERROR).traceback
    recorder.wait(WorkerEventType.ERROR, count=20)


def test_who_disconnects_is_not_called_and_who_connects_twice_is_called_once(app: Stem, begin: Begin):
    add = app.task(name="add", isolate=True)(handlers.add)
    signals, received = SignalRecorder(app), []
    assert app.signals.task_prerun.connect(received.append) == received.append
    app.signals.task_prerun.connect(received.append)
    begin(app)
    signals.wait("task_postrun", add.enqueue(1).id)
    assert len(received) == 1
    app.signals.task_prerun.disconnect(received.append)
    app.signals.task_prerun.disconnect(print)  # never connected
    signals.wait("task_postrun", add.enqueue(1).id)
    assert len(received) == 1


def test_a_signal_that_nobody_listens_to_is_never_built(app: Stem, begin: Begin, monkeypatch):
    add = app.task(name="add", isolate=True)(handlers.add)
    emitted: list[object] = []
    monkeypatch.setattr("stem_iso.worker.reporting.signals.SignalEmitter._emit", lambda self, channel, value: emitted.append(value))
    monkeypatch.setattr(Channel, "emit", lambda self, value: emitted.append(value))
    worker, _ = begin(app)
    assert add.enqueue(1).result(timeout=30) == 2
    worker.stop()
    worker.join(30)
    assert emitted == []


def test_publish_signals_surround_the_store_in_the_producers_own_thread(app: Stem):
    received: list[tuple[str, str, object]] = []
    add = app.task(name="add", isolate=True)(handlers.add)

    @app.signals.before_task_publish.connect
    def before(value: Any) -> None:
        with pytest.raises(LookupError):
            app.handle(value.task_id).status()
        value.headers["x"] = "a listener's copy"
        received.append(("before", value.task_id, threading.get_ident()))

    @app.signals.after_task_publish.connect
    def after(value: Any) -> None:
        assert app.handle(value.task_id).status().state == "queued"
        assert value.headers == {"x": "1"} and value.args == {"a": 1} and value.meta == {"by": "me"}
        received.append(("after", value.task_id, threading.get_ident()))

    handles = app.enqueue_many([add.using(headers={"x": "1"}, meta={"by": "me"}).s(1) for _ in range(2)])
    one, two = (handle.id for handle in handles)
    here = threading.get_ident()
    assert received == [("before", one, here), ("before", two, here), ("after", one, here), ("after", two, here)]


def test_after_a_publish_the_id_that_counts_is_the_holders_of_the_lock(app: Stem):
    signals = SignalRecorder(app)
    add = app.task(name="add", isolate=True, unique=True)(handlers.add)
    first, second = add.enqueue(1), add.enqueue(1)
    published = signals.of("after_task_publish")
    assert first.id == second.id == published[0].task_id == published[1].task_id
    assert [value.duplicate for value in published] == [False, True]
    assert published[1].sent_id == signals.of("before_task_publish")[1].task_id != first.id


def test_a_publish_listener_that_raises_is_logged_and_the_task_is_sent(app: Stem, caplog):
    add = app.task(name="add", isolate=True)(handlers.add)
    app.signals.before_task_publish.connect(lambda value: 1 / 0)
    app.signals.after_task_publish.connect(lambda value: 1 / 0)
    assert add.enqueue(1).status().state == "queued"
    assert [record.name for record in caplog.records] == ["stem_iso.signals"] * 2


def test_a_publish_that_fails_has_a_before_and_no_after(app: Stem):
    signals = SignalRecorder(app)
    small = Stem(app.broker, max_payload_bytes=1024)
    signals = SignalRecorder(small)
    with pytest.raises(ValueError, match="max_payload_bytes"):
        small.enqueue("add", {"a": "x" * 2000})
    assert [value.signal for value in signals.received] == ["before_task_publish"]
    small.close()


def test_every_value_is_one_json_object_with_its_signals_name(app: Stem, begin: Begin):
    signals = SignalRecorder(app)
    boom = app.task(name="boom", isolate=True, max_retries=1, retry_strategy=QuickRetries())(handlers.boom)
    worker, _ = begin(app)
    signals.wait("task_failed", boom.enqueue().id)
    worker.stop()
    worker.join(30)
    lines = [msgspec.json.decode(msgspec.json.encode(value)) for value in signals.received]
    assert [line["signal"] for line in lines] == [value.signal for value in signals.received]
    retry = next(line for line in lines if line["signal"] == "task_retry")
    assert retry["error"]["type"] == "ValueError" and retry["next_attempt"] == 1


def test_a_misspelt_signal_names_the_one_that_was_meant(app: Stem):
    with pytest.raises(AttributeError, match="'task_succeded'; did you mean 'task_succeeded'"):
        _ = app.signals.task_succeded
    assert len([channel.name for channel in app.signals]) == 14


def test_what_cannot_be_called_on_a_thread_is_refused(app: Stem):
    async def listener(value: object) -> None: ...

    for nonsense in (listener, 3):
        with pytest.raises(InvalidOptions, match="task_retry"):
            app.signals.task_retry.connect(nonsense)
