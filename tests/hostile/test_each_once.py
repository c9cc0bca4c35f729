"""Every hostile handler once, beside an innocent task: it ends as it must, nothing it started outlives it, and the worker goes on.

The same under load, and many times over: `make hostile`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from entrypoints import hostile
from entrypoints.hostile.trace import MARKER
from stem_iso import TaskState, TaskStatus
from stem_iso.outcome import TaskError
from tests.cli.conftest import Folder
from tests.hostile.expected import ALONE, COMPANY, EXPECTED, HELD, LATER, OUTWARD, STORMS, WITHOUT_STACK, Ends
from tests.hostile.proving import LATE, Finding, Proving
from tests.hostile.survivors import survivors, zombies_after

FAIL = ["sys_exit", "unpicklable", "unreducible", "mute"]


@pytest.fixture(scope="module")
def proving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proving]:
    """One worker for all of them: none may disturb the next."""
    with Proving(tmp_path_factory.mktemp("hostile"), "-c", "4") as started, started.neighbour():
        yield started
        started.assert_unharmed()


def test_the_list_is_complete() -> None:
    names = {name.removeprefix("hostile.") for name in hostile.app.tasks if name.startswith("hostile.")}
    assert names == {*EXPECTED, *OUTWARD, *HELD}
    assert all(name in hostile.__doc__.split() or f"{name}:" in hostile.__doc__.split() for name in names)


@pytest.mark.repeat
@pytest.mark.parametrize("name", EXPECTED)
def test_it_ends_as_it_must_and_nothing_survives_it(proving: Proving, name: str) -> None:
    found = proving.run(name)
    assert found.faults == []
    proving.echo(2)
    assert proving.state() == proving.fresh, "the next call meets its process as the first one did"
    if name in {*ALONE, *COMPANY} - WITHOUT_STACK:
        assert shows_its_stack(proving, found), "the stack shows where it was"
    error = found.status.error
    if name in FAIL:
        assert error is not None and "/hostile/" in error.traceback
    if name in ("big", "unserialisable"):
        assert error is not None and not error.retryable


def shows_its_stack(proving: Proving, found: Finding) -> bool:
    """In one of five runs: where a storm of forks beside it fills the machine, it may have no CPU from its soft limit to its end."""
    runs = chain([found], (proving.run(found.name) for _ in range(4)))
    return any(each.status.error is not None and "/hostile/" in each.status.error.stack for each in runs)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*COMPANY, *STORMS, "daemon_left", *sorted(LATER)])
def test_what_has_company_really_has(proving: Proving, name: str) -> None:
    """A handler that did not manage to start anything would prove nothing."""
    for _ in range(5):  # on a machine that is full it may reach its limit before what it started had a turn
        running = proving.start(name)
        proving.end(running)
        if len(set(running.ledger.read_text().splitlines())) > (name != "vfork"):
            return
    pytest.fail("it started nobody")


@pytest.mark.slow
def test_by_hand_as_the_module_says(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.environ["STEM_ISO_BROKER"] = f"sqlite:///{tmp_path}/jobs.db"
    id = folder.stem("enqueue", "hostile.sys_exit", "-A", "entrypoints.hostile:app", "--args", json.dumps({"ledger": None})).stdout.strip()
    done = folder.run("-m", "stem_iso.worker", "-A", "entrypoints.hostile:app", "--burst")
    assert done.returncode == 0, done
    assert folder.json("result", id, code=1)["error"]["type"] == "SystemExit"


# -- the proof itself can fail ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["ledger", "session", "marker", "title"])
def test_a_survivor_is_found(tmp_path: Path, how: str) -> None:
    marker, task = uuid.uuid4().hex, uuid.uuid4().hex
    env = {MARKER: marker} if how == "marker" else {}
    program = ["import sys; sys.stdin.read()", *([task] if how == "title" else [])]
    left = subprocess.Popen([sys.executable, "-c", *program], stdin=subprocess.PIPE, env=env, start_new_session=how == "session")
    try:
        started = Path(f"/proc/{left.pid}/stat").read_text().rpartition(")")[2].split()[19]
        if how in ("ledger", "session"):
            pid = left.pid if how == "ledger" else 1 << 30
            (tmp_path / "ledger").write_text(f"{pid} {left.pid if how == 'session' else 1 << 30} {started}\n")
        (line,) = survivors(tmp_path / "ledger", marker, task)
        assert line.startswith(f"{left.pid} by {how}:")
    finally:
        left.communicate()
    assert survivors(tmp_path / "ledger", marker, task) == []


def test_a_zombie_is_found(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        started = Path(f"/proc/{dead.pid}/stat").read_text().rpartition(")")[2].split()[19]
        os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
        (tmp_path / "ledger").write_text(f"{dead.pid} {1 << 30} {started}\n")
        assert zombies_after(0.1, tmp_path / "ledger", -1) == [f"{dead.pid}, a zombie of {os.getpid()}"]
        assert zombies_after(0.1, tmp_path / "nothing", os.getpid()) != [], "nor may the launcher have others"
    assert zombies_after(0, tmp_path / "ledger", -1) == []


def test_a_late_end_is_a_fault() -> None:
    fields = {"name": "loop", "status": TaskStatus(id="1", name="x", queue="q", state=TaskState.FAILED), "complaint": ""}
    found = Finding(**fields, survivors=(), zombies=(), late=LATE + 1, neighbour_late=LATE + 2)  # type: ignore[arg-type]
    assert len(found.faults) == 2
    assert Finding(**fields, survivors=(), zombies=(), late=None, neighbour_late=0.1).faults == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        (Ends("X"), {"state": TaskState.SUCCEEDED}),
        (Ends("X"), {"state": TaskState.FAILED, "error": TaskError(type="Y", message="")}),
        (Ends("X", "SIGSEGV"), {"state": TaskState.FAILED, "error": TaskError(type="X", message="", signal="SIGKILL")}),
        (Ends(None, "done"), {"state": TaskState.SUCCEEDED, "result": "undone"}),
        (Ends(None, "done"), {"state": TaskState.RUNNING}),
    ],
)
def test_a_wrong_ending_is_complained_of(ends: Ends, status: dict[str, object]) -> None:
    assert ends.complaint(TaskStatus(id="1", name="x", queue="q", **status))  # type: ignore[arg-type]
