"""An application with Sentry and OpenTelemetry, whose transport and exporter write to files: one JSON line for each event and each span.

Nothing of an isolate reaches the files before it is flushed: a flush that is forgotten is a line that is missing.
"""

from __future__ import annotations

import ctypes
import json
import os
import time
from collections.abc import Sequence
from typing import Any

import sentry_sdk
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from stem_iso import Stem, TaskContext
from stem_iso.integrations.otel import OtelMiddleware
from stem_iso.integrations.sentry import StemIntegration
from tests.worker import handlers
from tests.worker.conftest import QuickRetries

FOLDER = os.environ.get("STEM_ISO_TEST_REPORTS", "")


def write(name: str, line: dict[str, Any]) -> None:
    ledger = os.open(os.path.join(FOLDER, name), os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(ledger, json.dumps({"pid": os.getpid(), **line}, default=str).encode() + b"\n")
    os.close(ledger)


class FileTransport(Transport):
    def __init__(self) -> None:
        super().__init__({"dsn": None})
        self.held: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        event: Any = envelope.get_event()
        if event is not None:
            self.held.append(event)
            if event["transaction"].startswith("inline.async"):  # its loop cannot wait
                self.flush(0)

    def flush(self, timeout: float, callback: Any | None = None) -> None:
        while self.held:
            write("events", self.held.pop(0))


class FileExporter(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            write("spans", json.loads(span.to_json(indent=None)))
        return SpanExportResult.SUCCESS


class Processor(BatchSpanProcessor):
    def on_end(self, span: ReadableSpan) -> None:
        super().on_end(span)
        if "inline" in span.name or "publish" in span.name:
            self.force_flush()

    def shutdown(self) -> None:
        """Exports nothing: as where the process is killed."""


if FOLDER:
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        transport=FileTransport(),
        integrations=[StemIntegration(retries=bool(os.environ.get("STEM_ISO_TEST_RETRIES")))],
    )
    provider = TracerProvider()
    provider.add_span_processor(Processor(FileExporter(), schedule_delay_millis=600_000))
    trace.set_tracer_provider(provider)

app = Stem(os.environ.get("STEM_ISO_TEST_BROKER", "sqlite:///errors.db"), default_visibility_timeout=30)
app.middleware.add(OtelMiddleware())


@app.task(name="isolated.error", isolate=True, max_retries=2, retry_strategy=QuickRetries())
def isolated_error(context: TaskContext, price: int) -> None:
    discount = price // 2
    sentry_sdk.set_tag("customer", "c-1")
    raise ValueError(f"no discount of {discount} in attempt {context.attempt}")


@app.task(name="isolated.refused", isolate=True, max_retries=2, retry_for=(KeyError,), retry_strategy=QuickRetries())
def isolated_refused() -> None:
    raise ValueError("not worth another attempt")


@app.task(name="inline.error", max_retries=1, retry_strategy=QuickRetries())
def inline_error(context: TaskContext) -> None:
    raise LookupError(f"inline {context.attempt}")


@app.task(name="inline.async", max_retries=0)
async def inline_async() -> None:
    raise LookupError("async")


@app.task(name="inline.async.stuck", max_retries=0, hard_time_limit=1)
async def inline_async_stuck() -> None:
    import asyncio

    await asyncio.sleep(3600)


def crunch(gate: int) -> None:
    while True:
        time.sleep(60)


@app.task(name="isolated.stuck", isolate=True, hard_time_limit=2, max_retries=1, retry_strategy=QuickRetries())
def isolated_stuck() -> None:
    with trace.get_tracer("shop").start_as_current_span("inline part"):
        pass
    crunch(1)


@app.task(name="isolated.segfault", isolate=True, max_retries=0)
def isolated_segfault() -> None:
    ctypes.string_at(0)


app.task(name="isolated.hog", isolate=True, memory_limit="150MiB", max_retries=0)(handlers.devour)


@app.task(name="isolated.mixed", isolate=True, max_retries=1, retry_strategy=QuickRetries())
def isolated_mixed(context: TaskContext) -> None:
    if context.attempt == 0:
        os._exit(7)
    raise ValueError("and then it raised")


@app.task(name="isolated.result", isolate=True, max_retries=0)
def isolated_result() -> object:
    return object()


@app.task(name="isolated.asked", isolate=True, max_retries=1, retry_strategy=QuickRetries())
def isolated_asked(context: TaskContext) -> None:
    try:
        raise ConnectionError("away")
    except ConnectionError:
        context.retry(countdown=0)


@app.task(name="isolated.fine", isolate=True)
def isolated_fine() -> int:
    isolated_child.enqueue()
    return 1


@app.task(name="isolated.child", isolate=True)
def isolated_child() -> int:
    return 2
