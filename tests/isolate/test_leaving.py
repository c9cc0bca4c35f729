"""An isolate that is idle and not needed any more ends as a program does: its exit hooks run (coverage writes its data in one)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stem_iso import IsolatePool, TimeoutException
from tests.isolate import leaving
from tests.isolate.calling import assert_dead, eventually


def left(folder: Path, pid: int) -> bool:
    return (folder / str(pid)).exists() and (folder / f"{pid}.finalized").exists()


def test_exit_hooks_run_when_the_pool_ends(tmp_path: Path) -> None:
    with IsolatePool(1, spares=1, initializer=leaving.at_exit, initargs=(str(tmp_path),)) as pool:
        pid = pool.submit(leaving.at_exit, str(tmp_path)).result()
        assert not left(tmp_path, pid)
    assert left(tmp_path, pid)


def test_exit_hooks_run_where_an_isolate_is_replaced_or_one_too_many(tmp_path: Path) -> None:
    with IsolatePool(2, spares=0, max_tasks_per_isolate=1) as pool:
        pid = pool.submit(leaving.at_exit, str(tmp_path)).result()
        eventually(lambda: left(tmp_path, pid), "its hooks did not run")
    with IsolatePool(2, spares=0, initializer=leaving.at_exit, initargs=(str(tmp_path),)) as pool:
        futures = [pool.submit(leaving.meet, str(tmp_path / name), str(tmp_path / other)) for name, other in (("a", "b"), ("b", "a"))]
        pids = [future.result() for future in futures]
        pool.resize(1, 0)
        eventually(lambda: any(left(tmp_path, pid) for pid in pids), "nobody's hooks ran")


def test_a_killed_call_runs_no_exit_hooks(tmp_path: Path) -> None:
    with IsolatePool(1, spares=0, initializer=leaving.at_exit, initargs=(str(tmp_path),)) as pool:
        pid = pool.submit(leaving.at_exit, str(tmp_path)).result()
        with pytest.raises(TimeoutException):
            pool.with_limits(hard=0.2).submit(leaving.spin).result()
        assert_dead(pid, within=1.0)
    assert not left(tmp_path, pid)


@pytest.mark.parametrize("killed", [False, True])
def test_an_exit_hook_that_does_not_end_holds_nobody_up(tmp_path: Path, killed: bool) -> None:
    pool = IsolatePool(1, spares=0)
    pid = pool.submit(leaving.never_ends, str(tmp_path)).result()
    began = time.monotonic()
    pool.kill_workers() if killed else pool.shutdown()
    assert time.monotonic() - began < 20
    assert_dead(pid, within=1.0)
    assert killed or (tmp_path / str(pid)).exists()  # the hooks before it ran
