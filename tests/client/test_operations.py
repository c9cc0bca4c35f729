"""What operators ask an application for: lists, orders, and the list of who did what. Both brokers; workers are played here."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stem_iso import ActionRefused, BrokerUnavailable, BulkResult, InvalidOptions, PayloadTooLarge, Stem, TaskStatus, UnknownResult
from stem_iso.brokers.base import DeadFilter, WorkerInfo
from stem_iso.brokers.operations import CommandReply
from stem_iso.client import task_list
from stem_iso.outcome import TaskState
from stem_iso.task.settlement import Finish
from stem_iso.testing.contract.steps import ERROR, FAILURE, SUCCESS, settle, take
from tests.servers.fixtures import broker_of

MINUTE = timedelta(minutes=1)


@pytest.fixture(params=["sqlite", "redis"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stem]:
    with broker_of(request.param, tmp_path) as url:
        app = Stem(broker=url, max_payload_bytes=10_000)
        declare(app)
        yield app
        app.close()


def declare(app: Stem) -> None:
    @app.task(name="send", redact=("token",))
    def send(to: str, token: str = "", copies: int = 1, **more: Any) -> None: ...

    @app.task(name="make", queue="images")
    def make(path: str) -> None: ...


def end(app: Stem, plan: Finish, queue: str = "default", most: int = 100) -> list[str]:
    """Take what is ready there, as a worker does, and end it; the ids."""
    with app.broker_pool.borrow() as broker:
        deliveries = take(broker, most, queues=[queue])
        for delivery in deliveries:
            settle(broker, delivery, plan)
    return [delivery.receipt.id for delivery in deliveries]


def ids(tasks: list[TaskStatus]) -> list[str]:
    return [task.id for task in tasks]


# -- list ------------------------------------------------------------------------------------------------------------------------------


def test_tasks_are_chosen_by_what_they_are(app: Stem) -> None:
    failed = app.enqueue("send", {"to": "ann"}).id
    assert end(app, FAILURE) == [failed]
    queued = app.enqueue("send", {"to": "bob"}).id
    delayed = app.enqueue("send", {"to": "bob"}, delay=3600).id
    other = app.enqueue("make", {"path": "cat.png"}).id
    assert ids(app.list_tasks().tasks) == [other, delayed, queued, failed]
    assert ids(app.list_tasks(newest_first=False).tasks) == [failed, queued, delayed, other]
    assert ids(app.list_tasks(state="failed").tasks) == [failed]
    assert ids(app.list_tasks(state="delayed").tasks) == [delayed]
    assert ids(app.list_tasks(state=["queued", "failed"], queue="default").tasks) == [queued, failed]
    assert ids(app.list_tasks(queue="images").tasks) == ids(app.list_tasks(name="mak*").tasks) == [other]
    assert ids(app.list_tasks(since=MINUTE, until=timedelta(0)).tasks) == [other, delayed, queued, failed]
    assert app.list_tasks(until=MINUTE).tasks == app.list_tasks(since=datetime.now(UTC) + MINUTE).tasks == []
    assert app.list_tasks(state="failed").tasks[0].error == ERROR


def test_a_text_is_found_in_what_is_shown_and_nowhere_else(app: Stem) -> None:
    one = app.enqueue("send", {"to": "ann@example.com", "token": "hunter2"}).id
    app.enqueue("of other code", {"to": "ann@example.com"})
    assert ids(app.list_tasks(text="ANN@").tasks) == [one]
    assert app.list_tasks(text="hunter2").tasks == []
    assert app.list_tasks(text="ANN@").tasks[0].args == {"to": "ann@example.com", "token": "***"}


def test_paging_meets_each_task_once_while_they_change(app: Stem) -> None:
    dice = random.Random(7)
    known = [handle.id for handle in app.enqueue_many([app.tasks["send"].s(to=str(number)) for number in range(60)])]
    seen: list[str] = []
    cursor = None
    for _ in range(100):
        page = app.list_tasks(limit=7, cursor=cursor)
        seen += ids(page.tasks)
        app.enqueue("send", {"to": "newer"})
        app.revoke(dice.choice(known))
        end(app, FAILURE, most=2)
        for task in app.list_tasks(state="failed", limit=1).tasks:
            app.handle(task.id).retry()
        if (cursor := page.cursor) is None:
            break
    assert sorted(seen) == sorted(known)


def test_a_page_that_takes_too_long_is_short_and_the_next_one_goes_on(app: Stem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_list, "LONGEST_LOOK", 0.0)
    monkeypatch.setattr(task_list, "MOST_A_STEP", 5)
    sent = [app.enqueue("send", {"to": "ann" if number % 10 == 0 else "bob"}).id for number in range(40)]
    found: list[str] = []
    pages, cursor = 0, None
    while pages == 0 or cursor is not None:
        page = app.list_tasks(text="to=ann", limit=5, cursor=cursor)
        found += ids(page.tasks)
        pages, cursor = pages + 1, page.cursor
    assert found == sent[::10][::-1]
    assert pages > 2


def test_a_page_of_large_tasks_is_short(app: Stem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_list, "LARGEST_PAGE", 10_000)
    sent = [app.enqueue("send", {"to": "a" * 4000}).id for _ in range(7)]
    pages = [app.list_tasks()]
    while pages[-1].cursor is not None:
        pages.append(app.list_tasks(cursor=pages[-1].cursor))
    assert [len(page.tasks) for page in pages][:2] == [3, 3]
    assert [id for page in pages for id in ids(page.tasks)] == sent[::-1]


def test_a_page_that_is_full_in_the_middle_of_a_step_leaves_out_nothing(app: Stem) -> None:
    sent = [app.enqueue("send", {"to": "ann"}).id for _ in range(3)]
    first = app.list_tasks(text="ann", limit=2)
    second = app.list_tasks(text="ann", limit=2, cursor=first.cursor)
    assert ids(first.tasks) + ids(second.tasks) == sent[::-1]
    assert second.cursor is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"limit": 0}, "limit: 0"),
        ({"limit": 1001}, "limit: 1001"),
        ({"limit": True}, "limit: True"),
        ({"cursor": "no position"}, "cursor: 'no position'"),
        ({"cursor": ""}, "cursor: ''"),
        ({"cursor": "é\x00"}, "cursor: "),
        ({"cursor": 7}, "cursor: 7"),
        ({"state": "delaid"}, "did you mean 'delayed'"),
        ({"since": datetime(2026, 1, 31)}, "since: .* no zone"),
    ],
)
def test_what_cannot_be_meant_is_refused(app: Stem, options: dict[str, Any], says: str) -> None:
    app.enqueue("send", {"to": "ann"})
    with pytest.raises(InvalidOptions, match=says):
        app.list_tasks(**options)


def test_a_result_that_cannot_be_read_hides_no_other_task(app: Stem) -> None:
    app.enqueue("send", {"to": "ann"})
    [broken] = end(app, Finish(TaskState.SUCCEEDED, result=b"\xc1"))
    other = app.enqueue("send", {"to": "bob"}).id
    assert [(task.id, task.result) for task in app.list_tasks().tasks] == [(other, None), (broken, None)]


# -- one task --------------------------------------------------------------------------------------------------------------------------


def test_an_edit_keeps_what_is_starred_and_begins_a_new_run(app: Stem) -> None:
    handle = app.enqueue("send", {"to": "ann", "token": "hunter2", "more": {"token": "s3cret", "size": 3}})
    due = handle.status().not_before
    shown = handle.status().args
    assert shown is not None and shown["token"] == "***"
    handle.edit({**shown, "to": "bob"}, by="eve@desk")
    status = handle.status()
    assert (status.run, status.attempt, status.not_before) == (1, 0, due)
    with app.broker_pool.borrow() as broker:
        [delivery] = take(broker, 1)
    args = delivered_arguments(delivery.body)
    assert args["to"] == "bob" and args["token"] == "hunter2" and args["more"] == {"token": "s3cret", "size": 3}
    with pytest.raises(ActionRefused, match=f"task {handle.id} is not edited: it runs"):
        handle.edit({"to": "eve"})
    [action] = app.actions()
    assert (action.by, action.action, action.target, action.result) == ("eve@desk", "edit", handle.id, "run 1")


def test_an_edit_of_a_run_that_is_over_overwrites_nothing(app: Stem) -> None:
    handle = app.enqueue("send", {"to": "ann"})
    seen = handle.status()
    handle.edit({"to": "bob"}, run=seen.run)
    with pytest.raises(ActionRefused, match="another run meanwhile"):
        handle.edit({"to": "eve"}, run=seen.run)
    status = handle.status()
    assert status.run == 1 and status.args is not None and status.args["to"] == "bob"
    with pytest.raises(InvalidOptions, match="run: -1"):
        handle.edit({"to": "eve"}, run=-1)


def delivered_arguments(body: bytes) -> dict[str, Any]:
    import msgspec

    from stem_iso.task.envelope import decode

    args: dict[str, Any] = msgspec.msgpack.decode(decode(body).args)
    return args


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({}, "missing a required argument: 'to'"),
        ({"to": "ann", "colour": "red"}, "no parameter 'colour'"),
        ({"to": "ann", "copies": "many"}, "argument 'copies' must be int"),
        ({"to": "ann", "copies": "***"}, "'copies' has no value that"),
        (["ann"], "must be a mapping"),
    ],
)
def test_an_edit_that_does_not_fit_changes_nothing(app: Stem, args: Any, says: str) -> None:
    handle = app.enqueue("send", {"to": "ann"})
    with pytest.raises(TypeError, match=says):
        handle.edit(args)
    assert (handle.status().run, app.actions()) == (0, [])


def test_an_edit_for_which_no_code_is_here_is_taken_as_it_is(app: Stem) -> None:
    handle = app.enqueue("of other code", {"to": "ann", "n": 1})
    handle.edit({"to": "***", "colour": ["red"]})
    with app.broker_pool.borrow() as broker:
        [delivery] = take(broker, 1)
    assert delivered_arguments(delivery.body) == {"to": "ann", "colour": ["red"]}


def test_a_failed_task_is_edited_and_enqueued_again(app: Stem) -> None:
    handle = app.enqueue("send", {"to": "ann"})
    end(app, FAILURE)
    handle.edit({"to": "bob"})
    assert (handle.status().state, handle.status().run) == ("queued", 1)
    assert end(app, SUCCESS) == [handle.id]
    with pytest.raises(ActionRefused, match="it has succeeded"):
        handle.edit({"to": "eve"})
    with pytest.raises(PayloadTooLarge):
        app.enqueue("send", {"to": "ann"}).edit({"to": "a" * 20_000})
    with pytest.raises(UnknownResult):
        app.handle("nothing").edit({})


def test_a_delayed_task_is_run_now_and_no_other(app: Stem) -> None:
    handle = app.enqueue("send", {"to": "ann"}, delay=3600)
    assert end(app, SUCCESS) == []
    handle.run_now()
    with pytest.raises(ActionRefused, match="not run now: it is not delayed"):
        handle.run_now()
    assert end(app, SUCCESS) == [handle.id]
    with pytest.raises(UnknownResult):
        app.handle("nothing").run_now()
    assert [(action.action, action.target) for action in app.actions()] == [("run-now", handle.id)]


# -- many tasks ------------------------------------------------------------------------------------------------------------------------


def test_a_bulk_does_what_fits_and_counts_what_refuses(app: Stem) -> None:
    for number in range(5):
        app.enqueue("send", {"to": f"ann{number}"})
    failed = end(app, FAILURE, most=3)
    dry = app.bulk("retry", name="send", dry_run=True)
    assert (dry.matched, dry.done, dry.refused) == (5, 0, 0)
    assert app.list_tasks(state="failed").tasks and app.actions() == []
    so_far: list[int] = []
    result = app.bulk("retry", name="send", by="eve", progress=lambda found: so_far.append(found.matched))
    assert (result.matched, result.done, result.refused, result.reasons) == (5, 3, 2, {"active": 2})
    assert so_far[-1] == 5
    assert {app.handle(id).status().run for id in failed} == {1}
    [action] = app.actions()
    assert (action.by, action.action, action.target, action.result) == ("eve", "bulk retry", "name=send", "3 done, 2 refused")


def test_each_action_of_a_bulk_is_what_it_says(app: Stem) -> None:
    later = app.enqueue("send", {"to": "ann"}, delay=3600)
    waits = app.enqueue("make", {"path": "cat.png"})
    assert app.bulk("run-now", all=True).reasons == {"not-delayed": 1}
    assert end(app, FAILURE) == [later.id]
    assert app.bulk("delete", state="failed").done == 1 and app.bulk("delete", all=True).reasons == {"active": 1}
    with pytest.raises(UnknownResult):
        later.status()
    with app.broker_pool.borrow() as broker:
        assert broker.dead_letters(DeadFilter()) == []
        [running] = take(broker, 1, queues=["images"])
    assert app.bulk("revoke", text="dog.png").matched == 0
    assert app.bulk("terminate", text="cat.png").done == 1
    with app.broker_pool.borrow() as broker:
        assert [order.terminate for order in broker.revocations("alpha")] == [True]
        settle(broker, running, FAILURE)
    assert waits.status().state == "cancelled"
    assert app.bulk("revoke", all=True).reasons == {"ended": 1}


def test_a_bulk_of_everything_is_meant_in_words(app: Stem) -> None:
    app.enqueue("send", {"to": "ann"})
    with pytest.raises(InvalidOptions, match="all: no filter is given"):
        app.bulk("revoke")
    with pytest.raises(InvalidOptions, match="action: 'revok' is none; did you mean 'revoke'"):
        app.bulk("revok", all=True)  # type: ignore[arg-type]
    assert app.bulk("revoke", all=True).done == 1


def test_a_bulk_goes_through_more_than_a_step(app: Stem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stem_iso.client.bulk.MOST_A_STEP", 10)
    app.enqueue_many([app.tasks["send"].s(to=str(number)) for number in range(35)])
    so_far: list[int] = []
    result = app.bulk("revoke", state="queued", progress=lambda found: so_far.append(found.done))
    assert (result.done, app.list_tasks(state="queued").tasks) == (35, [])
    assert len(so_far) >= 4 and so_far == sorted(so_far)


def test_a_bulk_ends_although_more_is_enqueued_all_the_while(app: Stem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stem_iso.client.bulk.MOST_A_STEP", 2)
    for _ in range(6):
        app.enqueue("send", {"to": "ann"})

    def enqueue_more(result: BulkResult) -> None:
        assert result.matched <= 6
        app.enqueue_many([app.tasks["send"].s(to="bob") for _ in range(3)])

    assert app.bulk("revoke", all=True, progress=enqueue_more).matched == 6


# -- workers ---------------------------------------------------------------------------------------------------------------------------


def worker(id: str, queues: list[str], started_at: float) -> WorkerInfo:
    return WorkerInfo(id=id, boot=id, hostname="h", pid=1, queues=queues, seats=1, spares=0, started_at=started_at, seen_at=started_at)


@contextmanager
def played(app: Stem, answers: dict[str, CommandReply | None]) -> Iterator[None]:
    """Workers that serve `default` and answer each command so, None: not at all."""
    started_at = app.clock() - 1
    with app.broker_pool.borrow() as broker:
        for id in answers:
            broker.beat(worker(id, ["default"], started_at))
    over = threading.Event()

    def answer() -> None:
        broker = app.open_broker()
        while not over.wait(0.01):
            for id, reply in answers.items():
                for command in broker.commands(id, started_at) if reply else ():
                    broker.reply(command.id, reply)
        broker.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_who_obeys_who_refuses_and_who_is_silent_are_told_apart(app: Stem) -> None:
    answers = {"w1": CommandReply(worker_id="w1"), "w2": CommandReply(worker_id="w2", done=False, text="no such pid"), "w3": None}
    with played(app, answers):
        found = app.control("*", "concurrency", 8, timeout=1)
        assert (found, found.refused, found.silent) == (["w1"], {"w2": "no such pid"}, ["w3"])
        assert app.control("w1", "drain", timeout=30) == ["w1"]
        nobody = app.control("w4", "drain", timeout=30)
        assert (nobody, nobody.refused, nobody.silent) == ([], {}, [])
    newest = app.actions(limit=1)[0]
    assert (newest.action, newest.target, newest.result) == ("drain", "worker w4", "nobody is there")
    assert app.actions()[2].result == "obeyed: w1; refused: w2 (no such pid); silent: w3"


def test_a_pause_is_kept_and_acknowledged_by_those_whom_it_concerns(app: Stem) -> None:
    assert app.pause("default") == []
    with played(app, {"w1": CommandReply(worker_id="w1")}):
        assert app.pause("images", timeout=30) == []  # w1 does not serve it, and is not waited for
        assert app.resume("images", timeout=30) == []
        assert app.pause("default", timeout=30) == app.pause(task="send", timeout=30) == ["w1"]
    assert {queue.name: queue.paused for queue in app.queue_stats()} == {"default": True}
    assert app.queue_stats()[0].served_by == ["w1"]
    with app.broker_pool.borrow() as broker:
        assert broker.paused().tasks == {"send"}
    assert app.actions()[1].result == "it was so; obeyed: w1"
    with pytest.raises(InvalidOptions, match="queue: give either"):
        app.pause()
    with pytest.raises(InvalidOptions, match="not both"):
        app.resume("default", task="send")


@pytest.mark.parametrize(
    ("order", "says"),
    [
        (("w1", "drian", None), "action: 'drian' is none; did you mean 'drain'"),
        (("w1", "concurrency", 0), "value: 0"),
        (("w1", "concurrency", "8"), "value: '8'"),
        (("w1", "drain", 3), "value: 3 is none of drain"),
        (("w1", "drain", 1), "value: 1 is none of drain"),
        (("w1", "stop", 3), "value: 3 means nothing with stop"),
        (("w1", "log-level", "loud"), "value: 'loud' is no log level"),
        (("w1", "kill", None), "value: None"),
        (("*", "kill", 7), "name the worker"),
        (("", "drain", None), "worker_id: ''"),
    ],
)
def test_an_order_that_cannot_be_meant_reaches_nobody(order: tuple[Any, ...], says: str) -> None:
    with pytest.raises(InvalidOptions, match=says.replace("*", r"\*")):
        Stem("memory://").control(*order)


# -- actions ---------------------------------------------------------------------------------------------------------------------------


def test_an_application_that_revokes_in_its_own_code_is_no_operator(app: Stem) -> None:
    handle = app.enqueue("send", {"to": "ann"})
    handle.revoke()
    handle.retry()
    assert app.actions() == []
    app.log_action("retry", handle.id, "run 1")
    app.log_action("purge", "queue " + "q" * 5000)
    newest, oldest = app.actions()
    assert oldest.by.count("@") == 1 and (oldest.action, oldest.target, oldest.result) == ("retry", handle.id, "run 1")
    assert abs((datetime.now(UTC) - oldest.at).total_seconds()) < 60
    assert len(newest.target) == 400
    assert app.actions(limit=1) == [newest]
    with pytest.raises(InvalidOptions, match="limit: 0"):
        app.actions(limit=0)


def test_who_cannot_be_named_does_nothing(app: Stem) -> None:
    handle = app.enqueue("send", {"to": "ann"}, delay=3600)
    orders: list[Callable[[], object]] = [
        lambda: handle.run_now(by=""),
        lambda: handle.edit({"to": "bob"}, by="a\nb"),
        lambda: app.pause("default", by=""),
        lambda: app.control("w1", "drain", by=""),
        lambda: app.bulk("revoke", all=True, by=""),
        lambda: app.log_action("retry", by=""),
    ]
    for order in orders:
        with pytest.raises(InvalidOptions, match="by: "):
            order()
    assert (ids(app.list_tasks(state="delayed").tasks), handle.status().run) == ([handle.id], 0)
    assert app.actions() == [] and not any(queue.paused for queue in app.queue_stats())


def test_coroutines_ask_for_the_same(app: Stem) -> None:
    async def main() -> None:
        handle = await app.aenqueue("send", {"to": "ann"}, delay=3600)
        assert ids((await app.alist_tasks(state="delayed")).tasks) == [handle.id]
        await handle.arun_now()
        await handle.aedit({"to": "bob"})
        assert (await app.aqueue_stats())[0].queued == 1
        assert (await app.atask_stats("send")).total("enqueued") == 1
        assert await app.apause("default") == await app.aresume("default") == await app.acontrol("w1", "drain") == []
        assert (await app.abulk("revoke", all=True)).done == 1
        assert len(await app.aactions()) == 6

    asyncio.run(main())


def test_a_broker_that_is_away_is_said_at_once(tmp_path: Path) -> None:
    app = Stem(f"sqlite:///{tmp_path}/no/folder/jobs.db")
    for ask in (app.list_tasks, app.queue_stats, app.task_stats, app.actions, lambda: app.pause("a"), lambda: app.bulk("revoke", all=True)):
        with pytest.raises(BrokerUnavailable):
            ask()
