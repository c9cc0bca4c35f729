"""Dead letters: commands that list, show, replay and purge what failed for good."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

from stem_iso import validation
from stem_iso.brokers.base import DeadFilter, DeadLetter, Replayed
from stem_iso.cli import completion, output
from stem_iso.cli.filters import instant
from stem_iso.cli.options import Reach, reaching
from stem_iso.errors import UnknownResult
from stem_iso.printable import one_line
from stem_iso.task.envelope import Envelope, Undecodable, decode

if TYPE_CHECKING:
    from stem_iso.app import Stem


def filtering(command: Any) -> Any:
    died = "Those that died at that time or later: 10m (ago), or ISO 8601."
    command = click.option("--since", callback=instant, metavar="TIME", help=died)(command)
    command = click.option("--queue", help="Those of this queue.", shell_complete=completion.queues)(command)
    return click.option("--name", help="Those of this task.", shell_complete=completion.tasks)(command)


@click.group()
def dlq() -> None:
    """Dead letters: list, show, replay, purge."""


@dlq.command("list")
@filtering
@reaching
def list_dead(reach: Reach, queue: str | None, name: str | None, since: float | None) -> None:
    """List dead letters, newest last."""
    letters = reach.open().dead_letters(DeadFilter(None, queue, name, since))
    if reach.as_json:
        output.print_json([_as_data(letter) for letter in letters])
    elif not letters:
        click.echo("no dead letters")
    else:
        rows = [(letter.id, letter.name, letter.queue, letter.reason, output.clock(letter.died_at), _why(letter)) for letter in letters]
        click.echo(output.table(("ID", "TASK", "QUEUE", "REASON", "DIED", "ERROR"), rows, {"REASON": lambda _: "red"}))


@dlq.command("show")
@click.argument("id")
@reaching
def show_dead(reach: Reach, id: str) -> None:
    """Show one dead letter with its arguments and its error."""
    app = reach.stem()
    letters = app.open_broker().dead_letters(DeadFilter([id]))
    if not letters:
        raise _no_such([id])
    data = _as_data(letters[0], app)
    if reach.as_json:
        output.print_json(data)
        return
    error = letters[0].error
    shown = {**data, "died_at": output.clock(letters[0].died_at), "error": error and f"{error.type}: {error.message}"}
    if data.get("args", {}) is None:
        shown["args"] = "not shown: -A names the application whose code says which of them are redacted"
    texts = [("stuck at", error and error.stack), ("traceback", error and error.traceback), ("printed last", error and error.output)]
    click.echo(output.pairs([*shown.items(), *texts]))


@dlq.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All dead letters (that the other options choose).")
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be done.")
@click.option("--delay", type=click.FloatRange(min=0), default=0.0, metavar="S", help="Let them run no sooner than that.")
@filtering
@reaching
def replay(reach: Reach, ids: tuple[str, ...], everything: bool, dry_run: bool, delay: float, **chosen: Any) -> None:
    """Enqueue dead letters again, under their ids, as a new run."""
    if not ids and not everything and not any(value is not None for value in chosen.values()):
        raise click.UsageError("which? Give ids, or --queue, --name or --since, or --all")
    if ids and everything:
        raise click.UsageError("ids or --all, not both")
    app, which = reach.stem(), DeadFilter(ids or None, **chosen)
    with app.broker_pool.borrow() as broker:
        answers = broker.replay(which, validation.delay("delay", delay), dry_run)
    if not dry_run and (done := sum(answer.refused is None for answer in answers)):
        app.log_action("replay", _in_words(which), f"{done} replayed")
    missing = sorted(set(ids) - {answer.id for answer in answers})
    if missing and not answers:
        raise _no_such(missing)
    if reach.as_json:
        # One value, whatever happened to each: what is not there is one more that stays as it is.
        absent = [{"id": id, "run": None, "refused": "no dead letter has this id"} for id in missing]
        output.print_json([*answers, *absent])
        if missing:
            raise SystemExit(1)
    else:
        for answer in answers:
            click.echo(one_line(f"{answer.id}  {_replayed(answer, dry_run)}"))
        click.echo(f"{sum(answer.refused is None for answer in answers)} {'would be ' if dry_run else ''}replayed", err=True)
    if missing:
        raise _no_such(missing)
    if any(answer.refused for answer in answers):
        raise SystemExit(1)


@dlq.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--yes", is_flag=True, help="Do not ask, on a terminal either.")
@filtering
@reaching
def purge(reach: Reach, ids: tuple[str, ...], yes: bool, **chosen: Any) -> None:
    """Delete dead letters: those given, those that the options choose, or all."""
    app, which = reach.stem(), DeadFilter(ids or None, **chosen)
    with app.broker_pool.borrow() as broker:
        if not yes and sys.stdin.isatty():
            click.confirm(f"Delete {len(broker.dead_letters(which))} dead letters for good?", abort=True, err=True)
        count = broker.purge_dead(which)
    if count:
        app.log_action("purge", f"dead letters {_in_words(which)}", f"{count} deleted")
    missing = max(0, len(set(ids)) - count)
    if not missing:
        output.print_json({"purged": count}) if reach.as_json else click.echo(f"{count} deleted")
        return
    if count and reach.as_json:
        output.print_json({"purged": count, "missing": missing})
        raise SystemExit(1)
    if count:
        click.echo(f"{count} deleted")
    raise UnknownResult(f"{missing} of the ids are no dead letters")


def _no_such(ids: list[str]) -> UnknownResult:
    return UnknownResult(f"no dead letter has the id {', '.join(ids)}")


def _in_words(which: DeadFilter) -> str:
    """For the list of actions."""
    since = None if which.since is None else output.clock(which.since)
    chosen = {"id": which.ids and ",".join(which.ids), "queue": which.queue, "name": which.name, "since": since}
    return " ".join(f"{name}={value}" for name, value in chosen.items() if value) or "all"


def _replayed(answer: Replayed, dry_run: bool) -> str:
    if answer.refused:
        return f"stays dead: {answer.refused}"
    return f"{'would become' if dry_run else 'is now'} run {answer.run}"


def _why(letter: DeadLetter) -> str:
    written = f"{letter.error.type}: {letter.error.message}".splitlines()[0] if letter.error else ""
    return written if len(written) <= 60 else written[:59] + "…"


def _as_data(letter: DeadLetter, app: Stem | None = None) -> dict[str, Any]:
    """With its contents, where `app` is given, which says what may be shown of them."""
    data: dict[str, Any] = {name: getattr(letter, name) for name in letter.__struct_fields__ if name != "body"}
    data["died_at"] = output.moment(letter.died_at)
    if app is not None:
        data.update(_contents(letter.body, app))
    return data


def _contents(body: bytes, app: Stem) -> dict[str, Any]:
    """What was asked for; the raw bytes where they are no envelope."""
    try:
        envelope: Envelope = decode(body)
        msgspec.msgpack.decode(envelope.args)
    except (Undecodable, msgspec.MsgspecError, ValueError, RecursionError):
        return {"body": body}
    args = app.shown_arguments(envelope.name, bytes(envelope.args))
    header = {"priority": envelope.priority, "headers": envelope.headers, "meta": envelope.meta, "redeliveries": envelope.redeliveries}
    return {"args": args, **header, "enqueued_at": output.moment(envelope.enqueued_at)}
