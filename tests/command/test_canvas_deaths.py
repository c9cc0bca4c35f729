"""Random canvases on two workers whose isolates, cores and launchers are killed while they run: every part ends as the oracle says.

A step may run again after its worker or its isolate was lost; what stands behind it begins once, and finds the same before it. One of the
canvases is revoked meanwhile, as a whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from stem_iso.brokers.base import Broker
from stem_iso.brokers.url import open_broker
from stem_iso.isolate.keeper import process_tree as processes
from stem_iso.outcome import TaskState
from stem_iso.task.canvas.tree import GROUP, LINK_FAILED, MEMBER_FAILED, Tree, last_of, lay, leaves, parts_of
from stem_iso.task.codec import pack
from stem_iso.task.envelope import Envelope
from tests.command.conftest import Command
from tests.isolate.calling import eventually
from tests.task.canvases import agrees, grown, judge, named_by

CANVASES, BOUND = 6, 60.0
CORE, LAUNCHER = (3, 8), 5  # the kills that are not an isolate's, by number
REVOKE = 4  # the kill after which one canvas is revoked
SKIPPED = (LINK_FAILED, MEMBER_FAILED)


class Walk:
    """The canvases of one seed, and what the ledger says of them."""

    def __init__(self, broker: Broker, ledger: Path, seed: int) -> None:
        self.broker, self.ledger = broker, ledger
        self.dice = random.Random(seed)
        self.trees = [self.tree(f"c{number}") for number in range(CANVASES)]
        self.revoked: Tree | None = None
        self.fails = {leaf.id for tree in self.trees for leaf in leaves(tree) if self.dice.random() < 0.12}

    def tree(self, prefix: str) -> Tree:
        while True:
            tree = grown(self.dice.randrange, prefix=prefix)
            if len(list(leaves(tree))) >= 5:
                return tree

    def compose(self) -> None:
        for tree in self.trees:
            self.broker.compose(lay(tree, [self.envelope(leaf.id) for leaf in leaves(tree)]))

    def envelope(self, id: str) -> Envelope:
        args = {"ledger": str(self.ledger), "fails": id in self.fails}
        return Envelope(id=id, name="step", args=msgspec.Raw(pack(args)))

    def revoke(self) -> None:
        """One that is not over yet, as a whole."""
        for tree in self.trees:
            if self.broker.revoke(last_of(tree).id, terminate=True):
                self.revoked = tree
                return

    def begun(self) -> list[tuple[str, object]]:
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return [(id, previous) for id, previous in map(json.loads, lines)]

    def over(self) -> bool:
        return not any(one.queued or one.delayed or one.running for one in self.broker.queues())

    def goes_on(self, steps: int) -> bool:
        """As soon as so many more have begun; False where all is over."""
        seen = len(self.begun()) + steps
        eventually(lambda: len(self.begun()) >= seen or self.over(), "nothing begins any more", BOUND)
        return not self.over()

    def __repr__(self) -> str:
        records = [one for one in self.broker.status([ref.id for tree in self.trees for ref in parts_of(tree)]) if one is not None]
        ended = Counter(str(one.reason or one.state.value) for one in records)
        again = sum(one.attempt for one in records), sum(one.redeliveries for one in records)
        return f"<Walk {len(self.begun())} began, {again[0]} retried, {again[1]} redelivered, {dict(ended)}>"

    # -- what must have come of it ----------------------------------------------------------------------------------------------

    def compare(self) -> None:
        found: dict[str, bytes] = {}
        for id, previous in self.begun():
            assert found.setdefault(id, pack(previous)) == pack(previous), f"{id} began twice"
        times = Counter(id for id, _ in self.begun())
        for tree in self.trees:
            ids = [ref.id for ref in parts_of(tree)]
            records = dict(zip(ids, self.broker.status(ids), strict=True))
            fates = {id: TaskState.FAILED if id in self.fails else TaskState.SUCCEEDED for id in ids if id in found}
            if tree is self.revoked:  # what ran then was free to be quicker
                ended = [record for record in records.values() if record is not None and record.reason not in SKIPPED]
                fates = {one.id: one.state for one in ended if one.name != GROUP or one.state is TaskState.CANCELLED}
                assert all(state is TaskState.CANCELLED or id in found for id, state in fates.items())
            named = {id: name for id, record in records.items() if (name := named_by(record)) is not None}
            for id, expected in judge(tree, fates, named).items():
                record = records[id]
                assert (None if record is None else record.state) is expected.state, id
                assert not expected.by or named[id] in expected.by
                assert expected.before is None or id not in found or agrees(expected.before, found[id]), id
                assert record is None or times[id] <= 1 + record.attempt + record.redeliveries


def kill(worker: Command, number: int, dice: random.Random) -> None:
    core = worker.core
    if number == LAUNCHER:
        worker.process.kill()
        worker.process.wait()
    elif number in CORE:
        signal_to(core)
    else:
        isolates = {pid: processes.title(pid) for pid in worker.below() if pid != core}
        busy = [pid for pid, title in isolates.items() if "step" in title]
        if busy or isolates:
            signal_to(dice.choice(busy or list(isolates)))


def signal_to(pid: int) -> None:
    if pid:  # 0: no core just now, and to `kill` the whole group of this test
        with contextlib.suppress(ProcessLookupError):  # it was quicker
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.repeat
def test_random_canvases_survive_the_deaths_of_all_who_run_them(command: Callable[..., Command], tmp_path: Path) -> None:
    seed = int(os.environ.get("STEM_ISO_SEED", "0")) or random.randrange(1, 1 << 30)
    print(f"STEM_ISO_SEED={seed}")
    broker = open_broker(f"sqlite:///{tmp_path}/jobs.db")
    walk = Walk(broker, tmp_path / "ledger", seed)

    def worker() -> Command:
        return command(application="tests.command.walking:app")

    workers = [worker(), worker()]
    walk.compose()
    number = 0
    while walk.goes_on(walk.dice.randrange(1, 5)):
        number += 1
        chosen = walk.dice.randrange(2)
        kill(workers[chosen], number, walk.dice)
        if number == LAUNCHER:
            workers[chosen] = worker()
        if number == REVOKE:
            walk.revoke()
    walk.compare()
    print(walk, number, "kills")
    broker.close()
