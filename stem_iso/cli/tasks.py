"""Single tasks and canvases: enqueue, status, result, graph, revoke."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from stem_iso.cli import completion, output
from stem_iso.cli.options import Reach, reaching
from stem_iso.cli.task_list import state_in_words
from stem_iso.errors import TaskFailed
from stem_iso.printable import one_line

if TYPE_CHECKING:
    from stem_iso.client.result import TaskHandle
    from stem_iso.outcome import EndedAttempt, TaskStatus


def arguments(ctx: click.Context, param: click.Parameter, value: str) -> dict[str, Any]:
    """Arguments by parameter name. A fault is shown where it stands."""
    try:
        read = json.loads(value)
    except json.JSONDecodeError as error:
        line = (value.splitlines() or [""])[error.lineno - 1]
        where = f"line {error.lineno}, column {error.colno}\n  {line}\n  {' ' * (error.colno - 1)}^"
        raise click.BadParameter(f"no JSON: {error.msg} at {where}", ctx, param) from None
    except RecursionError:
        raise click.BadParameter("nested too deeply", ctx, param) from None
    if not isinstance(read, dict):
        raise click.BadParameter(f'must be an object of parameter names, such as {{"path": "cat.png"}}, not {value}', ctx, param)
    return read


@click.command()
@click.argument("name", shell_complete=completion.tasks)
@click.option(
    "--args", "args", callback=arguments, default="{}", metavar="JSON", help='The arguments by parameter name: \'{"path": "cat.png"}\'.'
)
@click.option("--queue", help="The queue, where the application (-A) does not say it.", shell_complete=completion.queues)
@click.option("--priority", type=click.IntRange(0, 9), help="0 to 9, 9 first.", shell_complete=completion.words(*"0123456789"))
@click.option("--delay", type=click.FloatRange(min=0), metavar="S", help="Not before so many seconds from now.")
@click.option("--wait", is_flag=True, help="Wait for the end and show the result.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="S", help="With --wait: wait no longer than that.")
@reaching
def enqueue(reach: Reach, name: str, args: dict[str, Any], wait: bool, timeout: float | None, **options: Any) -> None:
    """Enqueue a task by its name and print its id.

    Exit codes with --wait: 1 the task failed or was cancelled, 4 the wait ran out. A name that the application (-A) does not have is
    refused.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout is for --wait: without it nothing is waited for")
    app = reach.stem_with(name)
    try:
        handle = app.enqueue(name, args, **{option: value for option, value in options.items() if value is not None})
    except TypeError as error:
        raise click.UsageError(str(error)) from None
    if reach.by_default:
        click.echo(f"stored in {app.site.shown}: no -A, --broker, variable or pyproject.toml names another place", err=True)
    if not wait:
        output.print_json({"id": handle.id, "name": name}) if reach.as_json else click.echo(handle.id)
        return
    if not reach.as_json:
        click.echo(handle.id, err=True)
    _answer(reach, handle, timeout)


@click.command()
@click.argument("id")
@reaching
def status(reach: Reach, id: str) -> None:
    """Show what is known of a task."""
    found = reach.stem().handle(id).status()
    output.print_json(found) if reach.as_json else click.echo(_describe(found))


@click.command()
@click.argument("id")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="S", help="Wait no longer than that for the end of the task.")
@reaching
def result(reach: Reach, id: str, timeout: float | None) -> None:
    """Wait for the end of a task and print its result.

    Exit codes: 1 the task failed or was cancelled, or nobody knows it, 4 the wait ran out.
    """
    handle = reach.stem().handle(id)
    handle.status()  # an unknown id makes no database where there is none: waiting would
    _answer(reach, handle, timeout)


@click.command()
@click.argument("id")
@click.option("--mermaid", is_flag=True, help="As a Mermaid flowchart.")
@reaching
def graph(reach: Reach, id: str, mermaid: bool) -> None:
    """Show a canvas (a chain, group or chord) and how each part of it stands."""
    canvas = reach.stem().canvas(id)
    if reach.as_json:
        output.print_json({"id": canvas.id, "graph": canvas.tree, "states": canvas.states()})
    else:
        click.echo(canvas.mermaid() if mermaid else canvas.draw())


