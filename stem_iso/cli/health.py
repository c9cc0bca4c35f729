"""Health: one look at queues and workers, and an exit code for probes and cron.

    workers ── heard within SILENT? ──┬─ yes ───────────────────────────> lives
                                      └─ no: heard anew within PATIENCE? ─┬─ yes: its store's clock is another ──> lives
                                                                          └─ no ──> silent: killed, or it hangs

A broker goes on to show a worker for half a minute after its last word. Nobody who asks whether all is well should count that one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from stem_iso.cli import output
from stem_iso.cli.options import Reach, reaching
from stem_iso.printable import one_line

if TYPE_CHECKING:
    from stem_iso.brokers.base import Broker, WorkerInfo
    from stem_iso.client.queue_stats import QueueStats

SILENT = 5.0  # seconds since a worker was heard, as everywhere
PATIENCE, LOOK_EVERY = 5.0, 0.25  # seconds: a worker is heard every two, and a busy machine may be late


@click.command()
@click.option("--max-age", type=click.FloatRange(min=0), default=300.0, show_default=True, metavar="S", help="Of the oldest ready task.")
@click.option("--min-workers", type=click.IntRange(min=0), default=1, show_default=True, metavar="N", help="That live and take tasks.")
@reaching
def health(reach: Reach, max_age: float, min_workers: int) -> None:
    """Say whether all is well: exit code 0 where it is, 1 where not, 3 where the broker cannot be reached.

    Ill is a queue whose oldest ready task has been ready for longer than --max-age, paused or not, and fewer workers than --min-workers
    that live and do not drain. One that was not heard for 5 s does not live; it is given 5 s more to be heard.
    """
    app, _ = reach.stem_at()
    found = app.queue_stats()
    with app.broker_pool.borrow() as broker:
        workers, silent = _heard(broker)
    takers = {worker.id for worker in workers if not worker.draining}
    problems = [*_too_few(takers, len(workers) - len(takers), silent, min_workers), *_too_old(found, takers, max_age)]
    oldest = max((queue.oldest_age for queue in found if queue.oldest_age is not None), default=None)
    if reach.as_json:
        output.print_json({"healthy": not problems, "problems": problems, "workers": len(takers), "oldest_age": oldest})
    elif problems:
        click.echo("\n".join(one_line(problem) for problem in problems), err=True)
    else:
        age = "" if oldest is None else f", the oldest ready task has been ready for {output.seconds(oldest)}"
        click.echo(f"well: workers that live: {len(takers)}{age}")
    if problems:
        raise SystemExit(1)


def _heard(broker: Broker) -> tuple[list[WorkerInfo], list[str]]:
    """Those that live, and the ids of those that are shown and silent."""
    until, first = time.monotonic() + PATIENCE, broker.workers()
    old = {worker.id: worker.seen_at for worker in first if time.time() - worker.seen_at > SILENT}
    shown = first
    while True:
        silent = [worker.id for worker in shown if worker.seen_at == old.get(worker.id)]
        if not silent or time.monotonic() >= until:
            return [worker for worker in shown if worker.id not in silent], silent
        time.sleep(LOOK_EVERY)
        shown = broker.workers()


def _too_few(takers: Iterable[str], drain: int, silent: list[str], least: int) -> list[str]:
    if (count := len(set(takers))) >= least:
        return []
    also = ([f"{drain} drain{'s' if drain == 1 else ''}"] if drain else []) + ([f"not heard: {', '.join(silent)}"] if silent else [])
    return [f"{count} of at least {least} workers live{' and take tasks' if drain else ''}" + (f" ({'; '.join(also)})" if also else "")]


def _too_old(queues: Iterable[QueueStats], takers: Iterable[str], most: float) -> list[str]:
    problems, known = [], set(takers)
    for queue in queues:
        if queue.oldest_age is not None and queue.oldest_age > most:
            state = " and is paused" if queue.paused else "" if known.intersection(queue.served_by) else " and nobody serves it"
            problems.append(f"queue {queue.name} has a task that has been ready for {output.seconds(queue.oldest_age)}{state}")
    return problems
