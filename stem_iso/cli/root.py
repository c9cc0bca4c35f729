"""The group of commands, and what each kind of failure looks like: one line on stderr and an exit code, never our traceback.

0    done
1    the answer is no: the task failed, the id is unknown, the wait ran out
2    usage or import: what was typed cannot be meant, or the user's module is broken (then with its own traceback)
3    the broker cannot be reached
130  Ctrl-C, in silence
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from stem_iso.cli.dead_letters import dlq
from stem_iso.cli.inspect import events, queues, workers
from stem_iso.cli.schedules import schedule
from stem_iso.cli.tasks import enqueue, graph, result, revoke, status
from stem_iso.cli.worker import worker
from stem_iso.errors import BrokerUnavailable, InvalidOptions, StemError, UnknownTask
from stem_iso.printable import lines
from stem_iso.validation import did_you_mean
from stem_iso.worker.app_import import BrokenModule

USAGE, UNREACHABLE, INTERRUPTED = 2, 3, 130


class CommandGroup(click.Group):
    """Says which command was meant."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            known = self.list_commands(ctx)
            ctx.fail(f"there is no command {args[0]!r}{did_you_mean(args[0], known)}")
        return super().resolve_command(ctx, args)


def _show_version(ctx: click.Context, param: click.Parameter, asked: bool) -> None:
    if not asked:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"stem-iso {version('stem_iso')}")
    except PackageNotFoundError:
        click.echo("stem-iso, from a folder of sources")
    ctx.exit()


@click.group(cls=CommandGroup)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version and exit.")
def root() -> None:
    """Background tasks that can really be killed: run workers, and look at what they do."""


for command in (worker, enqueue, status, result, graph, revoke, queues, workers, events, dlq, schedule):
    root.add_command(command)


def exit_code(error: StemError) -> int:
    if isinstance(error, BrokerUnavailable):
        return UNREACHABLE
    return USAGE if isinstance(error, InvalidOptions | UnknownTask | BrokenModule) else 1


def _perform(command: click.Command, arguments: Sequence[str], name: str) -> int:
    try:
        _refuse_unreadable(arguments)
        # Not standalone: click would turn Ctrl-C into "Aborted!" and 1.
        command.main(args=list(arguments), prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except StemError as error:
        click.echo(f"Error: {lines(str(error), '')}", err=True)
        return exit_code(error)
    except BrokenPipeError:
        # `stem-iso events | head`: nobody reads any more. The interpreter would complain once more while it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _refuse_unreadable(arguments: Sequence[str]) -> None:
    """Bytes that are no text can be no id and no name of anything: no broker can even be asked for them."""
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            raise click.UsageError(f"{argument!r} is no UTF-8 text")


def run() -> None:
    """`stem-iso`."""
    raise SystemExit(_perform(root, sys.argv[1:], "stem-iso"))


def run_worker_alone() -> None:
    """`python -m stem_iso.worker`."""
    raise SystemExit(_perform(worker, sys.argv[1:], "python -m stem_iso.worker"))
