"""Handlers that behave as badly as they can: each ends as it must, the worker goes on, and nothing they start outlives them."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from entrypoints import hostile
from stem_iso import Stem, TaskFailed, TaskState, TaskStatus
from tests.cli.conftest import Folder

AT_THEIR_LIMIT = ["loop", "sums", "regex", "sleep", "deaf", "handlers", "swallow", "flood", "children", "daemon", "forks", "subprocesses"]
DIE = {"segfault": "SIGSEGV", "exit_zero": 0, "abort": "SIGABRT", "kill_group": "SIGKILL"}
FAIL = {"sys_exit": "SystemExit", "unpicklable": "entrypoints.hostile.Unpicklable", "mute": "entrypoints.hostile.Mute"}
WITH_CHILDREN = ["children", "daemon", "forks", "subprocesses"]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stem]:
    """A worker by command, of all hostile handlers, for all tests of this file: none of them may disturb the next."""
    folder = Folder(tmp_path_factory.mktemp("hostile"))
    broker = f"sqlite:///{folder.path}/jobs.db"
    folder.environ["STEM_ISO_BROKER"] = broker
    with (folder.path / "log").open("w") as log:
        process = folder.start("-m", "stem_iso.worker", "-A", "entrypoints.hostile:app", "-c", "2", stdout=log, stderr=log)
        producer = Stem(broker)
        yield producer
        producer.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0


def ended(app: Stem, name: str, **args: object) -> TaskStatus:
    handle = app.enqueue(f"hostile.{name}", args)
    with suppress(TaskFailed):
        handle.result(timeout=60)
    return handle.status()


def test_the_list_is_complete() -> None:
    others = {"threads", "garbage", "close_all", "unserialisable", "big"}
    assert {name.removeprefix("hostile.") for name in hostile.app.tasks} == {*AT_THEIR_LIMIT, *DIE, *FAIL, *others}


@pytest.mark.repeat
@pytest.mark.parametrize("name", AT_THEIR_LIMIT)
def test_what_never_ends_is_killed_at_its_limit(app: Stem, name: str) -> None:
    status = ended(app, name)
    assert status.state is TaskState.FAILED and status.error is not None
    assert status.error.type == "stem_iso.errors.TimeoutException"
    if name not in {"deaf", "handlers", *WITH_CHILDREN}:  # they block or replace what answers the request for a stack, or leave it no time
        assert "hostile.py" in status.error.stack


@pytest.mark.repeat
@pytest.mark.parametrize("name", WITH_CHILDREN)
def test_nothing_that_it_started_outlives_a_task(app: Stem, name: str, tmp_path: Path) -> None:
    ledger = tmp_path / "pids"
    status = ended(app, name, ledger=str(ledger))
    assert status.state is TaskState.FAILED
    pids = {int(line) for line in ledger.read_text().split()}
    assert pids
    assert {pid for pid in pids if _lives(pid)} == set()


def _lives(pid: int) -> bool:
    """A zombie is dead: it waits for whoever reaps it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("name", "how"), DIE.items())
def test_a_death_is_told_as_what_it_was(app: Stem, name: str, how: str | int) -> None:
    status = ended(app, name)
    assert status.state is TaskState.FAILED and status.error is not None
    assert status.error.type == "stem_iso.errors.IsolateCrashed"
    assert how in (status.error.signal, status.error.exit_code)


@pytest.mark.parametrize(("name", "type"), FAIL.items())
def test_an_error_comes_with_its_type_whatever_it_is(app: Stem, name: str, type: str) -> None:
    status = ended(app, name)
    assert status.state is TaskState.FAILED and status.error is not None
    assert status.error.type == type
    assert "hostile.py" in status.error.traceback


@pytest.mark.parametrize(("name", "says"), [("unserialisable", "object"), ("big", "max_result_bytes")])
def test_a_result_that_cannot_be_stored_fails_the_task_and_says_why(app: Stem, name: str, says: str) -> None:
    status = ended(app, name)
    assert status.state is TaskState.FAILED and status.error is not None
    assert says in status.error.message and not status.error.retryable


def test_garbage_and_closed_descriptors_cost_one_isolate(app: Stem) -> None:
    for name in ("garbage", "close_all"):
        status = ended(app, name)
        assert status.state in (TaskState.SUCCEEDED, TaskState.FAILED)
        assert status.error is None or status.error.type in ("stem_iso.errors.IsolateCrashed", "stem_iso.errors.TimeoutException")
    assert ended(app, "threads").result == "threads left behind"


def test_an_innocent_task_beside_a_stuck_one_is_not_late(app: Stem) -> None:
    stuck = app.enqueue("hostile.sums")
    began = time.monotonic()
    assert app.enqueue("hostile.threads").result(timeout=60) == "threads left behind"
    assert time.monotonic() - began < 5
    with pytest.raises(TaskFailed, match="time limit"):
        stuck.result(timeout=60)


def test_by_hand_as_the_module_says(folder: Folder) -> None:
    folder.environ["STEM_ISO_BROKER"] = f"sqlite:///{folder.path}/jobs.db"
    id = folder.stem("enqueue", "hostile.sys_exit", "-A", "entrypoints.hostile:app", "--args", json.dumps({"ledger": None})).stdout.strip()
    done = folder.run("-m", "stem_iso.worker", "-A", "entrypoints.hostile:app", "--burst")
    assert done.returncode == 0, done
    assert folder.json("result", id, code=1)["error"]["type"] == "SystemExit"
