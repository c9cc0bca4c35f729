"""Feed of task events for loops: one thread and one broker for all `handle.aevents()` of an application in this process.

    aevents ── follow ─> EventFeed ── its thread, its broker ──> EventWatch.poll ──> each event ──> the loops that follow its task
                               └────── status of the tasks that are silent, all in one question

Rules
 1. A thousand streams cost one thread and the connections of one broker. Both are there while somebody listens, and the thread for `LINGER`
    seconds after that.
 2. The loop is never held up: subscribing and looking are the thread's. The first look must reach the broker, else the stream raises
    BrokerUnavailable; UnknownResult is raised by the stream, too. A broker that goes away later is waited for.
 3. Who stops listening closes the subscription; the feed forgets it with its next turn, `TURN` seconds later at most. So late begins one
    that comes while others are there.
 4. A forked child has a feed of its own, and touches nothing of the parent's.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING

from stem_iso.client.event_stream import TaskFollower, decoded_event, unknown
from stem_iso.client.service_thread import ServiceThread
from stem_iso.errors import BrokerUnavailable

if TYPE_CHECKING:
    from stem_iso.brokers.base import Broker, EventWatch, StatusRecord
    from stem_iso.events import AnyEvent

LINGER = 5.0  # seconds: as of the watcher of results
TURN = 0.25  # seconds of one poll, after which new subscriptions are taken in


class Subscription:
    """One stream in a loop. `put` is called by the feed's thread; the rest belongs to the loop."""

    def __init__(self, id: str, queue: str | None, timeout: float | None) -> None:
        self.id, self.queue, self.timeout = id, queue, inf if timeout is None else timeout
        self.closed = False  # set once, by the loop
        self._loop = asyncio.get_running_loop()
        self._received: asyncio.Queue[AnyEvent | Exception | None] = asyncio.Queue()

    def put(self, what: AnyEvent | Exception | None) -> None:
        """None: the stream is over."""
        if not self.closed:
            with suppress(RuntimeError):  # the loop has been closed
                self._loop.call_soon_threadsafe(self._received.put_nowait, what)

    def close(self) -> None:
        self.closed = True

    async def events(self) -> AsyncGenerator[AnyEvent, None]:
        try:
            while (event := await self._received.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.close()


class EventFeed:
    """One per application. `open` makes a broker, which the feed's thread alone uses."""

    def __init__(self, open: Callable[[], Broker]) -> None:
        self._thread = ServiceThread("stem_iso: task events", lambda: _FeedService(open()))

    def follow(self, id: str, queue: str | None, timeout: float | None) -> AsyncGenerator[AnyEvent, None]:
        """The events of this task, for the loop that runs here. The feed begins to listen at once, not with the first `anext`.

        Raises RuntimeError where no thread is to be had.
        """
        subscription = Subscription(id, queue, timeout)
        self._thread.take(subscription)
        stream = subscription.events()
        weakref.finalize(stream, subscription.close).atexit = False  # one that nobody iterates over has no `finally`
        return stream

    def close(self) -> None:
        """Streams that go on keep the feed; one that only lingers ends."""
        self._thread.close()


class _FeedService:
    """A life of the feed, from the first subscription to the last."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._changed = threading.Condition()  # guards the three below
        self._new: list[Subscription] = []
        self._over = False
        self._linger = LINGER
        # The rest is owned by the thread of `run`.
        self._watch: EventWatch | None = None
        self._followers: dict[Subscription, TaskFollower] = {}
        self._away: Exception | None = None  # of the last poll

    def take(self, subscription: Subscription) -> bool:
        with self._changed:
            if not self._over:
                self._new.append(subscription)
                self._changed.notify()
            return not self._over

    def leave(self) -> None:
        with self._changed:
            self._linger = 0.0
            self._changed.notify()

    def abandon(self) -> None:
        self._broker.close()  # it has opened nothing yet

    def run(self) -> None:
        try:
            while (new := self._taken_in()) is not None:
                self._turn(new)
        except BaseException as error:  # whatever it was: nobody may listen to a thread that is gone
            with self._changed:
                self._over = True
            self._end_all(BrokerUnavailable(f"listening to events ended: {error!r}"))
            raise
        finally:
            self._unwatch()
            with suppress(BrokerUnavailable):
                self._broker.close()

    def _taken_in(self) -> list[Subscription] | None:
        """Those that came; waits for one where nobody listens. None: nobody came, and it is over."""
        for subscription in [each for each in self._followers if each.closed]:
            del self._followers[subscription]
        if not self._followers:
            self._unwatch()  # else what happens until somebody comes would be his
        with self._changed:
            deadline = time.monotonic() + self._linger
            while not (self._new or self._followers):
                left = min(deadline, time.monotonic() + self._linger) - time.monotonic()
                if left <= 0:
                    self._over = True
                    return None
                self._changed.wait(left)
            new, self._new = self._new, []
            return new

    def _turn(self, new: list[Subscription]) -> None:
        try:
            self._begin(new)
            self._poll()
        except BrokerUnavailable as error:
            self._end_all(error)
            return
        self._look()
        now = time.monotonic()
        for subscription, follower in list(self._followers.items()):
            if follower.over(now):
                self._end(subscription, follower.silence(self._away) if self._away and now >= follower.quiet_at else None)

    def _begin(self, new: list[Subscription]) -> None:
        """Listens first, then looks, so that no end falls between the two."""
        if not new:
            return
        try:
            if self._watch is None:
                self._watch = self._broker.watch_events()
            records = self._statuses(new)
        except BrokerUnavailable as error:
            for subscription in new:
                subscription.put(error)
            return
        now = time.monotonic()
        for subscription in new:
            if (record := records[subscription.id]) is None:
                subscription.put(unknown(subscription.id))
            else:
                self._followers[subscription] = TaskFollower(record, subscription.timeout, now)

    def _poll(self) -> None:
        if self._watch is None or not self._followers:
            return
        nearest = min(follower.wakes_at for follower in self._followers.values()) - time.monotonic()
        try:
            bodies = self._watch.poll(max(0.0, min(TURN, nearest)))
        except TimeoutError as error:  # the broker is away
            self._away = error
            return
        self._away = None
        if not bodies:
            return
        by_task: dict[str, list[Subscription]] = {}
        for subscription in self._followers:
            by_task.setdefault(subscription.id, []).append(subscription)
        for event in (event for event in map(decoded_event, bodies) if event is not None):
            for subscription in by_task.get(getattr(event, "task_id", None) or "", ()):
                self._deliver(subscription, event)

    def _deliver(self, subscription: Subscription, event: AnyEvent) -> None:
        follower = self._followers.get(subscription)
        if follower is not None:  # else an event of this batch was its end
            subscription.put(event)
            if follower.on_event(event, time.monotonic()):
                self._end(subscription, None)

    def _look(self) -> None:
        now = time.monotonic()
        due = [subscription for subscription, follower in self._followers.items() if follower.look_is_due(now)]
        try:
            records = self._statuses(due)
        except BrokerUnavailable:  # it is waited for
            records = None
        for subscription in due:
            if records is None:
                self._followers[subscription].look_later(now)
            elif (record := records[subscription.id]) is None:  # forgotten, or its status has expired
                self._end(subscription, None)
            else:
                self._followers[subscription].on_look(record, now)

    def _statuses(self, subscriptions: Iterable[Subscription]) -> Mapping[str, StatusRecord | None]:
        by_queue: dict[str | None, list[str]] = {}
        for subscription in subscriptions:
            by_queue.setdefault(subscription.queue, []).append(subscription.id)
        found: dict[str, StatusRecord | None] = {}
        for queue, ids in by_queue.items():
            found |= zip(ids, self._broker.status(ids, queue), strict=True)
        return found

    def _end(self, subscription: Subscription, error: Exception | None) -> None:
        del self._followers[subscription]
        subscription.put(error)

    def _end_all(self, error: Exception) -> None:
        with self._changed:
            left, self._new = [*self._new, *self._followers], []
        self._followers.clear()
        for subscription in left:
            subscription.put(error)
        self._unwatch()

    def _unwatch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            with suppress(BrokerUnavailable):  # it is forgotten by itself
                watch.close()
