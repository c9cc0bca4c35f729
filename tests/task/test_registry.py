"""Handlers and the names they bear."""

from __future__ import annotations

import importlib
import inspect
import pydoc
from pathlib import Path
from typing import Any

import pytest

from stem_iso import InvalidOptions, Stem, TaskContext, TaskHandler, TaskOptions, TaskRegistry, UnknownTask
from stem_iso.task.handler import FunctionHandler, declared_entrypoint, form_of
from stem_iso.task.options import Form


def in_isolate(context: TaskContext, args: dict[str, object]) -> None: ...


class Email(TaskHandler[None]):
    name = "email.send"
    options = TaskOptions(queue="email")

    async def call(self, context: TaskContext, args: dict[str, object]) -> None: ...


class Assigned(Email):
    isolate_entrypoint = in_isolate


class Method(Email):
    def isolate_entrypoint(self, context: TaskContext, args: dict[str, object]) -> str:
        return self.name


class Static(Email):
    isolate_entrypoint = staticmethod(in_isolate)


class ByOptions(TaskHandler[None]):
    name = "email.send"
    options = TaskOptions(isolate_entrypoint=in_isolate, hard_time_limit=5)


class Threaded(TaskHandler[None]):
    name = "email.send"

    def call(self, context: TaskContext, args: dict[str, Any]) -> None: ...


class Limited(Threaded):
    options = TaskOptions(hard_time_limit=5)


class Nameless(Threaded):
    name = ""


class Empty(TaskHandler[None]):
    name = "empty"


@pytest.mark.parametrize(
    ("handler", "form"),
    [(Email(), Form.ASYNC), (Assigned(), Form.ISOLATED), (Method(), Form.ISOLATED), (ByOptions(), Form.ISOLATED), (Threaded(), Form.SYNC)],
)
def test_an_entrypoint_makes_a_handler_isolated_else_its_call_decides(handler: TaskHandler[None], form: Form) -> None:
    assert form_of(handler) is form


@pytest.mark.parametrize("handler", [Assigned(), Static(), ByOptions()])
def test_a_function_is_an_entrypoint_as_it_is(handler: TaskHandler[None]) -> None:
    assert declared_entrypoint(handler) is in_isolate


def test_a_method_as_entrypoint_keeps_its_self() -> None:
    entrypoint = declared_entrypoint(Method())
    assert entrypoint is not None
    assert entrypoint(None, {}) == "email.send"


def test_registering_chains_and_a_name_is_taken_once() -> None:
    registry = TaskRegistry().register(Email()).register(FunctionHandler(lambda: 0, "other", TaskOptions(), False))
    assert [handler.name for handler in registry] == ["email.send", "other"]
    assert "other" in registry
    assert len(registry) == 2
    with pytest.raises(InvalidOptions, match=r"'email\.send' is registered already.*override"):
        registry.register(Threaded())
    replacement = Threaded()
    assert registry.register(replacement, override=True).resolve("email.send") is replacement


def test_an_unknown_name_says_which_one_was_meant() -> None:
    with pytest.raises(UnknownTask, match=r"'email\.sent'; did you mean 'email\.send'"):
        TaskRegistry().register(Email()).resolve("email.sent")


@pytest.mark.parametrize(
    ("handler", "message"),
    [(Limited(), "isolate=True"), (Nameless(), "name"), (Empty(), "needs call"), (Email, "instance"), (len, "TaskHandler")],
)
def test_a_handler_that_cannot_be_meant_is_refused(handler: Any, message: str) -> None:
    with pytest.raises(InvalidOptions, match=message):
        TaskRegistry().register(handler)


