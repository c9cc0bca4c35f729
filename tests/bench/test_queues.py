"""Queue systems of the benchmark: what each declares is whole, and ours answers through the driver, as the others do."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

import bench.systems as systems
from bench.handlers import HANDLERS
from bench.queue_worker import LIMITS, QueueAdapter, declared
from bench.reference import observer, queue_tables, queues
from bench.reference.driven import Driven, outcome
from bench.reference.redis_server import redis_server

QUEUES = [name for name in systems.names() if systems.find(name).kind == "queue"]
BOUND = 60.0  # seconds


@pytest.mark.parametrize("name", QUEUES)
def test_a_queue_pins_versions_and_not_ranges(name: str) -> None:
    assert all(re.fullmatch(r"[\w-]+(\[[\w,]+\])?==[\d.]+", each) for each in systems.find(name).requirements)


def test_every_queue_that_was_promised_is_there() -> None:
    wanted = {"celery", "rq", "dramatiq", "huey", "taskiq", "saq", "arq", "flexiq", "streaq", "stem_iso_worker"}
    assert wanted <= set(QUEUES)


@pytest.mark.parametrize("name", QUEUES)
def test_a_queue_is_importable_without_its_packages(name: str) -> None:
    assert issubclass(systems.adapter(name), QueueAdapter)


def test_a_limit_is_never_shorter_than_the_one_that_was_asked_for() -> None:
    for asked in (0.4, 0.7, 1.0, 1.3, 20.0):
        assert declared(asked) in LIMITS
        assert declared(asked) >= asked  # type: ignore[operator]
    assert declared(None) is None
    whole = systems.System("x", "queue", (), "https://", whole_seconds=True)
    assert [whole.limit(seconds) for seconds in (0.4, 0.7, 1.0, 1.3)] == [1.0, 1.0, 1.0, 2.0]


@pytest.fixture(params=["default", "redis default"])
def ours(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driven]:
    system = systems.find("stem_iso_worker")
    with redis_server(tmp_path, needed=True) as redis:
        place = {"limit": 0.4, "workers": 2, "redis": redis.empty()}
        with Driven(Path(sys.executable), system, request.param, tmp_path / "system", **place) as driven:
            yield driven


def test_our_worker_ends_a_loop_and_serves_the_next(ours: Driven) -> None:
    ledger = ours.folder / "ledger"
    found = outcome(ours.send("run", handler="pure_loop", ledger=str(ledger), limit=0.4), monotonic() + BOUND)
    assert found["word"] in HANDLERS["pure_loop"].right, found
    assert not observer.left(observer.look(ledger)).alive
    after = outcome(ours.send("run", handler="next", ledger=str(ours.folder / "next"), limit=None), monotonic() + BOUND)
    assert after["word"] == "success"
    assert queues.finished(ours.folder / "next") == 1


def test_our_worker_that_is_killed_in_a_batch_loses_nothing(ours: Driven) -> None:
    found = queues.lose(ours, "worker")  # what ended in the instant of the kill may run again: a task runs at least once
    assert (found["lost"], found["failed"], found["untold"]) == (0, 0, 0), found


def test_a_task_that_was_cut_short_is_counted_as_lost_and_one_that_ended_twice_as_run_twice(tmp_path: Path) -> None:
    texts = {"whole": "start 1 1.0\nend 1 2.0\n", "cut": "start 1 1.0\nend 1", "again": "start 1 1.0\nend 1 2.0\nstart 2 3.0\nend 2 4.0\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    ledgers = [tmp_path / name for name in (*texts, "never")]
    found = queues.count(ledgers, [answer("success"), answer("crash"), Future(), Future()])
    assert found == {"tasks": 4, "lost": 1, "failed": 1, "twice": 1, "redelivered": 1, "untold": 1}


def answer(word: str) -> Future[dict[str, Any]]:
    told = Future[dict[str, Any]]()
    told.set_result({"told": 1.0, "word": word, "error": ""})
    return told


def test_the_table_sums_what_was_lost_and_says_none_of_a_system_that_could_not() -> None:
    counts = {"target": "child", "tasks": 20, "lost": 1, "failed": 0, "twice": 0, "redelivered": 2, "untold": 1}
    lines = [{"kind": "loss", "system": "a", "settings": "best", **counts}] * 2
    lines += [{"kind": "broken", "system": "b", "settings": "best", "measure": "loss", "error": "a batch did not get on"}]
    found = queue_tables.lost(lines, "child")
    assert found == {"a": {"tasks": 40, "lost": 2, "failed": 0, "twice": 0, "redelivered": 4, "untold": 2}, "b": {}}
    assert queue_tables.html(lines).count("<td>none</td>") == 2 * len(queue_tables.COUNTS)  # b, by child; and by worker
