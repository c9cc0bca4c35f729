"""Figures: counts and times of tasks, and what operators did."""

from __future__ import annotations

import click

from stem_iso.brokers.operations import COUNTED
from stem_iso.cli import completion, output
from stem_iso.cli.options import Reach, reaching
from stem_iso.cli.table import Tone
from stem_iso.client.task_stats import Quantiles, TaskStats, stats_by_name
from stem_iso.printable import one_line

COLUMNS = {  # of a table: head, and which words of a bucket are added up
    "NEW": ("enqueued",),
    "DONE": ("succeeded",),
    "FAILED": ("failed",),
    "RETRIED": ("retried",),
    "TIMED OUT": ("timed_out_hard", "timed_out_silence"),  # those that ended the attempt
    "CRASHED": ("crashed", "out_of_memory"),
    "REVOKED": ("revoked",),
}

TONES: dict[str, Tone] = {head: lambda cell: None if cell == "0" else "red" for head in ("FAILED", "TIMED OUT", "CRASHED")}


@click.command()
@click.argument("name", required=False, shell_complete=completion.tasks)
@click.option("--minutes", type=int, default=60, show_default=True, metavar="N", help="Of so many minutes, 1 to 1440.")
@reaching
def stats(reach: Reach, name: str | None, minutes: int) -> None:
    """Count what happened to each task, or to one, minute by minute, with how long it waited and ran.

    NEW were enqueued, TIMED OUT are attempts that a time limit ended, CRASHED those that died (of too much memory too). 95 of 100 waited no
    longer than WAIT p95, and ran no longer than RUN p95. With a name: its minutes, those in which anything happened.
    """
    app, place = reach.stem_at()
    if name is not None:
        found = app.task_stats(name, minutes)
        if not any(found.total(word) for word in COUNTED):
            click.echo(f"nothing happened to {one_line(name)} within {minutes} min; is that its name?", err=True)
        output.print_json(found) if reach.as_json else click.echo(_one(found))
        return
    all_found = stats_by_name(app, minutes)
    if reach.as_json:
        output.print_json(all_found)
    elif not all_found:
        click.echo(f"nothing happened within {minutes} min: {one_line(place)}")
    else:
        rows = [(each.name, *_totals(each), output.seconds(each.wait.p95), output.seconds(each.run.p95)) for each in all_found]
        click.echo(output.table(("TASK", *COLUMNS, "WAIT p95", "RUN p95"), rows, TONES))


@click.command()
@click.option("--limit", type=int, default=100, show_default=True, metavar="N", help="The newest so many, 1 to 1000.")
@reaching
def actions(reach: Reach, limit: int) -> None:
    """List what operators did, newest first."""
    app, place = reach.stem_at()
    found = app.actions(limit)
    if reach.as_json:
        output.print_json(found)
    elif not found:
        click.echo(f"no actions: {one_line(place)}")
    else:
        rows = [(output.clock(each.at), each.by, each.action, each.target, each.result) for each in found]
        click.echo(output.table(("AT", "BY", "ACTION", "ON", "RESULT"), rows))


def _one(found: TaskStats) -> str:
    """The totals, and a line for each minute in which anything happened."""
    totals = [(head.lower(), total) for head, total in zip(COLUMNS, _totals(found), strict=True)]
    times = [("wait", _all_times(found.wait)), ("run", _all_times(found.run))]
    text = output.pairs([("task", found.name), ("minutes", found.minutes), *totals, *times])
    rows = [
        (output.clock(bucket.at), *(sum(getattr(bucket, word) for word in words) for words in COLUMNS.values()))
        for bucket in found.buckets
        if any(getattr(bucket, word) for words in COLUMNS.values() for word in words)
    ]
    return f"{text}\n\n{output.table(('MINUTE', *COLUMNS), rows, TONES)}" if rows else text


def _totals(found: TaskStats) -> list[int]:
    return [sum(map(found.total, words)) for words in COLUMNS.values()]


def _all_times(found: Quantiles) -> str:
    return f"p50 {output.seconds(found.p50)}, p95 {output.seconds(found.p95)}, p99 {output.seconds(found.p99)}"
