"""`python -m bench`: the reference benchmark of time-out enforcement.

    python -m bench enforce [--quick] [--system NAME ...] [--settings default best] [--handler NAME ...] [--rounds N] [--out FOLDER]
    python -m bench pool | queue | payload | scale | memory | chaos | loss     the same options
    python -m bench all                                                 each of these, then the report
    python -m bench report FOLDER_OR_FILE ...                           a page and its pictures, of one run or of several merged
    python -m bench compare A B                                         medians of two runs, with intervals by bootstrap

A run is a file of JSON lines below --out (bench/out/reference). It ends with a check of stem_iso's own promises: exit code 1 if one is
broken. `--quick` takes two minutes: best settings, six handlers, as many rounds as fit.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import bench.systems as systems
from bench.handlers import HANDLERS
from bench.reference import compare, enforce, machine, observer, promises, venvs, work
from bench.reference.driven import Broken, Driven
from bench.reference.kernel import Signals, signals
from bench.reference.redis_server import redis_server
from bench.reference.samples import Samples, read

LIMIT, ROUNDS = 0.4, 30  # seconds, rounds
STARTS = 4  # of one system in one turn, if handlers break it
QUICK, QUICK_PATIENCE = 90.0, 2.0  # seconds
QUICK_HANDLERS = ("pure_loop", "holds_gil", "ignores_signals", "daemon", "bare_daemon", "exits")
MEASURES = ("enforce", "pool", "queue", "payload", "scale", "memory", "chaos", "loss")


def main() -> None:
    options = _options()
    if options.command == "compare":
        first, second = (list(read([path])) for path in options.paths)
        print(compare.table(first, second))
    elif options.command == "report":
        from bench.reference import page  # needs matplotlib, which a run does not

        print(page.write(list(read(options.paths)), options.to))
    else:
        sys.exit(measure(options))


def measure(options: argparse.Namespace) -> int:
    """Returns the exit code."""
    wanted = MEASURES if options.command == "all" else (options.command,)
    out, dice = options.out, random.Random()
    run = time.strftime("%Y%m%d-%H%M%S")
    samples = Samples(out / f"{run}.jsonl", run)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and so through the end of this function: nothing is left running
    observer.be_subreaper()
    machine.pin()
    chosen = _chosen(options)
    pythons = {name: venvs.interpreter(systems.find(name), options.venvs) for name, _ in chosen}
    pins = {name: venvs.versions(python, systems.find(name)) for name, python in pythons.items()}
    samples.add("run", **machine.facts(), command=" ".join(sys.argv[1:]), limit=LIMIT, versions=pins)
    shelf = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        with redis_server(shelf, any(systems.find(name).needs_redis for name, _ in chosen)) as redis:
            stand = Stand(shelf, pythons, redis, samples, dice)
            for name in wanted:
                if name == "enforce":
                    run_enforce(stand, chosen, options)
                else:
                    work.MEASURES[name](stand, chosen, options.quick)
    finally:
        observer.end_all(set())
        samples.close()
        shutil.rmtree(shelf, ignore_errors=True)
    found = list(read([out / f"{run}.jsonl"]))
    print(f"{out / f'{run}.jsonl'}: {len(found)} lines")
    if "enforce" in wanted or "chaos" in wanted:
        print(judged := promises.judge(found))
        return 1 if judged.broken else 0
    return 0


class Stand:
    """Starts systems, one at a time, each with a control before it."""

    def __init__(self, shelf: Path, pythons: dict[str, Path], redis: Any, samples: Samples, dice: random.Random) -> None:
        self._shelf, self._pythons, self._redis, self.samples, self.dice = shelf, pythons, redis, samples, dice
        self._number = 0

    def control(self, **values: Any) -> None:
        self.samples.add("control", **values, **machine.control())

    def start(self, name: str, settings: str, workers: int = 2) -> Driven:
        """Raises Broken if it does not get ready."""
        self._number += 1
        system = systems.find(name)
        redis = self._redis.empty() if system.needs_redis else ""
        folder = self._shelf / f"{self._number}-{name}-{settings}"
        return Driven(self._pythons[name], system, settings, folder, limit=system.limit(LIMIT), workers=workers, redis=redis)

    def end(self, driven: Driven) -> None:
        """And whatever it left, so that the next begins on an empty machine."""
        driven.close()
        observer.end_all(self._redis.pids)


def noted(add: Callable[[str, dict[str, Any]], None], number: int, kind: str, values: dict[str, Any]) -> None:
    add(kind, {**values, "round": number})


def run_enforce(stand: Stand, chosen: Sequence[tuple[str, str]], options: argparse.Namespace) -> None:
    until = time.monotonic() + (QUICK if options.quick else float("inf"))
    cells = enforce.Cells()

    def add(kind: str, values: dict[str, Any]) -> None:
        stand.samples.add(kind, **values)
        if kind == "enforce":
            cells.note(values)

    with signals() as seen:
        for number, name, settings in enforce.turns(chosen, options.rounds, until, stand.dice):
            handlers = cells.wanted(name, settings, options.handler)
            if not handlers:
                continue
            stand.control(round=number, system=name)
            print(f"round {number + 1}: {name} ({settings}), {len(handlers)} handlers", file=sys.stderr, flush=True)
            note = partial(noted, add, number)
            for _ in range(STARTS):
                if not (handlers := take_turn(stand, name, settings, handlers, seen, note, options.quick)):
                    break


def take_turn(
    stand: Stand, name: str, settings: str, handlers: list[str], seen: Signals, note: Callable[[str, dict[str, Any]], None], quick: bool
) -> list[str]:
    """Returns the handlers that are left when the system, or its driver, broke under one."""
    driven = turn = None
    try:
        driven = stand.start(name, settings)
        limit = systems.find(name).limit(LIMIT)
        turn = enforce.Turn(driven, limit, seen, note, stand.dice, not quick, QUICK_PATIENCE if quick else enforce.PATIENCE)
        turn.run_all(handlers)
    except Broken as error:
        note("broken", {"system": name, "settings": settings, "error": str(error)})
    finally:
        if driven is not None:
            stand.end(driven)
    return [handler for handler in handlers if handler not in turn.begun] if turn else []


def _chosen(options: argparse.Namespace) -> list[tuple[str, str]]:
    names = options.system or sorted(systems.names())
    if options.quick and not options.system:
        names = [name for name in names if systems.find(name).kind == "pool"]
    return [(name, settings) for name in names for settings in options.settings if settings in systems.find(name).settings]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    here = Path(__file__).parent.parent
    for name in (*MEASURES, "all"):
        command = commands.add_parser(name)
        command.add_argument("--quick", action="store_true", help="two minutes, a first look")
        command.add_argument("--system", action="append", metavar="NAME", choices=sorted(systems.names()))
        command.add_argument("--settings", nargs="+", metavar="NAME", help="default, best; both, and best alone where it is quick")
        command.add_argument("--handler", nargs="+", metavar="NAME", choices=HANDLERS)
        command.add_argument("--rounds", type=int, default=ROUNDS)
        command.add_argument("--out", type=Path, default=here / "out" / "reference")
        command.add_argument("--venvs", type=Path, default=here / ".venvs")
    command = commands.add_parser("report")
    command.add_argument("paths", nargs="+", type=Path)
    command.add_argument("--to", type=Path, default=here / "report")
    commands.add_parser("compare").add_argument("paths", nargs=2, type=Path, metavar=("A", "B"))
    options = parser.parse_args()
    if hasattr(options, "quick"):
        options.settings = options.settings or (["best"] if options.quick else ["default", "best"])
        options.handler = options.handler or list(QUICK_HANDLERS if options.quick else HANDLERS)
    return options
