"""Waiting for a result in a coroutine: a thread of its own does the waiting.

Not the loop's default executor: a handful of waits would fill it, and whoever needs a thread to let those tasks proceed would get none.
The thread looks up every second whether anybody still waits, so a cancelled await leaves nothing behind for longer.
"""

from __future__ import annotations

import asyncio
import time
from threading import Event, Thread
from typing import TYPE_CHECKING

from stem_iso.errors import StemError

if TYPE_CHECKING:
    from stem_iso.brokers.base import StatusRecord
    from stem_iso.lending import Lending

SLICE = 1.0


async def wait_aside(lending: Lending, id: str, timeout: float | None, queue: str | None = None) -> StatusRecord:
    """Raises what `Broker.wait` raises."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[StatusRecord] = loop.create_future()
    abandoned = Event()

    def tell(record: StatusRecord | None, error: Exception | None) -> None:
        if future.done():
            return
        if record is not None:
            future.set_result(record)
        elif error is not None:
            future.set_exception(error)

    def wait() -> None:
        record, failure = None, None
        try:
            record = _wait(lending, id, timeout, queue, abandoned)
        except (StemError, TimeoutError) as error:
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, record, failure)

    Thread(target=wait, name=f"stem_iso: wait for {id}", daemon=True).start()
    try:
        return await future
    finally:
        abandoned.set()


def _wait(lending: Lending, id: str, timeout: float | None, queue: str | None, abandoned: Event) -> StatusRecord | None:
    end = None if timeout is None else time.monotonic() + timeout
    with lending.lend() as broker:
        while not abandoned.is_set():
            left = SLICE if end is None else min(SLICE, end - time.monotonic())
            try:
                return broker.wait(id, max(0.0, left), queue)
            except TimeoutError:
                if end is not None and time.monotonic() >= end:
                    raise
    return None
