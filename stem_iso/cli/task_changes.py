"""Changes to tasks: retry, run-now, edit, one by one, and bulk for all that match. Each leaves a line in the list of actions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import click

from stem_iso.cli import completion, output
from stem_iso.cli.filters import choosing
from stem_iso.cli.options import Reach, reaching
from stem_iso.cli.tasks import arguments
from stem_iso.client.bulk import BULK_ACTIONS, BulkAction, BulkResult
from stem_iso.client.result import TaskHandle
from stem_iso.errors import ActionRefused, StemError, UnknownResult
from stem_iso.printable import one_line

PROGRESS_WIDTH = 40  # cells: what is written over the line of progress covers all of it
DONE_WORDS = {"retry": "retried", "revoke": "revoked", "terminate": "terminated", "delete": "deleted", "run-now": "made ready"}


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@reaching
def retry(reach: Reach, ids: tuple[str, ...]) -> None:
    """Run failed or cancelled tasks again: the same ids, a new run."""

    def order(handle: TaskHandle[Any]) -> None:
        handle.retry()
        handle.app.log_action("retry", handle.id, "runs again")

    _each(reach, ids, order, "runs again")


@click.command("run-now")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@reaching
def run_now(reach: Reach, ids: tuple[str, ...]) -> None:
    """Make delayed tasks ready at once, waiting retries too."""
    _each(reach, ids, lambda handle: handle.run_now(), "is ready now")


@click.command()
@click.argument("id")
@click.option("--args", "args", callback=arguments, required=True, metavar="JSON", help='All arguments; "***" keeps the one that it has.')
@reaching
def edit(reach: Reach, id: str, args: dict[str, Any]) -> None:
    """Give a task other arguments and let it run anew: the same id, run + 1.

    What waits keeps its due time; what has failed or was cancelled is enqueued again.
    """
    handle = reach.whole_stem().handle(id)
    handle.status()  # an unknown id makes no database where there is none
    try:
        handle.edit(args)
    except TypeError as error:
        raise click.UsageError(str(error)) from None
    status = handle.status()
    output.print_json(status) if reach.as_json else click.echo(f"run {status.run}")


@click.command()
@click.argument("action", type=click.Choice(BULK_ACTIONS), shell_complete=completion.words(*BULK_ACTIONS))
@choosing
@click.option("--all", "everything", is_flag=True, help="Every task, where no other option chooses.")
@click.option("--dry-run", is_flag=True, help="Change nothing; count what matches.")
@click.option("--yes", is_flag=True, help="Do not ask, on a terminal either.")
@reaching
def bulk(reach: Reach, action: str, everything: bool, dry_run: bool, yes: bool, **which: Any) -> None:
    """Retry, revoke, terminate, delete or run now all tasks that match.

    Refused are those of which the action makes no sense as they stand; `delete` drops what is kept of ended tasks.
    """
    if not everything and not any(value is not None for value in which.values()):
        raise click.UsageError("which? Give --state, --queue, --name, --text, --since or --until, or --all")
    reach.refuse_hidden(which["text"])
    app, _ = reach.stem_at()
    meant = cast(BulkAction, action)
    if not dry_run and not yes and sys.stdin.isatty():
        matched = app.bulk(meant, dry_run=True, all=everything, progress=_progress(reach), **which).matched
        if matched:
            click.confirm(f"{action} {matched} task{'' if matched == 1 else 's'}?".ljust(PROGRESS_WIDTH), abort=True, err=True)
        dry_run = not matched  # nobody was asked about what comes in between
    result = app.bulk(meant, dry_run=dry_run, all=everything, progress=_progress(reach), **which)
    if reach.as_json:
        output.print_json(result)
    elif dry_run:
        click.echo(f"{result.matched} match")
    else:
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(result.reasons.items()))
        refused = f", {result.refused} refused ({why})" if result.refused else ""
        click.echo(one_line(f"{result.matched} matched, {result.done} {DONE_WORDS[action]}{refused}"))


def _progress(reach: Reach) -> Callable[[BulkResult], object] | None:
    if reach.as_json or not sys.stderr.isatty():
        return None
    return lambda result: click.echo(f"\r{result.matched} matched, {result.refused} refused\r", nl=False, err=True)


def _each(reach: Reach, ids: Sequence[str], order: Callable[[TaskHandle[Any]], None], done: str) -> None:
    """A refusal of one id does not keep the others from it. Of a single id it is the command's."""
    app = reach.stem()
    refused: dict[str, StemError] = {}
    for id in dict.fromkeys(ids):
        handle = app.handle(id)
        try:
            handle.status()  # an unknown id makes no database where there is none
            order(handle)
        except (ActionRefused, UnknownResult) as error:
            refused[id] = error
        if not reach.as_json and (len(ids) > 1 or id not in refused):
            click.echo(one_line(f"{id}  {refused.get(id, done)}"), err=id in refused)
    if len(ids) == 1 and refused:
        raise refused[ids[0]]
    if reach.as_json:
        output.print_json([{"id": id, "refused": str(refused[id]) if id in refused else None} for id in dict.fromkeys(ids)])
    if refused:
        raise SystemExit(1)
