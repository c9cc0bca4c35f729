"""Semaphores, shared memory and folders that a function had made and not removed go with its isolate; what others made stays."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from multiprocessing import shared_memory
from pathlib import Path
from textwrap import dedent

import loky
import pytest

from stem_iso import IsolatePool, TimeoutException
from stem_iso.isolate.keeper import process_tree
from stem_iso.isolate.keeper.resource_tracker import Register, decode
from tests.isolate import shared
from tests.isolate.calling import BOUND, eventually

ROOT = str(Path(__file__).parents[2])


@pytest.fixture
def parent(tmp_path: Path) -> str:
    (tmp_path / "copied").mkdir()
    (tmp_path / "copied" / "__init__.py").write_text("")
    shutil.copytree(Path(loky.__file__).parent, tmp_path / "copied" / "loky")
    return str(tmp_path)


def gone(paths: list[str]) -> None:
    assert paths
    eventually(lambda: not any(map(os.path.exists, paths)), "it was left behind")


def test_what_a_function_leaves_goes_with_its_isolate_and_costs_none(parent: str) -> None:
    with IsolatePool(1, spares=0) as pool:
        (first, made), (second, more) = (pool.submit(shared.with_pid).result() for _ in range(2))
        assert first == second, "a semaphore cost an isolate"
        made += more + pool.submit(shared.everything, parent).result()
        assert len(made) == 10 and all(map(os.path.exists, made))
    assert not any(map(os.path.exists, made))


@pytest.mark.slow
@pytest.mark.repeat
def test_what_a_killed_function_had_made_is_removed(parent: str, tmp_path: Path) -> None:
    file = str(tmp_path / "made")
    with IsolatePool(1, spares=0) as pool:
        for make, args in ((shared.everything, (parent,)), (shared.in_a_child, ("spawn", file)), (shared.in_a_child, ("fork", file))):
            future = pool.submit(shared.spin_with, make, file, *args)
            eventually(lambda: os.path.exists(file), "it made nothing")
            made = Path(file).read_text().split()
            assert all(map(os.path.exists, made))
            os.unlink(file)
            Path(file + ".child").unlink(missing_ok=True)
            future.cancel()
            gone(made)
        with pytest.raises(TimeoutException):
            pool.with_limits(hard=2).submit(shared.spin_with, shared.semaphores, file).result()
        gone(Path(file).read_text().split())


@pytest.mark.parametrize("victim", ["program", "keeper", "isolate"])
def test_what_was_made_is_removed_whoever_is_killed(tmp_path: Path, victim: str) -> None:
    file = tmp_path / "made"
    program = dedent(f"""
        from stem_iso import IsolatePool
        from tests.isolate import shared
        with IsolatePool(1, spares=0) as pool:
            pool.on(lambda notice: print(notice.pid, flush=True) if getattr(notice, "action", "") == "ready" else None)
            print(pool._backend.engine._isolates.keeper.pid, flush=True)
            pool.submit(shared.spin_with, shared.semaphores, {str(file)!r}).exception()
    """)
    env = {**os.environ, "PYTHONPATH": ROOT}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=env) as running:
        assert running.stdout is not None
        keeper, isolate = int(running.stdout.readline()), int(running.stdout.readline())
        eventually(file.exists, "it made nothing")
        eventually(
            lambda: any(b"keeper.resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in process_tree.children(keeper)),
            "no tracker was started",
        )
        os.kill({"program": running.pid, "keeper": keeper, "isolate": isolate}[victim], signal.SIGKILL)
        gone(file.read_text().split())
        running.wait(BOUND)


@pytest.mark.slow
def test_shared_memory_that_somebody_else_made_stays(tmp_path: Path) -> None:
    block = shared_memory.SharedMemory(create=True, size=4096)
    try:
        with IsolatePool(1, spares=0) as pool:
            assert pool.submit(shared.attach, block.name).result() == 1
            _, others = pool.submit(shared.with_pid).result()
            with pytest.raises(TimeoutException):
                pool.with_limits(hard=1).submit(shared.attach_and_spin, block.name).result()
            gone(others)
            assert pool.submit(shared.attach, block.name).result() == 3
        assert os.path.exists(f"/dev/shm/{block.name}")
    finally:
        block.close()
        block.unlink()


# -- the register ----------------------------------------------------------------------------------------------------------------------


def name(prefix: str = "") -> str:
    return f"{prefix}stem_iso-test-{uuid.uuid4().hex}"


def feed(register: Register, *lines: str) -> None:
    for line in lines:
        register.line(line.encode())


def test_what_is_counted_is_removed_when_its_count_is_back_at_zero(tmp_path: Path) -> None:
    file = tmp_path / "a:b"
    file.write_text("")
    register = Register()
    feed(register, f"REGISTER:{file}:file", f"REGISTER:{file}:file", f"MAYBE_UNLINK:{file}:file", f"MAYBE_UNLINK:{tmp_path}/other:file")
    assert file.exists()
    feed(register, f"MAYBE_UNLINK:{file}:file")
    assert not file.exists()
    register.remove_all()


def test_what_was_unregistered_or_replaced_or_only_attached_stays(tmp_path: Path) -> None:
    made, attached, unregistered, replaced = (Path("/dev/shm", name()) for _ in range(4))
    everybody = (made, attached, unregistered, replaced)
    register = Register()
    try:
        for path in everybody:
            path.write_text("")
        feed(register, *(f"CREATED:/{path.name}:shared_memory" for path in everybody if path is not attached))
        feed(register, *(f"REGISTER:/{path.name}:shared_memory" for path in everybody))
        feed(register, f"REGISTER:/{unregistered.name}:shared_memory", f"UNREGISTER:/{unregistered.name}:shared_memory")
        other = tmp_path / "other"
        replaced.rename(f"{replaced}.held")  # its inode stays taken
        replaced.write_text("somebody else's")
        register.remove_all()
        assert [path.exists() for path in everybody] == [False, True, True, True]
        assert not other.exists()
    finally:
        for path in (*everybody, Path(f"{replaced}.held")):
            path.unlink(missing_ok=True)


def test_a_name_that_leads_elsewhere_is_nobodys(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("")
    register = Register()
    feed(register, f"REGISTER:/../..{victim}:semaphore", "REGISTER:relative:file", "REGISTER:/:semaphore", "PROBE:0:noop", "REGISTER:x:y")
    register.remove_all()
    assert victim.exists()


def test_both_forms_of_a_line_are_read() -> None:
    assert decode(b"REGISTER:/mp-a:b:semaphore") == ("REGISTER", "semaphore", "/mp-a:b")
    assert decode(b'{"cmd":"REGISTER","rtype":"shared_memory","base64_name":"L2E="}') == ("REGISTER", "shared_memory", "/a")
    for broken in (b"{", b"{}", b"\xff\xfe"):
        with pytest.raises((ValueError, KeyError, AssertionError)):
            assert decode(broken)[1]
