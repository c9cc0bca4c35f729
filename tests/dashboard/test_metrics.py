"""Metrics of the whole broker: what a scraper reads at the dashboard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from stem_iso import Stem, Worker
from stem_iso.dashboard import dashboard
from stem_iso.dashboard.metrics import text
from tests.dashboard.conftest import declare, served, visitor
from tests.isolate.calling import eventually
from tests.servers.server import Server

Samples = dict[tuple[str, ...], float]


def samples(written: str) -> Samples:
    """By name and the values of the labels, those of buckets left out."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(written)
        for sample in family.samples
        if "le" not in sample.labels
    }


def at(site: httpx.Client) -> Samples:
    answer = site.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return samples(answer.text)


def shown(site: httpx.Client, expected: Samples) -> None:
    """Soon: workers hand over what they counted once a second."""
    eventually(lambda: at(site).items() >= expected.items(), f"it does not show {expected}")


def outcome(word: str) -> tuple[str, ...]:
    return "stem_iso_tasks_total", word, "images", "thumbs.make"


def test_queues_are_shown_before_any_worker_is_there(app: Stem, site: httpx.Client) -> None:
    for number in range(3):
        app.enqueue("thumbs.make", {"path": f"{number}.png"})
    app.enqueue("thumbs.make", {"path": "later.png"}, delay=600)
    shown(site, {("stem_iso_queue_depth", "images", "queued"): 3, ("stem_iso_queue_depth", "images", "delayed"): 1})
    shown(site, {("stem_iso_queue_depth", "images", "running"): 0, ("stem_iso_queue_depth", "images", "dead"): 0})
    shown(site, {("stem_iso_workers",): 0, ("stem_iso_broker_up",): 1, ("stem_iso_isolates", "busy"): 0})
    eventually(lambda: at(site)["stem_iso_queue_oldest_age_seconds", "images"] > 0.5, "the oldest gets older")


def test_the_work_of_all_workers_is_added_up(app: Stem, site: httpx.Client) -> None:
    with Worker(app, queues=["images"], spares=0, id="one"), Worker(app, queues=["images"], spares=0, id="two"):
        handles = [app.enqueue("thumbs.make", {"path": f"{name}.png"}) for name in ("a", "b", "bad", "c")]
        shown(site, {outcome("succeeded"): 3, outcome("failed"): 1, outcome("retried"): 0, outcome("cancelled"): 0})
        shown(site, {("stem_iso_task_run_seconds_count", "images", "thumbs.make"): 4, ("stem_iso_workers",): 2})
        shown(site, {("stem_iso_task_wait_seconds_count", "images", "thumbs.make"): 4})
        assert samples(text(app).decode())[outcome("succeeded")] == 3  # as another dashboard, started now, shows it
        assert [handle.status().state.value for handle in handles].count("succeeded") == 3
        assert at(site)["stem_iso_queue_oldest_age_seconds", "images"] == 0
        stuck = app.enqueue("thumbs.stuck", {}, hard_time_limit=0.3)
        eventually(lambda: stuck.status().state.value == "failed", "it is killed")
        shown(site, {("stem_iso_kills_total", "hard"): 1, ("stem_iso_kills_total", "memory"): 0})
        shown(site, {("stem_iso_isolates", "busy"): 0})


@pytest.mark.slow
def test_a_broker_that_is_away_takes_no_counter_back(server: Callable[..., Server], tmp_path: Path) -> None:
    durable = server(aof="always")
    app = Stem(durable.url)
    declare(app)
    with served(dashboard(app)) as url, visitor(url) as site:
        with Worker(app, queues=["images"], spares=0):
            app.enqueue("thumbs.make", {"path": "a.png"})
            shown(site, {outcome("succeeded"): 1})
        durable.kill()
        shown(site, {("stem_iso_broker_up",): 0, outcome("succeeded"): 1})
        away = at(site)
        assert not any(name[0] in ("stem_iso_queue_depth", "stem_iso_workers", "stem_iso_isolates") for name in away), "nothing stale"
        durable.start()
        shown(site, {("stem_iso_broker_up",): 1, ("stem_iso_workers",): 0, outcome("succeeded"): 1})
    app.close()
