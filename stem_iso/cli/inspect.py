"""Commands that inspect the whole: workers, events; and bring a file up to date."""

from __future__ import annotations

import time

import click
import msgspec

from stem_iso import events as happened
from stem_iso.brokers.base import WorkerInfo
from stem_iso.cli import output
from stem_iso.cli.options import Reach, reaching
from stem_iso.cli.table import Tone
from stem_iso.printable import one_line


@click.command()
@reaching
def workers(reach: Reach) -> None:
    """Show the workers that live. A core in brackets belongs to one running task alone.

    One that was not heard of for 5 s does not answer: it may be dead, and its tasks with it. After 30 s it is shown no more.
    """
    broker, place = reach.open_at()
    found = broker.workers()
    if reach.as_json:
        output.print_json([_as_data(worker) for worker in found])
    elif not found:
        click.echo(f"no workers: {one_line(place)}")
    else:
        now = time.time()
        head = ("WORKER", "HOST", "PID", "QUEUES", "SEATS", "RUNNING", "CORES", "UP", "SEEN")
        click.echo(output.table(head, [_row(worker, now) for worker in found], TONES))


@click.command()
@reaching
def migrate(reach: Reach) -> None:
    """Bring a SQLite file of an earlier version up to date, as a worker does at its start. Older workers go on with it."""
    from stem_iso.brokers.sqlite.broker import SqliteBroker

    broker, place = reach.open_at()
    found = broker.migrate() if isinstance(broker, SqliteBroker) else None
    before, after = found or (None, None)
    if reach.as_json:
        output.print_json({"migrated": before != after, "from": before, "to": after})
    elif found is None:
        click.echo(f"nothing to migrate: {one_line(place)}")
    else:
        click.echo(f"{'is up to date' if before == after else f'brought from schema {before} to {after}'}: {one_line(place)}")


@click.command()
@reaching
def events(reach: Reach) -> None:
    """Show what happens in all workers, as it happens, until Ctrl-C."""
    for event in reach.stem().events():
        click.echo(output.to_json(event) if reach.as_json else _line(event))


TONES: dict[str, Tone] = {"SEEN": lambda cell: "red" if cell.startswith("not") else None}


def _row(worker: WorkerInfo, now: float) -> tuple[object, ...]:
    up, seen = output.seconds(max(0.0, now - worker.started_at)), output.seconds(worker.silent_for)
    seen = f"{seen} ago" if worker.answers else f"not for {seen}"
    held = {core for cores in worker.pinned.values() for core in cores}
    cores = ",".join(f"[{core}]" if core in held else str(core) for core in worker.cores)
    return worker.id, worker.hostname, worker.pid, ",".join(worker.queues), worker.seats, len(worker.running), cores, up, seen


def _as_data(worker: WorkerInfo) -> dict[str, object]:
    times = {"started_at": output.moment(worker.started_at), "seen_at": output.moment(worker.seen_at)}
    return {**msgspec.structs.asdict(worker), **times, "answers": worker.answers}


def _line(event: happened.AnyEvent) -> str:
    moment = output.moment(event.at)
    at = moment.astimezone().strftime("%H:%M:%S.%f")[:-3] if moment else "-"
    name, task_id = getattr(event, "name", None), getattr(event, "task_id", None)
    about = f"{name} {task_id}  " if task_id else ""
    return one_line(f"{at}  {event.type.value:<9}  {about}{_details(event)}".rstrip())


def _details(event: happened.AnyEvent) -> str:
    match event:
        case happened.ProgressEvent():
            return f"{event.percent:g} %" + ("" if event.data is None else f" {output.to_json(event.data)}")
        case happened.TimeoutEvent():
            stuck = event.stack.strip().splitlines()
            where = f" at {stuck[0].strip()}" if stuck else ""
            dead = "" if event.dead_at is None else f", dead {event.dead_at * 1000:.1f} ms after it"
            return f"{event.level} limit of {output.seconds(event.limit)}{dead}{where}"
        case happened.CompletedEvent():
            return f"in {output.seconds(event.elapsed)}"
        case happened.RetriedEvent():
            return f"{event.reason}; again in {output.seconds(event.delay)}"
        case happened.FailedEvent():
            return event.reason + (f": {event.error.type}: {event.error.message}" if event.error else "")
        case happened.RevokedEvent():
            return event.reason
        case happened.ErrorEvent():
            return event.message
        case happened.IsolateEvent():
            return f"{event.action} {event.pid}" + (f" ({event.reason})" if event.reason else "")
        case _:
            return ""
