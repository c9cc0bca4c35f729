"""The endings of calls: a reply, or the exit of its isolate, becomes the `Outcome` of a call.

    reply ─────────────────────────────────────────────────────> of_reply ───────┐
    exit confirmed, orphans swept ──> last frames ──> lifecycle ──> ExitHandler ─┴─> Outcome, or another isolate for a call not started

The functions are pure. `ExitHandler` acts: it reads what is left in the pipes, reports the outcome, and tells the allocator.
"""

from __future__ import annotations

import os
import traceback
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

import msgspec

from stem_iso.isolate import shared_row
from stem_iso.isolate.child.leftovers import RETIRED
from stem_iso.isolate.engine.call import REASSIGNMENTS
from stem_iso.isolate.engine.isolate import Isolate, signal_name
from stem_iso.isolate.engine.lifecycle import Answered, Cause, Died, Ended, EndedByKeeper, Ending, NeverStarted
from stem_iso.isolate.engine.memory import OomKills
from stem_iso.isolate.engine.shared_host.host import SharedHost
from stem_iso.isolate.interfaces import FAILED, REJECTED, RETRY, STOPPED, SUCCEEDED, TIMED_OUT, LimitNotice
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

if TYPE_CHECKING:
    from stem_iso.isolate.engine.isolates import Isolates

NOT_A_BOOT_FAILURE = frozenset({Cause.CLOSING, Cause.RESIZED, Cause.KEEPER_LOST})


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


UNKNOWN_EXIT = Exit()


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


class ExitHandler:
    """Used under the engine's lock."""

    def __init__(self, isolates: Isolates) -> None:
        self._isolates = isolates
        self.last_broken = ""  # the text of the newest boot failure
        self._oom_kills = OomKills()

    def spawning(self) -> None:
        """What the kernel kills from now on may be this one."""
        self._oom_kills.grew()

    def not_started(self, isolate: Isolate, why: str) -> None:
        """There never was a process."""
        isolate.broken = why
        self.gone(isolate, UNKNOWN_EXIT)

    def gone(self, isolate: Isolate, end: Exit) -> None:
        """The exit is confirmed and its descendants are dead."""
        isolate.died_at = isolate.died_at or end.died_at or monotonic()
        for fd in isolate.streams:
            self._isolates.hearing.stream(isolate, fd)
        self._isolates.hearing.last_words(isolate)
        if isinstance(isolate, SharedHost):
            self._host_gone(isolate, end)
            return
        started = isolate.page.started == isolate.call_number
        verdict = shared_row.verdict_on(self._isolates.link.table.verdict(isolate.seat), isolate.call_number)
        limit_at = isolate.deadlines.kill_at if isolate.deadlines else 0.0
        ending = isolate.life.exited(started=started, verdict=verdict, before_limit=end.before(limit_at))
        if ending is not None:
            self._tell(isolate, ending, started, end)
        broken = self._broken(isolate, end)
        self.last_broken = broken or self.last_broken
        self._isolates.drop(isolate)
        fleet = self._isolates.fleet
        self._isolates.obey((fleet.gone if broken is None else fleet.boot_failed)(isolate.number, monotonic()))

    def _host_gone(self, host: SharedHost, end: Exit) -> None:
        host.life.exited(started=True, verdict=False)  # its calls are not the lifecycle's, which knows of one at a time
        broken, death = self._broken(host, end), self.death(host, end)
        self._isolates.hosting.gone(host, end, broken, death)
        self._isolates.drop(host)

    def _broken(self, isolate: Isolate, end: Exit) -> str | None:
        """Why its boot failed; None where it had not. Says so in a notice."""
        if isolate.booted or isolate.life.cause in NOT_A_BOOT_FAILURE:
            self._isolates.notice(isolate, "recycled", _reason(isolate, end))
            return None
        broken = isolate.broken or isolate.stderr() or self._how_it_died(isolate, end)
        self._isolates.notice(isolate, "boot-failed", "boot failed", broken)
        return broken

    def _tell(self, isolate: Isolate, ending: Ending, started: bool, end: Exit) -> None:
        match ending:
            case Answered(outcome):
                self._isolates.report(isolate, outcome)
            case NeverStarted():
                self._again(isolate, end)
            case Ended(Cause.LIMIT | Cause.SILENCE) | EndedByKeeper():
                self._report_limit(isolate, end)
            case Ended(Cause.MEMORY):
                assert isolate.call is not None
                self._isolates.report(isolate, MemoryExceeded(isolate.call.job.limits.memory or 0, isolate.memory_used))
            case Ended(cause):
                assert isolate.call is not None
                self._isolates.report(isolate, of_cause(cause, isolate.call.stop, started, end, isolate.stderr()))
            case Died():
                self._isolates.report(isolate, self.death(isolate, end))

    def death(self, isolate: Isolate, end: Exit) -> Crashed:
        """The outcome of a call that ran there where nobody of ours killed it."""
        starved = end.signal == "SIGKILL" and self._oom_kills.grew()
        return Crashed(end.exit_code, end.signal, isolate.stderr(), isolate.take_stack(), starved)

    def _how_it_died(self, isolate: Isolate, end: Exit) -> str:
        if isolate.life.cause is Cause.BOOT_LIMIT:
            return f"the boot took longer than {self._isolates.boot.time_limit:g} s\n{isolate.take_stack()}".strip()
        return f"the process died before it was ready: {end.signal or f'exit code {end.exit_code}'}"

    def _again(self, isolate: Isolate, end: Exit) -> None:
        call = self._isolates.release(isolate)
        # One that had found what the call before changed past putting back says nothing about this one.
        retired = end.exit_code == RETIRED and isolate.calls > 1
        call.tries += isolate.life.cause not in (Cause.VERDICT, Cause.UNSENT) and not retired
        if self._isolates.fleet.closed:
            self._isolates.end(call, Stopped(StopReason.SHUTDOWN, started=False))
        elif call.tries > REASSIGNMENTS:
            self._isolates.end(call, self.death(isolate, end))
        else:
            self._isolates.fleet.requeue(call, call.job.priority, call.arrival)

    def _report_limit(self, isolate: Isolate, end: Exit) -> None:
        call, deadlines = isolate.call, isolate.deadlines
        assert call is not None and deadlines is not None
        # Where the keeper enforced, the alarm has not rung here: whichever limit came first is the one that it saw in the row.
        outcome = deadlines.time_out(isolate.last_stack(), end.signalled_at, end.died_at, end.killed)
        notice = LimitNotice.of(outcome, call.job.title)
        self._isolates.hearing.soft_event(isolate)
        self._isolates.callbacks.append(lambda: call.caller.limit_reached(notice))
        self._isolates.report(isolate, outcome)


def _reason(isolate: Isolate, end: Exit) -> str:
    if isolate.life.cause is not None:
        return isolate.life.cause.value
    return Cause.STATE.value if end.exit_code == RETIRED else "crashed"
