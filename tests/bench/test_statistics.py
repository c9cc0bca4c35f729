"""Laws of the benchmark's statistics: what it says is a value that was measured, and an interval holds what it should."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.reference.statistics import difference, percentile, summary

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50)


@given(VALUES, st.floats(0, 1))
def test_a_percentile_was_measured_and_has_its_share_at_or_below_it(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6


@given(VALUES)
def test_a_summary_is_in_order(values: list[float]) -> None:
    found = summary(values)
    assert found is not None
    assert min(values) <= found.median <= found.p99 <= found.worst == max(values)


def test_no_values_have_no_percentile() -> None:
    assert summary([]) is None
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


@given(VALUES, st.integers())
def test_a_run_does_not_differ_from_itself(values: list[float], seed: int) -> None:
    found = difference(values, values, dice=Random(seed), draws=200)
    assert found.low <= 0 <= found.high
    assert not found.sure


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers())
def test_runs_that_lie_apart_differ(values: list[float], seed: int) -> None:
    found = difference(values, [value + 10 for value in values], dice=Random(seed), draws=200)
    assert found.sure
    assert 9 <= found.low <= found.high <= 11
