"""The group of commands, and what each kind of failure looks like: one line on stderr and an exit code, never our traceback.

0    done
1    the answer is no: the task failed or was cancelled, the id is unknown
2    usage or import: what was typed cannot be meant, or the user's module is broken (then with its own traceback)
3    the broker cannot be reached
4    the wait ran out, and the task goes on
130  Ctrl-C, in silence

With `--json` stdout has one JSON value in any case: `{"error": {"type", "message"}}` where there is no answer, and nothing is on stderr.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

import click

from stem_iso.cli import output
from stem_iso.cli.control import control
from stem_iso.cli.dashboard import dashboard
from stem_iso.cli.dead_letters import dlq
from stem_iso.cli.health import health
from stem_iso.cli.inspect import events, migrate, workers
from stem_iso.cli.queues import queues
from stem_iso.cli.schedules import schedule
from stem_iso.cli.stats import actions, stats
from stem_iso.cli.task_changes import bulk, edit, retry, run_now
from stem_iso.cli.task_list import tasks
from stem_iso.cli.tasks import enqueue, graph, result, revoke, status
from stem_iso.cli.top.command import top
from stem_iso.cli.worker import worker
from stem_iso.errors import BrokerUnavailable, InvalidOptions, StemError, UnknownTask
from stem_iso.printable import lines
from stem_iso.validation import did_you_mean
from stem_iso.worker.app_import import BrokenModule

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)
DONE, NO, USAGE, UNREACHABLE, RAN_OUT, INTERRUPTED = 0, 1, 2, 3, 4, 130


class CommandGroup(click.Group):
    """Says which command was meant."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-") and not ctx.resilient_parsing:
            known = self.list_commands(ctx)
            ctx.fail(f"there is no command {args[0]!r}{did_you_mean(args[0], known)}")
        return super().resolve_command(ctx, args)


def _show_version(ctx: click.Context, param: click.Parameter, requested: bool) -> None:
    if not requested:
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


COMMANDS = (
    *(worker, enqueue, status, result, graph, revoke),
    *(tasks, retry, run_now, edit, bulk, queues, workers, control, stats, health, actions),
    *(events, dlq, schedule, migrate, top, dashboard),
)
for command in COMMANDS:
    root.add_command(command)


def exit_code(error: StemError) -> int:
    if isinstance(error, BrokerUnavailable):
        return UNREACHABLE
    return USAGE if isinstance(error, InvalidOptions | UnknownTask | BrokenModule) else NO


def _perform(command: click.Command, arguments: Sequence[str], name: str) -> int:
    """The exit code."""
    if sys.stdout is None:  # started without one: the answer is for nobody
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - to the end
    try:
        code = _answered(command, arguments, name)
        sys.stdout.flush()
    except BrokenPipeError:  # `stem-iso events | head`: nobody reads any more
        _drop_output()
        return DONE
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        _drop_output()
        click.echo(f"Error: the answer cannot be written: {error.strerror}", err=True)
        return NO
    return code


def _drop_output() -> None:
    """Or the interpreter would complain once more while it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _answered(command: click.Command, arguments: Sequence[str], name: str) -> int:
    as_json = "--json" in arguments[: arguments.index("--") if "--" in arguments else None]
    try:
        _refuse_unreadable(arguments)
        # Not standalone: click would turn Ctrl-C into "Aborted!" and 1.
        command.main(args=list(arguments), prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        if not as_json:
            error.show()
            return error.exit_code
        kind = "UsageError" if isinstance(error, click.UsageError) else type(error).__name__
        return _refuse(kind, error.format_message(), error.exit_code, as_json)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except StemError as error:
        return _refuse(type(error).__name__, str(error), exit_code(error), as_json)
    except TimeoutError as error:
        return _refuse("TimeoutError", str(error), RAN_OUT, as_json)
    return DONE


def _refuse(kind: str, message: str, code: int, as_json: bool) -> int:
    if as_json:
        output.print_json({"error": {"type": kind, "message": message}})
    else:
        click.echo(f"Error: {lines(message, '')}", err=True)
    return code


def _refuse_unreadable(arguments: Sequence[str]) -> None:
    """Bytes that are no text can be no id and no name of anything: no broker can even be asked for them."""
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            raise click.UsageError(f"{argument!r} is no UTF-8 text")


def run() -> None:
    """`stem-iso`."""
    raise SystemExit(_perform(root, sys.argv[1:], "stem-iso"))


def run_as_module() -> None:
    """`python -m stem_iso`."""
    raise SystemExit(_perform(root, sys.argv[1:], "python -m stem_iso"))


def run_worker_alone() -> None:
    """`python -m stem_iso.worker`."""
    raise SystemExit(_perform(worker, sys.argv[1:], "python -m stem_iso.worker"))
