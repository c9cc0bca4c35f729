"""In-place worker: runs what a test enqueues at once, in the test's own thread, over a real store in memory.

    test ── enqueue ──> InPlaceBroker.publish ──> store ──> InPlaceWorker.drain ── lease ─ run ─ settle ──┐
                                                              ^──── retries, links, callbacks: until nothing is ready ──┘
                                                  <── handle, when all of it has ended

Rules
 1. The store, admission, the code that runs a handler and the settlement are those of a worker. What is left out is what a worker is for:
    isolation, limits of time and memory, rates, leases that run out.
 2. A retry is due at once, whatever its strategy says. What is delayed otherwise waits for `advance`, which moves the clock.
 3. What a handler enqueues runs after it, as with one worker of one seat.
 4. In a running event loop a coroutine cannot be run on the spot: then everything runs in a thread that the caller waits for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from stem_iso.brokers.base import Broker, Delivery, Settlement, StatusRecord
from stem_iso.client.event_loop import in_loop
from stem_iso.errors import StemError, UnknownTask
from stem_iso.isolate.engine.endings import of_reply
from stem_iso.outcome import Outcome, Progress, Rejected, RetryAsked, TaskState, Unregistered
from stem_iso.task.canvas.tree import Canvas
from stem_iso.task.context_protocol import (
    ComposeRequest,
    ContextAnswer,
    EnqueueRequest,
    MetaRequest,
    ProgressRequest,
    RevokeRequest,
    decode_request,
    encode_answer,
)
from stem_iso.task.envelope import Envelope
from stem_iso.task.handler import form_of
from stem_iso.task.policy import DEFAULT_POLICY, Policy, resolve_policy
from stem_iso.task.schedule import decode_schedule, fired, plan
from stem_iso.task.settlement import settle
from stem_iso.worker.admission import opened, payload_of, refusal_of
from stem_iso.worker.child.task_runner import run_sync

if TYPE_CHECKING:
    from stem_iso.app import Stem

T = TypeVar("T")
BOOT = "in-place"
MOST = 100_000  # tasks in one drain: more is one that enqueues itself without end


class Clock:
    """Wall-clock seconds, moved by hand and by the time that passes."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


class InPlaceBroker:
    """A broker after each of whose publishings the worker runs what has come."""

    def __init__(self, broker: Broker, worker: InPlaceWorker) -> None:
        self._broker, self._worker = broker, worker

    def publish(self, envelopes: Sequence[Envelope]) -> list[str]:
        ids = self._worker.publish(envelopes)
        self._worker.drain()
        return ids

    def compose(self, canvas: Canvas) -> None:
        self._worker.compose(canvas)
        self._worker.drain()

    def replay(self, *given: Any, **options: Any) -> Any:
        replayed = self._broker.replay(*given, **options)
        self._worker.drain()
        return replayed

    def retry(self, *given: Any, **options: Any) -> Any:
        retried = self._broker.retry(*given, **options)
        self._worker.drain()
        return retried

    def run_now(self, *given: Any, **options: Any) -> Any:
        ready = self._broker.run_now(*given, **options)
        self._worker.drain()
        return ready

    def edit(self, *given: Any, **options: Any) -> Any:
        edited = self._broker.edit(*given, **options)
        self._worker.drain()
        return edited

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)


