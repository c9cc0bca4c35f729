"""The guide to idempotency runs as it stands, and what it promises holds when its programs are killed between any two of their steps."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stem_iso import Stem, TaskContext, TaskFailed, Worker
from stem_iso.brokers.base import DeadFilter
from stem_iso.isolate.keeper import process_tree
from stem_iso.testing import eventually
from tests.docs import postgres
from tests.worker.conftest import QuickRetries

ROOT = Path(__file__).parent.parent.parent
GUIDE = (ROOT / "docs" / "idempotency.md").read_text(encoding="utf-8")
PROGRAMS = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", GUIDE, re.DOTALL))
SHOWN = dict(zip(PROGRAMS, re.findall(r"```\n\n```\n(.*?)```", GUIDE, re.DOTALL), strict=True))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    bin = postgres.binaries()
    if bin is None:
        pytest.skip(postgres.MISSING)
    with postgres.server(bin) as dsn:
        yield dsn


@pytest.fixture(params=["shop", pytest.param("shop_postgres", marks=pytest.mark.slow)])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of a program of this name, in a folder where it lies, with a database that is empty."""
    name: str = request.param
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "SHOP": name}
    if name == "shop_postgres":
        environ["SHOP_DSN"] = _fresh(request.getfixturevalue("server"))
    return environ


def _fresh(dsn: str) -> str:
    import psycopg

    with psycopg.connect(dsn) as connection:
        connection.execute("DROP TABLE IF EXISTS orders, outbox, inbox")
    return dsn


def run(folder: Path, environ: dict[str, str], *command: str) -> str:
    for name, text in PROGRAMS.items():
        (folder / f"{name}.py").write_text(text)
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def load(folder: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The shop's module here, as an onlooker."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SHOP_DSN", environ.get("SHOP_DSN", ""))
    spec = importlib.util.spec_from_file_location(f"onlooker_{environ['SHOP']}", folder / f"{environ['SHOP']}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_charge_that_is_killed_after_its_effect_is_charged_once(tmp_path: Path) -> None:
    printed = run(tmp_path, dict(os.environ, PYTHONPATH=str(ROOT)), "charges.py")
    assert printed == SHOWN["charges"] == "ch_1 in 2 attempts\n2 requests, 1 charge\n"


def test_the_shop_ships_each_order(tmp_path: Path, shop: dict[str, str]) -> None:
    assert run(tmp_path, shop, f"{shop['SHOP']}.py") == SHOWN[shop["SHOP"]] == "{1: 1, 2: 1, 3: 1}\n"


@pytest.mark.slow
def test_each_order_is_shipped_once_whoever_is_killed_between_any_two_steps(
    tmp_path: Path, shop: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if shop["SHOP"] == "shop_postgres":
        run(tmp_path, shop, "-c", "import shop_postgres; shop_postgres.create_tables()")
    killed = int(run(tmp_path, shop, "-m", "tests.docs.dying").removesuffix(" relays killed\n"))
    assert killed >= 5
    there = load(tmp_path, shop, monkeypatch)
    try:
        orders = set(range(1, killed + 2))
        assert there.parcels() == dict.fromkeys(orders, 0)
        _work_until_all_is_shipped(tmp_path, shop, there)
        assert there.parcels() == dict.fromkeys(orders, 1)
        with there.app.broker_pool.borrow() as broker:
            assert broker.queues() == []
        assert there.relay() == 0
        ends = [there.app.handle(id).status() for id in _inbox(there)]
        assert len(ends) == len(orders)
        # Where the worker dies with an isolate that has just died, the attempt is not counted, but the delivery is.
        assert sum(end.attempt + end.redeliveries > 0 for end in ends) >= 6, "fewer attempts were killed than the handler has steps"
    finally:
        there.app.close()


def _work_until_all_is_shipped(folder: Path, environ: dict[str, str], shop: Any) -> None:
    """The worker is killed in the middle too, and comes again."""
    command = [sys.executable, "-m", "stem_iso.worker", "-A", "tests.docs.dying:app", "-c", "3"]
    with (folder / "worker.reporting.log").open("wb") as log:
        worker = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log, start_new_session=True)
    try:
        eventually(lambda: any(shop.parcels().values()), 30)
        for pid in process_tree.children(worker.pid):
            if process_tree.title(pid).startswith("stem_iso: worker"):
                os.kill(pid, signal.SIGKILL)
        with shop.app.broker_pool.borrow() as broker:
            eventually(lambda: not broker.queues(), 30)
    finally:
        worker.send_signal(signal.SIGQUIT)
        worker.wait(30)


def _inbox(shop: Any) -> list[str]:
    connection = shop.connect()
    try:
        return [id for (id,) in connection.execute("SELECT id FROM inbox").fetchall()]
    finally:
        connection.close()


def test_a_child_with_an_id_that_follows_from_its_parents_is_made_once(tmp_path: Path) -> None:
    app = Stem(f"sqlite:///{tmp_path}/jobs.db")
    sent: list[tuple[str, int]] = []

    @app.task(name="receipt.send")
    def send(context: TaskContext, to: str) -> None:
        sent.append((context.id, context.run))

    @app.task(name="pay", max_retries=1)
    def pay(context: TaskContext) -> None:
        context.enqueue("receipt.send", {"to": "ann"}, task_id=f"{context.idempotency_key}.receipt")
        raise ConnectionError(f"attempt {context.attempt}")

    with Worker(app, concurrency=1, retry_strategy=QuickRetries()), app.broker_pool.borrow() as broker:
        handle = pay.enqueue()
        for run in (0, 1):
            with pytest.raises(TaskFailed):
                handle.result(timeout=20)
            eventually(lambda: broker.queues() and broker.queues()[0].queued == broker.queues()[0].running == 0)
            assert (handle.status().run, handle.status().attempt) == (run, 1)
            if run == 0:
                broker.replay(DeadFilter(ids=[handle.id]))
    assert sent == [(f"{handle.id}.receipt", 0)]
    app.close()
