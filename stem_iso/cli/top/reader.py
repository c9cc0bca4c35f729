"""Reader: the thread that asks the broker once a second, and the one that listens to events.

    run ──> read ── workers, queues, failed tasks ──> Snapshot ──┐
      └── the broker does not answer ──────────────> Away ──────┴──> show
    listen ── time-outs, failures ──> a queue ──> the next read

Rules
 1. Only these two threads ask the broker, each by a connection of its own; whoever shows what they find never waits for them.
 2. What takes long is asked for more rarely: a turn takes at most half of the time, the queues (there may be thousands) a twentieth of it,
    the list of failed tasks a hundredth. `soon` is for what somebody has just changed.
 3. Where there is no worker there are no events, so nobody listens: on SQLite that would make a file.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from stem_iso.cli.top.recent import MOST, WANTED, Recent
from stem_iso.cli.top.snapshot import Away, RunningTask, SeenWorker, Snapshot, unplaced
from stem_iso.client.event_stream import decoded_event
from stem_iso.errors import BrokerUnavailable, StemError
from stem_iso.outcome import TaskState

if TYPE_CHECKING:
    from stem_iso.app import Stem
    from stem_iso.brokers.base import Broker, EventWatch, WorkerInfo
    from stem_iso.client.queue_stats import QueueStats
    from stem_iso.events import AnyEvent

EVERY = 1.0  # seconds between two looks
STANDING_EVERY = 5.0  # seconds between two looks at whether what failed still stands so
LIST_EVERY, LIST_SHARE = 15.0, 0.01  # seconds between two lists of failed tasks, and the share of the time that these may take
LISTEN_PAUSE = 0.25  # seconds: a flood of events is taken in gulps, not one by one
QUEUES_SHARE = 0.05
LISTED = 50
MOST_RUNNING = 100


class Reader:
    """`place` is the broker for people. One thread at a time calls `read`, or `run`."""

    def __init__(self, app: Stem, place: str) -> None:
        self._app, self._place = app, place
        self._stopping, self._changed, self._awake = threading.Event(), threading.Event(), threading.Event()
        self._events: SimpleQueue[AnyEvent] = SimpleQueue()
        self._note = ""  # set by the thread that listens, read by the other
        self._threads: list[threading.Thread] = []
        # The rest is owned by the thread that reads.
        self._recent = Recent()
        self._queues: list[QueueStats] = []
        self._queues_at = 0.0  # wall clock
        self._queues_due, self._list_due, self._standing_due = 0.0, 0.0, 0.0
        self._running: dict[str, RunningTask] = {}
        self._listening = False

    # -- read ----------------------------------------------------------------------------------------------------------------------

    def read(self) -> Snapshot:
        """Raises BrokerUnavailable, and other StemErrors where what is stored cannot be read."""
        with self._app.broker_pool.borrow() as broker:
            workers = broker.workers()
            self._look_at_running(broker, workers)
        seen = [SeenWorker(info=worker, silent_for=worker.silent_for) for worker in workers]
        self._look_at_queues()
        self._take_events()
        self._look_at_failures()
        return Snapshot(
            at=time.time(),
            place=self._place,
            workers=seen,
            running=self._running,
            queues=self._queues,
            queues_at=self._queues_at,
            time_outs=self._recent.time_outs(),
            failures=self._recent.failures(),
            note=self._note or self._missing(),
        )

    def _look_at_running(self, broker: Broker, workers: Iterable[WorkerInfo]) -> None:
        """What the tasks are that no isolate names, MOST_RUNNING new ones at a time."""
        ids = [id for worker in workers for id in unplaced(worker)]
        self._running = {id: self._running[id] for id in ids if id in self._running}
        if new := [id for id in ids if id not in self._running][:MOST_RUNNING]:
            for record in broker.status(new):
                if record is not None:
                    self._running[record.id] = RunningTask(record.name, record.queue, record.started_at)

    def _look_at_queues(self) -> None:
        began = time.monotonic()
        if began >= self._queues_due or self._changed.is_set():
            self._changed.clear()
            self._queues, self._queues_at = self._app.queue_stats(), time.time()
            self._queues_due = began + (time.monotonic() - began) / QUEUES_SHARE

    def _missing(self) -> str:
        path = self._place.removeprefix("sqlite:///")
        absent = path != self._place and not os.path.exists(path)
        return "there is no such database yet; the first enqueue, or a worker, makes it" if absent else ""

    def _take_events(self) -> None:
        with suppress(Empty):
            while True:
                self._recent.on_event(self._events.get_nowait())

    def _look_at_failures(self) -> None:
        began = time.monotonic()
        if began >= self._list_due:
            self._recent.on_failed(self._app.list_tasks(state="failed", limit=LISTED).tasks)
            now = time.monotonic()
            self._list_due = now + max(LIST_EVERY, (now - began) / LIST_SHARE)
        if began >= self._standing_due and (ids := self._recent.standing()):
            with self._app.broker_pool.borrow() as broker:
                records = broker.status(ids)
            failed = {record.id for record in records if record is not None and record.state is TaskState.FAILED}
            self._recent.drop(set(ids) - failed)
            self._standing_due = began + STANDING_EVERY

    # -- run -----------------------------------------------------------------------------------------------------------------------

    def start(self, show: Callable[[Snapshot | Away], None]) -> None:
        """`show` is called by another thread."""
        self._start(lambda: self._run(show), "stem_iso: top")

    def soon(self) -> None:
        """Look at once, at the queues too. From any thread."""
        self._changed.set()
        self._awake.set()

    def stop(self, wait: float = 0.5) -> None:
        """A thread that hangs in a broker is left to the end of the process."""
        self._stopping.set()
        self._awake.set()
        for thread in self._threads:
            thread.join(wait)

    def _start(self, run: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, show: Callable[[Snapshot | Away], None]) -> None:
        heard_at = time.time()
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                snapshot = self.read()
            except Exception as error:  # whatever it is: a view that stands still without a word would be believed
                show(Away(heard_at, str(error) if isinstance(error, StemError) else repr(error)))
            else:
                heard_at = snapshot.at
                show(snapshot)
                if snapshot.workers and not self._listening:
                    self._listening = True
                    self._start(self._listen, "stem_iso: top, events")
            took = time.monotonic() - began
            self._awake.wait(max(EVERY - took, took))
            self._awake.clear()

    # -- listen --------------------------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        broker: Broker | None = None
        while not self._stopping.is_set():
            try:
                broker = broker or self._app.open_broker()
                watch = broker.watch_events()
                try:
                    self._note = ""
                    self._follow(watch)
                finally:
                    watch.close()
            except StemError as error:
                self._note = f"no events, so time-outs come late or not at all: {error}"
                self._stopping.wait(EVERY)
        if broker is not None:
            with suppress(BrokerUnavailable):
                broker.close()

    def _follow(self, watch: EventWatch) -> None:
        while not self._stopping.is_set():
            try:
                self._put(watch.poll(EVERY))
            except TimeoutError:  # the broker is away, which the other thread says
                continue
            self._stopping.wait(LISTEN_PAUSE)

    def _put(self, bodies: Iterable[bytes]) -> None:
        wanted = [body for body in bodies if any(word in body for word in WANTED)][-2 * MOST :]
        for body in wanted:
            if (event := decoded_event(body)) is not None:
                self._events.put(event)
