"""One call in the engine: its job, its caller, the isolate that it is in; and the frame that sends it."""

from __future__ import annotations

from stem_iso.isolate.engine.deadlines import after
from stem_iso.isolate.interfaces import Caller, HostedJob, Job
from stem_iso.isolate.wire import CALL, CallFrame, frame, pack_hosted
from stem_iso.isolate.wire import call_frame as packed
from stem_iso.outcome import StopReason

REASSIGNMENTS = 3  # after so many isolates that died before they began, the call itself is the suspect


class Call:
    """Opaque to the submitter; owned by the engine, under its lock."""

    __slots__ = ("arrival", "caller", "isolate", "job", "stop", "tries")

    def __init__(self, job: Job, caller: Caller) -> None:
        self.job, self.caller = job, caller
        self.arrival = 0
        self.isolate: int | None = None
        self.tries = 0
        self.stop: StopReason | None = None


def call_frame(number: int, job: Job, sent_at: float, definition: bytes, cpus: tuple[int, ...] = ()) -> bytes:
    return packed(number, _call_fields(job, sent_at, definition, cpus))


def hosted_frame(number: int, job: HostedJob, sent_at: float, definition: bytes) -> bytes:
    return frame(CALL, number, pack_hosted(sent_at, after(0.0, job.limits.heartbeat), _call_fields(job, sent_at, definition, ())))


def _call_fields(job: Job, sent_at: float, definition: bytes, cpus: tuple[int, ...]) -> CallFrame:
    limits = job.limits
    soft, hard = after(sent_at, limits.soft), after(sent_at, limits.hard)
    return CallFrame(job.entry.number, limits.raise_soft, soft, hard, definition, job.title, cpus, job.payload)
