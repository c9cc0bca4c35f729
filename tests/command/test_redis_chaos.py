"""Some seconds of `bench.chaos_redis`: isolates, cores, launchers and a Redis server killed at random; then a judge who was not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.chaos_redis import run
from tests.servers.server import Server

SECONDS, KILLS = 8, 8


@pytest.mark.slow
@pytest.mark.repeat
def test_the_books_add_up_after_kills_of_all_that_runs(tmp_path: Path, server: Callable[..., Server]) -> None:
    counted, killed = run(tmp_path, SECONDS, KILLS, seed=7, server=server(aof="always"))
    counts = json.loads(counted)
    assert counts["accepted"]["task"] > 3
    assert {"group", "chain", "chord"} & set(counts["accepted"])
    assert sum(killed.values()) >= KILLS // 2, killed
