"""How each hostile handler must end, whatever else the machine does. The one list of them: who is missing here is missing everywhere."""

from __future__ import annotations

from dataclasses import dataclass

from stem_iso import TaskState, TaskStatus

TIMEOUT, CRASH = "stem_iso.errors.TimeoutException", "stem_iso.errors.IsolateCrashed"
RESULT = "a result that cannot be stored"


@dataclass(frozen=True)
class Ends:
    """`error`: the type, None for a success. `how`: the signal or exit code of a crash, or a word of the message or result."""

    error: str | None
    how: str | int | None = None

    def complaint(self, status: TaskStatus) -> str:
        """What is wrong; empty if nothing is."""
        if self.error is None:
            return "" if status.state is TaskState.SUCCEEDED and status.result == self.how else described(status)
        error = status.error
        if status.state is not TaskState.FAILED or error is None or (self.error != RESULT and error.type != self.error):
            return described(status)
        if self.how is not None and self.how not in (error.signal, error.exit_code) and str(self.how) not in error.message:
            return described(status)
        return ""


@dataclass(frozen=True)
class Either:
    endings: tuple[Ends, ...]

    def complaint(self, status: TaskStatus) -> str:
        return "" if any(not each.complaint(status) for each in self.endings) else described(status)


def described(status: TaskStatus) -> str:
    error = status.error
    ending = f"{error.type}: {error.message} (signal {error.signal}, exit code {error.exit_code})" if error else repr(status.result)[:100]
    return f"{status.state}, {status.reason}, {ending}"


ALONE = [
    "loop",
    "sums",
    "regex",
    "sleep",
    "blocked_read",
    "deaf",
    "ignores",
    "handlers",
    "swallow",
    "flood",
    "blank_lines",
    "stops_itself",
    "hog",
    "threads",
]
COMPANY = ["children", "daemon", "vfork", "vfork_child", "subprocesses", "threads_that_fork", "two_hundred", "hops"]
APART = ["no_subreaper", "clone_parent", "tracing_daemon"]  # what they start is nobody's child that the isolate could know
COMPANY += APART
STORMS = ["storm", "storm_chain", "storm_sessions"]
# They block or replace what answers the request for a stack, have a tracer that keeps it from them, or leave it no time to come.
WITHOUT_STACK = {"tracing_daemon", "deaf", "ignores", "handlers", "stops_itself", "vfork", "threads", "threads_that_fork", *STORMS}

EXPECTED: dict[str, Ends | Either] = {
    **dict.fromkeys((*ALONE, *COMPANY, *STORMS), Ends(TIMEOUT)),
    "hog_limited": Ends("stem_iso.errors.MemoryLimitExceeded"),
    "segfault": Ends(CRASH, "SIGSEGV"),
    "exit_zero": Ends(CRASH, 0),
    "abort": Ends(CRASH, "SIGABRT"),
    "kill_group": Ends(CRASH, "SIGKILL"),
    "close_all": Ends(CRASH, 1),
    "sys_exit": Ends("SystemExit"),
    "unserialisable": Ends(RESULT, "object"),
    "unpicklable": Ends("entrypoints.hostile.endings.Unpicklable"),
    "unreducible": Ends("entrypoints.hostile.endings.Unreducible"),
    "mute": Ends("entrypoints.hostile.endings.Mute"),
    "big": Ends(RESULT, "max_result_bytes"),
    "progress_flood": Ends("stem_iso.errors.PayloadTooLarge"),
    "meta_flood": Ends("stem_iso.errors.PayloadTooLarge"),
    "threads_left": Ends(None, "threads left behind"),
    "daemon_left": Ends(None, "a daemon left behind"),
    **{f"{name}_left": Ends(None, "a daemon left behind") for name in APART},
    "state_left": Ends(None, "state left behind"),
    "garbage": Either((Ends(None, "garbage written"), Ends(CRASH))),
}
HELD = {"foreign_child", "frozen_child", "debugged"}  # until they are let go; then they end at their limit
OUTWARD = {"kill_keeper", "stop_keeper", "kill_core", "stop_core"}
# What they leave is no descendant that the end could wait for: it has a second.
LATER = {f"{name}_left" for name in APART}
