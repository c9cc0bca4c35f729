"""Systems of the benchmark: each file says what it must, and the one in the manual runs."""

from __future__ import annotations

import re
import sys
from concurrent.futures import Future
from pathlib import Path
from random import Random
from typing import Any

import pytest

import bench.systems as systems
from bench.handlers import HANDLERS
from bench.reference import observer
from bench.reference.driven import Broken, Driven, outcome
from bench.reference.enforce import Cells, Turn, turns
from bench.reference.kernel import Signals

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", sorted(systems.names()))
def test_a_system_is_pinned_and_says_where_its_author_advises(name: str) -> None:
    system = systems.find(name)
    assert system.name == name
    assert system.advice.startswith("https://")
    assert all("==" in requirement for requirement in system.requirements)
    assert {"default", "best"} <= system.settings.keys()
    assert issubclass(systems.adapter(name), systems.Adapter)


def test_an_unknown_system_is_answered_with_those_that_exist() -> None:
    with pytest.raises(SystemExit, match="isolate_pool"):
        systems.find("nobody")


def driven(name: str, folder: Path) -> Driven:
    return Driven(Path(sys.executable), systems.find(name), "best", folder / name, limit=0.4)


def test_the_system_of_the_manual_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/benchmark.md").read_text(), re.DOTALL)
    (tmp_path / "plain_process.py").write_text(code)
    monkeypatch.setenv("BENCH_SYSTEMS", str(tmp_path))
    monkeypatch.setattr(systems, "__path__", [*systems.__path__, str(tmp_path)])
    found: list[tuple[str, dict[str, Any]]] = []
    with driven("plain_process", tmp_path) as running:
        turn = Turn(running, 0.4, Signals(None), lambda kind, values: found.append((kind, values)), Random(1), thorough=False)
        turn.run_all(["pure_loop", "bare_daemon", "exits"])
    by = {values["handler"]: values for kind, values in found if kind == "enforce"}
    assert by.keys() == {"pure_loop", "bare_daemon", "exits"}
    assert all(values["right"] and values["dead"] is not None for values in by.values())
    assert by["pure_loop"]["left_1"] == 0
    assert by["bare_daemon"]["left_1"] == 1  # a kill of one process is no kill of its daemon
    assert not any(observer.left(observer.look(path)).alive for path in (tmp_path / "plain_process").glob("*-*"))


def test_our_pool_leaves_nothing(tmp_path: Path) -> None:
    found: list[tuple[str, dict[str, Any]]] = []
    with driven("isolate_pool", tmp_path) as running:
        turn = Turn(running, 0.4, Signals(None), lambda kind, values: found.append((kind, values)), Random(2), thorough=False)
        turn.run_all(["bare_daemon", "segfault"])
    assert [
        (values["word"], values["left_1"], values["bystander_word"]) for _, values in sorted(found, key=lambda one: one[1]["handler"])
    ] == [
        ("timeout", 0, "timeout"),
        ("crash", 0, "timeout"),
    ]


def test_a_system_that_does_not_start_is_told_with_its_log(tmp_path: Path) -> None:
    system = systems.System("nobody", "pool", (), "https://example.org")
    with pytest.raises(Broken, match="did not get ready"):
        Driven(Path(sys.executable), system, "best", tmp_path / "nobody", limit=0.4)


def test_a_caller_that_is_never_told_was_told_nothing() -> None:
    assert outcome(Future(), 0.0)["word"] == "nothing"


def test_a_cell_that_is_slow_three_times_is_left_out() -> None:
    cells = Cells()
    for _ in range(3):
        assert cells.wanted("s", "best", ["sleep"]) == ["sleep"]
        cells.note({"system": "s", "settings": "best", "handler": "sleep", "dead": None, "told": 0.0, "next": 0.0})
    assert cells.wanted("s", "best", ["sleep", "regex"]) == ["regex"]


def test_the_first_round_is_whole_whatever_the_time() -> None:
    chosen = [("a", "best"), ("b", "best"), ("c", "best")]
    assert sorted(turns(chosen, 5, 0.0, Random(1))) == [(0, *one) for one in chosen]


def test_every_handler_says_what_is_right() -> None:
    words = {"timeout", "memory", "crash"}
    assert all(handler.right and set(handler.right) <= words for handler in HANDLERS.values())
