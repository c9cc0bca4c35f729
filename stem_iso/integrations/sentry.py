"""Sentry: what becomes of failed attempts there (extra `sentry`).

    isolate, inline host    handler raises ── last attempt? ── event, from the exception itself ── flush ── context.reported() ──> core
    core                    task_failed, not reported ── event, from the error's text: time-out, crash, memory, bad arguments, …
                            retry ── the error goes into a header of the next attempt, which makes a breadcrumb of it

    sentry_sdk.init(dsn, integrations=[StemIntegration()])      or      app.middleware.add(SentryMiddleware())

Both stand at the top of the module that `-A` names, so that core, inline host and each isolate have them.

Rules
 1. One event for a task that failed, from its last attempt. `retries=True`: one for each attempt that failed.
 2. The process that has the exception sends it: only there are its frames with their local variables, and the scope that the handler
    filled. Whether the attempt is the last one is decided there too, by the function that the core uses: what it needs (`max_retries`,
    `retry_for`, `dont_retry_for`) comes with the call. An event that is handed to the core instead would have to pass the SDK's hooks in
    one process and its transport in another.
 3. The flush comes before the reply, so that an isolate that is recycled or killed afterwards takes nothing with it. It waits `FLUSH`
    seconds at most, and counts against the task's limits. A coroutine inline is sent without it: nothing may hold up its loop.
 4. What no handler saw is sent by the core, and so is what was raised beside the handler (arguments that cannot be made, a result that
    cannot be stored), and all of a process in which Sentry is not set up: whatever comes without `reported`. An attempt that is killed
    during its flush may be sent twice.
 5. What failed because a part before it did (a chain's next link, the end of a chord) is no event: the part is.
 6. The logger `stem_iso.worker` is ignored by Sentry: each failure is logged there too, and so is what handlers log.
 7. What a task redacts is "***" in whatever is sent while its handler runs, under its own name. The local variables of this library's own
    frames are sent in no event of the process, that of a wrong call in a producer included (`sentry_redaction`).
 8. Without a DSN (and without a transport) nothing happens. Nothing here raises into a task but the import of a missing SDK.
"""

from __future__ import annotations

import asyncio
import linecache
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from stem_iso.client.event_loop import in_loop
from stem_iso.outcome import TaskError
from stem_iso.task.canvas.tree import LINK_FAILED, MEMBER_FAILED
from stem_iso.task.context import RetryRequested, TaskContext
from stem_iso.task.envelope import Envelope
from stem_iso.task.failure import below_library, failed
from stem_iso.task.middleware import MiddlewareStack

try:
    import sentry_sdk
    from sentry_sdk.integrations import Integration
    from sentry_sdk.integrations.logging import ignore_logger
    from sentry_sdk.scope import add_global_event_processor, global_event_processors
    from sentry_sdk.utils import event_from_exception
except ImportError as error:
    raise ImportError("stem_iso.integrations.sentry needs sentry-sdk 2: pip install 'stem_iso[sentry]'") from error

from stem_iso.integrations.last_attempt import tried_again
from stem_iso.integrations.sentry_redaction import OWN_CRUMB, Redaction, add_hooks, without_own_variables
from stem_iso.integrations.stack_frames import StackFrame, stack_frames

if TYPE_CHECKING:
    from stem_iso.signals import Signals, TaskFailedSignal, TaskRetrySignal, WorkerShutdownSignal

EARLIER = "stem_iso.sentry"  # the header with the errors of earlier attempts: [attempt, at, type, message]
MOST_EARLIER, MESSAGE = 20, 200  # so many, and so many characters of each: a header travels with every attempt
FLUSH = 2.0  # seconds
SOURCE = 5  # lines before and after
LOGGER = "stem_iso.worker"
MECHANISM = {"type": "stem_iso", "handled": False}


