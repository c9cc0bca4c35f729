"""A result at the instant of its kill: one outcome each, and no success whose handler had not finished.

`STEM_ISO_RACES` calls each (200; thousands by hand): `make races`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

from stem_iso.outcome import Outcome, Stopped, StopReason, Succeeded, TimedOut
from tests.isolate.calling import Calls, Recorder

RACES = int(os.environ.get("STEM_ISO_RACES", "200"))
LIMIT, WINDOW, STEP = 0.05, 0.002, 0.0001


class Steering:
    """Moves the calls' end to where the outcomes are even, within two milliseconds of the limit."""

    def __init__(self, ledger: Path) -> None:
        self.ledger = ledger
        self.offset = 0.0
        self.succeeded: set[int] = set()
        self.killed = 0

    def judge(self, number: int, outcomes: list[Outcome], expected: type) -> None:
        (outcome,) = outcomes
        if isinstance(outcome, Succeeded):
            self.succeeded.add(number)
            self.offset = min(WINDOW, self.offset + STEP)
        else:
            assert isinstance(outcome, expected), outcome
            self.killed += 1
            self.offset = max(-WINDOW, self.offset - STEP)

    def conclude(self) -> None:
        lines = self.ledger.read_text().split("\n")[:-1]
        assert len(lines) == len(set(lines)), "a call ran twice"
        assert {f"end {number}" for number in self.succeeded} <= set(lines), "a success whose handler had not finished"
        assert len(self.succeeded) >= RACES // 10, f"{len(self.succeeded)} succeeded"
        assert self.killed >= RACES // 10, f"{self.killed} were killed"


def run(calls: Calls, steering: Steering, expected: type, start: Callable[[int], Recorder]) -> None:
    for number in range(RACES):
        recorder = start(number)
        recorder.outcome()
        steering.judge(number, recorder.outcomes, expected)
    steering.conclude()


@pytest.mark.timeout(3600)
def test_a_result_at_the_instant_of_the_hard_limit(engines: Callable[..., Calls], tmp_path: Path) -> None:
    calls, steering = engines(size=1, spares=1), Steering(tmp_path / "ledger")
    run(
        calls,
        steering,
        TimedOut,
        lambda number: calls.start("until_limit", str(steering.ledger), number, steering.offset, hard=LIMIT),
    )


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("reason", [StopReason.REVOKED, StopReason.SHUTDOWN])
def test_a_result_at_the_instant_of_a_stop(engines: Callable[..., Calls], tmp_path: Path, reason: StopReason) -> None:
    calls, steering = engines(size=1, spares=1), Steering(tmp_path / "ledger")

    def start(number: int) -> Recorder:
        end = monotonic() + LIMIT
        recorder = calls.start("until", str(steering.ledger), number, end + steering.offset)
        while monotonic() < end:  # a sleep wakes later than the window is wide
            pass
        calls.engine.stop(recorder.call, reason)  # type: ignore[attr-defined]
        return recorder

    run(calls, steering, Stopped, start)
