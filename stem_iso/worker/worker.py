"""The worker that people start and stop: embedded in a program, or as the core of the command.

    run()                 blocks; main thread; TERM, INT: drain, a second one or QUIT: at once
    await serve()         in a loop of yours, which then also runs the inline async handlers; cancelling it drains
    with Worker(app):     in the background; leaving the block drains

Start: broker ─ engine (spares boot, and import the application) ─ consumer.
Stop: the consumer stops fetching ─ attempts end, or are killed and given back ─ their leases end, after the attempts: else another worker
would take over a long task while it ends ─ engine ─ events for other processes ─ broker, which all settlements need ─ listeners, who hear
of all this.

A worker runs once. Its parts belong to that one life (`runtime`) and to one thread.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING

from stem_iso.client.app_location import refuse_while_importing
from stem_iso.errors import InvalidOptions, StemError
from stem_iso.events import WorkerEventType
from stem_iso.isolate.linux import require_linux
from stem_iso.isolate.machine import allowed_cores
from stem_iso.task.retry_policy import RetryStrategy, strategy
from stem_iso.validation import LEAST_MEMORY, Duration, duration, whole
from stem_iso.worker.attempt import Message, StopRequested
from stem_iso.worker.inbox import Inbox
from stem_iso.worker.options import Origin, WorkerOptions, names, queues_of
from stem_iso.worker.os_signals import StopSignals
from stem_iso.worker.reporting.bus import Bus, L, Stream
from stem_iso.worker.runtime import WorkerRuntime
from stem_iso.worker.vitals import Vitals

if TYPE_CHECKING:
    from stem_iso.app import Stem


class Worker:
    """Runs the tasks of an application.

    `queues`: default every queue that its tasks declare; `concurrency`: seats, inline and isolated together, default the allowed cores;
    `burst`: end when nothing is ready, running or awaiting a retry; `secrets`: names of environment variables that isolates do not see.
    The last five are for the command, see `core`. Raises InvalidOptions, and StemError where this is no Linux 5.4 or later.
    """

    def __init__(
        self,
        app: Stem,
        *,
        queues: Sequence[str] | None = None,
        concurrency: int | None = None,
        spares: int = 1,
        retry_strategy: RetryStrategy | None = None,
        shutdown_timeout: Duration = 25.0,
        max_tasks_per_isolate: int | None = None,
        max_memory_per_isolate: int | None = None,
        unregistered_grace: Duration = 60.0,
        burst: bool = False,
        secrets: Sequence[str] = (),
        id: str | None = None,
        origin: Origin | None = None,
    ) -> None:
        require_linux("a worker")
        _check(app)
        origin = origin or Origin()
        self.app = app
        self._options = WorkerOptions(
            id=f"{socket.gethostname()}-{os.getpid()}-{origin.boot[:8]}" if id is None else id,
            origin=origin,
            queues=queues_of(app, queues),
            seats=whole("concurrency", allowed_cores() if concurrency is None else concurrency, 1),
            spares=whole("spares", spares, 0),
            shutdown_timeout=duration("shutdown_timeout", shutdown_timeout, strict=False),
            unregistered_grace=duration("unregistered_grace", unregistered_grace, strict=False),
            burst=burst,
            retry_strategy=strategy("retry_strategy", retry_strategy),
            max_calls=None if max_tasks_per_isolate is None else whole("max_tasks_per_isolate", max_tasks_per_isolate, 1),
            max_memory=None if max_memory_per_isolate is None else whole("max_memory_per_isolate", max_memory_per_isolate, LEAST_MEMORY),
            secrets=names("secrets", secrets),
        )
        self._bus = Bus(self.id)
        self._inbox: Inbox[Message] = Inbox()
        self._unknown: set[str] = set()
        self._started = False
        self._ended: Future[None] = Future()  # done when everything has been closed

    @property
    def id(self) -> str:
        return self._options.id

    @property
    def vitals(self) -> Vitals:
        """How it is, for any thread."""
        return self._options.origin.vitals

    @property
    def unknown_tasks(self) -> tuple[str, ...]:
        """Names of tasks that came while it ran and that no handler bears, sorted: given back, or dead-lettered after the grace."""
        return tuple(sorted(self._unknown))

    @property
    def boot(self) -> str:
        """What the receipts of this worker carry."""
        return self._options.boot

    def __repr__(self) -> str:
        options = self._options
        return f"<Worker {self.id} {options.seats} seats, {options.spares} spares | {', '.join(options.queues)}>"

    # -- listening -----------------------------------------------------------------------------------------------------------------

    def on(self, type: WorkerEventType | None, listener: L) -> L:
        """Call `listener(event)` for events of this type (None: of all), on a thread of their own. Returns the listener.

        Raises InvalidOptions for what is no type of events.
        """
        if type is not None and not isinstance(type, WorkerEventType):
            names = ", ".join(each.name for each in WorkerEventType)
            raise InvalidOptions(f"on: {type!r} is no WorkerEventType; give WorkerEventType.TIMEOUT or another of {names}, or None for all")
        return self._bus.on(type, listener)

    def events(self) -> Stream:
        """Everything from now on, as an async iterator that ends with the worker."""
        return self._bus.stream()

    # -- running -------------------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until the end; in the main thread, take TERM, INT and QUIT meanwhile. Raises BrokerUnavailable where it cannot start."""
        # By command the launcher counts signals, and sends the count to the core over its socket.
        if self._options.origin.keeper_socket is None and threading.current_thread() is threading.main_thread():
            with StopSignals(self.stop) as signals:
                self.start()
                signals.wait(self._ended)
        else:
            self.start()
            self.join()

    async def serve(self) -> None:
        """Work until the end, in this loop. Cancelling it drains; cancelling it again ends at once. Raises BrokerUnavailable."""
        starting = asyncio.ensure_future(asyncio.to_thread(self.start, asyncio.get_running_loop()))
        cancelled = await self._through(starting, 0)
        if starting.exception() is None:
            cancelled += await self._through(asyncio.wrap_future(self._ended), cancelled)
        if cancelled:
            raise asyncio.CancelledError
        starting.result()

    async def _through(self, future: asyncio.Future[None], cancelled: int) -> int:
        """Wait for it to be done, whatever cancels us meanwhile; how often that was."""
        before = cancelled
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                self.stop(at_once=cancelled > 0)
                cancelled += 1
        return cancelled - before

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop(at_once=kind is not None and issubclass(kind, KeyboardInterrupt))
        self.join()

    def start(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Returns when the first look at the queue is due; isolates may still be booting. Raises BrokerUnavailable."""
        refuse_while_importing("starting a worker")
        if self._started:
            raise StemError("this worker has been started before, and runs once: make another Worker")
        self._started = True
        opened: Future[None] = Future()
        runtime = WorkerRuntime(self.app, self._options, self._bus, self._inbox, loop, self._unknown)
        threading.Thread(target=runtime.live, args=(opened, self._ended), name="stem-iso-consumer", daemon=True).start()
        opened.result()

    def stop(self, at_once: bool = False) -> None:
        """Drain: fetch no more, let what runs end until `shutdown_timeout`, then kill it and give it back. `at_once`: kill it now.

        Returns at once; from any thread, any number of times.
        """
        if not self._ended.done():
            self._inbox.put_now(StopRequested(at_once))

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end. Raises TimeoutError, InvalidOptions for more than 100 years."""
        self._ended.result(None if timeout is None else duration("timeout", timeout, strict=False))


def _check(app: Stem) -> None:
    if not hasattr(app, "registry"):
        raise TypeError(f"app: {app!r} must be a Stem: the application itself, not its name")
    app.check()
