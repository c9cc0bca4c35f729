"""Laws of the counters: nothing that happened is lost or counted twice, over flushes and refusals, in the broker or in the totals."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stem_iso.brokers.operations import COUNTED
from stem_iso.task.histogram import bin_of
from stem_iso.worker.reporting import counters as module
from stem_iso.worker.reporting.counters import OTHERS, Counters, TaskFigures

Kept = Counter[tuple[Any, ...]]  # (queue, name, minute, word | ("wait" | "run", bin))

queues, names = st.sampled_from(["a", "b"]), st.sampled_from(["x", "y", "z"])
times, durations = st.floats(0, 600), st.floats(allow_nan=True, allow_infinity=True)
began = st.tuples(st.just("began"), queues, names, times, durations)
settled = st.tuples(st.just("settled"), queues, names, times, st.none() | st.sampled_from(COUNTED), st.none() | durations)
counted = st.tuples(st.just("count"), queues, names, times, st.sampled_from(COUNTED))
flush = st.tuples(st.sampled_from(["stored", "refused"]), st.integers(1, 4))


def expected(steps: list[tuple[Any, ...]]) -> Kept:
    found: Kept = Counter()
    for step in steps:
        match step:
            case ("began", queue, name, at, waited):
                found[queue, name, at // 60, "started"] += 1
                found[queue, name, at // 60, ("wait", bin_of(waited))] += 1
            case ("settled", queue, name, at, word, elapsed):
                if word is not None:
                    found[queue, name, at // 60, word] += 1
                if elapsed is not None:
                    found[queue, name, at // 60, ("run", bin_of(elapsed))] += 1
            case ("count", queue, name, at, word):
                found[queue, name, at // 60, word] += 1
    return found


def take_in(kept: Kept, queue: str, name: str, minute: int, figures: Any) -> None:
    for word, count in figures.counts.items():
        kept[queue, name, minute, word] += count
    for kind in ("wait", "run"):
        for bin, count in getattr(figures, kind).items():
            kept[queue, name, minute, (kind, bin)] += count


def drain(counters: Counters, kept: Kept) -> None:
    while rows := counters.take(3):
        for row in rows:
            take_in(kept, row.queue, row.name, row.minute, row)


@given(st.lists(began | settled | counted | flush))
def test_what_happened_is_stored_once_and_is_in_the_totals_once(steps: list[tuple[Any, ...]]) -> None:
    counters, kept = Counters(), Counter[tuple[Any, ...]]()
    for at, step in enumerate(steps):
        match step:
            case (("began" | "settled" | "count") as method, *arguments):
                getattr(counters, method)(*arguments)
            case (verdict, most):
                rows = counters.take(most)
                assert len(rows) <= most
                assert [row.minute for row in rows] == sorted(row.minute for row in rows)
                if verdict == "refused":
                    counters.put_back(rows)
                else:
                    for row in rows:
                        take_in(kept, row.queue, row.name, row.minute, row)
        so_far: Kept = Counter()
        for (queue, name), figures in counters.totals().tasks.items():
            take_in(so_far, queue, name, 0, figures)
        assert so_far == without_minutes(expected(steps[: at + 1]))
    drain(counters, kept)
    assert kept == expected(steps)


def without_minutes(kept: Kept) -> Kept:
    found: Kept = Counter()
    for (queue, name, _, what), count in kept.items():
        found[queue, name, 0, what] += count
    return found


@given(st.lists(st.tuples(durations, durations), max_size=20), st.integers(0, 20))
def test_figures_add_up_however_they_are_parted(each: list[tuple[float, float]], cut: int) -> None:
    def of(part: list[tuple[float, float]]) -> TaskFigures:
        counters = Counters()
        for waited, elapsed in part:
            counters.began("q", "n", 0.0, waited)
            counters.settled("q", "n", 0.0, "succeeded", elapsed)
        return counters.totals().tasks.get(("q", "n"), TaskFigures())

    parts = of(each[:cut])
    parts.add(of(each[cut:]))
    assert parts == of(each)


def test_totals_are_the_askers_own() -> None:
    counters = Counters()
    counters.began("q", "n", 0.0, 1.0)
    before = counters.totals()
    counters.take(10)
    counters.began("q", "n", 0.0, 1.0)
    assert before.tasks["q", "n"].counts == {"started": 1}
    assert counters.totals().tasks["q", "n"].counts == {"started": 2}


def test_a_long_outage_costs_the_oldest_minutes_of_the_broker_and_nothing_of_the_totals(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "MOST_PENDING", 10)
    counters = Counters()
    for minute in range(25):
        counters.count("q", "n", minute * 60.0, "failed")
        counters.put_back(counters.take(100))
    assert [row.minute for row in counters.take(100)] == list(range(15, 25))
    assert counters.totals().tasks["q", "n"].counts == {"failed": 25}


def test_names_that_anybody_can_invent_are_counted_together_past_a_bound(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "MOST_TASKS", 2)
    counters = Counters()
    for _ in range(3):
        for name in ("x", "y", "z", "w"):
            counters.count("q", name, 0.0, "failed")
        counters.put_back(counters.take(100))
    found = {name: figures.counts["failed"] for (_, name), figures in counters.totals().tasks.items()}
    assert found == {"x": 3, "y": 3, OTHERS: 6}
    assert {row.name for row in counters.take(100)} == {"x", "y", OTHERS}
