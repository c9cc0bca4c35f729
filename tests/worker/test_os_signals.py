"""How signals that ask for the end count."""

from __future__ import annotations

import signal
from signal import SIGHUP, SIGINT, SIGQUIT, SIGTERM

import pytest

from stem_iso.worker.os_signals import StopCount


@pytest.mark.parametrize(
    ("sent", "count"),
    [
        ([(0.0, SIGTERM)], 1),
        ([(0.0, SIGTERM), (0.00002, SIGTERM)], 1),  # `timeout`: to its child, and to the child's group
        ([(0.0, SIGTERM), (0.09, SIGTERM), (0.11, SIGTERM)], 2),  # an echo has no echo
        ([(0.0, SIGTERM), (0.2, SIGTERM)], 2),
        ([(0.0, SIGINT), (0.05, SIGINT)], 2),
        ([(0.0, SIGINT), (0.05, SIGTERM)], 2),
        ([(0.0, SIGHUP), (0.05, SIGTERM), (0.06, SIGTERM)], 2),
        ([(0.0, SIGQUIT)], 2),
    ],
)
def test_what_asks_for_the_end_counts_once_for_each_time_it_is_meant(sent: list[tuple[float, signal.Signals]], count: int) -> None:
    now = 0.0
    stops = StopCount(lambda: now)
    for at, number in sent:
        now = 1000 + at
        stops.take(number)
    assert stops.count == count
