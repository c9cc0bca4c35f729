"""Counts of brokers as figures for people."""

from __future__ import annotations

import pytest

from stem_iso import InvalidOptions, Stem
from stem_iso.brokers.base import WorkerInfo
from stem_iso.brokers.operations import QueueState, TaskCounts
from stem_iso.client.queue_stats import stats_of_queues
from stem_iso.client.task_stats import stats_of
from stem_iso.task.histogram import bin_of


def test_a_bucket_for_each_minute_also_where_nothing_happened() -> None:
    counts = [
        TaskCounts(queue="a", name="make", minute=11, counts={"enqueued": 3, "succeeded": 2, "crashed": 1}, run={bin_of(1.0): 3}),
        TaskCounts(queue="b", name="make", minute=11, counts={"enqueued": 1}),
        TaskCounts(queue="a", name="make", minute=13, counts={"failed": 1}, run={bin_of(100.0): 1}),
        TaskCounts(queue="a", name="make", minute=14, counts={"failed": 9}),  # not asked for
    ]
    found = stats_of(counts, "make", 10, 13)
    assert [(bucket.at.timestamp() / 60, bucket.enqueued, bucket.failed, bucket.crashed) for bucket in found.buckets] == [
        (10, 0, 0, 0), (11, 4, 0, 1), (12, 0, 0, 0), (13, 0, 1, 0),
    ]  # fmt: skip
    assert (found.minutes, found.total("enqueued"), found.total("succeeded")) == (4, 4, 2)
    assert found.run.p50 == pytest.approx(1, rel=0.05) and found.run.p99 == pytest.approx(100, rel=0.05)
    assert found.wait.p50 is None


def test_the_rate_is_of_the_last_sixty_seconds() -> None:
    state = QueueState(name="a", by_priority={0: 2, 5: 1}, oldest_age=3.5)
    counts = [
        TaskCounts(queue="a", name="x", minute=100, counts={"succeeded": 60, "started": 99}),
        TaskCounts(queue="a", name="y", minute=101, counts={"failed": 10, "revoked": 5, "retried": 7}),
        TaskCounts(queue="b", name="y", minute=101, counts={"failed": 99}),
    ]
    serving = {"w2": ["a"], "w1": ["a", "b"], "w3": ["b"]}
    workers = [WorkerInfo(id=id, boot=id, hostname="h", pid=1, queues=queues, seats=1, spares=0) for id, queues in serving.items()]
    [found] = stats_of_queues([state], workers, counts, now=101 * 60 + 15.0)  # a quarter of this minute has passed
    assert found.rate == pytest.approx((60 * 0.75 + 15) / 60)
    assert (found.queued, found.oldest_age, found.served_by) == (3, 3.5, ["w1", "w2"])
    assert found.by_priority == {0: 2, 5: 1}


@pytest.mark.parametrize("minutes", [0, 1441, True, 2.5])
def test_minutes_out_of_range_are_refused(minutes: int) -> None:
    with pytest.raises(InvalidOptions, match=r"minutes: .* from 1 to 1440"):
        Stem("memory://").task_stats("make", minutes)
