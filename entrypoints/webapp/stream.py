"""A task's events as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    event: status       how the task stands: at the start, and after each QUIET seconds without an event
    event: progress     and started, retried, completed, …: what happens to it, as it happens
    event: end          how it ended; nothing follows. Close the EventSource here, or the browser connects again

A broker that goes away is waited for. When the client goes away the server closes the generator, and thereby the task's events.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from stem_iso import TaskHandle
from stem_iso.errors import BrokerUnavailable, UnknownResult

QUIET = 15.0  # seconds: proxies close connections on which nothing comes for half a minute or more
AGAIN = 1.0  # seconds until a broker that is away is asked again


async def server_sent_events(handle: TaskHandle[Any]) -> AsyncIterator[str]:
    while True:
        try:
            status = await handle.astatus()
            if status.state.terminal:
                yield message("end", status.as_dict())
                return
            yield message("status", status.as_dict())
            async with aclosing(handle.aevents(timeout=QUIET)) as events:
                async for event in events:
                    yield message(event.type, event.as_dict())
        except UnknownResult:  # forgotten meanwhile
            return
        except (BrokerUnavailable, TimeoutError):
            yield ": the broker cannot be reached\n\n"  # a comment, which browsers skip
            await asyncio.sleep(AGAIN)


def message(kind: str, data: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
