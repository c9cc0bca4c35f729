"""Options that every command shares: `--json`, `-A`, `--broker`, and from the last two to an application.

    -A module:app            that application; --broker takes the place of its own broker
    --broker URL alone       an application without tasks: enough to look and to enqueue by name
    neither                  STEM_ISO_APP, else STEM_ISO_BROKER, [tool.stem_iso], the default database

`-A` alone imports the user's code; a variable or the file may name the application too, as for the worker. An empty value is a slip (of a
variable of the shell that is not set) and refused: nobody is to ask another broker than was meant.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from stem_iso.config import PREFIX, broker_url, file_table, included_modules
from stem_iso.errors import UnknownTask
from stem_iso.validation import did_you_mean
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
        app = before.app if self.app is None else self.app
        return Reach(self.as_json or before.as_json, app, before.broker if self.broker is None else self.broker)

    @property
    def target(self) -> str | None:
        """What names the application; None where nothing does."""
        if self.app is not None or self.broker is not None:
            return self.app
        return os.environ.get(PREFIX + "APP") or file_table().get("app")

    @property
    def by_default(self) -> bool:
        """Whether nothing says which broker is meant: it is the database in the working folder."""
        return self.target is None and self.broker is None and not os.environ.get(PREFIX + "BROKER") and "broker" not in file_table()

    def stem(self) -> Stem:
        """Raises InvalidOptions, BrokenModule."""
        from stem_iso.app import Stem

        if self.target is None:
            return shared(Stem(broker=broker_url() if self.broker is None else self.broker))
        return shared(find_app(self.target), self.broker)

    def whole_stem(self) -> Stem:
        """As `stem`, with the modules of tasks that a worker would import: what their arguments are, only their code says."""
        return self.stem() if self.target is None else shared(find_app(self.target, included_modules()), self.broker)

    def refuse_hidden(self, text: str | None) -> None:
        """A text is sought in what may be shown, which the application's code says."""
        if text is not None and self.target is None:
            raise click.UsageError("--text looks at arguments as they may be shown: -A names the application whose code says that")

    def stem_with(self, task: str) -> Stem:
        """The application that is to send `task`; the modules of tasks that a worker would import are imported too.

        Raises InvalidOptions, BrokenModule, and UnknownTask where an application is named that has tasks, and none of this name.
        """
        if self.target is None:
            return self.stem()
        app = self.whole_stem()
        if len(app.registry) and task not in app.registry:
            meant = did_you_mean(task, [handler.name for handler in app.registry])
            raise UnknownTask(f"{self.target} has no task {task!r}{meant} (to enqueue a task of other code, give --broker without -A)")
        return app

    def stem_at(self) -> tuple[Stem, str]:
        """As `whole_stem`, and what to say of the place that was asked, where it holds nothing."""
        app = self.whole_stem()
        place = app.site.shown
        path = place.removeprefix("sqlite:///")
        if path != place and not os.path.exists(path):
            place = f"there is no database {path}; the first enqueue, or a worker, makes it"
        return app, place

    def open_at(self) -> tuple[Broker, str]:
        """The broker, and what to say of its place."""
        app, place = self.stem_at()
        return app.open_broker(), place

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
