"""The life of one isolate, as a pure state machine.

               ready          assigned
    BOOTING ---------> IDLE ----------> BUSY
       |                 ^  <---------- /
       |                 |    replied  /          (a reply with leftovers: killed at once, reported at the exit)
       |   killed        |            /
       +--------------> DYING <------+
                         |
                         | exited (from any state)
                         v
                        GONE

Rules
 1. No clock, no pipe, no process here.
 2. A call is reported once: at its reply, or, once a kill has begun, when the exit is confirmed; until then the handler may still
    have effects, and a retry elsewhere would run beside it.
 3. A complete reply wins over whatever killed the isolate, also when it is read after the signal. The driver drains the pipe before it
    says `exited`.
 4. The first cause stands; a later one changes nothing.
 5. Nothing is assigned after `killed`: a kill has begun.
 6. A process that ended before its limit crashed, also where the death was seen after the limit (a core that was stopped, or without GIL).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from stem_iso.outcome import Outcome


class State(Enum):
    __hash__ = object.__hash__  # of the C level: Enum's own hashes the name, in Python, at every step of the table

    BOOTING = "booting"
    IDLE = "idle"
    BUSY = "busy"
    DYING = "dying"
    GONE = "gone"


class Cause(Enum):
    """Why the core kills an isolate. The first group ends the call that runs there; the second finds none, or an answered one."""

    LIMIT = "hard limit"
    SILENCE = "heartbeat timeout"
    MEMORY = "memory limit"
    STOPPED = "stopped"  # revoke, shutdown, a lost lease: the driver knows which
    GARBAGE = "garbage on the call pipe"
    KEEPER_LOST = "keeper lost"
    OPERATOR = "killed by an operator"
    VERDICT = "verdict stands"  # the keeper had judged the call before; this one was not sent

    UNSENT = "its submitter was interrupted"  # the call may not have reached it

    LEFTOVERS = "leftovers"
    STATE = "process state"  # a call changed what cannot be put back
    MAX_CALLS = "max calls"
    MAX_MEMORY = "max memory"
    BOOT_LIMIT = "boot limit"
    RESIZED = "resized"
    DRAINED = "drained"  # an inline host that takes no more, and where nothing runs that is worth waiting for
    CLOSING = "closing"


class Seen(Enum):
    __hash__ = object.__hash__

    READY = "ready"
    ASSIGNED = "assigned"
    REPLIED = "replied"
    KILLED = "killed"
    EXITED = "exited"


NEXT: dict[State, dict[Seen, State]] = {
    State.BOOTING: {Seen.READY: State.IDLE, Seen.KILLED: State.DYING, Seen.EXITED: State.GONE},
    State.IDLE: {Seen.ASSIGNED: State.BUSY, Seen.KILLED: State.DYING, Seen.EXITED: State.GONE},
    State.BUSY: {Seen.REPLIED: State.IDLE, Seen.KILLED: State.DYING, Seen.EXITED: State.GONE},
    State.DYING: {Seen.READY: State.DYING, Seen.REPLIED: State.DYING, Seen.KILLED: State.DYING, Seen.EXITED: State.GONE},
    State.GONE: {},
}


class IllegalTransition(RuntimeError):
    """The driver saw something that cannot happen in this state. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The handler's own reply, complete."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Ended:
    """The core ended it, for this cause."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class EndedByKeeper:
    """The keeper enforced the limit in the core's place."""


@dataclass(frozen=True, slots=True)
class NeverStarted:
    """It had not begun and nobody had ended it: another isolate runs it."""


@dataclass(frozen=True, slots=True)
class Died:
    """The process went away under it."""


Ending = Answered | Ended | EndedByKeeper | NeverStarted | Died

LIMITS = frozenset({Cause.LIMIT, Cause.SILENCE})
RETIRING = frozenset({Cause.MAX_CALLS, Cause.MAX_MEMORY, Cause.RESIZED, Cause.DRAINED, Cause.CLOSING})  # of an idle one: it may leave
CALL_ENDING = frozenset({Cause.LIMIT, Cause.SILENCE, Cause.MEMORY, Cause.STOPPED, Cause.GARBAGE})


class Lifecycle:
    """State of one isolate. Owned by the engine, under its lock."""

    __slots__ = ("cause", "reply", "state", "working")

    def __init__(self) -> None:
        self.state = State.BOOTING
        self.working = False  # a call is here and not reported
        self.reply: Outcome | None = None
        self.cause: Cause | None = None

    def _move(self, seen: Seen) -> State:
        before = self.state
        try:
            self.state = NEXT[before][seen]
        except KeyError:
            raise IllegalTransition(f"{seen.value} while {before.value}") from None
        return before

    def ready(self) -> None:
        self._move(Seen.READY)

    def assigned(self) -> None:
        self._move(Seen.ASSIGNED)
        self.working = True

    def replied(self, outcome: Outcome) -> Outcome | None:
        """The outcome to report now, or None: it is kept for the exit (or is a second reply, which is garbage and counts for nothing)."""
        before = self._move(Seen.REPLIED)
        if before is State.DYING:
            if self.working and self.reply is None:
                self.reply = outcome
            return None
        self.working = False
        return outcome

    def keep(self, outcome: Outcome) -> bool:
        """A reply of a handler that left threads or processes behind: the end of the attempt includes their death. True: kill it now."""
        if self.state is not State.BUSY and self.state is not State.DYING:
            raise IllegalTransition(f"kept while {self.state.value}")
        if self.working and self.reply is None:
            self.reply = outcome
        return self.killed(Cause.LEFTOVERS)

    def killed(self, cause: Cause) -> bool:
        """True: kill it now. False: it is dying already, or gone."""
        if self.state is State.GONE:
            return False
        if self._move(Seen.KILLED) is State.DYING:
            return False
        self.cause = cause
        return True

    def exited(self, *, started: bool, verdict: bool, before_limit: bool = False) -> Ending | None:
        """The exit is confirmed and the pipe drained. `started`: the isolate held the call's whole frame; `verdict`: the keeper's names it;
        `before_limit`: it had ended before anybody killed it for a limit.

        None: no call was here.
        """
        self._move(Seen.EXITED)
        if not self.working:
            return None
        self.working = False
        if self.reply is not None:
            return Answered(self.reply)
        if before_limit and (self.cause in LIMITS or (self.cause is None and verdict)):
            return Died() if started else NeverStarted()
        if self.cause in CALL_ENDING:
            assert self.cause is not None
            return Ended(self.cause)
        if verdict:
            return EndedByKeeper()
        if not started:
            return NeverStarted()
        return Ended(self.cause) if self.cause is not None else Died()
