"""The keeper, turn by turn, in programs that are nothing else (`keeper_program`)."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

import pytest

from stem_iso.isolate.engine.keeper_client import KeeperClient
from tests.isolate.calling import BOUND

pytestmark = pytest.mark.repeat


def lines_of(program: str) -> list[str]:
    command = [sys.executable, "-m", "tests.isolate.keeper_program", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * BOUND, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_kill_that_is_on_its_way_is_dropped_when_its_isolate_is_reaped() -> None:
    """Its next step would signal a descriptor that is closed, or that means another process by then."""
    assert lines_of("killed_while_it_is_reaped") == [
        "its isolate is dead: False",
        "exited 7 True 9",
        "it is reaped: True",
        "the keeper goes on",
    ]


def test_a_turn_of_the_keeper_waits_for_no_orphan() -> None:
    assert lines_of("orphan_that_lives") == ["the turn has ended", "it is reaped"]


def test_a_client_that_gets_no_other_keeper_closes_no_descriptor_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be anybody's by the second time."""
    client = KeeperClient()
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    with suppress(FileNotFoundError):
        client.reconnect()
    opened_since = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
    client.close()
    for fd in opened_since:
        os.close(fd)