class StemIntegration(Integration):
    """`sentry_sdk.init(integrations=[StemIntegration()])`: for every application of this process, without a middleware beside it.

    `retries`: an attempt that is tried again is an event too, and not only a breadcrumb of the last one.
    """

    identifier = "stem_iso"

    def __init__(self, retries: bool = False) -> None:
        self.retries = retries

    @staticmethod
    def setup_once() -> None:
        MiddlewareStack.add_everywhere(SentryMiddleware(_by_integration=True))

    def setup_once_with_options(self, options: dict[str, Any] | None = None) -> None:
        if options is not None:
            add_hooks(options, _redaction)


class SentryMiddleware:
    """`app.middleware.add(SentryMiddleware())`: for one application. `retries` as in StemIntegration."""

    def __init__(self, retries: bool = False, *, _by_integration: bool = False) -> None:
        self._retries, self._by_integration = retries, _by_integration
        ignore_logger(LOGGER)
        if without_own_variables not in global_event_processors:
            add_global_event_processor(without_own_variables)

    # -- where the handler runs ------------------------------------------------------------------------------------------------------

    @contextmanager
    def around(self, context: TaskContext) -> Iterator[None]:
        """A scope of the attempt's own; and the event, where the handler raises."""
        client = self._client()
        if client is None:
            yield
            return
        add_hooks(client.options, _redaction)
        with sentry_sdk.isolation_scope() as scope:
            _describe(scope, _tags(context.name, context.queue, context.attempt, context.header.worker_id, context.id), context.headers)
            scope.set_context("stem_iso", {"id": context.id, "run": context.run, "max_retries": context.max_retries})
            if context.header.redact:
                scope.add_event_processor(Redaction(context.header.redact))
            try:
                yield
            except BaseException as error:  # whatever ends it, the worker is to have it
                raised = self._to_send(error, context)
                if raised is not None:
                    self._send(raised, context)
                raise

    def _to_send(self, error: BaseException, context: TaskContext) -> BaseException | None:
        """The exception that makes an event now, if one does."""
        if isinstance(error, asyncio.CancelledError) and _stopped_from_outside():
            return None  # by a limit or a stop, which the core knows
        if tried_again(error, context) and not self._sends_retries():
            return None
        return error.__context__ if isinstance(error, RetryRequested) else error  # without one, the core says that a retry was asked for

    def _send(self, error: BaseException, context: TaskContext) -> None:
        client = self._client()
        if client is None:
            return
        exc_info = (type(error), error, below_library(error.__traceback__))
        event, hint = event_from_exception(exc_info, client_options=client.options, mechanism=MECHANISM)
        event["fingerprint"] = [context.name, failed(error, context.main).error.type]
        sentry_sdk.capture_event(event, hint=hint)
        if not in_loop():
            client.flush(timeout=FLUSH)
        context.reported()

    # -- in the core -----------------------------------------------------------------------------------------------------------------

    def retry(self, envelope: Envelope, error: TaskError) -> Envelope:
        """The envelope with this error among those of earlier attempts."""
        if self._client() is None:
            return envelope
        this = [envelope.attempt - 1, time.time(), error.type, error.message[:MESSAGE]]
        earlier = [*_earlier(envelope.headers), this][-MOST_EARLIER:]
        return msgspec.structs.replace(envelope, headers={**envelope.headers, EARLIER: earlier})

    def observe(self, signals: Signals) -> None:
        signals.task_failed.connect(self.task_failed)
        signals.task_retry.connect(self.task_retry)
        signals.worker_shutdown.connect(self.worker_shutdown)

    def task_failed(self, value: TaskFailedSignal) -> None:
        if value.reason not in (LINK_FAILED, MEMBER_FAILED):
            self._send_of_core(value)

    def task_retry(self, value: TaskRetrySignal) -> None:
        if self._sends_retries():
            self._send_of_core(value)

    def worker_shutdown(self, value: WorkerShutdownSignal) -> None:
        client = self._client()
        if client is not None:
            client.flush(timeout=FLUSH)

    def _send_of_core(self, value: TaskFailedSignal | TaskRetrySignal) -> None:
        if value.reported or self._client() is None:
            return
        error = value.error or TaskError(type=value.reason, message=f"the task ended: {value.reason}")
        with sentry_sdk.isolation_scope() as scope:
            _describe(scope, _tags(value.name, value.queue, value.attempt, value.worker_id, value.task_id), value.headers)
            scope.set_context("stem_iso", {"id": value.task_id, "run": value.run, "reason": value.reason})
            event: Any = {"level": "error", "exception": {"values": [_exception(error)]}, "fingerprint": [value.name, error.type]}
            sentry_sdk.capture_event(event)

    # -- what is set up --------------------------------------------------------------------------------------------------------------

    def _client(self) -> Any:
        """None where nothing can be sent."""
        client = sentry_sdk.get_client()
        if not client.is_active() or client.transport is None:
            return None
        if self._by_integration and client.get_integration(StemIntegration) is None:
            return None  # Sentry was set up again, without it
        return client

    def _sends_retries(self) -> bool:
        integration = sentry_sdk.get_client().get_integration(StemIntegration)
        return self._retries or (isinstance(integration, StemIntegration) and integration.retries)


