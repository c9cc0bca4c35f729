"""Stream of the events of all workers, or of one task, as an iterator. Each has a broker of its own, which is closed with the iterator.

    events       subscribe ──────────────────> each event                                  until `timeout` without one
    task_events  subscribe ── look at task ──> its events ── silence ── look at the task   until its end, too

An event of a newer version, unknown here, is skipped.

The end of a task is its event, or what a look finds: a worker that dies between the end and the event says nothing, and what is revoked
while no worker lives has nobody to say it. So the status is looked at after a second without an event of the task; where that has ended,
its event may still be on the way, and is given `LATE` seconds. An end of a run before the one that was looked at first is no end: the
task has been retried since.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import ExitStack, closing
from math import inf
from threading import Event, Thread
from typing import TYPE_CHECKING

import msgspec

from stem_iso.errors import BrokerUnavailable, UnknownResult

if TYPE_CHECKING:
    from stem_iso.brokers.base import Broker, EventWatch, StatusRecord
    from stem_iso.client.broker_pool import BrokerConfig
    from stem_iso.events import AnyEvent


LOOK = 1.0  # seconds without an event of the task, after which its status is looked at
LATE = 0.25  # seconds that an event of an end may come after that end


def events(site: BrokerConfig, timeout: float | None) -> Generator[AnyEvent, None, None]:
    """Listens from this call on, not from the first `next`."""
    broker = site.open()
    return _decoded(broker, broker.listen(timeout))


def _decoded(broker: Broker, bodies: Iterator[bytes]) -> Generator[AnyEvent, None, None]:
    try:
        for body in bodies:
            if (event := decoded_event(body)) is not None:
                yield event
    finally:
        broker.close()


def decoded_event(body: bytes) -> AnyEvent | None:
    from stem_iso.events import decode

    try:
        return decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def aevents(site: BrokerConfig, timeout: float | None) -> AsyncGenerator[AnyEvent, None]:
    """Listens from this call on. A thread does it; after the iterator was closed that ends with the next event, or the time-out."""
    return _handed_over(events(site, timeout))


async def _handed_over(listened: Generator[AnyEvent, None, None]) -> AsyncGenerator[AnyEvent, None]:
    import asyncio

    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[AnyEvent | Exception | None] = asyncio.Queue()
    closed = Event()

    def put(what: AnyEvent | Exception | None) -> None:
        if not closed.is_set() and not loop.is_closed():
            loop.call_soon_threadsafe(queue.put_nowait, what)

    def listen() -> None:
        try:
            with closing(listened):  # by this thread, whose broker it is; a collector would choose one, and the order of what goes
                for event in listened:
                    put(event)
                    if closed.is_set():
                        return
            put(None)
        except Exception as error:  # whatever ended the thread ends the wait of the loop: TimeoutError, where the broker is away
            put(error)

    Thread(target=listen, name="stem_iso: events", daemon=True).start()
    try:
        while (event := await queue.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event
    finally:
        closed.set()


# -- one task --------------------------------------------------------------------------------------------------------------------------


def task_events(broker: Broker, id: str, queue: str | None, timeout: float | None) -> Generator[AnyEvent, None, None]:
    """Listens from this call on, and closes the broker. Raises UnknownResult."""
    with ExitStack() as opened:
        opened.callback(broker.close)
        watch = broker.watch_events()
        opened.callback(watch.close)
        (record,) = broker.status([id], queue)
        if record is None:
            raise unknown(id)
        opened.pop_all()  # from here on they are the stream's
    return _TaskEvents(broker, watch, TaskFollower(record, inf if timeout is None else timeout, time.monotonic())).events()


def unknown(id: str) -> UnknownResult:
    return UnknownResult(f"no task has the id {id!r}: it was never enqueued, or its result has expired")


class TaskFollower:
    """What one listener waits for: the events of a task until its end.

    `record` is of the first look, after the subscription; each `now` is monotonic.
    """

    def __init__(self, record: StatusRecord, timeout: float, now: float) -> None:
        self.id, self.queue, self._run, self._timeout = record.id, record.queue, record.run, timeout
        self.quiet_at = now + timeout  # when nothing has come for so long
        self._look_at = now  # when the task is looked at, or, where it has ended, when its event is late
        self.on_look(record, now)

    @property
    def wakes_at(self) -> float:
        return min(self.quiet_at, self._look_at)

    def on_event(self, event: AnyEvent, now: float) -> bool:
        """Of this task. True: it is its end."""
        from stem_iso.events import CompletedEvent, FailedEvent, RevokedEvent

        self.quiet_at = now + self._timeout
        self._look_at = max(self._look_at, now + (LATE if self._ended else LOOK))
        return isinstance(event, CompletedEvent | FailedEvent | RevokedEvent) and event.run >= self._run

    def look_is_due(self, now: float) -> bool:
        return now >= self._look_at and not self._ended

    def on_look(self, record: StatusRecord, now: float) -> None:
        self._ended = record.state.terminal
        self._look_at = now + (LATE if self._ended else LOOK)

    def look_later(self, now: float) -> None:
        self._look_at = now + LOOK

    def over(self, now: float) -> bool:
        """Whether nothing is to be waited for any more."""
        return now >= self.quiet_at or (self._ended and now >= self._look_at)

    def silence(self, error: Exception) -> TimeoutError:
        """For a wait that runs out while the broker is away; what `error` says was a part of the whole time."""
        return TimeoutError(f"no event of task {self.id} in {self._timeout:g} s; {str(error).partition('; ')[2]}")


class _TaskEvents:
    """The events of one task, until its end, for a thread."""

    def __init__(self, broker: Broker, watch: EventWatch, follower: TaskFollower) -> None:
        self._broker, self._watch, self._follower = broker, watch, follower

    def events(self) -> Generator[AnyEvent, None, None]:
        try:
            while True:
                for event in self._poll():
                    ends = self._follower.on_event(event, time.monotonic())
                    yield event
                    if ends:
                        return
                if self._over():
                    return
        finally:
            try:
                self._watch.close()
            finally:
                self._broker.close()

    def _poll(self) -> list[AnyEvent]:
        """Of this task. Raises TimeoutError where the broker is away when the wait runs out; until then it is waited for."""
        now = time.monotonic()
        try:
            bodies = self._watch.poll(max(0.0, min(self._follower.wakes_at, now + LOOK) - now))
        except TimeoutError as error:
            if time.monotonic() >= self._follower.quiet_at:
                raise self._follower.silence(error) from error
            return []
        return [event for event in map(decoded_event, bodies) if event is not None and getattr(event, "task_id", None) == self._follower.id]

    def _over(self) -> bool:
        now = time.monotonic()
        if self._follower.look_is_due(now):
            try:
                (record,) = self._broker.status([self._follower.id], self._follower.queue)
            except BrokerUnavailable:  # it is waited for
                self._follower.look_later(now)
            else:
                if record is None:  # forgotten, or its status has expired
                    return True
                self._follower.on_look(record, now)
        return self._follower.over(now)
