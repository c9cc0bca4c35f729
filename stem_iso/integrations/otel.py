"""OpenTelemetry: a span for each publish and for each attempt, in one trace (extra `otel`).

    producer   span "publish NAME" ── headers["traceparent"] ──> envelope
    handler    span "run NAME", child of the publish, current while the handler runs; linked to the attempt before it
    core       the same span, with the same id, where the handler's process was killed or died

    app.middleware.add(OtelMiddleware())          at the top of the module that `-A` names, after the provider was set

Rules
 1. The id of an attempt's span is computed from task, run and attempt. So the next attempt links to it, wherever that one ran, and the core
    can end the span of a process that is gone, below which the spans that the handler ended stand already. Where the producer has no
    `OtelMiddleware`, or a schedule is the producer, the trace's id is computed from the task's.
 2. An attempt that is given back and begins again is the same attempt: what was killed of it has no span, and its next beginning has.
 3. A batch, and a canvas, is one publish, and all its tasks are children of that one span.
 4. An isolate may be killed at any later moment, so spans are flushed at the end of each isolated attempt: `flush` seconds at most, 0 not
    at all. They count against the task's limits. Elsewhere the provider's own pace holds; the core flushes when the worker ends.
 5. Ids can be chosen with the SDK's provider alone. With another one, spans have its ids, and no links.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from stem_iso import validation
from stem_iso.outcome import TaskError
from stem_iso.task.context import RetryRequested, TaskContext
from stem_iso.task.envelope import Envelope

try:
    from opentelemetry import context as otel_context
    from opentelemetry import propagate, trace
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
except ImportError as error:
    raise ImportError("stem_iso.integrations.otel needs OpenTelemetry's SDK: pip install 'stem_iso[otel]'") from error

if TYPE_CHECKING:
    from stem_iso.signals import Signals, TaskFailedSignal, TaskPostrunSignal, TaskRetrySignal, WorkerShutdownSignal

log = logging.getLogger("stem_iso.otel")

SCOPE = "stem_iso"
FLUSH = 2.0  # seconds

Publish = Callable[[Sequence[Envelope]], list[str]]


class OtelMiddleware:
    """`app.middleware.add(OtelMiddleware())`. `tracer_provider`: None is the global one, looked up when a span begins.

    `flush`: how many seconds the end of an isolated attempt may wait until its spans are exported; 0: it does not wait.
    Raises InvalidOptions.
    """

    def __init__(self, tracer_provider: trace.TracerProvider | None = None, *, flush: float = FLUSH) -> None:
        self._provider = tracer_provider
        self._flush = validation.delay("flush", flush)
        self._known: trace.Tracer | None = None  # the SDK's
        self._tracer()  # the first look puts a filter of warnings into the process, which no task is to be blamed for
        self._last: tuple[str, TaskError | None] | None = None  # (task, error) of the newest end; owned by the thread of signals

    # -- where it is enqueued --------------------------------------------------------------------------------------------------------

    def enqueue(self, envelopes: Sequence[Envelope], call_next: Publish) -> list[str]:
        """A span around the publish, and its place in the headers of each envelope."""
        if not envelopes:
            return call_next(envelopes)
        names = {each.name for each in envelopes}
        name = f"publish {names.pop()}" if len(names) == 1 else "publish batch"
        attributes: dict[str, Any] = {"messaging.system": SCOPE, "messaging.operation.type": "send"}
        if len(envelopes) == 1:
            attributes |= _attributes(envelopes[0].id, envelopes[0].name, envelopes[0].queue)
        else:
            attributes["messaging.batch.message_count"] = len(envelopes)
        parent = None if trace.get_current_span().get_span_context().is_valid else _extracted(envelopes[0].headers)
        tracer = self._tracer()
        with tracer.start_as_current_span(name, parent, SpanKind.PRODUCER, attributes):
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            return call_next([msgspec.structs.replace(each, headers={**each.headers, **carrier}) for each in envelopes])

    # -- where the handler runs ------------------------------------------------------------------------------------------------------

    @contextmanager
    def around(self, context: TaskContext) -> Iterator[None]:
        """The attempt's span, current while the handler runs."""
        attempt = _Attempt(context.id, context.name, context.queue, context.run, context.attempt, context.header.worker_id)
        span = self._started(attempt, context.headers, None)
        token = otel_context.attach(trace.set_span_in_context(span, _extracted(context.headers)))
        try:
            yield
        except RetryRequested:
            span.add_event("retry requested")
            raise
        except BaseException as error:  # whatever ends it is the span's, and the worker's
            span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {_text(error)}"))
            raise
        finally:
            otel_context.detach(token)
            span.end()
            if context.isolated:
                self._flushed()

    # -- in the core -----------------------------------------------------------------------------------------------------------------

    def observe(self, signals: Signals) -> None:
        signals.task_failed.connect(self.attempt_failed)
        signals.task_retry.connect(self.attempt_failed)
        signals.task_postrun.connect(self.task_postrun)
        signals.worker_shutdown.connect(self.worker_shutdown)

    def attempt_failed(self, value: TaskFailedSignal | TaskRetrySignal) -> None:
        self._last = value.task_id, value.error

    def task_postrun(self, value: TaskPostrunSignal) -> None:
        """The span of an attempt whose process is gone."""
        last, self._last = self._last, None
        if not value.killed or value.state == "queued":
            return
        error = last[1] if last is not None and last[0] == value.task_id else None
        ended = round(value.at * 1e9)
        attempt = _Attempt(value.task_id, value.name, value.queue, value.run, value.attempt, value.worker_id)
        span = self._started(attempt, value.headers, ended - round(value.elapsed * 1e9))
        if error is not None:
            shown = {"exception.type": error.type, "exception.message": error.message, "exception.stacktrace": error.stack}
            span.add_event("exception", shown, timestamp=ended)
        description = f"{error.type.rpartition('.')[2]}: {error.message}" if error is not None else value.reason or "killed"
        span.set_status(Status(StatusCode.ERROR, description))
        span.end(ended)

    def worker_shutdown(self, value: WorkerShutdownSignal) -> None:
        self._flushed()

    # -- with the provider -----------------------------------------------------------------------------------------------------------

    def _tracer(self) -> trace.Tracer:
        if self._known is None:
            tracer = trace.get_tracer(SCOPE, tracer_provider=self._provider)
            if not _chooses_ids(tracer):
                return tracer  # there may be another provider next time
            self._known = tracer
        return self._known

    def _started(self, attempt: _Attempt, headers: Mapping[str, Any], start: int | None) -> trace.Span:
        """`start` is nanoseconds since the epoch; None: this instant."""
        tracer, parent = self._tracer(), _extracted(headers)
        publish = trace.get_current_span(parent).get_span_context()
        trace_id = publish.trace_id if publish.is_valid else attempt.trace_id
        links = []
        if _chooses_ids(tracer) and attempt.attempt > 0:
            before = attempt.before().span_id
            links.append(
                Link(SpanContext(trace_id, before, is_remote=True, trace_flags=TraceFlags(publish.trace_flags or TraceFlags.SAMPLED)))
            )
        token = _ids.set((trace_id, attempt.span_id))
        try:
            return tracer.start_span(f"run {attempt.name}", parent, SpanKind.CONSUMER, attempt.attributes(), links, start)
        finally:
            _ids.reset(token)

    def _flushed(self) -> None:
        flush = getattr(self._provider or trace.get_tracer_provider(), "force_flush", None)
        if flush is None or not self._flush:
            return
        try:
            flush(round(self._flush * 1000))
        except Exception:  # of an exporter: spans are lost, the task is not
            log.warning("the spans could not be flushed", exc_info=True)


