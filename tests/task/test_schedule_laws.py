"""When schedules come due: against a plain look at every minute of the days on which clocks change, and as laws of any schedule."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stem_iso.errors import InvalidOptions
from stem_iso.task import schedule as planning
from stem_iso.task.canvas.tree import Canvas, Leaf, Parallel, Series, last_of, lay, leaves
from stem_iso.task.envelope import Envelope, decode, encode
from stem_iso.task.schedule import MOST_MISSED, Schedule, due_times, fired, fires_at, next_due, plan, schedule_of

NOW = 1_800_000_000.0


def made(**given: Any) -> Schedule:
    given = {"cron": None, "timezone": None, "every": None, "jitter": None, "catch_up": "latest", **given}
    return schedule_of(given.pop("name", "nightly"), **given)


def local(at: float, zone: str) -> str:
    return datetime.fromtimestamp(at, ZoneInfo(zone)).strftime("%m-%d %H:%M %z")


def days(schedule: Schedule, start: str, zone: str, count: int) -> list[str]:
    after = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(zone)).timestamp() - 1
    return [local(at, zone) for at in islice(due_times(schedule, after), count)]


# -- clocks that change ----------------------------------------------------------------------------------------------------------------


def test_a_time_that_the_clock_skips_comes_right_after_the_gap() -> None:
    nightly = made(cron="30 2 * * *", timezone="Europe/Berlin")
    assert days(nightly, "2026-03-28", "Europe/Berlin", 3) == ["03-28 02:30 +0100", "03-29 03:00 +0200", "03-30 02:30 +0200"]


def test_a_time_that_comes_twice_counts_once() -> None:
    nightly = made(cron="30 2 * * *", timezone="Europe/Berlin")
    assert days(nightly, "2026-10-24", "Europe/Berlin", 3) == ["10-24 02:30 +0200", "10-25 02:30 +0200", "10-26 02:30 +0100"]


def test_in_the_second_of_two_equal_hours_the_first_is_past() -> None:
    nightly = made(cron="50 2 * * *", timezone="Europe/Berlin")
    second = datetime(2026, 10, 25, 2, 45, tzinfo=ZoneInfo("Europe/Berlin"), fold=1).timestamp()
    assert local(next_due(nightly, second), "Europe/Berlin") == "10-26 02:50 +0100"


def test_an_hourly_one_goes_by_real_hours() -> None:
    hourly = made(cron="0 * * * *", timezone="Europe/Berlin")
    start = datetime(2026, 10, 25, 0, 0, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    assert [at - start for at in islice(due_times(hourly, start - 1), 6)] == [0, 3600, 7200, 10800, 14400, 18000]


CHANGES = [
    ("Europe/Berlin", "2026-03-29T01:00"),
    ("Europe/Berlin", "2026-10-25T01:00"),
    ("America/New_York", "2026-03-08T07:00"),
    ("America/New_York", "2026-11-01T06:00"),
    ("America/Santiago", "2026-09-06T04:00"),
    ("America/Santiago", "2026-04-05T03:00"),
    ("Asia/Beirut", "2026-03-28T22:00"),
    ("Asia/Kolkata", "2026-03-29T01:00"),
    ("UTC", "2026-03-29T01:00"),
]
FIELDS = st.sampled_from(["0", "30", "0,30", "15", "*/20", "*"])
HOURS = st.sampled_from(["0", "1", "2", "3", "0-3", "1,2,3", "23", "*", "*/2"])


def by_looking(minute: str, hour: str, zone: str, start: int, end: int) -> list[float]:
    """What cron's manual says, minute by minute: wildcards in real time; fixed times once, those in a gap at its end."""
    minutes, hours = numbers(minute, 60), numbers(hour, 24)
    tz = ZoneInfo(zone)
    if minute.startswith("*") or hour.startswith("*"):
        looks = ((at, datetime.fromtimestamp(at, tz)) for at in range(start, end, 60))
        return [float(at) for at, look in looks if look.minute in minutes and look.hour in hours]
    found = set()
    wall = datetime.fromtimestamp(start, tz).replace(tzinfo=None, hour=0, minute=0) - timedelta(days=1)
    for number in range(((end - start) // 86_400 + 3) * 1440):
        naive = wall + timedelta(minutes=number)
        if naive.minute in minutes and naive.hour in hours:
            found.add(real(naive, tz))
    return sorted(at for at in found if start <= at < end)


def real(naive: datetime, tz: ZoneInfo) -> float:
    while (at := naive.replace(tzinfo=tz)) != at.astimezone(UTC).astimezone(tz):
        naive += timedelta(minutes=1)
    return at.timestamp()


def numbers(field: str, size: int) -> set[int]:
    if field.startswith("*"):
        return set(range(0, size, int(field[2:] or 1)))
    if "-" in field:
        first, last = map(int, field.split("-"))
        return set(range(first, last + 1))
    return set(map(int, field.split(",")))


@given(st.sampled_from(CHANGES), FIELDS, HOURS, st.one_of(st.integers(-90, 90), st.integers(-1440, 1440)))
@settings(max_examples=80, deadline=None)
def test_around_a_change_of_the_clock_they_are_those_of_the_manual(change: tuple[str, str], minute: str, hour: str, shift: int) -> None:
    zone, at = change
    instant = int(datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp())
    start, end = instant + shift * 60, instant + 2 * 86_400
    schedule = made(cron=f"{minute} {hour} * * *", timezone=zone)
    found = []
    for due in due_times(schedule, start - 1):
        if due >= end:
            break
        found.append(due)
    assert found == by_looking(minute, hour, zone, start, end)


# -- laws ------------------------------------------------------------------------------------------------------------------------------

EVERY = st.one_of(st.floats(0.1, 10), st.integers(1, 100_000).map(float))
CRON = st.builds(
    lambda minute, hour, zone: {"cron": f"{minute} {hour} * * *", "timezone": zone},
    FIELDS, HOURS, st.sampled_from(sorted({zone for zone, _ in CHANGES})),
)  # fmt: skip
SCHEDULES = st.builds(
    lambda when, jitter, catch_up, name: made(name=name, jitter=jitter, catch_up=catch_up, **when),
    st.one_of(EVERY.map(lambda seconds: {"every": seconds}), CRON),
    st.one_of(st.just(0.0), st.floats(0, 100_000)),
    st.sampled_from(planning.CATCH_UP),
    st.sampled_from(["nightly", "b", "c"]),
)
MOMENTS = st.floats(1_700_000_000, 1_900_000_000)


@given(SCHEDULES, MOMENTS)
@settings(max_examples=100, deadline=None)
def test_due_times_are_the_same_from_wherever_one_looks(schedule: Schedule, after: float) -> None:
    dues = list(islice(due_times(schedule, after), 8))
    assert all(one < two for one, two in pairwise([after, *dues]))
    for number, due in enumerate(dues[:-1]):
        assert next_due(schedule, due) == dues[number + 1]
        assert next_due(schedule, (due + dues[number + 1]) / 2) == dues[number + 1]


@given(SCHEDULES, MOMENTS, st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_the_latest_due_times_are_those_that_come_before_the_next(schedule: Schedule, after: float, most: int) -> None:
    dues = list(islice(due_times(schedule, after), 8))
    assert planning.latest_due(schedule, dues[-1], most) == dues[-1 - most : -1]


@given(st.sampled_from([{"every": 3600.0}, {"cron": "0 0 29 2 *"}, {"cron": "* * * * *"}]), MOMENTS)
@settings(max_examples=20, deadline=None)
def test_seldom_due_times_are_sought_within_bounds(when: dict[str, Any], before: float) -> None:
    schedule = msgspec.structs.replace(made(every=1), **{"every": None, **when})
    found = planning.latest_due(schedule, before, 5)
    assert all(due < before for due in found) and found == sorted(found)
    assert len(found) == 5 or (when == {"cron": "0 0 29 2 *"} and len(found) >= 2)


@given(SCHEDULES, MOMENTS)
@settings(max_examples=100, deadline=None)
def test_jitter_moves_a_firing_within_its_bound_and_past_no_other(schedule: Schedule, after: float) -> None:
    dues = list(islice(due_times(schedule, after), 5))
    for due, following in pairwise(dues):
        assert due <= fires_at(schedule, due) <= min(due + schedule.jitter, following)


def test_jitter_spreads_schedules_of_the_same_time() -> None:
    at = [fires_at(made(name=f"{number}", cron="0 0 * * *", jitter=3600), NOW - NOW % 86_400) for number in range(200)]
    spread = sorted(each % 3600 for each in at)
    assert spread[0] < 300 and spread[-1] > 3300 and 1500 < spread[100] < 2100


@given(SCHEDULES, MOMENTS, st.lists(st.floats(0, 20_000), min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_a_worker_that_looks_now_and_then_fires_each_at_most_once_in_order_and_never_early(
    schedule: Schedule, start: float, sleeps: list[float]
) -> None:
    due, now, firings = next_due(schedule, start), start, []
    for sleep in sleeps:
        now += sleep
        before = due
        planned = plan(schedule, due, now)
        firings += [(each, now) for each in planned.fire]
        due = planned.due
        assert planned.at == fires_at(schedule, due)
        assert all(before <= each < due for each in planned.fire)
        assert (planned.at > now) or schedule.catch_up == "all"
        assert (due == before) == (fires_at(schedule, before) > now)
    dues = [each for each, _ in firings]
    assert dues == sorted(set(dues))
    assert all(fires_at(schedule, each) <= at for each, at in firings)
    assert all(next_due(schedule, each - 0.01) == each for each in dues)


@given(SCHEDULES, MOMENTS)
@settings(max_examples=60, deadline=None)
def test_a_worker_that_looks_in_time_fires_each_whatever_the_policy(schedule: Schedule, start: float) -> None:
    due, fired_dues = next_due(schedule, start), []
    for _ in range(6):
        planned = plan(schedule, due, fires_at(schedule, due))
        fired_dues += planned.fire
        due = planned.due
    assert fired_dues == list(islice(due_times(schedule, start), 6))


# -- after a time without workers ------------------------------------------------------------------------------------------------------


def after_an_hour(catch_up: str, every: float = 600) -> tuple[list[float], float]:
    schedule = made(every=every, catch_up=catch_up)
    first = next_due(schedule, NOW)
    planned = plan(schedule, first, first + 3600.5)
    return [due - first for due in planned.fire], planned.due - first


def test_latest_fires_the_last_that_was_missed() -> None:
    assert after_an_hour("latest") == ([3600], 4200)


def test_all_fires_each_that_was_missed() -> None:
    assert after_an_hour("all") == ([0, 600, 1200, 1800, 2400, 3000, 3600], 4200)


def test_none_fires_what_is_a_few_seconds_late_and_no_more() -> None:
    assert after_an_hour("none") == ([3600], 4200)
    schedule = made(every=600, catch_up="none")
    first = next_due(schedule, NOW)
    assert plan(schedule, first, first + 60).fire == []
    assert plan(schedule, first, first + 4).fire == [first]


@pytest.mark.parametrize("when", [{"every": 1}, {"cron": "* * * * *"}, {"cron": "* * * * * *", "timezone": "Europe/Berlin"}])
def test_all_makes_up_the_newest_thousand_in_bites(when: dict[str, Any]) -> None:
    schedule = made(catch_up="all", **when)
    due = next_due(schedule, NOW)
    end = next_due(schedule, NOW + 3_000_000)
    made_up: list[float] = []
    while (planned := plan(schedule, due, end)).fire:
        assert len(planned.fire) <= planning.BATCH
        made_up += planned.fire
        due = planned.due
    assert len(made_up) == MOST_MISSED and made_up[-1] == end and made_up == sorted(set(made_up))
    assert made_up[1] == next_due(schedule, made_up[0])


def test_years_without_a_worker_are_looked_through_at_once() -> None:
    schedule = made(cron="* * * * * *", timezone="Europe/Berlin")
    asked = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal asked
        asked += frame.f_code.co_name == "__next__"

    sys.setprofile(count)
    try:
        assert plan(schedule, next_due(schedule, NOW - 10 * 365 * 86_400), NOW).fire == [NOW]
    finally:
        sys.setprofile(None)
    assert asked < 2000  # seconds of ten years are 315 million


# -- what is fired ---------------------------------------------------------------------------------------------------------------------


def template(**fields: Any) -> bytes:
    return encode(Envelope(id="", name="make", args=msgspec.Raw(b"\x80"), **fields))


def test_an_envelope_of_a_firing_is_fresh_and_says_where_it_is_from() -> None:
    call = template(headers={"x": 1}, not_before=30.0, expires=60.0, priority=7)
    (envelope,) = fired(msgspec.structs.replace(made(every=60), call=call), [NOW], NOW + 5)
    assert (envelope.enqueued_at, envelope.not_before, envelope.expires) == (NOW + 5, NOW + 35, NOW + 65)
    assert envelope.headers == {"x": 1, "schedule": "nightly", "due": "2027-01-15T08:00:00+00:00"}
    assert (envelope.name, envelope.priority, envelope.run, envelope.attempt) == ("make", 7, 0, 0)


@given(st.text(min_size=1), st.floats(0, 4e9))
def test_ids_follow_from_schedule_and_due_time_and_are_uuids_of_version_7(name: str, due: float) -> None:
    schedule = Schedule(name=name, every=60.0, call=template())
    ids = [envelope.id for envelope in fired(schedule, [due, due + 60], NOW)]
    assert ids == [envelope.id for envelope in fired(schedule, [due, due + 60], NOW + 99)]
    assert len(set(ids)) == 2
    other = Schedule(name=name + "x", every=60.0, call=template())
    assert not set(ids) & {envelope.id for envelope in fired(other, [due, due + 60], NOW)}
    for id in ids[:1]:
        uuid = UUID(id)
        assert (uuid.version, uuid.variant, uuid.int >> 80) == (7, "specified in RFC 4122", int(due * 1000))


@given(SCHEDULES)
@settings(max_examples=30)
def test_a_schedule_survives_its_way_through_a_broker(schedule: Schedule) -> None:
    assert planning.decode_schedule(planning.encode(schedule)) == schedule


def test_bytes_that_are_no_schedule_are_refused_as_such() -> None:
    with pytest.raises(InvalidOptions, match="no schedule"):
        planning.decode_schedule(b"\x93\x01")


# -- what cannot be meant --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give cron='0 3 \\* \\* \\*' or every=300"),
        ({"cron": "* * * * *", "every": 5}, "not both"),
        ({"cron": "* * * *"}, "cron: '\\* \\* \\* \\*' is no cron expression"),
        ({"cron": "61 * * * *"}, "Bad minute"),
        ({"cron": "1#2/2 * * * *"}, "cron: '1#2/2"),
        ({"cron": "* * * * 1#2/2"}, "cron: .* is no cron expression"),
        ({"cron": "@dayly"}, "did you mean '@daily'"),
        ({"cron": 5}, "cron: 5 is no cron expression"),
        ({"cron": "0 0 * * *", "timezone": "Europe/Berlni"}, "timezone: 'Europe/Berlni' .* did you mean 'Europe/Berlin'"),
        ({"cron": "0 0 * * *", "timezone": "../etc/passwd"}, "timezone: "),
        ({"cron": "0 0 * * *", "timezone": "Europe"}, "timezone: 'Europe'"),
        ({"cron": "0 0 * * *", "timezone": 2}, "timezone: 2 is no time zone"),
        ({"every": 5, "timezone": "UTC"}, "timezone: 'UTC' goes with cron"),
        ({"every": 0.05}, "every: 0.05 must be at least 0.1 s"),
        ({"every": "5"}, "every: '5' is no duration"),
        ({"every": 5, "jitter": -1}, "jitter: -1"),
        ({"every": 5, "catch_up": "some"}, "catch_up: 'some' must be one of 'latest', 'all', 'none'"),
        ({"every": 5, "name": ""}, "name: ''"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_field_and_value(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptions, match=message):
        made(**given)


def test_a_day_that_never_comes_is_refused() -> None:
    with pytest.raises(InvalidOptions, match=r"cron|never comes"):
        next_due(made(cron="0 0 31 2,4 *"), NOW)


def test_a_zone_may_be_given_as_an_object_and_a_cron_expression_by_its_nickname() -> None:
    daily = made(cron="@Daily", timezone=ZoneInfo("Asia/Tokyo"))
    assert local(next_due(daily, NOW), "Asia/Tokyo").endswith("00:00 +0900")
    assert planning.described(daily) == "@Daily Asia/Tokyo"


def test_without_cronsim_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(InvalidOptions, match=r"pip install 'stem_iso\[cron\]'"):
        made(cron="0 3 * * *")
    assert made(every=5).every == 5


def test_without_a_database_of_zones_the_error_says_what_to_install_and_utc_works(monkeypatch: pytest.MonkeyPatch) -> None:
    import zoneinfo

    monkeypatch.setattr(zoneinfo, "available_timezones", lambda: set())
    with pytest.raises(InvalidOptions, match="pip install tzdata"):
        made(cron="0 3 * * *", timezone="Nowhere/Atall")
    assert made(cron="0 3 * * *").timezone == "UTC"


def test_a_canvas_is_fired_whole_under_ids_of_its_own_each_time() -> None:
    tree = Series(parts=(Parallel(id="2", members=(_leaf("0"), _leaf("1"))), _leaf("3", _leaf("4"))))
    steps = [decode(template(not_before=1.0 if leaf.id == "0" else None)) for leaf in leaves(tree)]
    envelopes = [msgspec.structs.replace(step, id=leaf.id) for step, leaf in zip(steps, leaves(tree), strict=True)]
    schedule = msgspec.structs.replace(made(every=60), canvas=msgspec.msgpack.encode(lay(tree, envelopes)))
    first, second = fired(schedule, [NOW, NOW + 60], NOW)
    assert isinstance(first, Canvas) and isinstance(second, Canvas)
    again = fired(schedule, [NOW], NOW)[0]
    assert first == again
    assert planning.fired_id(schedule, NOW) == last_of(first.tree).id
    assert len({leaf.id for canvas in (first, second) for leaf in leaves(canvas.tree)}) == 8
    # What it is laid out as is what laying out the renamed tree gives: nothing points to an old id.
    fresh = lay(first.tree, [step.envelope for step in first.steps])
    assert (fresh.id, fresh.first, fresh.joins, fresh.steps) == (first.id, first.first, first.joins, first.steps)
    assert {step.envelope.root_id for step in first.steps} == {first.id}
    assert first.steps[0].envelope.not_before == NOW + 1.0
    assert all(step.envelope.headers["schedule"] == "nightly" for step in first.steps)


def _leaf(id: str, *on_error: Leaf) -> Leaf:
    return Leaf(id=id, name="make", queue="default", on_error=on_error)
