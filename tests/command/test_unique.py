"""Unique tasks under a crowd: of all who ask at once one is served, until the task has ended, whoever is killed meanwhile."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import pytest

from stem_iso import TaskState
from stem_iso.testing import eventually
from tests.command.conftest import ROOT, Command

pytestmark = pytest.mark.repeat
PROCESSES, THREADS = 5, 10
APPLICATION = "tests.command.keyed:app"

Start = Callable[..., Command]


class Crowd:
    """Producers in processes of their own, and the worker that they produce for."""

    def __init__(self, folder: Path, command: Start) -> None:
        self.folder, self._command = folder, command
        self.url = f"sqlite:///{folder}/jobs.db?claim_interval=0.05&max_redeliveries=1000"
        self.environ = {**os.environ, "STEM_ISO_TEST_BROKER": self.url, "STEM_ISO_TEST_FOLDER": str(folder)}
        self.running: list[subprocess.Popen[str]] = []

    def worker(self) -> Command:
        return self._command("-c", "2", broker=self.url, env=self.environ, application=APPLICATION)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.command.keyed", *arguments],
            cwd=ROOT,
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.running.append(process)
        return process

    def askers(self) -> None:
        for process in [self.start("ask", str(THREADS)) for _ in range(PROCESSES)]:
            assert process.stdout and process.stdout.readline() == "ready\n"

    def answers(self, key: str) -> list[str]:
        """What fifty threads are answered that enqueue in one instant."""
        for process in self.running:
            assert process.stdin
            process.stdin.write(f"{key}\n")
            process.stdin.flush()
        ids = [id for process in self.running if process.stdout for id in process.stdout.readline().split()]
        assert len(ids) == PROCESSES * THREADS
        return ids

    def hammer(self, number: int) -> subprocess.Popen[str]:
        return self.start("hammer", "5", str(self.folder / f"answers-{number}"))

    def answered(self) -> set[str]:
        return {line for log in self.folder.glob("answers-*") for line in log.read_text().split("\n")[:-1]}

    def kill(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        process.communicate()
        self.running.remove(process)

    def open_gate(self, key: str) -> None:
        (self.folder / f"gate-{key}").touch()

    def ledger(self, key: str) -> list[tuple[str, str]]:
        """(`start` or `end`, id) of this key, in the order in which it was written."""
        path = self.folder / "ledger"
        lines = [line.split() for line in path.read_text().split("\n")[:-1]] if path.exists() else []
        return [(what, id) for what, of, id in lines if of == key]


@pytest.fixture
def crowd(tmp_path: Path, command: Start) -> Iterator[Crowd]:
    crowd = Crowd(tmp_path, command)
    yield crowd
    for process in list(crowd.running):
        crowd.kill(process)


@pytest.mark.slow
def test_of_fifty_producers_one_is_served_round_after_round(crowd: Crowd) -> None:
    worker = crowd.worker()
    crowd.askers()
    seen = set()
    for number in range(5):
        key = "round"  # the same in each round: the end of one frees it for the next
        ids = crowd.answers(key)
        (id,) = set(ids)
        assert id not in seen
        seen.add(id)
        eventually(lambda id=id, key=key: ("start", id) in crowd.ledger(key), 20)
        assert set(crowd.answers(key)) == {id}, f"round {number}: another one while it runs"
        crowd.open_gate(key)
        assert worker.app.handle(id).result(timeout=20) == id
        (crowd.folder / f"gate-{key}").unlink()
    assert [id for what, id in crowd.ledger("round") if what == "end"] == list(dict.fromkeys(id for _, id in crowd.ledger("round")))
    assert {id for _, id in crowd.ledger("round")} == seen
    assert worker.app.open_broker().queues() == []


@pytest.mark.slow
def test_a_key_stays_taken_while_its_worker_is_dead_and_is_freed_by_the_end_alone(crowd: Crowd) -> None:
    first = crowd.worker()
    crowd.askers()
    (id,) = set(crowd.answers("k"))
    eventually(lambda: crowd.ledger("k") == [("start", id)], 20)
    first.process.kill()
    first.wait()
    assert set(crowd.answers("k")) == {id}  # nobody works, the lease runs out
    second = crowd.worker()
    eventually(lambda: crowd.ledger("k") == [("start", id)] * 2, 20)
    assert set(crowd.answers("k")) == {id}
    crowd.open_gate("k")
    assert second.app.handle(id).result(timeout=20) == id
    status = second.app.handle(id).status()
    assert (status.state, status.redeliveries) == (TaskState.SUCCEEDED, 1)
    assert id not in crowd.answers("k")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [int(os.environ.get("STEM_ISO_SEED", "1"))])
def test_no_two_with_one_key_meet_whoever_is_killed(crowd: Crowd, seed: int) -> None:
    dice = random.Random(seed)
    crowd.open_gate("hammered")
    worker = crowd.worker()
    for number in range(3):
        crowd.hammer(number)
    victims = ["producer"] * 3 + ["core", "worker"]
    dice.shuffle(victims)
    for kill, victim in enumerate(victims):
        ended = len(crowd.ledger("hammered"))
        more = dice.randint(1, 12)
        eventually(lambda ended=ended, more=more: len(crowd.ledger("hammered")) >= ended + more, 30)
        if victim == "producer":
            crowd.kill(dice.choice(crowd.running))
            crowd.hammer(3 + kill)
        elif victim == "core":
            eventually(lambda worker=worker: worker.core, 20)
            os.kill(worker.core, signal.SIGKILL)
        else:
            worker.process.kill()
            worker.wait()
            worker = crowd.worker()
    for process in list(crowd.running):
        crowd.kill(process)
    broker = worker.app.open_broker()
    eventually(lambda: broker.queues() == [], 30)

    ledger = crowd.ledger("hammered")
    in_turn = [id for id, _ in groupby(id for _, id in ledger)]
    assert len(in_turn) == len(set(in_turn)), "one ran between the beginning and the end of another"
    assert crowd.answered() <= set(in_turn), "an id was answered that was never published"
    assert {record.state for record in broker.status(in_turn) if record} == {TaskState.SUCCEEDED}
    assert {id for what, id in ledger if what == "end"} == set(in_turn)
    assert worker.app.enqueue("once", {"key": "hammered"}, unique=True).result(timeout=20) not in in_turn
