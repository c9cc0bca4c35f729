"""Source of live events: one watch of the broker's events for all tabs, as server-sent events.

    broker.watch_events ── one thread ──> a batch every TURN ──> each Tab: filter, bounded queue ──> `event: …` `data: {…}`

Rules
 1. The watch is there while a tab is, and LINGER seconds longer. Workers send events only while somebody watches.
 2. A tab that reads too slowly, or a broker where more happens than anybody can read, loses events, the oldest first: `skipped` says how
    many. Events are news; what stands is asked for again.
 3. A comment every BEAT seconds finds tabs that are gone. A stream ends when its client goes, when the server stops, and after LIFE; a
    browser comes back by itself.
 4. A broker that goes away is said as `broker` with `up: false`, and asked again every second; when it is back, `up: true`.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from stem_iso.client.event_stream import decoded_event
from stem_iso.errors import BrokerUnavailable
from stem_iso.json_data import to_json

if TYPE_CHECKING:
    from stem_iso.brokers.base import Broker, EventWatch

TURN = 0.2  # seconds between two batches
MOST_A_TURN = 100  # events that a tab gets of one batch
MOST_WAITING = 500  # events that wait for a tab
MOST_TABS = 200
LINGER = 3.0
BEAT = 5.0
LIFE = 600.0
AGAIN = 1.0  # seconds until a broker that is away is asked again

Told = tuple[str, str | None, Any]  # kind, id of the task, what is encoded for whoever gets it


class Tab:
    """One stream. `put` is called in its loop; `closed` is set there, too."""

    def __init__(self, task: str | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = task
        self._waiting: deque[Told] = deque()
        self._skipped = 0
        self._changed = asyncio.Event()
        self.closed = False

    def send(self, batch: list[Told]) -> None:
        """From any thread."""
        with suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(self._put, batch)

    def close(self) -> None:
        self.closed = True
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._changed.set)

    def _put(self, batch: list[Told]) -> None:
        wanted = [each for each in batch if self._task is None or each[1] in (None, self._task)]
        self._skipped += max(0, len(wanted) - MOST_A_TURN)
        self._waiting.extend(wanted[-MOST_A_TURN:])
        while len(self._waiting) > MOST_WAITING:
            self._waiting.popleft()
            self._skipped += 1
        if wanted:
            self._changed.set()

    async def messages(self, beat: float) -> AsyncGenerator[bytes, None]:
        """As they are sent. A comment after `beat` seconds without any."""
        while not self.closed:
            try:
                await asyncio.wait_for(self._changed.wait(), beat)
            except TimeoutError:
                yield b": beat\n\n"
                continue
            self._changed.clear()
            if self._skipped:
                count, self._skipped = self._skipped, 0
                yield message("skipped", {"type": "skipped", "count": count})
            while self._waiting:
                kind, _, data = self._waiting.popleft()
                yield message(kind, data)


def message(kind: str, data: Any) -> bytes:
    """JSON has no line ends, so one line of data is all of it. Of what is nested too deeply for JSON the kind is told alone."""
    try:
        written = to_json(data)
    except RecursionError:
        written = to_json({"type": kind})
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), written)


class EventSource:
    """One for each dashboard. `open` makes the broker that its thread uses."""

    def __init__(self, open: Callable[[], Broker]) -> None:
        self._open = open
        self._changed = threading.Condition()  # guards the four below
        self._tabs: set[Tab] = set()
        self._running = False
        self._stopped = False
        self._left_at = 0.0
        self._up = True  # owned by the thread

    async def stream(self, task: str | None = None) -> AsyncGenerator[bytes, None]:
        """Of all tasks, or of one."""
        tab = Tab(task)
        if not self._enter(tab):
            yield message("full", {"type": "full", "tabs": MOST_TABS})
            return
        ends_at = time.monotonic() + LIFE
        try:
            yield b"retry: 2000\n\n" + message("hello", {"type": "hello", "at": time.time()})
            last = time.monotonic()
            async for each in tab.messages(min(1.0, BEAT)):
                now = time.monotonic()
                if server_stops() or now >= ends_at:
                    return
                if each.startswith(b":") and now - last < BEAT:
                    continue
                last = now
                yield each
        finally:
            self._leave(tab)

    def publish(self, kind: str, data: dict[str, Any]) -> None:
        """To all tabs, from any thread."""
        with self._changed:
            tabs = list(self._tabs)
        for tab in tabs:
            tab.send([(kind, None, {"type": kind, **data})])

    def stop(self) -> None:
        """All streams end. The thread ends with its next turn."""
        with self._changed:
            self._stopped, tabs = True, list(self._tabs)
            self._changed.notify_all()
        for tab in tabs:
            tab.close()

    @property
    def tabs(self) -> int:
        return len(self._tabs)

    def _enter(self, tab: Tab) -> bool:
        with self._changed:
            if self._stopped or len(self._tabs) >= MOST_TABS:
                return False
            self._tabs.add(tab)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="stem_iso: dashboard events", daemon=True).start()
        return True

    def _leave(self, tab: Tab) -> None:
        with self._changed:
            self._tabs.discard(tab)
            self._left_at = time.monotonic()

    # -- its thread ----------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        broker = self._open()
        watch: EventWatch | None = None
        try:
            while not self._over():
                try:
                    if watch is None:
                        watch = broker.watch_events()
                    self._turn(watch)
                except (BrokerUnavailable, TimeoutError) as error:
                    self._say_up(False, str(error))
                    if not isinstance(error, TimeoutError) and watch is not None:
                        _close(watch)
                        watch = None
                    self._rest(AGAIN)
        finally:
            if watch is not None:
                _close(watch)
            with suppress(BrokerUnavailable):
                broker.close()

    def _over(self) -> bool:
        """Decides under the lock, so that a tab that comes now either keeps this thread or begins another."""
        with self._changed:
            if not self._stopped and (self._tabs or time.monotonic() - self._left_at < LINGER):
                return False
            self._running = False
            return True

    def _turn(self, watch: EventWatch) -> None:
        began = time.monotonic()
        bodies = watch.poll(1.0)
        self._say_up(True, "")
        if not bodies:
            return
        events = [event for event in map(decoded_event, bodies) if event is not None]
        batch: list[Told] = [(event.type.value, getattr(event, "task_id", None), event) for event in events]
        with self._changed:
            tabs = list(self._tabs)
        for tab in tabs:
            tab.send(batch)
        self._rest(TURN - (time.monotonic() - began))

    def _say_up(self, up: bool, why: str) -> None:
        if up is not self._up:
            self._up = up
            self.publish("broker", {"up": up, "message": why})

    def _rest(self, seconds: float) -> None:
        with self._changed:
            if seconds > 0 and not self._stopped:
                self._changed.wait(seconds)


def _close(watch: EventWatch) -> None:
    with suppress(BrokerUnavailable):
        watch.close()


def server_stops() -> bool:
    """Whether uvicorn has been told to stop: it waits for open streams before it tells applications so. Its handlers of signals are
    methods of the server; of a server that has others, a stream ends with LIFE."""
    servers = (getattr(signal.getsignal(number), "__self__", None) for number in (signal.SIGTERM, signal.SIGINT))
    return any(getattr(server, "should_exit", False) is True for server in servers)
