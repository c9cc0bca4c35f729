"""Some seconds of `bench.chaos_redis`: isolates, cores, launchers and a Redis server killed at random; then a judge who was not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.chaos_redis import run

SECONDS, KILLS = 12, 10


@pytest.mark.repeat
def test_the_books_add_up_after_kills_of_all_that_runs(tmp_path: Path) -> None:
    counted, killed = run(tmp_path, SECONDS, KILLS, seed=7)
    told = json.loads(counted)
    assert told["accepted"]["task"] > 20
    assert {"group", "chain", "chord"} <= set(told["accepted"])
    assert sum(killed.values()) >= KILLS // 2, killed
