"""CPU-bound tasks have cores of their own, which others see."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stem_iso import Stem
from stem_iso.isolate.engine.cpus import VARIABLE
from stem_iso.testing import eventually
from tests.worker import handlers
from tests.worker.conftest import Begin

ALLOWED = sorted(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cores"))


def test_a_cpu_bound_task_has_a_core_of_its_own_and_knows_it(app: Stem, begin: Begin):
    look = app.task(name="look", isolate=True, cpu_bound=True)(handlers.cores)
    begin(app)
    for _ in range(2):
        shown, own = look.enqueue().result(timeout=30)
        assert shown == own and len(own) == 1
    shown, own = look.using(cpus=len(ALLOWED)).enqueue().result(timeout=30)
    assert shown == own == ALLOWED
    assert look.using(cpu_bound=False).enqueue().result(timeout=30) == [None, ALLOWED]
    assert look.using(cpus=len(ALLOWED) + 1).enqueue().result(timeout=30) == [None, ALLOWED]


def test_who_has_which_cores_is_seen_from_outside_and_is_over_with_the_task(app: Stem, begin: Begin, tmp_path: Path):
    hold = app.task(name="hold", isolate=True, cpu_bound=True)(handlers.say_and_wait)
    begin(app)
    handle = hold.enqueue(str(tmp_path / "go"))
    broker = app.open_broker()
    assert eventually(lambda: broker.workers()[0].pinned, within=10)
    [worker] = broker.workers()
    assert worker.cores == ALLOWED
    [(task_id, cores)] = worker.pinned.items()
    assert task_id == handle.id and len(cores) == 1
    (tmp_path / "go").touch()
    handle.result(timeout=30)
    assert eventually(lambda: not broker.workers()[0].pinned, within=10)
