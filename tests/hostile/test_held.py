"""What cannot be killed for a while costs its own task alone: it is named, others end in time, and its own end is known once it is gone."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.hostile.held import HOLDERS, QUERY, run_held
from tests.hostile.proving import LATE, Proving
from tests.isolate.capabilities import drop_right_to_kill


@pytest.fixture(scope="module")
def proving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proving]:
    if os.geteuid() != 0:
        pytest.skip("only root can start what a worker may not kill")
    folder = tmp_path_factory.mktemp("held")
    with Proving(folder, "-c", "6", query=QUERY, before=drop_right_to_kill) as started, started.neighbour():
        yield started
        started.assert_unharmed()


@pytest.mark.slow
@pytest.mark.repeat
@pytest.mark.parametrize("name", HOLDERS)
def test_it_costs_its_own_task_alone(proving: Proving, name: str) -> None:
    found = run_held(proving, name)
    assert found.faults == ()
    assert found.named < LATE
    assert max(found.neighbours) < LATE
    proving.echo(2)
