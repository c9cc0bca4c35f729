"""Queues: how they stand; pause, resume and purge."""

from __future__ import annotations

import click

from stem_iso.cli import completion, output
from stem_iso.cli.control import answer, answered
from stem_iso.cli.options import Reach, reaching
from stem_iso.cli.table import Tone
from stem_iso.client.queue_stats import QueueStats
from stem_iso.printable import one_line


@click.group(invoke_without_command=True)
@reaching
def queues(reach: Reach) -> None:
    """Show the queues that hold something, are served, or were used within a day; or pause, resume or empty one.

    OLDEST is for how long the oldest ready task has been ready, RATE how many tasks ended per second within the last minute. Names of
    tasks that are paused stand below. Where there is no database, none is made.
    """
    context = click.get_current_context()
    if context.invoked_subcommand is not None:
        context.obj = reach
        return
    app, place = reach.stem_at()
    found = app.queue_stats()
    with app.broker_pool.borrow() as broker:
        paused = sorted(broker.paused().tasks)
    if reach.as_json:
        output.print_json(found)
        if not found:
            click.echo(f"all queues are empty: {one_line(place)}", err=True)
    elif not found:
        click.echo(f"all queues are empty: {one_line(place)}")
    else:
        head = ("QUEUE", "QUEUED", "DELAYED", "RUNNING", "DEAD", "OLDEST", "RATE", "WORKERS", "STATE")
        click.echo(output.table(head, [_row(queue) for queue in found], TONES))
    if paused:  # of a value of its own in JSON there is no room: stdout is the list of queues
        click.echo(one_line(f"paused tasks: {', '.join(paused)}"), err=reach.as_json)


@queues.command()
@click.argument("name", shell_complete=completion.queues)
@reaching
def purge(reach: Reach, name: str) -> None:
    """Cancel all that waits in a queue; what runs is left alone."""
    app = _reach(reach).stem()
    with app.broker_pool.borrow() as broker:
        count = broker.purge(name)
    app.log_action("purge", f"queue {name}", f"{count} cancelled")
    output.print_json({"name": name, "purged": count}) if _reach(reach).as_json else click.echo(f"{count} cancelled")


@queues.command()
@click.argument("name", required=False, shell_complete=completion.queues)
@click.option("--task", metavar="NAME", help="The tasks of this name, instead of a queue.", shell_complete=completion.tasks)
@answered
@reaching
def pause(reach: Reach, name: str | None, task: str | None, timeout: float) -> None:
    """Let nothing new begin of a queue, or of a task; what runs ends. It holds until resume, also for workers that start later."""
    _refuse_both(name, task)
    answer(_reach(reach), _reach(reach).stem().pause(name, task=task, timeout=timeout), "paused; it holds for workers that start later")


@queues.command()
@click.argument("name", required=False, shell_complete=completion.queues)
@click.option("--task", metavar="NAME", help="The tasks of this name, instead of a queue.", shell_complete=completion.tasks)
@answered
@reaching
def resume(reach: Reach, name: str | None, task: str | None, timeout: float) -> None:
    """Go on with a paused queue or task."""
    _refuse_both(name, task)
    answer(_reach(reach), _reach(reach).stem().resume(name, task=task, timeout=timeout), "resumed")


def _refuse_both(name: str | None, task: str | None) -> None:
    if (name is None) == (task is None):
        raise click.UsageError("which? Give the name of a queue, or --task NAME" + ("" if name is None else ", not both"))


def _reach(reach: Reach) -> Reach:
    """`queues --broker URL purge NAME` means what it says as well as `queues purge NAME --broker URL`."""
    return reach.over(click.get_current_context().find_object(Reach))


# What somebody should look at: dead letters, and work that nobody serves.
TONES: dict[str, Tone] = {
    "DEAD": lambda cell: None if cell == "0" else "red",
    "WORKERS": lambda cell: "yellow" if cell == "none" else None,
    "STATE": output.state_tone,
}


def _row(queue: QueueStats) -> tuple[object, ...]:
    """Work that nobody serves is the commonest reason why nothing happens."""
    waits = queue.queued or queue.delayed
    workers = len(queue.served_by) or ("none" if waits else 0)
    counts = queue.queued, queue.delayed, queue.running, queue.dead
    state = "paused" if queue.paused else "active"
    return queue.name, *counts, output.seconds(queue.oldest_age), f"{queue.rate:.2f}/s", workers, state
