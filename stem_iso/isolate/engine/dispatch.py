"""The sending of calls: everything between the allocator's order and the frame in the call pipe.

    Assign(isolate, call) ── definition, if the isolate does not know the entry ── number, deadlines ── shared row ── frame

The order of the writes to the shared row is the protocol of `shared_row`: a verdict that stands means that nothing is sent.
"""

from __future__ import annotations

import logging
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from stem_iso.isolate import shared_row
from stem_iso.isolate.engine import endings
from stem_iso.isolate.engine.call import Call, call_frame
from stem_iso.isolate.engine.deadlines import Deadlines
from stem_iso.isolate.engine.lifecycle import Cause, State
from stem_iso.outcome import Failed

if TYPE_CHECKING:
    from stem_iso.isolate.engine.isolate import Isolate
    from stem_iso.isolate.engine.isolates import Isolates


class Dispatch:
    """Used under the engine's lock."""

    def __init__(self, isolates: Isolates) -> None:
        self._isolates = isolates
        self._numbers = 0  # of calls: never used twice, so that a row or a frame names one call for ever

    def assign(self, isolate: Isolate, call: Call) -> None:
        if call.stop is not None:
            self._isolates.end_unbegun(call)
            self._isolates.obey(self._isolates.fleet.freed(isolate.number, monotonic()))
            return
        if call.job.limits.memory is not None and isolate.hidden:
            self._refuse(isolate, call, endings.unmeasured())
            return
        definition = self._definition(isolate, call)
        if definition is None:
            return
        self._numbers += 1
        now, isolates = monotonic(), self._isolates
        deadlines = Deadlines(call.job.limits, now)
        isolate.assign(call, self._numbers, deadlines)
        call.caller.sent()
        kill_at = deadlines.kill_at
        if not isolates.link.table.send(isolate.seat, self._numbers, 0.0 if kill_at == inf else kill_at):
            isolates.condemn(isolate, Cause.VERDICT)
            return
        if kill_at + shared_row.MARGIN < isolates.link.table.armed:
            isolates.link.wake()
        if call.job.limits.cpus is not None:
            self._claim(isolate, call, call.job.limits.cpus)
        isolates.push(isolate, call_frame(self._numbers, call.job, now, definition, isolate.cpus), call.job.descriptor)
        isolates.clocks.arm(deadlines.next_at)
        if call.job.limits.memory is not None:
            isolates.watcher.watch(isolate.number, self._numbers, isolate.view, call.job.limits.memory)
        isolate.sent_number = self._numbers

    def _refuse(self, isolate: Isolate, call: Call, outcome: Failed) -> None:
        self._isolates.end(call, outcome)
        self._isolates.obey(self._isolates.fleet.freed(isolate.number, monotonic()))

    def _claim(self, isolate: Isolate, call: Call, count: int) -> None:
        isolate.cpus = self._isolates.cores.claim(count)
        if not isolate.cpus:
            text = f"no {count} of {len(self._isolates.cores.allowed)} cores are free for this call alone: it runs on all of them"
            self._isolates.callbacks.append(lambda: call.caller.output(logging.WARNING, "stem_iso", text))

    def interrupted(self) -> None:
        """A submitter's thread was interrupted while it sent a call: an isolate that may hold half of it, or none, is of no use."""
        self._isolates.orders = []  # no turn is in the middle of any: what is left of them is the interrupted thread's
        for number in self._isolates.fleet.booting - self._isolates.by_number.keys():
            self._isolates.fleet.gone(number, monotonic())  # it was counted, and never ordered
        for number in list(self._isolates.fleet.busy):
            isolate = self._isolates.by_number[number]
            if isolate.sent_number != isolate.call_number or (isolate.call is None and isolate.life.state is State.IDLE):
                self._isolates.condemn(isolate, Cause.UNSENT)

    def _definition(self, isolate: Isolate, call: Call) -> bytes | None:
        """The definition of the entry, empty if this isolate has it; None: it cannot be made, and the call has ended."""
        entry = call.job.entry
        if entry.number in isolate.known:
            return b""
        try:
            definition = entry.definition(isolate.ready)
        except BaseException as error:  # user code, in the core: pickling an entrypoint calls whatever it refers to
            self._refuse(isolate, call, endings.unsendable(error))
            return None
        isolate.known.add(entry.number)
        return definition
