"""Middleware in real workers: wherever a handler runs, and as a part of its attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from stem_iso import Envelope, Middleware, Stem, TaskContext, TaskFailed
from tests.worker import handlers
from tests.worker.conftest import Begin, QuickRetries

Publish = Callable[[Sequence[Envelope]], list[str]]


class Marking(Middleware):
    """Leaves its marks where they can be seen from another process."""

    def __init__(self, name: str) -> None:
        self.name = name

    def enqueue(self, envelopes: Sequence[Envelope], call_next: Publish) -> list[str]:
        return call_next([replace(each, headers={**each.headers, "sent by": self.name}) for each in envelopes])

    @contextmanager
    def around(self, context: TaskContext) -> Iterator[None]:
        context.meta["around"] = [self.name, context.headers.get("sent by"), context.isolated]
        yield


@pytest.mark.parametrize("isolate", [True, False])
def test_it_is_carried_to_isolates_that_cannot_import_the_application(app: Stem, begin: Begin, isolate: bool):
    app.middleware.add(Marking("m"))
    app.task(name="add", isolate=isolate)(handlers.add)
    parent = app.task(name="parent", isolate=isolate)(handlers.spawn_child)
    begin(app)
    handle = parent.enqueue()
    child = app.handle(handle.result(timeout=30))
    assert child.result(timeout=30) == 2
    assert [each.status().meta["around"] for each in (handle, child)] == [["m", "m", isolate]] * 2


def test_an_error_in_it_is_retried_as_the_handlers_own_and_its_time_counts(app: Stem, begin: Begin):
    class Flaky(Middleware):
        @contextmanager
        def around(self, context: TaskContext) -> Iterator[None]:
            if context.attempt == 0:
                raise handlers.Flaky("not yet")
            if context.name == "slow":
                handlers.spin()
            yield

    app.middleware.add(Flaky())
    options: dict[str, Any] = {"isolate": True, "max_retries": 1, "retry_strategy": QuickRetries()}
    add = app.task(name="add", **options)(handlers.add)
    slow = app.task(name="slow", hard_time_limit=0.2, **options)(handlers.add)
    begin(app)
    assert add.enqueue(1).result(timeout=30) == 2
    with pytest.raises(TaskFailed) as caught:
        slow.enqueue(1).result(timeout=30)
    assert caught.value.error is not None and caught.value.error.type == "stem_iso.errors.TimeoutException"
