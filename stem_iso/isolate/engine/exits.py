"""The exit of an isolate: what it means for its call, and for the allocator.

exit confirmed, orphans swept ──> last frames ──> lifecycle ──> Outcome, or another isolate for a call that never started
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from stem_iso.isolate import shared_row
from stem_iso.isolate.child.leftovers import RETIRED
from stem_iso.isolate.engine import endings
from stem_iso.isolate.engine.call import REASSIGNMENTS
from stem_iso.isolate.engine.endings import UNKNOWN_EXIT, Exit
from stem_iso.isolate.engine.isolate import Isolate
from stem_iso.isolate.engine.lifecycle import Answered, Cause, Died, Ended, EndedByKeeper, Ending, NeverStarted
from stem_iso.isolate.engine.memory import OomKills
from stem_iso.isolate.engine.shared_host.host import SharedHost
from stem_iso.isolate.interfaces import LimitNotice
from stem_iso.outcome import Crashed, MemoryExceeded, Stopped, StopReason

if TYPE_CHECKING:
    from stem_iso.isolate.engine.isolates import Isolates

NOT_A_BOOT_FAILURE = frozenset({Cause.CLOSING, Cause.RESIZED, Cause.KEEPER_LOST})


class ExitHandler:
    """Used under the engine's lock."""

    def __init__(self, crew: Isolates) -> None:
        self._crew = crew
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
            self._crew.hearing.stream(isolate, fd)
        self._crew.hearing.last_words(isolate)
        if isinstance(isolate, SharedHost):
            self._host_gone(isolate, end)
            return
        started = isolate.page.started == isolate.call_number
        verdict = shared_row.verdict_on(self._crew.link.table.verdict(isolate.seat), isolate.call_number)
        limit_at = isolate.deadlines.kill_at if isolate.deadlines else 0.0
        ending = isolate.life.exited(started=started, verdict=verdict, before_limit=end.before(limit_at))
        if ending is not None:
            self._tell(isolate, ending, started, end)
        broken = self._broken(isolate, end)
        self.last_broken = broken or self.last_broken
        self._crew.drop(isolate)
        fleet = self._crew.fleet
        self._crew.obey((fleet.gone if broken is None else fleet.boot_failed)(isolate.number, monotonic()))

    def _host_gone(self, host: SharedHost, end: Exit) -> None:
        host.life.exited(started=True, verdict=False)  # its calls are not the lifecycle's, which knows of one at a time
        broken, death = self._broken(host, end), self.death(host, end)
        self._crew.hosting.gone(host, end, broken, death)
        self._crew.drop(host)

    def _broken(self, isolate: Isolate, end: Exit) -> str | None:
        """Why its boot failed; None where it had not. Says so in a notice."""
        if isolate.booted or isolate.life.cause in NOT_A_BOOT_FAILURE:
            self._crew.notice(isolate, "recycled", _reason(isolate, end))
            return None
        broken = isolate.broken or isolate.stderr() or self._how_it_died(isolate, end)
        self._crew.notice(isolate, "boot-failed", "boot failed", broken)
        return broken

    def _tell(self, isolate: Isolate, ending: Ending, started: bool, end: Exit) -> None:
        match ending:
            case Answered(outcome):
                self._crew.report(isolate, outcome)
            case NeverStarted():
                self._again(isolate, end)
            case Ended(Cause.LIMIT | Cause.SILENCE) | EndedByKeeper():
                self._report_limit(isolate, end)
            case Ended(Cause.MEMORY):
                assert isolate.call is not None
                self._crew.report(isolate, MemoryExceeded(isolate.call.job.limits.memory or 0, isolate.memory_used))
            case Ended(cause):
                assert isolate.call is not None
                self._crew.report(isolate, endings.of_cause(cause, isolate.call.stop, started, end, isolate.stderr()))
            case Died():
                self._crew.report(isolate, self.death(isolate, end))

    def death(self, isolate: Isolate, end: Exit) -> Crashed:
        """The outcome of a call that ran there where nobody of ours killed it."""
        starved = end.signal == "SIGKILL" and self._oom_kills.grew()
        return Crashed(end.exit_code, end.signal, isolate.stderr(), isolate.take_stack(), starved)

    def _how_it_died(self, isolate: Isolate, end: Exit) -> str:
        if isolate.life.cause is Cause.BOOT_LIMIT:
            return f"the boot took longer than {self._crew.boot.time_limit:g} s\n{isolate.take_stack()}".strip()
        return f"the process died before it was ready: {end.signal or f'exit code {end.exit_code}'}"

    def _again(self, isolate: Isolate, end: Exit) -> None:
        call = self._crew.release(isolate)
        # One that had found what the call before changed past putting back says nothing about this one.
        retired = end.exit_code == RETIRED and isolate.calls > 1
        call.tries += isolate.life.cause not in (Cause.VERDICT, Cause.UNSENT) and not retired
        if self._crew.fleet.closed:
            self._crew.end(call, Stopped(StopReason.SHUTDOWN, started=False))
        elif call.tries > REASSIGNMENTS:
            self._crew.end(call, self.death(isolate, end))
        else:
            self._crew.fleet.requeue(call, call.job.priority, call.arrival)

    def _report_limit(self, isolate: Isolate, end: Exit) -> None:
        call, deadlines = isolate.call, isolate.deadlines
        assert call is not None and deadlines is not None
        # Where the keeper enforced, the alarm has not rung here: whichever limit came first is the one that it saw in the row.
        outcome = deadlines.time_out(isolate.last_stack(), end.signalled_at, end.died_at, end.killed)
        notice = LimitNotice.of(outcome, call.job.title)
        self._crew.hearing.soft_event(isolate)
        self._crew.told.append(lambda: call.caller.limit_reached(notice))
        self._crew.report(isolate, outcome)


def _reason(isolate: Isolate, end: Exit) -> str:
    if isolate.life.cause is not None:
        return isolate.life.cause.value
    return Cause.STATE.value if end.exit_code == RETIRED else "crashed"
