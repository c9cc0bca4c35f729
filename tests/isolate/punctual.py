"""What the tests of processes that will not die ask of an engine: who is stuck, who is a zombie, and whether the others are served."""

from __future__ import annotations

from typing import Any

from stem_iso.isolate.interfaces import IsolateNotice
from stem_iso.isolate.keeper import process_tree
from stem_iso.outcome import Crashed, Outcome, Succeeded, TimedOut
from tests.isolate.calling import Calls

SECOND = 4.0  # what must be there within a second, on a machine that does other things as well

OTHERS: tuple[tuple[str, tuple[Any, ...], type[Outcome], dict[str, float]], ...] = (
    ("leave", (3,), Crashed, {}),
    ("echo", (1,), Succeeded, {}),
    ("sleep_long", (), TimedOut, {"hard": 0.2}),
)


def stuck(calls: Calls) -> list[IsolateNotice]:
    return [notice for notice in calls.notices if notice.action == "stuck"]


def keeper(calls: Calls) -> int:
    pid: int = calls.engine._isolates.keeper.pid
    return pid


def zombies(calls: Calls) -> list[int]:
    return [pid for pid in process_tree.children(keeper(calls)) if process_tree.state(pid) == "Z"]


def warm(calls: Calls, count: int) -> None:
    """So many isolates stand ready: no boot takes part in what is timed."""
    for each in [calls.start("sleep", 0.3) for _ in range(count)]:
        each.outcome()


def assert_others_are_punctual(calls: Calls) -> None:
    """Limits, crashes and replies of others are reported within milliseconds of when they are sent; seconds are allowed."""
    for name, args, kind, limits in OTHERS:
        call = calls.start(name, *args, **limits)
        assert isinstance(call.outcome(), kind)
        late = call.ended_at - call.sent_at - limits.get("hard", 0.0)
        assert late < SECOND, f"{name} was reported {late:.1f} s late"
