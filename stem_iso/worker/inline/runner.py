"""The runner of inline handlers: in this process, async ones on one loop, sync ones in threads. The process is that of an embedded worker,
or, by command, a shared host (`child.shared_host`).

    consumer, or host ── submit(InlineJob, caller) ──> thread  run_sync ──┐
        ^                                       └────> loop    run_async ─┤
        └─────── Caller.*  <── the same calls that the engine makes ──────┘       clock thread: soft, hard, heartbeat, the GIL

What can be enforced here, and what cannot
 - Soft limit: an event with the stack of the handler's thread or coroutine; "raise" cancels a coroutine, and the cancellation leaves the
   handler as `SoftTimeLimitExceeded`.
 - Hard limit, silence, a stop: a coroutine is cancelled, and its outcome follows when it has ended: a time-out, even where the coroutine
   swallowed the cancellation. A thread cannot be ended: it is left to end, and its reply counts.
 - Each call has a context (`contextvars`) of its own. What a call changes in its thread is put back (`Threads`, `shared_loop`); what it
   changes in the process is put back in a shared host only. In an embedded worker a call's change looks like the program's own.
 - C code that keeps the GIL holds up leases and limits alike. One process cannot prevent that, so the call is named (`Around.held`) where
   the GIL was held for longer than a third of the shortest lease of an inline handler.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from functools import partial
from math import inf
from queue import SimpleQueue
from typing import Any

from msgspec.structs import replace

from stem_iso.isolate.child.fork import flush
from stem_iso.isolate.child.state import ProcessState, fresh_context, of_thread
from stem_iso.isolate.engine.deadlines import Alarm
from stem_iso.isolate.engine.endings import of_reply
from stem_iso.isolate.interfaces import FAILED, Caller, LimitNotice
from stem_iso.isolate.wire import Garbage
from stem_iso.outcome import Stopped, StopReason, TimedOut
from stem_iso.task.context import current_context
from stem_iso.worker.child.task_runner import failed_reply, last_resort, run_async, run_sync
from stem_iso.worker.inline.call import InlineCall, InlineJob
from stem_iso.worker.inline.shared_loop import SharedLoop

monotonic = time.monotonic


class Around:
    """The process around an inline call. Here it does nothing; an embedded worker and a shared host override what they need."""

    main: str | None = None  # what `__main__` means, if not this process's own

    def running(self, caller: Caller) -> AbstractContextManager[None]:
        """Entered around the whole call, by the thread that runs it, or in its task."""
        return nullcontext()

    def ending(self, caller: Caller, ending: TimedOut) -> None:
        """A coroutine has reached its hard limit, or that of silence, and is being cancelled."""

    def trouble(self, text: str, traceback: str) -> None:
        """An error that is no call's outcome."""

    def held(self, callers: list[Caller], late: float) -> None:
        """The interpreter lock was held for `late` seconds, longer than the leases bear; one of these did it."""


