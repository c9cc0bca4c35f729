"""Handlers and the names they bear."""

from __future__ import annotations

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
    ("handler", "said"),
    [(Limited(), "isolate=True"), (Nameless(), "name"), (Empty(), "needs call"), (Email, "instance"), (len, "TaskHandler")],
)
def test_a_handler_that_cannot_be_meant_is_refused(handler: Any, said: str) -> None:
    with pytest.raises(InvalidOptions, match=said):
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
