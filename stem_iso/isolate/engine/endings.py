"""The endings of calls: a reply, or the exit of its isolate, becomes the `Outcome` of a call.

    reply ───────────────────────────────────────────────────────────────> of_reply ──────────────┐
    exit confirmed, orphans swept ──> last frames ──> lifecycle: Ending ──> of_ending, of_death ──┴──> Outcome

Nothing is changed here. A call that had not begun has no outcome yet: another isolate runs it.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from stem_iso.isolate.child.leftovers import RETIRED
from stem_iso.isolate.engine.isolate import Isolate, signal_name
from stem_iso.isolate.engine.keeper_client import Exited
from stem_iso.isolate.engine.lifecycle import Answered, Cause, Ended, EndedByKeeper, Ending
from stem_iso.isolate.interfaces import FAILED, REJECTED, RETRY, STOPPED, SUCCEEDED, TIMED_OUT
from stem_iso.isolate.wire import UNREADABLE, Garbage
from stem_iso.outcome import (
    Crashed,
    Failed,
    MemoryExceeded,
    Outcome,
    Rejected,
    RetryAsked,
    Stopped,
    StopReason,
    Succeeded,
    TaskError,
    TimedOut,
)
from stem_iso.text import cut, cut_inside

NOT_A_BOOT_FAILURE = frozenset({Cause.CLOSING, Cause.RESIZED, Cause.KEEPER_LOST, Cause.OPERATOR})


@dataclass(frozen=True, slots=True)
class Exit:
    """What the keeper reported. `code` and `status` as in waitid(2), None where nobody could tell; times are monotonic, 0: unknown."""

    code: int | None = None
    status: int = 0
    killed: tuple[tuple[int, str], ...] = ()
    signalled_at: float = 0.0
    died_at: float = 0.0

    @property
    def exit_code(self) -> int | None:
        return self.status if self.code == os.CLD_EXITED else None

    @property
    def signal(self) -> str | None:
        return signal_name(self.status) if self.code in (os.CLD_KILLED, os.CLD_DUMPED) else None

    def before(self, limit_at: float) -> bool:
        """Whether the process had ended when the limit came, or ended in another way than by the kill for it; False where nobody knows."""
        return self.code is not None and (self.signal != "SIGKILL" or self.died_at < limit_at)

    @classmethod
    def of(cls, exited: Exited, isolate: Isolate) -> Exit:
        """As the keeper and this process saw it: where this process was stopped, or its GIL held, the keeper acted and saw before it."""
        # The title of a process that was dead when the keeper looked nobody can read.
        every = ((pid, title or (isolate.title if pid == isolate.pid else "")) for pid, title in (*isolate.killed, *exited.killed))
        times = earliest(isolate.signalled_at, exited.signalled_at), earliest(isolate.died_at, exited.died_at)
        return cls(exited.code, exited.status, _once(every), *times)


UNKNOWN_EXIT = Exit()


def _once(killed: Iterable[tuple[int, str]]) -> tuple[tuple[int, str], ...]:
    """Each process once: where the core was slow, the keeper has killed the same ones beside it."""
    found: dict[int, str] = {}
    for pid, title in killed:
        found[pid] = found.get(pid) or title
    return tuple(found.items())


def earliest(*times: float) -> float:
    """Of several looks at one event, 0 being none; 0 if nobody saw it."""
    return min((each for each in times if each), default=0.0)


LONGEST = 1e12  # seconds: no clock and no calendar reaches it

_failed = msgspec.msgpack.Decoder(tuple[TaskError, tuple[str, ...]])
_retry = msgspec.msgpack.Decoder(tuple[float | None, float | None, int | None])
_rejected = msgspec.msgpack.Decoder(tuple[str, str])
_timed_out = msgspec.msgpack.Decoder(TimedOut)
_stopped = msgspec.msgpack.Decoder(tuple[StopReason, bool])


def of_reply(tag: int, payload: bytes) -> Outcome:
    """Raises Garbage where the bytes are no reply: the handler can write to our pipe."""
    try:
        if tag == SUCCEEDED:
            return Succeeded(payload)
        if tag == FAILED:
            return Failed(*_failed.decode(payload))
        if tag == RETRY:
            return _retry_asked(*_retry.decode(payload))
        if tag == REJECTED:
            return Rejected(*_rejected.decode(payload))
    except UNREADABLE as error:
        raise Garbage(f"a reply that cannot be read: {error}") from None
    raise Garbage(f"a reply of kind {tag}")


def _retry_asked(countdown: float | None, eta: float | None, max_retries: int | None) -> RetryAsked:
    """Raises ValueError for times and counts that a context refuses: they would fail where they are added up or stored."""
    for seconds in (countdown, eta):
        if seconds is not None and not -LONGEST <= seconds <= LONGEST:
            raise ValueError(f"{seconds} s")
    if max_retries is not None and not 0 <= max_retries < 1 << 31:
        raise ValueError(f"{max_retries} retries")
    return RetryAsked(countdown, eta, max_retries)


def of_hosted_reply(tag: int, payload: bytes) -> Outcome:
    """The same for a call of an inline host, which can also say that it ended the call. Raises Garbage."""
    try:
        if tag == TIMED_OUT:
            return _timed_out.decode(payload)
        if tag == STOPPED:
            return Stopped(*_stopped.decode(payload))
    except UNREADABLE as error:
        raise Garbage(f"a reply that cannot be read: {error}") from None
    return of_reply(tag, payload)


def of_cause(cause: Cause, stop: StopReason | None, started: bool, end: Exit, stderr: str) -> Outcome:
    """For every cause but the limits, which need their times (`Deadlines.time_out`)."""
    if cause is Cause.STOPPED and stop is not None:
        return Stopped(stop, started)
    if cause is Cause.CLOSING:
        return Stopped(StopReason.SHUTDOWN, started)
    if cause is Cause.OPERATOR:
        return Crashed(end.exit_code, end.signal or "SIGKILL", stderr, by_operator=True)
    text = f"{stderr}\nkilled by the worker: {cause.value}".strip()
    return Crashed(end.exit_code, end.signal or "SIGKILL", text)


def unsendable(error: BaseException) -> Failed:
    """An entrypoint that cannot be pickled fails its call, and nothing else."""
    kinds = tuple(cut(f"{cls.__module__}.{cls.__qualname__}") for cls in type(error).__mro__)
    try:
        text, said = cut_inside("".join(traceback.format_exception(error))), str(error)
    except BaseException as worse:  # user code: __str__ and __notes__ of the error
        text, said = "", f"<its text could not be made: {type(worse).__name__}>"
    message = cut(f"the entrypoint cannot be sent to an isolate: {said}")
    return Failed(TaskError(type=kinds[0], message=message, traceback=text, retryable=False), kinds)


def unmeasured() -> Failed:
    """A memory limit that nobody could hold fails its call before it begins."""
    message = (
        "memory limit: /proc is mounted with hidepid and has hidden this isolate from its start on, so nobody can tell how much it holds. "
        "Mount /proc without hidepid, or with gid= of a group that this program is in; use a Python that everybody may read and that has "
        "no capabilities of its own (setcap); or give no memory limit."
    )
    kinds = tuple(f"builtins.{cls.__name__}" for cls in RuntimeError.__mro__)
    return Failed(TaskError(type=kinds[0], message=message, traceback="", retryable=False), kinds)


def of_ending(isolate: Isolate, ending: Ending, started: bool, end: Exit) -> Outcome:
    """Of the call that was in the isolate, whose exit is confirmed. For every ending but `NeverStarted`, whose call runs elsewhere, and
    `Died` (`of_death`)."""
    call = isolate.call
    assert call is not None
    match ending:
        case Answered(outcome):
            return outcome
        case Ended(Cause.LIMIT | Cause.SILENCE) | EndedByKeeper():
            # Where the keeper enforced, the alarm has not rung here: whichever limit came first is the one that it saw in the row.
            assert isolate.deadlines is not None
            return isolate.deadlines.time_out(isolate.last_stack(), end.signalled_at, end.died_at, end.killed)
        case Ended(Cause.MEMORY):
            return MemoryExceeded(call.job.limits.memory or 0, isolate.memory_used)
        case Ended(cause):
            return of_cause(cause, call.stop, started, end, isolate.stderr())
    raise AssertionError(f"{ending} is no outcome")


def of_death(isolate: Isolate, end: Exit, starved: bool) -> Crashed:
    """The outcome of a call that ran there where nobody of ours killed it. `starved`: the kernel did, for want of memory."""
    return Crashed(end.exit_code, end.signal, isolate.stderr(), isolate.take_stack(), starved)


def boot_failure(isolate: Isolate, end: Exit, time_limit: float) -> str | None:
    """Why its boot failed; None where it had not."""
    if isolate.booted or isolate.life.cause in NOT_A_BOOT_FAILURE:
        return None
    if isolate.broken or isolate.stderr():
        return isolate.broken or isolate.stderr()
    if isolate.life.cause is Cause.BOOT_LIMIT:
        return f"the boot took longer than {time_limit:g} s\n{isolate.take_stack()}".strip()
    return f"the process died before it was ready: {end.signal or f'exit code {end.exit_code}'}"


def reason(isolate: Isolate, end: Exit) -> str:
    """Why there is one isolate less, for the notice of it."""
    if isolate.life.cause is not None:
        return isolate.life.cause.value
    return Cause.STATE.value if end.exit_code == RETIRED else "crashed"


def is_suspect(isolate: Isolate, end: Exit) -> bool:
    """Whether a call that had not begun there may itself be what brought the isolate down."""
    # One that had found what the call before changed past putting back says nothing about this one.
    retired = end.exit_code == RETIRED and isolate.calls > 1
    return isolate.life.cause not in (Cause.VERDICT, Cause.UNSENT, Cause.OPERATOR) and not retired
