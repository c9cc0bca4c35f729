"""One running inline call, and its `CorePort`: as the port of an isolate, without a pipe.

    handler's thread or loop ── request, send, beat ──> Caller (the consumer's inbox)
                             <── answer ──────────  consumer

Rule: the caller gets one end, and no notice after it; `finish` and `notice` take the call's lock.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from contextvars import Context
from math import inf
from types import FrameType
from typing import Any

import msgspec

from stem_iso.errors import SoftTimeLimitExceeded
from stem_iso.isolate.engine.deadlines import Deadlines
from stem_iso.isolate.interfaces import NO_LIMITS, Caller, LimitNotice, Limits
from stem_iso.outcome import Outcome
from stem_iso.task.context_protocol import ContextAnswer, encode_answer
from stem_iso.task.handler import Entrypoint
from stem_iso.text import cut_inside

monotonic = time.monotonic
TASK_HAS_ENDED = encode_answer(ContextAnswer(error=("RemoteError", "the task has ended, or its worker has; nobody can answer")))


class InlineJob(msgspec.Struct, frozen=True, eq=False):
    """`payload` as in `task.context_protocol`; `visibility` (seconds) sets how closely the GIL is watched.

    `begun_at`: when its clock began (monotonic); None: now.
    """

    call: Entrypoint
    is_async: bool
    payload: bytes
    limits: Limits = NO_LIMITS
    visibility: float = inf
    title: str = ""
    begun_at: float | None = None


class PendingRequest:
    """A request of a handler that waits for its answer. The first answer counts."""

    def __init__(self) -> None:
        self._arrived = threading.Event()
        self._answer = TASK_HAS_ENDED

    def answer(self, payload: bytes) -> None:
        if not self._arrived.is_set():
            self._answer = payload
            self._arrived.set()

    def wait(self) -> bytes:
        self._arrived.wait()
        return self._answer


class InlineCall:
    """Made by `Inline` at the moment the call begins."""

    isolated = False
    cpus: frozenset[int] | None = None  # a thread or a coroutine shares its process's

    def __init__(self, job: InlineJob, caller: Caller) -> None:
        self.job, self.caller = job, caller
        self.begun_at = self.beaten_at = monotonic() if job.begun_at is None else job.begun_at
        self.soft_deadline = None if job.limits.soft is None else self.begun_at + job.limits.soft
        self.hard_deadline = None if job.limits.hard is None else self.begun_at + job.limits.hard
        self.deadlines = Deadlines(job.limits, self.begun_at, early_stack=False, ends=job.is_async)  # the clock owns it from its first look
        self.thread: int | None = None  # of a sync handler; of the loop for an async one
        self.task: asyncio.Task[None] | None = None  # written on the loop's thread
        self.context: Context | None = None  # what the task runs in; written with it
        self.ending: Outcome | None = None  # what the cancellation will mean; written on the loop's thread
        self.finished_at = 0.0  # under the lock; 0 while it runs
        self._soft_raised = False
        self._armed_now = False
        self._closed = False
        self._lock = threading.Lock()
        self._requests: list[PendingRequest] = []  # under the lock

    # -- `CorePort`: called by the handler -----------------------------------------------------------------------------------------

    def request(self, payload: bytes) -> bytes:
        request = PendingRequest()
        self.beaten_at = monotonic()  # any request proves that the handler is alive
        with self._lock:
            if self._closed:
                return TASK_HAS_ENDED
            self._requests.append(request)
        self.caller.on_message(payload, request.answer)
        answer = request.wait()
        with self._lock:
            self._requests.remove(request)
        return answer

    def send(self, payload: bytes) -> None:
        self.beaten_at = monotonic()
        self.caller.on_message(payload, None)

    def beat(self) -> None:
        self.beaten_at = monotonic()
        self.caller.beat()

    def armed(self) -> AbstractContextManager[None]:
        return InlineArming(self)

    def arm(self) -> None:
        self._armed_now = True

    def disarm(self, error: BaseException | None) -> None:
        """The handler has ended, by `error`; what cancelled it may have been the soft limit, which then is what it raised."""
        self._armed_now = False
        if isinstance(error, asyncio.CancelledError) and self._soft_raised and self.ending is None and self.task is not None:
            self.task.uncancel()
            raise SoftTimeLimitExceeded(f"soft time limit of {self.job.limits.soft:g} s reached") from None

    # -- called by `Inline` ----------------------------------------------------------------------------------------------------------

    def raise_soft(self) -> None:
        """On the loop's thread: cancel the handler, once, and only while it is inside `armed()`."""
        if self._armed_now and not self._soft_raised and self.ending is None and self.task is not None:
            self._soft_raised = self.task.cancel()

    def end(self, ending: Outcome) -> bool:
        """On the loop's thread: cancel the handler, with `ending` as its outcome. False if it is over, or ending already."""
        if self.ending is not None or self.task is None or not self.task.cancel():
            return False
        self.ending = ending
        return True

    def notice(self, notice: LimitNotice) -> None:
        with self._lock:
            if not self.finished_at:
                self.caller.limit_reached(notice)

    def finish(self, outcome: Outcome) -> None:
        with self._lock:
            if self.finished_at:
                return
            self.finished_at = monotonic()
        self.caller.ended(outcome)
        self.abandon()

    def abandon(self) -> None:
        """The call has ended, or its worker: a thread of it that asks something, now or later, gets an error."""
        with self._lock:
            self._closed, requests = True, list(self._requests)
        for request in requests:
            request.answer(TASK_HAS_ENDED)

    def throw_away(self) -> None:
        """Its loop will never go on: leave the coroutine where it stands, in its own context, and not when memory happens to be freed."""
        coroutine: Any = None if self.task is None else self.task.get_coro()
        if coroutine is not None and self.context is not None:
            with suppress(BaseException):  # the handler's own `finally`, which may raise anything, or await
                self.context.run(coroutine.close)

    def next_limit(self) -> float:
        """When the clock should look at it again. On the clock's thread."""
        self.deadlines.beat(self.beaten_at)
        return self.deadlines.next_at

    def elapsed(self) -> float:
        return monotonic() - self.begun_at

    def stack(self) -> str:
        """Where the handler is, as text; empty when that cannot be seen. Any thread may ask."""
        frames = sys._current_frames()
        if self.task is None or asyncio.current_task(self.task.get_loop()) is self.task:
            frame = frames.get(self.thread or 0)
            return cut_inside("".join(traceback.format_stack(frame))) if frame else ""
        awaited = traceback.StackSummary.extract((each, each.f_lineno) for each in _awaited(self.task))
        return cut_inside("".join(traceback.format_list(awaited)))


class InlineArming:
    """Around the handler: inside it the soft limit may raise. A class, since a generator's would cost every call a microsecond."""

    __slots__ = ("_call",)

    def __init__(self, call: InlineCall) -> None:
        self._call = call

    def __enter__(self) -> None:
        self._call.arm()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._call.disarm(error)


def _awaited(task: asyncio.Task[None]) -> Iterator[FrameType]:
    """The frames of a sleeping coroutine, outermost first: a task itself shows the first one only."""
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
