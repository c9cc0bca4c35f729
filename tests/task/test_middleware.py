"""Middleware: around every publish, where the envelopes are made, and around every handler, where it runs."""

from __future__ import annotations

import asyncio
import contextvars
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from stem_iso import Envelope, InvalidOptions, Middleware, Stem, StemError, TaskContext, TaskState
from stem_iso.client.enqueue import compose
from stem_iso.isolate.interfaces import RETRY, SUCCEEDED
from stem_iso.task.canvas.tree import Leaf, Series, lay
from stem_iso.task.envelope import decode
from stem_iso.testing import assert_enqueued
from stem_iso.worker.child.task_runner import run_async, run_sync
from stem_iso.worker.entrypoints import boot_of
from tests.task.making import RecordingPort, payload_of
from tests.task.test_inside import error_in
from tests.task.test_isolates import ROOT, Child, in_python
from tests.worker import handlers

Publish = Callable[[Sequence[Envelope]], list[str]]


class Traced(Middleware):
    """Adds itself to the headers of what is sent and to the log of what runs."""

    def __init__(self, name: str, log: list[str] | None = None) -> None:
        self.name, self.log = name, [] if log is None else log

    def enqueue(self, envelopes: Sequence[Envelope], call_next: Publish) -> list[str]:
        self.log.append(f"{self.name} sends {len(envelopes)}")
        changed = [replace(each, headers={**each.headers, "by": [*each.headers.get("by", []), self.name]}) for each in envelopes]
        ids = call_next(changed)
        self.log.append(f"{self.name} sent")
        return ids

    @contextmanager
    def around(self, context: TaskContext) -> Iterator[None]:
        self.log.append(f"{self.name} in {context.name}")
        try:
            yield
        except BaseException as error:
            self.log.append(f"{self.name} saw {type(error).__name__}")
            raise
        self.log.append(f"{self.name} out")


class Refusing:
    """No subclass of anything, and with one of the two methods."""

    def enqueue(self, envelopes: Sequence[Envelope], call_next: Publish) -> list[str]:
        if any(each.name == "forbidden" for each in envelopes):
            raise PermissionError("not this one")
        return call_next(envelopes)


class Silent(Middleware):
    """Does neither, yet."""


class Surrounding:
    def __init__(self, around: Callable[[TaskContext], Iterator[None]]) -> None:
        self.around = contextmanager(around)


class Scribbling(Middleware):
    """Writes into the containers of the envelopes, which it should not."""

    def enqueue(self, envelopes: Sequence[Envelope], call_next: Publish) -> list[str]:
        for each in envelopes:
            each.headers["count"] = each.headers.get("count", 0) + 1
            each.meta["count"] = each.meta.get("count", 0) + 1
        return call_next(envelopes)


# -- around a publish ------------------------------------------------------------------------------------------------------------------


def test_what_a_middleware_writes_into_one_envelope_is_in_no_other() -> None:
    app = Stem("memory://")
    app.middleware.add(Scribbling())

    @app.task(name="n")
    def task() -> None: ...

    for each in (task, task, task.using(headers={"h": 1}), task):
        each.enqueue()
    sent = [decode(one.body) for one in app.open_broker().exchange("boot", [], ["default"], 9).deliveries]
    assert [(one.headers["count"], one.meta) for one in sent] == [(1, {"count": 1})] * 4


def test_the_first_added_is_outermost_and_a_batch_passes_once():
    app, log = Stem("memory://"), []
    app.middleware.add(Traced("one", log))
    app.middleware.add(Traced("two", log))
    handle = app.enqueue("a", headers={"own": True})
    assert log == ["one sends 1", "two sends 1", "two sent", "one sent"]
    assert assert_enqueued(app, "a").headers == {"own": True, "by": ["one", "two"]}
    assert handle.status().state is TaskState.QUEUED


def test_what_refuses_one_of_a_batch_refuses_all_and_raises_at_the_producer():
    app = Stem("memory://")
    app.middleware.add(Refusing())
    emitted: list[object] = []
    app.signals.before_task_publish.connect(emitted.append)
    task, other = app.task(name="fine")(lambda: None), app.task(name="forbidden")(lambda: None)
    with pytest.raises(PermissionError, match="not this one"):
        app.enqueue_many([task.s(), other.s()])
    assert emitted == []
    with pytest.raises(AssertionError, match="nothing"):
        assert_enqueued(app, "fine")
    task.enqueue()
    assert_enqueued(app, "fine")