def _tags(name: str, queue: str, attempt: int, worker_id: str, task_id: str) -> dict[str, str]:
    return {"task": name, "queue": queue, "attempt": str(attempt), "worker": worker_id, "task_id": task_id}


def _describe(scope: Any, tags: dict[str, str], headers: dict[str, Any]) -> None:
    scope.clear_breadcrumbs()  # those of the process, of other tasks that is
    scope.set_transaction_name(tags["task"], source="task")
    for name, value in tags.items():
        scope.set_tag(name, value)
    for attempt, at, kind, message in _earlier(headers):
        scope.add_breadcrumb(
            type="error",
            category=OWN_CRUMB,
            level="error",
            message=f"attempt {attempt}: {kind}: {message}",
            timestamp=datetime.fromtimestamp(at, UTC),
            data={"attempt": attempt, "type": kind},
        )


def _redaction() -> Redaction | None:
    """Of the attempt that runs here; a thread that it started has a copy of its scope."""
    processors = sentry_sdk.get_isolation_scope()._event_processors
    return next((each for each in processors if isinstance(each, Redaction)), None)


def _earlier(headers: dict[str, Any]) -> list[list[Any]]:
    """What is no such list, as a producer could send it, is left out."""
    found = headers.get(EARLIER)
    return [each for each in found if _is_earlier(each)] if isinstance(found, list) else []


def _is_earlier(each: Any) -> bool:
    if not isinstance(each, list) or len(each) != 4:
        return False
    attempt, at, kind, message = each
    return isinstance(attempt, int) and isinstance(at, float) and 0 <= at < 1e11 and isinstance(kind, str) and isinstance(message, str)


def _exception(error: TaskError) -> dict[str, Any]:
    module, _, kind = error.type.rpartition(".")
    value: dict[str, Any] = {"type": kind, "module": module or None, "value": error.message, "mechanism": MECHANISM}
    frames = stack_frames(error.traceback) or stack_frames(error.stack)
    if frames:
        value["stacktrace"] = {"frames": [_frame(each) for each in frames]}
    return value


def _frame(frame: StackFrame) -> dict[str, Any]:
    shown: dict[str, Any] = {"filename": frame.file, "abs_path": frame.file, "function": frame.function, "lineno": frame.line}
    lines = [line.rstrip("\n") for line in linecache.getlines(frame.file)] if frame.line is not None else []
    if frame.line is not None and 0 < frame.line <= len(lines):
        at = frame.line - 1
        shown |= {
            "pre_context": lines[max(0, at - SOURCE) : at],
            "context_line": lines[at],
            "post_context": lines[at + 1 : at + 1 + SOURCE],
        }
    return shown


def _stopped_from_outside() -> bool:
    task = asyncio.current_task() if in_loop() else None
    return task is not None and bool(task.cancelling())
