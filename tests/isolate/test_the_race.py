"""A result at the instant of its kill: one outcome each, and no success whose handler had not finished.

`STEM_ISO_RACES` calls at the hard limit, a fifth of it at each kind of stop (100; ten thousand by hand): `make races`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

from stem_iso.outcome import Outcome, Stopped, StopReason, Succeeded, TimedOut
from tests.isolate.calling import Calls, Recorder
from tests.isolate.counting import Counters

RACES = int(os.environ.get("STEM_ISO_RACES", "100"))
STOPS = max(40, RACES // 5)
LIMIT, STEP = 0.03, 0.0001
AT_LIMIT, AT_STOP = 0.002, 0.005  # a stop comes from a thread of this process, which may get its turn late
MOST = 4  # times as many calls, at most, where a machine that is busy elsewhere gives one ending too small a share
KILLS = 4  # steps back for each kill: one call in five is killed, since a fresh isolate costs more than a call


class Steering:
    """Moves the calls' end, at most `window` seconds from the limit, to where one in five is killed; compares outcomes with counters."""

    def __init__(self, path: Path, calls: int, window: float) -> None:
        self.path, self.wanted, self._window = path, calls, window
        self._counters = Counters(path, MOST * calls)
        self.offset = 0.0
        self.succeeded = self.killed = self.killed_when_done = 0

    def judge(self, number: int, outcomes: list[Outcome], expected: type) -> None:
        (outcome,) = outcomes
        _, begun, done = self._counters.of(number)
        assert begun <= 1 and done <= 1, "a call ran twice"
        if isinstance(outcome, Succeeded):
            assert (begun, done) == (1, 1), "a success whose handler had not finished"
            self.succeeded += 1
            self.offset = min(self._window, self.offset + STEP)
        else:
            assert isinstance(outcome, expected), outcome
            self.killed += 1
            self.killed_when_done += done  # between its last act and its reply: the window that no protocol can close
            self.offset = max(-self._window, self.offset - KILLS * STEP)

    @property
    def decided(self) -> bool:
        ended = self.succeeded + self.killed
        return ended >= self.wanted and (min(self.succeeded, self.killed) >= self.wanted // 10 or ended >= MOST * self.wanted)

    def conclude(self) -> None:
        print(f"{self.succeeded} succeeded, {self.killed} were killed, {self.killed_when_done} of them when all was done but the reply")
        assert min(self.succeeded, self.killed) >= self.wanted // 10, "it was no race"


def run(steering: Steering, expected: type, start: Callable[[int], Recorder]) -> None:
    number = 0
    while not steering.decided:
        recorder = start(number)
        recorder.outcome()
        steering.judge(number, recorder.outcomes, expected)
        number += 1
    steering.conclude()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_result_at_the_instant_of_the_hard_limit(engines: Callable[..., Calls], tmp_path: Path) -> None:
    calls, steering = engines(size=1, spares=1), Steering(tmp_path / "counters", RACES, AT_LIMIT)

    def start(number: int) -> Recorder:
        return calls.start("count_until_limit", str(steering.path), number, steering.offset, hard=LIMIT)

    run(steering, TimedOut, start)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("reason", [StopReason.REVOKED, StopReason.SHUTDOWN])
def test_a_result_at_the_instant_of_a_stop(engines: Callable[..., Calls], tmp_path: Path, reason: StopReason) -> None:
    calls, steering = engines(size=1, spares=1), Steering(tmp_path / "counters", STOPS, AT_STOP)

    def start(number: int) -> Recorder:
        end = monotonic() + LIMIT
        recorder = calls.start("count_until", str(steering.path), number, end + steering.offset)
        while monotonic() < end:  # a sleep wakes later than the window is wide
            pass
        calls.engine.stop(recorder.call, reason)  # type: ignore[attr-defined]
        return recorder

    run(steering, Stopped, start)
