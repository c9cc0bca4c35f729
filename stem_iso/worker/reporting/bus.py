"""The event bus of a worker: calls listeners on a thread of its own, so that none of them can hold up a lease, a limit or a task.

    consumer ── publish ──> queue (bounded) ── dispatch thread ──> listener, listener, Stream ──> async for
             ── emit ─────>                                     ──> the listeners of one of the application's signals

Rules
 1. `wants(type)` comes before an event is made: an event that nobody listens to is never made. So with signals; the first one starts the
    thread.
 2. Listeners run one at a time, in the order of the events. A listener that raises is logged, and named in an ERROR event (unless it was
    handling one: that would never end); the others get the event all the same.
 3. A listener that lags costs events, never tasks: past `capacity` waiting events new ones are dropped, and an ERROR event gives their
    number, once a second at most, since a listener that lags does so for long.
    What is posted (captured output) has a bound of its own, in bytes: a flood of lines costs no event. Who posts reports what is lost.
 4. `close` delivers what waits, within a bound: a listener that hangs cannot hold up the end of the worker.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from queue import SimpleQueue
from typing import TypeVar

from stem_iso.events import ErrorEvent, Event, WorkerEventType

L = TypeVar("L", bound=Callable[..., object])
Listener = Callable[..., object]  # called with one event; what it returns is not used

CAPACITY = 10_000
LOSS_EVERY = 1.0  # seconds
POSTED = 64 << 20  # bytes of output that may wait: what 64 tasks may print
log = logging.getLogger("stem_iso.worker")


class Bus:
    """The listeners of one worker. `publish` and `post` may be called from any thread and never block."""

    def __init__(self, worker_id: str, *, capacity: int = CAPACITY) -> None:
        self._worker_id = worker_id
        self._capacity = capacity
        self._lock = threading.Lock()  # guards listeners, streams, counts, and the start of the thread
        # By the type's value: a string has its hash ready, an Enum member computes its own in Python each time.
        self._listeners: dict[str, tuple[Listener, ...]] = {type.value: () for type in WorkerEventType}
        self._streams: list[Stream] = []
        self._queue: SimpleQueue[tuple[Sequence[Listener] | None, object, int] | None] = SimpleQueue()  # None: those of its type; bytes
        self._thread: threading.Thread | None = None
        self._closed = False
        self._events = self._posted = 0  # how many wait, and bytes of output that do; under the lock
        self._dropped = 0  # written by publishers, taken by the dispatch thread; an estimate is enough
        self._loss_reported_at = -inf  # when; owned by the dispatch thread

    def on(self, type: WorkerEventType | None, listener: L) -> L:
        """Call `listener(event)` for events of this type, of every type with None. Returns it, so that it can decorate."""
        with self._lock:
            for each in tuple(WorkerEventType) if type is None else (type,):
                self._listeners[each.value] = (*self._listeners[each.value], listener)
            self._start()
        return listener

    def off(self, listener: Listener) -> None:
        with self._lock:
            self._listeners = {type: tuple(each for each in some if each != listener) for type, some in self._listeners.items()}

    def stream(self) -> Stream:
        """All events from now on, as an async iterator that ends with the worker."""
        stream = Stream(self)
        with self._lock:
            self._streams.append(stream)
        if self._closed:
            stream.end()
        self.on(None, stream.put)
        return stream

    def leave(self, stream: Stream) -> None:
        self.off(stream.put)
        with self._lock:
            if stream in self._streams:
                self._streams.remove(stream)

    def wants(self, type: WorkerEventType) -> bool:
        return bool(self._listeners[type._value_])

    def publish(self, event: Event) -> None:
        if self._listeners[event.type._value_]:
            self._put(None, event)

    def emit(self, listeners: Sequence[Listener], value: object) -> None:
        """Call each with `value` on the dispatch thread, in line with the events, and counted as one."""
        if self._thread is None:
            self.start()
        self._put(listeners, value)

    def _put(self, listeners: Sequence[Listener] | None, value: object) -> None:
        with self._lock:
            if self._events >= self._capacity:
                self._dropped += 1
                return
            self._events += 1
        self._queue.put((listeners, value, 0))

    def post(self, listener: Listener, value: object, size: int) -> bool:
        """Call `listener(value)` on the dispatch thread, in line with the events: for captured output, of `size` bytes, not 0. False: there
        was no room for it.
        """
        with self._lock:
            if self._posted + size > POSTED:
                return False
            self._posted += size
        self._queue.put(((listener,), value, size))
        return True

    def close(self, timeout: float = 5.0) -> None:
        """Deliver what waits, then end every stream."""
        with self._lock:
            self._closed, thread, streams = True, self._thread, tuple(self._streams)
        if thread is not None and thread is not threading.current_thread():
            self._queue.put(None)
            thread.join(timeout)
        for stream in streams:
            stream.end()

    # -- the dispatch thread -------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._dispatch, name="stem-iso-events", daemon=True)
            self._thread.start()

    def start(self) -> None:
        """Only needed before `post`: a listener, or a signal, starts the thread by itself."""
        with self._lock:
            self._start()

    def _dispatch(self) -> None:
        while (item := self._queue.get()) is not None:
            listeners, value, size = item
            with self._lock:
                self._posted -= size
                self._events -= not size
            if listeners is None and isinstance(value, Event):
                listeners = self._listeners[value.type._value_]
            for listener in listeners or ():
                self._call(listener, value)
            if self._dropped and time.monotonic() - self._loss_reported_at > LOSS_EVERY:
                self._report_loss()
        if self._dropped:
            self._report_loss()

    def _call(self, listener: Listener, value: object) -> None:
        try:
            listener(value)
        except BaseException:  # user code; one that calls sys.exit() must not end the thread of all others
            text, named = traceback.format_exc(), _named(listener)
            with suppress(BaseException):  # a handler of logging is user code too
                log.error("the listener %s raised\n%s", named, text)
            if not isinstance(value, ErrorEvent):
                self._report_error(f"the listener {named} raised", text)

    def _report_loss(self) -> None:
        lost, self._dropped, self._loss_reported_at = self._dropped, 0, time.monotonic()
        self._report_error(f"{lost} events were dropped: a listener is slower than the worker", "")

    def _report_error(self, message: str, text: str) -> None:
        # Straight to the listeners: the queue may be full, and this is its thread.
        event = ErrorEvent(at=time.time(), worker_id=self._worker_id, message=message, traceback=text)
        for each in self._listeners[WorkerEventType.ERROR.value]:
            self._call(each, event)


def _named(listener: Listener) -> str:
    try:
        return repr(listener)
    except BaseException:  # user code
        return object.__repr__(listener)


class Stream:
    """`async for event in stream`: what happened since it was made, the newest `CAPACITY` at most. `aclose()` stops listening."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._events: deque[Event] = deque(maxlen=CAPACITY)
        self._ended = False
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None  # set by the reader while it may sleep

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Event:
        wake = asyncio.Event()
        self._waiter = (asyncio.get_running_loop(), wake)
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            await wake.wait()
            wake.clear()
        return self._events.popleft()

    async def aclose(self) -> None:
        self._bus.leave(self)
        self.end()

    def put(self, event: Event) -> None:
        self._events.append(event)
        self._wake()

    def end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter[0].is_closed():
            waiter[0].call_soon_threadsafe(waiter[1].set)
