"""A coroutine in a loop of its own, where the signal of a soft limit may arrive at any instruction.

it arrives in a step of the handler   SoftTimeLimitExceeded is raised there, as in any function
it arrives in the waiting loop        the loop is left; the task is cancelled with a mark, and the loop entered again; where the
                                      cancellation enters the handler, `_marked` makes it a SoftTimeLimitExceeded
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Generator
from typing import Any

from stem_iso.errors import SoftTimeLimitExceeded
from stem_iso.isolate.child.fork import ForkedChildGuard

SOFT_LIMIT = "soft time limit"


def run_coroutine(awaitable: Awaitable[Any]) -> Any:
    """The value of the awaitable; whatever it raises is raised here."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(_steps(awaitable))
        while True:
            try:
                return loop.run_until_complete(task)
            except SoftTimeLimitExceeded:
                if task.done():
                    raise
                task.cancel(SOFT_LIMIT)
            except asyncio.CancelledError as error:  # before its first step, where nothing could turn the mark
                if _is_mark(error):
                    raise SoftTimeLimitExceeded("soft time limit reached") from None
                raise


async def _steps(awaitable: Awaitable[Any]) -> Any:
    with ForkedChildGuard():  # here already: closing the loop in a forked process would take its parent's selector apart
        return await _marked(awaitable.__await__())


@types.coroutine
def _marked(steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """`steps`, with a marked cancellation turned into the exception that it stands for."""
    try:
        waited = next(steps)
        while True:
            try:
                answer = yield waited
            except BaseException as error:  # whatever is thrown into a coroutine is its own to catch
                waited = steps.throw(SoftTimeLimitExceeded("soft time limit reached") if _is_mark(error) else error)
            else:
                waited = steps.send(answer)
    except StopIteration as end:
        return end.value


def _is_mark(error: BaseException) -> bool:
    return isinstance(error, asyncio.CancelledError) and error.args == (SOFT_LIMIT,)
