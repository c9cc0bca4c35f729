"""Enforcement: what a system does to a hostile handler, and to those beside it.

One sample, with a pool or worker of two:

    hostile    │start────────── limit ┤ signal … dead … told
    bystander  │start──────────────────── its own limit, BESIDE later ┤ dead: how late?
    next               │sent─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ start: when was there room again?
    left                                     dead + 1 s ┤ who is there?  + 10 s, if anybody was ┤

A limit counts from the handler's first act, so that no system is charged for what lies before it; one that counts from earlier may be
early.
A handler that ends itself is due at the instant before it does. Each wait is bounded by PATIENCE, and what is left is killed by its pid.

Rounds are interleaved: in each, every system is started anew, in random order, and runs every handler once, in random order, at a
random phase.
A cell that has been slow SLOW_SAMPLES times is not run again in that run: the count stands in the table.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import bench.systems as systems
from bench.handlers import HANDLERS
from bench.reference import observer
from bench.reference.driven import Driven, outcome
from bench.reference.kernel import Signals
from bench.reference.observer import Watch

PATIENCE, BEGIN, BESIDE = 4.0, 8.0, 0.3  # seconds
SETTLE = 0.2  # seconds between two samples of one system: what replaces the killed may start, as where not every call is hostile
SLOW, SLOW_SAMPLES = 2.0, 3
HARMED = 0.7 * BESIDE  # seconds before its own limit: with the hostile one, and not by a limit that counts from before its first act
EARLY = 0.05  # seconds before a limit from which on a signal is taken for its enforcement

Values = dict[str, Any]


@dataclass
class Pending:
    """A sample that waits for its look at who is left."""

    values: Values
    watches: tuple[Watch, ...]
    at: float  # of the next look
    looked: int = 0
    dead: float = 0.0


@dataclass
class Turn:
    """One system's turn in one round: every handler once."""

    driven: Driven
    limit: float
    signals: Signals
    add: Callable[[str, Values], None]  # kind, values
    dice: random.Random
    thorough: bool = True  # look again after ten seconds
    patience: float = PATIENCE
    begun: set[str] = field(default_factory=set)  # handlers that had their chance
    _number: int = 0
    _pending: list[Pending] = field(default_factory=list)

    @property
    def beside(self) -> float:
        """The bystander's own limit."""
        return systems.find(self.driven.name).limit(self.limit + BESIDE)

    def run_all(self, handlers: Sequence[str]) -> None:
        order = list(handlers)
        self.dice.shuffle(order)
        for before, handler in zip(["", *order], order, strict=False):
            if not self.run(handler):
                # The damage is that of the handler before, and is written down as its own; this one has a chance in a new pool.
                self.finish()
                self.add("unstarted", {**self._who, "handler": handler, "after": before})
                self.driven.ask("reopen")
                if not self.run(handler):
                    self.add("broken", {**self._who, "error": f"{handler} did not begin"})
                    self.driven.ask("reopen")
        self.finish()

    @property
    def _who(self) -> Values:
        return {"system": self.driven.name, "settings": self.driven.settings}

    def run(self, handler: str) -> bool:
        """One sample, added when its looks are done; False if the handler did not begin."""
        self._number += 1
        self.begun.add(handler)
        time.sleep(SETTLE + self.dice.random() * 0.1)
        hostile, told = self._start(handler, self.limit)
        beside, beside_told = self._start("bystander", self.beside)
        began, beside_began = hostile.started(), beside.started()
        after, after_told = self._start("next", None)
        values: Values = {**self._who, "handler": handler, "limit": self.limit}
        if began is None or began.start is None:
            self._give_up((hostile, beside, after))
            return False
        due = self._due(handler, hostile, began.start)
        until = due + self.patience
        hostile.bound(until)
        after.bound(until)
        dead, ended = hostile.wait(), outcome(told, until)
        next_began = after.started()
        last = until + self.beside - self.limit
        beside.bound(last)
        values |= self._times(due, dead, ended["told"], next_began.start if next_began else None)
        values |= {"word": ended["word"], "error": ended["error"], "right": ended["word"] in HANDLERS[handler].right}
        values |= self._bystander(beside, beside_began, outcome(beside_told, last))
        values |= self._seen(hostile, due)
        values["next_word"] = outcome(after_told, time.monotonic() + 0.5)["word"]
        self._await_left(values, (hostile, beside, after), dead)
        return True

    def finish(self) -> None:
        while self._pending:
            self._look(wait=True)

    def _start(self, handler: str, limit: float | None) -> tuple[Watch, Any]:
        ledger = self.driven.folder / f"{self._number}-{handler}"
        answer = self.driven.send("run", handler=handler, ledger=str(ledger), limit=limit)
        return Watch(ledger, BEGIN), answer

    def _due(self, handler: str, hostile: Watch, start: float) -> float:
        if HANDLERS[handler].right != ("crash",):
            return start + self.limit
        observer.until(lambda: hostile.ledger.due is not None, 5.0, observer.LOOK)
        return hostile.ledger.due or start

    def _times(self, due: float, dead: float | None, told: float | None, after: float | None) -> Values:
        return {
            "dead": None if dead is None else dead - due,
            "told": None if told is None else told - due,
            "told_first": told is not None and (dead is None or told < dead - 0.001),
            "next": None if after is None else after - due,
            "patience": self.patience,
            "at": due,
        }

    def _bystander(self, beside: Watch, began: observer.Ledger | None, ended: Values) -> Values:
        """Harmed: it was told anything but its own time-out, or ended before that."""
        dead = beside.wait()
        late = None if dead is None or began is None or began.start is None else dead - began.start - self.beside
        harmed = began is None or ended["word"] != "timeout" or (late is not None and late < -HARMED)
        return {"bystander_late": late, "bystander_word": ended["word"], "bystander_harmed": harmed}

    def _seen(self, hostile: Watch, due: float) -> Values:
        """Signals to the handler's own process and to what it started, from shortly before the limit on."""
        if not self.signals.available:
            return {"signal": None, "events": []}
        ledger = hostile.ledger
        events = [
            {"at": one.at - due, "signal": one.number, "to": "handler" if pid == ledger.pid else "descendant"}
            for pid in (ledger.pid, *list(ledger.children)[:10])
            for one in self.signals.to(pid, due - EARLY)
            if one.sender != pid
        ]
        events.sort(key=lambda event: event["at"])
        first = next((event["at"] for event in events if event["to"] == "handler"), None)
        return {"signal": first, "events": events[:40]}

    def _give_up(self, watches: tuple[Watch, ...]) -> None:
        for watch in watches:
            watch.bound(0.0)
        self._clear(watches)

    # -- who is left ----------------------------------------------------------------------------------------------------------------

    def _await_left(self, values: Values, watches: tuple[Watch, ...], dead: float | None) -> None:
        """A handler that lives is in everybody's way, so its look is not put off."""
        now = time.monotonic()
        pending = Pending(values, watches, (dead or now) + 1.0, dead=dead or now)
        self._pending.append(pending)
        if dead is None or values["next"] is None or values["bystander_late"] is None:
            self.finish()
        else:
            self._look(wait=False)

    def _look(self, *, wait: bool) -> None:
        for pending in list(self._pending):
            if wait:
                time.sleep(max(0.0, pending.at - time.monotonic()))
            if time.monotonic() < pending.at:
                continue
            ledger = pending.watches[0].ledger
            found = observer.left(ledger)
            seconds = 10 if pending.looked else 1
            pending.looked += 1
            pending.values |= {
                f"left_{seconds}": len(found.alive),
                f"zombies_{seconds}": len(found.zombies),
                "started": len(ledger.children),
            }
            if (found.alive or found.zombies) and pending.looked == 1 and self.thorough:
                pending.at = pending.dead + 10.0
                continue
            self._pending.remove(pending)
            self.add("enforce", pending.values)
            broken = pending.values["dead"] is None or pending.values["next"] is None or pending.values["bystander_late"] is None
            if found.alive or broken:
                self._clear(pending.watches)
            if broken:
                self.driven.ask("reopen")

    def _clear(self, watches: Sequence[Watch]) -> None:
        for watch in watches:
            observer.kill(observer.left(watch.ledger).alive)


@dataclass
class Cells:
    """Which cells are worth another sample."""

    _slow: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def wanted(self, system: str, settings: str, handlers: Sequence[str]) -> list[str]:
        return [name for name in handlers if self._slow[system, settings, name] < SLOW_SAMPLES]

    def note(self, values: Values) -> None:
        times = [values.get(name) for name in ("dead", "told", "next")]
        if any(time is None or time > SLOW for time in times) or values.get("left_1"):
            self._slow[values["system"], values["settings"], values["handler"]] += 1


def turns(systems: Sequence[tuple[str, str]], rounds: int, until: float, dice: random.Random) -> Iterator[tuple[int, str, str]]:
    """Round, system, settings; the first round is always whole."""
    for number in range(rounds):
        order = list(systems)
        dice.shuffle(order)
        for name, settings in order:
            if number and time.monotonic() > until:
                return
            yield number, name, settings
