"""The deadlines of one call."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_iso.isolate.engine.deadlines import EARLY_STACK_BEFORE, STACK_BEFORE, Alarm, Deadlines
from stem_iso.isolate.interfaces import Limits
from stem_iso.outcome import TimedOut

seconds = st.floats(0.001, 100)
limits = st.tuples(st.none() | seconds, st.none() | seconds, st.none() | seconds).map(
    lambda drawn: Limits(None if drawn[1] is not None and drawn[0] is not None and drawn[0] >= drawn[1] else drawn[0], *drawn[1:])
)


@given(limits, st.lists(st.floats(0, 50), max_size=20), st.sets(st.integers(0, 19)))
def test_each_alarm_rings_once_in_order_and_none_after_the_kill(given_limits: Limits, steps: list[float], beats: set[int]) -> None:
    clock, now, alarms = Deadlines(given_limits, 1000.0), 1000.0, []
    for number, step in enumerate([*steps, 200.0]):
        now += step
        assert clock.next_at == inf or clock.due(min(now, clock.next_at - 1e-6)) == [], "nothing rings before its time"
        if number in beats and number < len(steps):
            clock.beat(now)
        alarms += clock.due(now)
        assert clock.next_at > now, "whatever was due has rung"
    kills = [alarm for alarm in alarms if alarm in (Alarm.HARD, Alarm.SILENCE)]
    assert len(kills) == (given_limits.hard is not None or given_limits.heartbeat is not None)
    assert alarms.count(Alarm.SOFT) <= 1
    assert not kills or alarms[-1] is kills[0]
    if given_limits.soft is not None and not kills:
        assert Alarm.SOFT in alarms


@given(seconds)
def test_the_stack_is_asked_for_just_before_the_kill(hard: float) -> None:
    clock = Deadlines(Limits(hard=hard), 50.0)
    asked = max(50.0, 50.0 + hard - STACK_BEFORE)
    early = clock.next_at
    if hard > 2 * STACK_BEFORE + 1e-6:
        assert early == pytest.approx(max(50.0 + hard / 2, 50.0 + hard - EARLY_STACK_BEFORE)), (
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
    alarms = []
    for beat in range(100):
        clock.beat(beat / 100)
        alarms += clock.due(beat / 100)
    assert alarms == [Alarm.EARLY_STACK, Alarm.STACK]


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


@pytest.mark.parametrize("late", [0.0, 0.05])
@pytest.mark.parametrize(("heartbeat", "kill"), [(None, Alarm.HARD), (2.0, Alarm.SILENCE)])
def test_a_clock_that_asks_for_no_stack_has_no_alarm_for_it_and_one_that_watches_is_late(
    late: float, heartbeat: float | None, kill: Alarm
) -> None:
    clock = Deadlines(Limits(soft=1, hard=3, heartbeat=heartbeat), 50.0, early_stack=False, late=late)
    ends_at = 50.0 + (heartbeat or 3)
    assert clock.next_at == 51.0 + late and clock.due(clock.next_at) == [Alarm.SOFT]
    assert clock.kill_at == ends_at
    assert clock.next_at == ends_at + late and clock.due(clock.next_at) == [kill]
    assert (clock.over, clock.kill_at, clock.next_at) == (True, ends_at, inf)


def test_what_cannot_be_ended_has_a_soft_limit_only() -> None:
    clock = Deadlines(Limits(soft=1, hard=2, heartbeat=0.5), 0.0, ends=False)
    assert not clock.beat(0.2)
    assert clock.due(9.0) == [Alarm.SOFT]
    assert (clock.kill_at, clock.next_at) == (inf, inf)


def test_after_the_limit_that_ends_the_call_nothing_rings_or_moves_whoever_saw_it() -> None:
    for silent, limits in ((False, Limits(soft=1, hard=2)), (True, Limits(soft=5, hard=9, heartbeat=2))):
        by_alarm, by_report = Deadlines(limits, 0.0), Deadlines(limits, 0.0)
        assert by_alarm.due(2.0)[-1] is (Alarm.SILENCE if silent else Alarm.HARD)
        by_report.reach(2.0, silent=silent)
        for clock in (by_alarm, by_report):
            assert not clock.beat(2.1) and clock.due(99.0) == [] and clock.next_at == inf
            assert (clock.kill_at, clock.silent) == (2.0, silent)


def test_a_call_that_something_else_ends_may_still_reach_its_soft_limit() -> None:
    clock = Deadlines(Limits(soft=1, hard=2, heartbeat=2), 0.0)
    clock.drop_kill()
    assert not clock.beat(0.5)
    assert clock.due(9.0) == [Alarm.SOFT] and clock.next_at == inf


@pytest.mark.parametrize("by_alarm", [True, False])
def test_a_time_out_is_given_in_seconds_after_its_limit_also_where_the_keeper_saw_it_first(by_alarm: bool) -> None:
    clock = Deadlines(Limits(hard=10, heartbeat=2), 100.0)
    clock.beat(101.0)
    if by_alarm:
        assert clock.due(103.0) == [Alarm.STACK, Alarm.SILENCE]
    assert clock.time_out("here", 103.5, 104.0, ((7, "it"),)) == TimedOut(2, 4.0, "here", 0.5, 1.0, ((7, "it"),), True)
    assert clock.time_out("", 0.0, 102.5).signalled_at == 0.0, "nobody saw the signal"
