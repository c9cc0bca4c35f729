"""Completion of values in a shell: names of tasks and queues, and the words of a choice.

    $ stem-iso enqueue -A jobs th<TAB>  ──>  click asks `tasks`  ──>  imports what -A (or STEM_ISO_APP) names  ──>  thumbs.make

Names are known to the application's code alone, so there are none where no application is given: a key of a file, which nobody typed, is
no reason to run code at a <TAB>. Whatever goes wrong gives no values; nothing of it, nor what the user's modules print while they are
imported, reaches the terminal, where somebody is in the middle of a line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from stem_iso.config import PREFIX, included_modules
from stem_iso.worker.app_import import find_app

if TYPE_CHECKING:
    from stem_iso.app import Stem

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def tasks(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _values(ctx, incomplete, lambda app: {handler.name for handler in app.registry})


def queues(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Of a list with commas, the last one."""
    before, comma, last = incomplete.rpartition(",") if param.name == "queues" else ("", "", incomplete)
    found = _values(ctx, last, lambda app: {"default", *(app.options_of(handler.name).queue for handler in app.registry)})
    return [CompletionItem(before + comma + item.value) for item in found]


def words(*choices: str) -> Complete:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in choices if word.startswith(incomplete)]

    return complete


def _values(ctx: click.Context, incomplete: str, names: Callable[[Stem], set[str]]) -> list[CompletionItem]:
    target = _target(ctx)
    if not target:
        return []
    with _silence():
        try:
            found = names(find_app(target, included_modules()))
        except Exception:  # user code, or a name that cannot be meant: there is nothing to complete, and nobody asked for more
            return []
    return [CompletionItem(name) for name in sorted(found) if name.startswith(incomplete)]


def _target(ctx: click.Context) -> str | None:
    """What -A says in the line so far, before or behind the name of a command below; else the variable."""
    level: click.Context | None = ctx
    while level is not None:
        if given := level.params.get("app"):
            return str(given)
        level = level.parent
    return os.environ.get(PREFIX + "APP")


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing that is written meanwhile reaches stdout, which is read as values, or stderr, which is the terminal."""
    kept = [(fd, os.dup(fd)) for fd in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for fd, _ in kept:
            os.dup2(nowhere, fd)
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):  # what Python still holds back goes nowhere too
            with suppress(Exception):  # a module may have closed or replaced it
                stream.flush()
        for fd, copy in kept:
            os.dup2(copy, fd)
            os.close(copy)
        os.close(nowhere)