@click.command()
@click.argument("id")
@click.option("--terminate", is_flag=True, help="Kill it if it runs.")
@reaching
def revoke(reach: Reach, id: str, terminate: bool) -> None:
    """Cancel a task: what waits never runs; what runs goes on unless --terminate, and is not tried again."""
    handle = reach.stem().handle(id)
    handle.status()  # an unknown id makes no database where there is none: the order would
    revoked = handle.revoke(terminate=terminate)
    if revoked:
        handle.app.log_action("terminate" if terminate else "revoke", id, "revoked")
    # After a revoke that found nothing: an unknown id raises here, a finished task says what it is.
    state = handle.status().state.value
    if reach.as_json:
        output.print_json({"id": id, "revoked": revoked, "state": state})
    else:
        click.echo("revoked" if revoked else f"nothing to revoke: the task has {state}", err=not revoked)
    if not revoked:
        raise SystemExit(1)


def _answer(reach: Reach, handle: TaskHandle[Any], timeout: float | None) -> None:
    try:
        value = handle.result(timeout=timeout)
    except TaskFailed as failure:
        output.print_json(failure.status) if reach.as_json else click.echo(_describe(failure.status), err=True)
        raise SystemExit(1) from None
    except TimeoutError as error:
        _, away, why = str(error).partition("; the broker")  # where it is away
        raise TimeoutError(f"{handle.id} has not ended within {timeout:g} s{away}{why}") from None
    if reach.as_json:
        output.print_json(handle.status())
    else:
        output.print_text(output.as_text(value))


def _describe(found: TaskStatus) -> str:
    attempt = f"{found.attempt}" + (f" of run {found.run}" if found.run else "")
    progress = found.progress and f"{found.progress.percent:g} %" + (
        f" {output.to_json(found.progress.data)}" if found.progress.data else ""
    )
    error = found.error
    died = error and (f"signal {error.signal}" if error.signal else f"exit code {error.exit_code}" if error.exit_code is not None else None)
    return output.pairs(
        [
            ("id", found.id),
            ("name", found.name),
            ("queue", found.queue),
            ("state", state_in_words(found)),
            ("attempt", attempt),
            ("redelivered", found.redeliveries or None),
            ("enqueued", found.enqueued_at and output.clock(found.enqueued_at)),
            ("not before", found.not_before and output.clock(found.not_before)),
            ("started", found.started_at and output.clock(found.started_at)),
            ("finished", found.finished_at and output.clock(found.finished_at)),
            ("worker", found.worker_id),
            ("parent", found.parent_id),
            ("args", found.args),
            ("tried before", "\n".join(map(_attempt_line, found.attempts))),
            ("progress", progress),
            ("meta", found.meta),
            ("result", None if found.result is None else output.as_text(found.result)),
            ("error", error and f"{error.type}: {error.message}"),
            ("died by", died),
            ("stuck at", error and error.stack),
            ("traceback", error and error.traceback),
            ("printed last", error and error.output),
        ]
    )


def _attempt_line(ended: EndedAttempt) -> str:
    """Of one attempt that another one followed."""
    took = None if ended.started_at is None else max(0.0, (ended.finished_at - ended.started_at).total_seconds())
    limits = ((ended.soft_time_limit, "soft"), (ended.hard_time_limit, "hard"))
    words = [
        f"{ended.attempt}" + (f" of run {ended.run}" if ended.run else ""),
        output.clock(ended.started_at or ended.finished_at),
        "had not begun" if took is None else f"ran {output.seconds(took)}",
        ", ".join(f"{name} limit {output.seconds(limit)}" for limit, name in limits if limit is not None),
        ended.state + (f" ({ended.reason})" if ended.reason else "") + (", killed" if ended.killed else ""),
        f"{ended.error_type}: {ended.error_message}" if ended.error_message else ended.error_type,
    ]
    return one_line("  ".join(filter(None, words)))