class _Attempt(msgspec.Struct, frozen=True):
    id: str
    name: str
    queue: str
    run: int
    attempt: int
    worker_id: str

    @property
    def span_id(self) -> int:
        return _hashed(f"{self.id} {self.run}.{self.attempt}", 8)

    @property
    def trace_id(self) -> int:
        """Of an attempt that nobody's publish leads to."""
        return _hashed(self.id, 16)

    def before(self) -> _Attempt:
        return msgspec.structs.replace(self, attempt=self.attempt - 1)

    def attributes(self) -> dict[str, Any]:
        found = _attributes(self.id, self.name, self.queue)
        own = {"stem_iso.run": self.run, "stem_iso.attempt": self.attempt, "stem_iso.worker": self.worker_id}
        return {**found, **own, "messaging.system": SCOPE, "messaging.operation.type": "process"}


def _attributes(id: str, name: str, queue: str) -> dict[str, Any]:
    return {"messaging.message.id": id, "messaging.destination.name": queue, "stem_iso.task": name}


def _hashed(text: str, size: int) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=size).digest(), "big") or 1  # 0 is no id


def _extracted(headers: Mapping[str, Any]) -> otel_context.Context:
    """The context that travelled, and nothing of what is current here; headers that are no text are somebody else's."""
    carrier = {name: value for name, value in headers.items() if isinstance(value, str)}
    return propagate.extract(carrier, context=otel_context.Context())


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # user code
        return "<its text could not be made>"


# -- ids -------------------------------------------------------------------------------------------------------------------------------

_ids: ContextVar[tuple[int, int] | None] = ContextVar("stem_iso.otel.ids", default=None)  # (trace, span) of the span that begins


class _ChosenIds(IdGenerator):
    """The provider's own generator, but for the span that `_ids` names."""

    def __init__(self, usual: IdGenerator) -> None:
        self._usual = usual

    def generate_span_id(self) -> int:
        ids = _ids.get()
        return self._usual.generate_span_id() if ids is None else ids[1]

    def generate_trace_id(self) -> int:
        ids = _ids.get()
        return self._usual.generate_trace_id() if ids is None else ids[0]

    def is_trace_id_random(self) -> bool:
        usual = getattr(self._usual, "is_trace_id_random", None)  # of newer SDKs
        return usual is not None and _ids.get() is None and bool(usual())


def _chooses_ids(tracer: trace.Tracer) -> bool:
    """Have this tracer, which no other library has, use chosen ids. False where it is not the SDK's."""
    known = getattr(tracer, "id_generator", None)
    if known is None:
        return False
    if not isinstance(known, _ChosenIds):
        tracer.id_generator = _ChosenIds(known)
    return True
