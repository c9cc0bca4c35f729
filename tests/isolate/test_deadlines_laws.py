"""The clocks of one call."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_iso.isolate.deadlines import ASK_BEFORE, ASK_EARLY, Alarm, Deadlines
from stem_iso.isolate.job import Limits

seconds = st.floats(0.001, 100)
limits = st.tuples(st.none() | seconds, st.none() | seconds, st.none() | seconds).map(
    lambda drawn: Limits(None if drawn[1] is not None and drawn[0] is not None and drawn[0] >= drawn[1] else drawn[0], *drawn[1:])
)


@given(limits, st.lists(st.floats(0, 50), max_size=20), st.sets(st.integers(0, 19)))
def test_each_alarm_rings_once_in_order_and_none_after_the_kill(given_limits: Limits, steps: list[float], beats: set[int]) -> None:
    clock, now, rung = Deadlines(given_limits, 1000.0), 1000.0, []
    for number, step in enumerate([*steps, 200.0]):
        now += step
        assert clock.next_at == inf or clock.due(min(now, clock.next_at - 1e-6)) == [], "nothing rings before its time"
        if number in beats and number < len(steps):
            clock.beat(now)
        rung += clock.due(now)
        assert clock.next_at > now, "whatever was due has rung"
    kills = [alarm for alarm in rung if alarm in (Alarm.HARD, Alarm.SILENCE)]
    assert len(kills) == (given_limits.hard is not None or given_limits.heartbeat is not None)
    assert rung.count(Alarm.SOFT) <= 1
    assert not kills or rung[-1] is kills[0]
    if given_limits.soft is not None and not kills:
        assert Alarm.SOFT in rung


@given(seconds)
def test_the_stack_is_asked_for_just_before_the_kill(hard: float) -> None:
    clock = Deadlines(Limits(hard=hard), 50.0)
    asked = max(50.0, 50.0 + hard - ASK_BEFORE)
    early = clock.next_at
    if hard > 2 * ASK_BEFORE + 1e-6:
        assert early == pytest.approx(max(50.0 + hard / 2, 50.0 + hard - ASK_EARLY)), (
            "and once before, for a machine on which it takes long"
        )
        assert clock.due(early) == [Alarm.EARLY_STACK]
    assert clock.next_at == asked
    assert clock.due(asked) == [Alarm.STACK]
    assert clock.due(50.0 + hard) == [Alarm.HARD]
    assert clock.next_at == inf


def test_a_clock_that_is_looked_at_late_asks_for_one_stack() -> None:
    clock = Deadlines(Limits(hard=1), 0.0)
    assert clock.due(0.99) == [Alarm.STACK]
    assert clock.next_at == 1.0


def test_heartbeats_do_not_ask_again_for_the_stack_of_a_hard_limit() -> None:
    clock = Deadlines(Limits(hard=1, heartbeat=10), 0.0)
    rung = []
    for beat in range(100):
        clock.beat(beat / 100)
        rung += clock.due(beat / 100)
    assert rung == [Alarm.EARLY_STACK, Alarm.STACK]


def test_a_heartbeat_moves_the_silence_limit_and_not_the_hard_one() -> None:
    clock = Deadlines(Limits(hard=10, heartbeat=2), 0.0)
    assert clock.kill_at == 2
    clock.beat(1.5)
    assert clock.kill_at == 3.5
    clock.beat(9.5)
    assert clock.kill_at == 10
    assert Alarm.HARD in clock.due(10.0)


def test_without_limits_nothing_ever_rings() -> None:
    clock = Deadlines(Limits(), 0.0)
    assert clock.next_at == inf
    assert clock.due(1e9) == []
