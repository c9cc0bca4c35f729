"""Stream of the events of all workers, as an iterator. Each stream has a broker of its own, which is closed with the iterator.

An event of a newer version, unknown here, is skipped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from threading import Event, Thread
from typing import TYPE_CHECKING

import msgspec

from stem_iso.errors import StemError

if TYPE_CHECKING:
    from stem_iso.brokers.base import Broker
    from stem_iso.client.broker_pool import BrokerConfig
    from stem_iso.events import AnyEvent


def events(site: BrokerConfig, timeout: float | None) -> Iterator[AnyEvent]:
    """Listens from this call on, not from the first `next`."""
    broker = site.open()
    return _decoded(broker, broker.listen(timeout))


def _decoded(broker: Broker, bodies: Iterator[bytes]) -> Iterator[AnyEvent]:
    from stem_iso.events import decode

    try:
        for body in bodies:
            try:
                event = decode(body)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                continue
            yield event
    finally:
        broker.close()


def aevents(site: BrokerConfig, timeout: float | None) -> AsyncIterator[AnyEvent]:
    """Listens from this call on. A thread does it; after the iterator was closed that ends with the next event, or the time-out."""
    return _handed_over(events(site, timeout))


async def _handed_over(listened: Iterator[AnyEvent]) -> AsyncIterator[AnyEvent]:
    import asyncio

    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[AnyEvent | StemError | None] = asyncio.Queue()
    closed = Event()

    def say(what: AnyEvent | StemError | None) -> None:
        if not closed.is_set() and not loop.is_closed():
            loop.call_soon_threadsafe(queue.put_nowait, what)

    def listen() -> None:
        try:
            for event in listened:
                say(event)
                if closed.is_set():
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
        closed.set()
