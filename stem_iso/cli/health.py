"""Health: one look at queues and workers, and an exit code for probes and cron.

    queues ── a ready task older than --max-age ──┐
    workers ── fewer that answer than wanted ─────┴──> problems ──> 1, none ──> 0

A broker shows a worker for half a minute after its last heartbeat. One that does not answer (`WorkerInfo.answers`) is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from stem_iso.cli import output
from stem_iso.cli.options import Reach, reaching
from stem_iso.printable import one_line

if TYPE_CHECKING:
    from stem_iso.brokers.base import WorkerInfo
    from stem_iso.client.queue_stats import QueueStats


@click.command()
@click.option("--max-age", type=click.FloatRange(min=0), default=300.0, show_default=True, metavar="S", help="Of the oldest ready task.")
@click.option("--min-workers", type=click.IntRange(min=0), default=1, show_default=True, metavar="N", help="That answer and take tasks.")
@reaching
def health(reach: Reach, max_age: float, min_workers: int) -> None:
    """Say whether all is well: exit code 0 where it is, 1 where not, 3 where the broker cannot be reached.

    Ill is a queue whose oldest ready task has been ready for longer than --max-age, paused or not, and fewer workers than --min-workers
    that do not drain and were heard of within 5 s.
    """
    app, _ = reach.stem_at()
    found = app.queue_stats()
    with app.broker_pool.borrow() as broker:
        workers = broker.workers()
    takers = sum(worker.answers and not worker.draining for worker in workers)
    problems = [*_too_few(workers, takers, min_workers), *_too_old(found, max_age)]
    oldest = max((queue.oldest_age for queue in found if queue.oldest_age is not None), default=None)
    if reach.as_json:
        output.print_json({"healthy": not problems, "problems": problems, "workers": takers, "oldest_age": oldest})
    elif problems:
        click.echo("\n".join(one_line(problem) for problem in problems), err=True)
    else:
        age = "" if oldest is None else f", the oldest ready task has been ready for {output.seconds(oldest)}"
        click.echo(f"well: workers that answer: {takers}{age}")
    if problems:
        raise SystemExit(1)


def _too_few(workers: Iterable[WorkerInfo], takers: int, least: int) -> list[str]:
    if takers >= least:
        return []
    draining = [worker.id for worker in workers if worker.answers and worker.draining]
    silent = [worker.id for worker in workers if not worker.answers]
    others = [f"{why}: {', '.join(ids)}" for why, ids in (("draining", draining), ("not heard", silent)) if ids]
    return [f"{takers} of at least {least} workers answer and take tasks" + (f" ({'; '.join(others)})" if others else "")]


def _too_old(queues: Iterable[QueueStats], most: float) -> list[str]:
    problems = []
    for queue in queues:
        if queue.oldest_age is not None and queue.oldest_age > most:
            state = " and is paused" if queue.paused else "" if queue.served_by else " and nobody serves it"
            problems.append(f"queue {queue.name} has a task that has been ready for {output.seconds(queue.oldest_age)}{state}")
    return problems
