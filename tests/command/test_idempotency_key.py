"""`context.idempotency_key`: one per task, whatever happens to its attempts."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from stem_iso import TaskFailed
from stem_iso.brokers.base import DeadFilter
from stem_iso.testing import eventually
from tests.command.conftest import Command

pytestmark = pytest.mark.repeat


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spend", "inline.spend"])
def test_one_key_across_a_kill_a_retry_a_lost_worker_and_a_replay(command: Callable[..., Command], tmp_path: Path, name: str) -> None:
    worker = command(application="tests.command.keyed:app")
    ledger, gate = tmp_path / "ledger", tmp_path / "gate"

    def seen() -> list[str]:
        return ledger.read_text().splitlines() if ledger.exists() else []

    args = {"ledger": str(ledger), "gate": str(gate)}
    handle = worker.enqueue(name, args=args)
    expected = [f"{handle.id} 0 0", f"{handle.id} 0 1"]
    eventually(lambda: seen() == expected, 20)
    os.kill(worker.core, signal.SIGKILL)
    expected.append(f"{handle.id} 0 1")  # the same attempt again
    eventually(lambda: seen() == expected, 20)
    gate.touch()
    with pytest.raises(TaskFailed, match="refused"):
        handle.result(timeout=20)

    with worker.app.broker_pool.borrow() as broker:
        assert [one.run for one in broker.replay(DeadFilter(ids=[handle.id]))] == [1]
    expected += [f"{handle.id} 1 0", f"{handle.id} 1 1"]
    eventually(lambda: seen() == expected, 20)
    with pytest.raises(TaskFailed):
        handle.result(timeout=20)
    assert handle.status().meta == {"refused": 2}, "what a handler notes about an effect comes with it into the next run"
