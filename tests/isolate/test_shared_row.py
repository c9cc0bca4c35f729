"""The shared row's protocol, raced; and the proof that the race would find each of its steps missing."""

from __future__ import annotations

import os

import pytest

from tests.isolate.race import race

CALLS = int(os.environ.get("STEM_ISO_RACES", "100")) * 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_call_is_killed_for_the_limit_of_another_and_each_ends_once() -> None:
    found = race(CALLS, "none")
    assert found["calls"] >= CALLS
    assert found["anomalies"] == {}
    assert found["outcomes"]["TimedOut"] >= CALLS // 20, found
    assert found["outcomes"]["Succeeded"] >= CALLS // 10, found


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", ["core-skips-verdict", "keeper-skips-second-look", "no-verdict"])
def test_the_race_finds_each_step_of_the_protocol_missing(fault: str) -> None:
    assert any(race(CALLS, fault)["anomalies"] for _ in range(10)), (
        "the fault was not noticed"
    )  # by chance: a full machine has few such instants
