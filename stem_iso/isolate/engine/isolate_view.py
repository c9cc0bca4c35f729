"""View of one isolate at a moment: what the engine shows of it to those who look after the worker. Made under the engine's lock, of what is
at hand there; whoever has the view measures its memory, outside."""

from __future__ import annotations

from dataclasses import dataclass

from stem_iso.isolate.engine.isolate import Isolate
from stem_iso.isolate.engine.lifecycle import State
from stem_iso.isolate.engine.memory import MemoryReader, tree_resident
from stem_iso.isolate.interfaces import NO_LIMITS, Caller, Limits

STARTING, SPARE, BUSY, SHARED = "starting", "spare", "busy", "shared"
MOST_MEASURED = 32  # processes of one tree: a look costs some 20 µs for each


@dataclass(frozen=True, slots=True)
class IsolateView:
    """`state`: one of the four above. Of a busy one: whose call it is, when it was sent (monotonic), its limits, its own cores. `sent_at`
    is 0 where its reply is there, and what it left behind is being killed."""

    pid: int
    state: str
    reader: MemoryReader
    used: int | None = None  # bytes, where somebody measures them anyway
    caller: Caller | None = None
    sent_at: float = 0.0
    limits: Limits = NO_LIMITS
    cpus: tuple[int, ...] = ()

    def memory(self) -> int | None:
        """Bytes, with all that it spawned; None where it is gone, or that would cost too much."""
        return self.used or tree_resident(self.reader, MOST_MEASURED) or None


def is_seen(isolate: Isolate) -> bool:
    """Whether it has a process, and is not dying without a call."""
    return isolate.pid != 0 and not isolate.died_at and (isolate.life.state is not State.DYING or isolate.life.working)


def view_of(isolate: Isolate, used: int | None) -> IsolateView:
    if isolate.shared and isolate.booted:
        return IsolateView(isolate.pid, SHARED, isolate.view)
    if isolate.call is None:
        return IsolateView(isolate.pid, SPARE if isolate.booted else STARTING, isolate.view)
    call, sent_at = isolate.call, isolate.deadlines.sent_at if isolate.deadlines is not None else 0.0
    return IsolateView(isolate.pid, BUSY, isolate.view, used, call.caller, sent_at, call.job.limits, isolate.cpus)
