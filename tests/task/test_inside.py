"""One call, from bytes to bytes: the same inline and in an isolate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stem_iso import SoftTimeLimitExceeded, Stem, TaskContext, TaskHandler, current_context
from stem_iso.isolate.interfaces import FAILED, REJECTED, RETRY, SUCCEEDED
from stem_iso.outcome import TaskError
from stem_iso.task.context_protocol import MetaRequest, ProgressRequest
from stem_iso.worker.child.task_runner import run_async, run_sync
from stem_iso.worker.coroutines import run_coroutine
from tests.task.making import RecordingPort, payload_of


def run_inline(function: Callable[..., Any], args: dict[str, Any] | None = None, port: RecordingPort | None = None, **options: Any) -> Any:
    """The reply of a function task, run as a thread of the worker would."""
    app = Stem("memory://")
    app.task(name="shop.task")(function)
    return run_sync(app.entrypoint("shop.task"), payload_of(args), port or RecordingPort(), **options)


def error_in(reply: tuple[int, bytes]) -> TaskError:
    kind, body = reply
    assert kind == FAILED
    error, kinds = msgspec.msgpack.decode(body, type=tuple[TaskError, tuple[str, ...]])
    assert kinds[0] == error.type
    return error


@dataclass
class Box:
    width: int
    path: Path

    def __post_init__(self) -> None:
        if self.width < 0:
            raise ArithmeticError("a box of negative width")


def test_arguments_arrive_converted_and_the_result_leaves_packed() -> None:
    def double(context: TaskContext, box: Box, *more: int) -> Box:
        assert current_context() is context
        assert context.args["box"] == box
        return Box(box.width * 2, box.path / "x")

    kind, result = run_inline(double, {"box": {"width": 2, "path": "/a"}, "more": [1]})
    assert (kind, msgspec.msgpack.decode(result)) == (SUCCEEDED, {"width": 4, "path": "/a/x"})
    assert current_context() is None


def test_a_class_handler_gets_its_arguments_as_they_came() -> None:
    class Email(TaskHandler[str]):
        name = "email.send"

        def call(self, context: TaskContext, args: dict[str, Any]) -> str:
            return f"{context.attempt} {sorted(args)}"

    app = Stem("memory://")
    app.register(Email())
    assert run_sync(app.entrypoint("email.send"), payload_of({"to": 1, "cc": 2}, attempt=3), RecordingPort()) == (
        SUCCEEDED,
        msgspec.msgpack.encode("3 ['cc', 'to']"),
    )


def test_arguments_that_do_not_fit_are_rejected_before_the_handler_runs() -> None:
    def handler(n: int) -> None:
        raise AssertionError

    for args in ({}, {"n": "x"}, {"n": 1, "m": 2}):
        kind, body = run_inline(handler, args)
        reason, message = msgspec.msgpack.decode(body)
        assert (kind, reason) == (REJECTED, "invalid-arguments")
        assert message.startswith("shop.task: ")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_user_code_runs_armed_and_ours_does_not(kind: str) -> None:
    port = RecordingPort()
    seen: list[bool] = []

    def sync() -> None:
        seen.append(port.armed_now)

    async def coroutine() -> None:
        await asyncio.sleep(0)
        seen.append(port.armed_now)

    assert run_inline(sync if kind == "sync" else coroutine, port=port)[0] == SUCCEEDED
    assert (seen, port.armed_now) == ([True], False)


# -- how it can fail -------------------------------------------------------------------------------------------------------------------


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")

    __repr__ = __str__

    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle either")


def raising(error: BaseException) -> Callable[[], None]:
    def handler() -> None:
        raise error

    return handler


def in_a_circle() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


def with_a_long_chain() -> None:
    error: BaseException = ValueError("the first")
    for _ in range(5_000):
        following = ValueError("the next")
        following.__cause__ = error
        error = following
    raise error


@pytest.mark.parametrize(
    ("handler", "kind", "message"),
    [
        (raising(ValueError("no")), "ValueError", "no"),
        (raising(SystemExit(3)), "SystemExit", "3"),
        (raising(KeyboardInterrupt()), "KeyboardInterrupt", ""),
        (raising(GeneratorExit()), "GeneratorExit", ""),
        (raising(SoftTimeLimitExceeded("late")), "stem_iso.errors.SoftTimeLimitExceeded", "late"),
        (raising(ExceptionGroup("both", [ValueError("a"), KeyError("b")])), "ExceptionGroup", "both (2 sub-exceptions)"),
        (raising(Hostile()), f"{__name__}.Hostile", "<the error's own text could not be made: RuntimeError>"),
        (raising(ValueError("\ud800")), "ValueError", "?"),
        (raising(asyncio.CancelledError("own")), "asyncio.exceptions.CancelledError", "own"),
        (in_a_circle, "ValueError", "first"),
        (with_a_long_chain, "ValueError", "the next"),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_whatever_a_handler_raises_is_a_failure_with_its_traceback(handler: Callable[[], None], kind: str, message: str) -> None:
    error = error_in(run_inline(handler))
    assert (error.type, error.message, error.retryable) == (kind, message, True)
    assert Path(__file__).name in error.traceback


def test_a_message_of_a_hundred_megabytes_is_cut_and_says_so() -> None:
    def handler() -> None:
        raise ValueError("é" * (100 << 20))

    error = error_in(run_inline(handler))
    assert len(error.message.encode()) < (64 << 10) + 100
    assert len(error.traceback.encode()) < (256 << 10) + 100
    assert error.message.endswith("(at 64 KiB)")
    assert "characters were cut out here (past 256 KiB)" in error.traceback
    assert Path(__file__).name in error.traceback


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_traceback_begins_at_the_handler(kind: str) -> None:
    def sync(context: TaskContext) -> None:
        raise ValueError("no")

    async def coroutine(context: TaskContext) -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    lines = error_in(run_inline(sync if kind == "sync" else coroutine)).traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert f'File "{__file__}"' in lines[1]
    assert sum("File " in line for line in lines) == 1


def test_a_retry_is_asked_for_and_keeps_what_was_written() -> None:
    port = RecordingPort()

    def handler(context: TaskContext) -> None:
        context.meta["tried"] = [context.attempt]
        context.meta["tried"].append("more")
        try:
            raise ConnectionError
        except Exception:
            context.retry(countdown=5, max_retries=2)

    kind, body = run_inline(handler, port=port)
    assert (kind, msgspec.msgpack.decode(body)) == (RETRY, [5.0, None, 2])
    assert port.requests[-1] == MetaRequest({"tried": [0, "more"]})


def test_meta_that_became_no_data_fails_the_task() -> None:
    def handler(context: TaskContext) -> None:
        context.meta["x"] = []
        context.meta["x"].append(object())

    assert error_in(run_inline(handler)).type == "TypeError"


def test_an_argument_that_raises_while_it_is_made_does_not_reach_the_handler() -> None:
    def handler(box: Box) -> None:
        raise AssertionError

    reply = run_inline(handler, {"box": {"width": -1, "path": "a"}})
    assert reply[0] in (REJECTED, FAILED)
    assert b"negative width" in reply[1]


class Unpackable:
    pass


def test_a_result_that_cannot_be_stored_fails_once_and_says_why() -> None:
    for value in (Unpackable(), (each for each in "ab"), 2**70, [{"x": Unpackable()}]):
        error = error_in(run_inline(lambda value=value: value))
        assert (error.type, error.retryable) == ("TypeError", False)
        assert error.message.startswith("shop.task returned a ")
    error = error_in(run_inline(lambda: b"x" * 1001, max_result_bytes=1000))
    assert (error.type, error.retryable) == ("stem_iso.errors.PayloadTooLarge", False)
    assert "max_result_bytes (1000)" in error.message
    assert run_inline(lambda: b"x" * 900, max_result_bytes=1000)[0] == SUCCEEDED


# -- coroutines ------------------------------------------------------------------------------------------------------------------------


def test_an_async_handler_runs_on_the_loop_that_is_there() -> None:
    app = Stem("memory://")
    loops: list[Any] = []

    @app.task(name="n")
    async def handler(context: TaskContext, n: int) -> int:
        loops.append(asyncio.get_running_loop())
        await context.aextend_lease(5)
        context.progress(n)
        await asyncio.sleep(0)
        assert current_context() is context
        return n

    async def both() -> Any:
        loops.append(asyncio.get_running_loop())
        ports = [RecordingPort(), RecordingPort()]
        replies = await asyncio.gather(*(run_async(app.entrypoint("n"), payload_of({"n": n}), ports[n]) for n in range(2)))
        assert [port.requests[-1] for port in ports] == [ProgressRequest(0.0), ProgressRequest(1.0)]
        return replies

    assert asyncio.run(both()) == [(SUCCEEDED, b"\x00"), (SUCCEEDED, b"\x01")]
    assert len(set(map(id, loops))) == 1


def test_a_cancellation_from_outside_is_let_through_and_one_from_inside_is_a_failure() -> None:
    app = Stem("memory://")
    began = asyncio.Event()

    @app.task(name="waits")
    async def waits() -> None:
        began.set()
        await asyncio.Event().wait()

    @app.task(name="cancels")
    async def cancels() -> None:
        raise asyncio.CancelledError("own")

    async def cancelled() -> None:
        running = asyncio.create_task(run_async(app.entrypoint("waits"), payload_of(), RecordingPort()))
        await began.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert error_in(await run_async(app.entrypoint("cancels"), payload_of(), RecordingPort())).message == "own"

    asyncio.run(cancelled())


@contextmanager
def strike(when: Callable[[], object]) -> Iterator[None]:
    """The signal of a soft limit, once, out of the loop's own code: played by a loop that raises what the signal's handler would raise."""
    struck: list[bool] = []

    class Struck(asyncio.SelectorEventLoop):
        def _run_once(self) -> None:
            if not struck and when():
                struck.append(True)
                raise SoftTimeLimitExceeded("soft time limit reached")
            super()._run_once()  # type: ignore[misc]

    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            return Struck()

    previous = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(Policy())
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(previous)


def test_a_soft_limit_that_strikes_the_waiting_loop_is_raised_in_the_handler() -> None:
    steps: list[str] = []

    async def handler() -> str:
        try:
            steps.append("waiting")
            await asyncio.Event().wait()
        except SoftTimeLimitExceeded:
            steps.append("reported")
            await asyncio.sleep(0)
            return "cleaned up"
        return "never"

    with strike(lambda: steps):
        assert run_coroutine(handler()) == "cleaned up"
    assert steps == ["waiting", "reported"]


def test_a_soft_limit_that_strikes_before_the_first_step_is_one() -> None:
    steps: list[str] = []

    async def handler() -> None:
        steps.append("begun")

    coroutine = handler()
    with strike(lambda: True), pytest.raises(SoftTimeLimitExceeded):
        run_coroutine(coroutine)
    coroutine.close()
    assert steps == []


def test_a_coroutine_that_raises_the_soft_limit_ends_with_it() -> None:
    async def handler() -> None:
        raise SoftTimeLimitExceeded("soft time limit reached")

    with pytest.raises(SoftTimeLimitExceeded):
        run_coroutine(handler())


def awaitable_of(value: int) -> Coroutine[Any, Any, int]:
    async def later() -> int:
        return value

    return later()


def test_a_sync_function_that_returns_an_awaitable_is_awaited() -> None:
    assert run_inline(lambda: awaitable_of(3)) == (SUCCEEDED, b"\x03")
