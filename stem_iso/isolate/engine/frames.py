"""The reader of isolates' frames and output: each frame, line and stack goes to the caller, lifecycle or timer that it concerns."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import chain
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from stem_iso.isolate import wire
from stem_iso.isolate.engine import endings
from stem_iso.isolate.interfaces import Answer, LimitNotice
from stem_iso.isolate.wire import ASK, BEAT, BROKEN, LOG, READY, REPLY, TELL, Frame, Garbage

if TYPE_CHECKING:
    from stem_iso.isolate.engine.isolate import Isolate
    from stem_iso.isolate.engine.isolates import Isolates

log = logging.getLogger("stem_iso.isolate")


class FrameReader:
    """Has no state of its own; `later` runs something on the engine's thread, under its lock."""

    def __init__(self, isolates: Isolates, later: Callable[[Callable[[], None]], None]) -> None:
        self._isolates, self._later = isolates, later

    # -- frames --------------------------------------------------------------------------------------------------------------------

    def frame(self, isolate: Isolate, frame: Frame) -> None:
        """Raises Garbage where a frame cannot mean anything now."""
        kind, number, payload = frame
        if kind == READY and not isolate.booted:
            self._isolates.ready(isolate, payload)
        elif kind == BROKEN and not isolate.booted:
            isolate.broken = payload.decode(errors="replace")
        elif kind == LOG and isolate.call is None:
            self.log(isolate, payload)  # a module that is imported, or a start hook, logs as well
        elif isolate.call is None or number != isolate.call_number:
            raise Garbage(f"kind {kind} outside a call")
        elif kind == REPLY:
            if len(payload) < 2:
                raise Garbage("an empty reply")
            self._isolates.replied(isolate, endings.of_reply(payload[0], payload[2:]), payload[1])
        else:
            self._saying(isolate, kind, payload)

    def _saying(self, isolate: Isolate, kind: int, payload: bytes) -> None:
        self._alive(isolate)
        call = isolate.call
        assert call is not None
        caller = call.caller
        if kind == ASK:
            answer = self._answerer(isolate)
            self._isolates.callbacks.append(lambda: caller.asked(payload, answer))
        elif kind == TELL:
            self._isolates.callbacks.append(lambda: caller.asked(payload, None))
        elif kind == BEAT:
            self._isolates.callbacks.append(caller.beat)
        elif kind == LOG:
            self.log(isolate, payload)
        else:
            raise Garbage(f"kind {kind} during a call")

    def last_words(self, isolate: Isolate) -> None:
        """The frames that it wrote before it died; a reply among them counts."""
        backlog, isolate.backlog = isolate.backlog, []
        for frame in chain(backlog, isolate.pipe.drain()):
            try:
                self._isolates.hear(isolate, frame)
            except Garbage:
                return
            except Exception:  # as while it lived: its bytes must not keep its end from being reported
                log.exception("isolate %d left what could not be taken in", isolate.pid)
                return

    def _answerer(self, isolate: Isolate) -> Answer:
        number = isolate.call_number

        def send(payload: bytes) -> None:
            if isolate.call_number == number and isolate.call is not None:
                self._isolates.push(isolate, wire.frame(wire.ANSWER, number, payload))

        return lambda payload: self._later(lambda: send(payload))

    def _alive(self, isolate: Isolate) -> None:
        """Any frame of the handler proves that it is alive."""
        deadlines = isolate.deadlines
        if deadlines is not None and deadlines.beat(monotonic()):
            self._isolates.link.table.set_deadline(isolate.seat, deadlines.kill_at)

    # -- output --------------------------------------------------------------------------------------------------------------------

    def stream(self, isolate: Isolate, fd: int) -> None:
        if fd == isolate.stack_fd:
            whole = isolate.read_stack()
            if isolate.stack_ended:
                self._isolates.unregister(fd)
            if whole and isolate.awaits_stack:
                self._isolates.clocks.stack_came(isolate, monotonic())
            return
        for stream, block in isolate.read_output(fd):
            self._tell(isolate, logging.INFO, stream, block)
        if fd in isolate.ended_streams:
            self._isolates.unregister(fd)

    def log(self, isolate: Isolate, payload: bytes) -> None:
        level, logger, text = wire.log_record(payload)
        if room := isolate.capture.take(len(text)):
            self._tell(isolate, level, logger, text[:room].decode(errors="replace"))

    def rest_of_output(self, isolate: Isolate) -> None:
        """The call has ended: what had no newline, and how much was too much."""
        for stream, line in isolate.capture.finish():
            self._tell(isolate, logging.INFO, stream, line)
        if isolate.capture.dropped:
            self._tell(isolate, logging.WARNING, "stem_iso", f"{isolate.capture.dropped} bytes of output dropped beyond the first MiB")

    def _tell(self, isolate: Isolate, level: int, source: str, text: str) -> None:
        if isolate.call is not None:
            caller = isolate.call.caller
            self._isolates.callbacks.append(lambda: caller.output(level, source, text))
        else:
            self._isolates.callbacks.append(lambda: log.log(level, "isolate %d, %s: %s", isolate.pid, source, text))

    # -- soft limit ----------------------------------------------------------------------------------------------------------------

    def soft_event(self, isolate: Isolate) -> None:
        """Report the soft limit, with the stack as far as it has come; nothing if there is none to report."""
        if isolate.soft_notice is None or isolate.call is None:
            return
        (limit, elapsed), isolate.soft_notice = isolate.soft_notice, None
        isolate.stack_due = inf
        isolate.soft_stack = isolate.take_stack()
        caller, title = isolate.call.caller, isolate.call.job.title
        notice = LimitNotice(limit, elapsed, isolate.soft_stack, level="soft", title=title)
        self._isolates.callbacks.append(lambda: caller.limit_reached(notice))
