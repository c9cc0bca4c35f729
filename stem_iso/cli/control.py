"""Control of workers, and what those commands answer that workers obey: exit code 1 where nobody did."""

from __future__ import annotations

from typing import Any

import click

from stem_iso.cli import completion, output
from stem_iso.cli.options import Reach, reaching
from stem_iso.client.worker_control import ACTIONS, EVERY, Acknowledged
from stem_iso.printable import one_line
from stem_iso.validation import did_you_mean


def answered(command: Any) -> Any:
    """Adds the option that says how long answers are waited for."""
    shown = "How long to wait for the answers of workers."
    return click.option("--timeout", type=click.FloatRange(min=0), default=5.0, show_default=True, metavar="S", help=shown)(command)


@click.command()
@click.argument("worker")
@click.argument("action", type=click.Choice(ACTIONS), shell_complete=completion.words(*ACTIONS))
@click.argument("value", required=False)
@answered
@reaching
def control(reach: Reach, worker: str, action: str, value: str | None, timeout: float) -> None:
    """Order a worker, or all of them ('*'), to do something:

    \b
    concurrency N    run so many tasks at once
    drain            finish what runs, take nothing new, and stay
    resume           take tasks again, after a drain
    stop             finish what runs and end, as TERM does
    log-level WORD   debug, info, warning, error or critical
    kill PID         end one of its isolates, and the task in it
    stack PID        show where the code in that isolate is
    """
    app = reach.stem()
    answers = app.control(worker, action, _read(action, value), timeout=timeout)
    nobody = not (answers or answers.refused or answers.silent)
    if nobody and not reach.as_json:
        with app.broker_pool.borrow() as broker:
            known = [each.id for each in broker.workers()]
        meant = did_you_mean(worker, known) if known and worker != EVERY else ""
        click.echo(f"Error: {one_line(f'no worker {worker!r} lives{meant}')}", err=True)
        raise SystemExit(1)
    answer(reach, answers, "")


def _read(action: str, value: str | None) -> Any:
    if value is None or action not in ("concurrency", "kill", "stack"):
        return value
    try:
        return int(value)
    except ValueError:
        raise click.UsageError(f"{action}: {value!r} is no whole number") from None


def answer(reach: Reach, answers: Acknowledged, done: str) -> None:
    """`done`: what is so, whoever answered."""
    if reach.as_json:
        output.print_json(answers.as_dict())
    else:
        click.echo(one_line(f"{done}; {answers.in_words()}" if done else answers.in_words()), err=not answers)
        for id, said in answers.texts.items():
            output.print_text(f"{one_line(id)}: {said}")
    if not answers:
        raise SystemExit(1)
