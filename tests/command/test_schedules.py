"""Schedules where workers die."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from tests.command.conftest import Command
from tests.isolate.calling import eventually

pytestmark = pytest.mark.repeat


@pytest.mark.slow
def test_two_workers_one_killed_again_and_again_fire_each_due_time_once(command: Callable[..., Command], tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    given = {"application": "tests.command.scheduled:app", "env": {"STEM_ISO_TEST_LEDGER": str(ledger)}}
    # The victim fires and runs nothing, so whatever comes twice or never is the schedule's fault and no redelivery.
    victim = command("-Q", "nothing", **given)
    eventually(lambda: victim.app.open_broker().schedules(), "nobody brought the schedule")
    command("-Q", "default", **given)

    def lines() -> list[str]:
        return ledger.read_text().splitlines() if ledger.exists() else []

    for goal in (5, 20, 35):
        eventually(lambda goal=goal: len(lines()) >= goal and victim.core, f"no {goal} lines: {lines()}")
        os.kill(victim.core, signal.SIGKILL)
    victim.send(signal.SIGKILL)
    end = len(lines()) + 10
    eventually(lambda: len(lines()) >= end, f"no {end} lines: {lines()}")
    dues = sorted(round(datetime.fromisoformat(line).timestamp() * 10) for line in lines())
    assert dues == list(range(dues[0], dues[0] + len(dues)))
