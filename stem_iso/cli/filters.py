"""Options that choose tasks: of `tasks` and `bulk`, and for the times of `dlq`.

--since 10m         so long ago: a number with s, m, h or d, or several of these (1h30m)
--since 2026-01-31  a date or a time in ISO 8601, local where it names no zone
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from stem_iso.brokers.operations import LISTED_STATES
from stem_iso.cli import completion

AGO = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def moment(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | timedelta | None:
    if value is None:
        return None
    try:
        if value and (found := AGO.fullmatch(value)):
            return timedelta(**{unit: int(found[group] or 0) for group, unit in enumerate(("days", "hours", "minutes", "seconds"), 1)})
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{value!r} is no date and no time: write 10m (ago), 2026-01-31 or 2026-01-31T12:00:00+01:00", ctx, param
        ) from None


def instant(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """As wall-clock seconds."""
    found = moment(ctx, param, value)
    if isinstance(found, timedelta):
        found = datetime.now(UTC) - found
    return None if found is None else found.timestamp()


def choosing(command: Any) -> Any:
    """The command gets the options as `app.list_tasks` takes them, None for those that are not given."""
    for option in reversed(
        [
            click.option(
                "--state",
                metavar="STATE",
                help=f"Those that are {', '.join(LISTED_STATES[:-1])} or {LISTED_STATES[-1]}.",
                shell_complete=completion.words(*LISTED_STATES),
            ),
            click.option("--queue", metavar="QUEUE", help="Those of this queue.", shell_complete=completion.queues),
            click.option("--name", metavar="GLOB", help="Those of these tasks: 'thumbs.*'.", shell_complete=completion.tasks),
            click.option("--text", metavar="TEXT", help="Those with this text in an argument, as it is shown (needs -A)."),
            click.option("--since", callback=moment, metavar="TIME", help="Enqueued at that time or later: 10m (ago), or ISO 8601."),
            click.option("--until", callback=moment, metavar="TIME", help="Enqueued at that time or earlier."),
        ]
    ):
        command = option(command)
    return command
