"""What happens in all workers, as an iterator. Each listener has a broker of its own, closed with the iterator.

An event of a newer version, which is not known here, is passed over.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from threading import Thread
from typing import TYPE_CHECKING, Any

import msgspec

from stem_iso.errors import StemError

if TYPE_CHECKING:
    from stem_iso.events import AnyEvent
    from stem_iso.site import Site


def events(site: Site, timeout: float | None) -> Iterator[AnyEvent]:
    from stem_iso.events import decode

    broker = site.open()
    try:
        for body in broker.listen(timeout):
            try:
                event = decode(body)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue
            yield event
    finally:
        broker.close()


async def aevents(site: Site, timeout: float | None) -> AsyncIterator[AnyEvent]:
    """A thread listens. After the iterator was closed it ends with the next event, or the time-out, and listens in vain until then."""
    import asyncio

    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Any] = asyncio.Queue()
    closed = False

    def say(what: Any) -> bool:
        if closed or loop.is_closed():
            return False
        loop.call_soon_threadsafe(queue.put_nowait, what)
        return True

    def listen() -> None:
        try:
            for event in events(site, timeout):
                if not say(event):
                    return
            say(None)
        except StemError as error:
            say(error)

    Thread(target=listen, name="stem_iso: events", daemon=True).start()
    try:
        while (event := await queue.get()) is not None:
            if isinstance(event, StemError):
                raise event
            yield event
    finally:
        closed = True
