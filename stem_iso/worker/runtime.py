"""The parts of a running worker: built for one life of it, on the consumer's thread, and taken down there.

open    handlers, settlements, attempts ─ broker (the first look of takeover, a heartbeat) ─ engine ─ Consumer
live    Consumer.run
close   engine, inline handlers ─ the last events ─ goodbye ─ broker ─ log and signals ─ bus
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING

from stem_iso.brokers.base import Broker
from stem_iso.errors import BrokerUnavailable
from stem_iso.isolate.engine.engine import Engine
from stem_iso.isolate.interfaces import Caller, IsolateNotice
from stem_iso.task.handler import form_of
from stem_iso.task.options import Form
from stem_iso.worker.admission import HandlerCache
from stem_iso.worker.attempt import Attempt, IsolateChanged, Message, Trouble
from stem_iso.worker.attempt_port import AttemptReports
from stem_iso.worker.attempts import Attempts
from stem_iso.worker.commands import MOST_SEATS, CommandPoller
from stem_iso.worker.consumer import Consumer
from stem_iso.worker.controls import Controls
from stem_iso.worker.dispatcher import Dispatcher
from stem_iso.worker.entrypoints import EntrypointTable, boot_of, host_boot_of
from stem_iso.worker.inbox import Inbox
from stem_iso.worker.inline.runner import Around, Inline
from stem_iso.worker.intake import Intake
from stem_iso.worker.liveness import machine
from stem_iso.worker.maintenance import Chore, CountFlusher, Heartbeat, PauseReader, Recoverer, Sweeper
from stem_iso.worker.options import WorkerOptions
from stem_iso.worker.pending_settlements import PendingSettlements
from stem_iso.worker.reporting.bus import Bus
from stem_iso.worker.reporting.events import EventEmitter
from stem_iso.worker.reporting.log import LogSubscriber
from stem_iso.worker.reporting.log_output import set_level
from stem_iso.worker.reporting.start_report import start_report
from stem_iso.worker.scheduler import Scheduler
from stem_iso.worker.takeover import Takeover
from stem_iso.worker.vitals import Figures
from stem_iso.worker.worker_record import WorkerRecord

if TYPE_CHECKING:
    from stem_iso.app import Stem

log = logging.getLogger("stem_iso.worker")


class OwnProcess(Around):
    """What inline handlers share with an embedded worker: the interpreter lock, and so its leases."""

    def __init__(self, inbox: Inbox[Message]) -> None:
        self._inbox = inbox

    def trouble(self, text: str, traceback: str) -> None:
        self._inbox.put_now(Trouble(text, traceback))

    def held(self, callers: list[Caller], late: float) -> None:
        for caller in callers:
            if isinstance(caller, Attempt):
                text = f"held up this process for {late:.1f} s, longer than a third of the shortest lease: declare it isolated"
                self._inbox.put_now(Trouble(f"the inline handler {caller.envelope.name!r} {text}", "", caller))


class WorkerRuntime:
    """One life of one worker."""

    def __init__(
        self, app: Stem, options: WorkerOptions, bus: Bus, inbox: Inbox[Message], loop: asyncio.AbstractEventLoop | None, unknown: set[str]
    ) -> None:
        """`unknown` as of `Attempts`."""
        self._app, self._options, self._bus, self._inbox = app, options, bus, inbox
        self._unknown = unknown
        self._events = EventEmitter(options.id, bus, app.signals)
        self._logged = LogSubscriber(bus, options.id, by_command=options.origin.keeper_socket is not None)
        self._broker = app.open_broker()
        sizes = self._broker.options
        inline = Inline(
            loop=loop,
            max_result_bytes=sizes.max_result_bytes,
            max_payload_bytes=sizes.max_payload_bytes,
            around=OwnProcess(inbox),
        )
        self._hosts = Dispatcher(self._make_engine, inline)
        self._started_at = time.time()
        self._machine = machine()
        self._intake = Intake(options.queues, options.seats)
        self._beat: Heartbeat | None = None
        self._counts: CountFlusher | None = None
        self._launcher = os.getppid() if options.origin.keeper_socket is not None else None

    def live(self, opened: Future[None], ended: Future[None]) -> None:
        """The consumer's thread. `opened` is done when the first look at the queue is due, or says why there will be none."""
        try:
            consumer = self._open()
        except BaseException as error:  # raised by whoever waits for `opened`
            self._close()
            ended.set_result(None)
            opened.set_exception(error)
        else:
            opened.set_result(None)
            self._run(consumer, ended)

    def _run(self, consumer: Consumer, ended: Future[None]) -> None:
        try:
            consumer.run()
        except BaseException as error:  # user code can raise SystemExit into a turn; the worker ends, and says why
            log.exception("the worker failed")
            self._close()
            ended.set_exception(error)
        else:
            self._close()
            ended.set_result(None)

    def _open(self) -> Consumer:
        options, broker = self._options, self._broker
        self._app.middleware.observe(self._app.signals)
        scheduler = Scheduler(self._app.schedules.declared(), self._app.schedules.owner(), self._events)
        middleware = self._app.middleware
        settlements = PendingSettlements(self._events, options.retry_strategy, broker.options, options.burst, middleware)
        port = AttemptReports(self._inbox, self._events, self._logged.output)
        by_command = options.origin.keeper_socket is not None
        handlers = HandlerCache(self._app, EntrypointTable(self._app, self._logged.observed_in_isolates), hosted=by_command)
        attempts = Attempts(
            *(port, handlers, self._hosts, settlements, self._events),
            intake=self._intake,
            grace=options.unregistered_grace,
            record_changed=lambda: beat.soon(),
            unknown=self._unknown,
        )
        recoverer = Recoverer(options, broker.options.claim_interval, self._events, attempts.leases.held())
        takeover = Takeover(options, self._machine, recoverer)
        takeover.run(broker, time.monotonic())
        beat = self._beat = Heartbeat(self._record(broker, attempts).describe)
        pauses = PauseReader(self._intake)
        pauses.run(broker, time.monotonic())  # before the first exchange; a pause from now on is told by a command
        beat.run(broker, time.monotonic())  # where the broker cannot be reached, nothing is started; who is seen outlasts an outage
        if by_command or any(form_of(handler) is Form.ISOLATED for handler in self._app.registry):
            self._hosts.start_engine()
        self._logged.started(start_report(self._app, options, broker.url))
        self._events.signals.ready(options, broker.url)
        commands, counts = self._commands(pauses, beat), CountFlusher(self._events.counters, attempts.count_begun)
        self._counts = counts
        options.origin.vitals.opened(Figures(self._events.counters.totals, self._hosts.isolate_states))
        chores: list[Chore] = [beat, pauses, counts, Sweeper()]
        return Consumer(options, broker, self._inbox, attempts, self._events, scheduler, recoverer, takeover, commands, chores)

    def _record(self, broker: Broker, attempts: Attempts) -> WorkerRecord:
        return WorkerRecord(
            *(self._options, attempts, self._hosts),
            broker=broker.url,
            machine=self._machine,
            started_at=self._started_at,
            launcher=self._launcher,
        )

    def _commands(self, pauses: PauseReader, beat: Heartbeat) -> CommandPoller:
        controls = Controls(
            *(self._intake, pauses, self._hosts, self._inbox, self._events),
            launcher=self._launcher,
            set_log_level=self._set_log_level,
            changed=beat.soon,
        )
        most = max(1, MOST_SEATS - self._options.spares)
        return CommandPoller(self._options.id, self._started_at, most, controls.carry_out)

    def _set_log_level(self, name: str) -> None:
        level = logging.getLevelNamesMapping()[name.upper()]
        set_level(level)
        self._logged.renew()
        self._hosts.set_log_level(level)

    def _close(self) -> None:
        self._hosts.close()
        with suppress(BrokerUnavailable):
            self._events.forward(self._broker)
            if self._counts is not None:
                self._counts.flush(self._broker)
            self._broker.remove_worker(self._options.id)
        self._broker.close()
        self._inbox.close()
        self._logged.stopped()
        self._events.signals.shutdown()
        self._bus.close()

    def _make_engine(self) -> Engine:
        options = self._options
        if self._beat is not None:
            self._beat.soon()  # there is a keeper from now on, which may outlive this process for an instant
        boot = boot_of(self._app, options.secrets, self._broker.options)
        return Engine(
            boot,
            size=self._intake.seats,
            spares=options.spares,
            max_calls=options.max_calls,
            max_memory=options.max_memory,
            host=host_boot_of(self._app, boot) if options.origin.keeper_socket is not None else None,
            on_isolate=self._isolate_changed,
            on_keeper=options.origin.on_keeper,
            keeper_socket=options.origin.keeper_socket,
        )

    # -- on other threads ----------------------------------------------------------------------------------------------------------

    def _isolate_changed(self, notice: IsolateNotice) -> None:
        self._inbox.put_now(IsolateChanged(notice))
