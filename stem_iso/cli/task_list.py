"""List of tasks, a page at a time."""

from __future__ import annotations

import time
from typing import Any

import click

from stem_iso.cli import output
from stem_iso.cli.filters import choosing
from stem_iso.cli.options import Reach, reaching
from stem_iso.client.task_excerpt import LISTED
from stem_iso.client.task_filter import checked
from stem_iso.client.task_list import page as listed
from stem_iso.outcome import TaskState, TaskStatus
from stem_iso.printable import one_line


@click.command()
@choosing
@click.option("--limit", type=int, default=100, show_default=True, metavar="N", help="The most to be listed, 1 to 1000.")
@click.option("--cursor", metavar="C", help="Go on where the page before has ended.")
@click.option("--oldest-first", is_flag=True, help="Begin with the oldest.")
@reaching
def tasks(reach: Reach, limit: int, cursor: str | None, oldest_first: bool, **which: Any) -> None:
    """List tasks, newest first. Ended ones are there as long as their results.

    A page may be short, and still not be the last: it is, where no cursor follows it. Of results and arguments the first 2 KiB are shown;
    with --json `cut` says of which tasks, and `stem-iso status ID` has the rest.
    """
    reach.refuse_hidden(which["text"])
    app, place = reach.stem_at()
    page = listed(app, checked(which, app.clock()), limit, cursor, not oldest_first, room=LISTED)
    if reach.as_json:
        output.print_json(page)
        return
    if page.tasks:
        head = ("ID", "TASK", "QUEUE", "STATE", "ENQUEUED", "ARGUMENTS")
        click.echo(output.table(head, [_row(task) for task in page.tasks], {"STATE": output.state_tone}))
    elif page.cursor is None:
        click.echo(f"no tasks: {one_line(place)}")
    if page.cursor is not None:
        click.echo(f"more: --cursor {one_line(page.cursor)}", err=True)


def _row(task: TaskStatus) -> tuple[object, ...]:
    args = "-" if task.args is None else output.to_json(task.args)
    return task.id, task.name, task.queue, state_in_words(task), output.clock_of_today(task.enqueued_at), args


def state_in_words(task: TaskStatus) -> str:
    """The word that `--state` finds it by, and the reason."""
    delayed = task.state is TaskState.QUEUED and task.not_before is not None and task.not_before.timestamp() > time.time()
    return ("delayed" if delayed else task.state.value) + (f" ({task.reason})" if task.reason else "")
