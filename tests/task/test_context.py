"""What a handler says and asks through its context."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stem_iso import (
    BrokerUnavailable,
    InvalidOptions,
    LeaseLost,
    PayloadTooLarge,
    RemoteError,
    Stem,
    StemError,
    TaskContext,
    WaitRefused,
    current_context,
    local_context,
)
from stem_iso.outcome import RetryAsked
from stem_iso.task.context import RetryRequested, entered
from stem_iso.task.context_protocol import (
    CallHeader,
    ContextAnswer,
    EnqueueRequest,
    ExtendRequest,
    MetaRequest,
    ProgressRequest,
    RevokeRequest,
)
from tests.task.making import RecordingPort


def context_over(port: RecordingPort, app: Stem | None = None, **header: Any) -> TaskContext:
    return TaskContext(CallHeader(**{"id": "t", "name": "n", "queue": "q", **header}), port, app, clock=lambda: 100.0)


def test_it_shows_the_attempt() -> None:
    context = context_over(RecordingPort(), run=1, attempt=2, max_retries=3, headers={"h": 1}, meta={"m": 1})
    assert (context.id, context.name, context.queue, context.run, context.attempt, context.max_retries) == ("t", "n", "q", 1, 2, 3)
    assert (context.headers, context.meta, context.isolated, context.local) == ({"h": 1}, {"m": 1}, False, False)
    assert context.idempotency_key == context_over(RecordingPort(), run=7, attempt=9).idempotency_key
    assert context.logger.name == "n"


@pytest.mark.parametrize(
    ("soft", "hard", "reached", "remaining"), [(None, None, False, None), (100.0, 101.5, True, 1.5), (100.1, 90.0, False, 0.0)]
)
def test_limits_are_read_off_the_clock(soft: float | None, hard: float | None, reached: bool, remaining: float | None) -> None:
    context = context_over(RecordingPort(soft_deadline=soft, hard_deadline=hard))
    assert (context.soft_limit_reached, context.deadline, context.remaining) == (reached, hard, remaining)


CHANGES: list[tuple[Callable[[dict[str, Any]], Any], dict[str, Any]]] = [
    (lambda meta: meta.__setitem__("b", 2), {"a": 1, "b": 2}),
    (lambda meta: meta.__delitem__("a"), {}),
    (lambda meta: meta.update({"b": 2}, c=3), {"a": 1, "b": 2, "c": 3}),
    (lambda meta: meta.update([("b", 2)]), {"a": 1, "b": 2}),
    (lambda meta: meta.setdefault("b", 2), {"a": 1, "b": 2}),
    (lambda meta: meta.pop("a"), {}),
    (lambda meta: meta.popitem(), {}),
    (lambda meta: meta.clear(), {}),
    (lambda meta: meta.__ior__({"b": 2}), {"a": 1, "b": 2}),
]


@pytest.mark.parametrize(("change", "after"), CHANGES)
def test_each_change_of_meta_is_sent_at_once(change: Callable[[dict[str, Any]], Any], after: dict[str, Any]) -> None:
    port = RecordingPort()
    context = context_over(port, meta={"a": 1})
    change(context.meta)
    assert port.requests == [MetaRequest(after)]
    assert context.meta == after
    context.finish()
    assert len(port.requests) == 1


def test_a_change_inside_a_value_of_meta_is_sent_at_the_end() -> None:
    port = RecordingPort()
    context = context_over(port, meta={"seen": []})
    context.meta["seen"].append("x")
    assert port.requests == []
    context.finish()
    assert port.requests == [MetaRequest({"seen": ["x"]})]


@pytest.mark.parametrize(("key", "value", "says"), [("b", object(), r"meta\['b'\] cannot be kept: a object"), (3, "x", "keys of meta")])
def test_meta_that_is_no_data_is_refused_and_changes_nothing(key: Any, value: Any, says: str) -> None:
    port = RecordingPort()
    context = context_over(port, meta={"a": 1})
    with pytest.raises(TypeError, match=says):
        context.meta[key] = value
    assert (port.requests, context.meta) == ([], {"a": 1})


def test_meta_can_be_replaced_as_a_whole() -> None:
    port = RecordingPort()
    context = context_over(port, meta={"a": 1})
    context.meta = {"b": 2}
    context.meta |= {"c": 3}
    assert port.requests == [MetaRequest({"b": 2}), MetaRequest({"b": 2, "c": 3}), MetaRequest({"b": 2, "c": 3})]


def test_progress_and_heartbeat() -> None:
    port = RecordingPort()
    context = context_over(port)
    context.progress(50, data={"step": "decoded"})
    context.progress(140)
    context.heartbeat()
    assert port.requests == [ProgressRequest(50.0, {"step": "decoded"}), ProgressRequest(100.0)]
    assert port.beats == 1


@pytest.mark.parametrize(("percent", "data"), [("50", None), (math.nan, None), (True, None), (50, object())])
def test_progress_that_is_no_data_raises_in_the_handler(percent: Any, data: Any) -> None:
    with pytest.raises(TypeError):
        context_over(RecordingPort()).progress(percent, data)


def test_a_retry_leaves_the_handler_past_a_broad_except() -> None:
    context = context_over(RecordingPort())
    eta = datetime(2030, 1, 1, tzinfo=UTC)

    def handler() -> None:
        with contextlib.suppress(Exception):
            context.retry(countdown=timedelta(seconds=5), max_retries=7)

    with pytest.raises(RetryRequested) as raised:
        handler()
    assert raised.value.retry == RetryAsked(5.0, None, 7)
    with pytest.raises(RetryRequested) as raised:
        context.retry(eta=eta)
    assert raised.value.retry == RetryAsked(None, eta.timestamp(), None)


@pytest.mark.parametrize("options", [{"countdown": -1}, {"countdown": 1, "eta": datetime(2030, 1, 1)}, {"max_retries": -1}, {"eta": 5}])
def test_a_retry_that_cannot_be_meant_raises_in_the_handler(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions):
        context_over(RecordingPort()).retry(**options)


def test_questions_wait_for_their_answer() -> None:
    port = RecordingPort(ContextAnswer(), ContextAnswer(True), ContextAnswer(["id-1"]))
    app = Stem("memory://")
    context = context_over(port, app, root_id="root")
    context.extend_lease(timedelta(minutes=1))
    assert context.revoke("other", terminate=True) is True
    assert context.enqueue("email.send", {"to": "ann"}, queue="mail").id == "id-1"
    extended, revoked, enqueued = port.requests
    assert (extended, revoked) == (ExtendRequest(60.0), RevokeRequest("other", True))
    assert isinstance(enqueued, EnqueueRequest)
    (envelope,) = enqueued.envelopes
    assert (envelope.name, envelope.queue, envelope.parent_id, envelope.root_id) == ("email.send", "mail", "t", "root")


@pytest.mark.parametrize("error", [LeaseLost, BrokerUnavailable, PayloadTooLarge])
def test_an_error_of_the_core_raises_in_the_handler(error: type[StemError]) -> None:
    with pytest.raises(error, match="why"):
        context_over(RecordingPort(ContextAnswer(error=(error.__name__, "why")))).extend_lease(5)


def test_an_error_without_a_class_here_comes_as_a_remote_one() -> None:
    with pytest.raises(RemoteError, match="Strange: why"):
        context_over(RecordingPort(ContextAnswer(error=("Strange", "why")))).extend_lease(5)


def test_what_is_enqueued_in_a_handler_goes_through_its_context_and_has_its_lineage() -> None:
    app, other = Stem("memory://"), Stem("memory://")

    @app.task
    def child(n: int) -> None: ...

    @other.task
    def stranger(n: int) -> None: ...

    port = RecordingPort(ContextAnswer(["id-1"]), ContextAnswer(["id-2", "id-3"]))
    with entered(context_over(port, app)):
        assert child.enqueue(1).id == "id-1"
        assert [handle.id for handle in app.enqueue_many([child.s(2), child.s(3)])] == ["id-2", "id-3"]
        published = stranger.enqueue(4)
        assert app.revoke("x") is False
    assert len(port.requests) == 3
    assert all(
        envelope.parent_id == "t" for request in port.requests if isinstance(request, EnqueueRequest) for envelope in request.envelopes
    )
    # Another application has another broker, which this worker knows nothing of.
    assert published.status().parent_id is None


def test_waiting_for_a_task_inside_a_handler_is_refused_and_says_what_to_do() -> None:
    app = Stem("memory://")
    handle = app.enqueue("n")
    with entered(context_over(RecordingPort(), app)), pytest.raises(WaitRefused, match=r"chain.*chord"):
        handle.result(timeout=1)
    with local_context(), pytest.raises(TimeoutError):
        handle.result(timeout=0)


# -- tasks that are simply called ------------------------------------------------------------------------------------------------------


def test_a_task_can_be_called_with_no_broker_at_all() -> None:
    app = Stem("sqlite:////nowhere/at/all.db")

    @app.task(isolate=True, hard_time_limit=1)
    def make(context: TaskContext, path: str, width: int = 128) -> tuple[object, ...]:
        context.progress(50)
        context.heartbeat()
        context.extend_lease(5)
        context.meta["x"] = 1
        assert current_context() is context
        return context.name, context.args, context.attempt, width, context.local, context.remaining

    assert make("cat", width=3) == (make.name, {"path": "cat", "width": 3}, 0, 3, True, None)
    assert current_context() is None
    with local_context(attempt=2, meta={"a": 1}) as around:
        assert make("cat")[2] == 2
        assert around.meta == {"a": 1, "x": 1}
    with pytest.raises(TypeError, match="path"):
        make()  # type: ignore[call-arg]


def test_two_calls_here_have_two_idempotency_keys_and_one_simulated_attempt_has_one() -> None:
    app = Stem("memory://")

    @app.task
    def inner(context: TaskContext) -> str:
        return context.idempotency_key

    @app.task
    def outer(context: TaskContext) -> tuple[str, str]:
        return context.idempotency_key, inner()

    assert inner() != inner()
    key, within = outer()
    assert key == within
    with local_context(id="order-7", attempt=1):
        assert inner() == inner() == "order-7"


def test_a_task_called_in_a_handler_is_part_of_it() -> None:
    app = Stem("memory://")

    @app.task
    def inner(context: TaskContext) -> TaskContext:
        return context

    with entered(context_over(RecordingPort(), app)) as context:
        assert inner() is context


def test_progress_with_something_that_cannot_travel_names_it() -> None:
    with local_context() as context, pytest.raises(TypeError, match=r"data: .* cannot be sent"):
        context.progress(50, data=object())