class Inline:
    """Runs inline calls. `loop`: the user's; None: one on a thread of its own, started with the first need (`shared_loop`)."""

    def __init__(
        self, *, loop: asyncio.AbstractEventLoop | None, max_result_bytes: int, max_payload_bytes: int | None = None, around: Around
    ) -> None:
        self._sizes: dict[str, Any] = {"max_result_bytes": max_result_bytes, "max_payload_bytes": max_payload_bytes}
        self._around = around
        self._loop, self._shared = loop, SharedLoop(around.trouble, self._loop_lost)
        self._clock = InlineClock(self._check)
        self._threads = Threads("stem-iso-inline")
        self._lock = threading.Lock()
        os.register_at_fork(before=_flush_in_handler)
        self._running: set[InlineCall] = set()  # under the lock, as are the two below
        self._ended: list[InlineCall] = []  # since the clock last looked at the GIL, those that lasted long enough to be suspects
        self._gil_check_due, self._held_most = inf, inf

    def submit(self, job: InlineJob, caller: Caller) -> InlineCall:
        call = InlineCall(job, caller)
        caller.sent()
        first_limit = call.deadlines.next_at
        with self._lock:
            self._running.add(call)
            if job.visibility < inf:  # in a host no call holds up a lease
                self._schedule_gil_check(call.begun_at)
        context = fresh_context()
        if job.is_async:
            self._on_loop(partial(context.run, self._begin, call))
        else:
            self._threads.run(partial(context.run, self._run_sync, call))
        self._clock.by(min(first_limit, self._gil_check_due))
        return call

    def stop(self, call: InlineCall, reason: StopReason) -> None:
        """A coroutine is cancelled; a thread is left to end."""
        if call.job.is_async:
            self._on_loop(partial(call.end, Stopped(reason, started=True)))

    def ping(self, pong: Callable[[], None]) -> None:
        """Call `pong` on the loop when it turns; at once where there is none."""
        if self._loop is None and not self._shared.started:
            pong()
        else:
            self._on_loop(pong)

    def close(self) -> None:
        """Does not wait: what still runs has been given up by the worker."""
        with self._lock:
            running = list(self._running)
        for call in running:
            call.abandon()
        self._clock.close()
        self._threads.close()
        self._shared.close()

    # -- running -------------------------------------------------------------------------------------------------------------------

    def _run_sync(self, call: InlineCall) -> None:
        call.thread = threading.get_ident()
        try:
            with self._around.running(call.caller):
                reply = run_sync(call.job.call, call.job.payload, call, **self._sizes, main=self._around.main)
        except BaseException as error:  # whatever it is: a call without an end would keep its seat for ever
            reply = FAILED, last_resort(error)
        call.thread = None
        self._finish(call, reply)

    def _begin(self, call: InlineCall) -> None:
        if call.task is None:
            call.thread = threading.get_ident()
            call.context = copy_context()
            call.task = asyncio.get_running_loop().create_task(self._run_async(call), context=call.context)
            call.task.add_done_callback(partial(self._on_task_done, call))

    def _on_task_done(self, call: InlineCall, task: asyncio.Task[None]) -> None:
        """One that is cancelled before its first step never enters `_run_async`, which lets no cancellation out."""
        if task.cancelled() and not call.finished_at:
            self._finish(call, self._cancelled(call, asyncio.CancelledError()))

    async def _run_async(self, call: InlineCall) -> None:
        try:
            with self._around.running(call.caller):
                reply = await run_async(call.job.call, call.job.payload, call, **self._sizes, main=self._around.main)
        except asyncio.CancelledError as error:
            reply = self._cancelled(call, error)
        except GeneratorExit:  # its loop is gone (`throw_away`), and nobody waits for a reply
            return
        except BaseException as error:  # as in a thread
            reply = FAILED, last_resort(error)
        self._finish(call, reply)

    def _cancelled(self, call: InlineCall, error: asyncio.CancelledError) -> tuple[int, bytes]:
        if call.ending is None and self._loop is not None:  # the program cancels what runs in its loop: it ends, and we with it
            call.ending = Stopped(StopReason.SHUTDOWN, started=False)
        # Else a handler did, this one or another of this loop: a failure, since a task that is given back would do it again for ever.
        return failed_reply(error, self._around.main)

    def _finish(self, call: InlineCall, reply: tuple[int, bytes]) -> None:
        with self._lock:
            self._running.discard(call)
            last = call.job.is_async and not any(each.job.is_async for each in self._running)
            if call.elapsed() > self._held_most:
                self._ended.append(call)
        if last:
            self._shared.settle()
        ending = call.ending
        if isinstance(ending, TimedOut):
            elapsed = call.elapsed()  # with the last steps of the coroutine
            ending = replace(ending, elapsed=elapsed, dead_at=ending.dead_at + elapsed - ending.elapsed)
            call.notice(LimitNotice.of(ending))
        try:
            outcome = of_reply(*reply) if ending is None else ending
        except Garbage as error:
            outcome = of_reply(FAILED, last_resort(error))
        call.finish(outcome)

    # -- the clock's thread --------------------------------------------------------------------------------------------------------

    def _check(self, now: float) -> float:
        self._check_gil(now)
        with self._lock:
            running = list(self._running)
        for call in running:
            if call.next_limit() <= now:
                self._enforce(call, now)
        return min([self._gil_check_due, *(call.next_limit() for call in running)])

    def _enforce(self, call: InlineCall, now: float) -> None:
        limits = call.job.limits
        for alarm in call.deadlines.due(now):
            if alarm is Alarm.SOFT:
                call.notice(LimitNotice(limits.soft or 0.0, call.elapsed(), call.stack(), level="soft"))
                if limits.raise_soft and call.job.is_async:
                    self._on_loop(call.raise_soft)
            else:
                ending = call.deadlines.time_out(call.stack(), now, now)
                self._around.ending(call.caller, ending)
                self._on_loop(partial(call.end, ending))

    # -- the GIL -------------------------------------------------------------------------------------------------------------------

    def _schedule_gil_check(self, now: float) -> None:
        shortest = min((call.job.visibility for call in self._running), default=inf)
        if shortest / 3 != self._held_most:
            self._gil_check_due, self._held_most = now + shortest / 6, shortest / 3

    def _check_gil(self, now: float) -> None:
        with self._lock:
            late, suspects = now - self._gil_check_due, [*self._running, *self._ended]
            held, due = late > self._held_most, self._gil_check_due
            if late >= 0:
                self._ended.clear()
                self._gil_check_due = self._held_most = inf
                self._schedule_gil_check(now)
        if held:
            self._around.held([call.caller for call in suspects if call.begun_at <= now and (call.finished_at or now) >= due], late)

    # -- the loop ------------------------------------------------------------------------------------------------------------------

    def _on_loop(self, act: Callable[[], object]) -> None:
        if self._loop is None:
            self._shared.run(act)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(act)

    def _loop_lost(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop was broken: what ran there never goes on; what had not begun begins on the next loop."""
        with self._lock:
            running = [call for call in self._running if call.job.is_async]
        for call in running:
            if call.task is None:
                self._on_loop(partial(fresh_context().run, self._begin, call))
            elif call.task.get_loop() is loop:
                self._finish(call, failed_reply(RuntimeError("the event loop was broken by another coroutine, or by this one")))
                call.throw_away()


class InlineClock:
    """A thread that calls `check(now)`, which does what is due, must not block, and returns when to look again (monotonic seconds).

    No heap: there are no more running calls than seats, so a look at all of them is cheaper than keeping an order, and a call that has
    ended leaves nothing behind.
    """

    def __init__(self, check: Callable[[float], float]) -> None:
        self._check = check
        self._next = inf  # under the condition's lock
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def by(self, when: float) -> None:
        """Look no later than this. Costs a comparison unless it is earlier than all that was asked before."""
        if when >= self._next:
            return
        with self._wake:
            self._next = min(self._next, when)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="stem-iso-clock", daemon=True)
                self._thread.start()
            self._wake.notify()

    def close(self) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify()

    def _run(self) -> None:
        while self._due():
            self.by(self._check(time.monotonic()))

    def _due(self) -> bool:
        with self._wake:
            while not self._closed:
                wait = self._next - time.monotonic()
                if wait <= 0:
                    self._next = inf
                    return True
                self._wake.wait(None if wait == inf else wait)
        return False


class Threads:
    """Runs each piece of work at once: as many threads as there ever were pieces at a time, which the worker's seats bound.

    Daemons, so that a stuck handler cannot hold up the end of the program. What a handler changes in its thread (signal mask, trace and
    profile functions, niceness, affinity) is put back, or the thread is not used again.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[Callable[[], None] | None]] = []  # the last one back goes first: its stack is warm
        self._closed = False

    def run(self, work: Callable[[], None]) -> None:
        """`work` must not raise."""
        with self._lock:
            queue = self._idle.pop() if self._idle else None
        if queue is None:
            queue = SimpleQueue()
            threading.Thread(target=self._serve, args=(queue,), name=self._name, daemon=True).start()
        queue.put(work)

    def close(self) -> None:
        """Idle threads leave; busy ones after their work."""
        with self._lock:
            self._closed, idle, self._idle = True, self._idle, []
        for queue in idle:
            queue.put(None)

    def _serve(self, queue: SimpleQueue[Callable[[], None] | None]) -> None:
        state = ProcessState(of_thread())
        while (work := queue.get()) is not None:
            work()
            del work  # nothing of a finished call is kept
            if state.restore().lost:
                return
            with self._lock:
                if self._closed:
                    return
                self._idle.append(queue)


def _flush_in_handler() -> None:
    """Before a handler forks: what stands in a buffer would be written by parent and child."""
    if current_context() is not None:
        flush()