def test_a_changed_envelope_is_what_signals_and_handles_hold():
    app, emitted = Stem("memory://"), []

    class Moving(Middleware):
        def enqueue(self, envelopes: Sequence[Envelope], call_next: Publish) -> list[str]:
            return call_next([replace(each, queue="slow", priority=1, meta={"moved": True}) for each in envelopes])

    app.middleware.add(Moving())
    app.signals.before_task_publish.connect(emitted.append)
    handle = app.enqueue("a")
    assert handle.queue == handle.status().queue == emitted[0].queue == "slow"
    assert handle.status().meta == {"moved": True} and emitted[0].priority == 1


def test_an_enqueue_may_be_tried_again_by_a_middleware():
    app, tried = Stem("memory://"), []

    class Again(Middleware):
        def enqueue(self, envelopes: Sequence[Envelope], call_next: Publish) -> list[str]:
            try:
                return call_next(envelopes)
            except ConnectionError:
                return call_next(envelopes)

    class Failing(Middleware):
        def enqueue(self, envelopes: Sequence[Envelope], call_next: Publish) -> list[str]:
            tried.append(envelopes)
            if len(tried) == 1:
                raise ConnectionError
            return call_next(envelopes)

    app.middleware.add(Again())
    app.middleware.add(Failing())
    assert app.enqueue("a").status().state is TaskState.QUEUED
    assert len(tried) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"priority": 12}, "priority: 12"),
        ({"priority": "high"}, "cannot travel"),
        ({"hard_time_limit": -1.0}, "hard_time_limit: -1"),
        ({"queue": "a,b"}, "queue: 'a,b'"),
        ({"headers": {"x": object()}}, "cannot travel"),
        ({"args": msgspec.Raw(b"\x01")}, "no map of names"),
        ({"args": msgspec.Raw(b"\xc1")}, "cannot travel"),
    ],
)
def test_an_envelope_that_could_not_travel_is_refused_before_anything_is_sent(change, message):
    app = Stem("memory://")

    class Wrong(Middleware):
        def enqueue(self, envelopes: Sequence[Envelope], call_next: Publish) -> list[str]:
            return call_next([replace(each, **change) for each in envelopes])

    app.middleware.add(Wrong())
    with pytest.raises(InvalidOptions, match=message):
        app.enqueue("a")
    with pytest.raises(AssertionError, match="nothing"):
        assert_enqueued(app, "a")


@pytest.mark.parametrize("answer", [None, [], ["a", "b"], [1]])
def test_a_middleware_that_loses_the_ids_is_named(answer):
    app = Stem("memory://")

    class Forgetful(Middleware):
        def enqueue(self, envelopes: Sequence[Envelope], call_next: Publish) -> list[str]:
            call_next(envelopes)
            return answer

    app.middleware.add(Forgetful())
    with pytest.raises(StemError, match=r"Forgetful\.enqueue must answer one id for each of 1 envelopes"):
        app.enqueue("a")


@pytest.mark.parametrize("nonsense", [object(), 3, None, Middleware, Traced])
def test_what_does_neither_is_refused(nonsense):
    with pytest.raises(InvalidOptions, match="middleware"):
        Stem("memory://").middleware.add(nonsense)


def test_add_returns_what_it_was_given_and_all_are_listed_in_order():
    app = Stem("memory://")
    added = [app.middleware.add(each) for each in (Traced("one"), Refusing(), Silent())]
    assert list(app.middleware) == added and len(app.middleware) == 3


def canvas_of(*names: str) -> Any:
    envelopes = [Envelope(id=f"{name}-id", name=name, args=msgspec.Raw(b"\x80")) for name in names]
    return lay(Series(parts=tuple(Leaf(id=each.id, name=each.name, queue=each.queue) for each in envelopes)), envelopes)


