"""Options that every command shares: `--json`, `-A`, `--broker`, and from the last two to an application.

    -A module:app            that application; --broker takes the place of its own broker
    --broker URL alone       an application without tasks: enough to look and to enqueue by name
    neither                  STEM_ISO_APP, else STEM_ISO_BROKER, [tool.stem_iso], the default database

`-A` alone imports the user's code; a variable or the file may name the application too, as for the worker.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from stem_iso.config import PREFIX, broker_url, file_table
from stem_iso.worker.app_import import find_app, shared

if TYPE_CHECKING:
    from stem_iso.app import Stem
    from stem_iso.brokers.base import Broker


@dataclass(frozen=True, slots=True)
class Reach:
    """What was typed. `as_json` says which of the two manners to answer in."""

    as_json: bool
    app: str | None
    broker: str | None

    def over(self, before: Reach | None) -> Reach:
        """What was typed last wins over what was typed before."""
        if before is None:
            return self
        return Reach(self.as_json or before.as_json, self.app or before.app, self.broker or before.broker)

    def stem(self) -> Stem:
        """Raises InvalidOptions, BrokenModule."""
        from stem_iso.app import Stem

        target = self.app or (None if self.broker else os.environ.get(PREFIX + "APP") or file_table().get("app"))
        if target is None:
            return shared(Stem(broker=self.broker or broker_url()))
        return shared(find_app(target), self.broker)

    def open(self) -> Broker:
        """The broker itself, for commands that look past single tasks."""
        return self.stem().open_broker()


def reaching(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the three options; the command gets them as its first argument, a `Reach`."""

    @click.option("--json", "as_json", is_flag=True, help="Answer with one JSON value.")
    @click.option("-A", "--app", metavar="MODULE:APP", help="The application.  [STEM_ISO_APP]")
    @click.option("--broker", metavar="URL", help="The broker, instead of the application's own.  [STEM_ISO_BROKER]")
    @functools.wraps(command)
    def wrapped(as_json: bool, app: str | None, broker: str | None, **given: Any) -> Any:
        return command(Reach(as_json, app, broker), **given)

    return wrapped
