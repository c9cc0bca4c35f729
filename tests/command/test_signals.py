"""What an application's module connects and adds is at work in a worker by command, each thing in the process that it belongs to."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.command.conftest import Command
from tests.isolate.calling import eventually

pytestmark = pytest.mark.repeat
Start = Callable[..., Command]


def lines(ledger: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []


def history(ledger: Path, task_id: str) -> list[str]:
    return [line["signal"] for line in lines(ledger) if line.get("task_id") == task_id]


@pytest.mark.slow
def test_listeners_run_in_the_core_and_middleware_runs_with_the_handlers(command: Start, tmp_path: Path) -> None:
    ledger = tmp_path / "signals"
    worker = command(application="tests.command.signals_app:app", env={"STEM_ISO_TEST_SIGNALS": str(ledger)})
    child, host = worker.enqueue("inline.parent").result(timeout=30)
    assert worker.app.handle(child).result(timeout=30) == 1
    crashed = worker.enqueue("crash once")
    isolate = crashed.result(timeout=30)
    core = worker.core
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    written = lines(ledger)

    published = [line for line in written if "publish" in line.get("signal", "")]
    assert [(line["signal"], line["task_id"], line["by"]) for line in published] == [
        ("before_task_publish", child, host),
        ("after_task_publish", child, host),
    ]
    assert published[0]["headers"] == {"sent from": host}  # the middleware of the process in which the handler enqueues

    emitted = [line for line in written if line.get("task_id") == crashed.id]
    assert [(line["signal"], line["attempt"]) for line in emitted] == [
        *(("task_received", 0), ("task_prerun", 0), ("task_retry", 0), ("task_postrun", 0)),
        *(("task_received", 1), ("task_prerun", 1), ("task_succeeded", 1), ("task_postrun", 1)),
    ]
    assert (emitted[2]["error"]["type"], emitted[2]["error"]["exit_code"]) == ("stem_iso.errors.IsolateCrashed", 3)

    around = {line["around"]: line["by"] for line in written if "around" in line}
    assert (around["inline.parent"], around["crash once"]) == (host, isolate)
    own = [line for line in written if line.get("signal", "").startswith("worker")]
    assert [line["signal"] for line in own] == ["worker_ready", "worker_stopping", "worker_shutdown"]
    assert written[-1] == own[-1]
    assert {line["by"] for line in written if "worker_id" in line} == {core}


@pytest.mark.slow
def test_a_core_that_is_killed_emits_no_end_and_the_next_one_emits_all(command: Start, tmp_path: Path) -> None:
    gate, signals = tmp_path / "gate", tmp_path / "signals"
    worker = command(application="tests.command.signals_app:app", env={"STEM_ISO_TEST_SIGNALS": str(signals)}).ready()
    handle = worker.enqueue("wait", args={"path": str(gate)})
    eventually(lambda: "task_prerun" in history(signals, handle.id), "no prerun")
    os.kill(worker.core, signal.SIGKILL)
    gate.touch()
    assert handle.result(timeout=30) == "done"
    eventually(lambda: "task_postrun" in history(signals, handle.id), "no postrun")
    assert history(signals, handle.id) == [
        *("task_received", "task_prerun"),
        *("task_received", "task_prerun", "task_succeeded", "task_postrun"),
    ]
