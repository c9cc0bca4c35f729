"""Counts of the last hour and day in memory: the same as if all had been read from the broker at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stem_iso.brokers.operations import TaskCounts
from stem_iso.dashboard.counts_window import DAY, HOUR, CountsWindow
from stem_iso.task.histogram import bin_of, quantile

NOW = 29_000_000  # a minute of the year 2025

minutes = st.integers(NOW - DAY + 1, NOW)
bins = st.dictionaries(st.integers(-20, 60), st.integers(1, 5), max_size=3)
counted = st.builds(
    TaskCounts,
    queue=st.sampled_from(["a", "b"]),
    name=st.sampled_from(["x", "y"]),
    minute=minutes,
    counts=st.dictionaries(st.sampled_from(["enqueued", "failed"]), st.integers(1, 9)),
    wait=bins,
    run=bins,
)


@given(st.lists(counted, max_size=30))
def test_a_day_that_is_read_in_hours_is_the_day(all: list[TaskCounts]) -> None:
    window = CountsWindow()
    for last in range(NOW, NOW - DAY, -HOUR):
        first = last - HOUR + 1
        window.put(first, last, [each for each in all if first <= each.minute <= last], NOW)
    series = window.series(DAY, NOW)
    assert len(series["at"]) == DAY and series["at"][-1] == NOW * 60
    assert sum(series["failed"]) == sum(each.counts.get("failed", 0) for each in all)
    of_a = [each for each in all if each.queue == "a"]
    hour, day = window.spans().get("a", (None, None))
    if of_a:
        assert hour is not None and day is not None
        assert day["counts"]["enqueued"] == sum(each.counts.get("enqueued", 0) for each in of_a)
        assert hour["counts"]["enqueued"] == sum(each.counts.get("enqueued", 0) for each in of_a if each.minute > NOW - HOUR)
        merged: dict[int, int] = {}
        for each in of_a:
            for bin, count in each.run.items():
                merged[bin] = merged.get(bin, 0) + count
        assert day["run"]["p95"] == quantile(merged, 0.95)


def test_a_minute_that_is_read_again_counts_once() -> None:
    window = CountsWindow()
    for count in (1, 2):
        window.put(NOW, NOW, [TaskCounts(queue="a", name="x", minute=NOW, counts={"failed": count})], NOW)
    assert window.series(HOUR, NOW)["failed"][-1] == 2 and window.spans()["a"][0]["counts"]["failed"] == 2


def test_a_minute_grows_old_and_goes() -> None:
    window = CountsWindow()
    window.put(NOW, NOW, [TaskCounts(queue="a", name="x", minute=NOW, counts={"failed": 1}, run={bin_of(2.0): 1})], NOW)
    window.put(NOW + HOUR, NOW + HOUR, [], NOW + HOUR)
    hour, day = window.spans()["a"]
    assert (hour["counts"]["failed"], day["counts"]["failed"]) == (0, 1) and day["run"]["p50"] is not None
    window.put(NOW + DAY + HOUR, NOW + DAY + HOUR, [], NOW + DAY + HOUR)
    assert "a" not in window.spans() and sum(window.series(DAY, NOW + DAY + HOUR)["failed"]) == 0
