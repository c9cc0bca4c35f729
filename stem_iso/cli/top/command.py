"""The command `stem-iso top`: the full screen on a terminal, else plain lines, once."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from stem_iso.cli import output
from stem_iso.cli.options import Reach, reaching
from stem_iso.cli.top import plain
from stem_iso.cli.top.reader import Reader
from stem_iso.errors import InvalidOptions

if TYPE_CHECKING:
    from stem_iso.app import Stem


@click.command()
@click.option("--once", is_flag=True, help="Print plain lines once and end, as where there is no terminal.")
@reaching
def top(reach: Reach, once: bool) -> None:
    """Watch workers, isolates, queues, time-outs and failures, and steer them.

    The full screen needs textual: pip install 'stem_iso[tui]'. `?` lists its keys. Without a terminal, with --once or with --json, it is
    printed once: lines, or one JSON value.
    """
    app = reach.stem()
    place = app.site.shown
    if reach.as_json:
        output.print_json(plain.as_data(Reader(app, place).read()))
    elif once or not _on_terminal():
        for line in plain.lines(Reader(app, place).read()):
            click.echo(line)
    else:
        _full_screen(Reader(app, place), app, place)


def _on_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _full_screen(reader: Reader, app: Stem, place: str) -> None:
    if find_spec("textual") is None:
        raise InvalidOptions("the full screen needs textual: pip install 'stem_iso[tui]'; or print it once: stem-iso top --once")
    from stem_iso.cli.top import background, screen

    palette = background.palette(os.environ, sys.stdin.fileno(), sys.stdout.fileno())
    if code := screen.run(app, reader, place, palette):
        raise SystemExit(code)
