"""What a limit means, whoever counts: its law, and how it is written."""

from __future__ import annotations

from math import inf
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_iso import InvalidOptions, TaskOptions
from stem_iso.outcome import Rejected
from stem_iso.task.enqueue_options import Declared, EnqueueOptions, envelope_of
from stem_iso.task.envelope import Envelope, decode, encode
from stem_iso.task.policy import Policy, resolve_policy
from stem_iso.task.rate_limit import Rate, TaskLimits, wait

BARE = Envelope(id="t", name="thumbs.make", args=msgspec.Raw(b"\x80"))
LIMITED = TaskOptions(rate_limit="10/s", max_concurrency=3)


# -- the law ---------------------------------------------------------------------------------------------------------------------------


@given(
    count=st.integers(1, 5),
    period=st.floats(0.01, 100),
    asks=st.lists(st.floats(0, 50), min_size=1, max_size=60),
)
def test_in_no_window_of_the_period_begin_more_than_count(count: int, period: float, asks: list[float]) -> None:
    limits = TaskLimits("b", Rate(count, period))
    starts: list[float] = []
    now = 0.0
    for pause in asks:
        now += pause
        eldest = starts[-count] if len(starts) >= count else None
        left = wait(limits, now=now, running=0, ahead=0, began=eldest)
        if left == 0:
            starts.append(now)
        else:  # exactly then, and not before
            assert eldest is not None
            assert wait(limits, now=now + left * 0.5, running=0, ahead=0, began=eldest) > 0
            assert wait(limits, now=now + left + 1e-6, running=0, ahead=0, began=eldest) == 0
    for place, began in enumerate(starts):
        assert sum(began <= other < began + period - 1e-6 for other in starts[place:]) <= count


@given(most=st.integers(1, 5), running=st.integers(0, 8), ahead=st.integers(0, 8))
def test_those_that_run_and_those_that_were_called_are_never_more_than_may(most: int, running: int, ahead: int) -> None:
    left = wait(TaskLimits("b", concurrency=most), now=0.0, running=running, ahead=ahead, began=None)
    assert left == (0 if running + ahead < most else inf)


def test_of_two_limits_the_stricter_one_decides() -> None:
    both = TaskLimits("b", Rate(1, 10.0), 1)
    assert wait(both, now=5.0, running=0, ahead=0, began=0.0) == 5.0
    assert wait(both, now=5.0, running=1, ahead=0, began=0.0) == inf
    assert wait(both, now=50.0, running=1, ahead=0, began=0.0) == inf
    assert wait(both, now=50.0, running=0, ahead=0, began=0.0) == 0.0


# -- as it is written --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "count", "period"),
    [
        ("10/s", 10, 1.0),
        ("100/m", 100, 60.0),
        ("5/h", 5, 3600.0),
        ("1000/d", 1000, 86_400.0),
        ("500/10s", 500, 10.0),
        (" 10 / 2.5 seconds ", 10, 2.5),
        ("3 per minute", 3, 60.0),
        ("100/MIN", 100, 60.0),
        ("7/100ms", 7, 0.1),
        ("2/hours", 2, 3600.0),
    ],
)
def test_a_rate_is_read_as_people_write_it(written: str, count: int, period: float) -> None:
    assert TaskOptions(rate_limit=written).rate_limit == written.strip()
    assert Rate.read(written) == Rate(count, period)


@pytest.mark.parametrize(
    "value", ["", "10", "10/", "/s", "0/s", "-1/s", "0.5/s", "10/0s", "10/fortnight", "200000/s", "10/900d", 10, 2.5, True]
)
def test_what_is_no_rate_is_refused_with_the_way_out(value: Any) -> None:
    with pytest.raises(InvalidOptions, match=r"rate_limit: .*(10/s|1 to 100,000|1 ms)"):
        TaskOptions(rate_limit=value)
    with pytest.raises(InvalidOptions, match="rate_limit"):
        EnqueueOptions().merge({"rate_limit": value})


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "3"])
def test_what_is_no_number_of_places_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOptions, match=r"max_concurrency: .* 1 or more"):
        TaskOptions(max_concurrency=value)


def test_a_slip_of_the_name_gets_a_did_you_mean() -> None:
    for typed, meant in (("ratelimit", "rate_limit"), ("concurrency", "max_concurrency")):
        with pytest.raises(InvalidOptions, match=f"{typed}.*{meant}"):
            TaskOptions(**{typed: "10/s"})
    with pytest.raises(InvalidOptions, match="limit_key"):
        EnqueueOptions().merge({"limitkey": "a"})


# -- whose limits hold -------------------------------------------------------------------------------------------------------------------


def limits_for(options: TaskOptions, **overrides: Any) -> TaskLimits | None:
    policy = resolve_policy(
        options, decode(encode(envelope_of(Declared("thumbs.make"), {}, EnqueueOptions().merge(overrides), id="t", now=0)))
    )
    assert isinstance(policy, Policy)
    return policy.limits


def test_the_handlers_hold_and_what_is_given_at_enqueue_overrides() -> None:
    assert limits_for(TaskOptions()) is None
    assert limits_for(LIMITED) == TaskLimits("thumbs.make", Rate(10, 1.0), 3)
    assert limits_for(LIMITED, rate_limit="5/h", max_concurrency=1) == TaskLimits("thumbs.make", Rate(5, 3600.0), 1)
    assert limits_for(LIMITED, rate_limit=None) == TaskLimits("thumbs.make", None, 3)
    assert limits_for(LIMITED, rate_limit=None, max_concurrency=None) is None


def test_a_key_has_a_bucket_of_its_own() -> None:
    limits = limits_for(LIMITED, limit_key="a/b")
    assert limits is not None and limits.bucket == "thumbs.make/a%2Fb"
    assert limits_for(TaskOptions(), limit_key="a") is None  # a deploy took the limit away: no reason to fail


def test_a_key_without_a_limit_is_refused_where_that_can_be_seen() -> None:
    with pytest.raises(InvalidOptions, match=r"limit_key \('a'\) means nothing without"):
        envelope_of(Declared("n", TaskOptions()), {}, EnqueueOptions().merge({"limit_key": "a"}), id="t", now=0)
    for declared in (Declared("n"), Declared("n", LIMITED)):
        assert envelope_of(declared, {}, EnqueueOptions().merge({"limit_key": "a"}), id="t", now=0).limit_key == "a"


@pytest.mark.parametrize("wrong", [{"rate_limit": "often"}, {"max_concurrency": 0}])
def test_limits_that_no_producer_of_ours_sends_are_rejected(wrong: dict[str, Any]) -> None:
    assert isinstance(resolve_policy(TaskOptions(), msgspec.structs.replace(BARE, **wrong)), Rejected)
