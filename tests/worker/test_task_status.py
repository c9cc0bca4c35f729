"""What is known of one task, while it lives and after: its arguments, its events, another run of it. Real workers, both brokers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from stem_iso import (
    InvalidOptions,
    RetryRefused,
    Stem,
    TaskCancelled,
    TaskContext,
    TaskFailed,
    TaskHandler,
    TaskOptions,
    TaskState,
    TaskStatus,
    UnknownResult,
)
from stem_iso.testing import eventually
from tests.servers.fixtures import broker_of
from tests.worker.conftest import Begin, QuickRetries

SECRET = "hunter2"


@pytest.fixture(params=["sqlite", "redis"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stem]:
    with broker_of(request.param, tmp_path) as url:
        app = Stem(broker=url, claim_interval=0.1)
        yield app
        app.close()


@pytest.fixture
def local() -> Iterator[Stem]:
    app = Stem(broker="memory://")
    yield app
    app.close()


# -- events ------------------------------------------------------------------------------------------------------------------------------


def steps(context: TaskContext, fail_first: bool = False) -> str:
    for percent in (10, 50, 90):
        context.progress(percent)
    if fail_first and context.attempt == 0:
        raise ValueError("once")
    return "done"


def shown(event: Any) -> Any:
    return (event.type.value, event.percent) if event.type == "progress" else event.type.value


ONE_ATTEMPT = ["started", ("progress", 10), ("progress", 50), ("progress", 90)]


def test_the_events_of_one_task_come_in_order_and_end_with_it(app: Stem, begin: Begin):
    work = app.task(name="work", max_retries=1, retry_strategy=QuickRetries())(steps)
    other, handle = work.enqueue(), work.enqueue(fail_first=True)
    events = handle.events(timeout=60)
    begin(app)
    assert [shown(event) for event in events] == [*ONE_ATTEMPT, "retried", *ONE_ATTEMPT, "completed"]
    assert other.result(timeout=30) == handle.result(timeout=30) == "done"


def test_they_come_in_a_loop_as_well(app: Stem, begin: Begin):
    work = app.task(name="work")(steps)
    handle = work.enqueue()

    async def main() -> list[Any]:
        events = handle.aevents(timeout=60)
        await asyncio.to_thread(eventually, lambda: app.event_feed._thread.service._followers)
        begin(app)
        return [shown(event) async for event in events]

    assert asyncio.run(asyncio.wait_for(main(), 60)) == [*ONE_ATTEMPT, "completed"]


def test_of_a_task_that_had_ended_they_end_at_once(app: Stem, begin: Begin):
    work = app.task(name="work")(steps)
    begin(app)
    handle = work.enqueue()
    handle.result(timeout=30)
    assert [event.type for event in handle.events() if event.type != "completed"] == []


def test_an_end_that_nobody_reports_is_seen(app: Stem):
    """No worker lives: what is revoked ends in the store."""
    handle = app.enqueue("work")
    events = handle.events(timeout=60)
    handle.revoke()
    assert list(events) == []
    assert handle.status().state is TaskState.CANCELLED


def test_without_an_event_they_end_by_the_timeout_and_the_task_goes_on(app: Stem):
    handle = app.enqueue("work")
    assert list(handle.events(timeout=0.1)) == []
    assert handle.status().state is TaskState.QUEUED
    with pytest.raises(UnknownResult):
        app.handle("nobody").events()


def test_the_end_of_the_run_before_is_not_the_end_of_this_one(app: Stem):
    """An event comes a little after the end that it reports: by then the task may have been retried."""
    from stem_iso.events import CompletedEvent, FailedEvent, encode
    from stem_iso.testing import eventually

    handle = app.enqueue("work")
    handle.revoke()
    handle.retry()
    events = handle.events(timeout=60)
    facts = {"at": 0.0, "worker_id": "w", "task_id": handle.id, "name": "work", "queue": "default", "attempt": 0}
    with app.broker_pool.borrow() as broker:
        eventually(broker.listening)
        broker.emit([encode(FailedEvent(run=0, reason="error", **facts)), encode(CompletedEvent(run=1, elapsed=0.0, **facts))])
    assert [(event.type.value, event.run) for event in events] == [("failed", 0), ("completed", 1)]


# -- another run -------------------------------------------------------------------------------------------------------------------------


def test_a_failed_task_runs_again_with_its_arguments(app: Stem, begin: Begin):
    seen: list[tuple[int, int, str]] = []

    @app.task(name="flaky", max_retries=1, retry_strategy=QuickRetries(), redact=("token",))
    def flaky(context: TaskContext, token: str) -> str:
        seen.append((context.run, context.attempt, token))
        if context.run == 0:
            raise ValueError("not yet")
        return "done"

    begin(app)
    handle = flaky.enqueue(SECRET)
    with pytest.raises(TaskFailed, match="not yet"):
        handle.result(timeout=30)
    handle.retry()
    assert handle.result(timeout=30) == "done"
    assert seen == [(0, 0, SECRET), (0, 1, SECRET), (1, 0, SECRET)]
    assert [queue.dead for queue in app.open_broker().queues()] in ([], [0])
    with pytest.raises(RetryRefused, match=f"{handle.id} does not run again: it has succeeded; enqueue it anew"):
        handle.retry()


def test_a_cancelled_one_runs_again_and_a_waiting_one_is_refused(app: Stem, begin: Begin):
    work = app.task(name="work")(steps)
    handle = work.using(delay=3600).enqueue()
    with pytest.raises(RetryRefused, match="it has not ended yet"):
        handle.retry()
    handle.revoke()
    asyncio.run(handle.aretry())
    begin(app)
    assert handle.result(timeout=30) == "done"
    with pytest.raises(UnknownResult):
        app.handle("nobody").retry()


def test_to_revoke_tells_what_has_ended_from_what_nobody_knows(app: Stem):
    handle = app.enqueue("work")
    assert (handle.revoke(), handle.revoke(), asyncio.run(handle.arevoke())) == (True, False, False)
    handle.forget()
    for unknown in (handle, app.handle("nobody")):
        for revoke in (unknown.revoke, lambda: asyncio.run(unknown.arevoke(terminate=True)), lambda: app.revoke(unknown.id)):  # noqa: B023
            with pytest.raises(UnknownResult, match=f"no task has the id '{unknown.id}'"):
                revoke()


# -- arguments, and what is not shown of them --------------------------------------------------------------------------------------------


def test_arguments_are_shown_by_name_and_secrets_nowhere(app: Stem, begin: Begin):
    @app.task(name="login", redact=("password",))
    def login(user: str, password: Annotated[str, msgspec.Meta(max_length=20)], **more: str) -> None:
        raise ValueError("no")

    begin(app)
    handle = login.enqueue("ann", password=SECRET, door="front")
    with pytest.raises(TaskFailed) as failure:
        handle.result(timeout=30)
    expected = {"user": "ann", "password": "***", "more": {"door": "front"}}
    status = handle.status()
    assert status.args == failure.value.status.args == status.as_dict()["args"] == expected
    assert (status.state, status.reason) == (TaskState.FAILED, "error")
    for text in (repr(status), repr(failure.value), str(failure.value), json.dumps(status.as_dict()), repr(login.s("ann", SECRET))):
        assert SECRET not in text and ("***" in text or text == str(failure.value))
    assert Stem(broker=app.broker).handle(handle.id).status().args is None, "no code is there to say what is secret"


def test_an_error_about_a_secret_argument_does_not_show_it(local: Stem):
    @local.task(redact=("password", "pin"))
    def login(user: int, password: Annotated[str, msgspec.Meta(max_length=3)], **more: int) -> None: ...

    for call in (
        lambda: login.enqueue(1, SECRET),
        lambda: local.enqueue(login.name, {"user": 1, "password": SECRET}),
        lambda: login.enqueue(1, "abc", pin=SECRET),
        lambda: local.enqueue(login.name, {"user": 1, "password": SECRET, 5: 6}),  # type: ignore[dict-item]
    ):
        with pytest.raises(TypeError) as refusal:
            call()
        assert SECRET not in str(refusal.value)
    with pytest.raises(TypeError, match=r"argument 'password' must be .*, not \*\*\*$"):
        login.enqueue(1, SECRET)
    with pytest.raises(TypeError, match="not 'one'"):
        login.enqueue("one", "abc")  # type: ignore[arg-type]


def test_a_function_that_is_carried_to_its_isolate_keeps_its_secrets_there(app: Stem, begin: Begin):
    @app.task(name="pin", isolate=True, redact=("pin",))
    def pin(pin: Literal["1234"]) -> None: ...

    begin(app)
    handle = Stem(broker=app.broker).enqueue("pin", {"pin": SECRET})  # where no code refuses it
    with pytest.raises(TaskFailed, match="argument 'pin' does not fit: it is redacted"):
        handle.result(timeout=60)


def test_what_a_task_redacts_is_redacted_in_isolates_to_which_the_application_is_carried(app: Stem, begin: Begin):
    app.task(name="other", redact=("token",))(lambda token: None)

    @app.task(name="one", isolate=True)
    def one(context: TaskContext) -> list[str]:
        enqueued = context.enqueue("other", {"token": SECRET}, delay=600)
        return [repr(app.tasks["other"].s(token=SECRET)), repr(app.handle(enqueued.id).status().args)]

    begin(app)
    assert one.enqueue().result(timeout=60) == ["Signature(<Task 'other'>, {'token': '***'})", "{'token': '***'}"]


def test_of_a_task_that_redacts_nothing_is_shown_that_is_no_parameter_of_it(app: Stem):
    app.task(name="login", redact=("password",))(lambda user, password: None)
    app.task(name="open")(lambda user: None)
    elsewhere = Stem(broker=app.broker)
    for name, shown in {"login": "***", "open": SECRET}.items():
        handle = elsewhere.enqueue(name, {"user": "ann", "pasword": SECRET})
        assert app.handle(handle.id).status().args == {"user": "ann", "pasword": shown}
    elsewhere.close()


def test_keys_of_keywords_and_of_class_handlers_are_redacted(local: Stem):
    class Email(TaskHandler[None]):
        name = "email"
        options = TaskOptions(redact=("token",))

        def call(self, context: TaskContext, args: dict[str, Any]) -> None: ...

    @local.task(name="keyed", redact=("token",))
    def keyed(**more: str) -> None: ...

    local.register(Email())
    assert local.enqueue("email", {"token": SECRET, "to": "ann"}).status().args == {"token": "***", "to": "ann"}
    assert keyed.enqueue(token=SECRET, to="ann").status().args == {"more": {"token": "***", "to": "ann"}}


def test_what_cannot_be_redacted_is_refused_where_it_is_said(local: Stem):
    def login(user: str, password: str) -> None: ...

    with pytest.raises(InvalidOptions, match=r"redact: there is no parameter 'pasword'; did you mean 'password'"):
        local.task(redact=("pasword",))(login)
    with pytest.raises(InvalidOptions, match=r"redact: 'password' must be names of parameters"):
        local.task(redact="password")(login)
    with pytest.raises(InvalidOptions, match="redact"):
        Stem("memory://", defaults=TaskOptions(redact=("password",)))
    with pytest.raises(InvalidOptions, match="redact"):
        local.task(login).using(redact=("password",))  # type: ignore[call-arg]


# -- for programs ------------------------------------------------------------------------------------------------------------------------


def test_an_error_is_there_whatever_ended_the_task(local: Stem):
    handle = local.enqueue("work")
    handle.revoke()
    with pytest.raises(TaskCancelled) as cancelled:
        handle.result(timeout=10)
    assert (cancelled.value.error.type, cancelled.value.error.message) == ("Cancelled", "revoked")
    failed = TaskFailed(TaskStatus(id="a", name="n", queue="q", state=TaskState.FAILED, reason="undecodable"))
    assert (failed.error.type, failed.error.message) == ("Failed", "undecodable")


def test_an_endpoint_of_fastapi_returns_it_as_it_is(local: Stem):
    fastapi = pytest.importorskip("fastapi")
    client_of = pytest.importorskip("fastapi.testclient").TestClient
    task = local.task(name="blob", redact=("password",))(lambda data, password: None)
    handle = task.using(delay=3600).enqueue(b"\xff", password=SECRET)
    web = fastapi.FastAPI()

    def annotated() -> TaskStatus:
        return handle.status()

    web.get("/annotated")(annotated)
    web.get("/plain", response_model=None)(lambda: handle.status())
    web.get("/dict")(lambda: handle.status().as_dict())
    client = client_of(web)
    answers = [client.get(path).json() for path in ("/annotated", "/plain", "/dict")]
    assert answers == [handle.status().as_dict()] * 3 == [dict(handle.status())] * 3
    assert (answers[0]["state"], answers[0]["args"]) == ("queued", {"data": "/w==", "password": "***"})
    operation = web.openapi()["paths"]["/annotated"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert {"id", "state", "args", "error"} <= operation["properties"].keys() and "$ref" not in json.dumps(operation)
