"""Canvases as their users meet them: composed, run by a worker, waited for, revoked, drawn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stem_iso import (
    GroupHandle,
    InvalidOptions,
    Misfit,
    Part,
    Stem,
    TaskCancelled,
    TaskContext,
    TaskError,
    TaskFailed,
    TaskHandle,
    TaskHandler,
    TaskOptions,
    TaskState,
    UnknownResult,
    Worker,
    chain,
    chord,
    group,
)
from stem_iso.testing import eventually

BOUND = 30.0


@dataclass
class Page:
    url: str
    size: int


def application(broker: str) -> Stem:
    app = Stem(broker)

    @app.task(name="fetch")
    def fetch(url: str) -> Page:
        return Page(url, len(url))

    @app.task(name="measure", isolate=True)
    def measure(page: Page, factor: int = 1) -> int:
        return page.size * factor

    @app.task(name="add")
    async def add(numbers: list[int], more: int = 0) -> int:
        return sum(numbers) + more

    @app.task(name="say")
    def say(context: TaskContext, word: str) -> list[Any]:
        return [word, context.previous]

    @app.task(name="fail", max_retries=0)
    def fail(page: Page) -> int:
        raise ValueError(f"no {page.url}")

    @app.task(name="stuck", isolate=True, hard_time_limit=0.3)
    def stuck(page: Page) -> int:
        while True:
            pass

    @app.task(name="sorry")
    def sorry(context: TaskContext, error: TaskError) -> list[str]:
        return [error.type, context.previous["name"], context.previous["reason"]]

    @app.task(name="every")
    def every(*numbers: int) -> int:
        return sum(numbers)

    class Last(TaskHandler[Any]):
        name = "last"
        options = TaskOptions(queue="default")

        def call(self, context: TaskContext, args: dict[str, object]) -> Any:
            return [args, context.previous]

    app.register(Last())
    return app


@pytest.fixture(params=["memory", "file"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stem]:
    app = application("memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/jobs.db")
    with Worker(app, concurrency=2):
        yield app
    app.close()


@pytest.fixture
def idle() -> Stem:
    """Nobody works for it."""
    return application("memory://")


def call(app: Stem, name: str, *args: Any, **kwargs: Any) -> Any:
    return app.task_named(name).s(*args, **kwargs)


def after(app: Stem, name: str, *args: Any, **kwargs: Any) -> Any:
    return app.task_named(name).after(*args, **kwargs)


def test_a_chain_passes_results_on_by_annotation(app: Stem) -> None:
    handle = chain(call(app, "fetch", "abc"), after(app, "measure", factor=2), call(app, "say", "done")).enqueue()
    assert handle.result(timeout=BOUND) == ["done", 6]
    assert app.handle(handle.id).result(timeout=0) == ["done", 6]
    assert app.canvas(handle.id).draw().splitlines() == [
        "chain",
        "├─ fetch    succeeded",
        "├─ measure  succeeded",
        "└─ say      succeeded",
    ]


def test_results_of_a_group_come_in_order_and_as_they_come(app: Stem) -> None:
    handle = group(call(app, "fetch", "x" * size) | after(app, "measure") for size in range(6)).enqueue()
    assert sorted(handle.as_completed(timeout=BOUND)) == list(range(6))
    assert handle.results(timeout=0) == list(range(6))
    found = app.canvas(handle.id)
    assert isinstance(found, GroupHandle)
    assert found.results(timeout=0) == list(range(6))
    assert (found.progress().total, found.progress().succeeded, found.progress().ended) == (6, 6, 6)
    assert [member.result(0) for member in found.members] == list(range(6))


def test_results_outlive_the_members_that_they_are_of(app: Stem) -> None:
    fleeting = app.task_named("fetch").using(result_ttl=0.05)
    handle = group(fleeting.s("a"), fleeting.s("b")).enqueue()
    app.handle(handle.id).result(timeout=BOUND)
    eventually(lambda: not any(known(member) for member in handle.members))
    assert handle.results(timeout=0) == [{"url": "a", "size": 1}, {"url": "b", "size": 1}]


def known(handle: TaskHandle[Any]) -> bool:
    try:
        handle.status()
    except UnknownResult:
        return False
    return True


@pytest.mark.slow
def test_a_chord_gives_its_callback_the_list(app: Stem) -> None:
    members = [call(app, "fetch", "x" * size) | after(app, "measure") for size in range(4)]
    assert chord(members, after(app, "add", more=10)).enqueue().result(timeout=BOUND) == 16
    assert chord(members, call(app, "say", "all")).enqueue().result(timeout=BOUND) == ["all", [0, 1, 2, 3]]
    assert chord([], call(app, "say", "none")).enqueue().result(timeout=BOUND) == ["none", []]
    assert chord(members, app.task_named("last").after(a=1)).enqueue().result(timeout=BOUND) == [{"a": 1}, [0, 1, 2, 3]]


@pytest.mark.slow
def test_a_group_after_a_step_gets_its_result_in_every_member(app: Stem) -> None:
    canvas = call(app, "fetch", "abcd") | group(after(app, "measure"), after(app, "measure", factor=3)) | after(app, "add")
    assert canvas.enqueue().result(timeout=BOUND) == 16


def test_the_result_before_it_goes_in_front_of_many(app: Stem) -> None:
    assert (call(app, "fetch", "abcd") | after(app, "measure") | after(app, "every", 1, 2)).enqueue().result(timeout=BOUND) == 7


@pytest.mark.slow
def test_nested_groups_answer_nested_lists(app: Stem) -> None:
    one = call(app, "fetch", "a") | after(app, "measure")
    handle = group(one, group(one, group(one, one)), group()).enqueue()
    assert handle.results(timeout=BOUND) == [1, [1, [1, 1]], []]


def test_a_failed_link_fails_the_chain_and_is_named(app: Stem) -> None:
    handle = (call(app, "fetch", "abc") | after(app, "fail") | call(app, "say", "never")).enqueue()
    with pytest.raises(TaskFailed) as caught:
        handle.result(timeout=BOUND)
    assert caught.value.error is not None
    assert (caught.value.error.type, caught.value.status.reason) == ("ValueError", "link-failed")
    assert "fail (" in caught.value.error.message and "no abc" in caught.value.error.message


def test_a_killed_member_fails_the_chord_and_the_callback_never_runs(app: Stem) -> None:
    members = [call(app, "fetch", "a") | after(app, "measure"), call(app, "fetch", "b") | after(app, "stuck")]
    handle = chord(members, after(app, "add")).link_error(after(app, "sorry")).enqueue()
    with pytest.raises(TaskFailed, match="stuck"):
        handle.result(timeout=BOUND)
    assert handle.status().started_at is None


def test_an_error_callback_gets_the_error_by_annotation(app: Stem) -> None:
    seen = []
    app.tasks["sorry"].handler.function = lambda context, error: seen.append((error.type, context.previous["name"]))  # type: ignore[method-assign]
    canvas = (call(app, "fetch", "abc") | after(app, "fail") | call(app, "say", "never")).link_error(after(app, "sorry"))
    handle = canvas.enqueue()
    with pytest.raises(TaskFailed):
        handle.result(timeout=BOUND)
    (sorry,) = handle.tree.on_error
    app.handle(sorry.id).result(timeout=BOUND)
    assert seen == [("ValueError", "fail")]


def test_one_failure_does_not_end_the_iteration_over_a_group(app: Stem) -> None:
    handle = group(call(app, "fetch", "a") | after(app, "fail"), call(app, "fetch", "abc") | after(app, "measure")).enqueue()
    results, failures = [], []
    completed = handle.as_completed(timeout=BOUND)
    while True:
        try:
            results.append(next(completed))
        except TaskFailed as error:
            failures.append(error.status.name)
        except StopIteration:
            break
    assert (results, failures) == ([3], ["fail"])
    with pytest.raises(TaskFailed):
        handle.results(timeout=BOUND)


def test_a_canvas_is_revoked_as_a_whole(idle: Stem) -> None:
    handle = chord([call(idle, "fetch", "a"), call(idle, "fetch", "b")], call(idle, "say", "x")).enqueue()
    assert handle.revoke()
    with pytest.raises(TaskCancelled):
        handle.result(timeout=0)
    assert "succeeded" not in handle.draw()
    assert not handle.revoke()
    assert idle.open_broker().queues() == []


def test_a_canvas_goes_on_after_its_producer_and_in_any_worker(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    producer = application(url)
    id = (call(producer, "fetch", "abc") | after(producer, "measure") | call(producer, "say", "x")).enqueue().id
    producer.close()
    app = application(url)
    Worker(app, concurrency=1, burst=True).run()
    assert app.canvas(id).result(timeout=0) == ["x", 3]
    app.close()


@pytest.mark.slow
def test_a_handler_composes_through_its_context() -> None:
    app = application("memory://")

    @app.task(name="parent", isolate=True)
    def parent() -> str:
        return (call(app, "fetch", "abc") | after(app, "measure") | call(app, "say", "child")).enqueue().id

    with Worker(app, concurrency=2):
        handle = parent.enqueue()
        child = app.canvas(handle.result(timeout=BOUND))
        assert child.result(timeout=BOUND) == ["child", 3]
        assert child.status().root_id == handle.id


@pytest.mark.slow
def test_coroutines_wait_for_canvases(app: Stem) -> None:
    async def use() -> tuple[list[int], list[int]]:
        handle: GroupHandle[int] = await group(call(app, "fetch", "a" * size) | after(app, "measure") for size in range(3)).aenqueue()
        came = [value async for value in handle.aas_completed(timeout=BOUND)]
        return came, await handle.aresults(timeout=BOUND)

    came, ordered = asyncio.run(use())
    assert (sorted(came), ordered) == ([0, 1, 2], [0, 1, 2])


def test_a_wait_for_the_next_member_that_was_made_in_slices_names_its_whole_time(idle: Stem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stem_iso.client.canvas_result.SLICE", 0.02)
    waiting = group(call(idle, "fetch", "a"), call(idle, "fetch", "b")).enqueue().as_completed(timeout=0.1)
    with pytest.raises(TimeoutError, match=r"2 of 2 members of group \S+ have not ended after 0\.1 s"):
        next(waiting)


def test_waiting_ends_in_time(idle: Stem) -> None:
    handle = group(call(idle, "fetch", "a")).enqueue()
    for wait in (
        handle.results,
        lambda timeout: next(handle.as_completed(timeout)),
        (call(idle, "fetch", "a") | call(idle, "say", "b")).enqueue().result,
    ):
        with pytest.raises(TimeoutError, match=r"after 0\.01 s"):
            wait(timeout=0.01)
    assert handle.status().state is TaskState.QUEUED
    with pytest.raises(UnknownResult):
        idle.canvas("nothing")
    with pytest.raises(UnknownResult):
        idle.canvas(call(idle, "fetch", "a").enqueue().id)


def test_what_does_not_fit_is_refused_where_it_is_composed(idle: Stem) -> None:
    fetch, measure, add = (idle.task_named(name) for name in ("fetch", "measure", "add"))
    for wrong in (
        lambda: fetch.s("a") | add.after(),  # a Page is no list
        lambda: chain(fetch.s("a"), measure.after(), measure.after()),  # an int is no Page
        lambda: chord([fetch.s("a")], add.after()),  # a list of pages is none of numbers
        lambda: chord([fetch.s("a") | measure.after(), fetch.s("a")], add.after()),  # nor is one that holds a page
        lambda: measure.after(page=1),
        lambda: measure.after(speed=1),
        lambda: measure.after(1, 2),
        lambda: measure.after(factor=2).enqueue(),
        lambda: chain(measure.after(), add.s([1])).enqueue(),
        lambda: chain(),
        lambda: chain(fetch.s("a"), 5),  # type: ignore[arg-type, call-overload]
        lambda: group(fetch, measure),  # type: ignore[call-overload]
        lambda: fetch.s("a").link_error("sorry"),  # type: ignore[arg-type]
        lambda: fetch.s("a").link_error(add.after()),  # an error is no list of numbers
        lambda: group().enqueue(),
        lambda: chain(fetch.s("a"), application("memory://").task_named("say").s("x")),
        lambda: fetch.s("a").link_error(application("memory://").task_named("sorry").after()),
        lambda: (fetch.s("a") | measure.using(unique=True).after()).enqueue(),
        lambda: group(fetch.using(task_id="one").s("a")).enqueue(),
        lambda: (fetch.using(task_id="one").s("a") | measure.after()).enqueue(),
        lambda: chain(fetch.using(task_id="one").s("a"), measure.using(task_id="one").after()).enqueue(),
        lambda: nested(101, group(fetch.s("a"))).enqueue(),
    ):
        with pytest.raises(Misfit) as caught:
            wrong()
        assert isinstance(caught.value, InvalidOptions) and isinstance(caught.value, TypeError)
    assert idle.open_broker().queues() == []


def nested(depth: int, part: Part[Any]) -> Part[Any]:
    for _ in range(depth - 1):
        part = group(part)
    return part


def test_what_is_nested_as_deep_as_may_be_is_enqueued_drawn_and_revoked(idle: Stem) -> None:
    errors = call(idle, "say", "x")
    for _ in range(100):
        errors = call(idle, "say", "x").link_error(errors)
    for whole in (errors, nested(99, call(idle, "fetch", "a") | call(idle, "say", "b"))):
        handle = whole.enqueue()
        assert len(whole.draw().splitlines()) > 100 and whole.mermaid()
        assert len(idle.canvas(handle.id).states()) >= 100 and handle.mermaid() and handle.draw()
        assert handle.revoke()


def test_a_long_chain_is_composed_link_by_link_in_no_time(idle: Stem) -> None:
    whole, began = call(idle, "every", 1), time.process_time()
    for _ in range(1000):
        whole = whole | after(idle, "every")
    assert time.process_time() - began < 1.0  # 8 s where every link looks at all that stand before it


def test_the_id_of_the_last_link_is_the_canvas_s_and_makes_it_one(idle: Stem) -> None:
    fetch, say = idle.task_named("fetch"), idle.task_named("say")
    handles = [(fetch.s("a") | say.using(task_id="order-7").s("b")).enqueue() for _ in range(2)]
    assert [handle.id for handle in handles] == ["order-7"] * 2
    assert [count.queued for count in idle.open_broker().queues()] == [1]


def test_a_task_without_code_here_is_composed_by_name() -> None:
    app = Stem("memory://")
    (app.task_named("one").s(x=1) | app.task_named("two").after(y=2)).enqueue()
    assert [count.queued for count in app.open_broker().queues()] == [1]


def test_a_canvas_is_drawn_before_it_is_enqueued(idle: Stem) -> None:
    canvas = chord([call(idle, "fetch", "a"), call(idle, "fetch", "b")], call(idle, "say", "x")).link_error(after(idle, "sorry"))
    assert canvas.draw().splitlines() == [
        "chain",
        "├─ group of 2",
        "│  ├─ fetch",
        "│  └─ fetch",
        "├─ say",
        "└─ on error: sorry",
    ]
    chart = canvas.mermaid().splitlines()
    assert chart[0] == "flowchart LR"
    assert [line.strip() for line in chart if "-" in line] == ["n1 --> n3", "n2 --> n3", "n3 --> n4", "n4 -. error .-> n5"]
    large = group(call(idle, "fetch", str(number)) for number in range(100))
    assert "… and 88 more" in large.draw() and "… and 88 more" in large.mermaid()


def test_a_chart_is_coloured_by_state_whatever_the_reason_is(app: Stem) -> None:
    handle = chord([call(app, "fail", Page("x", 1)), call(app, "say", "y")], call(app, "say", "z")).enqueue()
    with pytest.raises(TaskFailed):
        handle.result(BOUND)
    member = handle.tree.parts[0].members[1]
    assert app.handle(member.id).result(BOUND) == ["y", None]
    colours = [line.split(":::")[1] for line in handle.mermaid().splitlines() if ":::" in line]
    assert colours == ["failed", "succeeded", "failed", "failed"]
    assert "link-failed" in handle.draw()


def test_an_id_given_to_a_canvas_is_its_last_links_and_makes_it_safe_to_enqueue_again(app: Stem) -> None:
    say = app.tasks["say"]
    once = say.s(word="a") | say.using(task_id="mine").s(word="b")
    assert once.enqueue().id == once.enqueue().id == "mine"
    assert app.handle("mine").result(BOUND) == ["b", ["a", None]]
    assert once.enqueue().result(BOUND) == ["b", ["a", None]]  # it has ended, and is not run again


def test_no_other_part_may_bear_an_id_because_one_that_is_known_would_never_move_its_canvas(app: Stem) -> None:
    say = app.tasks["say"]
    mine = say.using(task_id="mine").s(word="a")
    with pytest.raises(Misfit, match=r"task_id='mine'.*last link"):
        (mine | say.s(word="b")).enqueue()
    with pytest.raises(Misfit, match="task_id"):
        group(mine, say.s(word="b")).enqueue()
    with pytest.raises(Misfit, match="task_id"):
        (mine | mine).enqueue()
    with pytest.raises(Misfit, match="task_id"):
        say.s(word="b").link_error(mine).enqueue()
