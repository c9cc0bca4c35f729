"""Laws of metrics: buckets hold what they say, counters of the broker never fall within a day, and nobody makes them too often."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from stem_iso.brokers.operations import TaskCounts
from stem_iso.client import metrics
from stem_iso.dashboard.metrics import DAY, OPEN, DayCounts
from stem_iso.task.histogram import bin_of, upper_end

Row = tuple[int, str, int]  # minute, task, how many succeeded


def bins_of(durations: list[float]) -> dict[int, int]:
    bins: dict[int, int] = {}
    for each in durations:
        bins[bin_of(each)] = bins.get(bin_of(each), 0) + 1
    return bins


@given(st.lists(st.floats(0, 1e7)), st.sampled_from([metrics.TASK_BUCKETS, metrics.LATE_BUCKETS]))
def test_a_bucket_counts_what_was_no_longer_than_its_end(durations: list[float], edges: tuple[int, ...]) -> None:
    buckets, total = metrics.buckets(bins_of(durations), edges)
    for (le, count), edge in zip(buckets, edges, strict=False):
        assert count == sum(bin_of(each) <= edge for each in durations)
        assert abs(float(le) / upper_end(edge) - 1) < 0.001
    assert buckets[-1] == ("+Inf", len(durations))
    assert abs(total - sum(durations)) <= 0.05 * sum(durations) + 1e-5 * len(durations)


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(names, names, st.integers(0, 9))
def test_whatever_a_task_is_called_its_row_is_read_back(queue: str, task: str, count: int) -> None:
    row = TaskCounts(queue=queue, name=task, minute=0, counts={"succeeded": count, "revoked": 1}, run={0: 2})
    text = metrics.exposition(lambda: metrics.of_tasks({(queue, task): row})).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert all((sample.labels["queue"], sample.labels["task"]) == (queue, task) for sample in samples)
    outcomes = {sample.labels["outcome"]: sample.value for sample in samples if sample.name == "stem_iso_tasks_total"}
    assert outcomes == {"succeeded": count, "failed": 0, "retried": 0, "cancelled": 1}


class Store:
    """What a broker keeps of a day, and when it was added."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, str], int] = {}

    def add(self, minute: int, task: str, count: int) -> None:
        self.rows[minute, task] = self.rows.get((minute, task), 0) + count

    def read(self, since: int, until: int) -> list[TaskCounts]:
        return [
            TaskCounts(queue="q", name=task, minute=minute, counts={"succeeded": count}, wait={1: count})
            for (minute, task), count in self.rows.items()
            if since <= minute <= until
        ]


def look(counts: DayCounts, store: Store, minute: int, step: int) -> dict[str, int]:
    while True:
        since = counts.since(minute)
        until = min(since + step - 1, minute)
        counts.put(store.read(since, until), until, minute)
        if until == minute:
            return {task: totals.counts["succeeded"] for (_, task), totals in counts.totals().items()}


happenings = st.lists(st.tuples(st.integers(0, 40), st.integers(0, OPEN - 1), st.sampled_from("ab"), st.integers(1, 5)), max_size=30)


@given(happenings, st.integers(OPEN + 2, 100))
def test_each_end_of_the_day_counts_once_however_often_one_looks(happened: list[tuple[int, int, str, int]], step: int) -> None:
    """Also what a worker hands over for a minute that is over."""
    counts, store, minute = DayCounts(), Store(), 10 * DAY
    before: dict[str, int] = {}
    for passed, late, task, count in happened:
        minute += passed
        store.add(max(10 * DAY, minute - late), task, count)
        found = look(counts, store, minute, step)
        assert all(found[task] >= value for task, value in before.items())
        before = found
        kept = {task: sum(count for (_, name), count in store.rows.items() if name == task) for _, task in store.rows}
        assert found == kept
        assert look(DayCounts(), store, minute, step) == kept  # another dashboard, started later


def test_the_day_begins_at_midnight_for_all() -> None:
    store, old = Store(), DayCounts()
    store.add(11 * DAY - 100, "a", 4)
    store.add(11 * DAY - 1, "a", 3)
    assert look(old, store, 11 * DAY - 1, 60) == {"a": 7}
    store.add(11 * DAY, "a", 2)
    assert look(old, store, 11 * DAY, 60) == look(DayCounts(), store, 11 * DAY, 60) == {"a": 2}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_text_that_takes_long_to_make_is_made_seldom() -> None:
    clock, made = Clock(), 0

    def make() -> bytes:
        nonlocal made
        made, clock.now = made + 1, clock.now + 0.01
        return b"%d" % made

    paced = metrics.PacedText(make, clock)
    assert paced.text() == paced.text() == b"1"
    clock.now += 0.01 * metrics.REST
    assert paced.text() == b"2"
    clock.now += metrics.LONGEST_REST
    assert paced.text() == b"3"