def test_a_canvas_is_one_batch_of_all_its_parts():
    app, log, emitted = Stem("memory://"), [], []
    app.middleware.add(Traced("one", log))
    app.signals.before_task_publish.connect(lambda value: emitted.append(("before", value.task_id)))
    app.signals.after_task_publish.connect(lambda value: emitted.append(("after", value.task_id)))
    compose(app, canvas_of("a", "b"), None)
    assert log == ["one sends 2", "one sent"]
    assert emitted == [("before", "a-id"), ("before", "b-id"), ("after", "a-id"), ("after", "b-id")]
    assert assert_enqueued(app, "a").headers == {"by": ["one"]}


def test_a_canvas_cannot_be_split_and_its_parts_stay_where_they_are():
    class Splitting(Middleware):
        def enqueue(self, envelopes: Sequence[Envelope], call_next: Publish) -> list[str]:
            return [id for each in envelopes for id in call_next([each])]

    class Moving(Middleware):
        def enqueue(self, envelopes: Sequence[Envelope], call_next: Publish) -> list[str]:
            return call_next([replace(each, queue="slow") for each in envelopes])

    for middleware in (Splitting(), Moving()):
        app = Stem("memory://")
        app.middleware.add(middleware)
        with pytest.raises(InvalidOptions, match="parts of a canvas"):
            compose(app, canvas_of("a", "b"), None)


# -- around a handler ------------------------------------------------------------------------------------------------------------------


def reply_of(app: Stem, name: str, **args: Any) -> tuple[int, bytes]:
    return run_sync(app.entrypoint(name), payload_of(args, name=name), RecordingPort())


def test_it_is_entered_from_the_outside_in_and_left_with_what_the_handler_raised():
    app, log = Stem("memory://"), []
    app.middleware.add(Traced("one", log))
    app.middleware.add(Traced("two", log))

    @app.task(name="n")
    def handler(fail: bool) -> str:
        log.append("runs")
        if fail:
            raise KeyError("boom")
        return "done"

    assert reply_of(app, "n", fail=False) == (SUCCEEDED, msgspec.msgpack.encode("done"))
    assert log == ["one in n", "two in n", "runs", "two out", "one out"]
    log.clear()
    error = error_in(reply_of(app, "n", fail=True))
    assert error.type == "KeyError" and "runs" not in error.traceback.splitlines()[1]
    assert log == ["one in n", "two in n", "runs", "two saw KeyError", "one saw KeyError"]


def test_the_same_one_serves_coroutines_in_their_own_task():
    app, log = Stem("memory://"), []
    app.middleware.add(Traced("one", log))
    variable = contextvars.ContextVar("variable", default="outside")

    @app.middleware.add
    @Surrounding
    def within(context: TaskContext) -> Iterator[None]:
        token = variable.set("inside")
        yield
        variable.reset(token)

    @app.task(name="n")
    async def handler() -> str:
        await asyncio.sleep(0)
        return variable.get()

    reply = asyncio.run(run_async(app.entrypoint("n"), payload_of(name="n"), RecordingPort()))
    assert reply == (SUCCEEDED, msgspec.msgpack.encode("inside"))
    assert reply_of(app, "n") == reply
    assert log == ["one in n", "one out"] * 2


def test_what_it_raises_is_the_attempts_error():
    app = Stem("memory://")
    ran: list[object] = []

    @app.middleware.add
    @Surrounding
    def refuses(context: TaskContext) -> Iterator[None]:
        if context.headers.get("token") != "secret":
            raise PermissionError("no token")
        yield

    app.task(name="n")(lambda: ran.append(1))
    error = error_in(reply_of(app, "n"))
    assert (error.type, error.message) == ("PermissionError", "no token") and ran == []
    kind, _ = run_sync(app.entrypoint("n"), payload_of(name="n", headers={"token": "secret"}), RecordingPort())
    assert kind == SUCCEEDED and ran == [1]


def test_an_error_that_is_swallowed_makes_the_result_none_and_one_on_the_way_out_replaces_it():
    app = Stem("memory://")

    @app.middleware.add
    @Surrounding
    def swallows(context: TaskContext) -> Iterator[None]:
        with suppress(KeyError):
            yield
        if context.args["late"]:
            raise OSError("while leaving")

    @app.task(name="n")
    def handler(late: bool) -> int:
        if late:
            return 3
        raise KeyError

    assert reply_of(app, "n", late=False) == (SUCCEEDED, msgspec.msgpack.encode(None))
    assert error_in(reply_of(app, "n", late=True)).message == "while leaving"


