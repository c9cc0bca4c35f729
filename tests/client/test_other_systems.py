"""Producers on systems that are not Linux: what Windows and macOS lack is hidden from a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stem_iso import Stem, Worker
from tests.cli.conftest import ROOT

WINDOWS = """
import os, select, sys
for name in ("fcntl", "termios", "resource", "pwd", "grp"):
    sys.modules[name] = None
for name in ("register_at_fork", "fork", "sched_getaffinity", "pipe2", "memfd_create", "pidfd_open", "eventfd"):
    vars(os).pop(name, None)
if hasattr(os, "process_cpu_count"):
    os.process_cpu_count = os.cpu_count  # as Python itself says where there is no sched_getaffinity
for name in [name for name in vars(select) if "poll" in name.lower() or name.startswith("kq")]:
    delattr(select, name)
"""
MACOS = (
    WINDOWS.replace('"fcntl", "termios", "resource", "pwd", "grp"', '"nis",')
    .replace('"register_at_fork", "fork", ', "")
    .replace('"poll" in name.lower()', 'name.lower().startswith("epoll")')
)
PRODUCER = """
import asyncio
import stem_iso
from stem_iso import Stem, group

[getattr(stem_iso, name) for name in stem_iso.__all__ if name not in ("Worker", "IsolatePool")]
app = Stem(URL)

@app.task(name="double", isolate=True, hard_time_limit=30)
def double(n: int) -> int:
    return 2 * n

async def wait() -> list[int]:
    handle = await double.aenqueue(4)
    return await asyncio.gather(*(handle.aresult(timeout=60) for _ in range(50)))

print(double.enqueue(1).result(timeout=60))
print([handle.result(timeout=60) for handle in app.enqueue_many([double.s(n) for n in range(3)])])
print(set(asyncio.run(wait())))
print(group(double.s(n) for n in range(3)).enqueue().results(timeout=60))
"""


def on(system: str, program: str, folder: Path, **values: str) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(f"{system}\n{''.join(f'{name} = {value!r}' for name, value in values.items())}\n{program}")
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "program.py"], cwd=folder, env=environ, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("system", [WINDOWS, MACOS], ids=["windows", "macos"])
def test_a_producer_declares_enqueues_and_waits_over_redis(system: str, redis_url: str, tmp_path: Path) -> None:
    app = Stem(redis_url)
    app.task(name="double", isolate=True)(double)
    with Worker(app, concurrency=1, spares=0):
        done = on(system, PRODUCER, tmp_path, URL=redis_url)
    app.close()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "2\n[0, 2, 4]\n{8}\n[0, 2, 4]\n"


def double(n: int) -> int:
    return 2 * n


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("from stem_iso import Worker", "stem_iso.Worker needs Linux 5.4 or later"),
        ("import stem_iso; stem_iso.IsolatePool", "stem_iso.IsolatePool needs Linux 5.4 or later"),
        (
            "from stem_iso import Stem; Stem('sqlite:///x.db').enqueue('a')",
            "sqlite:// needs Linux or macOS: on this system enqueue over redis://",
        ),
        ("from stem_iso import Stem; Stem('memory://').enqueue('a')", "memory:// needs Linux or macOS"),
    ],
)
def test_what_needs_linux_says_so_in_one_sentence(program: str, message: str, tmp_path: Path) -> None:
    done = on(WINDOWS, program, tmp_path)
    assert done.returncode == 1 and message in done.stderr.splitlines()[-1]
