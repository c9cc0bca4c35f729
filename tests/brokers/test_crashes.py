"""Processes killed with SIGKILL wherever they happen to be: nothing is lost, nothing is doubled, the file is sound."""

from __future__ import annotations

import os
import random
import subprocess
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from stem_iso.brokers.base import Broker
from stem_iso.brokers.url import open_broker
from stem_iso.outcome import TaskState
from stem_iso.testing import eventually
from tests.brokers.crowd import URL
from tests.brokers.stores import is_sound, python

CROWD = Path(__file__).parent / "crowd.py"
KILLS = 30
LARGE = 1_000_000


@dataclass
class Crowd:
    """Two producers and two workers, each started again as soon as it is killed."""

    folder: Path
    running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    boots: dict[str, str] = field(default_factory=dict)
    starts: int = 0

    def log(self, who: str) -> Path:
        return self.folder / f"{who}.log"

    def reported(self, who: str) -> list[str]:
        """Whole lines only: the last one may have been cut by a kill."""
        return self.log(who).read_text().split("\n")[:-1] if self.log(who).exists() else []

    def start(self, who: str) -> None:
        self.starts += 1
        if who.startswith("producer"):
            arguments = ["produce", str(self.folder), str(self.log(who)), f"p{self.starts}", str(LARGE)]
        else:
            before, self.boots[who] = self.boots.get(who, ""), f"{who}-{self.starts}"
            arguments = ["work", str(self.folder), str(self.log(who)), self.boots[who], before]
        self.running[who] = python(CROWD, *arguments)

    def kill(self, who: str) -> None:
        victim = self.running.pop(who)
        victim.kill()
        victim.communicate()

    def wait_for_more(self, who: str, more: int) -> None:
        """A kill then comes at any instruction, yet never before its victim has done something."""
        before = len(self.reported(who))
        eventually(lambda: len(self.reported(who)) >= before + more, 20)


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crowd]:
    crowd = Crowd(tmp_path)
    yield crowd
    for who in list(crowd.running):
        crowd.kill(who)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = open_broker(URL, cwd=str(tmp_path))
    yield broker
    broker.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [int(os.environ.get("STEM_ISO_SEED", "1"))])
def test_nothing_is_lost_or_doubled_by_kills(crowd: Crowd, broker: Broker, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    names = ["producer1", "producer2", "worker1", "worker2"]
    for who in names:
        crowd.start(who)
    for _ in range(KILLS):
        victims = names if dice.random() < 0.1 else [dice.choice(names)]
        crowd.wait_for_more(victims[0], dice.randint(1, 60))
        for who in victims:
            crowd.kill(who)
        for who in victims:
            crowd.start(who)
    for who in names[:2]:
        crowd.kill(who)
    eventually(lambda: broker.queues() == [], 60)  # the workers settle all that is left
    for who in names[2:]:
        crowd.kill(who)

    promised = crowd.reported("producer1") + crowd.reported("producer2")
    settled = Counter(crowd.reported("worker1") + crowd.reported("worker2"))
    assert len(promised) > KILLS
    assert max(settled.values()) == 1
    for record in broker.status(promised):
        assert record is not None and record.state is TaskState.SUCCEEDED
        assert record.attempt == (1 if zlib.crc32(record.id.encode()) % 3 == 0 else 0)
    assert is_sound(tmp_path / "jobs.db")


@pytest.mark.slow
def test_a_crowd_shares_the_work_without_an_error(crowd: Crowd, broker: Broker, tmp_path: Path) -> None:
    producers = [python(CROWD, "produce", tmp_path, crowd.log(f"p{number}"), f"p{number}", "400") for number in range(3)]
    for who in ("worker1", "worker2", "worker3"):
        crowd.start(who)
    for producer in producers:
        producer.communicate(timeout=60)
        assert producer.returncode == 0
    eventually(lambda: broker.queues() == [], 60)
    workers = ("worker1", "worker2", "worker3")
    eventually(lambda: sum(len(crowd.reported(who)) for who in workers) == 1200, 10)
    assert max(Counter(id for who in workers for id in crowd.reported(who)).values()) == 1
    assert all(worker.poll() is None for worker in crowd.running.values())
    assert is_sound(tmp_path / "jobs.db")


@pytest.mark.slow
def test_many_processes_create_the_file_together(tmp_path: Path) -> None:
    drips = [python(CROWD, "drip", tmp_path) for _ in range(6)]
    for number, drip in enumerate(drips):
        assert drip.stdin
        drip.stdin.write(f"first-{number}\n")
        drip.stdin.flush()
    for drip in drips:
        drip.communicate(timeout=60)
        assert drip.returncode == 0
    broker = open_broker(URL, cwd=str(tmp_path))
    assert [one.queued for one in broker.queues()] == [6]
    broker.close()
