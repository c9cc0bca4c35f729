"""A keeper is killed only when it is of no use any more: everything it keeps dies with it."""

from __future__ import annotations

import pytest

from stem_iso.isolate.engine.keeper_watchdog import STARVED, Press, press

STATES = ["R", "S", "D", "T", "Z", ""]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("woken", [False, True])
def test_one_at_work_is_left_alone_however_late_it_is(state: str, woken: bool) -> None:
    assert press(at_work=True, woken=woken, state=state, since=1e6) is Press.WAIT


@pytest.mark.parametrize("state", STATES)
def test_none_is_killed_that_was_not_woken_before(state: str) -> None:
    assert press(at_work=False, woken=False, state=state, since=1e6) is Press.WAKE


@pytest.mark.parametrize(
    ("state", "since", "what"), [("R", 1.0, Press.PATIENCE), ("D", STARVED - 1, Press.PATIENCE), ("R", STARVED, Press.KILL)]
)
def test_one_that_is_starved_has_longer(state: str, since: float, what: Press) -> None:
    assert press(at_work=False, woken=True, state=state, since=since) is what


@pytest.mark.parametrize("state", ["S", "T"])
def test_one_that_sleeps_or_stands_still_again_is_killed(state: str) -> None:
    assert press(at_work=False, woken=True, state=state, since=1.0) is Press.KILL
