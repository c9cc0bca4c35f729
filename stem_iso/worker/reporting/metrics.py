"""Metrics of a worker: what happened in it since it began, as Prometheus' text. What the whole broker holds is for the dashboard to show.

    Counters.totals ──────┐
    isolates by state ────┼──> client.metrics ──> text
    broker up, or not ────┘

The worker counts whether somebody asks or not. A core that died took its counts with it: its successor begins at 0, as after a restart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stem_iso.client import metrics

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from stem_iso.worker.vitals import Vitals


class WorkerMetrics:
    """From any thread."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals
        self.text = metrics.PacedText(lambda: metrics.exposition(self._families)).text

    def _families(self) -> Iterator[Metric]:
        yield from metrics.of_broker(self._vitals.broker_up)
        figures = self._vitals.figures
        if figures is not None:
            totals = figures.totals()
            yield from metrics.of_tasks(totals.tasks)
            yield from metrics.of_isolates(figures.isolates())
            yield from metrics.of_kills(totals.kills)
            yield from metrics.of_late_kills(totals.kill_late)
