"""`stem-iso worker`, which is also `python -m stem_iso.worker`: the options of `stem_iso.config` and nothing of its own.

The launcher that runs next is the keeper: it must stay small and run no user code. So the application is not imported here; the core does
that, and ends with 2 where it cannot.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any

import click

from stem_iso.cli import completion
from stem_iso.config import LOG_FORMATS, LOG_LEVELS, SETTINGS, Setting, load

COMPLETIONS = {"queues": completion.queues, "log_level": completion.words(*LOG_LEVELS), "log_format": completion.words(*LOG_FORMATS)}


def _option(setting: Setting) -> click.Option:
    shown = f"{setting.meaning}  [{setting.variable}]"
    if setting.name == "burst":
        return click.Option([*setting.flags, setting.name], is_flag=True, default=None, help=shown)
    several = setting.name in ("secret_env", "include")
    return click.Option(
        [*setting.flags, setting.name],
        metavar=setting.metavar,
        multiple=several,
        default=None,
        help=shown,
        shell_complete=COMPLETIONS.get(setting.name),
    )


def _owner(ctx: click.Context, param: click.Parameter, value: int | None) -> int | None:
    try:
        if value is None or stat.S_ISFIFO(os.fstat(value).st_mode):
            return value
    except (OSError, OverflowError):
        pass
    raise click.BadParameter(f"{value} is no pipe that was handed down to this process", ctx, param)


def run_worker(owner: int | None, reload: bool, **given: Any) -> None:
    for name in ("app", "broker", "queues"):
        if given[name] == "":
            raise click.UsageError(f"--{name}: '' is empty; is it a variable of the shell that is not set?")
    config = load({name: value or None for name, value in given.items()})
    if not config.app:
        raise click.UsageError("which application? Give -A module:app, or STEM_ISO_APP, or app in [tool.stem_iso] of pyproject.toml")
    if reload:
        from stem_iso.cli.reload import Reloader

        raise SystemExit(Reloader(_options_again(given)).run())
    from stem_iso.worker.launcher import launch

    raise SystemExit(launch(config, owner))


def _options_again(given: Mapping[str, Any]) -> list[str]:
    """What was typed, for another process."""
    options = []
    for setting in SETTINGS:
        value = given.get(setting.name)
        if value is True:
            options.append(setting.flags[-1])
        elif value:
            options += [word for each in (value if isinstance(value, tuple) else (value,)) for word in (setting.flags[-1], str(each))]
    return options


HELP = """Run a worker.

Each option can also be given as a variable of the environment or as a key of [tool.stem_iso] in ./pyproject.toml, under its long name;
the command line wins over the environment, that over the file.

Exit codes: 0 done, 1 failed, 2 usage or import, 3 broker unreachable.
"""
# For programs (`stem_iso.worker.owned_worker`), hence hidden: nobody types a descriptor.
OWNER = click.Option(["--owner"], type=click.IntRange(min=3), metavar="FD", callback=_owner, hidden=True)
RELOAD = click.Option(
    ["--reload"], is_flag=True, help="For development: start anew whenever a Python file below the working folder changes."
)
worker = click.Command("worker", callback=run_worker, params=[*(_option(setting) for setting in SETTINGS), RELOAD, OWNER], help=HELP)
