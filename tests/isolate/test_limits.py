"""What one call may use: nonsense is refused where it is said."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from stem_iso import InvalidOptions, Limits


def test_times_and_sizes_are_kept_as_numbers() -> None:
    limits = Limits(soft=timedelta(seconds=90), hard=120, memory="512MiB", cpus=2)
    assert (limits.soft, limits.hard, limits.memory, limits.cpus) == (90.0, 120.0, 512 << 20, 2)
    assert Limits() == Limits(memory=None)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"soft": 90, "hard": 60}, r"soft \(90 s\) must be below hard \(60 s\)"),
        ({"hard": 0}, "hard: 0"),
        ({"soft": -1}, "soft: -1"),
        ({"hard": "soon"}, "hard: 'soon'"),
        ({"heartbeat": float("nan")}, "heartbeat"),
        ({"memory": "12 parsecs"}, "memory: '12 parsecs' must be a size"),
        ({"memory": 512}, "memory: 512 must be at least 1 MiB"),
        ({"memory": True}, "memory: True"),
        ({"cpus": 0}, "cpus: 0"),
        ({"cpus": 1.5}, "cpus: 1.5"),
    ],
)
def test_what_cannot_be_meant_is_named(given: dict[str, Any], names: str) -> None:
    with pytest.raises(InvalidOptions, match=names):
        Limits(**given)
