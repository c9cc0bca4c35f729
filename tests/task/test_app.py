"""The producer's side: what is sent, what comes back, and what a thread, a fork or a coroutine may do with it."""

from __future__ import annotations

import ast
import asyncio
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from stem_iso import (
    InvalidOptions,
    Misfit,
    PayloadTooLarge,
    Stem,
    TaskCancelled,
    TaskContext,
    TaskError,
    TaskFailed,
    TaskHandle,
    TaskState,
    UnknownResult,
    UnknownTask,
    WorkerEventType,
)
from stem_iso.brokers.base import Settlement
from stem_iso.events import StartedEvent, encode
from stem_iso.task.codec import pack
from stem_iso.task.envelope import decode
from stem_iso.task.settlement import Finish

ROOT = Path(__file__).parents[2]


@dataclass
class Box:
    width: int
    path: Path


@pytest.fixture(params=["memory", "sqlite"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Stem:
    return Stem("memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/jobs.db")


def settle_next(app: Stem, finish: Finish, queue: str = "default") -> dict[str, Any]:
    """What a worker does with the next delivery; its envelope, as plain data."""
    broker = app.open_broker()
    (delivery,) = broker.exchange("boot", [], [queue], 1).deliveries
    broker.exchange("boot", [Settlement(delivery.receipt, finish)], [], 0)
    broker.close()
    envelope = decode(delivery.body)
    return {name: getattr(envelope, name) for name in envelope.__struct_fields__}


def succeeded(value: Any) -> Finish:
    return Finish(TaskState.SUCCEEDED, result=pack(value))


# -- sending ---------------------------------------------------------------------------------------------------------------------------


def test_a_call_is_sent_by_parameter_name_and_its_result_comes_back_typed(app: Stem) -> None:
    @app.task(name="shop.pack")
    def box(context: TaskContext, width: int, where: Path = Path("a")) -> Box:
        raise AssertionError

    handle = box.using(headers={"h": 1}, meta={"m": 2}).enqueue(2, where=Path("/x"))
    status = handle.status()
    assert (status.state, status.name, status.queue, status.meta) == (TaskState.QUEUED, "shop.pack", "default", {"m": 2})
    assert status.enqueued_at is not None
    assert abs(datetime.now(UTC) - status.enqueued_at) < timedelta(seconds=60)
    sent = settle_next(app, succeeded(Box(2, Path("/x"))))
    assert (sent["id"], bytes(sent["args"]), sent["headers"]) == (handle.id, pack({"width": 2, "where": "/x"}), {"h": 1})
    assert handle.result(timeout=5) == Box(2, Path("/x"))
    assert handle.status().result == Box(2, Path("/x"))
    # A producer without the code gets plain data.
    stranger = Stem(app.broker) if app.broker != "memory://" else app
    assert stranger.handle(handle.id).result(timeout=5) in ({"width": 2, "path": "/x"}, Box(2, Path("/x")))


def test_a_result_that_is_not_what_its_annotation_says_comes_as_it_is(app: Stem) -> None:
    @app.task(name="n")
    def lies() -> int:
        raise AssertionError

    handle = lies.enqueue()
    settle_next(app, succeeded("text"))
    assert handle.result(timeout=5) == "text"  # type: ignore[comparison-overlap]


def test_a_task_that_was_enqueued_before_follows_a_new_declaration_of_its_name(app: Stem) -> None:
    @app.task(name="n", queue="first", priority=1)
    def task() -> None: ...

    urgent = task.using(priority=9)
    assert [each.enqueue().queue for each in (task, urgent)] == ["first", "first"]
    app.task(name="n", queue="second", override=True)(lambda: None)
    assert [each.enqueue().queue for each in (task, urgent)] == ["second", "second"]
    broker = app.open_broker()
    sent = [decode(one.body) for one in broker.exchange("boot", [], ["first", "second"], 4).deliveries]
    assert sorted((one.queue, one.priority) for one in sent) == [("first", 1), ("first", 9), ("second", 0), ("second", 9)]
    broker.close()


def test_each_enqueue_counts_its_times_anew(app: Stem) -> None:
    now = 1000.0
    app.clock = lambda: now

    @app.task(name="n", expires=60)
    def task() -> None: ...

    later = task.using(delay=5)
    for now in (2000.0, 3000.0):
        sent = task.enqueue(), later.enqueue()
        first, second = (settle_next(app, succeeded(None)) for _ in sent)
        assert {(each["enqueued_at"], each["not_before"], each["expires"]) for each in (first, second)} == {
            (now, None, now + 60),
            (now, now + 5, now + 60),
        }


def test_by_name_a_producer_needs_no_code_and_with_code_a_wrong_call_is_found(app: Stem) -> None:
    @app.task(name="known")
    def known(n: int) -> None: ...

    handle = app.enqueue("unknown.task", {"any": [1]}, queue="q", task_id="mine")
    assert (handle.id, handle.queue) == ("mine", "q")
    app.enqueue(known, {"n": 1})
    for wrong in ({}, {"m": 1}, {"n": 1, "m": 2}):
        with pytest.raises(TypeError, match="known"):
            app.enqueue("known", wrong)
    with pytest.raises(TypeError, match="mapping"):
        app.enqueue("unknown.task", [1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="missing a required argument"):
        known.enqueue()  # type: ignore[call-arg]
    with pytest.raises(InvalidOptions, match="did you mean 'queue'"):
        app.enqueue("known", {"n": 1}, queu="x")  # type: ignore[call-arg]
    assert [count.queued for count in app.open_broker().queues()] == [1, 1]


def test_of_a_batch_all_is_checked_before_any_is_sent(app: Stem) -> None:
    @app.task(name="n")
    def task(n: Any) -> None: ...

    with pytest.raises(TypeError, match="argument 'n'"):
        app.enqueue_many([task.s(1), task.s(object())])
    with pytest.raises(PayloadTooLarge):
        app.enqueue_many([task.s(1), task.s("x" * (2 << 20))])
    assert app.open_broker().queues() == []
    handles = app.enqueue_many(task.s(n) for n in range(3))
    assert [handle.status().state for handle in handles] == [TaskState.QUEUED] * 3
    assert sorted(handle.id for handle in handles) == [handle.id for handle in handles]
    assert app.enqueue_many([]) == []


def test_a_batch_takes_single_calls_and_says_where_the_others_go(app: Stem) -> None:
    @app.task(name="n")
    def task(n: Any) -> None: ...

    # A `link_error` in a batch would be lost without a word.
    for composed in (task.s(1) | task.s(2), task.after(), task.s(1).link_error(task.after())):
        with pytest.raises(Misfit, match=r"no single call.*enqueue\(\)"):
            app.enqueue_many([task.s(1), composed])  # type: ignore[list-item]
    with pytest.raises(Misfit, match="belongs to"):
        Stem("memory://").enqueue_many([task.s(1)])
    assert app.open_broker().queues() == []


def test_a_unique_task_is_published_once_and_answers_with_the_one_that_waits(app: Stem) -> None:
    @app.task(unique=True)
    def task(a: int, b: int = 0) -> None: ...

    first = task.enqueue(1, b=2)
    assert task.enqueue(b=2, a=1) == first
    assert task.enqueue(1) != first
    assert task.using(unique=False).enqueue(1, b=2) != first


def test_an_annotation_is_refused_at_the_first_enqueue_not_at_the_declaration(app: Stem) -> None:
    @app.task(name="n")
    def task(picture: "Stem") -> None: ...  # noqa: UP037

    with pytest.raises(InvalidOptions, match="parameter 'picture'"):
        task.enqueue(app)
    with pytest.raises(InvalidOptions, match="parameter 'picture'"):
        app.check()


def test_a_class_handler_is_a_task_whose_arguments_go_by_keyword(app: Stem) -> None:
    from stem_iso import TaskHandler

    class Email(TaskHandler[None]):
        name = "email.send"

        def call(self, context: TaskContext, args: dict[str, Any]) -> None: ...

    app.register(Email())
    app.tasks["email.send"].enqueue(to="ann")
    with pytest.raises(TypeError, match="by keyword"):
        app.tasks["email.send"].enqueue("ann")
    with pytest.raises(UnknownTask, match="did you mean"):
        app.tasks["email.sent"]
    assert bytes(settle_next(app, succeeded(None))["args"]) == pack({"to": "ann"})


# -- results ---------------------------------------------------------------------------------------------------------------------------


def test_a_failure_and_a_cancellation_raise_with_all_that_is_known(app: Stem) -> None:
    failed, cancelled = app.enqueue("n"), app.enqueue("n")
    settle_next(app, Finish(TaskState.FAILED, "not-retryable", error=TaskError(type="shop.Refused", message="no")))
    with pytest.raises(TaskFailed, match=r"shop\.Refused: no") as raised:
        failed.result(timeout=5)
    assert raised.value.error is not None
    assert (raised.value.error.type, raised.value.status.reason) == ("shop.Refused", "not-retryable")
    assert cancelled.revoke() is True
    assert cancelled.revoke() is False
    with pytest.raises(TaskCancelled, match="revoked"):
        cancelled.result(timeout=5)


def test_waiting_ends_with_the_wait_and_an_unknown_id_at_once(app: Stem) -> None:
    handle = app.enqueue("n")
    with pytest.raises(TimeoutError):
        handle.result(timeout=0.01)
    for ask in (app.handle("nobody").status, app.handle("nobody").result):
        with pytest.raises(UnknownResult):
            ask()
    with pytest.raises(InvalidOptions, match="timeout"):
        handle.result(timeout=-1)
    assert app.handle("nobody").forget() is False
    with pytest.raises(UnknownResult):
        app.handle("nobody").revoke()
    assert app.handle(handle.id) == handle
    settle_next(app, succeeded(1))
    assert handle.forget() is True
    with pytest.raises(UnknownResult):
        handle.result(timeout=5)


def test_coroutines_wait_beside_the_loop_as_many_as_there_are(app: Stem) -> None:
    @app.task(name="n")
    def task(n: int) -> int:
        return n

    async def program() -> None:
        handles = [await task.aenqueue(n) for n in range(12)]
        waiting = [asyncio.create_task(handle.aresult(timeout=30)) for handle in handles]
        late = asyncio.create_task(app.handle(handles[0].id).aresult())
        await asyncio.sleep(0)
        late.cancel()
        for n in range(12):
            await asyncio.to_thread(settle_next, app, succeeded(n))
        assert await asyncio.gather(*waiting) == list(range(12))
        assert (await handles[0].astatus()).state is TaskState.SUCCEEDED
        assert await handles[0].arevoke() is False
        assert await handles[0].aforget() is True
        with pytest.raises(UnknownResult):
            await handles[0].aresult(timeout=5)
        with pytest.raises(TimeoutError):
            await (await app.aenqueue("m")).aresult(timeout=0.01)
        assert len(await app.aenqueue_many([task.s(1), task.s(2)])) == 2
        with pytest.raises(asyncio.CancelledError):
            await late

    asyncio.run(program())


# -- events ----------------------------------------------------------------------------------------------------------------------------

STARTED = StartedEvent(at=1.0, worker_id="w", task_id="t", name="n", queue="q", run=0, attempt=0)


@pytest.mark.parametrize("named", ["a b", 3, (3,)])
def test_modules_are_named_as_python_imports_them(named: Any) -> None:
    with pytest.raises(InvalidOptions, match=r"^include: .* must be a module as Python imports it, such as 'shop.tasks'"):
        Stem("memory://", include=named)


def test_events_are_received_from_the_call_on_and_strange_ones_passed_over(app: Stem) -> None:
    events = app.events(timeout=5)
    broker = app.open_broker()
    broker.emit([b"\xc1", pack({"type": "of a newer version"}), encode(STARTED)])
    assert next(events) == STARTED
    broker.close()


def test_events_come_in_a_loop_too(app: Stem) -> None:
    async def program() -> list[Any]:
        events = app.aevents(timeout=0.2)
        broker = app.open_broker()
        broker.emit([encode(STARTED), encode(STARTED)])
        broker.close()
        return [event async for event in events]

    assert asyncio.run(program()) == [STARTED, STARTED]


# -- threads, forks, pickles -----------------------------------------------------------------------------------------------------------


def test_threads_share_an_application_and_dead_ones_leave_no_connection_behind(app: Stem) -> None:
    for _ in range(5):
        thread = Thread(target=app.enqueue, args=("n",))
        thread.start()
        thread.join()
    assert len(app.broker_pool._opened) == 1
    with ThreadPoolExecutor(8) as pool:
        ids = {handle.id for handle in pool.map(lambda _: app.enqueue("n"), range(100))}
    assert len(ids) == 100
    assert sum(count.queued for count in app.open_broker().queues()) == 105
    app.close()
    assert app.broker_pool._opened == []
    assert app.enqueue("n").status().state is TaskState.QUEUED


def in_a_fork(what: Callable[[], None]) -> int:
    """The exit code of a forked child that does `what`."""
    pid = os.fork()
    if pid == 0:
        try:
            what()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_opens_connections_of_its_own_and_throws_other_dice(tmp_path: Path) -> None:
    app = Stem(f"sqlite:///{tmp_path}/jobs.db")
    before = app.enqueue("n")
    inherited = app.broker_pool._opened[0]

    def child() -> None:
        assert before.status().state is TaskState.QUEUED
        assert app.broker_pool._opened != [inherited]
        assert app.broker_pool._inherited == [inherited]
        for _ in range(50):
            app.enqueue("n")
        app.close()

    assert in_a_fork(child) == 0
    for _ in range(50):
        app.enqueue("n")
    assert sum(count.queued for count in app.open_broker().queues()) == 101


def test_an_application_and_a_task_pickle_as_names() -> None:
    assert pickle.loads(pickle.dumps(located)) is located
    revived = pickle.loads(pickle.dumps(of_located.using(priority=3)))
    assert revived == of_located.using(priority=3)
    assert b"sentinel" not in pickle.dumps(of_located)


located = Stem("memory://")


@located.task(name="of.located")
def of_located() -> str:
    return "sentinel"


# -- where the broker is ---------------------------------------------------------------------------------------------------------------


def test_the_broker_is_the_one_given_else_the_environments_else_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STEM_ISO_BROKER", raising=False)
    assert Stem().broker == "sqlite:///stem_iso.db"
    (tmp_path / "pyproject.toml").write_text('[tool.stem_iso]\nbroker = "sqlite:///file.db"\n')
    assert Stem().broker == "sqlite:///file.db"
    monkeypatch.setenv("STEM_ISO_BROKER", "sqlite:///environment.db")
    assert Stem().broker == "sqlite:///environment.db"
    assert Stem("memory://").broker == "memory://"


def test_a_relative_database_stands_in_the_folder_where_the_application_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = Stem("sqlite:///jobs.db")
    assert not (tmp_path / "jobs.db").exists()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    app.enqueue("n")
    assert (tmp_path / "jobs.db").exists()
    assert repr(app) == f"<Stem sqlite:///{tmp_path}/jobs.db, 0 tasks>"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://localhost/zero", "'zero' is no number"),
        ("sqlit:///x.db", "did you mean"),
        ("jobs.db", "no URL"),
        (Path("jobs.db"), "no URL"),
        ("sqlite:///x?snyc=full", "sync"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_at_once(url: Any, message: str) -> None:
    with pytest.raises(InvalidOptions, match=message):
        Stem(url)


def test_options_of_the_broker_are_keywords_and_win_over_the_url() -> None:
    app = Stem("sqlite:///x.db?max_redeliveries=7&sync=full", max_redeliveries=2, block_time=timedelta(seconds=9))
    options = app.broker_options
    assert (options.max_redeliveries, options.sync, options.block_time) == (2, "full", 9.0)
    with pytest.raises(InvalidOptions, match="max_redeliveries"):
        Stem("memory://", max_redeliveries=-1)


# -- what is loaded --------------------------------------------------------------------------------------------------------------------

FORBIDDEN = ("loky", "redis", "asyncio", "sqlite3", "cloudpickle", "click", "multiprocessing", "tomllib")


def loaded_after(code: str, tmp_path: Path) -> list[str]:
    program = f"import sys\n{code}\nprint(*[name for name in {FORBIDDEN!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


DECLARED = """
from stem_iso import Stem, TaskContext
app = Stem("sqlite:///jobs.db")
@app.task(isolate=True, hard_time_limit=5)
def make(context: TaskContext, n: int) -> int: return n
"""


@pytest.mark.parametrize(
    ("code", "loaded"),
    [
        ("import stem_iso", []),
        ("import stem_iso; [getattr(stem_iso, n) for n in stem_iso.__all__ if n != 'Worker']", []),
        (DECLARED, []),
        (f"{DECLARED}\nmake.s(1); app.check()", []),
        (f"{DECLARED}\nmake.enqueue(1)", ["sqlite3"]),
        ("import stem_iso.worker.child.task_runner", []),
    ],
)
def test_a_producer_loads_what_it_uses_and_nothing_else(code: str, loaded: list[str], tmp_path: Path) -> None:
    assert loaded_after(code, tmp_path) == loaded


def test_the_package_shows_its_names() -> None:
    import stem_iso

    assert set(stem_iso.__all__) <= set(dir(stem_iso))
    with pytest.raises(AttributeError, match="no attribute 'Stemm'"):
        _ = stem_iso.Stemm  # type: ignore[attr-defined]
    assert isinstance(TaskHandle(located, "x"), stem_iso.TaskHandle)


def test_type_checkers_read_the_names_that_can_be_imported() -> None:
    import stem_iso

    stub = ast.parse((ROOT / "stem_iso" / "__init__.pyi").read_text())
    read = {alias.name: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert read == {name: f"stem_iso.{home}" for name, home in stem_iso._HOMES.items()}  # type: ignore[attr-defined]
    starred: dict[str, object] = {}
    exec("from stem_iso import *", starred)
    assert set(read) == starred.keys() - {"__builtins__"}


def test_a_state_and_an_event_type_are_the_strings_that_people_compare_them_with() -> None:
    assert [state for state in TaskState if state != state.value or f"{state}" != state.value] == []
    names = {kind.value: kind for kind in WorkerEventType}
    assert all(names[kind] is kind for kind in WorkerEventType)
