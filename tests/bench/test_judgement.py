"""What the benchmark says of samples: a wrong outcome is never fast, another system's lead is told, a broken promise fails the run."""

from __future__ import annotations

from typing import Any

import pytest

from bench.reference import machine
from bench.reference.compare import cells, table
from bench.reference.matrix import matrix, ranking, wins
from bench.reference.promises import OURS, judge

QUIET = {"kind": "control", "kill": [0.001] * 3, "timer": [0.0001] * 20, "load": 1.0, "cores": 2}
BUSY = {"kind": "control", "kill": [0.001] * 3, "timer": [0.5] * 20, "load": 1.0, "cores": 2}


def sample(system: str = "isolate_pool", handler: str = "sleep", **values: Any) -> dict[str, Any]:
    found = {"dead": 0.002, "told": 0.003, "next": 0.004, "bystander_late": 0.001, "left_1": 0, "zombies_1": 0}
    rest = {
        "kind": "enforce",
        "settings": "best",
        "word": "timeout",
        "right": True,
        "error": "",
        "bystander_word": "timeout",
        "patience": 4.0,
    }
    return {**rest, **found, "system": system, "handler": handler, **values}


def test_promises_that_hold_are_not_broken() -> None:
    assert judge([QUIET, sample(), sample(handler="segfault", word="crash", dead=0.0, told=0.002)]).broken == ()


@pytest.mark.parametrize(
    "fault",
    [
        {"right": False, "word": "success"},
        {"dead": None},
        {"left_1": 1},
        {"bystander_harmed": True, "bystander_word": "crash"},
        {"dead": 0.05},
    ],
)
def test_a_broken_promise_of_ours_fails_the_run(fault: dict[str, Any]) -> None:
    assert judge([QUIET, sample(**fault)]).broken
    assert not judge([QUIET, sample(system="pebble", **fault)]).broken  # others promised us nothing


def test_a_system_of_ours_that_does_not_start_fails_the_run() -> None:
    line = {"kind": "broken", "system": "isolate_pool", "settings": "best", "error": "no module"}
    assert judge([QUIET, line]).broken


def test_times_of_a_busy_machine_are_not_judged_and_that_is_said() -> None:
    judged = judge([BUSY, sample(dead=0.05)])
    assert judged.broken == ()
    assert "not judged" in str(judged) and "timer" in judged.unjudged


def test_a_machine_on_which_others_work_is_not_quiet_however_its_controls_fared() -> None:
    judged = judge([{**QUIET, "load": 20.0}, sample(dead=0.05)])
    assert judged.broken == ()
    assert "18 more processes" in judged.unjudged


def test_a_run_without_controls_means_nothing() -> None:
    assert machine.verdict([])


def test_what_is_left_a_second_after_a_kill_from_outside_breaks_i10() -> None:
    line = {"kind": "chaos", "system": "isolate_pool", "settings": "best", "target": "program", "left": 2}
    assert "I10" in judge([QUIET, line]).broken[0]


def test_a_cell_is_judged_by_its_worst_sample() -> None:
    lines = [sample(), sample(left_1=3), sample(handler="regex"), sample(handler="regex", right=False, word="success")]
    found = matrix(lines)
    assert found["isolate_pool", "sleep"].verdict == "left" and found["isolate_pool", "sleep"].left == 3
    assert found["isolate_pool", "regex"].verdict == "wrong" and found["isolate_pool", "regex"].said == "success"


def test_a_kill_that_takes_the_neighbour_with_it_is_not_right() -> None:
    found = matrix([sample("futures", bystander_harmed=True, dead=0.0001), sample(dead=0.01)])
    assert found["futures", "sleep"].verdict == "harms"
    assert wins(found, OURS) == []


def test_what_was_not_tried_is_no_lead_of_another() -> None:
    assert wins(matrix([sample(handler="regex"), sample("pebble")]), OURS) == []


def test_who_is_right_more_often_stands_before_who_is_quick() -> None:
    found = matrix([sample("quick", dead=0.0001, right=False, word="success"), sample("slow", dead=0.5)])
    assert ranking(found) == ["slow", "quick"]


def test_the_lead_of_another_system_is_told() -> None:
    assert wins(matrix([sample(dead=0.010), sample("pebble", dead=0.001)]), OURS) == [
        "sleep: the process is dead 1.0 ms after the limit with pebble, 10.0 ms with stem_iso"
    ]
    assert wins(matrix([sample(left_1=1), sample("pebble")]), OURS) == ["sleep: pebble right, stem_iso not"]
    assert wins(matrix([sample(dead=0.010), sample("pebble", dead=0.001, right=False, word="error")]), OURS) == []


def test_wrong_outcomes_are_not_compared() -> None:
    assert cells([sample(right=False)]) == {}
    assert "no cell" in table([sample()], [sample(right=False)])
    assert table([sample(dead=0.002)] * 5, [sample(dead=0.2)] * 5).count("*") == 1