def test_functions_are_refused_where_they_are_declared() -> None:
    app = Stem("memory://")
    with pytest.raises(InvalidOptions, match="isolate=True"):

        @app.task(hard_time_limit=5)
        def sync() -> None: ...

    with pytest.raises(InvalidOptions, match="generator"):

        @app.task
        def several() -> Any:
            yield 1

    with pytest.raises(InvalidOptions, match="did you mean 'hard_time_limit'"):
        app.task(hard_timelimit=5)  # type: ignore[call-overload]

    @app.task(hard_time_limit=5)
    async def coroutine() -> None: ...

    @app.task(hard_time_limit=5, isolate=True)
    def isolated() -> None: ...

    assert sorted(app.tasks) == sorted([coroutine.name, isolated.name])
    assert app.options_of(isolated.name).hard_time_limit == 5
    assert app.tasks[isolated.name] == isolated


def test_a_default_name_is_module_and_qualified_name() -> None:
    @Stem("memory://").task
    def make() -> None: ...

    assert make.name == f"{__name__}.test_a_default_name_is_module_and_qualified_name.<locals>.make"


# -- declared again ----------------------------------------------------------------------------------------------------------------------


def executed(text: str, app: Stem, file: str = "cell-1", name: str = "notebook", spec: object = None) -> dict[str, Any]:
    """What a notebook, or the import system with `spec`, does with a piece of source."""
    known: dict[str, Any] = {"app": app, "__name__": name, "__spec__": spec}
    exec(compile(text, file, "exec"), known)
    return known


CELL = '@app.task(name="make")\ndef make(n: int) -> int:\n    return n + {more}\n'


def test_a_cell_run_again_replaces_its_task_changed_or_not() -> None:
    app = Stem("memory://")
    executed(CELL.format(more=1), app)
    executed(CELL.format(more=1), app)
    assert executed("\n\n" + CELL.format(more=2), app, file="cell-2")["make"](1) == 3
    assert app.tasks["make"](1) == 3  # type: ignore[call-arg]


def test_a_module_that_is_reloaded_replaces_its_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "reloaded.py").write_text(
        'from stem_iso import Stem\napp = Stem("memory://") if "app" not in globals() else app\n' + CELL.format(more=1)
    )
    module = importlib.import_module("reloaded")
    (tmp_path / "reloaded.py").write_text("# one line more\n" + (tmp_path / "reloaded.py").read_text().replace("n + 1", "n + 20"))
    importlib.reload(module)
    assert module.app.tasks["make"](1) == 21 == module.make(1)


def test_another_function_under_a_name_that_is_taken_stays_an_error() -> None:
    app = Stem("memory://")
    spec = object()
    twice = CELL.format(more=1) + CELL.format(more=2)
    for text in (twice, CELL.format(more=1).replace("def make", "def other") + CELL.format(more=2)):
        with pytest.raises(InvalidOptions, match="a task named 'make' is registered already"):
            executed(text, Stem("memory://"), file="shop.py", name="shop", spec=spec)
    factory = 'def declare():\n    @app.task(name="made")\n    def made() -> None: ...\ndeclare()\ndeclare()\n'
    with pytest.raises(InvalidOptions, match="registered already"):
        executed(factory, app, file="shop.py", name="shop", spec=spec)


# -- a task is still its function --------------------------------------------------------------------------------------------------------


def test_a_task_looks_like_its_function() -> None:
    app = Stem("memory://")

    @app.task(name="resize", isolate=True)
    def resize(context: TaskContext, path: str, width: int = 128) -> dict[str, int]:
        """Make a picture smaller."""
        return {path: width}

    for task in (resize, resize.using(delay=3), app.tasks["resize"]):
        assert inspect.getdoc(task) == "Make a picture smaller."
        assert (task.__name__, task.__module__) == ("resize", __name__)
        assert str(inspect.signature(task)) == "(path: 'str', width: 'int' = 128) -> 'dict[str, int]'"
        assert inspect.unwrap(task).__code__ is resize.__wrapped__.__code__
    assert "Make a picture smaller." in pydoc.render_doc(resize, renderer=pydoc.plaintext)
    assert inspect.getsourcelines(resize)[0][1].strip().startswith("def resize")


def test_a_task_whose_code_is_elsewhere_has_no_function() -> None:
    assert not hasattr(Stem("memory://").task_named("nowhere"), "__wrapped__")
