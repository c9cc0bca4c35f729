"""Limits that no task lives to see, up to a hundred years: no clock on the way is too small for them."""

from __future__ import annotations

from datetime import timedelta
from math import inf
from typing import Any

import pytest

from stem_iso import InvalidOptions, IsolatePool
from stem_iso.isolate.linux import LONGEST_SLEEP, poll_timeout
from tests.isolate import work

CENTURY = timedelta(days=36_525)
LIMITS: list[dict[str, Any]] = [
    {"hard": timedelta(days=25)},  # 2**31 ms are 24.8 days
    {"hard": timedelta(days=50)},  # 2**32 ms
    {"soft": timedelta(days=30), "hard": CENTURY},
    {"heartbeat": CENTURY},
]


@pytest.fixture(scope="module")
def pool() -> Any:
    with IsolatePool(2, spares=0, boot_time_limit=CENTURY) as pool:
        yield pool


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_a_limit_far_away_harms_neither_its_call_nor_a_neighbour(pool: IsolatePool, tmp_path: Any, limits: dict[str, Any]) -> None:
    gate = tmp_path / "gate"
    neighbour = pool.submit(work.wait_for, str(gate), "well")
    far = pool.with_limits(**limits)
    assert list(far.map(work.double, [1, 2], timeout=CENTURY.total_seconds())) == [2, 4]
    assert far.submit(work.double, 2).result(CENTURY.total_seconds()) == 4
    soon = pool.with_limits(hard=0.1).submit(work.spin).exception(30)
    assert type(soon).__name__ == "TimeoutException"
    gate.touch()
    assert neighbour.result(30) == "well"


@pytest.mark.parametrize("seconds", [CENTURY.total_seconds() * 2, 10**400, inf])
def test_more_than_a_hundred_years_is_refused_with_the_name_of_the_field(pool: IsolatePool, seconds: float) -> None:
    running = pool.submit(work.spin)
    for refused, name in [
        (lambda: pool.with_limits(hard=seconds), "hard"),
        (lambda: pool.with_limits(heartbeat=seconds), "heartbeat"),
        (lambda: IsolatePool(1, boot_time_limit=seconds), "boot_time_limit"),
        (lambda: running.result(seconds), "timeout"),
        (lambda: pool.map(work.pid, timeout=seconds), "timeout"),
    ]:
        with pytest.raises(InvalidOptions, match=f"{name}: "):
            refused()
    assert running.cancel()


def test_a_sleep_that_poll_cannot_count_is_cut() -> None:
    assert poll_timeout(inf) == poll_timeout(CENTURY.total_seconds()) == LONGEST_SLEEP * 1000 < 2**31
    assert (poll_timeout(-1.0), poll_timeout(0.25)) == (0, 250)