def test_a_retry_that_is_asked_for_passes_through_and_may_be_asked_for_there():
    app, log = Stem("memory://"), []
    app.middleware.add(Traced("one", log))

    @app.middleware.add
    @Surrounding
    def patient(context: TaskContext) -> Iterator[None]:
        try:
            yield
        except ConnectionError:
            context.retry(countdown=5)

    @app.task(name="n")
    def handler(context: TaskContext, ask: bool) -> None:
        if ask:
            context.retry(countdown=7)
        raise ConnectionError

    assert reply_of(app, "n", ask=True) == (RETRY, msgspec.msgpack.encode([7.0, None, None]))
    assert reply_of(app, "n", ask=False) == (RETRY, msgspec.msgpack.encode([5.0, None, None]))
    assert log == ["one in n", "one saw RetryRequested"] * 2


def test_a_task_that_is_simply_called_runs_without():
    app, log = Stem("memory://"), []
    app.middleware.add(Traced("one", log))
    assert app.task(name="n")(handlers.add)(1) == 2
    assert log == []


# -- on its way to an isolate ---------------------------------------------------------------------------------------------------------


def test_one_that_cannot_be_pickled_is_refused_where_it_must_be():
    import threading

    app = Stem("memory://")

    class Locked(Middleware):
        lock = threading.Lock()

        def enqueue(self, envelopes: Sequence[Envelope], call_next: Publish) -> list[str]:
            return call_next(envelopes)

    app.middleware.add(Locked())
    with pytest.raises(TypeError, match="lock"):
        boot_of(app)


def test_a_listener_that_cannot_be_pickled_is_named_in_the_log_and_stops_nothing(tmp_path: Path, monkeypatch, caplog):
    import threading

    monkeypatch.chdir(tmp_path)
    app, child, lock = Stem("memory://"), Child(tmp_path), threading.Lock()
    app.signals.after_task_publish.connect(lambda value: print(value.signal, value.task_id))

    @app.task(name="n", isolate=True)
    def sends(context: TaskContext) -> str:
        return context.enqueue("other").id

    assert child.run(app, "n") == (SUCCEEDED, "id-1")
    assert child.output == "after_task_publish id-1\n"
    assert not caplog.records
    app.signals.before_task_publish.connect(lambda value: lock)
    assert child.run(app, "n") == (SUCCEEDED, "id-1")
    assert "before_task_publish: its listeners cannot be pickled" in caplog.text


PROGRAM = """
    from contextlib import contextmanager
    from pathlib import Path
    from stem_iso import Middleware, Stem, TaskContext
    class Marking(Middleware):
        @contextmanager
        def around(self, context):
            print("around", context.name, __name__)
            yield
    app = Stem("memory://")
    @app.task(isolate=True)
    def make() -> str:
        return __name__
    {add}
    if __name__ == "__main__":
        from tests.task.test_isolates import Child, ready_of
        {late}
        child = Child(Path("."))
        try:
            print(child.run(app, make.name, ready_of(app)), child.output)
        except AssertionError as error:
            print(str(error).splitlines()[-1])
"""


@pytest.mark.slow
def test_an_isolate_has_what_importing_the_application_adds_and_refuses_to_be_another(tmp_path: Path):
    def run(folder: str, add: str = "pass", late: str = "pass") -> str:
        place = tmp_path / folder
        place.mkdir()
        (place / "shop.py").write_text(textwrap.dedent(PROGRAM.format(add=add, late=late)))
        return in_python(["shop.py"], place, f"{ROOT}:{place}").stdout

    adding = "app.middleware.add(Marking())"
    assert run("in the module", add=adding) == "(0, 'shop') around shop.make shop\n\n"
    expected = "middleware: the worker has shop.Marking, importing its application gives none: add it in that module\n"
    assert run("below the guard", late=adding).endswith(expected)
    expected = "middleware: the worker has none, importing its application gives shop.Marking: add it in that module\n"
    assert run("elsewhere only", add=f'if __name__ != "__main__": {adding}').endswith(expected)
