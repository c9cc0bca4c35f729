"""The isolates of a worker by command: its flags, the working folder first, and multiprocessing as in any program."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from textwrap import dedent

import pytest

from stem_iso import Stem
from tests.command.conftest import ROOT

APP = dedent("""
    import sys
    from stem_iso import Stem
    from tests.isolate import parallel
    from tests.isolate.leaving import at_exit

    app = Stem("sqlite:///jobs.db")

    @app.task(isolate=True)
    def processes() -> list:
        found = [parallel.start_method("spawn"), parallel.joined(None)]
        return found + [parallel.pool_of(method) for method in ("fork", "spawn", "forkserver")]

    @app.task(isolate=True)
    def interpreter() -> list:
        import stringprep, __main__
        flags = sys.flags
        main = [getattr(__main__, "__file__", None), getattr(__main__, "__spec__", None)]
        return [flags.optimize, flags.utf8_mode, sys.warnoptions, flags.safe_path, stringprep.__file__, sys.path[0], main]

    @app.task(isolate=True)
    def leaving(folder: str) -> int:
        return at_exit(folder)

    @app.task
    def inline(folder: str) -> list:
        return [sys.flags.optimize, sys.path[0], at_exit(folder)]
""")


@pytest.mark.slow
def test_tasks_have_the_interpreter_of_their_worker(tmp_path: Path) -> None:
    """Beside files that are named like what launcher, core and isolates import for themselves."""
    (tmp_path / "jobs.py").write_text(APP)
    (tmp_path / "stringprep.py").write_text("")
    for ours in ("loky", "setproctitle"):  # what `python -m stem_iso.worker` itself does not import before it is ours
        (tmp_path / f"{ours}.py").write_text("raise SystemExit('imported from the working folder')")
    with closing(Stem(f"sqlite:///{tmp_path}/jobs.db")) as app:
        handles = [app.enqueue(f"jobs.{name}") for name in ("processes", "interpreter")]
        handles += [app.enqueue(f"jobs.{name}", {"folder": str(tmp_path)}) for name in ("inline", "leaving")]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-O", "-X", "utf8", "-W", "ignore::UserWarning", "-m", "stem_iso.worker", "-A", "jobs", "--burst"]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=110)
        assert done.returncode == 0, done.stderr
        processes, found, inline, left = (handle.result(timeout=1) for handle in handles)
    assert processes == ["spawn", 0, [2, 4, 6], [2, 4, 6], [2, 4, 6]]
    folder = str(tmp_path)
    assert found == [1, 1, ["ignore::UserWarning"], False, f"{folder}/stringprep.py", folder, [None, None]]
    assert inline[:2] == [1, folder]
    for pid in (inline[2], left):  # both are idle when the worker ends, and leave with their exit hooks
        assert (tmp_path / str(pid)).read_text() == "left"


def test_what_forbids_the_working_folder_forbids_it_to_a_worker_too(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(APP)
    command = [sys.executable, "-P", "-m", "stem_iso.worker", "-A", "jobs", "--burst"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "'jobs'" in done.stderr and "-P" in done.stderr, done.stderr
