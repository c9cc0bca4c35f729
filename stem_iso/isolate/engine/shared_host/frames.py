"""The reader of inline hosts' frames; and of the stacks that the core asks for where the host cannot send one.

A stack is asked of one thread at a time, because the answer does not say whose it is: others wait in `host.stacks`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from stem_iso.isolate import wire
from stem_iso.isolate.engine import endings
from stem_iso.isolate.engine.lifecycle import Cause
from stem_iso.isolate.engine.output import STDERR, STDOUT, CapturedOutput
from stem_iso.isolate.engine.shared_host.call import HostCall
from stem_iso.isolate.engine.shared_host.host import SharedHost
from stem_iso.isolate.engine.timers import STACK_WAIT
from stem_iso.isolate.interfaces import Answer, LimitNotice
from stem_iso.isolate.wire import (
    ASK,
    BEAT,
    BEGUN,
    BROKEN,
    LIMIT,
    LIMIT_HEAD,
    LOG,
    PONG,
    PRINT,
    READY,
    REPLY,
    TELL,
    THREAD,
    UNBEGUN,
    Frame,
    Garbage,
)

if TYPE_CHECKING:
    from stem_iso.isolate.engine.isolates import Isolates
    from stem_iso.isolate.engine.shared_host.supervisor import HostSupervisor

STREAMS = {1: STDOUT, 2: STDERR}


class HostFrameReader:
    """Used under the engine's lock; `later` runs something on the engine's thread, under it."""

    def __init__(self, isolates: Isolates, hosting: HostSupervisor, later: Callable[[Callable[[], None]], None]) -> None:
        self._isolates, self._hosting, self._later = isolates, hosting, later

    def frame(self, host: SharedHost, frame: Frame) -> None:
        """Raises Garbage where a frame cannot mean anything now."""
        kind, number, payload = frame
        if kind == PONG:  # its number is a ping's
            self._hosting.pong(host, number)
        elif (call := host.hosted.get(number)) is not None:
            self._of_call(host, call, kind, payload)
        elif kind == READY and not host.booted:
            self._isolates.ready(host, payload)
        elif kind == BROKEN and not host.booted:
            host.broken = payload.decode(errors="replace")
        elif kind == LOG:
            self._isolates.hearing.log(host, payload)
        elif not ASK <= kind <= UNBEGUN or not 0 < number <= host.page.started:
            raise Garbage(f"kind {kind} of no call")

    def _of_call(self, host: SharedHost, call: HostCall, kind: int, payload: bytes) -> None:
        callbacks, caller = self._isolates.callbacks, call.caller
        if kind == REPLY:
            if len(payload) < 2:
                raise Garbage("an empty reply")
            self._hosting.replied(host, call, endings.of_hosted_reply(payload[0], payload[2:]), spent=payload[1] != 0)
            return
        if kind == UNBEGUN:
            self._hosting.again(host, call)
            return
        call.deadlines.beat(monotonic())
        if kind == ASK:
            callbacks.append(partial(caller.asked, payload, self._answerer(host, call)))
        elif kind == TELL:
            callbacks.append(partial(caller.asked, payload, None))
        elif kind == BEAT:
            callbacks.append(caller.beat)
        elif kind == PRINT and payload and payload[0] in STREAMS:
            self._printed(call, STREAMS[payload[0]], payload[1:])
        elif kind == LOG:
            self._logged(call, payload)
        elif kind == BEGUN and len(payload) == THREAD.size:
            (call.thread,) = THREAD.unpack(payload)
        elif kind == LIMIT and len(payload) >= LIMIT_HEAD.size:
            self._limit(host, call, payload)
        else:
            raise Garbage(f"kind {kind} during a call")

    def _answerer(self, host: SharedHost, call: HostCall) -> Answer:
        number = call.number

        def send(payload: bytes) -> None:
            if host.hosted.get(number) is call:
                self._isolates.push(host, wire.frame(wire.ANSWER, number, payload))

        return lambda payload: self._later(lambda: send(payload))

    # -- output --------------------------------------------------------------------------------------------------------------------

    def _printed(self, call: HostCall, stream: str, text: bytes) -> None:
        for line in self._capture(call).feed(stream, text):
            self._output(call, logging.INFO, stream, line)

    def _logged(self, call: HostCall, payload: bytes) -> None:
        level, logger, text = wire.log_record(payload)
        if room := self._capture(call).take(len(text)):
            self._output(call, level, logger, text[:room].decode(errors="replace"))

    def _capture(self, call: HostCall) -> CapturedOutput:
        if call.capture is None:
            call.capture = CapturedOutput()
        return call.capture

    def _output(self, call: HostCall, level: int, source: str, text: str) -> None:
        self._isolates.callbacks.append(partial(call.caller.output, level, source, text))

    def finish(self, host: SharedHost, call: HostCall) -> None:
        """It has ended: a soft limit that waits for its stack, what it printed without a newline, and how much was too much."""
        if call in host.stacks:
            self._tell_late(call, host.take_stack() if host.stacks[0] is call else "")
            self._no_stack(host, call)
        if call.capture is not None:
            for stream, line in call.capture.finish():
                self._output(call, logging.INFO, stream, line)
            if call.capture.dropped:
                self._output(call, logging.WARNING, "stem_iso", f"{call.capture.dropped} bytes of output dropped beyond the first MiB")

    # -- limits --------------------------------------------------------------------------------------------------------------------

    def _limit(self, host: SharedHost, call: HostCall, payload: bytes) -> None:
        level, elapsed = LIMIT_HEAD.unpack_from(payload)
        stack = payload[LIMIT_HEAD.size :].decode(errors="replace")
        if level == wire.SOFT_LIMIT:
            self._tell_soft(call, elapsed, stack)
        else:
            call.stack = stack
            silent = level == wire.SILENCE
            limit = call.job.limits.heartbeat if silent else call.job.limits.hard
            if limit is None:
                raise Garbage("a limit that the call has not")
            call.told_to_end(Cause.SILENCE if silent else Cause.LIMIT, monotonic() if silent else call.deadlines.sent_at + limit)
            self._isolates.clocks.arm(call.next_at)

    def ask_stack(self, host: SharedHost, call: HostCall, now: float) -> None:
        """By a signal, because the host has not reported a limit of this call."""
        if call not in host.stacks:
            host.stacks.append(call)
            if len(host.stacks) == 1:
                self._ask_next(host, now)

    def stack_came(self, host: SharedHost) -> None:
        """A stack has come, or has been waited for long enough."""
        self._tell_late(host.stacks.popleft(), host.take_stack())
        self._ask_next(host, monotonic())

    def _tell_late(self, call: HostCall, stack: str) -> None:
        """What the host has not reported: by now both limits, perhaps."""
        if call.soft_elapsed:
            self._tell_soft(call, call.soft_elapsed, stack)
        if call.ending is not None:
            call.stack = call.stack or stack

    def _no_stack(self, host: SharedHost, call: HostCall) -> None:
        """Nobody waits for it any more."""
        if call in host.stacks:
            first = host.stacks[0] is call
            host.stacks.remove(call)
            if first:
                self._ask_next(host, monotonic())

    def _ask_next(self, host: SharedHost, now: float) -> None:
        host.stack_due = now + STACK_WAIT
        if not host.stacks:
            host.stack_due = float("inf")
            return
        host.ask_stack_of(host.stacks[0].thread)
        self._isolates.clocks.arm(host.stack_due)

    def _tell_soft(self, call: HostCall, elapsed: float, stack: str) -> None:
        if call.report_soft():
            notice = LimitNotice(call.job.limits.soft or 0.0, elapsed, stack, level="soft")
            self._isolates.callbacks.append(partial(call.caller.limit_reached, notice))
