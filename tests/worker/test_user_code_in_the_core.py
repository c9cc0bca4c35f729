"""Code of users that runs beside leases and limits: whatever it raises, it costs what it was asked for, and nobody else anything."""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Iterator

import pytest

from stem_iso import Stem, TaskFailed, WorkerEventType
from tests.worker import handlers
from tests.worker.conftest import Begin

ENDS = [KeyboardInterrupt, CancelledError, SystemExit, GeneratorExit]


class Ending:
    """A strategy, a listener and something that cannot be pickled, all of which end as one does who wants the program to end."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def next_delay(self, attempt: int, error: object) -> float:
        raise self.error

    def __call__(self, *_: object) -> None:
        raise self.error

    def __reduce__(self) -> str:
        raise self.error

    __repr__ = __call__  # type: ignore[assignment]


class Emitting(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise SystemExit


@pytest.fixture
def broken_log() -> Iterator[None]:
    handler = Emitting()
    logging.getLogger("stem_iso").addHandler(handler)
    yield
    logging.getLogger("stem_iso").removeHandler(handler)


@pytest.mark.parametrize("error", ENDS)
def test_a_strategy_a_listener_and_an_entrypoint_that_end_cost_no_worker(app: Stem, begin: Begin, error: type[BaseException]) -> None:
    ending = Ending(error)
    boom = app.task(name="boom", isolate=True, max_retries=1, retry_strategy=ending)(handlers.boom)
    closed = app.task(name="closed", isolate=True)(lambda: ending)
    add = app.task(name="add", isolate=True)(handlers.add)
    app.signals.task_received.connect(ending)
    worker, recorder = begin(app, spares=0)
    worker.on(WorkerEventType.STARTED, ending)
    failed = boom.enqueue("no")
    trouble = recorder.wait(WorkerEventType.RETRIED, failed.id)
    assert trouble.delay > 0  # the default strategy's
    assert any(f"raised {error.__name__}" in event.message for event in recorder.of(WorkerEventType.ERROR, failed.id))
    with pytest.raises(TaskFailed, match="cannot be sent to an isolate"):
        closed.enqueue().result(timeout=30)
    assert add.enqueue(1, b=2).result(timeout=30) == 3


def test_a_handler_of_logging_that_ends_costs_no_worker(app: Stem, begin: Begin, broken_log: None) -> None:
    boom = app.task(name="boom", isolate=True)(handlers.boom)
    add = app.task(name="add", isolate=True)(handlers.add)
    app.signals.task_received.connect(Ending(SystemExit))
    _, recorder = begin(app, spares=0)
    with pytest.raises(TaskFailed):
        boom.enqueue("no").result(timeout=30)
    handle = add.enqueue(1, b=2)
    assert handle.result(timeout=30) == 3
    recorder.wait(WorkerEventType.COMPLETED, handle.id)