class InPlacePort:
    """The port of one attempt: what its handler asks of the broker is done at once. Not a local one: a handler meets what it would in a
    worker, and may not wait for another task, which would wait here for ever."""

    soft_deadline: float | None = None
    hard_deadline: float | None = None
    isolated = False
    in_place = True
    cpus: frozenset[int] | None = None

    def __init__(self, worker: InPlaceWorker, broker: Broker) -> None:
        self._worker, self._broker = worker, broker
        self.meta: dict[str, Any] | None = None
        self.progress: Progress | None = None
        self.raised: BaseException | None = None

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Around the handler: what it raised, as the test is to see it."""
        try:
            yield
        except BaseException as error:  # an exit or Ctrl-C too
            self.raised = error
            raise

    def send(self, payload: bytes) -> None:
        match decode_request(payload):
            case ProgressRequest(percent, data):
                self.progress = Progress(percent, data)
            case MetaRequest(meta):
                self.meta = meta
            case _:
                pass

    def request(self, payload: bytes) -> bytes:
        value: Any = None
        try:
            match decode_request(payload):
                case EnqueueRequest(envelopes):
                    value = self._worker.publish(envelopes)
                case ComposeRequest(canvas):
                    self._worker.compose(canvas)
                case RevokeRequest(id, terminate):
                    value = self._broker.revoke(id, terminate)
                case _:
                    pass  # a lease that does not run out needs no extension
        except StemError as error:
            return encode_answer(ContextAnswer(error=(type(error).__name__, str(error))))
        return encode_answer(ContextAnswer(value))

    def beat(self) -> None:
        pass  # there is no lease that it could renew


class InPlaceWorker:
    """Runs the tasks of one application. Used by one thread at a time."""

    def __init__(self, app: Stem, open: Callable[[], Broker], clock: Clock, *, raise_errors: bool) -> None:
        self._app, self._clock, self._raise = app, clock, raise_errors
        self.broker = open()
        self.sent: list[Envelope] = []
        self.ended: list[str] = []  # ids of tasks that have ended, in that order
        self._seen: dict[str, StatusRecord] = {}  # the last looks at tasks whose status may have expired since
        self._draining = False
        self._failure: BaseException | None = None
        for record in app.schedules.declared():
            self.broker.put_schedule(record)

    def publish(self, envelopes: Sequence[Envelope]) -> list[str]:
        """The ids; what a unique lock or a known id keeps out is not sent."""
        before = self.broker.status([envelope.id for envelope in envelopes])
        ids = self.broker.publish(envelopes)
        each = zip(envelopes, ids, before, strict=True)
        self.sent += [envelope for envelope, id, known in each if known is None and id == envelope.id]
        return ids

    def compose(self, canvas: Canvas) -> None:
        self.broker.compose(canvas)
        self.sent += [step.envelope for step in canvas.steps]

    def records(self, ids: Sequence[str]) -> list[StatusRecord]:
        """What is known of these tasks, or was known last; a status lasts no longer than its `result_ttl`, a test may move further."""
        wanted = list(dict.fromkeys(ids))
        for id, record in zip(wanted, self.broker.status(wanted), strict=True):
            if record is not None:
                self._seen[id] = record
        return [self._seen[id] for id in wanted if id in self._seen]

    def drain(self) -> None:
        """Run whatever is ready. Raises the first failure, if failures are to be raised."""
        if self._draining:
            return
        self._draining = True
        try:
            _beside_a_loop(self._run_ready)
        finally:
            self._draining = False
        failure, self._failure = self._failure, None
        if failure is not None and self._raise:
            raise failure

    def advance(self, seconds: float) -> None:
        """Move the clock, and run on the way what comes due: delayed tasks, and what schedules fire."""
        end = self._clock() + seconds
        self.records([envelope.id for envelope in self.sent])  # before their statuses expire
        while (due := self._next_due()) <= end:
            self._clock.offset += max(0.0, due - self._clock())
            self._fire()
            self.drain()
        self._clock.offset += max(0.0, end - self._clock())
        self.drain()

    # -- what is ready -------------------------------------------------------------------------------------------------------------

    def _queues(self) -> list[str]:
        return [count.name for count in self.broker.queues()]

    def _run_ready(self) -> None:
        for _ in range(MOST):
            deliveries = self.broker.exchange(BOOT, [], self._queues(), 1).deliveries
            if not deliveries:
                return
            self._run(deliveries[0])
        raise StemError(f"{MOST} tasks have run, and there are more: a task seems to enqueue itself without end")

    def _run(self, delivery: Delivery) -> None:
        envelope = opened(delivery.body)
        assert isinstance(envelope, Envelope)  # it was published a moment ago
        port = InPlacePort(self, self.broker)
        policy, outcome = self._outcome(envelope, delivery, port)
        planned = settle(envelope, outcome, policy, now=self._clock(), delay=0.0, meta=port.meta)
        if planned is None:
            return
        self.broker.exchange(BOOT, [Settlement(delivery.receipt, planned, port.meta, port.progress)], [], 0)
        (record,) = self.records([envelope.id])
        if record.state.terminal:
            self.ended.append(envelope.id)
        if record.state is TaskState.FAILED and self._failure is None:
            self._failure = port.raised or self._refusal(record.name, record.error)

    def _refusal(self, name: str, error: Any) -> BaseException:
        if name not in self._app.registry:
            return UnknownTask(error.message)
        return TypeError(error.message) if error.type.endswith("InvalidArguments") else StemError(f"{name}: {error.message}")

    def _outcome(self, envelope: Envelope, delivery: Delivery, port: InPlacePort) -> tuple[Policy, Outcome]:
        known = envelope.name in self._app.registry
        refusal = refusal_of(envelope, registered=known, revoked=delivery.revoked, now=self._clock(), grace=0.0)
        if not known:
            return DEFAULT_POLICY, Unregistered(grace_over=True)
        handler = self._app.registry.resolve(envelope.name)
        policy = resolve_policy(self._app.options_of(envelope.name), envelope, form_of(handler))
        if isinstance(policy, Rejected):
            return DEFAULT_POLICY, policy
        if refusal is not None:
            return policy, refusal
        sizes = self._app.broker_options
        reply = run_sync(
            self._app.entrypoint(envelope.name),
            payload_of(envelope, policy),
            port,
            max_result_bytes=sizes.max_result_bytes,
            max_payload_bytes=sizes.max_payload_bytes,
        )
        outcome = of_reply(*reply)
        return policy, RetryAsked(None, None, outcome.max_retries) if isinstance(outcome, RetryAsked) else outcome

    # -- what comes due ------------------------------------------------------------------------------------------------------------

    def _next_due(self) -> float:
        """Wall clock; inf where nothing is to come."""
        now = self._clock()
        delayed = self.broker.exchange(BOOT, [], self._queues(), 0).next_due
        planned = [plan(decode_schedule(record.body), record.due, -inf).at for record in self.broker.schedules() if not record.paused]
        return min([inf if delayed is None else now + delayed, *planned])

    def _fire(self) -> None:
        now = self._clock()
        for record in self.broker.schedules():
            schedule = decode_schedule(record.body)
            planned = plan(schedule, record.due, now)
            if not record.paused and planned.fire:
                sent = fired(schedule, planned.fire, now)
                if self.broker.fire(record, planned.due, sent):
                    for each in sent:
                        self.sent += [each] if isinstance(each, Envelope) else [step.envelope for step in each.steps]


def _beside_a_loop(work: Callable[[], None]) -> None:
    """Here, or in a thread where a loop runs here, which could not run another coroutine."""
    if not in_loop():
        work()  # outside of the `except` there: what it raises has no other error before it
        return
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # raised by whoever waits
            errors.append(error)

    thread = threading.Thread(target=copy_context().run, args=(run,))
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def args_of(envelope: Envelope) -> dict[str, Any]:
    """The arguments as they travel."""
    found: dict[str, Any] = msgspec.msgpack.decode(bytes(envelope.args))
    return found
