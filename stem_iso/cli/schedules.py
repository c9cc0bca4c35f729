"""Schedules in the broker: list, pause, resume, trigger, remove. An unknown name ends with 1 and says which was meant."""

from __future__ import annotations

import time

import click

from stem_iso.cli import output
from stem_iso.cli.options import Reach, reaching
from stem_iso.client.schedules import ScheduleHandle, ScheduleInfo


@click.group()
def schedule() -> None:
    """Schedules: list, pause, resume, trigger, remove."""


@schedule.command("list")
@reaching
def list_schedules(reach: Reach) -> None:
    """List all schedules. Times are local; a cron expression is followed by the zone that it is read in.

    With --json each has `outcomes`: what became of its last five firings, those by hand apart.
    """
    found = reach.stem().schedules.infos(outcomes=reach.as_json)
    if reach.as_json:
        output.print_json(found)
    elif not found:
        click.echo("no schedules")
    else:
        head = ("SCHEDULE", "TASK", "WHEN", "NEXT", "LAST", "STATE")
        click.echo(output.table(head, [_row(info) for info in found], {"STATE": output.state_tone}))


@schedule.command()
@click.argument("name")
@reaching
def pause(reach: Reach, name: str) -> None:
    """Let a schedule fire nothing until it is resumed; what comes due meanwhile is not made up."""
    app = reach.stem()
    handle = ScheduleHandle(app.schedules, name)
    handle.pause()
    app.log_action("pause", f"schedule {name}", "paused")
    _show(reach, handle, "paused")


@schedule.command()
@click.argument("name")
@reaching
def resume(reach: Reach, name: str) -> None:
    """Let a paused schedule go on with its next due time."""
    app = reach.stem()
    handle = ScheduleHandle(app.schedules, name)
    handle.resume()
    app.log_action("resume", f"schedule {name}", "resumed")
    _show(reach, handle, "resumed")


@schedule.command()
@click.argument("name")
@reaching
def trigger(reach: Reach, name: str) -> None:
    """Enqueue the call of a schedule now, and print its id; the due times stay as they are."""
    app = reach.stem()
    task = ScheduleHandle(app.schedules, name).trigger()
    app.log_action("trigger", f"schedule {name}", f"enqueued as {task.id}")
    output.print_json({"schedule": name, "id": task.id}) if reach.as_json else click.echo(task.id)


@schedule.command()
@click.argument("name")
@reaching
def remove(reach: Reach, name: str) -> None:
    """Take a schedule out of the broker; one that is declared in code comes back with the next worker that starts."""
    app = reach.stem()
    ScheduleHandle(app.schedules, name).remove()
    app.log_action("remove", f"schedule {name}", "removed")
    output.print_json({"name": name, "removed": True}) if reach.as_json else click.echo("removed")


def _show(reach: Reach, handle: ScheduleHandle, done: str) -> None:
    info = handle.info()
    if reach.as_json:
        output.print_json(info)
    else:
        click.echo(done + (f"; next at {_zoned(info)}" if info.next_due else ""))


def _zoned(info: ScheduleInfo) -> str:
    if info.next_due is None:
        return "-"
    at = info.next_due.astimezone()
    return f"{output.clock(at)} {at.tzname()}"


def _row(info: ScheduleInfo) -> tuple[object, ...]:
    last = "-" if info.last_fired is None else f"{output.seconds(max(0.0, time.time() - info.last_fired.timestamp()))} ago"
    state = "paused" if info.paused else f"late by {output.seconds(info.late)}" if info.late else "active"
    when = info.when + (f", jitter {info.jitter:g} s" if info.jitter else "")
    return info.name, ", ".join(info.tasks), when, _zoned(info), last, state
