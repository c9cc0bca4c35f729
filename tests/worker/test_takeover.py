"""A worker that died whole is noticed by another on its machine, which takes its leases at once; one that may live is left alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stem_iso import Stem, WorkerEventType
from stem_iso.brokers.base import WorkerInfo
from stem_iso.testing import eventually
from stem_iso.testing.assertions import throughout
from stem_iso.worker.liveness import machine, process
from tests.servers.fixtures import broker_of
from tests.worker import handlers
from tests.worker.conftest import Begin

HERE = process(os.getpid()) or (0, 0)
GONE = (HERE[0], HERE[1] - 1)  # this pid was another's before
NONE = (1 << 30, 1)

DEAD = {"no-such-process": [NONE], "its-pid-is-anothers": [GONE], "launcher-and-core": [NONE, GONE]}
ALIVE = {"it-lives": [HERE], "its-keeper-lives": [NONE, HERE], "its-program-lives": [HERE, NONE]}
ELSEWHERE = {
    "of-another-boot-or-namespace": {"machine": "another:1:1"},
    "of-another-pid-namespace": {"machine": ":".join([machine().split(":")[0], "1", machine().split(":")[-1]])},
    "of-an-older-version": {"machine": "", "processes": []},
    "without-processes": {"processes": []},
}


@pytest.fixture(params=["sqlite", "redis"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stem]:
    with broker_of(request.param, tmp_path) as url, closing(Stem(url, claim_interval=60, default_visibility_timeout=600)) as app:
        yield app


class Machine:
    """Workers that registered here and lease a task each. They are this test, which can say of them what it likes."""

    def __init__(self, app: Stem) -> None:
        self._app, self._broker = app, app.open_broker()
        self.add = app.task(name="add", isolate=True)(handlers.add)

    def holding(self, boot: str, count: int = 1, queue: str = "default", **changes: Any) -> Any:
        """The last of the tasks that it holds."""
        self._broker.beat(info(boot, **changes))
        tasks = [self.add.using(queue=queue).enqueue(1) for _ in range(count)]
        held = self._broker.exchange(boot, [], [queue], count).deliveries
        assert len(held) == count
        return tasks[-1]

    def known(self) -> set[str]:
        return {each.boot for each in self._broker.neighbours(machine())}


def info(boot: str, **changes: Any) -> WorkerInfo:
    fields = {"id": f"id-of-{boot}", "boot": boot, "hostname": "host", "pid": 4711, "queues": ["default"], "seats": 1, "spares": 0}
    return WorkerInfo(**{**fields, "machine": machine(), "processes": [NONE], **changes})


@pytest.mark.slow
def test_the_dead_are_taken_over_and_nobody_else(app: Stem, begin: Begin) -> None:
    here = Machine(app)
    dead = {boot: here.holding(boot, processes=processes) for boot, processes in DEAD.items()}
    alive = {boot: here.holding(boot, processes=processes) for boot, processes in ALIVE.items()}
    alive |= {boot: here.holding(boot, **fields) for boot, fields in ELSEWHERE.items()}
    begin(app)
    for boot, task in dead.items():
        assert task.result(timeout=30) == 2, boot
        assert task.status().redeliveries == 1
    late = here.holding("died-while-we-look", queue="not ours", processes=[GONE])
    eventually(lambda: (late.status().state.value, late.status().redeliveries) == ("queued", 1), 30)

    def untouched() -> bool:
        return all((task.status().state.value, task.status().redeliveries) == ("running", 0) for task in alive.values())

    throughout(untouched, 2.5)  # two looks, and their confirmation
    eventually(lambda: here.known().isdisjoint({*DEAD, "died-while-we-look"}))
    assert here.known() >= set(ALIVE)


def test_an_event_names_the_worker_that_died_and_how_many_tasks_it_held(app: Stem, begin: Begin) -> None:
    here = Machine(app)
    task = here.holding("dead", 3)
    _, recorder = begin(app)
    assert task.result(timeout=30) == 2
    message = recorder.wait(WorkerEventType.ERROR).message
    assert "id-of-dead" in message and "4711" in message and "none of its processes is left" in message and "3 of its tasks" in message


def test_more_than_one_step_can_take(app: Stem, begin: Begin) -> None:
    here = Machine(app)
    here.holding("dead", 1101)
    _, recorder = begin(app, concurrency=4)
    assert "1101 of its tasks" in recorder.wait(WorkerEventType.ERROR).message


def test_a_successor_of_the_same_id_takes_over_though_it_overwrites_the_record(app: Stem, begin: Begin) -> None:
    task = Machine(app).holding("before", id="w1")
    worker, _ = begin(app, id="w1")
    assert task.result(timeout=30) == 2
    assert [each.boot for each in app.open_broker().neighbours(machine())] == [worker.boot]


def test_at_most_once_ends_as_lost(app: Stem, begin: Begin) -> None:
    once = app.task(name="once", isolate=True, acks_late=False)(handlers.add)
    broker = app.open_broker()
    broker.beat(info("dead"))
    task = once.enqueue(1)
    (held,) = broker.exchange("dead", [], ["default"], 1).deliveries
    broker.mark(held.receipt)
    begin(app)
    eventually(lambda: task.status().state.value == "failed")
    assert task.status().reason == "worker-lost"


def test_a_worker_registers_its_processes_and_says_goodbye(app: Stem, begin: Begin) -> None:
    here = Machine(app)
    worker, _ = begin(app)

    def registered() -> list[tuple[int, int]]:
        return [pair for each in app.open_broker().neighbours(machine()) if each.boot == worker.boot for pair in each.processes]

    assert HERE in registered()
    assert here.add.enqueue(1).result(timeout=30) == 2
    eventually(lambda: len(registered()) == 2)  # the program, and the keeper of its isolates
    worker.stop()
    worker.join(30)
    assert here.known() == set()
